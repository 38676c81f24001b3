"""Dry runs: a compiled program on a backend that asks no model, to learn what it would ask.

Nothing arrives until the program can go no further. What it has asked for by then it asks for whatever is generated.
Then everything that was sent is answered at once, with as many tokens as could come at most, and so on: the number of
these rounds is the critical path. What is asked for after the first answer may depend on it, and is marked.

Host code runs where it only computes (runtime/effects.py); anything else ends the dry run with Refused, unless the
user has allowed it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..backends import SCRIPTED, TINY, model_directory
from ..backends.scoring import first_judged
from ..ir.errors import RamifyError, Unsupported
from ..ir.span import Span
from ..runtime.backend import Sink
from ..runtime.chat import DEFAULT_CHAT, ChatFormat
from ..runtime.context import Context
from ..runtime.effects import is_plain
from ..runtime.expression import Gen, Select, span_of
from ..runtime.generation import Generation
from ..runtime.host import HostOp
from ..runtime.hostpool import host_pool
from ..runtime.interpreter import Interpreter
from ..runtime.loop import loop
from ..runtime.pending import Pending
from ..runtime.prompt import Prompt
from ..runtime.prompt_tokens import PromptTokens
from ..runtime.request import Done, SamplingParams, Scored, TokenLogprob
from ..runtime.routine import Routine
from ..runtime.tokens import Tokenizer
from ..runtime.toolcall import are_tools_quiet
from ..runtime.trail import locate
from .arguments import Arguments
from .options import Options, default_backend
from .state import State

# A program that still goes on after so many rounds of answers waits for an answer that placeholders do not give.
MAX_ROUNDS = 64
_POLL_SECONDS = 0.002
_QUIET_POLLS = 3
Certainty = Literal["exact", "bound", "estimate"]
_Span = Span | None


class Refused(RamifyError):
    """Host code that a dry run does not execute."""


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
            return cls._of_directory(model_directory(given))
        from ..backends.local import LocalBackend

        if not isinstance(given, LocalBackend):
            raise _no_tokenizer(str(getattr(given, "name", given)))
        config = given.model.config
        size = given.model.layout.bytes_per_token
        return cls(given.name, given.tokens, given.chat, given.features, size, config.context_length)

    @classmethod
    def _of_directory(cls, directory: Path) -> Model:
        import torch

        from ..backends.local import LocalBackend
        from ..runtime.models.config import read_config

        tokenizer, config = Tokenizer.load(directory), read_config(directory)
        dtype = torch.float32 if directory == model_directory(TINY) else config.dtype or torch.float32
        size = 2 * config.num_layers * config.num_kv_heads * config.head_dim * dtype.itemsize
        features, chat = LocalBackend.features, tokenizer.chat or DEFAULT_CHAT
        name = f"local:{directory.name}"
        return cls(name, PromptTokens(tokenizer), chat, features, size, config.context_length)


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

    def token_ids(self, count: int, key: Hashable) -> tuple[int, ...]:
        """Ids below 0, the same ones for the same key, new ones for None."""
        known = None if key is None else self._known.get(key)
        if known is None:
            known = tuple(range(self._next, self._next - count, -1))
            self._next -= count
            if key is not None:
                self._known[key] = known
        return known

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
class _Asked:
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
        self._asked: list[_Asked] = []
        self.name = self._model.name
        self.chat = self._model.chat
        self.features = self._model.features

    def take(self) -> list[_Asked]:
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
        done = Done(text, generated, "length", prompt_tokens=len(tokens))
        self._asked.append(_Asked(generation, (sent,), key if sink.sharing is not None else None, done))
        return self

    def score(self, prompt: Prompt, texts: Sequence[str], sink: Sink, *, unconditional: bool = False) -> DryBackend:
        """See Scorer."""
        known = self._model.tokens.prepare(prompt).run()
        prompt_ids, sent, lengths = known.token_ids, [], []
        for text in texts:
            whole = known.with_text(text)
            start = first_judged(prompt_ids, whole, text)
            lengths.append(len(whole))
            if start < len(whole):
                sent.append(_scored(whole, start))
                alone = [*known.owner.first_ids, *whole[start:]]
                if unconditional and len(alone) > 1:
                    sent.append(_scored(alone, 1))
        key = (tuple(texts), tuple((each.tokens, each.num_cachable) for each in sent))
        generation = _generation(sink)
        if isinstance(generation.expression, Select):  # the longest choice stands for the one that is made
            done = Done(texts[lengths.index(max(lengths))], (), "stop")
        else:
            scores = tuple(Scored(text, (TokenLogprob(0, -1.0),)) for text in texts)
            done = Done("", (), "stop", scores=scores)
        self._asked.append(_Asked(generation, tuple(sent), key if sink.sharing is not None else None, done))
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
        return "yes" if dtype is bool else self._placeholders.text(generated)


def _generation(sink: Sink) -> Generation:
    assert isinstance(sink, Generation)
    return sink


def _scored(token_ids: list[int], start: int) -> Sent:
    """A sequence whose tokens from `start` on are judged; the last one's KV is not needed."""
    return Sent(tuple(token_ids), (), start - 1, len(token_ids) - 1, start < len(token_ids))


def _is_determined(params: SamplingParams) -> bool:
    from ..runtime.sharing import is_deterministic

    return is_deterministic(params)


def dry_run(
    interpreter: Interpreter, placeholders: Placeholders, arguments: Arguments, options: Options, *, run_host: bool
) -> DryRow:
    """What a program would ask for on these arguments. run_host: whether all its host code may run."""
    run = _DryRun(interpreter, placeholders, arguments, options, run_host)
    loop().soon(run.begin)
    return run.outcome.wait()


