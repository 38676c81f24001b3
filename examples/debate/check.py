"""Whether debates are held as published ones were: recorded turns go in, and every message has to come out again."""

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from .program import debate
from .recorded import Log, load_logs, scripted

__all__ = ["Comparison", "check", "compare"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What became of a log's messages. difference: the first one, in words; empty if all are equal."""

    log: Log
    equal: int
    total: int
    difference: str


def compare(log: Log, templates: Path) -> Comparison:
    """Hold a recorded debate again, its recorded turns for the model's, and compare all messages of all roles."""
    run = debate.options(max_tokens=100_000).run_batch(
        [{"question": log.question, "templates": str(templates), "variant": "log"}], backend=scripted(log)
    )[0]
    if run.error is not None:
        return Comparison(log, 0, sum(map(len, log.players.values())), f"it failed: {run.error}")
    held = run.vars["players"]
    differences = []
    total = 0
    for role in log.players | held:
        for number, (was, now) in enumerate(zip_longest(log.players.get(role, []), held.get(role, []))):
            total += 1
            if was != now:
                differences.append(f"{role}, message {number}: was {_brief(was)}, is {_brief(now)}")
    return Comparison(log, total - len(differences), total, differences[0] if differences else "")


def check(logs: Path, templates: Path) -> bool:
    """Compare all logs of a folder, print what came out, and say whether everything is equal."""
    compared = [compare(log, templates) for log in load_logs(logs)]
    for each in compared:
        if each.difference:
            print(f"{each.log.name}: {each.equal} of {each.total} messages equal; {each.difference}")
    equal, total = sum(each.equal for each in compared), sum(each.total for each in compared)
    whole = sum(each.equal == each.total for each in compared)
    print(f"{equal} of {total} messages are equal; {whole} of {len(compared)} debates are equal in all messages")
    return equal == total


def _brief(message: dict[str, str] | None) -> str:
    return "absent" if message is None else f"{message['role']} {message['content'][:60]!r}"
