"""A backend that asks no model, to learn what a program would ask: the program runs *dry* on it (lang/dry_runs.py).

Nothing arrives until the program can go no further. What it has asked for by then it asks for whatever is generated.
Then everything that was sent is answered at once, with as many tokens as could come at most, and so on: the number of
these rounds is the critical path. What is asked for after the first answer may depend on it, and is marked.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..backends import SCRIPTED, TINY, directory_name, model_directory, split_model
from ..backends.scoring import to_judge
from ..ir.errors import RequestError, Unsupported
from ..ir.span import Span
from ..runtime.backend import Sink
from ..runtime.chat import DEFAULT_CHAT, ChatFormat
from ..runtime.closing import closing
from ..runtime.constraint import Constraint
from ..runtime.expression import Gen, Select
from ..runtime.generation import Generation
from ..runtime.prompt import Prompt
from ..runtime.prompt_tokens import PromptTokens
from ..runtime.request import Done, SamplingParams, Scored, TokenLogprob
from ..runtime.score_tree import Chain, ScoreTree
from ..runtime.tokens import Tokenizer
from ..runtime.weight_format import WeightFormat
from .options import Options, default_backend

Certainty = Literal["exact", "bound", "estimate"]
_Span = Span | None


@dataclass(frozen=True, slots=True)
class Model:
    """What a prediction knows of the model: its tokenizer, the chat format, the sizes.

    bytes_per_token: of KV, over all layers.
    """

    name: str
    tokens: PromptTokens
    chat: ChatFormat
    features: frozenset[str]
    bytes_per_token: int
    context_length: int

    @classmethod
    def of(cls, options: Options) -> Model:
        """That of the backend that the options name; weights are not loaded. Raises Unsupported, UsageError."""
        given = default_backend() if options.backend is None else options.backend
        given = getattr(given, "endpoint", given)
        if isinstance(given, str | Path):
            name = str(given).partition(":")[0]
            if name in (SCRIPTED, "openai", "http", "https"):
                raise _no_tokenizer(str(given))
            return cls._of_directory(*split_model(given))
        from ..backends.local import LocalBackend

        if not isinstance(given, LocalBackend):
            raise _no_tokenizer(str(getattr(given, "name", given)))
        config = given.model.config
        size = given.model.layout.bytes_per_token
        return cls(given.name, given.tokens, given.chat, given.features, size, config.context_length)

    @classmethod
    def _of_directory(cls, directory: Path, weights: WeightFormat | None) -> Model:
        import torch

        from ..backends.local import LocalBackend
        from ..runtime.models.loader import read_layout

        tokenizer = Tokenizer.load(directory)
        layout, context = read_layout(directory, torch.float32 if directory == model_directory(TINY) else None)
        features, chat = LocalBackend.features, tokenizer.chat or DEFAULT_CHAT
        name = directory_name(directory, weights)
        return cls(name, PromptTokens(tokenizer), chat, features, layout.bytes_per_token, context)


def _no_tokenizer(name: str) -> Unsupported:
    return Unsupported(
        f"nothing can be predicted for the backend {name!r}: its tokenizer is not here",
        help="predict for a model directory with the same tokenizer: --model DIR, or backend=DIR",
    )


@dataclass(frozen=True, slots=True)
class Sent:
    """A sequence that the engine would compute.

    tokens: the prompt. generated: placeholders, below 0, for what may be generated. num_cachable: how many of the first
    tokens may come from the cache. num_kept: how many tokens of prompt and generation stay in the cache. is_computed:
    whether the engine has anything to do for it.
    """

    tokens: tuple[int, ...]
    generated: tuple[int, ...]
    num_cachable: int
    num_kept: int
    is_computed: bool = True


@dataclass(frozen=True, slots=True)
class DryCall:
    """A generation, choice or score that a program would ask for.

    key: equal for requests of which one answer does for all; None if it does not. depth: in which round it is sent, the
    first is 1. certainty: of its prompt: "exact"; "bound" when it holds generated text, which may be shorter;
    "estimate" when other text of it depends on what is generated. is_sure: whether it is asked for whatever is
    generated. has_exact_length: whether as much is generated as may be.
    """

    kind: str
    name: str | None
    span: _Span
    sent: tuple[Sent, ...]
    key: Hashable
    depth: int
    certainty: Certainty
    is_sure: bool
    has_exact_length: bool


@dataclass(slots=True)
class DryRow:
    """What a row would ask for. stopped: why it goes no further, if it does not; is_certain: whatever is generated."""

    calls: list[DryCall] = field(default_factory=list)
    stopped: BaseException | None = None
    is_certain: bool = True


class Placeholders:
    """What stands for generated text in the dry runs of one prediction: equal for requests with equal answers."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.word = _word(model.tokens.tokenizer)
        self._next = -1
        self._known: dict[Hashable, tuple[int, ...]] = {}
        self._matching: dict[Constraint, str | None] = {}

    def token_ids(self, count: int, key: Hashable) -> tuple[int, ...]:
        """Ids below 0, the same ones for the same key, new ones for None."""
        known = None if key is None else self._known.get(key)
        if known is None:
            known = tuple(range(self._next, self._next - count, -1))
            self._next -= count
            if key is not None:
                self._known[key] = known
        return known

    def matching(self, constraint: Constraint) -> str | None:
        """The shortest text that matches; None if none was found."""
        if constraint not in self._matching:
            try:
                self._matching[constraint] = closing(constraint, "")
            except RequestError:
                self._matching[constraint] = None
        return self._matching[constraint]

    def text(self, generated: tuple[int, ...]) -> str:
        """About as many tokens of text; another text for other placeholders, as models would write."""
        if not generated:
            return ""
        number = str(-generated[0])
        num_words = len(generated) - len(self.model.tokens.tokenizer.extend(None, number).ids)
        return number + self.word * max(0, num_words)


