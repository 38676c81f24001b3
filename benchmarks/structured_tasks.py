"""What is generated: descriptions of characters and judgements of essays, as JSON of a schema each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Task:
    """A workload: prompts in the text of the embedded model's chat template, and the schema of the answers."""

    name: str
    schema: dict[str, Any]
    prompts: list[str]


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _text(longest: int) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^[A-Za-z ]{{1,{longest}}}$"}


CHARACTER = _object(
    name=_text(24),
    house={"enum": ["Gryffindor", "Slytherin", "Ravenclaw", "Hufflepuff"]},
    blood_status={"enum": ["Pure-blood", "Half-blood", "Muggle-born"]},
    occupation={"enum": ["student", "teacher", "auror", "ministry of magic", "death eater", "order of the phoenix"]},
    wand=_object(wood=_text(12), core=_text(16), length={"type": "integer", "minimum": 9, "maximum": 14}),
    alive={"enum": ["alive", "deceased"]},
    patronus=_text(16),
    bogart=_text(16),
)
DIMENSIONS = ("clarity", "originality", "evidence", "structure", "style")
JUDGEMENT = _object(
    **{name: _object(score={"type": "integer", "minimum": 1, "maximum": 10}, reason=_text(40)) for name in DIMENSIONS},
    grade={"enum": ["A", "A-", "B+", "B", "B-", "C", "D"]},
)


def tasks(data: Path, batch: int) -> list[Task]:
    """Both workloads with as many prompts as a batch has."""
    names = (data / "workloads" / "json_jump_forward" / "dataset.txt").read_text().split("\n")
    lines = (data / "workloads" / "llm_judge" / "articles.jsonl").read_text().splitlines()
    people = [name.strip() for name in names if name.strip()]
    essays = [json.loads(line)[:600] for line in lines]
    return [
        Task("json", CHARACTER, [_chat(f"Describe the character {each}.") for each in islice(cycle(people), batch)]),
        Task("llm_judge", JUDGEMENT, [_chat(f"Judge this essay:\n{each}") for each in islice(cycle(essays), batch)]),
    ]


def _chat(text: str) -> str:
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
