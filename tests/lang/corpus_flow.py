"""Programs of the corpus about control flow: scopes, `else` of loops, `match` and `try`, and how each is left."""

from __future__ import annotations

from typing import Any

import ramify as rf

from .corpus import case


@case()
@rf.program
def scopes_of_every_kind(s):
    with s.system():
        s += "Be brief."
    with s.user() as t, t.var_scope("question"):
        t += "How " + "are you?"
    with s.unordered():
        s += "one"
        s += "two" + "three"
    with s.role("assistant"), s.var_scope("answer"):
        s += "I am " + rf.gen("x", max_tokens=2)
        s += "!" + rf.gen("y", max_tokens=1)
    return s["question"], s["answer"], t is s, s.messages()


@case(role="user", name="said")
@rf.program
def scopes_with_dynamic_names(s, role, name):
    with s.role(role), s.var_scope(name + "!"):
        s += "one" + rf.gen("x", max_tokens=1)
    with s.role(s["said!"] and "assistant"):
        s += rf.gen("y", max_tokens=1)
    return s["said!"], s.messages()


@case(raises=TypeError)
@rf.program
def a_scope_of_a_number(s):
    with s.var_scope(3):
        s += "inside" + rf.gen("x", max_tokens=1)


@case(raises=rf.RamifyError)
@rf.program
def scopes_do_not_nest(s):
    with s.user():
        s += "a"
        with s.assistant():
            s += "b"


@case()
@rf.program
def a_copy_in_a_with(s):
    s += "start" + rf.gen("x", max_tokens=1)
    with s.copy() as draft, draft.user():
        draft += "draft" + rf.gen("y", max_tokens=2)
        s += draft["y"]
    with draft:
        draft += "after"
    with s.fork(2)[1] as branch:
        branch += "b" + rf.gen("z", max_tokens=1)
    return s.text(), draft.text(), branch["z"]


@case(words=["a", "", "b", "stop", "c"])
@rf.program
def scopes_are_ended_by_whatever_leaves_them(s, words):
    for word in words:
        with s.user():
            with s.var_scope("said"):
                if not word:
                    continue
                s += word
                if word == "stop":
                    break
            s += "?"
        with s.assistant():
            s += rf.gen("x", max_tokens=1)
    while True:
        with s.user(), s.var_scope("last"):
            s += "end"
            return s.text()


@case()
@rf.program
def the_value_of_a_return_is_evaluated_first(s):
    with s.user(), s.var_scope("all"):
        s += "a" + rf.gen("x", max_tokens=1)
        return s.text()


@case()
@rf.program
def scopes_of_a_state_that_is_rebound(s):
    with s.user() as t:
        s = s.copy()
        s += "copy"
        t += "first"
    return s.text(), t.text()


@case(flag=True)
@rf.program
def scopes_of_states_in_expressions(s, flag):
    a, b = s.fork(2)
    with (a if flag else b).user():
        a += "a"
    states = [a, b]
    with states[1].var_scope("v") as c:
        c += "c" + rf.gen("x", max_tokens=1)
    return a.text(), b["v"], c is b


@case(raises=ValueError)
@rf.program
def an_exception_leaves_the_end_out(s):
    with s.user():
        s += "a" + rf.gen("x", max_tokens=1)
        raise ValueError(s["x"])


@case(raises=ValueError)
@rf.program
def a_failed_read_leaves_the_end_out(s):
    with s.user(), s.var_scope("all"):
        s += "n: " + rf.gen("n", max_tokens=2, dtype=int)
        number = s["n"]
        s += "more"
    return number


@case(text="hello")
@rf.program
def scopes_around_python(s, text):
    with s.user():
        seen: list[Any] = []
        for letter in text:
            if letter == "l":
                break
            seen.append(letter)
        s += "".join(seen)
    with s.unordered():
        for branch in s.fork(2):
            branch += "b" + rf.gen("x", max_tokens=1)
            s += branch["x"]
            if text == "skip":
                return None
    return s.text()


