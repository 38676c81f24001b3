"""Recording and replaying runs: nothing is asked, all is the same, and what differs is named."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import ramify as rf
from ramify.backends import open_backend
from ramify.backends.replay.recording import Recording
from ramify.backends.scripted import ScriptedBackend, hash_reply
from ramify.ir.errors import BackendError, OutputError, UsageError
from ramify.lang.run import Run


class Untouchable:
    """A backend that fails on any use."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("generate", "__class__"):  # what makes it a backend
            return object.__getattribute__(self, name)
        raise AssertionError(f"a replay looks at the backend's {name}")

    def generate(self, *_: Any) -> Any:
        raise AssertionError("a replay asks the model")


NOTHING: Any = Untouchable()
calls: list[str] = []


@rf.tool
def price(item: str) -> float:
    """The price of goods."""
    calls.append(item)
    return {"lamp": 20.0, "chair": 45.5}[item]


@rf.tool(errors="value", timeout=0.05)
def slow(item: str) -> str:
    """Takes too long for some."""
    calls.append(item)
    if item == "sofa":
        time.sleep(0.5)
    return item


@rf.tool(pure=True)
def look_up(query: str) -> str:
    """Found in some archive."""
    calls.append(query)
    return f"about{query}"


@rf.tool
async def stock(item: str) -> dict[str, int]:
    """How many are in store."""
    calls.append(item)
    return {item: 3}


@rf.program
def ask(s, question: str):
    s += rf.system("Answer briefly.") + rf.user(question)
    s += rf.assistant(rf.gen("answer", max_tokens=4))
    return s["answer"]


@rf.program
def story(s, topics):
    notes = []
    for branch, topic in zip(s.fork(len(topics)), topics, strict=True):
        branch += rf.user(f"Write of {topic}.") + rf.assistant(rf.gen("query", max_tokens=2))
        branch += rf.user(look_up(branch["query"])) + rf.assistant(rf.gen("note", max_tokens=3, temperature=1.0))
        notes.append(branch["note"])
    s += rf.user("; ".join(notes)) + rf.assistant(rf.select("best", topics))
    s += rf.score("likely", topics)
    return s["best"], s["likely"]


@rf.program
def shop(s, items):
    s += rf.user("What do they cost?")
    found = []
    for item in items:
        try:
            found.append(price(item))
        except KeyError as error:
            found.append(str(error))
        found.append(slow(item))
        found.append(stock(item))
    s += f"{found}" + rf.assistant(rf.gen("x", max_tokens=3))
    return found


