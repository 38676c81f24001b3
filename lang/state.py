"""What a program holds: `State`, a mutable cell with a prompt, and `ForkGroup`, the states of a fork.

All meaning is the prompt's (runtime/prompt.py); a State only remembers which prompt it is at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NoReturn, overload

from ..ir.errors import UsageError
from ..runtime.pending import Pending, gather
from ..runtime.prompt import Prompt, texts_of
from ..runtime.reading import Branches, Reading

JoinMode = Literal["gather_variable", "concate_and_append"]


class State(Reading):
    """A place in a prompt that grows: `s += ...` appends, `s["x"]` reads a variable and waits for it."""

    __slots__ = ("prompt",)

    prompt: Prompt

    def __init__(self, prompt: Prompt) -> None:
        self.prompt = prompt

    def __iadd__(self, value: object) -> State:
        self.prompt = self.prompt.append_value(value)
        if self.prompt.context.num_groups:
            self.prompt = self.prompt.item()
        return self

    def __add__(self, value: object) -> NoReturn:
        raise TypeError("a state cannot be an operand of +: `s += ...` appends to it, `s.text()` is its text")

    __radd__ = __add__

    def __format__(self, spec: str) -> str:
        """Refused: the text would hold a description of the state."""
        raise UsageError(
            "a state cannot be formatted into text",
            help="`s.text()` is its text, `s['x']` a variable of it",
        )

    def __setitem__(self, name: str, value: Any) -> None:
        """Bind a variable; the prompt's text stays as it is."""
        self.prompt = self.prompt.bind(name, value)

    def set_var(self, name: str, value: Any) -> None:
        """The same as `self[name] = value`."""
        self[name] = value

    def __repr__(self) -> str:
        return f"<State with variables {list(self.prompt.names())}>"

    def fork(self, size: int = 1, position_ids_offset: object = None) -> ForkGroup:
        """`size` states that go on from here, each on its own.

        position_ids_offset is taken for programs written for SGLang, where it has no effect either.
        """
        return ForkGroup(self, [State(prompt) for prompt in self.prompt.fork(size)])

    def copy(self, position_ids_offset: object = None) -> State:
        """A state that goes on from here on its own. For position_ids_offset see `fork`."""
        return State(self.prompt.fork(1)[0])

    def __reduce__(self) -> str:
        raise TypeError("a State belongs to its run and cannot be pickled; its text, messages and variables can")

    def __enter__(self) -> State:
        """`with s.copy() as draft:` reads well; nothing needs to be closed."""
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @contextmanager
    def var_scope(self, name: str) -> Iterator[State]:
        """Bind a variable to the text that is appended inside."""
        start = self.prompt
        yield self
        self.prompt = self.prompt.bind(name, self.prompt.text_value(start))

    @contextmanager
    def unordered(self) -> Iterator[State]:
        """The appends inside may stand in any order, each `+=` as a whole.

        Compiled, the rows of a batch put first what they share (pass `reorder`); else they stand as written. Raises
        UsageError for a generation inside.
        """
        start = self.prompt
        track = start.context.track
        if track is None:
            yield self
            self.prompt.items(start)
            return
        start.context.num_groups += 1
        try:
            yield self
        finally:
            start.context.num_groups -= 1
        items = self.prompt.items(start)
        if self.prompt.arrived() is None and (order := track.recorded_order(start, texts_of(items))) is not None:
            self.prompt = self.prompt.arranged(start, items, order)  # as the compiled run that was recorded

    def role_begin(self, role: str) -> None:
        """Begin a message of any role."""
        self.prompt = self.prompt.role(role, "begin")

    def role_end(self, role: str) -> None:
        """End it."""
        self.prompt = self.prompt.role(role, "end")

    @contextmanager
    def role(self, role: str) -> Iterator[State]:
        """What is appended inside is a message of a role."""
        self.role_begin(role)
        yield self
        self.role_end(role)

    def system(self, body: object = None) -> Any:
        """Without argument a context manager: what is appended inside is a system message; else append one."""
        return self._role("system", body)

    def user(self, body: object = None) -> Any:
        """The same for a user message."""
        return self._role("user", body)

    def assistant(self, body: object = None) -> Any:
        """The same for an assistant message."""
        return self._role("assistant", body)

    def _role(self, role: str, body: object) -> Any:
        if body is None:
            return self.role(role)
        self.role_begin(role)
        self += body
        self.role_end(role)
        return None

    def system_begin(self) -> None:
        """Begin a system message."""
        self.role_begin("system")

    def system_end(self) -> None:
        """End it."""
        self.role_end("system")

    def user_begin(self) -> None:
        """Begin a user message."""
        self.role_begin("user")

    def user_end(self) -> None:
        """End it."""
        self.role_end("user")

    def assistant_begin(self) -> None:
        """Begin an assistant message."""
        self.role_begin("assistant")

    def assistant_end(self) -> None:
        """End it."""
        self.role_end("assistant")


