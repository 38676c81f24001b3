"""Pass parallelize: host code that waits holds up nothing, and nobody can tell but by the clock."""

from __future__ import annotations

import traceback
import zlib
from typing import Any

import pytest
import ramify as rf
from ramify.backends.scripted import ScriptedBackend
from ramify.runtime import order
from ramify.runtime.prompt import Prompt
from ramify.runtime.request import Delta, SamplingParams

from benchmarks import workload_programs

from . import comparing, test_generated


class Shuffled(ScriptedBackend):
    """Answers come in an order of their own, which depends on the texts alone. peak: how many were on their way."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.on_the_way = self.peak = 0

    def generate(self, prompt: Prompt, params: SamplingParams, sink: Any) -> Any:
        """See Backend."""
        self.delay = (zlib.crc32(str(prompt.text_value()).encode()) % 7) * 0.002 + 0.001
        self.on_the_way += 1
        self.peak = max(self.peak, self.on_the_way)
        return super().generate(prompt, params, _Counted(self, sink))


class _Counted:
    """A sink that tells the backend of the end."""

    def __init__(self, backend: Shuffled, sink: Any) -> None:
        self.wants_deltas = sink.wants_deltas
        self._backend, self._sink = backend, sink

    def __call__(self, event: Any) -> None:
        self._backend.on_the_way -= not isinstance(event, Delta)
        self._sink(event)


def text(name: str, length: int = 4) -> Any:
    """A helper that only makes an expression."""
    return rf.gen(name, max_tokens=length)


def loud(log: list[Any], value: Any) -> Any:
    """A helper with effects."""
    log.append(("loud", value))
    return value


@rf.program
def collect(s, log, n):
    notes = []
    for number in range(n):
        t = s.copy()
        t += f"Chunk {number}." + text("note")
        note = t["note"].strip()
        if note:
            notes.append(note)
    s += "\n".join(notes) + text("answer")
    return notes, s["answer"]


@rf.program
def count(s, log, n):
    votes, longest = {}, ""
    for number in range(n):
        t = s.copy()
        t += f"Vote {number % 3}." + text("vote", 1)
        votes[t["vote"]] = votes.get(t["vote"], 0) + 1
        longest = max(longest, t["vote"], key=len)
    return votes, longest, max(sorted(votes), key=votes.get)


@rf.program
def fails_in_the_middle(s, log, n):
    for number in range(n):
        t = s.copy()
        t += f"Item {number}." + text("x")
        s += f"[{number}]"
        log.append(t)
        log.append(len(t["x"]) // (2 - number))
        s += "behind"
        t += "behind"
    return log


@rf.program
def fails_twice(s, log, n):
    found = []
    for number in range(n):
        t = s.copy()
        t += f"Item {number}." + text("x")
        found.append(1 // (number - 1))
        found.append({}[t["x"]])
    return found


@rf.program
def fails_at_once(s, log, n):
    t = s.copy()
    t += "Slow." + text("x")
    first = len(t["x"]) // 0
    second = {}["missing"]
    return first, second


@rf.program
def loud_between(s, log, n):
    for number in range(n):
        t = s.copy()
        t += f"Item {number}." + text("x")
        log.append(t["x"])
        loud(log, number)
        log.append(number)


@rf.program
def iterated(s, log, n):
    todo = ["a", "b"]
    seen = []
    for item in todo:
        t = s.copy()
        t += f"Item {item}." + text("x", 1)
        seen.append(item)
        if len(todo) < n:
            todo.append(item + t["x"].strip()[:1])
    return todo, seen


@rf.program
def aliased(s, log, n):
    first = []
    second = first
    pair = [first, {"inner": second}]
    for number in range(n):
        t = s.copy()
        t += f"Item {number}." + text("x", 1)
        first.append(t["x"])
        pair[1]["inner"].append(number)
        log.append(len(second))
    for item in pair[0]:
        log.append(item)
    return pair


@rf.program
def nested(s, log, n):
    table = []
    for number in range(n):
        row = []
        for column in range(2):
            t = s.copy()
            t += f"Cell {number} {column}." + text("x", 1)
            row.append(t["x"])
        table.append(row)
    s += f"{len(table)}"
    return table


@rf.program
def counted_by_a_closure(s, log, n):
    total = 0

    def add(value):
        nonlocal total
        total += len(value)
        return total

    for number in range(n):
        t = s.copy()
        t += f"Item {number}." + text("x")
        log.append(t["x"])
        log.append(add(t["x"]))
    return total


@rf.program
def states_in_lists(s, log, n):
    drafts = []
    for number in range(n):
        t = s.copy()
        t += f"Draft {number}." + text("x")
        drafts.append((len(t["x"]), t))
        t += "."
    drafts.sort(key=lambda entry: entry[0])
    return drafts


@rf.program
def watched(s, log, n):
    for number in range(n):
        t = s.copy()
        t += f"Item {number}." + text("x")
        log.append(t["x"])
        try:
            log.append(len(t["x"]) // (1 - number % 2))
        except ZeroDivisionError:
            log.append("zero")
        finally:
            log.append("finally")


@rf.program
def decides(s, log, n):
    kept, number = [], 0
    while len(kept) < 2 and number < n:
        t = s.copy()
        t += f"Item {number}." + text("x", 2)
        number += 1
        if len(t["x"]) % 2:
            kept.append(t["x"])
        else:
            log.append(number)
    return kept


@rf.program
def chooses(s, log, n):
    choices = ["tea"]
    for number in range(n):
        t = s.copy()
        t += f"Next {number}." + text("x", 1)
        choices.append(t["x"].strip())
        s += rf.select("drink", choices)
    return choices


@rf.program
def forks_in_loops(s, log, n):
    for number in range(n):
        forks = s.fork(2)
        for t in forks:
            t += f"Item {number}." + rf.gen("x", max_tokens=3, temperature=1.0)
        log.append([len(t["x"]) for t in forks])
        u = s.copy()
        u += rf.gen("y", max_tokens=3, temperature=1.0)
        log.append(u["y"])
        s += "."


@rf.program
def helper_with_state(s, log, name):
    s += f"Help {name}." + text("x")
    log.append(s["x"])
    return s["x"].strip()


@rf.program
def calls(s, log, n):
    return [helper_with_state(s.copy(), log, number) for number in range(n)]


@rf.program
def fails_in_a_helper(s, log, n):
    for number in range(n):
        fails_below(s.copy(), log, number)
        s += "."


def fails_below(s, log, number):
    s += f"Below {number}." + text("x")
    log.append(number)
    log.append([s["x"]][number])


@rf.program
def splits(s, log, n):
    for number in range(n):
        t = s.copy()
        t += f"Split {number}." + text("x", 6)
        words = t["x"].split()
        words.reverse()
        for word in words:
            log.append(word)
        first, *rest = words
        log.append((first, rest))


@rf.program
def converts(s, log, n):
    for number in range(n):
        t = s.copy()
        t += f"Number {number}." + rf.gen("x", dtype=int)
        log.append(number)
        log.append(t["x"] + 1)
    return log


@rf.program
def lazily(s, log, n):
    found = []
    for number in range(n):
        t = s.copy()
        t += f"Item {number}." + text("x")
        found.append(t["x"])
        lengths = (len(item) for item in found)
        ahead = enumerate(found)
        found.append("more")
        log.append(sum(lengths))
        log.append(list(ahead))


@rf.program
def lists_of_states(s, log, n):
    forks = s.fork(n)
    for number, t in enumerate(forks):
        t += f"Item {number}." + text("x")
    pairs = [(t["x"], t) for t in forks]
    texts = [t["x"] for t in forks]
    shown = f"{texts}"
    texts.append("more")
    pairs.reverse()
    log.append(len(pairs))
    for x, t in pairs:
        t += x
    s += f"{texts}{shown}"
    return pairs


@rf.program
def endless(s, log, n):
    t = s.copy()
    t += text("x")
    log.append(len(t["x"]) // n)
    while True:
        s.copy()


@rf.program
def collect_slowly(s, log, n):
    for number in range(n):
        t = s.copy()
        t += f"Item {number}." + text("x")
        log.append(t["x"])


@rf.program
def ranked_drafts(s, log, n):
    votes, drafts, names = {}, [], {}
    for number in range(n):
        t = s.copy()
        t += f"Draft {number}." + text("x", 2)
        name = t["x"].strip()
        votes[name] = votes.get(name, 0) + 1
        drafts.append((len(name), -number, t))
        names[f"{number}"] = t
        t += "Late."
        log.append(votes[name])
    drafts.sort(key=lambda draft: draft[:2])
    pair = (len(drafts), names)
    count, named = pair
    return [t for _, _, t in drafts[:2]], count, named, votes


@rf.program
def looked_at_behind(s, log, n):
    inner = []
    outer = [inner]
    for number in range(n):
        t = s.copy()
        t += f"Draft {number}." + text("x", 2)
        log.append((t["x"], t))
        inner.append((len(t["x"]), number, log[-1]))
        last = log[-1]
        t += "More." + text("x", 1)
        log.append(last[1]["x"])
        log.append(last[1].text())
        best = max(outer[0])
        log.append(f"{best[2][1]['x']}")
        log.append(outer[0][0][2][1]["x"] == t["x"])
        outer.append(list(inner))
    return outer


@rf.program
def states_in_a_dict(s, log, n):
    drafts = {}
    for number in range(n):
        t = s.copy()
        t += f"Draft {number % 2}." + text("x", 1)
        drafts.setdefault(t["x"], []).append(t)
        for draft in drafts[t["x"]]:
            draft += "."
    log.append(sorted(drafts))
    return drafts


@rf.program
def copied_before_a_change(s, log, n):
    for number in range(n):
        t = s.copy()
        t += f"Object {number}." + rf.gen("x", schema=list[str], max_tokens=8)
        found = t["x"]
        log.append(found)
        log.append(list(found))
        log.append([*found])
        log.extend(found)
        found.append(number)
        found[:1] = ["first"]
        log.append((len(found), found))
    return log


PROGRAMS = [
    collect, count, fails_in_the_middle, fails_twice, fails_at_once, loud_between, iterated, aliased, nested,
    counted_by_a_closure, states_in_lists, watched, decides, chooses, forks_in_loops, calls, fails_in_a_helper,
    splits, converts, lazily, lists_of_states, ranked_drafts, looked_at_behind, states_in_a_dict,
]  # fmt: skip


def outcome(program: Any, n: int, *, seed: int | None = None, **options: Any) -> dict[str, Any]:
    log: list[Any] = []
    (run,) = program.options(seed=seed, **options).run_batch([{"log": log, "n": n}], backend=Shuffled())
    found = comparing.outcome(run, lambda file: file == __file__)
    if found["error"] is rf.OutputError:
        del log[1:]  # code behind a failed read may have run
    return found | {"log": comparing.comparable(log)}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_eager_equals_compiled(program: Any) -> None:
    for n in (0, 1, 4):
        eager = outcome(program, n, seed=n, eager=True)
        assert outcome(program, n, seed=n) == eager
        assert outcome(program, n, seed=n, disable="parallelize") == eager


def test_what_is_copied_is_copied_before_it_changes() -> None:
    for eager in (True, False):
        log: list[Any] = []
        backend = Shuffled(lambda prompt, _: '["' + prompt[-2:-1] + '", "b"]')
        run = copied_before_a_change.options(eager=eager).run(backend=backend, log=log, n=2)
        assert run.ok, run.error
        changed = [["first", "b", 0], ["first", "b", 1]]
        assert log == [
            each
            for number, now in enumerate(changed)
            for each in (now, [str(number), "b"], [str(number), "b"], str(number), "b", (3, now))
        ]


# How many requests are on their way together, one time after the other.
WAVES: dict[str, tuple[dict[str, Any], list[int]]] = {
    "tree_of_thought": ({"width": 3, "depth": 2}, [3, 3, 6, 6, 1]),
    "self_consistency": ({"samples": 8}, [8, 8]),
    "map_reduce": ({"chunks": list("abcdef")}, [6, 1]),
    "skeleton_of_thought": ({"points": 6}, [1, 6]),
}


@pytest.mark.parametrize("name", WAVES)
def test_plain_loops_wait_as_often_as_forks_by_hand(name: str) -> None:
    arguments, waves = WAVES[name]
    written = [getattr(workload_programs, name + form) for form in ("", "_by_hand")]
    runs = [each.run(question="Why?", backend=comparing.Waves(waves), timeout=20, **arguments) for each in written]
    assert runs[0].ok, runs[0].error
    assert runs[0].value == runs[1].value


def peak(program: Any, n: int, log: list[Any] | None = None, **options: Any) -> int:
    backend = Shuffled()
    run = program.options(**options).run(backend=backend, log=log or [], n=n)
    assert run.ok, run.error
    return backend.peak


@pytest.mark.parametrize("program", [collect, count, nested, forks_in_loops], ids=lambda each: each.name)
def test_turns_of_a_loop_are_on_their_way_at_once(program: Any) -> None:
    assert peak(program, 8) >= 8
    assert peak(program, 8, disable="parallelize") <= 3


def test_an_error_ends_the_run_though_later_ones_are_known_before() -> None:
    (run,) = fails_twice.run_batch([{"log": [], "n": 4}], backend=Shuffled())
    assert isinstance(run.error, KeyError)
    assert run.traceback.count("in fails_twice\n") == 1


def test_the_calls_stand_in_the_traceback() -> None:
    (run,) = fails_in_a_helper.run_batch([{"log": [], "n": 4}], backend=Shuffled())
    assert isinstance(run.error, IndexError)
    names = [frame.name for frame in traceback.extract_tb(run.error.__traceback__)]
    assert names == ["fails_in_a_helper", "fails_below"]


def test_long_loops_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "MAX_OUTSTANDING", 16)
    eager = outcome(count, 100, eager=True)
    assert outcome(count, 100) == eager
    assert 16 <= peak(collect, 100) < 64


def test_long_lists_hold_up_nothing() -> None:
    assert peak(collect_slowly, 8, [0] * 500) >= 8


def test_a_loop_ends_when_what_it_put_off_fails() -> None:
    (run,) = endless.run_batch([{"log": [], "n": 0}], backend=Shuffled())
    assert isinstance(run.error, ZeroDivisionError)


def test_a_cancelled_run_does_nothing_more() -> None:
    log: list[Any] = []
    (run,) = collect_slowly.run_batch([{"log": log, "n": 4}], backend=ScriptedBackend(delay=5.0), timeout=0.2)
    assert isinstance(run.error, rf.RamifyError) and "timeout" in str(run.error)
    assert log == []


def test_what_a_helper_means_is_looked_up_in_each_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert collect.run(backend=Shuffled(), log=[], n=2).value[0]
    calls: list[str] = []
    monkeypatch.setitem(globals(), "text", lambda name, length=4: calls.append(name) or rf.gen(name, max_tokens=length))
    assert peak(collect, 8) >= 1
    assert calls == ["note"] * 8 + ["answer"]


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_generated_programs_with_shuffled_answers(first: int) -> None:
    for seed in range(first, first + 50):
        test_generated.check(seed, lambda number: Shuffled(test_generated.scripted(number).reply))
