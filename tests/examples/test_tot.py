"""The tip-of-the-tongue example: its prompts, programs, experts, measures, data and command line."""

from __future__ import annotations

import itertools
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from ramify.backends.scripted import ScriptedBackend
from ramify.backends.tiny import books as world
from ramify.backends.tiny.tasks import draw_task
from ramify.examples.tot import __main__ as command
from ramify.examples.tot import decompose, load_rows, main, rerank
from ramify.examples.tot.birco import load_birco
from ramify.examples.tot.catalogue import Book, Catalogue, Query, invented, load, save
from ramify.examples.tot.evaluate import DECOMPOSED, GOLD, WHOLE, clue_accuracy, evaluate_clues
from ramify.examples.tot.experts import bm25, expert, is_clue, years
from ramify.examples.tot.metrics import average_precision, evaluate, ndcg, recall
from ramify.examples.tot.mixture import GRID, field_scores, make_experts, mixed, ranking, search_weights
from ramify.examples.tot.program import SHOTS, YEAR, copy_grammar
from ramify.examples.tot.prompts import FIELDS, FOLDER, KEYS, STEMS, asked, heads
from ramify.ir.errors import UsageError
from ramify.runtime.constraint import grammar_constraint, matches

QUERY = "I read it about ten years ago. The cover was red."


# Prompts


def test_prompts_are_those_the_embedded_model_learnt() -> None:
    ours = heads()
    assert tuple(ours) == world.CLUE_FIELDS
    for field in FIELDS:
        before, after = world.INSTRUCTIONS[field]
        assert ours[field].startswith(f"{before}\nQuestion: ") and ours[field].endswith(f"\n\n{after}\n")
        example = next(e for e in (draw_task(f"clue-{field}", "train", n) for n in range(99)) if len(e.messages) > 3)
        learnt = "".join(message.content for message in example.prompt)
        assert learnt.startswith(f"{before}\nQuestion: ") and f"\n\n{after}\nQuestion: " in learnt
        question = world.draw_question(world.Random(0), world.draw_book(world.Random(0)))
        assert asked(field, question.text, question.posted) == world.asked(field, question)


def test_our_worked_examples_copy_their_clues() -> None:
    for field in FIELDS:
        path = FOLDER / "examples" / f"{STEMS[field]}_clue_examples.jsonl"
        examples = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        clues = [example[KEYS[field]] for example in examples]
        assert len(examples) == 8
        if field == "date":
            assert all(
                len(clue) == 4 and int(clue) <= int(e["question_posted_date"][:4])
                for e, clue in zip(examples, clues, strict=True)
            )
        else:
            assert 2 <= clues.count("N/A") <= 4
            assert all(clue == "N/A" or clue in e["question"] for e, clue in zip(examples, clues, strict=True))


def released(folder: Path) -> Path:
    """A folder of prompts in the released format."""
    (folder / "examples").mkdir()
    for field, stem in STEMS.items():
        (folder / f"{stem.replace('_', '.')}.prompt.txt").write_text(f"Find the {field}:\nNow this:")
        example = {"question": "Red?", KEYS[field]: "Red"} | (
            {"question_posted_date": "2020-01-02"} if field == "date" else {}
        )
        (folder / "examples" / f"{stem}_clue_examples.jsonl").write_text(2 * (json.dumps(example) + "\n"))
    return folder


def test_a_folder_in_the_released_format_gives_the_released_prompt(tmp_path: Path) -> None:
    loaded = heads(released(tmp_path))
    shot = "Question: Red? Plot Clue: Red"
    assert loaded["plot"] + asked("plot", "Q", "") == (
        f"Find the plot:\n{shot}\n{shot}\n\nNow this:\nQuestion: Q Plot Clue:"
    )
    shot = "Question: Red? Question Posted Date: 2020-01-02 Date Clue: Red"
    assert loaded["date"] + asked("date", "Q", "2021-03-04") == (
        f"Find the date:\n{shot}\n{shot}\n\nNow this:\nQuestion: Q Question Posted Date: 2021-03-04 Date Clue:"
    )
    assert loaded["date_extract"].count("Date Clue: Red") == 2
    assert heads(tmp_path, shots=1)["plot"].count("Red?") == 1


