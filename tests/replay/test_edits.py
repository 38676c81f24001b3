"""Edits: a run made again is what a run is whose model answers so at that place, and nothing is asked that is known."""

from __future__ import annotations

import random
import re
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import ramify as rf
from ramify.backends import open_backend
from ramify.backends.scripted import ScriptedBackend
from ramify.ir.errors import UsageError
from ramify.lang.editing import edited
from ramify.lang.nodes import nodes_of
from ramify.lang.run import Run
from ramify.runtime.expression import Gen, Select
from ramify.runtime.generation import Generation
from ramify.runtime.prompt import Prompt
from ramify.runtime.request import Done, SamplingParams

from ..lang.comparing import comparable
from ..lang.corpus import CASES, Case
from ..lang.test_differential import NAMES, copied

Place = tuple[str, tuple[int, ...], int, int]
_MOST_NODES = 2


class Answering(ScriptedBackend):
    """A scripted backend that gives one answer at one place. asked: what each request was, without its place."""

    def __init__(self, place: Place | None = None, answer: str = "") -> None:
        super().__init__()
        self.place, self.answer = place, answer
        self.asked: list[Any] = []

    def generate(self, prompt: Prompt, params: SamplingParams, sink: Any) -> Any:
        """See Backend."""
        return self._given(prompt, params, sink) or super().generate(prompt, params, sink)

    def score(self, prompt: Prompt, texts: Sequence[str], sink: Any, *, unconditional: bool = False) -> Any:
        """See Scorer."""
        given = self._given(prompt, (tuple(texts), unconditional), sink)
        return given or super().score(prompt, texts, sink, unconditional=unconditional)

    def _given(self, prompt: Prompt, what: Any, call: Generation) -> Any:
        if place_of(call) == self.place:
            return self._begin(prompt, call, False, lambda text: Done(self.answer, (), "stop", tail=self.answer))
        self.asked.append((prompt.text_value(), what))
        return None


def place_of(call: Generation) -> Place:
    return call.expression.kind, call.prompt.branch, call.prompt.num_gens, call.sample


def once(case: Case, backend: Any) -> Run:
    (run,) = case.program.run_batch([dict(copied(case).arguments)], backend=backend, record=True)
    return run


def other_answer(call: Generation) -> str | None:
    """Something else that the model could have said; None where nothing is known."""
    expression = call.expression
    if isinstance(expression, Select) and call.done is not None:
        return next((each for each in expression.choices if each != call.done.text), None)
    is_free = isinstance(expression, Gen) and expression.schema is None and expression.dtype in (None, str)
    return "other words" if is_free and call.params is not None and call.params.constraint is None else None


