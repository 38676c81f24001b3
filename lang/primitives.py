"""The functions that programs build prompts from: gen, select, score and the chat roles.

They return inert expressions (runtime/expression.py). The front end knows them by their `__ramify__` mark and compiles
calls of them into ops with the same meaning.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ..runtime.choices import ChoiceMethod, token_length_normalized
from ..runtime.expression import (
    Expression,
    Gen,
    RoleMark,
    Score,
    Select,
    Sequence,
    Spot,
    build_gen,
    build_score,
    build_select,
    not_content,
    role_message,
)
from ..runtime.media import Media, build_image, build_video
from ..runtime.reasoning import Reasoned, marks_of
from ..runtime.request import Processor

if TYPE_CHECKING:
    from .tools import Tool

F = TypeVar("F", bound=Callable[..., Any])


def primitive(mark: str) -> Callable[[F], F]:
    """Mark a function for the front end."""

    def apply(function: F) -> F:
        function.__ramify__ = mark  # type: ignore[attr-defined]
        return function

    return apply


@primitive("gen")
def gen(
    name: str | None = None,
    max_tokens: int | None = None,
    min_tokens: int | None = None,
    n: int | None = None,
    stop: str | Iterable[str] | None = None,
    stop_token_ids: Iterable[int] | None = None,
    stop_regex: str | Iterable[str] | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    min_p: float | None = None,
    frequency_penalty: float | None = None,
    presence_penalty: float | None = None,
    ignore_eos: bool | None = None,
    return_logprob: bool | None = None,
    logprob_start_len: int | None = None,
    top_logprobs_num: int | None = None,
    return_text_in_logprobs: bool | None = None,
    dtype: type | str | None = None,
    choices: Iterable[str] | None = None,
    choices_method: ChoiceMethod | str | None = None,
    regex: str | None = None,
    json_schema: Mapping[str, Any] | str | None = None,
    *,
    repetition_penalty: float | None = None,
    seed: int | None = None,
    logprobs: int | None = None,
    schema: Any = None,
    tools: Iterable[Tool] | None = None,
    num_calls: int | tuple[int, int] | Literal["any"] | None = None,
    grammar: str | PathLike[str] | None = None,
    whitespace: bool | None = None,
    close: bool | None = None,
    processors: Iterable[Processor] | None = None,
    speculative_tokens: int | None = None,
    adapter: str | None = None,
    max_new_tokens: int | None = None,
) -> Gen | Select:
    """Text that the model generates; `name` makes it a variable.

    What is not given comes from the run, and else from SamplingParams: max_tokens 128, temperature 0 (greedy). n: how
    many samples; the variable is a list of them, and the prompt goes on with the first. dtype: int, float or bool turn
    the text into a value, which may fail with an OutputError. choices: the same as `select`. regex, json_schema,
    grammar (Lark): what the text must match. schema: a type; the text is JSON of one, the value the decoded object.
    tools: the text is JSON of a call of one of them, the value the call, which call_tools takes; num_calls: a list of
    so many calls (a number, the least and the most, or "any", up to 8). whitespace: JSON may hold white space. close: a
    text that max_tokens cuts off is ended in the shortest way that matches, instead of an OutputError. processors,
    speculative_tokens: see SamplingParams. adapter: the name of a LoRA adapter of the backend. max_new_tokens,
    return_logprob and top_logprobs_num are SGLang's words for max_tokens and logprobs; the order of the arguments is
    SGLang's too.
    """
    given = dict(locals())
    del given["name"]
    return build_gen(name, given, _caller())


@primitive("gen_int")
def gen_int(name: str | None = None, max_tokens: int | None = None, **params: Any) -> Gen | Select:
    """`gen` of a whole number."""
    return build_gen(name, params | {"max_tokens": max_tokens, "dtype": int}, _caller())


@primitive("gen_string")
def gen_string(name: str | None = None, max_tokens: int | None = None, **params: Any) -> Gen | Select:
    """`gen` of text, said so."""
    return build_gen(name, params | {"max_tokens": max_tokens, "dtype": str}, _caller())


@primitive("select")
def select(
    name: str | None = None,
    choices: Iterable[str] | None = None,
    temperature: float = 0.0,
    choices_method: ChoiceMethod | str = token_length_normalized,
) -> Select:
    """The choice that the model finds most likely, by the mean log-probability of its tokens.

    choices_method: another way to choose, see runtime/choices.py. temperature: taken for SGLang's sake, and changes
    nothing, because log-probabilities are those at temperature 1.
    """
    return build_select(name, choices, choices_method, _caller())


@primitive("score")
def score(name: str, texts: str | Iterable[str]) -> Score:
    """The log-probability of a text after the prompt (a list of them for a list of texts) as the variable `name`.

    Appends nothing. The log-probability is the sum over the text's tokens; `get_meta_info(name)` has each of them.
    """
    return build_score(name, texts, _caller())


@primitive("image")
def image(source: Any) -> Media:
    """An image: a path, a URL (http, https or data), bytes, or an image of PIL. A file is read at once."""
    return build_image(source, _caller())


@primitive("video")
def video(path: Any, num_frames: int) -> Media:
    """A video (a path, a URL or bytes), of which `num_frames` frames are looked at."""
    return build_video(path, num_frames, _caller())


@primitive("system")
def system(body: object = "", *, tools: Iterable[Tool] | None = None) -> Sequence:
    """A system message. tools: those that a conversation's first message tells of, as the chat template does it."""
    return role_message("system", body, tools)


@primitive("user")
def user(body: object = "", *, tools: Iterable[Tool] | None = None) -> Sequence:
    """A user message. tools: as for `system`, where there is none."""
    return role_message("user", body, tools)


@primitive("assistant")
def assistant(body: object = "") -> Sequence:
    """An assistant message."""
    return role_message("assistant", body)


@primitive("system_begin")
def system_begin() -> RoleMark:
    """The beginning of a system message."""
    return RoleMark("system", "begin")


@primitive("system_end")
def system_end() -> RoleMark:
    """The end of a system message."""
    return RoleMark("system", "end")


@primitive("user_begin")
def user_begin() -> RoleMark:
    """The beginning of a user message."""
    return RoleMark("user", "begin")


@primitive("user_end")
def user_end() -> RoleMark:
    """The end of a user message."""
    return RoleMark("user", "end")


@primitive("assistant_begin")
def assistant_begin() -> RoleMark:
    """The beginning of an assistant message."""
    return RoleMark("assistant", "begin")


@primitive("assistant_end")
def assistant_end() -> RoleMark:
    """The end of an assistant message."""
    return RoleMark("assistant", "end")


def separate_reasoning(expr: Expression | str, model_type: str | None = None) -> Reasoned:
    """An expression whose generations think first: of each `x` only the answer is appended.

    `x` is the answer and `x_reasoning_content` what was thought. model_type says how the model marks its thoughts, as
    "qwen3" or "deepseek-r1"; None is in `<think>` tags. Raises UsageError that lists the types.
    """
    if not isinstance(expr, Expression | str):
        raise not_content(expr)
    return Reasoned(expr, marks_of(model_type))


def _caller() -> Spot:
    """Where the caller of the primitive stands."""
    frame = sys._getframe(2)
    return Spot(frame.f_code, frame.f_lasti)
