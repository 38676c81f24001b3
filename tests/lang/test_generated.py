"""I1 and I2 on generated programs: eager and compiled runs are the same, whatever passes run and in whatever order.

RAMIFY_GENERATED=N runs N programs instead of the default; RAMIFY_GENERATED_FROM=SEED begins elsewhere. A program that
fails is shown as source, made as small as it goes.
"""

from __future__ import annotations

import ast
import copy
import linecache
import os
import re
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from types import FunctionType
from typing import Any

import pytest
from ramify.backends import open_backend
from ramify.backends.scripted import ScriptedBackend, hash_reply
from ramify.compiler.frontend import Lowered, compile_function
from ramify.compiler.pipeline import PIPELINE, Pass
from ramify.ir.core import clone
from ramify.ir.errors import BackendError, Cancelled, RamifyError
from ramify.ir.verify import verify
from ramify.lang.execution import is_async
from ramify.lang.state import ForkGroup, State
from ramify.runtime.backend import Backend
from ramify.runtime.interpreter import Interpreter
from ramify.runtime.request import SamplingParams

from . import generated, generated_chains
from .comparing import Hearing, Linked, comparable, outcome, run_once
from .generated import GLOBALS
from .minimize import minimize

COUNT = int(os.environ.get("RAMIFY_GENERATED", "2000"))
FROM = int(os.environ.get("RAMIFY_GENERATED_FROM", "0"))
BATCH = 100
ON_THE_MODEL = 1_000_000  # seeds from here on are those of programs for the embedded model
ARGUMENTS = {"log": [], "words": ["red", "é", ""], "n": 2, "flag": True}


def load(source: str) -> FunctionType:
    """The function `main` of a module's source, which can be looked up as a file's can."""
    name = "<generated>"
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    space = dict(GLOBALS)
    exec(compile(source, name, "exec"), space)
    return space["main"]  # type: ignore[no-any-return]


def is_own(file: str) -> bool:
    return file == "<generated>" or file.endswith("/generated.py")


def answering(text: str, params: SamplingParams) -> str:
    """The usual reply, whatever the addresses of objects in a prompt are; what was asked for, and numbers behind #."""
    number = zlib.crc32(comparable(text).encode())
    if params.constraint is not None:
        return "ab" if params.constraint.kind == "regex" else f'{{"name":"n","count":{number % 9}}}'
    return str(number % 90) if text.endswith("#") else hash_reply(comparable(text), params)


def failing(text: str, params: SamplingParams) -> str:
    """The usual reply; one of some prompts fails."""
    if zlib.crc32(comparable(text).encode()) % 7 == 0:
        raise BackendError(f"no answer to {text[-8:]!r}")
    return answering(text, params)


def scripted(seed: int) -> ScriptedBackend:
    """The backend for a seed: every third one fails now and then. It is told what may come next."""
    return Hearing(failing if seed % 3 == 2 else answering)


def run(function: FunctionType, compiled: Linked | None, seed: int, backend: Backend) -> dict[str, Any]:
    arguments = copy.deepcopy(ARGUMENTS) | {"flag": seed % 2 == 0, "n": seed % 3}
    sampling = SamplingParams(temperature=0.8, seed=seed) if seed % 2 else SamplingParams(seed=seed)
    made = run_once(function, compiled, arguments, backend, sampling)
    requests = sorted(map(comparable, backend.requests)) if isinstance(backend, ScriptedBackend) else None
    has_cancelled = made.error is not None and any(isinstance(each.error, Cancelled) for each in made.trace)
    found = outcome(made, is_own) | {"log": comparable(arguments["log"]), "requests": requests}
    return found | {"has_cancelled": has_cancelled}


def link(lowered: Lowered, passes: Sequence[Pass]) -> Linked:
    """The program after these passes in this order."""
    module = clone(lowered.module)
    verify(module, after="frontend")
    for each in passes:
        each.run(module)
        verify(module, after=each.name)
    return Linked(Interpreter(module, lowered.python, State, ForkGroup), is_async(lowered.python[module.entry]))


def pipelines(seed: int) -> list[Sequence[Pass]]:
    """The whole pipeline, and (where runs are cheap) some of its passes in some order."""
    random = Random(seed)
    if seed >= ON_THE_MODEL:
        return [PIPELINE]
    return [PIPELINE, random.sample(PIPELINE, random.randint(0, len(PIPELINE)))]


