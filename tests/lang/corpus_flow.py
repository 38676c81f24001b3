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
    with s.role("assistant"), s.var_scope("answer"), s.unordered():
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
    return s.text()
