"""The Gorilla example: prompts, retrievers, the program on the embedded model, constrained calls, the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from ramify.backends.scripted import ScriptedBackend
from ramify.backends.tiny import apis
from ramify.examples.gorilla import ApiCall, call_api, load_rows
from ramify.examples.gorilla.__main__ import main
from ramify.examples.gorilla.data import (
    Question,
    document_in,
    hub_of,
    load_database,
    load_questions,
    load_references,
    load_responses,
)
from ramify.examples.gorilla.evaluate import Scorer
from ramify.examples.gorilla.hubs import HUBS
from ramify.examples.gorilla.retrieve import retrieve
from ramify.examples.gorilla.template import load_template, reply_pattern
from ramify.ir.errors import UsageError

pytest.importorskip("rank_bm25")
pytest.importorskip("tree_sitter_python")
QUESTION = "Which API can find lions?"


def test_the_default_prompt_is_the_one_the_embedded_model_learnt() -> None:
    records = apis.draw_records(Random(0), 2)
    template, documents = load_template("chat"), [dict(record) for record in records]
    shown, asked = [apis.document_text(record) for record in records], apis.question_text(QUESTION)
    assert template.system == apis.SYSTEM and template.fields == apis.FIELDS
    assert template.ask(QUESTION, documents, "documents-first") == "\n".join([*shown, asked])
    assert template.ask(QUESTION, documents, "question-first") == "\n".join([asked, *shown])
    assert template.ask(QUESTION, [], "documents-first") == asked
    reply = template.reply.replace("{framework}", "{0[framework]}")
    reply = reply.replace("{domain}", "{0[domain]}").replace("{api_call}", "{0[api_call]}")
    assert reply.format(documents[0]) == apis.reply_text(records[0])


def test_the_generators_apis_do_not_mean_each_other() -> None:
    records = [*apis.KNOWN, *apis.draw_records(Random(1), 20, apis.KNOWN)]
    for index, one in enumerate(records):
        for other in records[:index]:
            assert one["functionality"] != other["functionality"]
            assert one["api_name"] not in other["api_call"] and other["api_name"] not in one["api_call"]
    assert apis.call_in(apis.reply_text(records[0])) == records[0]["api_call"]
    assert apis.call_in("mido.load()") is None


def test_braces_in_a_question_or_document_stay() -> None:
    asked = load_template("chat").ask("{documents} {record}?", [{"domain": "{question}"}], "documents-first")
    assert asked == 'API: {"domain": "{question}"}\nQuestion: {documents} {record}?'


@pytest.mark.parametrize("name", ["chat", "apibench", "user-assistant"])
def test_every_template_has_both_orders_and_a_reply_that_its_database_can_fill(name: str) -> None:
    template, document = load_template(name), load_database("")[0]
    first = template.ask(QUESTION, [document], "documents-first")
    second = template.ask(QUESTION, [document], "question-first")
    assert first.index(document["api_call"]) < first.index(QUESTION)
    assert second.index(QUESTION) < second.index(document["api_call"])
    assert template.ask(QUESTION, [], "question-first").count(QUESTION) == 1
    assert "mido" in reply_pattern(name, "")


def test_a_template_file_replaces_them_and_mistakes_in_it_are_named(tmp_path: Path) -> None:
    good = {"style": "text", "document": "{record}", "prompt": {"no-documents": "Q {question} A "}, "reply": "{x}"}
    (tmp_path / "good.json").write_text(json.dumps(good))
    (tmp_path / "bad.json").write_text(json.dumps(good | {"style": "song"}))
    backend = ScriptedBackend(lambda text, _params: text[-2:])
    given = {"template": str(tmp_path / "good.json"), "backend": backend}
    run = call_api.run("why?", retriever="none", **given)
    assert backend.requests == ["Q why? A "] and run.value == ApiCall(0, "A ", None, [])
    with pytest.raises(UsageError, match="the template has no order 'documents-first'"):
        load_template(str(tmp_path / "good.json")).ask("why?", [{}], "documents-first")
    with pytest.raises(UsageError, match="no record of the database has the field 'x'"):
        reply_pattern(str(tmp_path / "good.json"), "")
    with pytest.raises(UsageError, match=r"bad.json is no template: .*song"):
        load_template(str(tmp_path / "bad.json"))
    with pytest.raises(UsageError, match="there is no template 'nothing'"):
        load_template("nothing")


def test_retrievers() -> None:
    known = load_database("")
    assert retrieve(QUESTION, "none", 3) == []
    assert retrieve(QUESTION, "oracle", 3, reference=known[7]) == [known[7]]
    assert retrieve("Use it to find lions", "bm25", 2)[0]["functionality"] == "find lions"
    assert len(retrieve(QUESTION, "bm25", 3)) == 3
    with pytest.raises(UsageError, match="no retriever 'google'"):
        retrieve(QUESTION, "google", 1)
    with pytest.raises(UsageError, match="needs to know which API"):
        retrieve(QUESTION, "oracle", 1)
    with pytest.raises(UsageError, match="k is 0"):
        retrieve(QUESTION, "bm25", 0)


class LetterCounts:
    """Stands for sentence-transformers' model: a text's letters are its embedding."""

    def __init__(self, name: str) -> None:
        if name != "letters":
            raise OSError("no such model")

    def encode(self, texts: list[str], normalize_embeddings: bool, show_progress_bar: bool) -> Any:
        assert normalize_embeddings and not show_progress_bar
        counts = np.array([[text.count(chr(97 + letter)) for letter in range(26)] for text in texts], dtype=float)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def test_the_dense_retriever_takes_the_nearest_and_says_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "torchhub_api.jsonl"
    path.write_text("".join(json.dumps({"api_call": call, "domain": "D"}) + "\n" for call in ("xxyyz(1)", "bbccb(2)")))
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(UsageError, match="needs sentence-transformers"):
        retrieve("xyz", "dense", 1, str(path), dense_model="letters")
    module = ModuleType("sentence_transformers")
    module.SentenceTransformer = LetterCounts  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    with pytest.raises(UsageError, match="cannot load 'digits': no such model"):
        retrieve("xyz", "dense", 1, str(path), dense_model="digits")
    found = retrieve("b c b c", "dense", 2, str(path), dense_model="letters")
    assert [record["api_call"] for record in found] == ["bbccb(2)", "xxyyz(1)"]


def test_bm25_gives_the_released_document_for_every_question(data: Path) -> None:
    folder = data / "gorilla"
    api = str(folder / "api" / "torchhub_api.jsonl")
    questions = load_questions(folder / "questions" / "questions_torchhub_0_shot.jsonl")
    released = load_questions(folder / "questions" / "questions_torchhub_bm25.jsonl")
    ours = [retrieve(question.text, "bm25", 1, api)[0] for question in questions]
    assert ours == [document_in(question.text) for question in released]


def test_files_of_apibench_are_read(data: Path) -> None:
    folder = data / "gorilla"
    evaluation = folder / "apibench" / "torchhub_eval.json"
    plain = load_questions(folder / "questions" / "questions_torchhub_0_shot.jsonl")
    ours = load_questions(evaluation)
    assert [question.question_id for question in ours] == list(range(1, 187))
    # The released questions have their line ends and quotes with backslashes.
    plain_words = [each.text.replace("\\n", "\n").replace('\\"', '"').split() for each in plain]
    assert [each.text.split() for each in ours] == plain_words
    assert all(
        each.text and "###Output" not in each.text for each in load_questions(evaluation.with_stem("tensorflow_eval"))
    )
    oracle = load_questions(folder / "questions" / "questions_torchhub_oracle.jsonl")
    assert document_in(oracle[0].text) == load_references(evaluation)[0]
    assert document_in(plain[0].text) is None
    assert next(iter(load_rows(evaluation))) == {"question": ours[0].text, "question_id": 1}


def test_files_that_are_none_are_named(tmp_path: Path) -> None:
    path = tmp_path / "api.jsonl"
    for text, message in (
        ("{}\n", "line 1: a record of an API database"),
        ("{\n", "api.jsonl:1 is not JSON"),
        ("7\n", "api.jsonl:1 is int, not an object"),
    ):
        path.write_text(text)
        with pytest.raises(UsageError, match=message):
            load_database(str(path))
    for reader in (load_questions, load_references, load_responses):
        path.write_text('{"x": 1}\n')
        with pytest.raises(UsageError, match="line 1"):
            reader(path)
    with pytest.raises(UsageError, match="cannot be read"):
        load_questions(tmp_path / "nothing")
    with pytest.raises(UsageError, match="tells no hub"):
        hub_of(str(path))
    assert hub_of("x/tensorflowhub_api.jsonl") == "tensorflowhub"


def test_a_constrained_call_is_always_one_of_the_database() -> None:
    questions = load_questions(None)[::24]
    assert questions[1] == Question(25, apis.QUESTIONS[0].format(task=load_database("")[6]["functionality"]))
    scorer = Scorer(load_database(""), HUBS["huggingface"])
    for template in ("chat", "apibench"):
        how = {"retriever": "none", "template": template, "constrained": True}
        for run in call_api.run_batch([how | {"question": each.text} for each in questions]):
            verdict = scorer.judge(run.value.text, load_database("")[0])
            assert verdict.kind in ("correct", "wrong") and verdict.api is not None
            assert run.value.call == load_database("")[verdict.api]["api_call"]


def test_documents_before_the_question_share_more() -> None:
    references = load_references(None)[:8]
    rows = [
        {"question": question.text, "reference": reference, "retriever": "oracle", "max_tokens": 1}
        for question, reference in zip(load_questions(None), references, strict=False)
    ]
    cached = {}
    for order in ("documents-first", "question-first"):
        runs = call_api.run_batch([row | {"order": order} for row in rows])
        cached[order] = sum(run.usage.cached_tokens for run in runs)
    assert cached["documents-first"] > 1.3 * cached["question-first"]


def test_the_embedded_model_copies_the_call_of_one_document() -> None:
    references = load_references(None)[48::12]  # behind the known APIs: none of these was seen in training
    rows = [{"question": each.text, "retriever": "oracle"} for each in load_questions(None)[48::12]]
    runs = call_api.run_batch([row | {"reference": one} for row, one in zip(rows, references, strict=True)])
    right = [run.value.call == one["api_call"] for run, one in zip(runs, references, strict=True)]
    assert len(right) == 12 and sum(right) >= 11


def test_eager_equals_compiled_on_the_embedded_model() -> None:
    runs = [call_api.run(QUESTION, k=2, eager=eager) for eager in (True, False)]
    assert runs[0].value == runs[1].value and runs[0].text == runs[1].text


def test_the_command_runs_resumes_and_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "replies.jsonl"
    run = ["run", "--limit", "6", "--retriever", "oracle", "--model", "scripted", "--out", str(out), "--quiet"]
    assert main(run) == 0
    table = capsys.readouterr().out
    assert "no call" in table and len(out.read_text().splitlines()) == 6
    assert main(run) == 2 and "resume" in capsys.readouterr().err
    assert main([*run, "--resume"]) == 0
    capsys.readouterr()
    assert main(["score", str(out), "--out", str(tmp_path / "verdicts.jsonl")]) == 0
    scored = capsys.readouterr().out.splitlines()
    assert scored[1].split()[:2] == ["replies.jsonl", "6"]
    verdicts = [json.loads(line) for line in (tmp_path / "verdicts.jsonl").read_text().splitlines()]
    assert [verdict["question_id"] for verdict in verdicts] == [1, 2, 3, 4, 5, 6]


def test_the_command_measures_a_retriever(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "documents.jsonl"
    assert main(["retrieve", "--retriever", "oracle", "--out", str(out)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "oracle, k=1: the same api_call for 192 of 192 questions"
    assert len(json.loads(out.read_text().splitlines()[0])["documents"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", "nothing.jsonl"], "nothing.jsonl cannot be read"),
        (["run", "--api", "nothing.jsonl"], "there are no questions for nothing.jsonl"),
        (["run", "--template", "song"], "there is no template 'song'"),
        (["score", "x.jsonl", "--api", "torchhub_api.jsonl"], "give --eval"),
        (["run", "--data", "nothing.jsonl"], "nothing.jsonl cannot be read"),
    ],
)
def test_mistakes_are_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_the_command_measures_a_model_and_draws_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    out, svg = tmp_path / "figures.json", tmp_path / "figures.svg"
    assert main(["measure", "--limit", "2", "--out", str(out), "--svg", str(svg)]) == 0
    figures = json.loads(out.read_text())
    ways = [(each["retriever"], each["k"]) for each in figures["accuracy"][::2]]
    assert ways == [("none", 1), ("bm25", 1), ("bm25", 3), ("oracle", 1)]
    for each in figures["accuracy"]:
        score = each["score"]
        assert score["replies"] == 2 and not (each["constrained"] and score["hallucinated"] + score["no_call"])
    assert all(0 < each["cached_tokens"] < each["prompt_tokens"] for each in figures["sharing"])
    assert "oracle, k=1, question-first" in capsys.readouterr().out and "bm25, k=3, constrained" in svg.read_text()
    assert main(["measure", "--model", "scripted"]) == 2
