"""When what ran: bars, lanes and parts of a run's timeline, and the files made of it."""

from __future__ import annotations

import asyncio
import json
import time
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
import ramify as rf
from ramify.backends.replay.recording import Recording
from ramify.backends.scripted import ScriptedBackend
from ramify.ir.errors import RecordingError, UsageError
from ramify.lang.cli import main
from ramify.lang.pictures.telling import text_of
from ramify.lang.pictures.timeline_drawing import rows_of, ticks
from ramify.lang.recorded_timeline import recorded_timeline
from ramify.lang.timeline import Bar, Timeline, parts_of
from ramify.runtime.generation import GenRecord
from ramify.runtime.request import Done

SVG = "{http://www.w3.org/2000/svg}"
ROUNDING_MS = 1e-6
CRUEL = "a</script><script>throw 1</script> <!-- &amp; \"' \x1b\x00\u2028 \U0001f600 ]]> $title"


@rf.tool
def look_up(word: str) -> str:
    """Look a word up."""
    time.sleep(0.02)
    return f"{word}!"


def slowly(text: str) -> str:
    time.sleep(0.03)
    return text


@rf.program
def everything(s, words):
    s += rf.system("Answer briefly.")
    forks = s.fork(len(words))
    for branch, word in zip(forks, words, strict=True):
        branch += rf.user(f"Is {word} even or odd?") + rf.assistant(rf.gen("answer", max_tokens=6))
    found = slowly(forks[0]["answer"])
    s += look_up(found) + rf.select("kind", ["one", "two"])
    s += rf.gen("samples", n=3, max_tokens=3, temperature=0.7, seed=1)
    return s["kind"]


@rf.program
def ask(s, question: str):
    s += rf.user(question) + rf.assistant(rf.gen("answer", max_tokens=8))
    return s["answer"]


def records(timeline: Timeline) -> list[str]:
    return sorted(bar.name for bar in timeline.bars if bar.record is not None)


def requests(timeline: Timeline) -> list[Bar]:
    return [bar for bar in timeline.bars if isinstance(bar.record, GenRecord)]


def check(timeline: Timeline) -> None:
    """Bars are in their lanes one after the other, within the timeline, and their parts follow each other."""
    for lane in range(len(timeline.lanes)):
        inside = [bar for bar in timeline.bars if bar.lane == lane]
        assert inside
        for one, next_one in pairwise(inside):
            assert one.end_ms <= next_one.begin_ms
    for bar in timeline.bars:
        ends = [bar.begin_ms, *(part.end_ms for part in bar.parts)]
        assert ends == sorted(ends) and ends[0] >= -ROUNDING_MS and ends[-1] <= timeline.length_ms + ROUNDING_MS
    height = 0
    for row in rows_of(timeline):
        assert row.y == height
        height += row.height


@pytest.mark.parametrize("eager", [False, True])
def test_all_that_a_run_asks_for_has_a_bar(eager):
    run = everything.run(words=[4, 7, 12], eager=eager)
    timeline = run.timeline
    check(timeline)
    assert records(timeline) == sorted(record.name or record.kind for record in run.trace)
    labels = [lane.label for lane in timeline.lanes]
    assert [label for label in labels if "branch" in label] == ["branch 0", "branch 1", "branch 2"]
    assert sum(lane.is_more for lane in timeline.lanes if lane.label == "first state") >= 1  # samples run at once
    (tool,) = (bar for bar in timeline.bars if timeline.lanes[bar.lane].label == "tools")
    assert tool.seconds_of("tool") >= 0.02
    for bar in timeline.bars:
        if isinstance(bar.record, GenRecord):
            assert {part.kind for part in bar.parts} <= {"wait", "prefill", "decode"}
            assert "prefill" in {part.kind for part in bar.parts}
    host = [bar for bar in timeline.bars if timeline.lanes[bar.lane].label == "your code"]
    assert bool(host) is not eager  # eagerly, all of it is the user's code
    assert eager or any("slowly(" in bar.span.source_line() and bar.seconds_of("host") >= 0.03 for bar in host)


def test_host_code_of_coroutines_is_in_the_timeline():
    @rf.program
    async def waits(s):
        await asyncio.sleep(0.02)
        s += rf.gen("x", max_tokens=2)
        return s["x"]

    timeline = waits.run(backend=ScriptedBackend()).timeline
    check(timeline)
    assert any(bar.seconds_of("host") >= 0.02 for bar in timeline.bars)


def test_a_batch_has_lanes_for_each_row_and_shared_answers_say_so():
    runs = ask.run_batch(
        [{"question": "What is 1 + 1?"}, {"question": "What is 1 + 1?"}, {"question": "What is 2 + 3?"}]
    )
    timeline = rf.timeline(runs)
    check(timeline)
    assert [run.label for run in timeline.runs] == ["ask, row 0", "ask, row 1", "ask, row 2"]
    assert [lane.run for lane in timeline.lanes] == [0, 1, 2]
    kinds = [{part.kind for part in bar.parts} for bar in timeline.bars]
    assert kinds.count({"shared"}) == 1


