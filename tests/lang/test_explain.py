"""`explain`: what is predicted is what is measured where nothing depends on generated text, and said so elsewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import ramify as rf
import torch
from ramify.backends.local import LocalBackend
from ramify.backends.tiny import model_dir
from ramify.ir.errors import UsageError
from ramify.lang.cli import main
from ramify.lang.explain import Costs

SHOTS = [(f"What is {a} + {b}?", str(a + b)) for a in range(1, 4) for b in range(1, 4)]


@pytest.fixture(scope="module")
def backend():
    opened = LocalBackend(model_dir(), dtype=torch.float32, check=True)
    yield opened
    opened.engine.check_idle()
    opened.close()


@rf.program
def few_shot(s, question):
    s += rf.system("Answer with a number and with nothing else, as in these examples of ours.")
    for asked, answer in SHOTS:
        s += rf.user(asked) + rf.assistant(answer)
    s += rf.user(question) + rf.assistant(rf.gen("answer", max_tokens=3, ignore_eos=True))
    return s["answer"]


@rf.program
def forks(s, claim):
    s += rf.system("Answer yes or no, and then say in one sentence why you think that this is so.") + rf.user(claim)
    for branch, aspect in zip(s.fork(3), ["red", "green", "sweet"], strict=True):
        branch += f" Is it {aspect}?" + rf.assistant(rf.gen("verdict", max_tokens=3, ignore_eos=True))
    s += rf.assistant(rf.gen("all", max_tokens=3, ignore_eos=True))


@rf.program
def chain(s, question):
    s += rf.system("Be brief.") + rf.user(question) + rf.assistant(rf.gen("first", max_tokens=3, ignore_eos=True))
    s += rf.user("Are you sure about that? Think of it again, please.") + rf.assistant(
        rf.gen("second", max_tokens=3, ignore_eos=True)
    )


@rf.program
def choices(s, question):
    s += rf.system("Choose what is right; there is always one right choice among the ones that you are given.")
    s += rf.user(question)
    s += rf.score("scores", ["yes", "no"])
    s += rf.assistant(rf.select("kind", ["yes", "no"]))


@rf.program
def samples(s, question):
    s += rf.user(question) + rf.assistant(rf.gen("votes", n=3, temperature=0.9, max_tokens=3, ignore_eos=True))


@rf.program
def votes(s, question):
    s += rf.system("Vote for what you think is right; all that vote have seen what you have seen.")
    s += rf.user(question)
    for branch in s.fork(4):
        branch += rf.assistant(rf.gen("vote", max_tokens=3, ignore_eos=True))


STATIC = [few_shot, forks, chain, choices, samples, votes]
ROWS = [{"x": f"What is {number} + {number % 3}? Say it as you would say it to a child."} for number in range(5)]


def rows_for(program) -> list[dict[str, str]]:
    (name,) = program.signature.parameters
    return [{name: row["x"]} for row in ROWS]


def told(costs: Costs) -> tuple[int, ...]:
    return costs.calls, costs.shared_calls, costs.prompt, costs.cached, costs.prefill, costs.decode, costs.kv


@pytest.mark.parametrize("program", STATIC, ids=lambda program: program.name)
def test_the_prediction_is_what_is_measured(program, backend):
    # One row at a time, for rows that come together race for who computes what they share.
    for row in rows_for(program):
        found = program.explain([row], backend=backend, actual=True, passes=False)
        assert found.failures == [] and found.stops == []
        assert [line.label for line in found.lines if line.measured is None] == []
        assert told(found.total)[:-1] == told(found.measured)[:-1]
        assert found.total.kv >= found.measured.kv  # samples may begin with the same tokens
        assert found.total.kv == found.measured.kv or not found.doubt.has_exact_kv
        for line in found.lines:
            assert told(line.costs)[:-1] == told(line.measured)[:-1]
            assert line.doubt.is_sure and line.doubt.has_exact_length


@pytest.mark.parametrize("program", [few_shot, forks, choices, votes], ids=lambda program: program.name)
def test_a_batch_too(program, backend):
    found = program.explain(rows_for(program), backend=backend, actual=True, passes=False)
    assert found.doubt == type(found.doubt)()
    assert told(found.total) == told(found.measured)


@rf.program
def dependent(s, question):
    s += rf.user(question) + rf.assistant(rf.gen("first", max_tokens=4))
    s += rf.user(f"You said: {s['first']}") + rf.assistant(rf.gen("second", max_tokens=4))
    if "yes" in s["second"]:
        s += rf.user("Why?") + rf.assistant(rf.gen("why", max_tokens=4))
    s += rf.user("Bye.") + rf.assistant(rf.gen("last", max_tokens=4))


def test_what_depends_on_generated_text_is_marked():
    found = dependent.explain([{"question": "Is it red?"}])
    first, second, last = found.lines
    assert first.doubt.prompt == "exact" and first.doubt.is_sure and not first.doubt.has_exact_length
    assert second.doubt.prompt == "estimate" and second.doubt.is_sure
    assert last.doubt.prompt == "estimate" and not last.doubt.is_sure
    assert found.critical_path == 3
    text = str(found)
    assert "depends on what is generated; an estimate" in text
    assert "Not asked for in the prediction" in text and "'why'" in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_bound_is_no_less_than_what_is_measured(backend):
    loose = [{"question": "What is 2 + 3?"}, {"question": "Name a fruit."}]

    @rf.program
    def talk(s, question):
        s += rf.user(question) + rf.assistant(rf.gen("first", max_tokens=12))
        s += rf.user("And then?") + rf.assistant(rf.gen("second", max_tokens=12))

    found = talk.explain(loose, backend=backend, actual=True, passes=False)
    assert [line.doubt.prompt for line in found.lines] == ["exact", "bound"]
    assert found.measured.prompt <= found.total.prompt
    assert found.measured.decode <= found.total.decode
    assert found.measured.kv <= found.total.kv


def test_generated_texts_in_one_place_may_share_their_beginning():
    assert few_shot.explain(rows_for(few_shot), passes=False).doubt.has_exact_kv
    found = samples.explain(rows_for(samples), passes=False)
    assert not found.doubt.has_exact_kv and found.doubt.prompt == "exact"
    assert found.to_dict()["kv_is"] == "bound" and "≤" in str(found)


def test_what_a_pass_saves():
    found = votes.explain([{"question": "Red or blue?"}])
    saved = {saving.name: saving for saving in found.passes}
    assert saved["cse"].calls == 3
    assert saved["cse"].decode == 9
    assert saved["dce"].calls == saved["dce"].prefill == 0


def test_no_model_runs(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("ramify.backends.local.load_model", refuse)
    assert few_shot.explain([{"question": "What is 1 + 1?"}], backend=str(model_dir())).total.calls == 1


class Judge:
    def __init__(self, tone: str) -> None:
        self.tone, self.asked = tone, []

    @property
    def loud(self) -> str:
        raise AssertionError("code of the user's has run")

    @rf.program
    def ask(self, s, question):
        s += rf.system("Be " + self.tone) + rf.user(question) + rf.assistant(rf.gen("x", max_tokens=2, ignore_eos=True))

    @rf.program
    def count(self, s, question):
        self.asked.append(question)
        s += rf.user(question) + rf.assistant(rf.gen("x", max_tokens=2))

    @rf.program
    def shout(self, s, question):
        s += rf.user(self.loud) + rf.assistant(rf.gen("x", max_tokens=2))


def test_methods_read_attributes_and_nothing_more(backend):
    judge, row = Judge("kind"), {"question": "What?"}
    found = judge.ask.explain([row], backend=backend, actual=True)
    assert told(found.total) == told(found.measured)
    assert "the value of 'self'" in str(judge.count.explain([row]).stops[0].error)
    assert "the value of 'self'" in str(judge.shout.explain([row]).stops[0].error)
    assert judge.asked == []


def test_generated_texts_are_taken_as_different():
    @rf.program
    def relay(s, question):
        s += rf.user(question) + rf.assistant(rf.gen("first", max_tokens=6))
        t = s.copy()
        t += rf.user(f"{s['first']}") + rf.assistant(rf.gen("second", max_tokens=6))
        return t["second"]

    first, second = relay.explain([{"question": "One?"}, {"question": "Two?"}, {"question": "One?"}]).lines
    assert (first.costs.shared_calls, second.costs.shared_calls) == (1, 1)


@rf.program
def from_documents(s, documents, question):
    s += "Answer from the documents that you are given here, and from nothing else.\n"
    with s.unordered():
        for document in documents:
            s += document + "\n"
    s += question + rf.gen("answer", max_tokens=3, ignore_eos=True)


def test_rows_that_are_put_in_another_order_to_share_more(backend):
    documents = [f"Document {number}. " + f"It says {number} and nothing else. " * 9 for number in range(4)]
    picked = [(0, 1), (2, 1), (3, 1), (1, 3), (2, 3), (0, 3)]
    rows = [{"documents": [documents[a], documents[b]], "question": f"What is {a} + {b}?"} for a, b in picked]
    found = from_documents.explain(rows, backend=backend, actual=True)
    assert told(found.total) == told(found.measured)
    assert found.total.cached > found.total.prompt / 3
    assert {saving.name: saving.prefill for saving in found.passes}["reorder"] > 100


def short(name, length):
    """A gen of exactly so many tokens."""
    limit = max(length, 1)
    return rf.gen(name, max_tokens=limit, ignore_eos=True)


@rf.program
def beams(s, question):
    s += rf.user(question)
    kept = [s.copy()]
    for _level in range(2):
        scored = []
        for beam in kept:
            for idea, branch in enumerate(beam.fork(2)):
                branch += rf.user(f"Step {idea}.") + rf.assistant(short("step", 4))
                judge = branch.copy()
                judge += rf.user("Rate it.") + rf.assistant(short("rating", 2))
                scored.append((len(judge["rating"]) * 0, idea, branch))
        kept = [branch for *_, branch in sorted(scored, key=lambda entry: entry[:2])[:2]]
    notes = [note for note in (branch["step"] for branch in kept) if note]
    s += rf.user(f"{len(notes)} steps") + rf.assistant(short("answer", 3))


def test_host_code_that_reads_states_waits_for_them(backend):
    found = beams.explain([{"question": "What is 2 + 3?"}], backend=backend, actual=True, passes=False)
    assert found.stops == []
    assert told(found.total)[:-1] == told(found.measured)[:-1]
    assert found.critical_path > 4 and not found.doubt.is_sure


def noisy(text):
    EFFECTS.append(text)
    return text


def quiet(text, times=2):
    words = []
    for word in text.split():
        words.append(word * times)
    return " ".join(words)


def test_functions_of_the_users_run_where_they_only_compute():
    @rf.program
    def calls_helpers(s, question):
        s += rf.user(quiet(question)) + rf.assistant(rf.gen("first", max_tokens=3, ignore_eos=True))
        s += rf.user(noisy(question)) + rf.assistant(rf.gen("second", max_tokens=3, ignore_eos=True))

    EFFECTS.clear()
    found = calls_helpers.explain([{"question": "What is it?"}], passes=False)
    assert EFFECTS == [] and [line.name for line in found.lines] == ["first"]
    assert "the call of noisy(): a change of 'EFFECTS'" in str(found.stops[0].error)


EFFECTS: list[str] = []


@rf.program
def with_effects(s, question):
    s += rf.user(question) + rf.assistant(rf.gen("first", max_tokens=3, ignore_eos=True))
    EFFECTS.append(question)
    s += rf.user("More.") + rf.assistant(rf.gen("second", max_tokens=3, ignore_eos=True))


@rf.program
def with_a_file(s, path):
    s += rf.user(Path(path).read_text()) + rf.assistant(rf.gen("first", max_tokens=3, ignore_eos=True))


def test_host_code_that_does_more_than_compute_is_not_run(tmp_path):
    EFFECTS.clear()
    found = with_effects.explain([{"question": "What?"}] * 2)
    assert EFFECTS == []
    (stop,) = found.stops
    assert stop.rows == (0, 1)
    assert "a change of 'EFFECTS'" in str(stop.error) and "--run-host" in str(stop.error)
    assert stop.error.span.source_line().strip() == "EFFECTS.append(question)"
    assert [line.name for line in found.lines] == ["first"]
    assert "'second'" in str(found)
    path = tmp_path / "text.txt"
    path.write_text("What is 1 + 1?")
    (stop,) = with_a_file.explain([{"path": str(path)}]).stops
    assert "the call of" in str(stop.error) and stop.is_certain


def test_host_code_runs_when_it_may(tmp_path, backend):
    EFFECTS.clear()
    found = with_effects.explain([{"question": "What?"}], run_host=True)
    assert EFFECTS == ["What?"]
    assert found.stops == [] and [line.name for line in found.lines] == ["first", "second"]
    path = tmp_path / "text.txt"
    path.write_text("What is 1 + 1?")
    found = with_a_file.explain([{"path": str(path)}], run_host=True, actual=True, backend=backend)
    assert told(found.total) == told(found.measured)


@rf.program
def as_python(s, question):
    s += rf.user(question) + rf.assistant(rf.gen("first", max_tokens=3, ignore_eos=True))
    exec("pass")
    s += rf.user(s["first"] + "!") + rf.assistant(rf.gen("second", max_tokens=3))


def test_what_runs_as_python_waits_on_a_host_thread():
    row = {"question": "What?"}
    (stop,) = as_python.explain([row]).stops
    assert "runs as Python" in str(stop.error)
    assert "(runs as Python)" in str(as_python.explain([row]))
    found = as_python.explain([row], run_host=True)
    assert [(line.name, line.doubt.is_sure) for line in found.lines] == [("first", True), ("second", False)]
    assert found.stops == [] and found.critical_path == 2 and "(runs as Python)" not in str(found)


@rf.program
def changes_its_argument(s, items):
    while items:
        s += rf.user(items.pop())
    s += rf.assistant(rf.gen("x", max_tokens=3, ignore_eos=True))


def test_the_arguments_stay_as_they_are():
    items = ["a", "b"]
    assert changes_its_argument.explain([{"items": items}]).stops == []
    assert items == ["a", "b"]


@rf.program
def endless(s, question):
    s += rf.user(question)
    while "done" not in s.text():
        s += rf.assistant(rf.gen("x", max_tokens=2)) + rf.user("Go on.")


@rf.program
def as_number(s, question):
    s += rf.user(question) + rf.assistant(rf.gen("n", schema=list[int], max_tokens=9))
    s += rf.user("again" * sum(s["n"])) + rf.assistant(rf.gen("x", max_tokens=2))


@rf.program
def as_json(s, question):
    s += rf.user(question) + rf.assistant(rf.gen("n", max_tokens=9))
    s += rf.user("again" * json.loads(s["n"])["n"]) + rf.assistant(rf.gen("x", max_tokens=2))


def test_constrained_text_is_taken_as_the_shortest_that_matches():
    @rf.program
    def constrained(s, question):
        s += rf.user(question) + rf.assistant(rf.gen("when", regex="(19|20)[0-9]{2} (spring|summer)", max_tokens=20))
        s += rf.user("again" * sum(s["n"]) if "n" in s else s["when"].split()[1])
        s += rf.assistant(rf.gen("n", schema=list[int], max_tokens=9) + rf.gen("x", max_tokens=2))

    for program in (constrained, as_number):
        found = program.explain([{"question": "What?"}] * 2, passes=False)
        assert found.stops == []
        assert "x" in [line.name for line in found.lines]


def test_a_program_that_reads_a_file_says_what_is_unknown_and_what_to_add(tmp_path):
    file = tmp_path / "note.txt"
    file.write_text("Note: ")

    @rf.program
    def reads(s, question):
        s += question + rf.gen("before", max_tokens=2)
        text = file.read_text()
        s += text + rf.gen("after", max_tokens=3)

    told = str(reads.explain([{"question": "What?"}], passes=False))
    assert re.search("total +known part", told)
    assert "what is asked for behind this is unknown, and in no figure:" in told
    assert "text = file.read_text()" in told and "--run-host" in told
    assert "gen 'after'" in told.split("Not asked for in the prediction:")[1]
    whole = reads.explain([{"question": "What?"}], passes=False, run_host=True)
    assert "known part" not in str(whole) and [line.name for line in whole.lines] == ["before", "after"]


def test_what_cannot_be_predicted_says_why():
    (stop,) = endless.explain([{"question": "What?"}], passes=False).stops
    assert "depends on what is generated" in str(stop.error) and not stop.is_certain
    found = as_json.explain([{"question": "What?"}, {"question": "Who is it?"}], passes=False)
    assert "with placeholders for generated text" in str(found) and "rows 0, 1 ends early" in str(found)
    assert [line.name for line in found.lines] == ["n"]

    @rf.program
    async def waits(s, question):
        s += rf.user(question) + rf.assistant(rf.gen("x"))

    assert "async def" in str(waits.explain([{"question": "What?"}]))
    text = str(few_shot.explain([{"question": "What?"}], backend="scripted"))
    assert "its tokenizer is not here" in text and "gen 'answer'" in text


def test_a_program_that_fails_by_itself():
    @rf.program
    def wrong(s, question):
        s += rf.user(question[10])

    (stop,) = wrong.explain([{"question": "What?"}]).stops
    assert isinstance(stop.error, IndexError) and stop.is_certain


def test_rows_that_fail_when_they_are_run_are_told(backend):
    @rf.program
    def cut_off(s, question):
        s += rf.user(question) + rf.assistant(rf.gen("n", schema=list[int], max_tokens=1))
        s += rf.user("again" * sum(s["n"]))

    found = cut_off.explain([{"question": "What?"}], backend=backend, actual=True, passes=False)
    assert [number for number, _ in found.failures] == [0]
    assert "row 0 failed when it was run: OutputError" in str(found)
    ids_and_links(found.html())


def test_no_rows_cost_nothing():
    found = few_shot.explain([])
    assert found.total == Costs() and found.critical_path == 0
    ids_and_links(found.html())


def test_a_wrong_row_is_named_before_anything_runs():
    with pytest.raises(UsageError, match=r"unknown argument 'wrong' \(row 1\)|missing .*\(row 1\)"):
        few_shot.explain([{"question": "What?"}, {"wrong": 1}])
    with pytest.raises(UsageError, match="row 0 is str, not a dict of arguments"):
        few_shot.explain("What?")


def test_a_compiled_program_explains_itself(tmp_path):
    row = {"question": "What is 1 + 1?"}
    assert few_shot.compile().explain([row]).total == few_shot.explain([row]).total
    votes.compile().save(tmp_path / "p.bin")
    loaded = rf.load(tmp_path / "p.bin", trust=True).explain([row])
    assert loaded.total == votes.explain([row]).total and loaded.passes is None


VOID = ("src=", "url(", "@import", "http:", "https:", "<link")


def ids_and_links(text: str) -> tuple[list[str], list[str]]:
    """The ids of a page and what its links lead to. Raises ParseError for one that is not well-formed."""
    root = ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>"))
    nodes = list(root.iter())
    return [n.attrib["id"] for n in nodes if "id" in n.attrib], [n.attrib["href"] for n in nodes if "href" in n.attrib]


@pytest.mark.parametrize("program", [*STATIC, dependent, with_effects, endless], ids=lambda program: program.name)
def test_the_page_is_well_formed_and_needs_nothing_from_elsewhere(program):
    (name,) = program.signature.parameters
    question = 'Is 1 < 2 & "so" on? %s \x1b\u2028'
    text = program.explain([{name: question}, {name: "What?"}], passes=False).html()
    assert [word for word in VOID if word in text] == []
    ids, links = ids_and_links(text)
    assert len(ids) == len(set(ids))
    assert links and {link.removeprefix("#") for link in links} <= set(ids)
    assert "color-scheme:light dark" in text and "light-dark(" in text


def test_the_page_shows_tree_table_ir_and_source(backend):
    found = forks.explain(rows_for(forks), backend=backend, actual=True)
    text = found.html()
    assert text.count("<rect class=") > len(ROWS)
    assert 'class="few"' in text and 'class="many"' in text and 'class="generated"' in text
    assert "lm.gen" in text and "def forks(s, claim):" in text and "measured" in text
    assert 'href="#source-' in text
    impossible = few_shot.explain([{"question": "What?"}], backend="scripted").html()
    ids_and_links(impossible)
    assert "its tokenizer is not here" in impossible


def test_the_tree_tells_prompts_from_what_is_generated_between_them():
    text = chain.explain(rows_for(chain)[:1], passes=False).html()
    parts = [node.text for node in ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>")).iter("title")]
    told = [part.partition(": ")[2] for part in parts if "tokens, used" in part or "tokens, shared" in part]
    assert [part for part in told if "Are you sure" in part] and sum("generated" in part for part in told) >= 2


def test_passes_that_no_prediction_tells_of_are_named():
    text = " ".join(str(votes.explain([{"question": "Red or blue?"}])).split())
    assert "the same without promote" in text or "the same without inline, promote" in text
    assert "not predicted, for they save time or short memory: lifetimes" in text


def test_a_tree_of_many_rows_is_drawn_in_part():
    found = votes.explain([{"question": f"{number} or {number + 1}?"} for number in range(200)], passes=False)
    assert "more branches are not drawn" in found.html()


PROGRAM = """
import ramify as rf