def told(run: Run) -> dict[str, Any]:
    found = {"value": run.value, "error": type(run.error), "message": getattr(run.error, "message", str(run.error))}
    whole = {"text": run.text, "vars": run.vars} if run.ok else {}
    return {name: comparable(item) for name, item in (found | whole).items()}


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_an_edited_run_is_what_a_run_with_that_answer_is(case: Case) -> None:
    backend = Answering()
    run = once(case, backend)
    known = Counter(map(repr, backend.asked))
    nodes = [node for node in nodes_of(run) if isinstance(node.asked, Generation) and node.asked.done is not None]
    for node in nodes[:: max(1, len(nodes) // _MOST_NODES)]:
        assert isinstance(node.asked, Generation)
        answer = other_answer(node.asked)
        if answer is None:
            continue
        backend.asked.clear()
        again = edited(run, node.number, answer)
        fresh = Answering(place_of(node.asked), answer)
        assert told(again) == told(once(case, fresh)), node.label
        if run.ok and again.ok:
            # What was asked is what a run from nothing asks and the recorded one did not.
            new = [repr(each) for each in fresh.asked if repr(each) not in known]
            assert sorted(map(repr, backend.asked)) == sorted(new), node.label
            assert again.reuse is not None and again.reuse.rerun_generations == len(new)


# Programs of tests.

calls: list[str] = []


@rf.tool
def price(item: str) -> float:
    """The price of goods."""
    calls.append(item)
    return {"lamp": 20.0, "chair": 45.5}.get(item, 1.0)


@rf.tool
def door() -> object:
    """What no recording can hold."""
    calls.append("door")
    return threading.Lock()


@rf.program
def shop(s, items):
    s += rf.user("Begin.") + rf.assistant(rf.gen("first", max_tokens=3))
    forks = s.fork(len(items))
    for branch, item in zip(forks, items, strict=True):
        branch += rf.user(f"{item} costs {price(item)}") + rf.assistant(rf.gen("why", max_tokens=3))
        branch += rf.user("Buy?") + rf.assistant(rf.select("buy", ["yes", "no"]))
    s += rf.user("; ".join(branch["buy"] for branch in forks)) + rf.assistant(rf.gen("last", max_tokens=3))
    items.append("more")
    return s["last"]


@rf.program
def ask(s, question: str):
    s += rf.user(question) + rf.assistant(rf.gen("answer", max_tokens=4))
    return s["answer"]


@rf.program
def outer(s, words):
    s += rf.user("Go.") + rf.assistant(rf.gen("plan", max_tokens=2))
    found = [ask.run(f"{word} {s['plan']}").value for word in words]
    drawn = random.random()
    s += rf.user(f"{found} {drawn}") + rf.assistant(rf.gen("end", max_tokens=2))
    return s["end"], drawn


def counts(run: Run) -> tuple[int, int, int, int]:
    found = run.reuse
    assert found is not None
    return found.rerun_generations, found.generations, found.rerun_tool_calls, found.tool_calls


@pytest.fixture
def backend() -> ScriptedBackend:
    calls.clear()
    return ScriptedBackend()


@pytest.mark.parametrize("eager", [False, True])
def test_only_what_depends_on_the_edit_runs_again(backend: ScriptedBackend, eager: bool) -> None:
    run = shop.run(["lamp", "sofa"], backend=backend, record=True, eager=eager)
    assert run.reuse is None and [node.label for node in nodes_of(run)] == [
        "first", "price#1", "why#1", "buy#1", "price#2", "why#2", "buy#2", "last"
    ]  # fmt: skip
    count = len(backend.requests)
    other = "no" if run.trace[3].text == "yes" else "yes"  # type: ignore[union-attr]
    second = run.edit("buy#1", other)
    assert counts(second) == (1, 6, 0, 2) and f"<user>{other}; " in second.text
    third = second.edit("price#2", 77.5)
    assert counts(third)[1:] == (6, 0, 2) and counts(third)[0] >= 2 and len(calls) == 2
    assert "sofa costs 77.5" in backend.requests[-1] + backend.requests[-2] + backend.requests[-3]
    fourth = third.edit("last", "bye")
    assert fourth.value == "bye" and counts(fourth) == (0, 6, 0, 2)
    assert fourth.trace[-1].generated_tokens == 0  # type: ignore[union-attr]
    assert len(backend.requests) == count + counts(second)[0] + counts(third)[0]
    same = fourth.edit("last", run.value).edit("price#2", 1.0).edit("buy#1", run.trace[3].text)  # type: ignore[union-attr]
    assert (same.text, same.value) == (run.text, run.value)


def test_a_retry_asks_once_more_with_other_parameters(backend: ScriptedBackend) -> None:
    run = ask.run("What?", backend=backend, record=True)
    again = run.retry("answer", temperature=1.0, seed=5)
    assert counts(again) == (1, 1, 0, 0) and again.value != run.value
    assert again.value == ask.options(temperature=1.0).run("What?", backend=ScriptedBackend(
        lambda text, params: again.value)).value  # fmt: skip
    assert again.edit("answer", "x").edit("answer", again.value).value == again.value
    # What follows is played where the program asks the same again.
    assert counts(again.retry("answer", temperature=1.0, seed=5)) == (1, 1, 0, 0)
    tool = shop.run(["lamp"], backend=backend, record=True).retry("price")
    assert calls == ["lamp", "lamp"] and counts(tool) == (0, 4, 1, 1)
    drawn = ask.options(temperature=1.0, seed=3).run("What?", backend=backend, record=True)
    drawn.retry("answer")
    assert backend.requests[-1] == backend.requests[-2]


def test_retries_that_cannot_be(backend: ScriptedBackend) -> None:
    run = shop.run(["lamp"], backend=backend, record=True)
    for node, params, words in (
        ("price", {"temperature": 1.0}, "price is no generation, so it takes no temperature"),
        ("buy", {"seed": 1}, "buy is no generation"),
        ("why", {"temprature": 1.0}, "a retry takes no temprature"),
        ("why", {"n": 3}, "a retry takes no n"),
    ):
        with pytest.raises(UsageError, match=words):
            run.retry(node, **params)
    with pytest.raises(rf.RamifyError, match="temperature must be >= 0"):
        run.retry("why", temperature=-1)
    bare = ask.run("What?", backend=ScriptedBackend(features=["select"]), record=True)
    with pytest.raises(rf.RamifyError, match="cannot take"):
        bare.retry("answer", temperature=1.0, seed=1)


class Person(msgspec.Struct):
    name: str
    age: int


@rf.program
def typed(s):
    s += rf.gen("digits", regex="[0-9]{2,3}") + rf.gen("number", dtype=int) + rf.gen("person", schema=Person)
    s += rf.score("sure", ["a", "b"])
    return s["digits"], s["number"], s["person"]


def test_an_edit_is_something_that_the_model_could_have_said() -> None:
    def reply(text: str, params: SamplingParams) -> str:
        source = "" if params.constraint is None else params.constraint.source
        return '{"name":"Wendy","age":14}' if "name" in source else "12"

    run = typed.run(backend=ScriptedBackend(reply), record=True)
    assert run.edit("digits", "345").value[0] == "345"
    assert run.edit("number", "7").value[1] == run.edit("number", 7).value[1] == 7
    assert run.edit("person", Person("Tom", 3)).value[2] == Person("Tom", 3)
    assert run.edit("person", '{"name": "Tom", "age": 3}').value[2] == Person("Tom", 3)
    for node, new, words in (
        ("digits", "1x", r"'1x' does not match the regex of the generation: nothing that matches has 'x' behind '1'"),
        ("digits", "1", "nothing that matches ends so"),
        ("digits", 12, "what was generated is a text, not int: 12"),
        ("number", "many", "'many' does not .*"),
        ("person", '{"name": "Tom"}', "does not match the json_schema of the generation"),
        ("person", Person("Tom", "x"), "does not match the json_schema of the generation"),  # type: ignore[arg-type]
        ("person", object(), "does not stand for a value"),
        ("sure", "a", "sure is a score"),
    ):
        with pytest.raises(UsageError, match=words):
            run.edit(node, new)


@pytest.mark.parametrize(
    ("node", "words", "help"),
    [
        ("buy#1", "'maybe' is not one of the choices", "they are yes, no"),
        ("why", "the run has 2 nodes 'why'", r"say which: why#1 \(branch 0\), why#2 \(branch 1\)"),
        ("frist", "the run has no node 'frist'", "first"),
        ("why#7", "the run has no node 'why#7'", r"it has why#1 \(branch 0\), why#2"),
        (9, "the run has no node 9", "they are 1 to 8: first, price#1, why#1"),
        (0, "the run has no node 0", "they are 1 to 8"),
    ],
)
def test_nodes_that_are_not_there(backend: ScriptedBackend, node: int | str, words: str, help: str) -> None:
    run = shop.run(["lamp", "sofa"], backend=backend, record=True)
    with pytest.raises(UsageError, match=words) as error:
        run.edit(node, "maybe")
    assert re.search(help, error.value.help or "")


def test_runs_that_cannot_be_edited(backend: ScriptedBackend, tmp_path: Path) -> None:
    run = ask.run("What?", backend=backend)
    with pytest.raises(UsageError, match="the run was not recorded") as error:
        run.edit("answer", "x")
    assert "record=True" in (error.value.help or "")
    file = tmp_path / "a.rec"
    recorded = ask.run("What?", backend=backend, record=file)
    played = ask.run("What?", backend=backend, replay=file)
    assert counts(played) == (0, 1, 0, 0)
    with pytest.raises(UsageError, match="was played and not recorded"):
        played.edit("answer", "x")
    assert ask.run("What?", backend=backend, replay=file, record=True).edit("answer", "x").value == "x"
    assert recorded.edit("answer", "y").value == "y"
    file.write_bytes(file.read_bytes()[:-40] + b"x" * 40)
    with pytest.raises(rf.RecordingError, match="is damaged"):
        recorded.edit("answer", "y")
    file.unlink()
    with pytest.raises(rf.RecordingError, match="there is no recording"):
        recorded.edit("answer", "y")


def test_a_program_that_has_changed_does_not_come_to_the_edit(backend: ScriptedBackend) -> None:
    greeting = ["Hello."]

    @rf.program
    def greet(s):
        s += rf.user("\n".join(greeting)) + rf.assistant(rf.gen("answer", max_tokens=2))
        return s["answer"]

    run = greet.run(backend=backend, record=True, eager=True)
    greeting.append("How are you?")
    with pytest.raises(rf.ReplayMismatch, match=r"come to answer as it did .*: its prompt has .*How are") as error:
        run.edit("answer", "x")
    assert error.value.span is not None and 'rf.gen("answer"' in error.value.span.source_line()
    greeting.clear()
    with pytest.raises(rf.ReplayMismatch, match="did not come to answer"):
        run.retry("answer")


def test_arguments_are_what_they_were_when_the_run_began(backend: ScriptedBackend) -> None:
    items = ["lamp"]
    run = shop.run(items, backend=backend, record=True)
    assert items == ["lamp", "more"]
    items.append("and more")
    assert counts(run.edit("last", "x")) == (0, 4, 0, 1) and items == ["lamp", "more", "and more"]

    @rf.program
    def several(s, first, *rest, key, **others):
        s += f"{first}{rest}{key}{others}" + rf.gen("x", max_tokens=2)
        first.append(1)
        others["z"].append(2)
        return s["x"]

    run = several.run([], 5, 6, key=7, z=[], backend=backend, record=True)
    assert counts(run.edit("x", "new")) == (0, 1, 0, 0)


def test_programs_in_programs_and_what_they_draw(backend: ScriptedBackend) -> None:
    rf.set_default_backend(backend)
    try:
        run = outer.run(["a", "b"], record=True)
        end = run.edit("end", "x")
        assert end.value == ("x", run.value[1]) and counts(end) == (0, 4, 0, 0)
        plan = run.edit("plan", "other")
        assert counts(plan) == (3, 4, 0, 0) and plan.value[1] != run.value[1]
    finally:
        rf.set_default_backend(None)


def test_async_programs_methods_and_rows(backend: ScriptedBackend, tmp_path: Path) -> None:
    @rf.program
    async def later(s, word):
        s += word + rf.gen("x", max_tokens=2) + rf.gen("y", max_tokens=2)
        return s["x"], await price.acall(s["y"])

    run = later.run("a", backend=backend, record=True)
    assert run.edit("x", "new").value[0] == "new"

    class Judge:
        @rf.program
        def ask(self, s, word):
            s += word + rf.gen("x", max_tokens=2)
            return s["x"]

    assert Judge().ask.run("a", backend=backend, record=True).edit("x", "new").value == "new"
    rows = ask.run_batch([{"question": f"What is {n}?"} for n in range(4)], backend=backend, record=True)
    assert rows[2].edit("answer", "two").value == "two" and rows[3].edit(1, "three").text.count("What is 3?")
    file = tmp_path / "rows.rec"
    with rf.record(file):
        rows = ask.run_batch([{"question": f"What is {n}?"} for n in range(4)], backend=backend)
        assert rows[1].edit("answer", "one").edit("answer", "won").value == "won"
    with rf.replay(file):
        assert [ask.run("What is 1?", backend=backend).value for _ in range(3)] == [rows[1].value, "one", "won"]


def test_what_failed_can_be_edited(backend: ScriptedBackend) -> None:
    def broken(prompt: str, params: SamplingParams) -> Any:
        return rf.RamifyError("no answer") if prompt.endswith("sofa</user>\n<assistant>") else "fine"

    @rf.program
    def two(s):
        s += rf.user("lamp") + rf.assistant(rf.gen("first"))
        s += rf.user("sofa") + rf.assistant(rf.gen("second"))
        s += rf.user("end") + rf.assistant(rf.gen("third"))
        return s["second"], s["third"]

    (run,) = two.run_batch([{}], backend=ScriptedBackend(broken), record=True)
    assert not run.ok
    again = run.edit("second", "so")
    assert again.value == ("so", "fine") and counts(again) == (1, 3, 0, 0)
    with pytest.raises(UsageError, match="third was never asked"):
        run.edit("third", "x")


def test_a_tool_whose_value_cannot_be_kept_is_called_again(backend: ScriptedBackend) -> None:
    @rf.program
    def enter(s):
        way = door()
        s += f"{way is None}" + rf.gen("x", max_tokens=2)
        return s["x"]

    run = enter.run(backend=backend, record=True)
    assert counts(run.edit("x", "new")) == (0, 1, 1, 1) and calls == ["door"] * 2
    with pytest.raises(UsageError, match=r"door is given a lock, a class .*, which no recording can hold"):
        run.edit("door", threading.Lock())


def test_the_embedded_model_goes_on_from_what_it_has_computed() -> None:
    @rf.program
    def chat(s, question):
        s += rf.system("Answer briefly.") + rf.user(question) + rf.assistant(rf.gen("answer", max_tokens=8))
        s += rf.user("Is that right?") + rf.assistant(rf.select("right", ["yes", "no"]))
        s += rf.user("Why?") + rf.assistant(rf.gen("why", max_tokens=4))
        return s["why"]

    run = chat.run("What is 3 + 4?", backend=open_backend("tiny"), record=True)
    again = run.edit("right", "no" if run["right"] == "yes" else "yes")
    assert counts(again) == (1, 3, 0, 0) and again.reuse is not None
    assert again.reuse.cached_tokens > again.reuse.prompt_tokens / 2
    fresh = chat.run("What is 3 + 4?", backend=open_backend("tiny"))
    assert again.edit("right", run["right"]).text == fresh.text
