"""The token ids of prompts: tokens are kept, never re-derived.

Every maximal run of text between generated spans is tokenized as a whole, however it was appended; generated spans
keep the tokens that were generated. Work is shared: nodes that several prompts grew from remember their tokens, and
long texts that many runs begin with are tokenized once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..ir.errors import Unsupported
from .chat import ChatFormat
from .prompt import Prompt
from .tokens import CONTINUATION, TextRun, Tokenizer
from .writing import Writing, warn_of

# Texts at least this long are looked up before they are tokenized; shorter ones are joined first.
_LONG = 256
_MEMO_CHARACTERS = 4_000_000
_Key = tuple[tuple[str, bool], str]


class KnownTokens(NamedTuple):
    """The tokens up to a node: ids before the current text run, and the run. writing: where the text stands; None at
    its beginning."""

    owner: PromptTokens
    ids: tuple[int, ...]
    run: TextRun | None
    writing: Writing | None = None

    @property
    def token_ids(self) -> list[int]:
        """All of them, as they are sent for a generation."""
        return self._followed_by("" if self.writing is None else self.writing.waiting())

    @property
    def settled_ids(self) -> tuple[int, ...]:
        """Those that stay, most likely, whatever text follows."""
        return (*self.ids, *(self.run.settled_ids if self.run is not None else ()))

    def with_text(self, text: str) -> list[int]:
        """All of them if this text followed; the last ones may be others than without it."""
        return self._followed_by(text if self.writing is None else self.writing.waiting("text") + text)

    def _followed_by(self, text: str) -> list[int]:
        run = self.owner.tokenizer.extend(self.run, text) if text else self.run
        return [*self.ids, *(run.ids if run is not None else ())]


@dataclass(frozen=True, slots=True)
class Tokenization:
    """The tokenizing of one prompt that is still to do. num_characters: of text not looked at before."""

    tokens: PromptTokens
    start: KnownTokens
    nodes: list[Prompt]
    num_characters: int

    def run(self, *, warns: bool = True) -> KnownTokens:
        """Do it; warns: of what the chat template would write otherwise. Thread-safe."""
        known = self.tokens.advance(self.start, self.nodes)
        if warns and known.writing is not None:
            warn_of(known.writing)
        return known


class PromptTokens:
    """Tokenizes prompts for one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        bos = tokenizer.bos_id
        self.first_ids: tuple[int, ...] = () if bos is None else (bos,)
        self._memo: OrderedDict[_Key, TextRun] = OrderedDict()
        self._memo_characters = 0
        self._lock = threading.Lock()

    def prepare(self, prompt: Prompt) -> Tokenization:
        """Find out what is known of a prompt and what is to do; all its values must have arrived."""
        nodes: list[Prompt] = []
        start = KnownTokens(self, self.first_ids, None)
        for node in prompt.upwards():
            known: KnownTokens | None = node.tokens  # read once: another backend may put its own there at any time
            if known is not None and known.owner is self:
                start = known
                break
            nodes.append(node)
        nodes.reverse()
        return Tokenization(self, start, nodes, sum(node.num_characters for node in nodes))

    def begin(self, root: Prompt, token_ids: Sequence[int]) -> None:
        """Make a new prompt begin with these tokens, and with no BOS. They are no part of its text."""
        root.tokens = KnownTokens(self, tuple(token_ids), CONTINUATION if token_ids else None)

    def prompt_tokens(self, prompt: Prompt) -> list[int]:
        """The token ids of a prompt. Raises Unsupported when it holds images or videos."""
        return self.prepare(prompt).run().token_ids

    def advance(self, known: KnownTokens, nodes: list[Prompt]) -> KnownTokens:
        """The tokens after `nodes`, remembered at the last of them and where prompts part."""
        ids, run, writing = known.ids, known.run, known.writing
        short: list[str] = []
        for index, node in enumerate(nodes):
            if node.kind in ("image", "video"):
                raise Unsupported(f"this backend cannot take {node.kind}s", help="use a backend of a vision model")
            if writing is None:
                writing = Writing(node.context.backend.chat)
            if node.kind == "role" and node.open and node.value.index == 0:
                ids = self._first_of_message(ids, run, short, writing.chat)
            text, _, writing = node.write(writing)
            if len(text) >= _LONG:
                run = self._extend(self._extend(run, "".join(short)), text)
                short = []
            elif text:
                short.append(text)
            if node.kind == "gen":
                run = self._extend(run, "".join(short))
                done = node.value.done
                ids = (*ids, *(run.ids if run is not None else ()), *done.token_ids)
                run, short = CONTINUATION, [done.tail]
            if node.children > 1 or index == len(nodes) - 1:
                run = self._extend(run, "".join(short))
                short = []
                node.tokens = KnownTokens(self, ids, run, writing)
        return KnownTokens(self, ids, run, writing) if nodes else known

    def _first_of_message(
        self, ids: tuple[int, ...], run: TextRun | None, short: list[str], chat: ChatFormat
    ) -> tuple[int, ...]:
        """A conversation begins as its template says: with the token that it writes, or with none."""
        is_start = run is None and not any(short) and ids == self.first_ids
        return () if is_start and chat.has_bos else ids

    def _extend(self, run: TextRun | None, text: str) -> TextRun | None:
        if not text:
            return run
        if len(text) < _LONG:
            return self.tokenizer.extend(run, text)
        key = ((run.text, run.continuation) if run is not None else ("", False), text)
        with self._lock:
            found = self._memo.get(key)
            if found is not None:
                self._memo.move_to_end(key)
                return found
        made = self.tokenizer.extend(run, text)
        self._remember(key, made)
        return made

    def _remember(self, key: _Key, run: TextRun) -> None:
        with self._lock:
            if key not in self._memo:
                self._memo_characters += len(run.text)
            self._memo[key] = run
            while self._memo_characters > _MEMO_CHARACTERS and len(self._memo) > 1:
                _, oldest = self._memo.popitem(last=False)
                self._memo_characters -= len(oldest.text)
