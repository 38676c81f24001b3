"""A run made again with another outcome at one place: what does not depend on that is played from the run's recording.

A request is asked anew if its prompt or its parameters are others than they were, or if there was no such request; a
tool is called anew if it was not called with these arguments. So nothing is asked whose answer is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from ..ir.errors import UsageError, nearest
from ..runtime.expression import Score
from ..runtime.features import require
from ..runtime.generation import Generation
from ..runtime.replacing import said
from ..runtime.request import Done, SamplingParams
from ..runtime.toolcall import ToolCall
from .arguments import Arguments
from .identity import code_identity
from .nodes import Node, node_of
from .run import Origin, Run

if TYPE_CHECKING:
    from ..backends.replay.cassette import Cassette
    from ..backends.replay.edit import Anew, Value
    from ..backends.replay.track import RunTrack

_FIXED = ("n", "constraint", "close", "processors", "logprobs", "logprob_start_len", "return_text_in_logprobs")
RETRIED = tuple(each.name for each in fields(SamplingParams) if each.name not in _FIXED)


def edited(run: Run, wanted: int | str, new: Any) -> Run:
    """The run made again with another outcome of one node; its error, if it has one, stays in it. See Run.edit."""
    node = node_of(run, wanted)
    asked = node.asked
    if isinstance(asked, ToolCall):
        return _made_again(run, node, _tool_value(node, new))
    if isinstance(asked.expression, Score):
        raise UsageError(f"{node.label} is a score, and only generations, choices and tool calls can be edited")
    return _made_again(run, node, _answer(said(asked, new)[0], asked.done))


def retried(run: Run, wanted: int | str, params: Mapping[str, Any]) -> Run:
    """The run made again with one node asked once more, likewise. See Run.retry."""
    from ..backends.replay.edit import Anew

    node = node_of(run, wanted)
    asked = node.asked
    if params and (not isinstance(asked, Generation) or asked.params is None):
        raise UsageError(f"{node.label} is no generation, so it takes no {next(iter(params))}")
    if unknown := next((name for name in params if name not in RETRIED), None):
        raise UsageError(f"a retry takes no {unknown}", help=nearest(unknown, RETRIED, "it takes"))
    if isinstance(asked, Generation) and asked.params is not None:
        params = _other_params(asked, asked.params, params)
    return _made_again(run, node, Anew(params))


def _other_params(call: Generation, own: SamplingParams, params: Mapping[str, Any]) -> Mapping[str, Any]:
    """What differs from a generation's own parameters. Raises RequestError, TypeError, Unsupported for wrong ones."""
    lists = ("stop", "stop_regex", "stop_token_ids")
    made: dict[str, Any] = {name: _as_tuple(value) if name in lists else value for name, value in params.items()}
    changed = replace(own, **made)
    changed.check()
    require(call.context.backend, call.expression, changed, call.where)
    # With the seed of its run it would draw the same.
    return made if "seed" in made or own.seed is None else made | {"seed": None}


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return (value,) if isinstance(value, str | int) else tuple(value)


def _made_again(run: Run, node: Node, by: Done | Value | Anew) -> Run:
    from ..backends.replay.cassette import Cassette
    from ..backends.replay.edit import Edit

    origin, track = _origin(run)
    event = track.event_of(node.asked)
    recorder: Any = track.cassette.recorder
    if event is None or recorder is None:
        raise UsageError(
            "the run was played and not recorded, so it cannot be made again from itself",
            help="record it as well: program.run(..., replay=FILE, record=True)",
        )
    recording = recorder.recording()
    recorded = recording.runs.get(track.number)
    if recorded is None or all(each.id != event for each in (*recorded.answers, *recorded.calls)):
        raise UsageError(f"{node.label} was never asked: the run ended before", help="edit what stands before it")
    edit = Edit(track.number, event, by, node.label, node.span)
    cassette = Cassette(code_identity, replay=recording, record=_recorder(), edit=edit)
    backend = run.state.prompt.context.backend if track.reuse is None else origin.options.backend
    options = replace(
        origin.options, backend=backend, stream=None, record=None, replay=None, partial=False, cassette=cassette
    )
    return origin.program.finish(_arguments(origin, track), options)


def _origin(run: Run) -> tuple[Origin, RunTrack]:
    if run.origin is None:
        run.state  # noqa: B018 (raises for a run of another process)
        raise UsageError(
            "the run was not recorded (or it was stepped), so it cannot be made again",
            help="run the program with record=True, which keeps its answers in memory, or with record=FILE",
        )
    track: Any = run.state.prompt.context.track
    return run.origin, track


def _recorder() -> Any:
    """Where the new run is recorded: where others are now, else in memory."""
    from .cassettes import in_use

    around: Cassette | None = in_use()
    return around.recorder if around is not None and around.recorder is not None else True


def _arguments(origin: Origin, track: RunTrack) -> Arguments:
    """The run's arguments as they were when it began: the program may have changed them since."""
    from ..backends.replay.values import Unknown, decode, told

    given = origin.arguments
    values = [*given.before, *given.values]
    now = [told(each) for each in values]
    if now == list(track.arguments):
        return given
    for number, ((data, is_whole), known) in enumerate(zip(track.arguments, now, strict=True)):
        if known != (data, is_whole):
            try:
                if not is_whole:
                    raise Unknown("it holds what is no data")
                values[number] = decode(data)
            except Unknown as error:
                raise UsageError(
                    f"an argument of the run was changed since it began, and cannot be made what it was: {error}",
                    help="let the program change a copy",
                ) from None
    num_before = len(given.before)
    return origin.program.signature.again(values[:num_before], values[num_before:])


def _answer(text: str, done: Done | None) -> Done:
    """The answer of a request that was done; nothing is computed for it."""
    num_tokens = 0 if done is None else done.prompt_tokens
    return Done(text, (), "stop", tail=text, prompt_tokens=num_tokens, cached_tokens=num_tokens)


def _tool_value(node: Node, new: Any) -> Value:
    from ..backends.replay.edit import Value
    from ..backends.replay.values import Unencodable, encode

    try:
        return Value(encode(new))
    except Unencodable as error:
        raise UsageError(f"{node.label} is given {error}, which no recording can hold") from None