def test_what_is_wrong_with_a_folder_of_prompts_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"author\.prompt\.txt"):
        heads(tmp_path)
    released(tmp_path)
    (tmp_path / "cover.prompt.txt").write_text("one line")
    with pytest.raises(UsageError, match=r"cover\.prompt\.txt has 1 line, not two"):
        heads(tmp_path)
    (tmp_path / "cover.prompt.txt").write_text("one\ntwo\n")
    (tmp_path / "examples" / "cover_clue_examples.jsonl").write_text('{"question": "Red?"}\n')
    with pytest.raises(UsageError, match=r"line 1 of .*cover_clue_examples\.jsonl"):
        heads(tmp_path)


# Programs


def test_a_query_forks_into_a_call_for_each_field() -> None:
    backend = ScriptedBackend(
        lambda text, _params: " The cover was red\nmore" if text.endswith("Cover Clue:") else " N/A"
    )
    run = decompose.run(QUERY, "2020-05-06", backend=backend)
    assert run.value == {**dict.fromkeys(FIELDS, "N/A"), "cover": "The cover was red"}
    assert sorted(backend.requests) == sorted(
        text + asked(f, QUERY, "2020-05-06") for f, text in heads(shots=SHOTS).items()
    )


def test_the_date_is_not_asked_for_without_the_day_of_posting() -> None:
    backend = ScriptedBackend(lambda _text, _params: " 1999")
    run = decompose.run(QUERY, backend=backend)
    assert run.value["date"] == "N/A" and run.value["date_extract"] == "1999" and len(backend.requests) == 6


def test_as_chat_a_prompt_is_one_user_message() -> None:
    backend = ScriptedBackend()
    run = decompose.run(QUERY, heads={"cover": "Look:\n"}, chat=True, backend=backend)
    assert list(run.value) == ["cover"]
    assert f"Look:\nQuestion: {QUERY} Cover Clue:" in backend.requests[0] and "assistant" in backend.requests[0]


def test_eager_equals_compiled_and_the_heads_are_shared() -> None:
    runs = [decompose.run(QUERY, "2020-05-06", eager=eager) for eager in (True, False)]
    assert runs[0].value == runs[1].value and set(runs[1].value) == set(FIELDS)
    explained = decompose.explain([{"query": f"{QUERY} {n}", "posted": "2020-05-06"} for n in range(5)])
    (line,) = explained.lines
    assert line.costs.calls == 35 and line.costs.prefill < 0.5 * line.costs.prompt and explained.critical_path == 1


def test_clues_are_words_of_the_query_or_nothing() -> None:
    odd = 'Zs "x"\\ \u00fcber\nthe end. ' + QUERY
    grammar = grammar_constraint(copy_grammar(odd))
    for text in (" N/A", " the end. I read it", " The cover", " N/A\n", ' "x"\\ \u00fcber', "was red."):
        assert matches(grammar, text), text
    for text in (" cover red", " the cover", " I read it and", " he cover", " N/B"):
        assert not matches(grammar, text), text
    assert matches(grammar_constraint(copy_grammar("the end, then")), " the end")
    year = grammar_constraint(YEAR)
    assert matches(year, " 1999") and matches(year, " N/A\n")
    assert not matches(year, " 199") and not matches(year, " red")


def test_clues_of_real_queries_are_copied(data: Path) -> None:
    catalogue = load_birco(data / "tot" / "birco_whatsthatbook_CC-BY-NC-4.0")
    short = sorted(catalogue.test, key=lambda query: len(query.text))[:2]
    rows = [{"query": query.text, "heads": heads(shots=0), "copied": True} for query in short]
    for run, query in zip(decompose.run_batch(rows), short, strict=True):
        assert all(clue == "N/A" or clue in query.text for clue in run.value.values())


def test_the_embedded_model_finds_most_clues_of_unseen_queries() -> None:
    unseen = invented().test[:12]
    runs = decompose.run_batch([{"query": query.text, "posted": query.posted} for query in unseen])
    shares = clue_accuracy(unseen, {query.id: run.value for query, run in zip(unseen, runs, strict=True)})
    assert sum(shares.values()) / len(shares) >= 0.85


def test_reranking_lists_criteria_once_and_takes_the_mean_score() -> None:
    best = {"ship": 9, "cat": 2}

    def score(text: str, choice: str) -> float:
        return 0.0 if choice == f"{next(n for word, n in best.items() if f'a {word}' in text)}/10" else -50.0

    backend = ScriptedBackend(lambda _text, _params: "A ship.", score=score)
    run = rerank.run("Which?", ["about a cat", "about a ship"], backend=backend)
    assert run.value == pytest.approx([2, 9], abs=1e-6)
    assert sum(record.name == "criteria" for record in run.trace) == 1
    even = rerank.run("Which?", ["about a cat"], backend=ScriptedBackend(score=lambda _text, _choice: -3.0))
    assert even.value == pytest.approx([5])