def is_same(played: Run, recorded: Run) -> bool:
    """Whether all that a run tells is the same: times are too, for they were written down."""
    assert [repr(record) for record in played.trace] == [repr(record) for record in recorded.trace]
    assert (played.text, played.messages) == (recorded.text, recorded.messages)
    assert repr(played.vars) == repr(recorded.vars)
    return repr(played.value) == repr(recorded.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    calls.clear()
    return tmp_path / "runs.rec"


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("replay_eager", [False, True])
def test_a_run_is_played_without_a_model_or_tools(file: Path, eager: bool, replay_eager: bool) -> None:
    topics = ["tides", "tiles", "tides"]
    recorded = story.run(topics, backend=ScriptedBackend(), eager=eager, record=file)
    assert len(calls) == 3
    played = story.run(topics, backend=NOTHING, eager=replay_eager, replay=file)
    assert is_same(played, recorded) and len(calls) == 3
    assert played.usage.prompt_tokens == recorded.usage.prompt_tokens
    assert played.get_meta_info("likely") == recorded.get_meta_info("likely")


@pytest.mark.parametrize("eager", [False, True])
def test_tools_with_errors_and_timeouts(file: Path, eager: bool) -> None:
    recorded = shop.run(["lamp", "sofa", "lamp"], backend=ScriptedBackend(), eager=eager, record=file)
    count = len(calls)
    played = shop.run(["lamp", "sofa", "lamp"], backend=NOTHING, eager=not eager, replay=file)
    assert is_same(played, recorded) and len(calls) == count == 9
    assert played.value[3:5] == ["'sofa'", played.value[4]] and played.value[4].type == "Timeout"
    assert [record.ms for record in played.trace if record.kind == "tool"] == [
        record.ms for record in recorded.trace if record.kind == "tool"
    ]


def test_the_embedded_model_with_all_that_it_can_tell(file: Path) -> None:
    @rf.program
    def rich(s, sentence):
        s += rf.user(f"{sentence} Give the name and age as JSON.")
        schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
        s += rf.assistant(rf.gen("person", json_schema=schema, max_tokens=24))
        s += rf.user("What is 3 + 4?")
        s += rf.assistant(rf.gen("sums", n=3, temperature=1.5, max_tokens=6, logprobs=2, logprob_start_len=3))
        s += rf.user("Number?") + rf.assistant(rf.gen("number", dtype=int, max_tokens=3, seed=7, temperature=1.0))
        s += rf.user("Which?") + rf.assistant(
            rf.select("pick", ["yes", "no"], choices_method=rf.unconditional_likelihood_normalized)
        )
        return s["person"], s["sums"], s["number"], s["pick"]

    backend = open_backend("tiny")
    recorded = rich.run("My name is Wendy, I am 14.", backend=backend, record=file)
    for eager in (False, True):
        played = rich.run("My name is Wendy, I am 14.", backend=NOTHING, replay=file, eager=eager)
        assert is_same(played, recorded)
        for name in ("person", "sums", "number", "pick"):
            assert played.get_meta_info(name) == recorded.get_meta_info(name)
    sums = recorded.get_meta_info("sums")
    assert len(sums) == 3 and all(each["input_token_logprobs"] and each["output_top_logprobs"] for each in sums)


def test_streams_are_played_piece_by_piece(file: Path) -> None:
    told: list[list[Any]] = [[], [], []]
    story.run(["tides", "tiles"], backend=ScriptedBackend(), record=file, stream=told[0].append)
    story.run(["tides", "tiles"], backend=NOTHING, replay=file, stream=told[1].append)

    def by_branch(events: list[Any]) -> dict[Any, list[Any]]:
        return {branch: [each for each in events if each.branch == branch] for branch in {e.branch for e in events}}

    assert by_branch(told[1]) == by_branch(told[0])
    assert sum(event.kind == "gen" and event.name == "note" for event in told[1]) > 2
    quiet = file.with_name("quiet.rec")
    story.run(["tides", "tiles"], backend=ScriptedBackend(), record=quiet)
    story.run(["tides", "tiles"], backend=NOTHING, replay=quiet, stream=told[2].append)
    assert "".join(e.text for e in told[2] if e.branch == (0,)) == "".join(e.text for e in told[0] if e.branch == (0,))


def test_rows_of_a_batch_in_any_order(file: Path) -> None:
    rows = [{"question": f"What is {n % 5} + 2?"} for n in range(12)]
    warm = ask.options(temperature=1.0)
    recorded = warm.run_batch(rows, backend=open_backend("tiny"), record=file, max_in_flight=3)
    played = warm.run_batch(rows, backend=NOTHING, replay=file)
    assert [is_same(mine, theirs) for mine, theirs in zip(played, recorded, strict=True)] == [True] * 12
    order = [7, 3, 11, 0, 5, 9, 1, 2, 4, 6, 8, 10]
    mixed = warm.run_batch([rows[n] for n in order], backend=NOTHING, replay=file, eager=True)
    values: dict[str, list[str]] = {}
    for row, run in sorted(zip(order, mixed, strict=True)):
        values.setdefault(rows[row]["question"], []).append(run.value)
    for question, found in values.items():
        theirs = [run.value for run, row in zip(recorded, rows, strict=True) if row["question"] == question]
        assert sorted(found) == sorted(theirs)
    assert warm.run(**rows[4], backend=NOTHING, replay=file).value == recorded[4].value
    ends = warm.run_batch(rows, backend=NOTHING, replay=file, as_completed=True)
    assert {run.row: run.value for run in ends} == {run.row: run.value for run in recorded}


def test_runs_at_the_same_time(file: Path) -> None:
    questions = [f"What is {n}?" for n in range(8)]
    values: dict[str, str] = {}

    def work(question: str, backend: Any) -> None:
        values[question] = ask.run(question, backend=backend).value

    def all_at_once(backend: Any) -> dict[str, str]:
        threads = [threading.Thread(target=work, args=(question, backend)) for question in questions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return dict(values)

    with rf.record(file):
        recorded = all_at_once(ScriptedBackend(delay=0.01))
    values.clear()
    with rf.replay(file):
        assert all_at_once(NOTHING) == recorded and len(recorded) == 8


def test_async_programs_and_programs_in_programs(file: Path) -> None:
    @rf.program
    async def several(s, questions):
        s += rf.user("Begin.") + rf.assistant(rf.gen("first", max_tokens=2, temperature=1.0))
        others = await asyncio.gather(*(ask.arun(question) for question in questions))
        found = await stock.acall("lamp")
        return s["first"], [run.value for run in others], found, ask.run("again").value

    questions = ["one", "two", "one"]

    async def both(backend: Any) -> Any:
        rf.set_default_backend(backend)
        try:
            return await several.arun(questions)
        finally:
            rf.set_default_backend(None)

    with rf.record(file):
        recorded = asyncio.run(both(ScriptedBackend()))
    count = len(calls)
    with rf.replay(file):
        assert is_same(asyncio.run(both(NOTHING)), recorded)
    assert is_same(several.run(questions, backend=NOTHING, replay=file), recorded) and len(calls) == count
    runs = Recording(file).runs
    assert [run.record.parent for run in runs.values()].count(0) == 4


def test_programs_written_for_sglang(file: Path) -> None:
    @rf.function
    def old(s, topic):
        s += rf.user(topic) + rf.assistant(rf.gen("x", max_tokens=3))

    with rf.record(file):
        state = old.run(topic="tides", backend=ScriptedBackend())
        streamed = old.run(topic="tiles", backend=ScriptedBackend(), stream=True)
        text = "".join(streamed.text_iter("x"))
        batch = [each["x"] for each in old.run_batch([{"topic": "a"}, {"topic": "b"}], backend=ScriptedBackend())]
    with rf.replay(file):
        assert old.run(topic="tides", backend=NOTHING)["x"] == state["x"]
        assert "".join(old.run(topic="tiles", backend=NOTHING, stream=True).text_iter("x")) == text
        assert [e["x"] for e in old.run_batch([{"topic": "b"}, {"topic": "a"}], backend=NOTHING)] == batch[::-1]


def test_a_failure_of_the_backend_is_played(file: Path) -> None:
    def broken(prompt: str, params: rf.SamplingParams) -> Any:
        return BackendError("the server is gone", help="start it") if "sofa" in prompt else hash_reply(prompt, params)

    @rf.program
    def careful(s, item):
        try:
            draft = s.copy()
            draft += rf.user(item) + rf.assistant(rf.gen("x"))
            return draft["x"]
        except rf.RamifyError as error:
            return f"{type(error).__name__}: {error.message}"

    recorded = careful.run("sofa", backend=ScriptedBackend(broken), record=file)
    assert recorded.value == "BackendError: the server is gone"
    assert careful.run("sofa", backend=NOTHING, replay=file).value == recorded.value
    bad = file.with_name("bad.rec")
    with pytest.raises(BackendError):
        ask.run("A sofa?", backend=ScriptedBackend(broken), record=bad)
    with pytest.raises(BackendError, match="the server is gone") as error:
        ask.run("A sofa?", backend=NOTHING, replay=bad)
    assert error.value.span is not None and error.value.help == "start it"


# What differs is named.


def refused(program: Any, *args: Any, file: Path, **options: Any) -> rf.ReplayMismatch:
    with pytest.raises(rf.ReplayMismatch) as error:
        program.run(*args, backend=NOTHING, replay=file, **options)
    return error.value


@pytest.mark.parametrize("eager", [False, True])
def test_another_input_is_found_at_the_first_request_that_differs(file: Path, eager: bool) -> None:
    story.run(["tides", "tiles", "tiers"], backend=ScriptedBackend(), record=file)
    error = refused(story, ["tides", "ties", "hats"], file=file, eager=eager)
    assert "the gen 'query'" in error.message and "ties" in error.message and "tiles" in error.message
    assert "hats" not in error.message and error.span is not None
    assert 'rf.gen("query"' in error.span.source_line()


def test_other_parameters_names_and_calls_are_found(file: Path) -> None:
    ask.run("What?", backend=ScriptedBackend(), record=file)
    assert "its temperature is 0.5, and was 0.0" in refused(ask.options(temperature=0.5), "What?", file=file).message

    def variants() -> Iterator[tuple[str, Any]]:
        @rf.program
        def ask(s, question: str):
            s += rf.system("Answer briefly.") + rf.user(question)
            s += rf.assistant(rf.gen("reply", max_tokens=4))

        yield "its name was 'answer'", ask

        @rf.program
        def ask(s, question: str):
            s += rf.system("Answer briefly.") + rf.user(question)
            s += rf.assistant(rf.select("answer", ["a", "b"]))

        yield "its run asks for no select here", ask

        @rf.program
        def ask(s, question: str):
            s += rf.system("Answer briefly.") + rf.user(question)
            s += rf.assistant(rf.gen("answer", max_tokens=4)) + rf.user("Why?") + rf.assistant(rf.gen("why"))

        yield "'why' is not in the recording", ask

        @rf.program
        def ask(s, question: str):
            return question

        yield "the run that was recorded went on with the gen 'answer'", ask

    for words, program in variants():
        program.fn.__qualname__ = "ask"
        error = refused(program, "What?", file=file)
        assert words in error.message


def test_tools_that_are_called_with_something_else_are_found(file: Path) -> None:
    @rf.program
    def buy(s, item):
        return price(item)

    buy.run("lamp", backend=ScriptedBackend(), record=file)
    error = refused(buy, "chair", file=file)
    assert "this call of price" in error.message and "'chair'" in error.message and "'lamp'" in error.message
    assert error.span is not None and calls == ["lamp"]


def test_a_handler_cannot_hide_that_something_differs(file: Path) -> None:
    @rf.program
    def stubborn(s, word):
        for _ in range(1000):
            try:
                draft = s.copy()
                draft += word + rf.gen("x", max_tokens=2)
                return draft["x"]
            except Exception:
                continue

    stubborn.run("one", backend=ScriptedBackend(), record=file)
    assert "'two'" in refused(stubborn, "two", file=file).message


def test_a_program_cannot_hide_what_differs_in_one_that_it_runs(file: Path) -> None:
    @rf.program
    def outer(s, question):
        try:
            return ask.run(question, backend=s.prompt.context.backend).value
        except Exception:
            return "hidden"

    outer.run("What?", backend=ScriptedBackend(), record=file)
    assert "Why?" in refused(outer, "Why?", file=file).message


def test_a_run_that_is_not_there(file: Path) -> None:
    ask.run("What?", backend=ScriptedBackend(), record=file)
    with pytest.raises(rf.RecordingError, match="has no such run of story; it has runs of ask"):
        story.run(["a"], backend=NOTHING, replay=file)
    with rf.replay(file):
        ask.run("What?", backend=NOTHING)
        with pytest.raises(rf.RecordingError, match="has no such run of ask; it has 1 run of it"):
            ask.run("What?", backend=NOTHING)
    runs = story.run_batch([{"topics": ["a"]}], backend=NOTHING, replay=file)
    assert isinstance(runs[0].error, rf.RecordingError)


def test_the_recording_of_a_killed_process_plays_as_far_as_it_goes(file: Path) -> None:
    recorded = story.run(["tides", "tiles"], backend=ScriptedBackend(), record=file)
    data = file.read_bytes()
    outcomes = set()
    for length in sorted({*range(0, len(data), 211), *range(len(data) - 30, len(data))}):
        file.write_bytes(data[:length])
        try:
            assert is_same(story.run(["tides", "tiles"], backend=NOTHING, replay=file), recorded)
            outcomes.add("whole")
        except rf.RecordingError as error:
            outcomes.add(error.message.partition(" ")[2][-30:])
        again = story.run(["tides", "tiles"], backend=ScriptedBackend(), replay=file, partial=True)
        assert again.text == recorded.text
    assert any("before the end of the run" in each for each in outcomes) and "whole" in outcomes


# Partial replay.


def test_only_what_is_new_and_what_follows_from_it_is_run(file: Path) -> None:
    story.run(["tides", "tiles", "tiers"], backend=ScriptedBackend(), record=file)
    asked = ScriptedBackend()
    count = len(calls)
    story.run(["tides", "hats", "tiers"], backend=asked, replay=file, partial=True)
    assert len(asked.requests) == 4  # query and note of the branch, and what its note stands in: select and score
    assert [prompt for prompt in asked.requests if "tides" in prompt or "tiers" in prompt] == []
    assert len(calls) == count + 1


def test_nothing_new_needs_no_model(file: Path) -> None:
    recorded = story.run(["tides", "tiles"], backend=ScriptedBackend(), record=file)
    assert is_same(story.run(["tides", "tiles"], backend=NOTHING, replay=file, partial=True), recorded)


def test_a_new_recording_holds_what_was_played_and_what_was_run(file: Path) -> None:
    story.run(["tides", "tiles"], backend=ScriptedBackend(), record=file)
    second = file.with_name("second.rec")
    edited = story.run(["tides", "hats"], backend=ScriptedBackend(), replay=file, partial=True, record=second)
    assert is_same(story.run(["tides", "hats"], backend=NOTHING, replay=second), edited)


def test_a_partial_replay_goes_on_with_the_model_that_was_recorded(file: Path) -> None:
    ask.run("What is 3 + 4?", backend=open_backend("tiny"), record=file)
    run = ask.run("What is 3 + 5?", replay=file, partial=True)
    assert run.value == ask.run("What is 3 + 5?").value
    with pytest.raises(rf.RecordingError, match="the recording is of the model local:tiny"):
        ask.run("What is 3 + 6?", backend=ScriptedBackend(), replay=file, partial=True)


# Cassettes.


def test_a_cassette_is_recorded_once(file: Path) -> None:
    for _ in range(2):
        with rf.replay(file, once=True):
            value = ask.run("What?", backend=ScriptedBackend() if not file.exists() else NOTHING).value
    assert value == ask.run("What?", backend=ScriptedBackend()).value
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_cassette_of_a_block_that_failed_is_not_kept(file: Path) -> None:
    with pytest.raises(ZeroDivisionError), rf.replay(file, once=True):
        ask.run("What?", backend=ScriptedBackend())
        raise ZeroDivisionError
    assert not list(file.parent.iterdir())


def test_what_no_file_can_hold_is_told_with_its_line(file: Path) -> None:
    @rf.tool
    def open_door(name: str) -> object:
        """Opens something."""
        return threading.Lock()

    @rf.program
    def enter(s, name):
        door = open_door(name)
        return door is not None

    with pytest.warns(rf.RecordingWarning, match=r"test_replay\.py:\d+: the tool open_door cannot be replayed"):
        assert enter.run("a", backend=ScriptedBackend(), record=file).value
    with pytest.raises(rf.RecordingError, match="open_door cannot be replayed: its value is a lock"):
        enter.run("a", backend=NOTHING, replay=file)
    assert enter.run("a", backend=ScriptedBackend(), replay=file, partial=True).value


def test_options_that_do_not_go_together(file: Path) -> None:
    with pytest.raises(UsageError, match="a partial replay needs the recording"):
        ask.run("What?", backend=ScriptedBackend(), partial=True)
    with pytest.raises(rf.RecordingError, match="there is no recording"):
        ask.run("What?", backend=ScriptedBackend(), replay=file)
    file.write_text("text")
    with pytest.raises(rf.RecordingError, match="exists already"):
        ask.run("What?", backend=ScriptedBackend(), record=file)


def test_the_dataflow_is_in_the_file(file: Path) -> None:
    story.run(["tides", "tiles"], backend=ScriptedBackend(), eager=True, record=file)
    (run,) = Recording(file).runs.values()
    events = {each.id: each for each in (*run.answers, *run.calls)}
    by_name = {(each.name, getattr(each, "branch", None)): each for each in events.values()}
    query, note = by_name["query", (0,)], by_name["note", (0,)]
    assert note.after == query.id  # type: ignore[union-attr]

    def known_to(id: str | None) -> set[str]:
        found: set[str] = set()
        while id is not None:
            found.update(events[id].reads)
            id = events[id].before
        return found

    assert note.id in known_to(by_name["best", ()].id) and query.id in known_to(note.id)


def test_prompts_are_whole_again_though_their_beginnings_are_written_once(file: Path) -> None:
    long = "All of this stands before every question. " * 50
    asked = ScriptedBackend()

    @rf.program
    def many(s, numbers):
        s += rf.system(long)
        for branch, number in zip(s.fork(len(numbers)), numbers, strict=True):
            branch += rf.user(f"Number {number}?") + rf.assistant(rf.gen("x"))
            branch += rf.user("Why?") + rf.assistant(rf.gen("why"))

    many.run(list(range(20)), backend=asked, record=file)
    recording = Recording(file)
    (run,) = recording.runs.values()
    assert sorted(recording.prompt(answer) for answer in run.answers) == sorted(asked.requests)
    assert file.stat().st_size < 4 * len(long) + 40 * 500


def test_odd_answers_are_written(file: Path) -> None:
    with pytest.raises(OutputError):
        number.run(backend=ScriptedBackend(lambda *_: "no number"), record=file)
    with pytest.raises(OutputError):
        number.run(backend=NOTHING, replay=file)


@rf.program
def number(s):
    s += rf.gen("n", dtype=int)
    return s["n"]


def test_a_choice_method_of_the_users_is_called_again(file: Path) -> None:
    def last(choices: Sequence[Any]) -> int:
        return len(choices) - 1

    @rf.program
    def choose(s):
        s += "One: " + rf.select("x", ["a", "b"], choices_method=last)
        return s["x"]

    assert choose.run(backend=ScriptedBackend(), record=file).value == "b"
    assert choose.run(backend=NOTHING, replay=file).value == "b"


def test_items_stand_in_the_order_in_which_they_were_recorded(file: Path) -> None:
    @rf.program
    def table(s, fields):
        with s.unordered():
            for name, value in fields.items():
                s += f"{name}: {value}\n"
        s += rf.gen("x", max_tokens=3)

    rows = [{"fields": {"id": number, "shared": "the same", "also": "equal"}} for number in range(6)]
    recorded = table.run_batch(rows, backend=ScriptedBackend(), record=file)
    assert recorded[0].text.startswith("shared: the same\n")  # what rows share comes first
    for eager in (False, True):
        played = table.run_batch(rows[::-1], backend=NOTHING, replay=file, eager=eager)
        assert [run.text for run in played] == [run.text for run in recorded[::-1]]
        assert table.run(**rows[2], backend=NOTHING, replay=file, eager=eager).text == recorded[2].text


def test_a_run_that_was_cancelled_is_played_to_its_end(file: Path) -> None:
    @rf.program
    def waits(s, word):
        s += word + rf.gen("x", max_tokens=2)
        first = s["x"]
        s += rf.gen("y", max_tokens=2)
        return first, s["y"]

    def late(prompt: str, params: rf.SamplingParams) -> str:
        return hash_reply(prompt, params)

    class Stuck(ScriptedBackend):
        def _run(self, prompt: Any, script: Any, answer: Any) -> None:
            if len(self.requests) == 0:
                super()._run(prompt, script, answer)

    with pytest.raises(rf.RamifyError, match="took longer than its timeout"):
        waits.run("a", backend=Stuck(late), record=file, timeout=0.3)
    with pytest.raises(rf.RamifyError, match="the run that was recorded ended before this was answered"):
        waits.run("a", backend=NOTHING, replay=file)
    assert len(waits.run("a", backend=ScriptedBackend(), replay=file, partial=True).value) == 2


def test_a_block_that_ends_before_its_runs_says_so(file: Path) -> None:
    @rf.function
    def old(s, topic):
        s += topic + rf.gen("x", max_tokens=3)

    with pytest.warns(rf.RecordingWarning, match="a run had not ended when the recording did"), rf.record(file):
        state = old.run(topic="tides", backend=ScriptedBackend(delay=0.3), stream=True)
    assert state["x"]


def test_programs_of_one_event_loop(file: Path) -> None:
    questions = ["one", "two", "three", "one"]

    async def all_at_once(backend: Any, **options: Any) -> list[str]:
        runs = [ask.options(backend=backend, temperature=1.0).arun(question) for question in questions]
        return [run.value for run in await asyncio.gather(*runs)]

    with rf.record(file):
        recorded = asyncio.run(all_at_once(ScriptedBackend(delay=0.01)))
    with rf.replay(file):
        assert asyncio.run(all_at_once(NOTHING)) == recorded
