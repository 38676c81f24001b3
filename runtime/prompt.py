"""Prompts: immutable values that share their beginnings.

A prompt is the last node of a chain with parent pointers. The chain holds the prompt's text, role marks, generated
segments and variables alike, so that whoever has a prompt has all of it, and two prompts that grew from one share its
nodes. Appending never waits: a node whose content is still on its way carries a `blocker`. Chains are thousands of
nodes long, so nothing here recurses over parents.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from ..ir.errors import RamifyError, Unsupported, UsageError, nearest, order_matters
from .call_declaration import declaring
from .call_format import RESULT_ID, RESULT_NAME, CallFormat
from .chat import ChatFormat, Opening
from .expression import Call, Declared, Expression, RoleMark, Where, describe, flatten, not_content, span_of
from .features import require_feature
from .media import Media, add_media, add_text
from .pending import Pending, PendingObject, PendingText, gather
from .reading import Reading
from .reasoning import PartOfText, Reasoned, append_reasoned
from .roles import ASSISTANT
from .tool_schema import Writable
from .writing import Writing, warn_of

if TYPE_CHECKING:
    from .context import Context
    from .generation import Generation

Kind = Literal["root", "text", "role", "gen", "select", "score", "image", "video", "bind", "fork", "item"]
# The kinds of nodes that are text of a message, and those whose value is a Generation.
_TEXTS = ("text", "gen", "select")
CALLS = ("gen", "select", "score")


class UnknownVariable(RamifyError, KeyError):
    """A variable was read that the prompt does not have; also a KeyError."""


@dataclass(frozen=True, slots=True)
class Message:
    """The beginning of a chat message: its role, its number and the role of the one before it.

    chat: how it and those behind it are written. tools: those that the conversation has declared. call: the name and
    the id of the call whose result it is.
    """

    role: str
    index: int
    previous: str | None
    chat: ChatFormat
    tools: tuple[Writable, ...] = ()
    call: tuple[str, str | None] | None = None

    def named(self, mark: str) -> str:
        """A mark of the message, with the name and the id of the call whose result it is."""
        if self.call is None:
            return mark
        return mark.replace(RESULT_NAME, self.call[0]).replace(RESULT_ID, self.call[1] or RESULT_ID)


class Prompt(Reading):
    """One node of a prompt chain, and the prompt that ends with it.

    value: by kind, the text (str or Pending), the Message, the Generation, the Media, or the bound value.
    blocker: a Pending that is done once everything up to here has arrived; None when it has. bound: the nearest node
    that binds a variable. late: the nearest node with a variable that the prompt does not wait for. message: the begin
    mark of the last message; `open` says whether it has not ended. branch: the path of forks that led here. num_gens:
    how many gens there are up to here. tokens: a cache of prompt_tokens.
    """

    __slots__ = (
        "blocker", "bound", "branch", "children", "context", "kind", "late", "message", "name", "num_gens", "open",
        "parent", "tokens", "value",
    )  # fmt: skip

    def __init__(
        self,
        context: Context,
        parent: Prompt | None,
        kind: Kind,
        value: Any = None,
        name: str | None = None,
        blocker: Pending[Any] | None = None,
    ) -> None:
        self.context = context
        self.parent = parent
        self.kind = kind
        self.value = value
        self.name = name
        self.children = 0
        self.tokens: Any = None
        if parent is None:
            self.bound: Prompt | None = None
            self.late: Prompt | None = None
            self.message: Message | None = None
            self.open = False
            self.branch: tuple[int, ...] = ()
            self.num_gens = 0
            self.blocker = blocker
            return
        parent.children += 1
        self.bound = parent.bound if name is None else self
        self.late = parent.late if name is None or self._own_late() is None else self
        self.message = parent.message
        self.open = parent.open
        self.branch = parent.branch
        self.num_gens = parent.num_gens + (kind == "gen")
        self.blocker = parent.arrived() if blocker is None else blocker

    @property
    def prompt(self) -> Prompt:
        """Itself, so that a prompt is read as a State is."""
        return self

    def __repr__(self) -> str:
        return f"<prompt of {sum(1 for _ in self.upwards())} segments, variables {list(self.names())}>"

    def append_value(self, value: object, where: Where = None) -> Prompt:
        """Append a text or an expression. Raises TypeError for anything else."""
        if isinstance(value, str):
            return self.append_text(value)
        if not isinstance(value, Expression):
            raise not_content(value)
        prompt = self
        for part in flatten(value):
            prompt = prompt.append_text(part) if isinstance(part, str) else prompt._append_part(part, where)
        return prompt

    def _append_part(self, part: Expression, where: Where) -> Prompt:
        if isinstance(part, Call):
            return self.context.request(self, part, part.where or where)
        if isinstance(part, RoleMark):
            return self.role(part.role, part.mark, part.tools, part.call)
        if isinstance(part, Declared):
            return self._declared(part.tools)
        if isinstance(part, Media):
            require_feature(self.context.backend, part.feature, part.where or where)
            return Prompt(self.context, self, part.kind, part)
        if isinstance(part, Reasoned):
            return append_reasoned(self, part, where)
        raise not_content(part)

    def append_text(self, text: str | PendingText) -> Prompt:
        """Append text that may still be on its way."""
        blocker: Pending[Any] | None = None
        if not isinstance(text, str):
            if text.done and text.error is None:
                text = text.result()
            else:
                before = self.arrived()
                blocker = text if before is None else gather((before, text))
        node = Prompt(self.context, self, "text", text, None, blocker)
        if self.context.streams:
            self.context.tell(node)
        return node

    @property
    def call_form(self) -> CallFormat | None:
        """The form that the backend has for calls of tools here: in a message of the assistant."""
        if "tools" not in self.context.backend.features or not self.open:
            return None
        assert self.message is not None
        return self.message.chat.calls if self.message.role == ASSISTANT else None

    @property
    def follows_text(self) -> bool:
        """Whether something of the open message's text stands before."""
        return next(node.kind for node in self.upwards() if node.kind in ("role", *_TEXTS)) in _TEXTS

    @property
    def chat(self) -> ChatFormat:
        """How messages are written here."""
        return self.context.backend.chat if self.message is None else self.message.chat

    def _declared(self, tools: tuple[Writable, ...]) -> Prompt:
        """Tell of tools in the text of the message, if nothing else tells of them."""
        chat = self.chat
        if chat.sends_tools or chat is not self.context.backend.chat:
            return self
        lines = "\n".join(msgspec.json.encode(tool.schema).decode() for tool in tools)
        return self.append_text(f"\n\nThese tools can be called:\n{lines}")

    def role(
        self,
        role: str,
        mark: str,
        tools: tuple[Writable, ...] = (),
        call: tuple[str, str | None] | None = None,
    ) -> Prompt:
        """Begin or end a chat message. tools, call: see RoleMark.

        Raises UsageError when messages would nest, an end has no beginning, or tools are declared in a later message;
        Unsupported for a message that the model's chat template has no form for there.
        """
        node = self.with_mark(role, mark, tools, call)
        if self.context.streams:
            self.context.tell(node)
        return node

    def with_mark(
        self,
        role: str,
        mark: str,
        tools: tuple[Writable, ...] = (),
        call: tuple[str, str | None] | None = None,
    ) -> Prompt:
        """The same for a prompt that nobody hears of."""
        if mark == "begin":
            return self._begin(role, tools, call)
        message = self.message
        if message is None or not self.open or message.role != role:
            now = f"the message of {message.role} is open" if message is not None and self.open else "none is open"
            raise UsageError(f"the end of a message of {role} where {now}", help=_PAIR)
        return self._mark(message, open=False)

    def _begin(self, role: str, tools: tuple[Writable, ...], call: tuple[str, str | None] | None) -> Prompt:
        last = self.message
        if last is not None and self.open:
            raise UsageError(f"a message of {role} begins inside one of {last.role}; messages do not nest", help=_PAIR)
        if last is None:
            message = Message(role, 0, None, self._declaring(tools), tools, call)
        elif tools:
            raise UsageError("tools are declared in a message that is not the first", help=_FIRST)
        else:
            message = Message(role, last.index + 1, last.role, last.chat, last.tools, call)
        opening = message.chat.opening(role, message.previous)
        if RESULT_ID in opening.written + message.chat.closing(role) and (call is None or call[1] is None):
            raise Unsupported("the model's chat template writes the id of its call to a tool's result", help=_RESULT)
        return self._mark(message, open=True)

    def _declaring(self, tools: tuple[Writable, ...]) -> ChatFormat:
        """How messages are written in a conversation that begins with these tools."""
        chat = self.context.backend.chat
        if not tools or chat.sends_tools:
            return chat
        return declaring(chat, [tool.schema for tool in tools])

    def _mark(self, message: Message, *, open: bool) -> Prompt:
        node = Prompt(self.context, self, "role", message)
        node.message, node.open = message, open
        return node

    def item(self) -> Prompt:
        """Mark the end of an item of an unordered group."""
        return Prompt(self.context, self, "item")

    def items(self, start: Prompt) -> list[list[Prompt]]:
        """What an unordered group holds that began at `start`: the nodes of each item.

        Raises UsageError for a generation in it: what it gives would depend on the order.
        """
        items: list[list[Prompt]] = [[]]
        for node in self.since(start):
            if node.kind in CALLS:
                raise order_matters(node.kind, span_of(node.value.where))
            items[-1].append(node)
            if node.kind == "item":
                items.append([])
        return [item for item in items if item]

    def arranged(self, start: Prompt, items: list[list[Prompt]], order: list[int]) -> Prompt:
        """The prompt with the items of the group that began at `start` in another order."""
        if order == list(range(len(items))):
            return self
        return start.replay([node for index in order for node in items[index]])

    def bind(self, name: object, value: Any) -> Prompt:
        """Bind a variable to a value, which may be a Pending. Raises TypeError for a name that is no str."""
        if not isinstance(name, str):
            raise TypeError(f"a variable's name is a str, not {type(name).__name__}")
        return Prompt(self.context, self, "bind", value, name)

    def fork(self, count: int) -> list[Prompt]:
        """`count` prompts that go on from here, each under a branch number of its own."""
        if isinstance(count, bool) or not isinstance(count, int):
            raise TypeError(f"fork() takes the number of branches (int), not {describe(count)}")
        if count < 0:
            raise ValueError(f"fork() takes the number of branches, got {count}")
        first = self.context.number_branches(self.branch, count)
        return [self._branch(first + offset) for offset in range(count)]

    def _branch(self, number: int) -> Prompt:
        node = Prompt(self.context, self, "fork")
        node.branch = (*self.branch, number)
        return node

    def replay(self, nodes: list[Prompt]) -> Prompt:
        """Append copies of nodes of another branch: same texts, marks, generated tokens and variables."""
        prompt = self
        for node in nodes:
            if node.kind == "role":
                message: Message = node.value
                tools = message.tools if message.index == 0 else ()
                prompt = prompt.role(message.role, "begin" if node.open else "end", tools, message.call)
            elif node.kind == "text":
                prompt = prompt.append_text(node.value)
            elif node.kind not in ("fork", "item"):
                blocker = prompt.arrived()
                own = node.value.pending if node.kind in ("gen", "select") else None
                if own is not None and (not own.done or own.error is not None):
                    blocker = own if blocker is None else gather((blocker, own))
                prompt = Prompt(self.context, prompt, node.kind, node.value, node.name, blocker)
                if self.context.streams and node.kind in ("gen", "select"):
                    self.context.tell(prompt)
        return prompt

    def arrived(self) -> Pending[Any] | None:
        """What to wait for until everything in the prompt is there; None when it is. A failed one stays."""
        blocker = self.blocker
        if blocker is not None and blocker.done and blocker.error is None:
            self.blocker = blocker = None
        return blocker

    def unread(self) -> Pending[Any] | None:
        """Something to wait for before all text and variables can be read at once; None when they can (or have failed).

        More than `arrived`: it also waits for what is bound and no part of the text.
        """
        blocker = self.arrived()
        if blocker is not None and not blocker.done:
            return blocker
        node = self.late
        while node is not None and (pending := node._own_late()) is None:
            node = node.parent.late if node.parent is not None else None
        self.late = node
        return None if node is None else pending

    def _own_late(self) -> Pending[Any] | None:
        """What this node's own variable waits for, if the text after it does not."""
        if self.kind == "bind":
            return self.value if isinstance(self.value, Pending) and not self.value.done else None
        return self.value.late() if self.kind in CALLS else None

    def tell_of_reading(self) -> None:
        """All that was generated in it is looked at; what records the run wants to know."""
        track = self.context.track
        if track is not None:
            for node in self.upwards():
                if node.kind in CALLS:
                    track.read(node.value)

    def upwards(self) -> Iterator[Prompt]:
        """The nodes from this one to the root."""
        node: Prompt | None = self
        while node is not None:
            yield node
            node = node.parent

    def since(self, start: Prompt | None) -> list[Prompt]:
        """The nodes after `start` (or from the root), in reading order. Raises UsageError if it is no ancestor."""
        nodes = []
        node: Prompt | None = self
        while node is not start:
            if node is None:
                raise UsageError("the prompt did not grow from the one it is compared with")
            nodes.append(node)
            node = node.parent
        nodes.reverse()
        return nodes

    def find(self, name: str) -> Prompt:
        """The node that binds a variable last. Raises UnknownVariable, which names the known ones."""
        node = self.bound
        while node is not None:
            if node.name == name:
                return node
            node = node.parent.bound if node.parent is not None else None
        known = ", ".join(map(repr, self.names())) or "none so far"
        hint = nearest(name, self.names()) or None if self.names() else "a gen binds its variable when it is appended"
        raise UnknownVariable(f"the state has no variable {name!r}; it has: {known}", help=hint)

    def names(self) -> dict[str, Prompt]:
        """The variables and the nodes that bind them last, in the order of their first bindings."""
        chain = []
        node = self.bound
        while node is not None:
            chain.append(node)
            node = node.parent.bound if node.parent is not None else None
        return {node.name: node for node in reversed(chain) if node.name is not None}

    def get(self, name: str) -> Any:
        """A variable's value, or a Pending of it (also when it has failed). Raises UnknownVariable."""
        return self.find(name).bound_value()

    def bound_value(self) -> Any:
        """The value that this node binds, or a Pending of it."""
        if self.kind in CALLS:
            return self.value.value()
        value = self.value
        arrived = isinstance(value, Pending) and value.done and value.error is None
        return value.result() if arrived else value

    def generation(self) -> Generation | None:
        """What generated the value that this node binds; None if it was assigned."""
        if self.kind in CALLS:
            found: Generation = self.value
            return found
        return self.value.generation if isinstance(self.value, PartOfText) else None

    def text_value(self, start: Prompt | None = None) -> str | PendingText:
        """The text (after `start`, if given), or a Pending of it."""
        blocker = self.arrived()
        if blocker is None:
            return self._text(start)
        late = PendingText()
        blocker.then(lambda _: self._text(start), late)
        return late

    def _text(self, start: Prompt | None) -> str:
        return "".join(self.segments(start))

    def messages_value(self) -> Any:
        """The chat messages as dicts of role and content, or a Pending of them; what stands outside is left out.

        The content of a message with images or videos is a list of parts, as in OpenAI's chat interface.
        """
        blocker = self.arrived()
        return self._messages() if blocker is None else blocker.then(lambda _: self._messages(), PendingObject())

    def segments(self, start: Prompt | None = None) -> Iterator[str]:
        """The text after `start` in pieces, as it is sent; every value must have arrived."""
        writing = self._writing_behind(start)
        for node in self.since(start):
            own, generated, writing = node.write(writing)
            yield own
            yield generated
        yield writing.waiting()
        if start is None:
            warn_of(writing)

    def _writing_behind(self, start: Prompt | None) -> Writing:
        """How text goes on after `start`, on its own: inside a message that began before it is as it was appended."""
        if start is None or not start.open or start.message is None:
            return Writing(self.context.backend.chat if start is None else start.chat)
        return Writing(start.chat, start.message.role, opening=Opening.plain(""), is_blank=False)

    def write(self, writing: Writing) -> tuple[str, str, Writing]:
        """What this node adds to a text: what is written for it, and what the model has generated."""
        if self.kind == "text":
            return _with_nothing_generated(writing.append(self._own_text()))
        if self.kind == "role":
            message: Message = self.value
            if self.open:
                mark, writing = writing.of(message.chat).begin(message.role, message.previous)
            else:
                mark, writing = writing.end()
            return message.named(mark), "", writing
        if self.kind == "gen":
            text: str = self.value.done.text
            before, writing = writing.append_generated(text)
            return before, text, writing.unwatched() if self.value.is_of_calls else writing
        if self.kind == "select":
            text = self.value.done.text
            before, writing = writing.append_generated(text, "text")
            return before + text, "", writing
        return "", "", writing

    def _own_text(self) -> str:
        value = self.value
        return value if isinstance(value, str) else str(value.result())

    def content(self) -> str:
        """What tells this node's content from others': equal contents write equal texts at equal places."""
        if self.kind == "text":
            return self._own_text()
        if self.kind == "role":
            message: Message = self.value
            names = [tool.name for tool in message.tools] if message.index == 0 else []
            return f"\0{message.role} {self.open} {message.call} {names}\0"
        return "" if self.kind in ("item", "fork") else f"\0{self.kind} {self.name} {id(self.value)}\0"

    def writing(self) -> Writing:
        """Where this prompt's text stands at its end; only the last message is looked at."""
        begin: Prompt | None = self
        while begin is not None and begin.kind != "role":
            begin = begin.parent
        writing = Writing(self.chat)
        if begin is not None and begin.open:
            for node in self.since(begin.parent):
                writing = node.write(writing)[2]
        return writing

    @property
    def num_characters(self) -> int:
        """About how long the text that this node adds is, not counting what the model generated."""
        return len(self._own_text()) if self.kind == "text" else 0

    def media(self) -> list[Media]:
        """The images and videos, in order."""
        return [node.value for node in self.since(None) if node.kind in ("image", "video")]

    def _messages(self) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        for node in self.since(None):
            if node.kind == "role" and node.open:
                messages.append({"role": node.value.role, "content": ""})
            elif node.open and node.kind in ("text", "gen", "select"):
                text = node._own_text() if node.kind == "text" else node.value.done.text
                add_text(messages[-1], text)
            elif node.open and isinstance(node.value, Media):
                add_media(messages[-1], node.value)
        return messages


def texts_of(items: list[list[Prompt]]) -> list[str]:
    """What tells the items of an unordered group from each other; everything in them has arrived."""
    return ["".join(node.content() for node in item) for item in items]


def _with_nothing_generated(step: tuple[str, Writing]) -> tuple[str, str, Writing]:
    return step[0], "", step[1]


_PAIR = "use `with s.user():`, or pair s.user_begin() with s.user_end()"
_FIRST = "declare them in the first message: rf.system(text, tools=[...])"
_RESULT = "append rf.tool_message(result), with a result of rf.call_tools for calls of gen(tools=...)"
