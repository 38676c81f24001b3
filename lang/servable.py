"""What of a program a backend cannot do, found in its IR before anything runs: `ramify check --backend`.

Arguments of requests that are constants, and global names, are known; of others it is known that they are given. Where
a model is asked by messages, each prompt is followed to see where its generations stand: through branches and loops,
as far as states are values (compiler/promote.py).
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import FunctionType
from typing import Any

from ..ir.core import Module, Op, Region, Value
from ..ir.errors import RamifyError, Unsupported
from ..ir.span import Span
from ..ir.types import PROMPT
from ..runtime.backend import Backend
from ..runtime.expression import Call, Gen, build_gen, build_score, build_select, sampling
from ..runtime.features import needs, require_feature
from ..runtime.request import SamplingParams
from ..runtime.roles import ASSISTANT
from ..runtime.tool_schema import CallSchema
from .constraints import Known

# The feature that an argument of a gen asks for, where its value is not known.
_BY_ARGUMENT = {
    "schema": "json_schema", "stop_token_ids": "token_ids", "choices": "select", "logprob_start_len": "prompt_logprobs",
    **{
        name: name
        for name in (
            "regex", "json_schema", "grammar", "processors", "stop_regex", "top_k", "min_p", "min_tokens", "ignore_eos",
            "frequency_penalty", "presence_penalty", "repetition_penalty", "logprobs", "adapter",
        )
    },
}  # fmt: skip
_MEDIA = {"prompt.image": "images", "prompt.video": "videos"}
_CONSTRAINING = ("regex", "json_schema", "grammar", "schema", "choices")
_REQUESTS = ("lm.gen", "lm.select", "lm.score")
_SAME_PLACE = ("prompt.branch", "prompt.bind", "prompt.item", "prompt.group")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something that the backend would refuse, or may: is_certain says whether it depends on the run."""

    message: str
    span: Span | None
    help: str | None
    is_certain: bool

    def __str__(self) -> str:
        kind = "error" if self.is_certain else "may fail"
        where = [] if self.span is None else [str(self.span), *self.span.excerpt()]
        help = [] if self.help is None else [f"help: {self.help}"]
        return "\n".join([*where, f"{kind}: {self.message}", *help])


def refusals(module: Module, python: Mapping[str, FunctionType], backend: Backend) -> list[Refusal]:
    """What the backend would refuse of a module after the pipeline, each place once, in the order of the lines.

    python: the function that each one of the module comes from.
    """
    found: list[Refusal] = []
    for name, function in module.functions.items():
        known = Known(python, name)
        for op in function.body.walk():
            known.note(op)
            found += _of_op(op, known, backend)
    if getattr(backend, "is_chat_model", False):
        entry = module.functions[module.entry]
        found += _Places(entry.body, continues=bool(getattr(backend, "continues_messages", False))).found
    once = {(each.message, str(each.span)): each for each in reversed(found)}
    return sorted(once.values(), key=lambda each: (each.span.line if each.span is not None else 0, each.message))


def _of_op(op: Op, known: Known, backend: Backend) -> Iterator[Refusal]:
    if op.name in _MEDIA:
        yield from _tried(op, partial(require_feature, backend, _MEDIA[op.name], op.span))
    if op.name not in _REQUESTS:
        return
    given, unknown = known.given(op)
    try:
        expression, params = _expression(op, given, backend)
    except (RamifyError, TypeError, ValueError):
        return  # wrong for every backend: check_constraints, or the run, says so
    asked = dict.fromkeys(needs(expression, params), True)
    if op.name == "lm.gen":
        asked |= {_BY_ARGUMENT[name]: name in _CONSTRAINING for name in sorted(unknown) if name in _BY_ARGUMENT}
    elif "choices_method" in unknown:
        asked.setdefault("score", False)
    missing = {feature: is_certain for feature, is_certain in asked.items() if feature not in backend.features}
    for feature, is_certain in missing.items():
        for each in _tried(op, partial(require_feature, backend, feature, op.span)):
            yield replace(each, is_certain=is_certain)
    if not missing and params is not None and hasattr(backend, "check"):
        yield from _tried(op, partial(backend.check, params))


def _tried(op: Op, ask: Callable[[], None]) -> Iterator[Refusal]:
    try:
        ask()
    except Unsupported as error:
        yield Refusal(error.message, error.span or op.span, error.help, True)


