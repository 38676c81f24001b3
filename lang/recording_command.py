"""`ramify recording`: what a recording holds, in short or as JSON lines."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def recording_command(given: argparse.Namespace) -> int:
    """Print the runs of a recording, or with --jsonl every event. Returns the exit code."""
    from ..backends.replay.recording import Recording, json_lines, summary

    path = Path(given.file)
    if given.jsonl:
        for line in json_lines(path):
            sys.stdout.write(f"{line.decode(errors='backslashreplace')}\n")
        return 0
    recording = Recording(path)
    for told in summary(recording):
        print(told)
    if not recording.runs:
        print("no run")
    return 0