def test_main_finds_books_of_the_invented_catalogue() -> None:
    book = invented().books[7]
    clues = {"Author": f"the author was {book.author}", "Title": f"the title was {book.title}"}

    def say(text: str, _params: object) -> str:
        return next((clue for field, clue in clues.items() if text.endswith(f"{field} Clue:")), "N/A")

    run = main.run("Which?", k=3, backend=ScriptedBackend(say))
    assert len(run.value["books"]) == 3 and run.value["books"][0]["title"] == book.title
    assert run.value["clues"]["author"] == clues["Author"]


# Experts and their sum


def test_the_years_code() -> None:
    scores = years([1950, 1975, 1990, 2014, 2015, 2030, None])
    # 2000 + 15 is the 40th of 1975..2023: books of up to 2014 have a one there.
    assert scores("It was in 2000.").tolist() == [1, 1, 1, 1, 0, 0, 1]
    assert scores("1950").tolist() == [1, 1, 0, 0, 0, 0, 1]
    assert scores("2023").tolist() == [1, 1, 1, 1, 1, 1, 1]
    assert scores("long ago").tolist() == [0] * 7
    for asked_for, published in itertools.product(range(1960, 2030, 7), range(1970, 2026, 5)):
        code = [float(place >= min(max(published - 1975, 0), 47)) for place in range(48)]
        expected = code[max(min(max(asked_for + 15, 1975), 2023) - 1976, 0)]
        assert years([published])(str(asked_for)).tolist() == [expected]


def test_bm25_is_that_of_rank_bm25() -> None:
    from rank_bm25 import BM25Okapi

    texts = [book.plot for book in invented(60, 2).books] + [""]
    theirs = BM25Okapi([re.findall(r"\w+", text.lower()) for text in texts])
    for clue in ("A baker finds a red, RED hat", "nothing of that", "Paris and Rome"):
        assert bm25(texts)(clue) == pytest.approx(theirs.get_scores(clue.lower().replace(",", "").split()))


def test_what_counts_as_a_clue() -> None:
    assert all(is_clue(text) for text in ("red", "N/A or so", "1999"))
    assert not any(is_clue(text) for text in ("N/A", " n/a.", "", "None", "NA"))


def test_no_clue_adds_nothing_and_the_sum_is_weighted() -> None:
    books = [
        Book("a", title="The Red Hat", cover="a ship"),
        Book("b", title="The Old Hat", cover="a red ship"),
        Book("c"),
    ]
    experts = make_experts(books)
    assert list(experts) == ["cover", "title"]
    scores = field_scores(experts, {"title": "N/A", "cover": "it was red"}, 3)
    assert scores[1].tolist() == [0, 0, 0] and scores[0].argmax() == 1 and scores[0].max() == 1
    both = field_scores(experts, {"title": "red", "cover": "red"}, 3)
    assert mixed(both, {"cover": 2, "title": 1}, ["cover", "title"]).argmax() == 1
    assert mixed(both, {"cover": 1, "title": 2}, ["cover", "title"]).argmax() == 0
    assert ranking(np.array([0.0, 1.0, 1.0]), books) == ["b", "c", "a"]
    assert ranking(np.array([0.0, 1.0, 1.0]), books, pool=["a", "c"]) == ["c", "a"]


def test_the_grid_search_is_exhaustive() -> None:
    rng = np.random.default_rng(3)
    books = [Book(f"b{n}") for n in range(30)]
    queries = [Query(f"q{n}", "", [f"b{n}"]) for n in range(12)]
    scores = [rng.random((3, 30)) for _ in queries]
    for number, found in enumerate(scores):
        found[1, number] += 0.4
    fields = ["x", "y", "z"]

    def mrr(weights: tuple[float, ...]) -> float:
        sums = [np.array(weights) @ found for found in scores]
        return sum(1 / (1 + (sums[n] > sums[n][n] + 1e-6).sum()) for n in range(12))

    best = max(mrr(weights) for weights in itertools.product(GRID, repeat=3) if max(weights) > 0)
    found = search_weights(scores, queries, books, fields)
    assert mrr(tuple(found.values())) == pytest.approx(best) and found["y"] > 0