def _expression(op: Op, given: dict[str, Any], backend: Backend) -> tuple[Call, SamplingParams | None]:
    """What is asked for with the arguments that are known. Raises what is wrong about them."""
    if op.name == "lm.score":
        return build_score("x", [""]), None
    if op.name == "lm.select":
        return build_select("x", ["a"], given.get("choices_method")), None
    expression = build_gen("x", given, op.span)
    if not isinstance(expression, Gen):
        return expression, None
    params = sampling(SamplingParams(), expression.params)
    if isinstance(expression.schema, CallSchema) and "tools" in backend.features:
        params = replace(params, constraint=None)  # they go through the server's own interface
    return expression, params


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a prompt ends: in a message of a role, or outside (None). begun: whether text stands in the message, None
    where that depends on the run. stray: text outside of messages before it.
    """

    role: str | None = None
    begun: bool | None = False
    stray: Span | None = None


class _Places:
    """Follows the prompts of a program that runs by itself, and finds generations that no chat request can ask for."""

    def __init__(self, body: Region, *, continues: bool) -> None:
        self.found: list[Refusal] = []
        self._continues = continues
        self._places: dict[Value, _Place | None] = {}
        self._texts: dict[Value, bool] = {}
        first = body.ops[0] if body.ops else None
        if first is not None and first.name == "cell.load" and body.args and first.operands[0] is body.args[0]:
            self._places[first.result] = _Place()
        self._region(body)

    def _region(self, region: Region) -> None:
        for op in region.ops:
            self._op(op)

    def _op(self, op: Op) -> None:
        if op.name == "py.const":
            self._texts[op.result] = bool(op.attrs["value"])
        elif op.name == "py.expr" and _is_text(op.attrs["code"]):
            self._texts[op.result] = True
        elif op.name == "prompt.empty":
            self._places[op.result] = _Place()
        elif op.name in _SAME_PLACE:
            self._places[op.result] = self._place(op)
        elif op.name == "prompt.role":
            self._places[op.result] = self._marked(op)
        elif op.name == "prompt.append" or op.name in _MEDIA:
            self._places[op.result] = self._appended(op)
        elif op.name in _REQUESTS:
            self._places[op.result] = self._asked(op)
        elif op.regions:
            self._control(op)

    def _place(self, op: Op) -> _Place | None:
        return self._places.get(op.operands[0])

    def _marked(self, op: Op) -> _Place | None:
        place = self._place(op)
        if place is None:
            return None
        if op.attrs["mark"] == "end":
            return replace(place, role=None, begun=False)
        role = op.attrs.get("role")
        return None if role is None else replace(place, role=role, begun=False)

    def _appended(self, op: Op) -> _Place | None:
        place = self._place(op)
        if place is None:
            return None
        is_text = True if op.name in _MEDIA else self._texts.get(op.operands[1])
        if is_text is False:
            return place
        if place.role is None:
            if is_text is None:
                return None  # it may be a whole message
            return replace(place, stray=place.stray or op.span)
        return replace(place, begun=True if is_text else place.begun or None)

    def _asked(self, op: Op) -> _Place | None:
        place = self._place(op)
        if place is None or op.name == "lm.score":
            return place
        if place.stray is not None:
            self._refuse("a chat request consists of messages, and this text stands outside of them", place.stray, _PUT)
        if place.role != ASSISTANT:
            where = "outside of the messages" if place.role is None else f"inside a message of {place.role}"
            message = f"a chat model writes the assistant's messages only, and this generation stands {where}"
            self._refuse(message, op.span, "write rf.assistant(rf.gen(...))")
        elif place.begun is not False and not self._continues:
            message = "a chat request cannot continue an assistant message that the program or a generation began"
            self._refuse(message, op.span, _BEGIN, is_certain=place.begun is True)
        return replace(place, begun=True)

    def _refuse(self, message: str, span: Span | None, help: str, *, is_certain: bool = True) -> None:
        self.found.append(Refusal(message, span, help, is_certain))

    def _control(self, op: Op) -> None:
        """Follow what an op's regions do; what it gives is known where all ways give the same."""
        starts = {"flow.for": 1, "flow.while": 0}.get(op.name)
        carried = [] if starts is None else op.operands[starts:]
        for region in op.regions:
            if starts is not None:
                self._pass(carried, region.args[len(region.args) - len(carried) :])
            self._region(region)
        ways = [region.ops[-1] for region in op.regions if region.ops]
        ends = [list(end.operands[len(end.operands) - len(op.results) :]) for end in ways if end.name == "flow.yield"]
        if op.name == "flow.if":
            ends = ends or [[]]
        elif starts is not None:
            ends.append(list(carried))
        for index, result in enumerate(op.results):
            if result.type == PROMPT:
                places = [self._places.get(end[index]) for end in ends if index < len(end)]
                self._places[result] = _merged(places)

    def _pass(self, sources: Sequence[Value], targets: Sequence[Value]) -> None:
        for source, target in zip(sources, targets, strict=True):
            self._places[target] = self._places.get(source)


def _merged(places: list[_Place | None]) -> _Place | None:
    first = places[0] if places else None
    if first is None or any(each is None or each.role != first.role for each in places):
        return None
    begun = {each.begun for each in places if each is not None}
    stray = next((each.stray for each in places if each is not None and each.stray is not None), None)
    return _Place(first.role, first.begun if len(begun) == 1 else None, stray)


def _is_text(code: str) -> bool:
    """Whether an expression is surely a text that is not empty."""
    node = ast.parse(f"(\n{code}\n)", mode="eval").body
    if isinstance(node, ast.JoinedStr):
        return any(isinstance(part, ast.Constant) for part in node.values)
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and bool(node.value)


_PUT = "put it into rf.system(...), rf.user(...) or rf.assistant(...)"
_BEGIN = (
    "begin the assistant's message with the generation; or, where the server can continue it, say so with "
    "OpenAI(..., flavour='vllm', continue_final_message=True); or run with speculative_tokens=N (docs/backends.md)"
)
