"""The workloads of the SGLang paper (arXiv 2312.07104, section 6) and a few more, as ramify programs with their rows.

Prompts have the shapes that the paper's have: how long, what is shared among rows, among branches and among turns. What
is generated is not looked at where that would change the shape (weights may be random), so lengths are fixed by
max_tokens and ignore_eos. Articles, agent traces and topics come from a data folder; the other texts are made up here.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ramify as rf


@dataclass(frozen=True)
class Workload:
    """A program and its rows. by_hand: the same program written with forks, where `program` is a sequential loop."""

    name: str
    program: rf.Program
    rows: list[dict[str, Any]]
    by_hand: rf.Program | None = None


_NOUNS = [
    "river",
    "bridge",
    "harbour",
    "garden",
    "window",
    "letter",
    "engine",
    "candle",
    "mountain",
    "kitchen",
    "library",
    "station",
    "painter",
    "teacher",
    "sailor",
    "farmer",
    "doctor",
    "singer",
    "market",
    "forest",
    "island",
    "castle",
    "tunnel",
    "valley",
    "meadow",
    "mirror",
    "blanket",
    "hammer",
    "basket",
    "ladder",
    "bottle",
    "carpet",
    "drawer",
    "feather",
    "glacier",
    "helmet",
    "insect",
    "jacket",
    "kettle",
    "lantern",
]
_VERBS = [
    "carries",
    "finds",
    "repairs",
    "paints",
    "follows",
    "watches",
    "opens",
    "borrows",
    "returns",
    "measures",
    "describes",
    "remembers",
]


def prose(seed: int, num_words: int) -> str:
    """English-looking sentences of about so many words."""
    rng = random.Random(seed)
    words: list[str] = []
    while len(words) < num_words:
        noun, verb, thing = rng.choice(_NOUNS), rng.choice(_VERBS), rng.choice(_NOUNS)
        words += f"The {noun} {verb} the {thing} near the old {rng.choice(_NOUNS)}.".split()
    return " ".join(words[:num_words])


def text(name: str, length: int) -> Any:
    """A gen of exactly `length` tokens."""
    return rf.gen(name, max_tokens=length, ignore_eos=True)


# Few-shot questions.


@rf.program
def mmlu(s, subject, shots, question):
    s += f"The following are multiple choice questions about {subject}.\n\n"
    for shot, answer in shots:
        s += f"{shot}\nAnswer: {answer}\n\n"
    s += question + "\nAnswer:"
    s += text("answer", 1)


def mmlu_rows(subjects: int, questions: int) -> list[dict[str, Any]]:
    """5-shot questions: those of a subject share its examples."""
    rows = []
    for subject in range(subjects):
        shots = [(_question(100 * subject + number), "ABCD"[number % 4]) for number in range(5)]
        for number in range(questions):
            question = _question(10_000 + 100 * subject + number)
            rows.append({"subject": _NOUNS[subject], "shots": shots, "question": question})
    random.Random(7).shuffle(rows)
    return rows


def _question(seed: int) -> str:
    options = "\n".join(f"{letter}. {prose(seed * 5 + place, 4)}" for place, letter in enumerate("ABCD"))
    return f"{prose(seed, 22)} Which is true?\n{options}"


@rf.program
def hellaswag(s, shots, context, endings):
    for shot in shots:
        s += shot + "\n\n"
    s += context + " "
    s += rf.select("ending", endings)
    return s["ending"]


def hellaswag_rows(number: int) -> list[dict[str, Any]]:
    """20-shot completion with four endings of which the likeliest is taken."""
    shots = [prose(500 + shot, 24) for shot in range(20)]
    return [
        {
            "shots": shots,
            "context": prose(900 + row, 24),
            "endings": [prose(5_000 + 4 * row + place, 9) for place in range(4)],
        }
        for row in range(number)
    ]


# Agents.


@rf.program
def react(s, examples, question, steps):
    s += "Answer questions with thoughts, actions and observations.\n\n" + examples
    s += "Question: " + question + "\n"
    for number, (thought, action, observation) in enumerate(steps, 1):
        s += f"Thought {number}:" + text("thought", thought)
        s += f"\nAction {number}:" + text("action", action)
        s += f"\nObservation {number}: {observation}\n"
    s += "Answer:" + text("answer", 8)


def react_rows(folder: Path, number: int) -> list[dict[str, Any]]:
    """Recorded agent runs: thoughts and actions are generated as long as they were, observations are as they were."""
    lines = (folder / "workloads" / "react" / "hotpotqa_100.jsonl").read_text().splitlines()
    traces = [next(iter(json.loads(line).items())) for line in lines]
    examples = "".join(_trace_text(*trace) for trace in traces[:1])
    return [
        {"examples": examples, "question": question.removeprefix("Question: "), "steps": _steps(steps)}
        for question, steps in traces[1 : 1 + number]
    ]


def _steps(steps: list[dict[str, str]]) -> list[tuple[int, int, str]]:
    kept = [step for step in steps if "thought" in step][:3]
    return [
        (max(4, len(step["thought"]) // 5), max(3, len(step["action"]) // 5), step.get("observation", "")[:160])
        for step in kept
    ]


def _trace_text(question: str, steps: list[dict[str, str]]) -> str:
    lines = [question]
    for step in steps[:3]:
        lines += [f"{key.title()}: {step[key][:120]}" for key in ("thought", "action", "observation") if key in step]
    return "\n".join(lines) + "\n\n"


@rf.program
def generative_agents(s, world, persona, memory, task):
    s += world + "\n" + persona + "\n"
    s += "Recent memories:\n" + "\n".join(memory) + "\n"
    s += task + ":" + text("out", 24)


def agents_rows(agents: int, ticks: int) -> list[dict[str, Any]]:
    """Game characters: all share the world, each has a persona, memories grow with every tick."""
    tasks = ("Plan the next hour", "Decide whether to talk", "Rate the importance from 1 to 10", "Reflect")
    rows = []
    for tick in range(ticks):
        for agent in range(agents):
            memory = [prose(2_000 + 50 * agent + number, 14) for number in range(3 + tick)]
            for task in tasks:
                row = {"world": prose(1, 120), "persona": prose(10 + agent, 60), "memory": memory, "task": task}
                rows.append(row)
    return rows


# Trees and forks. Each is written as a plain sequential loop, and once more with forks by hand.


@rf.program
def tree_of_thought(s, question, width, depth):
    s += rf.system("Solve the problem step by step.") + rf.user(question)
    beams = [s.copy()]
    for _level in range(depth):
        scored = []
        for beam in beams:
            for idea in range(width):
                branch = beam.copy()
                branch += rf.user(f"Propose step {idea + 1}.") + rf.assistant(text("step", 24))
                judge = branch.copy()
                judge += rf.user("Rate this step.") + rf.assistant(text("rating", 4))
                scored.append((len(judge["rating"]), idea, branch))
        scored.sort(key=lambda entry: entry[:2])
        beams = [branch for _, _, branch in scored[:2]]
    best = beams[0]
    best += rf.user("Give the answer.") + rf.assistant(text("answer", 16))
    return best["answer"]


@rf.program
def tree_of_thought_by_hand(s, question, width, depth):
    s += rf.system("Solve the problem step by step.") + rf.user(question)
    beams = [s.copy()]
    for _level in range(depth):
        pairs = []
        for beam in beams:
            for idea, branch in enumerate(beam.fork(width)):
                branch += rf.user(f"Propose step {idea + 1}.") + rf.assistant(text("step", 24))
                judge = branch.copy()
                judge += rf.user("Rate this step.") + rf.assistant(text("rating", 4))
                pairs.append((idea, branch, judge))
        scored = [(len(judge["rating"]), idea, branch) for idea, branch, judge in pairs]
        scored.sort(key=lambda entry: entry[:2])
        beams = [branch for _, _, branch in scored[:2]]
    best = beams[0]
    best += rf.user("Give the answer.") + rf.assistant(text("answer", 16))
    return best["answer"]


@rf.program
def self_consistency(s, question, samples):
    s += rf.user(question + " Think step by step.")
    votes = {}
    for number in range(samples):
        path = s.copy()
        path += rf.assistant(
            rf.gen("path", max_tokens=48, ignore_eos=True, temperature=0.8, seed=number) + "\nAnswer:" + text("vote", 2)
        )
        vote = path["vote"].strip()
        votes[vote] = votes.get(vote, 0) + 1
    return max(sorted(votes), key=votes.get)


@rf.program
def self_consistency_by_hand(s, question, samples):
    s += rf.user(question + " Think step by step.")
    paths = s.fork(samples)
    for number, path in enumerate(paths):
        path += rf.assistant(
            rf.gen("path", max_tokens=48, ignore_eos=True, temperature=0.8, seed=number) + "\nAnswer:" + text("vote", 2)
        )
    votes = {}
    for path in paths:
        vote = path["vote"].strip()
        votes[vote] = votes.get(vote, 0) + 1
    return max(sorted(votes), key=votes.get)


@rf.program
def map_reduce(s, chunks, question):
    s += rf.system("You read documents carefully.")
    notes = []
    for chunk in chunks:
        reader = s.copy()
        reader += rf.user(f"{chunk}\nWhat does this say about: {question}") + rf.assistant(text("note", 24))
        note = reader["note"].strip()
        if note:
            notes.append(note)
    s += rf.user("Notes:\n" + "\n".join(notes) + "\n" + question) + rf.assistant(text("answer", 32))
    return s["answer"]


@rf.program
def map_reduce_by_hand(s, chunks, question):
    s += rf.system("You read documents carefully.")
    readers = s.fork(len(chunks))
    for reader, chunk in zip(readers, chunks, strict=True):
        reader += rf.user(f"{chunk}\nWhat does this say about: {question}") + rf.assistant(text("note", 24))
    notes = [note for note in (reader["note"].strip() for reader in readers) if note]
    s += rf.user("Notes:\n" + "\n".join(notes) + "\n" + question) + rf.assistant(text("answer", 32))
    return s["answer"]


@rf.program
def skeleton_of_thought(s, question, points):
    s += rf.user("Write a skeleton of the answer to: " + question) + rf.assistant(text("skeleton", 24))
    parts = []
    for number in range(points):
        writer = s.copy()
        writer += rf.user(f"Expand point {number + 1}.") + rf.assistant(text("point", 40))
        parts.append(f"{number + 1}. {writer['point'].strip()}")
    return "\n".join(parts)


@rf.program
def skeleton_of_thought_by_hand(s, question, points):
    s += rf.user("Write a skeleton of the answer to: " + question) + rf.assistant(text("skeleton", 24))
    writers = s.fork(points)
    for number, writer in enumerate(writers):
        writer += rf.user(f"Expand point {number + 1}.") + rf.assistant(text("point", 40))
    return "\n".join(f"{number + 1}. {writer['point'].strip()}" for number, writer in enumerate(writers))


@rf.program
def llm_judge(s, article, dimensions):
    s += rf.system("You judge essays.") + rf.user("The essay:\n" + article)
    reviews = []
    for dimension in dimensions:
        judge = s.copy()
        judge += rf.user(f"Judge its {dimension}, then give a score.")
        judge += rf.assistant(text("review", 48) + "\nScore:" + text("score", 2))
        reviews.append(judge["review"] + " " + judge["score"])
    s += rf.user("The reviews:\n" + "\n".join(reviews) + "\nGive a verdict.") + rf.assistant(text("verdict", 32))
    return s["verdict"]


def judge_rows(folder: Path, number: int) -> list[dict[str, Any]]:
    """Articles that are judged by five dimensions."""
    lines = (folder / "workloads" / "llm_judge" / "articles.jsonl").read_text().splitlines()
    dimensions = ["clarity", "originality", "evidence", "structure", "style"]
    return [{"article": json.loads(line)[:1500], "dimensions": dimensions} for line in lines[:number]]


# Typed values, conversations, retrieval.


@rf.program
def json_decoding(s, name):
    s += f"{name} is a character in Harry Potter. Fill in the following.\n"
    s += rf.gen("character", max_tokens=120, regex=_CHARACTER)


_CHARACTER = (
    r'\{"name": "[A-Za-z ]{1,24}", "house": "(Gryffindor|Slytherin|Ravenclaw|Hufflepuff)", '
    r'"blood": "(Pure|Half|Muggle)", "alive": "(yes|no)", "wand": "[a-z ]{1,16}", "year": [0-9]{4}\}'
)


def json_rows(folder: Path, number: int) -> list[dict[str, Any]]:
    """Names of characters."""
    names = (folder / "workloads" / "json_jump_forward" / "dataset.txt").read_text().split("\n")
    return [{"name": name.strip()} for name in names if name.strip()][:number]


@rf.program
def chat(s, system, turns, length):
    s += rf.system(system)
    for turn in turns:
        s += rf.user(turn) + rf.assistant(text("reply", length))


def chat_rows(number: int, length: int) -> list[dict[str, Any]]:
    """Conversations of four turns under one system prompt, with replies of a length."""
    return [
        {
            "system": prose(3, 60),
            "turns": [prose(7_000 + 10 * row + turn, 24) for turn in range(4)],
            "length": length,
        }
        for row in range(number)
    ]


@rf.program
def rag(s, documents, question):
    s += "Answer from the documents.\n"
    with s.unordered():
        for document in documents:
            s += document + "\n"
    s += "Question: " + question + "\nAnswer:" + text("answer", 24)


def rag_rows(number: int) -> list[dict[str, Any]]:
    """Questions with three documents each out of a few that come up again and again, in any order."""
    rng = random.Random(11)
    documents = [f"Document {n}: {prose(8_000 + n, 90)}" for n in range(8)]
    weights = [1 / (place + 1) for place in range(len(documents))]
    rows = []
    for row in range(number):
        picked: list[str] = []
        while len(picked) < 3:
            (document,) = rng.choices(documents, weights)
            if document not in picked:
                picked.append(document)
        rows.append({"documents": picked, "question": prose(9_000 + row, 14)})
    return rows


@rf.program
def table(s, fields, task):
    s += task + "\n"
    with s.unordered():
        for name, value in fields.items():
            s += f"{name}: {value}\n"
    s += "Answer:" + text("answer", 4)


def table_rows(number: int) -> list[dict[str, Any]]:
    """Rows of a table (reviews of products): the review differs, the product's fields repeat."""
    rng = random.Random(13)
    products = [
        {"product": prose(300 + n, 3), "description": prose(400 + n, 40), "brand": _NOUNS[n % 4]} for n in range(6)
    ]
    task = "Is the review positive? Answer yes or no."
    return [
        {"fields": {"review": prose(600 + row, 24), **rng.choice(products), "stars": rng.randint(1, 5)}, "task": task}
        for row in range(number)
    ]


