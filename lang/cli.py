"""The `ramify` command: run, explain, check and compile programs in files, or work with them in the REPL.

Exit codes: 0; 1 when user code raised or rows failed; 2 for an error that ramify reports; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NoReturn

from .. import __version__
from ..ir.errors import UsageError, nearest
from .failures import describe, is_of_stdout, wants_debug

# Commands live in modules of their own, which are imported when they are called for.
_COMMANDS = {
    "run": ("run_command", "run_command", "run a program, once or over rows of data"),
    "check": ("compile_command", "check_command", "compile every program of a file and say what became of it"),
    "compile": ("compile_command", "compile_command", "write the IR of a program"),
    "explain": ("explain_command", "explain_command", "predict what a program costs over rows of data, line by line"),
    "trace": ("picture_commands", "trace_command", "run a program and draw when what ran"),
    "tree": ("picture_commands", "tree_command", "run a program and draw the tree of its prompts"),
    "recording": ("recording_command", "recording_command", "say what a recording holds"),
    "serve": ("serve_command", "serve_command", "serve a model to OpenAI's clients, and run programs beside it"),
    "repl": ("repl", "repl_command", "work with programs at a prompt"),
}
_DISABLE = "leave this pass of the compiler out; may be given several times"
_DEBUG = "show errors with every frame (or set RAMIFY_DEBUG=1)"
_TARGET = "a Python file, or a package's folder; with several programs, FILE:PROGRAM"
_RUN_TARGET = f"{_TARGET}; or a saved program (see --trust)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _prepare_streams()
    code, error = _outcome(words)
    unwritten = _flush_stdout()
    if isinstance(error, OSError) and is_of_stdout(error):
        unwritten = error
    if isinstance(error, KeyboardInterrupt):
        print(str(error) or "interrupted", file=sys.stderr)
    elif error is not None and error is not unwritten:
        print(describe(error, debug=wants_debug() or "--debug" in words), file=sys.stderr)
    if unwritten is not None and not isinstance(unwritten, BrokenPipeError):  # whoever closed a pipe knows it
        print(f"error: stdout cannot be written: {unwritten.strerror}", file=sys.stderr)
    return code if unwritten is None else code or 1


def _prepare_streams() -> None:
    if sys.stdout is None:  # it is closed
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a text that the terminal's encoding lacks is no reason to fail
            stream.reconfigure(errors="backslashreplace")


def _outcome(words: list[str]) -> tuple[int, BaseException | None]:
    """Do what they say; gives the exit code, and what was raised."""
    try:
        given = parse_command(words)
        return _command(given.command)(given), None
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            raise  # a message, which Python prints
        return end.code or 0, None
    except KeyboardInterrupt as interrupt:
        return 130, interrupt
    except Exception as error:
        from .run_command import exit_code

        return exit_code(error), error


def _flush_stdout() -> OSError | None:
    """Write what stdout still holds. What cannot be written is dropped: Python would complain again at its end."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error
    return None


def _command(name: str) -> Callable[[argparse.Namespace], int]:
    module, function, _ = _COMMANDS[name]
    return getattr(import_module(f".{module}", __package__), function)  # type: ignore[no-any-return]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise UsageError instead of ending the process."""
        raise UsageError(message, help=f"see {self.prog} --help")


def parse_command(words: Sequence[str]) -> argparse.Namespace:
    """The command line's meaning. Raises UsageError, which names what was probably meant."""
    parser, commands = _parsers()
    if words and not words[0].startswith("-") and words[0] not in commands:
        raise UsageError(f"there is no command {words[0]!r}", help=nearest(words[0], _COMMANDS, "the commands are"))
    given, extra = parser.parse_known_args(words)
    if extra:
        _refuse(extra[0], commands.get(given.command, parser))
    if given.command is None:
        raise UsageError("ramify needs a command", help=f"the commands are {', '.join(commands)}")
    given.words = words
    return given


def _refuse(word: str, parser: _Parser) -> NoReturn:
    command = parser.prog
    if not word.startswith("-"):
        raise UsageError(f"{command} does not know what to do with {word!r}", help=f"see {command} --help")
    option = word.partition("=")[0]
    raise UsageError(f"{command} has no option {option}", help=_near_option(option, parser))