@rf.program
def ask(s, question: str):
    s += rf.system("Be brief.") + rf.user(question) + rf.assistant(rf.gen("answer", max_tokens=3))
"""


def test_without_arguments_the_ir_tells():
    found = few_shot.explain()
    assert str(found.impossible).startswith("nothing can be predicted without 'question'")
    assert str(found).startswith("few_shot\nnothing") and [each.kind for each in found.outline] == ["gen"]
    ids_and_links(found.html())

    @rf.program
    def takes_nothing(s):
        s += "Hello" + rf.gen("x", max_tokens=2)

    assert takes_nothing.explain().total.calls == takes_nothing.compile().explain().total.calls == 1


def test_lines_of_source_are_not_broken_and_hold_all_calls():
    @rf.program
    def long_line(s):
        s += "Some words that make the line long enough" + rf.gen("first", max_tokens=2) + rf.gen("x", max_tokens=1)
        print("a line that is no shorter than that, in order to reach beyond the hundredth column", id(s))
        s += rf.gen("behind", max_tokens=2)

    found = long_line.explain()
    assert any(len(line) > 100 and line.rstrip().endswith("id(s))") for line in str(found).splitlines())
    assert "# 2 calls, " in found.html() and "# 1 calls" not in found.html()


def test_the_command(tmp_path, capsys):
    (tmp_path / "ask.py").write_text(PROGRAM)
    (tmp_path / "rows.jsonl").write_text('{"question": "What is 1 + 1?"}\n{"question": "What is 1 + 2?"}\n')
    words = ["explain", str(tmp_path / "ask.py"), "--data", str(tmp_path / "rows.jsonl"), "--actual"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "ask over 2 rows" in shown and "ask.py:6" in shown and "measured" in shown
    assert max(map(len, shown.splitlines())) <= 100
    (tmp_path / "a_longer_name_than_others_have.py").write_text(PROGRAM)
    assert main(["explain", str(tmp_path / "a_longer_name_than_others_have.py"), *words[2:4]]) == 0
    assert "others_have.py:6 " in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["lines"][0]["prompt_tokens"] == found["lines"][0]["measured"]["prompt_tokens"] > 0
    (tmp_path / "rows.jsonl").write_text('{"question": "x"}\n{"q": 1}\n')
    assert main(words) == 2
    assert "row 1" in capsys.readouterr().err
    (tmp_path / "rows.jsonl").write_text('{"question": "x"}\n')
    assert main([*words, "--html", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")
    assert main([*words, "--html", str(tmp_path / "missing" / "page.html")]) == 2
    assert "cannot be written" in capsys.readouterr().err