def test_a_backend_that_tells_no_times_has_bars_of_one_colour(tmp_path):
    backend = ScriptedBackend(delay=0.01)
    recorded = ask.run("Why?", backend=backend, record=tmp_path / "why.rec")
    (bar,) = recorded.timeline.bars
    assert {part.kind for part in bar.parts} <= {"wait", "model"} and bar.seconds_of("model") > 0.005
    (played,) = ask.run("Why?", replay=tmp_path / "why.rec").timeline.bars
    assert [part.kind for part in played.parts] == ["replayed"]


def test_parts_are_within_the_request_whatever_a_backend_says():
    done = Done("x", (), "stop", queue_ms=5.0, first_ms=8.0, wall_ms=20.0)
    assert [(part.kind, part.end_ms) for part in parts_of(done, 90.0, 120.0)] == [
        ("wait", 105.0), ("prefill", 108.0), ("decode", 120.0)
    ]  # fmt: skip
    for wall_ms in (0.0, 1000.0):
        strange = Done("x", (), "stop", queue_ms=50.0, first_ms=3.0, wall_ms=wall_ms)
        ends = [part.end_ms for part in parts_of(strange, 90.0, 120.0)]
        assert ends == sorted(ends) and ends[-1] == 120.0
    assert [part.kind for part in parts_of(None, 1.0, 2.0)] == ["model"]


def test_a_run_of_another_process_has_no_timeline():
    import pickle

    run = pickle.loads(pickle.dumps(ask.run("Why?", backend=ScriptedBackend())))
    with pytest.raises(UsageError, match="stays in the process"):
        _ = run.timeline


def test_the_trace_of_chrome_has_whole_events_that_nest():
    timeline = everything.run(words=[4, 7]).timeline
    trace = json.loads(timeline.perfetto())
    events = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    names = {(event["pid"], event["tid"]): event["args"]["name"] for event in trace["traceEvents"]
             if event["name"] == "thread_name"}  # fmt: skip
    assert {event["ph"] for event in trace["traceEvents"]} == {"X", "M"}
    assert len([event for event in events if event.get("args")]) == len(timeline.bars)
    open_until: dict[tuple[int, int], list[float]] = {}
    for event in sorted(events, key=lambda event: (event["ts"], -event["dur"])):
        place = event["pid"], event["tid"]
        assert names[place] and event["dur"] >= 0
        ends = open_until.setdefault(place, [])
        while ends and ends[-1] <= event["ts"] + 1e-3:
            ends.pop()
        assert not ends or event["ts"] + event["dur"] <= ends[-1] + 1e-3
        ends.append(event["ts"] + event["dur"])


def test_the_page_and_the_drawing_hold_what_they_show_whatever_it_is():
    backend = ScriptedBackend(lambda text, params: CRUEL)
    runs = ask.run_batch([{"question": CRUEL}, {"question": "x"}], backend=backend)
    timeline = rf.timeline(runs)
    page = timeline.html()
    root = ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>"))
    assert [word for word in ("src=", "href=", "url(", "@import", "http:", "https:") if word in page] == []
    (data,) = (node.text for node in root.iter("script") if node.attrib.get("id") == "bars")
    bars = json.loads(data)["bars"]
    assert len(bars) == len(timeline.bars) == len([n for n in root.iter("g") if n.get("class", "").startswith("bar")])
    assert bars[0][2] == runs[0].value
    drawing = ElementTree.fromstring(timeline.svg())
    assert drawing.findtext(f"{SVG}title") and drawing.findtext(f"{SVG}desc")
    assert len([node for node in drawing.iter(f"{SVG}g") if node.get("class") == "bar"]) == len(timeline.bars)


def test_a_page_of_a_thousand_generations_is_under_a_megabyte():
    rows = [{"question": f"Question {number}? {'word ' * 40}"} for number in range(1000)]
    timeline = rf.timeline(ask.run_batch(rows, backend=ScriptedBackend(lambda text, params: CRUEL * 20)))
    assert len(timeline.bars) >= 1000
    assert len(timeline.html().encode()) < 1_000_000


def test_failures_are_marked_and_empty_timelines_are_fine():
    @rf.program
    def fails(s):
        s += rf.gen("n", dtype=int, max_tokens=4)
        return s["n"]

    (run,) = fails.run_batch([{}], backend=ScriptedBackend(lambda text, params: "many"))
    assert not run.ok
    page = run.timeline.html()
    assert 'class="bar failed"' in page
    empty = rf.timeline([])
    assert empty.length_ms == 0 and json.loads(empty.perfetto())["traceEvents"] == []
    assert "<svg" in empty.html() and ElementTree.fromstring(empty.svg()) is not None


@pytest.mark.parametrize("length", [0.0, 0.4, 7.0, 72.1, 1040.0, 5e3, 123456.7])
def test_ticks_are_few_and_round(length):
    found = ticks(length)
    assert 1 <= len(found) + (length == 0) <= 10 and all(at < length for at in found)