def workloads(folder: Path, scale: int, only: Sequence[str] | None = None) -> list[Workload]:
    """All workloads, or those of these names; their numbers of rows grow with `scale`.

    Raises SystemExit for a name that is none.
    """
    questions = [{"question": prose(50 + row, 30)} for row in range(2 * scale)]
    makers: Mapping[str, Callable[[], Workload]] = {
        "mmlu": lambda: Workload("mmlu", mmlu, mmlu_rows(3, 4 * scale)),
        "hellaswag": lambda: Workload("hellaswag", hellaswag, hellaswag_rows(6 * scale)),
        "react": lambda: Workload("react", react, react_rows(folder, 4 * scale)),
        "generative_agents": lambda: Workload("generative_agents", generative_agents, agents_rows(2 * scale, 2)),
        "tree_of_thought": lambda: Workload(
            "tree_of_thought",
            tree_of_thought,
            [row | {"width": 3, "depth": 2} for row in questions],
            tree_of_thought_by_hand,
        ),
        "self_consistency": lambda: Workload(
            "self_consistency",
            self_consistency,
            [row | {"samples": 8} for row in questions],
            self_consistency_by_hand,
        ),
        "map_reduce": lambda: Workload(
            "map_reduce",
            map_reduce,
            [row | {"chunks": [prose(70 + 8 * n + c, 80) for c in range(6)]} for n, row in enumerate(questions)],
            map_reduce_by_hand,
        ),
        "skeleton_of_thought": lambda: Workload(
            "skeleton_of_thought",
            skeleton_of_thought,
            [row | {"points": 6} for row in questions],
            skeleton_of_thought_by_hand,
        ),
        "llm_judge": lambda: Workload("llm_judge", llm_judge, judge_rows(folder, 3 * scale)),
        "json_decoding": lambda: Workload("json_decoding", json_decoding, json_rows(folder, 5 * scale)),
        "chat_short": lambda: Workload("chat_short", chat, chat_rows(4 * scale, 8)),
        "chat_long": lambda: Workload("chat_long", chat, chat_rows(2 * scale, 96)),
        "rag": lambda: Workload("rag", rag, rag_rows(8 * scale)),
        "table": lambda: Workload("table", table, table_rows(12 * scale)),
    }
    if unknown := sorted(set(only or ()) - makers.keys()):
        raise SystemExit(f"no workload is called {unknown[0]!r}; there are {', '.join(makers)}")
    return [make() for name, make in makers.items() if only is None or name in only]


