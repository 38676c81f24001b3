"""`ramify run`: one run, shown as it goes."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import IO, Any

from ..ir.errors import RamifyError, UsageError
from ..runtime.context import Usage
from .loading import is_saved, load_file, load_saved, split_target
from .options import approximation, default_backend
from .parameters import parse_arguments
from .plain import to_json
from .program import Program
from .records import run_record
from .rendering import View, open_view, usage_line, value_text
from .run import Run


def run_command(given: argparse.Namespace) -> int:
    """Run the program that is named, once or over the rows of --data. Returns the exit code."""
    _check_options(given)
    out = sys.stdout
    only_json = given.json or (given.data is not None and given.out is None)
    # What the user's code prints must not mix with JSON.
    with contextlib.redirect_stdout(sys.stderr) if only_json else contextlib.nullcontext():
        path, name = split_target(given.target)
        loaded = load_saved(path, trust=given.trust) if is_saved(path) else load_file(path)
        program = configured(loaded.runnable(name), given)
        arguments = parse_arguments(program, given.arg)
        _open_with_room(program, given)
        with _cache(program, given):
            if given.data is not None:
                from .data_command import run_data

                return run_data(loaded, program, arguments, given, out)
            return _run_once(program, arguments, given, out)


def _check_options(given: argparse.Namespace) -> None:
    if given.data is None and (given.out or given.resume or given.overwrite):
        raise UsageError("--out, --resume and --overwrite belong to a run over --data")
    if given.out is None and (given.resume or given.overwrite):
        raise UsageError("--resume and --overwrite need --out, the file that the rows are in")
    if given.cache is None and given.cache_tokens is not None:
        raise UsageError("--cache-tokens needs --cache, the file of the cache")
    _check_place(given)
    if given.partial and given.replay is None:
        raise UsageError("--partial needs --replay, the recording of which a part is played")
    if given.replay is not None and not given.partial:
        room = {"--cache": given.cache, "--kv-tokens": given.kv_tokens, "--host-kv-tokens": given.host_kv_tokens}
        for option, value in (room | {"--adapter": given.adapter}).items():
            if value is not None:
                raise UsageError(f"{option} is for a model that computes, and --replay loads none")
    if given.resume and given.overwrite:
        raise UsageError("--resume goes on with an output and --overwrite replaces it: give one of them")


_OF_THIS_PROCESS = (
    "data", "model", "cache", "kv_tokens", "host_kv_tokens", "eager", "record", "replay", "partial",
)  # fmt: skip


def _check_place(given: argparse.Namespace) -> None:
    """Raises UsageError for what does not go with --on, or goes only with it."""
    if given.on is None and (given.api_key or given.program_key):
        raise UsageError("--api-key and --program-key belong to --on, a run on a server")
    for name in _OF_THIS_PROCESS if given.on is not None else ():
        if getattr(given, name):
            raise UsageError(f"--{name.replace('_', '-')} is for runs in this process, and --on runs on a server")


def _cache(program: Program, given: argparse.Namespace) -> contextlib.AbstractContextManager[None]:
    """What keeps computed prefixes in the file of --cache, if one is named."""
    if given.cache is None:
        return contextlib.nullcontext()
    from .cache_file import kept_in

    return kept_in(given.cache, program.run_options.open_backend(), given.cache_tokens)


def _open_with_room(program: Program, given: argparse.Namespace) -> None:
    """Opens the model with the room for KV that --kv-tokens and --host-kv-tokens say, and with the adapters."""
    if given.kv_tokens is None and given.host_kv_tokens is None and given.adapter is None:
        return
    from ..backends import open_local

    model = default_backend() if program.run_options.backend is None else program.run_options.backend
    if not isinstance(model, str | Path):
        raise UsageError(
            "--kv-tokens, --host-kv-tokens and --adapter belong to --model: the program brings its own backend"
        )
    adapters = _adapters(given.adapter or [])
    open_local(model, kv_tokens=given.kv_tokens, host_kv_tokens=given.host_kv_tokens or 0, adapters=adapters)


def _adapters(given: list[str]) -> dict[str, Path]:
    """Folders by name, from NAME=DIR."""
    adapters: dict[str, Path] = {}
    for each in given:
        name, equals, folder = each.partition("=")
        if not (name and equals and folder) or name in adapters:
            raise UsageError(f"--adapter {each!r} is not NAME=DIR, or its name was given before")
        adapters[name] = Path(folder).expanduser()
    return adapters


def configured(program: Program, given: argparse.Namespace) -> Program:
    """The program with the command line's model and sampling options."""
    options = {name: getattr(given, name) for name in ("temperature", "max_tokens", "seed")}
    options = {name: value for name, value in options.items() if value is not None}
    if given.model is not None:
        options["backend"] = given.model
    if given.disable:
        options["disable"] = given.disable
    for name in ("eager", "record", "replay", "partial"):
        if value := getattr(given, name, None):
            options[name] = value
    return program.options(**options)


def exit_code(error: BaseException) -> int:
    """2 for an error that ramify reports, 1 for one that the user's code raised."""
    return 2 if isinstance(error, RamifyError) else 1


def summary(usage: Usage, program: Program) -> str:
    """What a run used, whether its model is approximate, and whether it was played."""
    options = program.run_options
    replayed = "" if options.replay is None else f"replayed from {options.replay}"
    return "; ".join(filter(None, [usage_line(usage), approximation(options), replayed]))


def _run_there(program: Program, arguments: dict[str, Any], given: argparse.Namespace, view: View | None) -> Run:
    """Run it on the server of --on."""
    from .serving.client import run_on
    from .serving.keys import key_of

    options = {name: getattr(given, name) for name in ("temperature", "max_tokens", "seed")}
    return run_on(
        given.on,
        program.compile(),
        arguments,
        api_key=given.api_key and key_of(given.api_key),
        program_key=given.program_key and key_of(given.program_key),
        sampling={name: value for name, value in options.items() if value is not None},
        stream=view,
    )


def _run_once(program: Program, arguments: dict[str, Any], given: argparse.Namespace, out: IO[str]) -> int:
    program.signature.bind((), arguments)
    view = None if given.json or given.quiet else open_view(out)
    try:
        run = (
            _run_there(program, arguments, given, view) if given.on else program.run_batch([arguments], stream=view)[0]
        )
    finally:
        if view is not None:
            view.close()
    if given.json:
        print(to_json(run_record(run)).decode(), file=out)
        return 0 if run.error is None else exit_code(run.error)
    if run.error is not None:
        raise run.error
    if run.value is not None:
        print(value_text(run.value) if given.quiet else f"value: {value_text(run.value)}", file=out)
    if not given.quiet:
        print(summary(run.usage, program), file=out)
    return 0