def test_bars_are_seconds_of_their_parts():
    bar = Bar(0, 10.0, parts_of(Done("", (), "stop", queue_ms=5, first_ms=8, wall_ms=20), 10.0, 30.0), None, None)
    assert (bar.seconds_of("wait"), bar.seconds_of("decode"), bar.seconds_of("tool")) == (0.005, 0.012, 0)
    assert bar.name == "your code"


PROGRAM = """
import ramify as rf

@rf.program
def ask(s, question: str):
    s += rf.user(question) + rf.assistant(rf.gen("answer", max_tokens=4))
    if question == "raise":
        raise ValueError("asked to")
    return s["answer"]
"""


@pytest.fixture
def program(tmp_path: Path) -> str:
    path = tmp_path / "programs.py"
    path.write_text(PROGRAM)
    return str(path)


def test_the_command_writes_each_file(program, tmp_path, capsys):
    files = {option: tmp_path / f"out.{option}" for option in ("html", "svg", "perfetto")}
    words = [word for option, file in files.items() for word in (f"--{option}", str(file))]
    assert main(["trace", program, "--arg", "question=Why?", "--model", "scripted", *words]) == 0
    said = capsys.readouterr().out
    assert "[user] Why?" in said and f"{files['html']}: " in said
    assert files["html"].read_text().startswith("<!DOCTYPE html>")
    assert ElementTree.parse(files["svg"]) is not None and json.loads(files["perfetto"].read_text())["traceEvents"]


def test_the_command_draws_rows_and_what_failed(program, tmp_path, capsys):
    data, page = tmp_path / "rows.jsonl", tmp_path / "out.html"
    data.write_text('{"question": "a"}\n{"question": "raise"}\n')
    words = ["trace", program, "--model", "scripted", "--html", str(page)]
    assert main([*words, "--data", str(data)]) == 1
    assert "1 of 2 rows failed, the first with ValueError: asked to" in capsys.readouterr().out
    assert "ask, row 1" in page.read_text()
    page.unlink()
    assert main([*words, "--arg", "question=raise", "--quiet"]) == 1
    assert page.exists() and "asked to" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, said",
    [
        ([], "has nothing to write"),
        (["--html", "nowhere/out.html"], "there is no folder 'nowhere'"),
        (["--html", "."], "it is a folder"),
        (["--htlm", "x"], "did you mean --html"),
        (["--html", "x.html", "--data", "none.jsonl"], "there is no data file"),
    ],
)
def test_the_command_says_what_is_wrong_before_it_runs(program, words, said, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["trace", program, "--arg", "question=a", "--model", "scripted", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_recording_has_the_timeline_of_what_was_recorded(tmp_path, capsys):
    path = tmp_path / "all.rec"
    with rf.record(path):
        runs = [everything.run(words=[4, 7]), ask.run("Why?", eager=True)]
    timeline = recorded_timeline(Recording(path))
    check(timeline)
    own = rf.timeline(runs)
    assert records(timeline) == records(own)
    assert [run.label.partition("(")[0] for run in timeline.runs] == [run.label for run in own.runs]
    names = {"tools", "your code"}
    one, other = ({lane.label for lane in each.lanes} - names for each in (own, timeline))
    assert one == other
    for one, other in zip(requests(own), requests(timeline), strict=True):
        assert one.record.text == other.record.text or (one.name == "kind" and "'one' -" in text_of(other))
        assert one.record.cached_tokens == other.record.cached_tokens
        assert {part.kind for part in one.parts} - {"wait"} == {part.kind for part in other.parts} - {"wait"}
    (tool,) = (bar for bar in timeline.bars if timeline.lanes[bar.lane].label == "tools")
    assert tool.seconds_of("tool") >= 0.02
    page, trace = str(tmp_path / "t.html"), str(tmp_path / "t.json")
    assert main(["trace", str(path), "--html", page, "--perfetto", trace]) == 0
    assert capsys.readouterr().out == f"{page}: html of 2 runs\n{trace}: perfetto of 2 runs\n"
    assert main(["trace", str(path), "--html", page, "--temperature", "0"]) == 2
    assert "--temperature is about a run" in capsys.readouterr().err
    assert main(["tree", str(path), "--html", page]) == 2
    assert "which holds answers and no program" in capsys.readouterr().err


def test_what_another_recording_answered_and_older_recordings_have_no_times(tmp_path):
    first, second = tmp_path / "first.rec", tmp_path / "second.rec"
    ask.run("Why?", backend=ScriptedBackend(), record=first)
    with rf.replay(first, partial=True, record=second):
        ask.run("Why?", backend=ScriptedBackend())
    timeline = recorded_timeline(Recording(second))
    assert len(timeline.runs) == 1 and timeline.bars == ()
    recording = Recording(first)
    for run in recording.runs.values():
        run.record = msgspec.structs.replace(run.record, begun_ms=None)
    with pytest.raises(RecordingError, match="tells no times"):
        recorded_timeline(recording)