class ForkGroup(Branches, Sequence[State]):
    """The states of a fork, in order; `group += ...` appends to each."""

    __slots__ = ("_fork", "parent", "states")

    def __init__(self, parent: State, states: list[State]) -> None:
        self.parent = parent
        self.states = states
        self._fork = parent.prompt

    def __repr__(self) -> str:
        return f"<fork of {len(self.states)} states>"

    @overload
    def __getitem__(self, index: int) -> State: ...
    @overload
    def __getitem__(self, index: slice) -> list[State]: ...
    def __getitem__(self, index: int | slice) -> State | list[State]:
        return self.states[index]

    def __setitem__(self, index: int, state: State) -> None:
        """`group[i] += ...` stores what it has read; only the state itself may be put back."""
        if state is not self.states[index]:
            raise UsageError("the states of a fork cannot be replaced", help="collect other states in a list")

    def __len__(self) -> int:
        return len(self.states)

    def __iter__(self) -> Iterator[State]:
        return iter(self.states)

    def __iadd__(self, value: object) -> ForkGroup:
        """Append one expression to all, one of a list to each, or what `value(index)` gives to each."""
        for state, part in zip(self.states, self._parts(value), strict=True):
            state += part
        return self

    def _parts(self, value: object) -> list[Any]:
        if isinstance(value, list | tuple):
            if len(value) != len(self.states):
                raise UsageError(f"{len(value)} parts for the {len(self.states)} states of a fork")
            return list(value)
        if callable(value):
            return [value(index) for index in range(len(self.states))]
        return [value] * len(self.states)

    def join(self, mode: JoinMode = "gather_variable") -> None:
        """Bring the branches' results into the state they were forked from. Waits for nothing.

        "gather_variable": each variable that branches have bound since becomes a list there, in the branches' order.
        "concate_and_append": what the branches have appended is appended there, one after another.
        """
        joins: dict[str, Callable[[], None]] = {
            "gather_variable": self._gather_variables,
            "concate_and_append": self._append_branches,
        }
        if mode not in joins:
            raise UsageError(f"unknown join mode {mode!r}; known: {', '.join(joins)}")
        joins[mode]()

    def _gather_variables(self) -> None:
        values: dict[str, list[Any]] = {}
        for state in self.states:
            for name, node in _bound_since(state.prompt, self._fork).items():
                values.setdefault(name, []).append(node.bound_value())
        for name, items in values.items():
            late = any(isinstance(item, Pending) for item in items)
            self.parent.prompt = self.parent.prompt.bind(name, gather(items) if late else items)

    def _append_branches(self) -> None:
        for state in self.states:
            self.parent.prompt = self.parent.prompt.replay(state.prompt.since(self._fork))


def _bound_since(prompt: Prompt, start: Prompt) -> dict[str, Prompt]:
    """The variables that were bound after `start`, and the nodes that bind them last."""
    return {node.name: node for node in prompt.since(start) if node.name is not None}
