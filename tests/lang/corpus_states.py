"""Programs of the corpus whose states are in lists and tuples: built, sorted, sliced, unpacked, aliased, spoilt."""

from __future__ import annotations

from typing import Any

import ramify as rf

from .corpus import case


def put(items: list[Any], item: Any) -> None:
    items.append(item)


@case(width=3, depth=2)
@rf.program
def beams(s, width, depth):
    s += rf.user("Question")
    kept = [s.copy()]
    for _level in range(depth):
        scored = []
        for beam in kept:
            for idea in range(width):
                branch = beam.copy()
                branch += rf.user(f"Step {idea}.") + rf.assistant(rf.gen("step", max_tokens=3))
                scored.append((len(branch["step"]), idea, branch))
        scored.sort(key=lambda entry: entry[:2])
        kept = [branch for _, _, branch in scored[:2]]
    best = kept[0]
    best += rf.gen("answer", max_tokens=2)
    return best["answer"], len(kept), kept, best in kept


@case(n=4)
@rf.program
def climbing(s, n):
    best = s.copy()
    best += rf.gen("draft", max_tokens=3)
    for number in range(n):
        other = best.copy()
        other += f"Better {number}:" + rf.gen("draft", max_tokens=3)
        if len(other["draft"]) > len(best["draft"]):
            best = other
    best += "!"
    return best, best["draft"]


@case(n=3)
@rf.program
def best_of(s, n):
    found = []
    for number in range(n):
        t = s.copy()
        t += f"Try {number}." + rf.gen("x", max_tokens=number + 1)
        found.append((t["x"], (number, t)))
    _, (number, best) = max(found, key=lambda entry: len(entry[0]))
    best += rf.gen("more", max_tokens=1)
    first = sorted(found, key=lambda entry: entry[1][0])[0][1][1]
    first += "first"
    for place, (text, (_, t)) in enumerate(reversed(found)):
        t += f"{place}{text}"
    return number, best["more"], found


@case()
@rf.program
def a_frontier(s):
    frontier, done = [(s.copy(), 0)], []
    while frontier:
        t, depth = frontier.pop(0)
        t += f"Depth {depth}." + rf.gen("x", max_tokens=1)
        if depth == 2:
            done.append(t)
            continue
        for _ in range(2):
            frontier.append((t.copy(), depth + 1))
    done.reverse()
    done.insert(1, s.copy())
    done.extend(t.copy() for t in done[:1])
    done += [s.copy()]
    for t in done:
        t += "end"
    return done


@case()
@rf.program
def lists_added_together(s):
    left, right = [s.copy(), s.copy()], [s.copy()]
    both = left + right + [s]
    every = [*both, s.copy()]
    pairs = list(zip(every, ["a", "b", "c", "d", "e"], strict=True))
    for t, letter in pairs:
        t += letter
    for (_, letter), t in zip(pairs, every, strict=True):
        t += letter + rf.gen("x", max_tokens=1)
    a, *_rest = every
    a += "first"
    return every, pairs[-1][0]["x"]


@case()
@rf.program
def a_list_with_two_names(s):
    drafts = []
    other = drafts
    drafts.append(s.copy())
    other.append("no state")
    shown = []
    for item in drafts:
        if isinstance(item, str):
            item += "!"
        else:
            item += "state"
        shown.append(item)
    return shown, drafts


@case()
@rf.program
def a_list_that_others_change(s):
    drafts = [s.copy()]
    put(drafts, "no state")
    drafts[0] += "state"
    last = drafts[-1]
    last += "!"
    pairs = [(s.copy(), 1)]
    pairs[0] = ("no state", 2)
    for item, number in pairs:
        item += f"{number}"
    return last, drafts, item


@case()
@rf.program
def tuples_that_grow(s):
    pair = (s.copy(), s.copy())
    pair += ("no state",)
    out = []
    for item in pair:
        item += "."
        out.append(item)
    triple = (s, "text", s.copy())
    triple[0].text()
    t = triple[2]
    t += triple[1]
    return out, t, triple[:2]


@case(flag=True)
@case(flag=False)
@rf.program
def lists_of_either(s, flag):
    entries = [(1, s.copy())]
    if flag:
        entries.append((2, "text"))
    for number, item in entries:
        item += f" {number}"
    entries = [entry for entry in entries if entry[0] == 1]
    return item, entries


@case(raises=ValueError)
@rf.program
def unpacking_too_much(s):
    pairs = [(1, s.copy()), (2, s.copy(), 3)]
    for number, t in pairs:
        t += f"{number}" + rf.gen("x", max_tokens=1)


@case(raises=IndexError)
@rf.program
def no_beam_left(s):
    kept = []
    for number in range(2):
        t = s.copy()
        t += f"{number}" + rf.gen("x", max_tokens=1)
        if len(t["x"]) > 1000:
            kept.append(t)
    best = kept[0]
    best += "best"


@case(raises=TypeError)
@rf.program
def states_have_no_order(s):
    entries = [(1, s.copy()), (1, s.copy())]
    entries.sort()
    _, t = entries[0]
    t += "first"


@case(n=3)
@rf.program
def states_by_name(s, n):
    drafts, order = {}, []
    for number in range(n):
        t = s.copy()
        t += f"Draft {number}." + rf.gen("x", max_tokens=2)
        drafts[t["x"]] = t
        order.append((t, t["x"]))
    for t, name in order:
        t += "."
        drafts[name] += "!"
    return drafts, [drafts[name]["x"] for _, name in order]


@case()
@rf.program
def nested_lists_of_states(s):
    rows = [[s.copy() for _ in range(2)] for _ in range(2)]
    for row in rows:
        for t in row:
            t += "cell" + rf.gen("x", max_tokens=1)
        row.append("no state")
    flat = [t for row in rows for t in row[:2]]
    flat.append(s)
    for t in flat:
        t += "."
    return rows


def counter(items: list[Any]) -> int:
    return len(items)


@case()
@rf.program
def names_of_builtins(s):
    def zip(*items):
        return [("no", "state")]

    max = counter
    forks = s.fork(2)
    for a, b in zip(forks, forks):
        a += b
    number = max([s.copy(), s.copy()])
    number += 1
    return a, number


STORE: list[Any] = []


@case()
@rf.program
def a_list_from_outside(s):
    STORE.append(s.copy())
    STORE.append("no state")
    t = STORE.pop()
    t += "!"
    u = STORE.pop()
    u += "state"
    return t, u


@case()
@rf.program
def lists_in_closures(s):
    kept = [s.copy()]

    def spoil():
        kept.append("no state")

    spoil()
    for t in kept:
        t += "."
    return t, kept[0]