@case(words=["a", "b"], stop="b")
@case(words=["a", "b"], stop="none")
@case(words=[], stop="")
@rf.program
def for_else_with_a_break(s, words, stop):
    found = "nothing"
    for word in words:
        s += word + rf.gen("x", max_tokens=1)
        if word == stop:
            found = word
            break
    else:
        s += "no " + stop
        found += "!"
    return found, s.text()


@case(limit=2)
@case(limit=5)
@rf.program
def while_else_with_exits(s, limit):
    count = 0
    while count < 3:
        count += 1
        if count == limit:
            with s.user():
                s += "stop"
                break
        s += f"{count}" + rf.gen("x", max_tokens=1)
        if count == 1:
            continue
    else:
        s += "all"
        return count, s.text()
    return s.text()


@case()
@rf.program
def nested_loops_with_else(s):
    seen = []
    for outer in range(3):
        for inner in range(3):
            s += f"{outer}{inner}"
            if inner > outer:
                break
            with_x = f"{inner}"
        else:
            seen.append(outer)
            break
        for branch in s.fork(2):
            branch += rf.gen("x", max_tokens=1)
            seen.append(branch["x"])
        else:
            s += "else"
    else:
        seen.append("never")
    return seen, s.text(), with_x


@case(raises=UnboundLocalError)
@rf.program
def an_else_that_was_skipped(s):
    for word in ["a"]:
        s += word
        break
    else:
        late = 1
    return late


class Point:
    __match_args__ = ("x", "y")

    def __init__(self, x: Any, y: Any) -> None:
        self.x, self.y = x, y


@case(values=[1, "two", (3, 4), [5, 6, 7], {"k": 8, "z": 9}, None, Point(0, 1), Point(2, 3), 4.5, True, {"k": [1]}])
@rf.program
def patterns_of_every_kind(s, values):
    out = []
    for value in values:
        match value:
            case True | None:
                out.append("constant")
            case 1 | 2 as number:
                s += f"{number}" + rf.gen("x", max_tokens=1)
            case str(text) if len(text) > 9:
                out.append("never")
            case str() as text:
                with s.user():
                    s += text
                    continue
            case (first, second):
                s += f"{first} {second}"
            case [first, *rest]:
                out.append((first, rest))
            case {"k": int(first), **others}:
                out.append((first, others))
            case {"k": [first, *_]}:
                out.append(first)
            case Point(0, y=second) if s.text():
                s += f"zero {second}" + rf.gen("y", max_tokens=1)
            case Point(first, second) if second == int(s["x"] == "") + 3:
                out.append(("point", first))
            case other if other != out:
                s += f"other {other}"
                break
    return out, s.text(), number, text, first, second, rest, others, other


@case()
@rf.program
def match_on_what_was_generated(s):
    s += "Pick: " + rf.select("x", ["tea", "milk"])
    match s["x"], len(s["x"]):
        case "tea", 3:
            with s.assistant():
                s += "tea it is"
                return s.text()
        case (word, _) if word in s.text():
            s += word
    return s.text()


@case(raises=ZeroDivisionError)
@rf.program
def a_guard_that_fails(s):
    s += "a" + rf.gen("x", max_tokens=1)
    match s["x"]:
        case 3:
            s += "three"
        case text if 1 / (len(text) * 0):
            s += "never"


@case(raises=UnboundLocalError)
@rf.program
def a_capture_that_did_not_fit(s):
    match 3:
        case (a, b):
            s += f"{a}{b}"
    s += "end"
    return a


@case()
@rf.program
def guards_bind_and_wait(s):
    s += "a" + rf.gen("x", max_tokens=2)
    match 1, 2:
        case a, b if (size := len(s["x"])) > 100:
            s += "long"
        case a, _ if s["x"] and (size := size + a):
            s += f"{size}{b}"
    match size > 0, "b":
        case True, word if (lambda: word)() == "b":
            s += word
    return size, a, b, s.text()


@case(raises=RuntimeError)
@rf.program
def raises_a_long_text(s):
    s += rf.gen("x", max_tokens=2)
    if len(s["x"]) > 0:
        word = "not"
        raise RuntimeError(
            """long
        text"""
            + word
        )