class _DryRun:
    """One dry run. All of it happens on the loop thread, but for host code that the user has allowed."""

    def __init__(
        self,
        interpreter: Interpreter,
        placeholders: Placeholders,
        arguments: Arguments,
        options: Options,
        run_host: bool,
    ) -> None:
        self.outcome: Pending[DryRow] = Pending()
        self._interpreter = interpreter
        self._backend = DryBackend(placeholders)
        self._arguments = arguments
        self._options = options
        self._run_host = run_host
        self._row = DryRow()
        self._certain: dict[Generation, Certainty] | None = None
        self._depth = 0
        self._num_quiet = 0

    def begin(self) -> None:
        """Run until the program can go no further."""
        context = self._context = Context(self._backend, self._options.sampling)
        context.is_compiled = True
        if not self._run_host:
            context.run_guarded = _run_guarded
        state = context.strand.state = State(context.root())
        # What the program changes of its arguments is its own affair.
        values = self._arguments.with_state(state) if self._run_host else _copied(self._arguments, state)
        self._body = Routine(self._interpreter.run(context.strand, values))
        self._body.start()
        loop().when_idle(self._settle)

    def _settle(self) -> None:
        """Nothing moves any more: answer what was asked for, or end."""
        if self._waits_for_host():
            loop().later(_POLL_SECONDS, lambda: loop().when_idle(self._settle))
            return
        if self._num_quiet < (_QUIET_POLLS if self._run_host else 1):
            self._num_quiet += 1  # what a thread has posted since may still be in the queue
            loop().later(_POLL_SECONDS if self._run_host else 0.0, lambda: loop().when_idle(self._settle))
            return
        self._num_quiet = 0
        if self._certain is None:
            self._certain = {call: _certainty(call) for call in self._context.calls}
        asked = self._backend.take()
        if not asked:
            self._end(None)
        elif self._depth == MAX_ROUNDS:
            self._end(
                RamifyError(f"it asks on after {MAX_ROUNDS} rounds of answers: its end depends on what is generated")
            )
        else:
            self._depth += 1
            for each in asked:
                self._row.calls.append(self._call(each))
            for each in asked:
                each.generation(each.done)
            loop().when_idle(self._settle)

    def _waits_for_host(self) -> bool:
        """Whether host threads are at work. One that was just woken does not count as working yet, so we look again."""
        if host_pool().is_quiet and are_tools_quiet():
            return False
        self._num_quiet = 0
        return True

    def _call(self, asked: _Asked) -> DryCall:
        generation, certain = asked.generation, self._certain or {}
        return DryCall(
            generation.expression.kind,
            generation.expression.name,
            span_of(generation.where),
            asked.sent,
            asked.key,
            self._depth,
            certain.get(generation, "estimate"),
            generation in certain,
            _has_exact_length(generation),
        )

    def _end(self, gave_up: RamifyError | None) -> None:
        if not self._body.done:
            self._context.cancel(gave_up)
            self._body.cancel(gave_up or RamifyError("it waits for something that no dry run brings"))
        error = gave_up or self._body.error
        locate(error)
        conclusion = Routine(self._context.conclude(error))
        conclusion.add_callback(self._concluded)
        conclusion.start()

    def _concluded(self, conclusion: Pending[BaseException | None]) -> None:
        self._row.stopped = conclusion.error or conclusion.result()
        locate(self._row.stopped)
        self._row.is_certain = self._depth == 0
        self.outcome.set_result(self._row)


def _copied(arguments: Arguments, state: State) -> tuple[Any, ...]:
    """The arguments in copies. What cannot be copied is no plain value, and is given to no host code."""
    try:
        values = deepcopy(arguments.values)
    except Exception:
        values = arguments.values
    return (*arguments.before, state, *values)


def _run_guarded(function: Callable[..., Any], args: tuple[Any, ...]) -> Pending[Any]:
    """Run host code here and now, if all that it does is to compute."""
    done: Pending[Any] = Pending()
    why = _why_refused(function, args)
    if why is not None:
        done.set_error(
            Refused(
                f"host code that may do more than compute: {why}",
                help="--run-host (run_host=True) lets a prediction run all of the program's own code, tools included",
            )
        )
        return done
    try:
        done.set_result(function(*args))
    except Exception as error:
        done.set_error(error)
    return done


def _why_refused(function: Callable[..., Any], args: tuple[Any, ...]) -> str | None:
    if isinstance(function, HostOp):
        return function.why_not_harmless(*args)
    if function in (bool, iter, next):
        return None if is_plain(args[0]) or (function is not bool and _is_builtin_iterator(args[0])) else "an iterator"
    return "a function that runs as Python"


def _is_builtin_iterator(value: object) -> bool:
    return type(value).__module__ == "builtins" and type(value).__name__ not in ("generator", "map", "filter")


def _certainty(call: Generation) -> Certainty:
    """What is known of a call that was asked for before anything was generated."""
    found: Certainty = "exact"
    for node in call.prompt.upwards():
        if node.kind == "text" and isinstance(node.value, Pending):
            return "estimate"
        if node.kind == "select" or (node.kind == "gen" and not _has_exact_length(node.value)):
            found = "bound"
    return found


def _has_exact_length(call: Generation) -> bool:
    """Whether nothing but max_tokens ends it."""
    params = call.params
    if params is None:
        return True
    stops = (params.stop, params.stop_token_ids, params.stop_regex)
    return params.max_tokens == 0 or (params.ignore_eos and params.constraint is None and not any(stops))
