"""Keeps the figures of the workloads as they come, in a file that a later run can go on from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Runs = dict[str, list[list[dict[str, Any]]]]


class Store:
    """The figures: for each workload its rounds, each a list of entries, one for a configuration.

    about: the machine and the settings. Raises SystemExit where a file that is to be resumed has other settings.
    """

    def __init__(self, path: str | None, settings: dict[str, str], machine: dict[str, Any], *, resume: bool) -> None:
        self.runs: Runs = {}
        self.about = machine | settings
        self._path = None if path is None else Path(path)
        if resume:
            self._read(settings)

    def _read(self, settings: dict[str, str]) -> None:
        if self._path is None:
            raise SystemExit("--resume needs --json: the file that it goes on from")
        if not self._path.exists():
            return
        content = json.loads(self._path.read_text())
        known = {name: content["machine"].get(name) for name in settings}
        if known != settings:
            raise SystemExit(f"{self._path} was measured with {known}, not {settings}: give another --json")
        self.runs, self.about = content["runs"], content["machine"]

    def has(self, workload: str, turn: int, config: str) -> bool:
        """Whether a configuration of a round is there."""
        rounds = self.runs.get(workload, [])
        return turn < len(rounds) and any(entry["config"] == config for entry in rounds[turn])

    def add(self, workload: str, turn: int, entry: dict[str, Any]) -> None:
        """Keep an entry, on disk too."""
        rounds = self.runs.setdefault(workload, [])
        while len(rounds) <= turn:
            rounds.append([])
        rounds[turn].append(entry)
        if self._path is not None:
            partial = self._path.with_suffix(".partial")
            partial.write_text(json.dumps({"machine": self.about, "runs": self.runs}) + "\n")
            partial.replace(self._path)
