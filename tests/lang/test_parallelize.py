"""Pass parallelize: host code that waits holds up nothing, and nobody can tell but by the clock."""

from __future__ import annotations

import time
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


@rf.program
def refines(s, log, n):
    kept = []
    for number in range(n):
        t = s.copy()
        t += f"Question {number}." + text("x", 1)
        rounds = 0
        while len(t["x"]) % 3 and rounds < 3:
            t += f"Again {rounds}." + rf.gen("x", max_tokens=2, temperature=1.0)
            rounds += 1
        if rounds == 2:
            log.append(number)
            continue
        elif rounds:
            t += "Why?" + rf.gen("why", max_tokens=2, temperature=1.0)
            kept.append(t["why"])
        kept.append((number, rounds, t["x"]))
    s += f"{kept}" + text("x")
    return s["x"], kept, rounds, number  # if the latter two are not bound, nothing is on its way


@rf.program
def branches_in_turns(s, log, n):
    best, kept = "", {}
    for number in range(n):
        t = s.copy()
        t += f"Draft {number}." + text("x", 2)
        if len(t["x"]) % 2:
            u = t.copy()
            u += "Check." + rf.gen("check", max_tokens=2, temperature=1.0)
            t += f"Checked: {u['check']}" + rf.gen("x", max_tokens=2, temperature=1.0)
        v = t.copy()
        v += "Rate." + rf.gen("rating", max_tokens=1, temperature=1.0)
        if len(v["rating"]) > len(best):
            best = v["rating"]
        kept[t["x"]] = best
    return kept, best


@rf.program
def branches_of_others_in_turns(s, log, n):
    for number in range(n):
        t = s.copy()
        t += f"Draft {number}." + text("x", 1)
        if len(t["x"]) % 2:
            u = s.copy()
            u += rf.gen("u", max_tokens=2, temperature=1.0)
            log.append(u["u"])
            s += "."
    return s.text()


@rf.program
def tries_in_turns(s, log, n):
    found = []
    for number in range(n):
        t = s.copy()
        t += f"Number {number}." + text("x", 1)
        try:
            rest = 1 // (len(t["x"]) % 2)
            log.append(loud(log, rest))
        except ZeroDivisionError as error:
            t += f"Not so: {error}" + text("y", 1)
            found.append(t["y"])
            continue
        finally:
            log.append(("finally", number))
        found.append(rest)
    return found


