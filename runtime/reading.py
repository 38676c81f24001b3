"""How host code reads a prompt: `p["x"]`, `"x" in p`, `p.text()` and the rest, with one meaning for Prompt and State.

A read waits for what it reads, on the host thread it is made on. An error of a generation is raised where it is read;
once raised to the program it counts as told, and the end of the run does not raise it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..ir.errors import UsageError
from .pending import Pending

if TYPE_CHECKING:
    from .prompt import Prompt


class Branches:
    """Marks a group of states: counting it and iterating over it waits for nothing and runs no code of the user's."""

    __slots__ = ()


class Reading:
    """The reading half of a State; `prompt` is what is read."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def prompt(self) -> Prompt: ...

    def __getitem__(self, name: str) -> Any:
        """A variable's value; waits for it. Raises UnknownVariable (a KeyError), or what made it fail."""
        prompt = self.prompt
        return _wait(prompt, lambda: prompt.get(name))

    def get_var(self, name: str) -> Any:
        """The same as `self[name]`."""
        return self[name]

    def __contains__(self, name: object) -> bool:
        """Whether the variable is bound (its value may still be on its way)."""
        return name in self.prompt.names()

    # Without it Python would try self[0], self[1], ... for `for x in s`.
    __iter__ = None

    def text(self) -> str:
        """The whole text, role marks included; waits for it."""
        prompt = self.prompt
        prompt.tell_of_reading()
        return _wait(prompt, prompt.text_value)  # type: ignore[no-any-return]

    def messages(self) -> list[dict[str, Any]]:
        """The chat messages as dicts of "role" and "content"; waits for them."""
        prompt = self.prompt
        prompt.tell_of_reading()
        return _wait(prompt, prompt.messages_value)  # type: ignore[no-any-return]

    def sync(self) -> None:
        """Wait until everything in the prompt has arrived."""
        prompt = self.prompt
        _wait(prompt, prompt.arrived)

    def error(self) -> BaseException | None:
        """What has failed in the prompt, or None; waits for all of it. The program has then seen the error."""
        try:
            self.sync()
        except Exception as error:
            return error
        return None

    def get_meta_info(self, name: str) -> Any:
        """What is known of a variable's generation (tokens, finish reason, logprobs, times); waits for it.

        A dict (runtime/meta.py); a list of them for a gen of several samples.
        """
        prompt = self.prompt
        generation = prompt.find(name).generation()
        if generation is None:
            raise UsageError(f"variable {name!r} was assigned, not generated, so there is nothing to tell of it")
        if (track := prompt.context.track) is not None:
            track.read(generation)
        return _wait(prompt, generation.meta_info)


def _wait(prompt: Prompt, read: Any) -> Any:
    try:
        value = read()
        return value.wait() if isinstance(value, Pending) else value
    except Exception as error:
        prompt.context.told(error)
        raise