def test_experts_that_cannot_be_made_say_why() -> None:
    books = [Book("a", cover="a ship", year=1999)]
    with pytest.raises(UsageError, match="no book has an `image`"):
        expert("clip", "cover", books)
    for kind, field in (("clip", "plot"), ("year", "plot"), ("bm26", "plot")):
        with pytest.raises(UsageError, match="no retriever"):
            expert(kind, field, books)
    with pytest.raises(UsageError, match="no book has this field"):
        bm25(["", " "])


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    books = [Book("a", cover="a ship", image="a.png")]
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    for kind in ("dense", "clip", "dense:some/folder"):
        with pytest.raises(UsageError, match="sentence-transformers") as raised:
            expert(kind, "cover", books)
        assert "ramify[dense]" in str(raised.value)


class Encoder:
    """Stands in for a model of sentence-transformers: the colours that a text names, or that a picture has."""

    def __init__(self, model: str) -> None:
        self.model = model

    def encode(self, items: Any, normalize_embeddings: bool) -> np.ndarray:
        assert normalize_embeddings
        return np.array([self.one(item) for item in items]) if isinstance(items, list) else self.one(items)

    def one(self, item: Any) -> np.ndarray:
        if isinstance(item, str):
            vector = np.array([0.1 + item.count(colour) for colour in ("red", "green", "blue")])
        else:
            vector = 0.1 + np.asarray(item, dtype=float).mean(axis=(0, 1))
        return vector / np.linalg.norm(vector)


def test_dense_and_clip_experts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    monkeypatch.setitem(sys.modules, "sentence_transformers", SimpleNamespace(SentenceTransformer=Encoder))
    for colour in ("red", "green"):
        image.new("RGB", (4, 4), colour).save(tmp_path / f"{colour}.png")
    books = [
        Book("a", title="green hat", image=str(tmp_path / "red.png")),
        Book("b"),
        Book("c", title="red ship", image=str(tmp_path / "green.png")),
    ]
    for kind, field, best in (("dense:mine", "title", 2), ("clip:mine", "cover", 0)):
        scores = expert(kind, field, books)("it was red")
        assert scores.argmax() == best and scores[1] == scores.min() < scores.max() <= 1
    with pytest.raises(UsageError, match=r"cannot read the picture none\.png"):
        expert("clip", "cover", [Book("a", image="none.png")])


def test_a_trained_bi_encoder_is_loaded_from_its_folder(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    known = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "the", "red", "green", "hat", "ship"])}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=16
    ).save_pretrained(tmp_path)
    BertModel(
        BertConfig(
            vocab_size=len(known), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
        )
    ).save_pretrained(tmp_path)
    scores = expert(f"dense:{tmp_path}", "title", [Book("a", title="the green ship"), Book("b", title="the red hat")])
    assert scores("the red hat").argmax() == 1 and scores("the red hat").max() == pytest.approx(1, abs=1e-4)


# Measures and data


def test_measures_by_hand() -> None:
    found, relevant = ["a", "b", "c", "d"], {"b", "d", "z"}
    assert recall(2)(found, relevant) == pytest.approx(1 / 3)
    assert average_precision(found, relevant) == pytest.approx((1 / 2 + 2 / 4) / 3)
    gain, ideal = 1 / np.log2(3) + 1 / np.log2(5), 1 + 1 / np.log2(3) + 1 / np.log2(4)
    assert ndcg(10)(found, relevant) == pytest.approx(gain / ideal)
    measured = evaluate({"q": found}, {"q": relevant, "lost": {"x"}})
    assert measured["MRR"] == pytest.approx(1 / 4) and measured["R@100"] == pytest.approx(1 / 3)


def test_measures_of_the_released_runs(data: Path) -> None:
    folder = data / "tot" / "birco_whatsthatbook_CC-BY-NC-4.0"
    relevant = {query.id: set(query.relevant) for query in load_birco(folder).test}
    expected = json.loads((folder / "expected_metrics.json").read_bytes())
    assert len(expected) == 6 and len(relevant) == 100
    for name, figures in expected.items():
        measured = evaluate(json.loads((folder / "runs" / f"{name}.json").read_bytes()), relevant)
        assert {measure: round(100 * measured[measure], 2) for measure in figures} == figures


def test_real_queries_are_ranked_within_their_pools(data: Path) -> None:
    catalogue = load_birco(data / "tot" / "birco_whatsthatbook_CC-BY-NC-4.0")
    assert len(catalogue.books) == 2404 + 1767 and len(catalogue.dev) == 57 and len(catalogue.test) == 100
    test = catalogue.test[:3]
    there = {name for query in test for name in query.pool or ()}
    small = Catalogue([book for book in catalogue.books if book.id in there], test[:1], test)
    clues = {query.id: {"plot": query.text[:80]} for query in [*small.dev, *small.test]}
    report = evaluate_clues(small, clues, make_experts(small.books))
    for query in small.test:
        assert query.pool is not None
        assert all(set(rankings[query.id]) == set(query.pool) for rankings in report.rankings.values())
    assert set(report.weights[DECOMPOSED]) == {"plot"} and GOLD not in report.systems