@rf.program
def fails_in_a_turn(s, log, n):
    for number in range(n):
        t = s.copy()
        t += f"Item {number}." + text("x")
        s += f"[{number}]"
        log.append(t["x"])
        if t["x"]:
            log.append(number)
            log.append(1 // (2 - number))
        for word in t["x"].split():
            log.append(word)
    return log


@rf.program
def changes_what_it_goes_through(s, log, n):
    todo = ["a", "b"]
    for item in todo:
        t = s.copy()
        t += f"Item {item}." + text("x", 1)
        if len(todo) < n + 2:
            if len(t["x"]) % 2:
                todo.append(item + "c")
            else:
                todo.insert(1, item + "d")
            log.append(len(todo))
    return todo


GLOBAL: list[Any] = []


def remember(value: Any) -> None:
    GLOBAL.append(value)


@rf.program
def changes_a_global(s, log, n):
    GLOBAL.clear()
    seen = 0
    for number in range(n):
        log.append(len(GLOBAL))
        t = s.copy()
        t += f"Item {number}." + text("x", 1)
        if len(t["x"]) % 2:
            remember(number)
        else:
            GLOBAL.append(t["x"])
        seen += len(GLOBAL)
    log.append(GLOBAL[:])
    return seen


@rf.program
def nested_turns(s, log, n):
    rows = []
    for row in range(n):
        cells = []
        t = s.copy()
        t += f"Row {row}." + text("x", 1)
        for column in range(2):
            u = t.copy()
            u += f"Column {column}." + text("x", 1)
            if len(u["x"]) % 2:
                cells.append(u["x"])
            else:
                log.append((row, column))
        if cells:
            rows.append(cells)
        log.append(len(rows))
    return rows


@rf.program
def breaks_in_turns(s, log, n):
    for number in range(n):
        t = s.copy()
        t += f"Item {number}." + text("x", 1)
        for word in "ab":
            if len(t["x"]) % 2:
                log.append((number, word))
                break
            t += word + text("x", 1)
        else:
            log.append(number)
        if number == 2:
            break
        if len(t["x"]) > 7:
            return t["x"]
    return t["x"]


@rf.program
def maybe_unassigned(s, log, n):
    for number in range(n):
        t = s.copy()
        t += f"Item {number}." + text("x", 1)
        if len(t["x"]) % 2:
            found = number
            log.append(found)
        elif number == 3:
            log.append(found)
    return found


@rf.program
def fails_unread_in_a_turn(s, log, n):
    for number in range(n):
        t = s.copy()
        t += f"Item {number}." + text("x", 1)
        if len(t["x"]) % 2 == number % 2:
            t += "More." + rf.gen("y", dtype=int)
        t += "End." + rf.gen("z", dtype=int)
        log.append(number)
    return log


@rf.program
def asks_in_turns(s, log, n):
    return [asked(s.copy(), number) for number in range(n)], [asked(s, number) for number in range(n)]


def asked(s, number, seen=[]):  # noqa: B006
    s += f"Ask {number}." + text("x", 1)
    if len(s["x"]) % 2:
        s += "Why?" + text("x", 1)
        return s["x"]
    return number


@rf.program
def variables_in_turns(s, log, n):
    notes = []
    s["notes"] = notes
    for number in range(n):
        t = s.copy()
        t += f"Item {number}." + text("x", 1)
        if len(t["x"]) % 2:
            t["notes"].append(t["x"])
        else:
            t += "More." + text("x", 1)
        log.append(len(notes))
    return notes


@rf.program
def texts_of_lists(s, log, n):
    notes = []
    for number in range(n):
        t = s.copy()
        t += f"Item {number}." + text("x", 1)
        notes.append(t["x"])
    s += "Notes: " + ", ".join(notes).upper() + ";"
    s += f"{notes}" + text("y", 1) + ("." + f"{len(notes)}")
    notes.append("late")
    return s["y"]


@rf.program
def straight(s, log, n):
    a = s.copy()
    a += "First." + text("x", 1)
    if len(a["x"]) % 2:
        a += "Why?" + rf.gen("x", max_tokens=2, temperature=1.0)
    a += "Sum up." + text("sum", 2)
    b = s.copy()
    b += "Second." + text("x", 1)
    rounds = 0
    while rounds < n and len(b["x"]) % 3:
        b += f"Round {rounds}." + rf.gen("x", max_tokens=2, temperature=1.0)
        rounds += 1
    log.append(rounds)
    log.append(b["x"])
    c = b.copy()
    c += f"{a['sum']}" + text("y", 1)
    if c["y"] in a["sum"]:
        log.append(c["y"])
    s += f"{a['sum']} {b['x']} {c['y']}"
    return a.text(), b["x"], rounds


def until_number(t, log, depth):
    """A helper that is not inlined."""
    t += f"A number, {depth}." + text("x", 1)
    try:
        log.append(depth)
        return 6 // (len(t["x"]) % 3)
    except ZeroDivisionError:
        return until_number(t, log, depth - 1) if depth else None


@rf.program
def calls_at_once(s, log, n):
    a = s.copy()
    first = until_number(a, log, n)
    b = s.copy()
    second = until_number(b, log, n)
    log.append((first, second))
    b += a["x"] + text("y", 1)
    if first:
        third = until_number(b.copy(), log, 1)
        log.append(third)
    return a["x"], b.text()


@rf.program
def tries_at_once(s, log, n):
    found = []
    for name in ("a", "b", "c"):
        t = s.copy()
        t += f"Try {name}." + text("x", 1)
        found.append(t["x"])
        try:
            log.append(len(t["x"]) // (n - len(found)))
            log.append({}[found[0]])
        except KeyError as error:
            t += "No key." + text("y", 1)
            log.append(t["y"])
            found.append(str(error))
    return found


@rf.program
def fails_before_a_try(s, log, n):
    t = s.copy()
    t += "Item." + text("x", 1)
    length = len(t["x"]) // n
    u = s.copy()
    u += "Other." + text("y", 1)
    try:
        log.append(u["y"])
        u += f"{length}" + text("z", 1)
        log.append(u["z"])
    except ZeroDivisionError:
        log.append("not here")
    finally:
        log.append("nor here")
    return length


@rf.program
def counts_up(s, log, n):
    number = 0
    while number < n:
        t = s.copy()
        t += f"Item {number}." + text("x", 1)
        if len(t["x"]) % 2:
            t += "Why?" + text("y", 1)
            log.append(t["y"])
        log.append(t["x"])
        number += 1
    return number


RENAMED = "first"


def rename(value: str) -> str:
    global RENAMED
    RENAMED = value
    return value.upper()


def in_words(log: list[Any], value: str) -> list[str]:
    """Nobody sees through it."""
    log.append(("in words", value, RENAMED))
    if not value.strip():
        raise ValueError(value)
    return value.split()


@rf.program
def through_opaque_code(s, log, n):
    rename("first")
    for number in range(n):
        t = s.copy()
        t += f"Item {number}." + text("x", 2)
        words = in_words(log, t["x"])
        log.append(words)
        t += f"{words[0]}" + text("y", 1)
        log.append(rename(t["y"]))
    u = s.copy()
    u += f"{RENAMED}" + text("z", 1)
    rename(u["z"])
    return RENAMED


SEEN: list[str] = ["seen"]


def counted(value: str) -> dict[str, int]:
    """It takes its time, but changes nothing that others have."""
    found: dict[str, int] = {}
    for word in value.split():
        found[word] = found.get(word, 0) + len(SEEN)
    return found


@rf.program
def behind_a_function(s, log, n):
    for item in [*range(n)]:
        t = s.copy()
        t += f"Item {item}?" + rf.gen("x", max_tokens=1)
        found = counted(t["x"])
        log.append(found)
        u = s.copy()
        u += text("x", 1)
        log.append(u["x"])
    log.append(SEEN[:])


PROGRAMS = [
    behind_a_function, straight, calls_at_once, tries_at_once, fails_before_a_try, counts_up, through_opaque_code,
    variables_in_turns, texts_of_lists,
    refines, branches_in_turns, branches_of_others_in_turns, tries_in_turns, fails_in_a_turn,
    changes_what_it_goes_through, changes_a_global, nested_turns, breaks_in_turns, maybe_unassigned,
    fails_unread_in_a_turn, asks_in_turns,
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


@rf.program
def asks_again(s, log, n):
    for number in range(n):
        t = s.copy()
        t += f"Question {number}." + text("x", 1)
        rounds = 0
        while rounds < 2 and "sure" not in t["x"]:
            t += "Again." + text("x", 1)
            rounds += 1
        if rounds:
            t += "Why?" + text("why", 1)
            log.append(t["why"])
        try:
            t += f"{int(t['x'])}"
        except ValueError:
            t += "Bye." + text("bye", 1)


def test_turns_wait_for_themselves_only() -> None:
    log: list[Any] = []
    backend = comparing.Waves([5, 5, 5, 5, 5], lambda prompt, _: prompt[-3:])
    run = asks_again.run(backend=backend, log=log, n=5, timeout=20)
    assert run.ok, run.error
    assert log == ["hy?"] * 5
    found = [[record.name for record in each.trace] for each in (run, asks_again.run(log=[], n=5, backend=echo()))]
    assert found[0] == ["x", "x", "x", "why", "bye"] * 5 == found[1]


@rf.program
def two_chains(s, log, n):
    a = s.copy()
    a += "First?" + text("x", 1)
    if "?" in a["x"]:
        a += "Why?" + text("x", 1)
    a += "So?" + text("x", 1)
    b = s.copy()
    b += "Second?" + text("x", 1)
    while "?" in b["x"]:
        b += "Why?" + text("x", 1)
        break
    b += "So?" + text("x", 1)
    log.append(a["x"])
    log.append(b["x"])
    return n


def asked_until_sure(t, depth):
    t += "Again?" + text("x", 1)
    try:
        return int(t["x"])
    except ValueError:
        return asked_until_sure(t, depth - 1) if depth else None


@rf.program
def two_calls(s, log, n):
    a = s.copy()
    a += "First: "
    b = s.copy()
    b += "Second: "
    log.append(asked_until_sure(a, 2))
    log.append(asked_until_sure(b, 2))
    return n


@rf.program
def behind_opaque_code(s, log, n):
    for number in range(n):
        t = s.copy()
        t += f"Item {number}?" + rf.gen("x", max_tokens=1)
        found = in_words(log, t["x"])
        log.append(found)
        u = s.copy()
        u += f"Other {number}?" + rf.gen("x", max_tokens=1)
        log.append(u["x"])


AT_ONCE: list[tuple[Any, list[int]]] = [
    (two_chains, [2, 2, 2]), (two_calls, [2, 2, 2]), (counts_up, [4, 4]), (behind_opaque_code, [8]),
    (behind_a_function, [8]),
]  # fmt: skip


@pytest.mark.parametrize(("program", "waves"), AT_ONCE, ids=[each.name for each, _ in AT_ONCE])
def test_what_does_not_depend_on_each_other_is_asked_at_once(program: Any, waves: list[int]) -> None:
    logs: list[list[Any]] = [[], []]
    backend = comparing.Waves(waves, lambda prompt, _: prompt[-3:])
    run = program.run(backend=backend, log=logs[0], n=4, timeout=20)
    assert run.ok, run.error
    eager = program.options(eager=True).run(backend=echo(), log=logs[1], n=4)
    assert (run.value, logs[0], run.text) == (eager.value, logs[1], eager.text)
    assert [record.name for record in run.trace] == [record.name for record in eager.trace]


def deep(s: Any, depth: int) -> int:
    t = s.copy()
    t += text("x", 1)
    return deep(t, depth - 1) + len(t["x"]) if depth else 0


@rf.program
def goes_deep(s, log, n):
    return deep(s, n)


def test_calls_in_calls_are_bounded() -> None:
    run = goes_deep.run(backend=ScriptedBackend(lambda prompt, _: f"{len(prompt)}"[:1]), log=[], n=600)
    assert run.value == 600


def echo() -> ScriptedBackend:
    return ScriptedBackend(lambda prompt, _: prompt[-3:])


def test_a_cancelled_run_ends_its_turns() -> None:
    log: list[Any] = []
    (run,) = asks_again.run_batch([{"log": log, "n": 4}], backend=ScriptedBackend(delay=0.15), timeout=0.2)
    assert "timeout" in str(run.error)
    time.sleep(0.1)
    assert log == [] and run.usage.calls < 12


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
