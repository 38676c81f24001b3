"""The token ids of prompts: tokens are kept, never re-derived.

Every maximal run of text between generated spans is tokenized as a whole, however it was appended; generated spans
keep the tokens that were generated. Work is shared: nodes that several prompts grew from remember their tokens, and
long texts that many runs begin with are tokenized once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

from ..ir.errors import Unsupported
from .prompt import Prompt
from .tokens import CONTINUATION, TextRun, Tokenizer

# Texts at least this long are looked up before they are tokenized; shorter ones are joined first.
_LONG = 256
_MEMO_CHARACTERS = 4_000_000
_Key = tuple[tuple[str, bool], str]


class _Known(NamedTuple):
    """The tokens up to a node: ids before the current text run, and the run."""

    owner: PromptTokens
    ids: tuple[int, ...]
    run: TextRun | None


@dataclass(frozen=True, slots=True)
class Tokenization:
    """The tokenizing of one prompt that is still to do. num_characters: of text not looked at before."""

    tokens: PromptTokens
    start: _Known
    nodes: list[Prompt]
    num_characters: int

    def run(self) -> list[int]:
        """Do it. Thread-safe."""
        known = self.tokens.advance(self.start, self.nodes)
        return [*known.ids, *(known.run.ids if known.run is not None else ())]


class PromptTokens:
    """Tokenizes prompts for one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._memo: OrderedDict[_Key, TextRun] = OrderedDict()
        self._memo_characters = 0
        self._lock = threading.Lock()

    def prepare(self, prompt: Prompt) -> Tokenization:
        """Find out what is known of a prompt and what is to do; all its values must have arrived."""
        nodes: list[Prompt] = []
        node: Prompt | None = prompt
        while node is not None and not (node.tokens is not None and node.tokens.owner is self):
            nodes.append(node)
            node = node.parent
        nodes.reverse()
        bos = self.tokenizer.bos_id
        start = node.tokens if node is not None else _Known(self, () if bos is None else (bos,), None)
        return Tokenization(self, start, nodes, sum(len(node.plain_text()) for node in nodes))

    def prompt_tokens(self, prompt: Prompt) -> list[int]:
        """The token ids of a prompt. Raises Unsupported when it holds images."""
        return self.prepare(prompt).run()

    def advance(self, known: _Known, nodes: list[Prompt]) -> _Known:
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
                node.tokens = _Known(self, ids, run)
        return _Known(self, ids, run) if nodes else known

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