def test_the_invented_catalogue_is_written_and_read(tmp_path: Path) -> None:
    catalogue = invented(50, 20)
    save(catalogue, tmp_path)
    assert load(tmp_path) == catalogue and len(catalogue.dev) == 10
    assert next(load_rows(tmp_path / "test.jsonl")) == {
        "query": catalogue.test[0].text,
        "posted": catalogue.test[0].posted,
    }
    (tmp_path / "dev.jsonl").write_text('{"id": "d", "text": "?", "relevant": ["b999"]}\n')
    with pytest.raises(UsageError, match="query d is about 'b999'"):
        load(tmp_path)
    (tmp_path / "dev.jsonl").write_text('\n{"id": "d"}\n')
    with pytest.raises(UsageError, match=r"line 2 of .*dev\.jsonl is no query"):
        load(tmp_path)


def test_perfect_clues_find_more_than_the_whole_query() -> None:
    catalogue = invented(300, 100)
    clues = {query.id: query.clues for query in [*catalogue.dev, *catalogue.test]}
    experts = make_experts(catalogue.books, {field: "bm25" for field in ("author", "cover", "plot", "title")})
    report = evaluate_clues(catalogue, clues, experts)
    assert report.systems[DECOMPOSED] == report.systems[GOLD]
    gain = report.systems[DECOMPOSED]["R@5"] - report.systems[WHOLE]["R@5"]
    assert report.margin.value == pytest.approx(gain) and gain > 0 and 0 < report.margin.error < 0.1
    assert set(report.clue_accuracy.values()) == {1.0}
    assert set(report.with_gold.values()) == {report.systems[DECOMPOSED]["R@5"]}


# The command line


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: object, code: int = 0) -> None:
    monkeypatch.setattr(sys, "argv", ["tot", *map(str, arguments)])
    assert command.main() == code


def test_the_command_line_from_a_catalogue_to_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_command(monkeypatch, "catalogue", "--out", tmp_path / "data", "--books", 40, "--queries", 8)
    given = (
        "--data",
        tmp_path / "data",
        "--model",
        "scripted",
        "--out",
        tmp_path / "clues.jsonl",
        "--shots",
        1,
    )
    experts = [argument for field in ("genre", "date_extract") for argument in ("--expert", f"{field}=bm25")]
    run_command(monkeypatch, "evaluate", *given, *experts, "--plot", tmp_path / "plot.svg")
    shown = capsys.readouterr()
    assert "40 books, 4 dev and 8 test queries" in shown.out and "calls" in shown.err
    assert "<svg" in (tmp_path / "plot.svg").read_text("utf-8")
    run_command(monkeypatch, "evaluate", *given, "--resume", "--json")
    again = capsys.readouterr()
    assert set(json.loads(again.out)["systems"]) == {
        "whole query",
        "whole query, by field",
        "decomposed",
        "perfect clues",
    }
    assert "12 of them earlier" in again.err


def test_reranking_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save(invented(30, 4), tmp_path)
    run_command(monkeypatch, "rerank", "--data", tmp_path, "--model", "scripted", "--top", 3, "--quiet", "--json")
    report = json.loads(capsys.readouterr().out)
    assert all(len(names) == 3 for names in report["rankings"].values()) and len(report["rankings"]) == 4
    (tmp_path / "run.json").write_bytes(msgspec.json.encode(report["rankings"]))
    run_command(monkeypatch, "metrics", "--data", tmp_path, tmp_path / "run.json")
    measured = capsys.readouterr().out.splitlines()[1].split()
    assert measured[:2] == ["run", f"{100 * report['measures']['reranked']['R@1']:.2f}"]


def test_mistakes_on_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    save(invented(5, 2), tmp_path / "books")
    for arguments, said in (
        (["run", "--data", tmp_path], "books.jsonl"),
        (["run", "--prompts", tmp_path], "author.prompt.txt"),
        (["evaluate", "--expert", "colour=bm25"], "not FIELD=KIND"),
        (["rerank", "--retriever", "google"], "'google' is no retriever"),
        (["metrics", "--data", tmp_path / "books", tmp_path / "books" / "test.jsonl"], "is no run"),
    ):
        run_command(monkeypatch, *arguments, code=2)
        assert said in capsys.readouterr().err