def _near_option(option: str, parser: _Parser) -> str:
    import difflib

    known = {name.lstrip("-"): name for action in parser._actions for name in action.option_strings}
    near = difflib.get_close_matches(option.lstrip("-"), known, 1, 0.6)
    return f"did you mean {known[near[0]]}?" if near else f"its options are {', '.join(known.values())}"


def _parsers() -> tuple[_Parser, dict[str, _Parser]]:
    parser = _Parser(prog="ramify", description="Structured LM programs in Python.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"ramify {__version__}")
    parser.add_argument("--debug", action="store_true", help=_DEBUG)
    choices = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    commands = {}
    for name, (_, _, summary) in _COMMANDS.items():
        command = commands[name] = choices.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        command.add_argument("--debug", action="store_true", help=_DEBUG)
    _describe_run(commands["run"])
    _describe_compile(commands["compile"])
    _describe_check(commands["check"])
    _describe_explain(commands["explain"])
    _describe_trace(commands["trace"])
    _describe_pictured(commands["tree"], _RUN_TARGET)
    _describe_recording(commands["recording"])
    _describe_serve(commands["serve"])
    _describe_repl(commands["repl"])
    return parser, commands


def _describe_run(parser: _Parser) -> None:
    _describe_running(parser, _RUN_TARGET)
    add = parser.add_argument
    add("--out", metavar="FILE", help="where the rows' results go, as JSON lines")
    add("--resume", action="store_true", help="go on with a run over data that was stopped")
    add("--overwrite", action="store_true", help="replace the output of an earlier run")
    add("--cache", metavar="FILE", help="where a model in this process keeps computed prompts between runs")
    add("--cache-tokens", metavar="N", type=int, help="the most tokens to keep there: those used last")
    add("--kv-tokens", metavar="N", type=int, help="the most tokens of KV that a model in this process keeps")
    add("--host-kv-tokens", metavar="N", type=int, help="of how many tokens host memory keeps what that evicts")
    add(
        "--adapter",
        metavar="NAME=DIR",
        action="append",
        help="a LoRA adapter, which gen(adapter=NAME) uses; repeatable",
    )
    add("--on", metavar="URL", help="run it on a server (`ramify serve`), beside its KV cache")
    add("--api-key", metavar="KEY", help="with --on: the server's key, if it asks for one; @FILE reads it from a file")
    add(
        "--program-key", metavar="KEY", help="with --on: signs the program, which one with Python in it needs; or @FILE"
    )
    add("--record", metavar="FILE", help="write every answer of the model and of tools to a new file")
    add("--partial", action="store_true", help="with --replay: ask anew for what is not in the file")
    add("--json", action="store_true", help="print one JSON object and nothing else")
    add("--quiet", action="store_true", help="print the value only; no progress")


def _describe_compile(parser: _Parser) -> None:
    add = parser.add_argument
    add("target", metavar="FILE[:PROGRAM]", help=_TARGET)
    add("--emit", choices=["ir", "bin"], default="ir", help="the textual form (the default) or the binary one")
    add("--after", metavar="PASS", help="stop after this pass; `frontend` stops before the first")
    add("--disable", metavar="PASS", action="append", default=[], help=_DISABLE)
    add("--timing", action="store_true", help="say on stderr what each pass took")
    add("-o", "--output", metavar="FILE", help="where to write it")


def _describe_check(parser: _Parser) -> None:
    parser.add_argument("target", metavar="FILE[:PROGRAM]", help="a Python file")
    parser.add_argument(
        "--backend",
        metavar="MODEL",
        help="also say what this model's server would refuse (openai:NAME, vllm:NAME ...)",
    )


def _describe_explain(parser: _Parser) -> None:
    _describe_program(parser, _RUN_TARGET, "predict for each row: JSON lines, or a JSON list")
    add = parser.add_argument
    add("--actual", action="store_true", help="also run it, and show what was measured beside what was predicted")
    add("--run-host", action="store_true", help="run all of the program's own code in the prediction, tools included")
    add("--no-passes", action="store_true", help="do not tell what each pass of the compiler saves")
    add("--html", metavar="FILE", help="also write a page with the table, the prefix tree, the IR and the source")
    add("--json", action="store_true", help="print one JSON object and nothing else")


def _describe_trace(parser: _Parser) -> None:
    _describe_pictured(parser, f"{_RUN_TARGET}; or a recording")
    parser.add_argument("--perfetto", metavar="FILE", help="Chrome's trace format, for ui.perfetto.dev")


def _describe_pictured(parser: _Parser, target: str) -> None:
    """What the commands that draw a run have in common. target: what is said of it."""
    _describe_running(parser, target)
    add = parser.add_argument
    add("--quiet", action="store_true", help="do not show the run as it goes")
    add("--html", metavar="FILE", help="a page that needs nothing from elsewhere")
    add("--svg", metavar="FILE", help="a drawing that stands alone")


def _describe_running(parser: _Parser, target: str) -> None:
    """What the commands that run a program have in common."""
    _describe_program(parser, target, "run once for each row: JSON lines, or a JSON list")
    add = parser.add_argument
    add("--in-flight", metavar="N", type=int, default=256, help="rows at once; with fewer, the first finish sooner")
    add("--eager", action="store_true", help="run the Python function itself instead of its compiled form")
    add("--replay", metavar="FILE", help="take every answer from that file; no model is loaded, no tool is called")


def _describe_program(parser: _Parser, target: str, rows: str) -> None:
    """What the commands that run a program, or predict a run, have in common. rows: what is done with --data."""
    add = parser.add_argument
    add("target", metavar="FILE[:PROGRAM]", help=target)
    add("--arg", metavar="NAME=VALUE", action="append", default=[],
        help="an argument of the program: JSON, or a text; NAME=@FILE reads a file")  # fmt: skip
    add("--data", metavar="FILE", help=rows)
    _describe_model(parser)
    add("--trust", action="store_true", help="run the host code that a saved program holds")
    add("--disable", metavar="PASS", action="append", default=[], help=_DISABLE)
    add("--temperature", metavar="X", type=float, help="0 is greedy; for generations that do not say it themselves")
    add("--max-tokens", metavar="N", type=int, help="the longest generation; likewise")
    add("--seed", metavar="N", type=int, help="the seed of sampling; likewise")


def _describe_recording(parser: _Parser) -> None:
    parser.add_argument("file", metavar="FILE", help="what `ramify run --record` or rf.record wrote")
    parser.add_argument("--jsonl", action="store_true", help="print all of it as JSON, one event a line")


def _describe_serve(parser: _Parser) -> None:
    add = parser.add_argument
    _describe_model(parser)
    add("--name", metavar="NAME", help="what clients call the model; else its directory's name")
    add("--host", metavar="HOST", help="where to listen (127.0.0.1); 0.0.0.0 is on all of the machine's addresses")
    add("--port", metavar="N", type=int, help="the port (8000); 0 is one that is free")
    add("--api-key", metavar="KEY", dest="api_keys", action="append",
        help="ask for this key, or one of several; @FILE reads it from a file")  # fmt: skip
    add("--program-key", metavar="KEY", dest="program_keys", action="append",
        help="run programs that hold Python if they are signed with this key; @FILE reads it from a file")  # fmt: skip
    add("--max-requests", metavar="N", type=int, help="the most requests at a time, queue included (1024)")
    add("--max-connections", metavar="N", type=int, help="the most clients at a time (4096)")
    add("--max-body", metavar="BYTES", type=int, help="the largest body of a request (16 MiB)")
    add("--max-tokens", metavar="N", type=int, help="the longest chat answer where a request does not say it (2048)")
    add("--drain-seconds", metavar="X", type=float, help="how long to finish what runs when it ends (30)")
    add("--kv-tokens", metavar="N", type=int, help="the most tokens of KV that are kept")
    add("--host-kv-tokens", metavar="N", type=int, help="of how many tokens host memory keeps what that evicts")


def _describe_repl(parser: _Parser) -> None:
    parser.add_argument("target", metavar="FILE", nargs="?", help="a Python file whose names are there from the start")
    parser.add_argument("--script", metavar="FILE", help="take the inputs from a file, show each behind a prompt")
    parser.add_argument("--keep-going", action="store_true", help="do not stop a script at the first error")
    _describe_model(parser)


def _describe_model(parser: _Parser) -> None:
    parser.add_argument(
        "--model",
        help="a model directory, or a name on the Hugging Face Hub, either with `:int8` for rounded weights; `tiny` is "
        "the embedded model, the default; docs/backends.md has more",
    )


if __name__ == "__main__":
    sys.exit(main())