def same(eager: dict[str, Any], compiled: dict[str, Any], source: str) -> bool:
    """Whether two runs agree, but for what compiled programs do not promise ("Eager is the meaning" in docs/design.md).

    Host code behind a read that fails may have run, as it need not wait for the value: the log goes on. More requests
    may have been sent than an eager run sends before it fails. What had arrived when a failure cancelled the rest is a
    matter of time. Of what cannot be appended, a compiled run names the line, and Python that of the sum or statement.
    """
    left, right = dict(eager), dict(compiled)
    if left.pop("has_cancelled") | right.pop("has_cancelled"):
        left |= _UNKNOWN
        right |= _UNKNOWN
    if left == right:
        return True
    if re.search(_LATE, left["message"], re.DOTALL):
        right["log"] = right["log"][: len(left["log"])]
    if left["error"] is not type(None):
        right["requests"] = _common(left["requests"], right["requests"])
    if issubclass(left["error"], RamifyError) or left["message"].startswith(
        "a prompt takes text and expressions, not "
    ):
        starts = statement_starts(source)
        left["line"], right["line"] = (_beginning(each["line"], starts) for each in (left, right))
    if sys.version_info < (3, 12):
        _as_in_later_versions(left, right)
    return left == right


_UNKNOWN: dict[str, Any] = {"text": None, "vars": None, "requests": None}

# What is said of a generation or a pure tool that has failed, which is known where its value is read.
_LATE = r"generated .*, which is no |^no answer to |^the prompt is empty$|^no a in |^shorten failed with "


def _common(some: list[str] | None, more: list[str] | None) -> list[str] | None:
    """What is in both lists, as often as in both."""
    return None if some is None else sorted((Counter(some) & Counter(more)).elements())


def _as_in_later_versions(left: dict[str, Any], right: dict[str, Any]) -> None:
    """Take off what Python 3.11 alone says of an unbound name.

    It reads a name in a comprehension from the scope around, which later versions and compiled programs do not have,
    and may tell the line of the assignment before, when it does both in one step.
    """
    free = re.fullmatch(r"cannot access free variable ('.*') where it is not .* in enclosing scope", left["message"])
    if free:
        local = f"cannot access local variable {free[1]} where it is not associated with a value"
        if right["error"] is UnboundLocalError and right["message"] == local:
            left |= {"error": UnboundLocalError, "message": local}
    if left["error"] is right["error"] is UnboundLocalError:
        left["line"] = right["line"]


def statement_starts(source: str) -> dict[int, int]:
    """For each line of a module the line on which its statement begins."""
    starts: dict[int, int] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            end = body[0].lineno - 1 if body else node.end_lineno or node.lineno
            starts.update(dict.fromkeys(range(node.lineno, end + 1), node.lineno))
    return starts


def _beginning(place: tuple[str, int] | None, starts: dict[int, int]) -> tuple[str, int] | None:
    return (place[0], starts.get(place[1], 0)) if place is not None and place[0] == "<generated>" else place


def difference(source: str, seed: int, open_: Callable[[int], Backend] = scripted) -> str | None:
    """How an eager and a compiled run of a program differ; None when they do not."""
    function = load(source)
    eager = run(function, None, seed, open_(seed))
    lowered = compile_function(function)
    for passes in pipelines(seed):
        compiled = run(function, link(lowered, passes), seed, open_(seed))
        if not same(eager, compiled, source):
            names = ", ".join(each.name for each in passes) or "none"
            return f"passes: {names}\n" + "\n".join(_differences(eager, compiled))
    return None


def _differences(eager: dict[str, Any], compiled: dict[str, Any]) -> list[str]:
    differing = [key for key in eager if eager[key] != compiled[key]]
    return [f"{key}:\n  eager    {eager[key]!r}\n  compiled {compiled[key]!r}" for key in differing]


def check(
    seed: int, open_: Callable[[int], Backend] = scripted, write: Callable[[int], str] = generated.source_of
) -> None:
    source = write(seed)
    found = failure(source, seed, open_)
    if found is not None:
        small = minimize(source, lambda text: "def main(" in text and kind(failure(text, seed, open_)) == kind(found))
        now = failure(small, seed, open_) or f"{found}\n(it does not fail every time)"
        pytest.fail(f"program {seed}\n{small}\n\n{now}", pytrace=False)


def failure(source: str, seed: int, open_: Callable[[int], Backend] = scripted) -> str | None:
    """What is wrong with the program's compiled runs, if anything."""
    try:
        return difference(source, seed, open_)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def kind(found: str | None) -> str:
    """What must stay the same of a failure while its program is made smaller."""
    lines = (found or "").split("\n")
    return lines[1] if lines[0].startswith("passes:") else lines[0].split(":")[0]


@pytest.mark.parametrize("first", range(FROM, FROM + COUNT, BATCH))
def test_eager_equals_compiled(first: int) -> None:
    for seed in range(first, min(first + BATCH, FROM + COUNT)):
        check(seed)


@pytest.mark.parametrize("first", range(FROM, FROM + COUNT // 5, BATCH))
def test_eager_equals_compiled_in_chains(first: int) -> None:
    for seed in range(first, min(first + BATCH, FROM + COUNT // 5)):
        check(seed, write=generated_chains.source_of)


def test_eager_equals_compiled_on_the_embedded_model() -> None:
    backend = open_backend("tiny")
    for seed in range(ON_THE_MODEL, ON_THE_MODEL + 100):
        check(seed, lambda _: backend)
