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
from .prompt import Prompt
from .tokens import CONTINUATION, TextRun, Tokenizer

# Texts at least this long are looked up before they are tokenized; shorter ones are joined first.
_LONG = 256
_MEMO_CHARACTERS = 4_000_000
_Key = tuple[tuple[str, bool], str]


class KnownTokens(NamedTuple):
    """The tokens up to a node: ids before the current text run, and the run."""

    owner: PromptTokens
    ids: tuple[int, ...]
    run: TextRun | None

    @property
    def token_ids(self) -> list[int]:
        """All of them."""
        return [*self.ids, *(self.run.ids if self.run is not None else ())]

    def with_text(self, text: str) -> list[int]:
        """All of them if this text followed; the last ones may be others than without it."""
        return self._replace(run=self.owner.tokenizer.extend(self.run, text)).token_ids if text else self.token_ids


@dataclass(frozen=True, slots=True)
class Tokenization:
    """The tokenizing of one prompt that is still to do. num_characters: of text not looked at before."""

    tokens: PromptTokens
    start: KnownTokens
    nodes: list[Prompt]
    num_characters: int

    def run(self) -> KnownTokens:
        """Do it. Thread-safe."""
        return self.tokens.advance(self.start, self.nodes)


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
        return Tokenization(self, start, nodes, sum(len(node.plain_text()) for node in nodes))

    def begin(self, root: Prompt, token_ids: Sequence[int]) -> None:
        """Make a new prompt begin with these tokens, and with no BOS. They are no part of its text."""
        root.tokens = KnownTokens(self, tuple(token_ids), CONTINUATION if token_ids else None)

    def prompt_tokens(self, prompt: Prompt) -> list[int]:
        """The token ids of a prompt. Raises Unsupported when it holds images."""
        return self.prepare(prompt).run().token_ids

    def advance(self, known: KnownTokens, nodes: list[Prompt]) -> KnownTokens:
        """The tokens after `nodes`, remembered at the last of them and where prompts part."""
        ids, run = known.ids, known.run
        short: list[str] = []
        for index, node in enumerate(nodes):
            if node.kind == "image":
                raise Unsupported("this backend cannot take images", help="use a backend of a vision model")
            if node.kind == "gen":
                run = self._extend(run, "".join(short))
                done = node.value.done
                ids = (*ids, *(run.ids if run is not None else ()), *done.token_ids)
                run, short = CONTINUATION, [done.tail]
            elif len(text := node.plain_text()) >= _LONG:
                run = self._extend(self._extend(run, "".join(short)), text)
                short = []
            elif text:
                short.append(text)
            if node.children > 1 or index == len(nodes) - 1:
                run = self._extend(run, "".join(short))
                short = []
                node.tokens = KnownTokens(self, ids, run)
        return KnownTokens(self, ids, run) if nodes else known

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
