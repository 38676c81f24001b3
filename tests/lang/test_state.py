"""States and fork groups: what a program can do with them, eagerly and on snapshots."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import ramify as rf
from ramify.backends.scripted import ScriptedBackend
from ramify.ir.errors import BackendError, OutputError, UsageError


def run(body: Callable[..., Any], backend: Any = None) -> rf.Run:
    """Run a function eagerly as a program."""
    return rf.program(body).run(backend=backend or ScriptedBackend(lambda text, _: f"<{len(text)}>"), eager=True)


def test_message_forms_are_the_same() -> None:
    def expressions(s: rf.State) -> None:
        s += rf.system("a") + rf.user("b") + rf.assistant("c" + rf.gen("x"))

    def methods(s: rf.State) -> None:
        s.system("a")
        s.user("b")
        s.assistant("c" + rf.gen("x"))

    def contexts(s: rf.State) -> None:
        with s.system():
            s += "a"
        with s.user():
            s += "b"
        with s.assistant():
            s += "c"
            s += rf.gen("x")

    def marks(s: rf.State) -> None:
        s.system_begin()
        s += "a"
        s.system_end()
        s += rf.user_begin() + "b" + rf.user_end()
        s.assistant_begin()
        s += "c" + rf.gen("x")
        s.assistant_end()

    runs = [run(body) for body in (expressions, methods, contexts, marks)]
    assert len({each.text for each in runs}) == 1 and len(runs[0].messages) == 3


def test_variables() -> None:
    def body(s: rf.State) -> Any:
        s += "a" + rf.gen("x")
        s["y"] = [1]
        s.set_var("z", s.get_var("x") + "!")
        assert "y" in s and "nothing" not in s
        with s.var_scope("scope"):
            s += "(" + rf.gen() + ")"
        return s["scope"]

    done = run(body)
    assert done.value == "(<5>)"
    assert done.vars == {"x": "<1>", "y": [1], "z": "<1>!", "scope": "(<5>)"}
    assert done.text == "a<1>(<5>)"


@pytest.mark.parametrize(
    ("dtype", "text", "value"),
    [
        (int, " 42\n", 42), (float, "2.5", 2.5), (bool, " True", True), (bool, "no", False), (str, " a ", " a "),
        ("int", "7", 7),
    ],
)  # fmt: skip
def test_dtypes(dtype: Any, text: str, value: Any) -> None:
    def body(s: rf.State) -> Any:
        s += rf.gen("x", dtype=dtype)
        return s["x"]

    assert run(body, ScriptedBackend(lambda *_: text)).value == value


def test_a_text_that_is_no_value_of_the_dtype_shows_itself() -> None:
    def body(s: rf.State) -> Any:
        s += rf.gen_int("n")
        try:
            return s["n"]
        except ValueError as error:
            return error

    told = run(body, ScriptedBackend(lambda *_: "many"))
    assert isinstance(told.value, OutputError) and told.value.text == "many"
    assert told.value.message == "gen('n', dtype=int) generated 'many', which is no int"
    assert told.value.span is not None and told.value.span.source_line().strip() == 's += rf.gen_int("n")'

    def unread(s: rf.State) -> None:
        s += rf.gen_int("n")

    with pytest.raises(ValueError, match="'many'"):
        run(unread, ScriptedBackend(lambda *_: "many"))


def test_arguments_of_primitives_are_checked() -> None:
    with pytest.raises(TypeError, match="shape"):
        rf.gen("x", shape="a")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="variable name"):
        rf.gen(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="stop takes texts"):
        rf.gen("x", stop=[1])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="dtype must be one of"):
        rf.gen("x", dtype=list)
    with pytest.raises(TypeError, match="needs `choices`"):
        rf.select("x")
    with pytest.raises(ValueError, match="no empty ones"):
        rf.select("x", ["a", ""])
    with pytest.raises(ValueError, match="unknown choices_method"):
        rf.select("x", ["a"], choices_method="best")
    assert rf.gen("x", choices=["a", "b"]) == rf.select("x", ["a", "b"])


def test_join_gathers_variables_again_and_again() -> None:
    def body(s: rf.State) -> Any:
        s += "a"
        rounds = []
        for suffix in ("", "b"):
            forks = s.fork(3)
            forks += [f"{n}{suffix}" + rf.gen("x") for n in range(3)]
            forks[1]["only"] = 1
            forks.join()
            rounds.append((s["x"], s["only"]))
        return rounds, s.text()

    assert run(body).value == ([(["<2>"] * 3, [1]), (["<3>"] * 3, [1])], "a")


def test_join_by_appending() -> None:
    def body(s: rf.State) -> Any:
        s += "a"
        forks = s.fork(2)
        forks += lambda n: f"[{n}" + rf.gen(f"x{n}") + "]"
        forks.join("concate_and_append")
        s += rf.gen("y")
        return s.text(), s["x1"]

    assert run(body).value == ("a[0<3>][1<3>]<13>", "<3>")


def test_joining_a_failed_branch_raises_at_the_read() -> None:
    def reply(text: str, _: Any) -> Any:
        return BackendError("gone") if text == "b" else "fine"

    def body(s: rf.State) -> Any:
        forks = s.fork(2)
        forks += ["a" + rf.gen("x"), "b" + rf.gen("x")]
        forks.join()
        s += "c" + rf.gen("y")
        with pytest.raises(BackendError, match="gone"):
            s["x"]
        return s["y"], forks[0]["x"]

    assert run(body, ScriptedBackend(reply)).value == ("fine", "fine")


def test_groups_are_sequences_and_say_what_is_wrong() -> None:
    def body(s: rf.State) -> None:
        forks = s.fork(3)
        assert len(forks) == 3 and [f is g for f, g in zip(forks, forks[:], strict=True)] == [True] * 3
        forks[0] += "x"
        with pytest.raises(UsageError, match="2 parts for the 3 states"):
            forks += ["a", "b"]
        with pytest.raises(UsageError, match="unknown join mode"):
            forks.join("everything")  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="cannot be replaced"):
            forks[0] = s
        with pytest.raises(TypeError, match="number of branches"):
            s.fork("3")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="got -1"):
            s.fork(-1)
        assert len(s.fork(0)) == 0

    run(body)


def test_copies_go_their_own_way() -> None:
    def body(s: rf.State) -> Any:
        s += "a"
        with s.copy() as draft:
            draft += "b" + rf.gen("x")
            return draft["x"], "x" in s, s.text()

    assert run(body).value == ("<2>", False, "a")


def test_meta_info() -> None:
    def body(s: rf.State) -> Any:
        s += "a b" + rf.gen("x", max_tokens=1)
        s["y"] = 1
        with pytest.raises(UsageError, match="assigned, not generated"):
            s.get_meta_info("y")
        return s.get_meta_info("x")

    info = run(body, ScriptedBackend(lambda *_: "c d")).value
    assert (info["prompt_tokens"], info["completion_tokens"], info["finish_reason"]) == (2, 1, "length")


@pytest.mark.parametrize("eager", [True, False])
def test_what_was_not_called_is_named(eager):
    @rf.tool
    def tell(x: int) -> int:
        """Tell."""
        return x

    for thing, message in [(rf.gen, r"not the gen itself; call it: gen\(\.\.\.\)"), (tell, "not the tool itself")]:

        @rf.program
        def uncalled(s, thing=thing):
            s += thing

        with pytest.raises(TypeError, match=message):
            uncalled.run(backend=ScriptedBackend(), eager=eager)