# For each workload how many rows, and how much in a row: how many of a list, or another number.
_BRIEF: Mapping[str, tuple[int, dict[str, int]]] = {
    "mmlu": (3, {}),
    "hellaswag": (2, {}),
    "react": (1, {"steps": 2}),
    "generative_agents": (4, {}),
    "tree_of_thought": (1, {"width": 2}),
    "self_consistency": (1, {"samples": 3}),
    "map_reduce": (1, {"chunks": 3}),
    "skeleton_of_thought": (1, {"points": 3}),
    "llm_judge": (1, {"dimensions": 3}),
    "json_decoding": (2, {}),
    "chat_short": (2, {}),
    "chat_long": (1, {"turns": 3, "length": 24}),
    "rag": (6, {}),
    "table": (6, {}),
}


def brief(workload: Workload) -> Workload:
    """The same with the fewest rows that still share something, and less in each: for large models on few cores."""
    number, smaller = _BRIEF[workload.name]
    alike = sorted(workload.rows, key=lambda row: str(row.get("subject", "")))
    return replace(workload, rows=[_cut(row, smaller) for row in alike[:number]])


def _cut(row: dict[str, Any], smaller: dict[str, int]) -> dict[str, Any]:
    return row | {name: row[name][:size] if isinstance(row[name], list) else size for name, size in smaller.items()}