def _word(tokenizer: Tokenizer) -> str:
    """A piece of text that is one token however often it is repeated, if the tokenizer has one."""
    for word in (" the", " a", "x"):
        run = tokenizer.extend(None, word * 9)
        if 8 <= len(run.ids) <= 10:
            return word
    return " a"


@dataclass(slots=True)
class Asked:
    """A request that waits for its answer: what would be computed, and the answer."""

    generation: Generation
    sent: tuple[Sent, ...]
    key: Hashable
    done: Done


class DryBackend:
    """Keeps requests; `take` gives those that have come since."""

    def __init__(self, placeholders: Placeholders) -> None:
        self._placeholders = placeholders
        self._model = placeholders.model
        self._asked: list[Asked] = []
        self.name = self._model.name
        self.chat = self._model.chat
        self.features = self._model.features - {"prefill", "embed"}

    def take(self) -> list[Asked]:
        """The requests that were not taken yet."""
        asked, self._asked = self._asked, []
        return asked

    def generate(self, prompt: Prompt, params: SamplingParams, sink: Sink) -> DryBackend:
        """See Backend."""
        generation = _generation(sink)
        tokens = tuple(self._model.tokens.prompt_tokens(prompt))
        key = None if not _is_determined(params) else (tokens, params)
        generated = self._placeholders.token_ids(params.max_tokens, key)
        sent = Sent(tokens, generated, len(tokens) - 1, len(tokens) + max(0, len(generated) - 1), bool(generated))
        text = self._text(generation, params, generated)
        done = Done(text, generated, "stop" if params.constraint else "length", prompt_tokens=len(tokens))
        self._asked.append(Asked(generation, (sent,), key if sink.sharing is not None else None, done))
        return self

    def score(self, prompt: Prompt, texts: Sequence[str], sink: Sink, *, unconditional: bool = False) -> DryBackend:
        """See Scorer."""
        known = self._model.tokens.prepare(prompt).run()
        tree, lengths = ScoreTree(), []
        for text in texts:
            judged = to_judge(known, text, unconditional)
            lengths.append(len(judged[0][2]) if judged else 0)
            for before, ids, token_ids in judged:
                tree.add(before, ids, token_ids)
        sent = [_scored(chain) for root in tree.chains() for chain in root.walk()]
        key = (tuple(texts), tuple((each.tokens, each.num_cachable) for each in sent))
        generation = _generation(sink)
        if isinstance(generation.expression, Select):  # the longest choice stands for the one that is made
            done = Done(texts[lengths.index(max(lengths))], (), "stop")
        else:
            scores = tuple(Scored(text, (TokenLogprob(0, -1.0),)) for text in texts)
            done = Done("", (), "stop", scores=scores)
        self._asked.append(Asked(generation, tuple(sent), key if sink.sharing is not None else None, done))
        return self

    def cancel(self) -> None:
        """See Handle: nothing is on its way."""

    def close(self) -> None:
        """See Backend."""

    def _text(self, generation: Generation, params: SamplingParams, generated: tuple[int, ...]) -> str:
        expression = generation.expression
        dtype = expression.dtype if isinstance(expression, Gen) else None
        if dtype in (int, float):
            return "1"
        if dtype is bool:
            return "yes"
        shortest = None if params.constraint is None else self._placeholders.matching(params.constraint)
        return self._placeholders.text(generated) if shortest is None else shortest


def _generation(sink: Sink) -> Generation:
    assert isinstance(sink, Generation)
    return sink


def _scored(chain: Chain) -> Sent:
    """A sequence whose tokens from `start` on are judged; the last one's KV is not needed."""
    token_ids, start = chain.token_ids, chain.start
    return Sent(token_ids, (), start - 1, len(token_ids) - 1, start < len(token_ids))


def _is_determined(params: SamplingParams) -> bool:
    from ..runtime.sharing import is_deterministic

    return is_deterministic(params)


def has_exact_length(call: Generation) -> bool:
    """Whether nothing but max_tokens ends it."""
    params = call.params
    if params is None:
        return True
    stops = (params.stop, params.stop_token_ids, params.stop_regex)
    return params.max_tokens == 0 or (params.ignore_eos and params.constraint is None and not any(stops))
