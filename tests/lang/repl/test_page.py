"""The transcripts of docs/repl.md: what is typed there writes what stands there."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import ramify as rf
from ramify.backends import open_backend
from ramify.lang.commands.table import Commands
from ramify.lang.options import set_default_backend
from ramify.lang.repl import BANNER, read_lines, run_script
from ramify.lang.session import Session

PAGE = Path(__file__).parents[3] / "docs" / "repl.md"
PROMPT = re.compile(r"(?:>>> |\.\.\.(?: |$)|\([^()]+:\d+\) )(.*)")
TURN = re.compile(r"(?:[\d.]+ )?(?:user|assistant): ")
# The page has the turns as a terminal shows them; elsewhere their labels are in brackets.
LABEL = re.compile(r"^\[([a-z\d. ]+)\] ")
# Times, what the machine has room for, and what the model was asked before in this process.
VARYING = [
    (re.compile(r"[\d.]+ m?s$"), "TIME"),
    (re.compile(r"room for [\d,]+$"), "room for ROOM"),
    (re.compile(r"^(memory .* of) [\d.]+ [MG]?B$"), r"\1 ROOM"),
    (re.compile(r"^(hit rate|evicted)  .*\d.*$"), r"\1  SO FAR"),
]


@dataclass
class Transcript:
    """A line of the shell that begins a session, and what is seen in it from then on."""

    command: str
    shown: list[str] = field(default_factory=list)

    def typed(self) -> list[str]:
        """What stands behind its prompts."""
        return [match[1] for line in self.shown if (match := PROMPT.match(line))]


def transcripts(page: str) -> list[Transcript]:
    """Those of a page: indented by four spaces. One goes on in the next block unless that begins another one."""
    found: list[Transcript] = []
    for line in page.splitlines():
        if line.startswith("    $ "):
            found.append(Transcript(line[6:]))
        elif line.startswith("    "):
            found[-1].shown.append(line[4:])
    return found


def alike(lines: list[str]) -> list[str]:
    """The lines without what may vary; turns that follow each other are sorted, since branches run at once."""
    same: list[str] = []
    turns: list[str] = []
    for line in lines:
        line = LABEL.sub(r"\1: ", line.rstrip())
        for pattern, instead in VARYING:
            line = pattern.sub(instead, line)
        if TURN.match(line):
            turns.append(line)
            continue
        same += [*sorted(turns), line]
        turns = []
    return same + sorted(turns)


def printed_by(command: str) -> list[str]:
    """The lines that a command's printf writes."""
    text = re.search(r"printf '(.*?)'", command)
    assert text is not None, f"this test does not know what to do with $ {command}"
    return text[1].encode().decode("unicode_escape").splitlines()


TRANSCRIPTS = transcripts(PAGE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda transcript: transcript.command[:24])
def test_a_transcript_is_what_is_seen(
    transcript: Transcript, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = transcript.shown
    commands = Commands(session)
    if model := re.fullmatch(r"ramify repl --model (\w+)", transcript.command):
        assert shown[0] == BANNER.format(version=rf.__version__)
        shown = shown[1:]
        open_backend("tiny").clear_cache()  # type: ignore[attr-defined]
        set_default_backend(model[1])
        run_script(transcript.typed(), session, commands, keeps_going=True)
    elif "--script" in transcript.command:
        assert run_script(printed_by(transcript.command), session, commands) == 1
    else:
        read_lines(printed_by(transcript.command), session, commands)
    assert isinstance(session.out, io.StringIO)
    assert alike(session.out.getvalue().splitlines()) == alike(shown)


def test_the_session_shows_the_commands_one_works_with() -> None:
    typed = {line.partition(" ")[0] for line in TRANSCRIPTS[0].typed()}
    named = ":tree :tokens :edit :diff :retry :step b back :record :replay :set :explain :cache :save"
    assert set(named.split()) <= typed
