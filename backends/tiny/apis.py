"""The API-call task: invented API documentation, and chats that ask which call does what.

A record has the keys of APIBench's databases (Gorilla, arXiv 2305.15334) that a call depends on; hubs, models and calls
are made up. The Gorilla example's default prompt is worded as here:

    system: SYSTEM
    user:   one `document_text` a line, then `question_text` (or the other way round, as in the paper)
    reply:  <<<domain>>>: ..., <<<api_call>>>: ..., <<<api_provider>>>: ...

The reply is copied from the record whose functionality the question names. Without a document the question is about one
of the `KNOWN` APIs, which have to be remembered.
"""

import json
from random import Random
from typing import TypedDict

from .example import Example, Message, assistant, example, system, user
from .words import nonce, words

__all__ = [
    "FIELDS",
    "KNOWN",
    "SYSTEM",
    "Record",
    "api_call",
    "ask",
    "call_in",
    "document_text",
    "draw_records",
    "question_text",
    "reply_text",
]

SYSTEM = "Answer with one API call: <<<domain>>>: ..., <<<api_call>>>: ..., <<<api_provider>>>: ..."
FIELDS = ("domain", "framework", "functionality", "api_call")
VERBS = {
    "Images": words("find count draw"),
    "Sounds": words("hear record follow"),
    "Texts": words("describe name explain"),
    "Trade": words("buy sell rent"),
    "Robots": words("move wash repair"),
}
NOUNS = words(
    "dogs cats horses cows goats pigs ducks birds lions tigers bears rabbits frogs bees apples bananas lemons books "
    "lamps chairs tables bags cups hats coats clocks phones bikes rings desks radios cars trains boats planes ships"
)
CALLS = {"Kota Hub": "kota.load", "Belu Hub": "belu.get", "Rano": "rano.model", "Mido": "mido.load", "Zafi": "zafi.use"}
ARGUMENTS = ("'{name}'", "model='{name}'", "'{name}', size={size}", "model='{name}', size={size}")
DESCRIPTIONS = ("It can {task} in any place.", "Use it to {task} at once.", "It will {task} for you.")
QUESTIONS = (
    "Which API can {task}?",
    "Name an API to {task} with.",
    "How do I {task} here?",
    "I want to {task}. Which API is there?",
)


class Record(TypedDict):
    """One API as its documentation tells it."""

    domain: str
    framework: str
    functionality: str
    api_name: str
    api_call: str
    api_arguments: list[str]
    description: str


def draw_records(rng: Random, count: int, apart_from: tuple[Record, ...] = ()) -> list[Record]:
    """Draw APIs of different functionality; no name is part of another's, nor of a name or call in `apart_from`."""
    records: list[Record] = []
    while len(records) < count:
        made = draw_record(rng, records[-1] if records and rng.random() < 0.5 else None)
        if all(are_apart(made, other) for other in (*apart_from, *records)):
            records.append(made)
    return records


def are_apart(one: Record, other: Record) -> bool:
    """Whether no question and no call can mean both."""
    names = one["api_name"] in other["api_call"] or other["api_name"] in one["api_call"]
    return not names and one["functionality"] != other["functionality"]


def draw_record(rng: Random, like: Record | None = None) -> Record:
    """Draw one API; half of its functionality is that of the API it is to be like."""
    domain = rng.choice(list(VERBS))
    verb, noun = rng.choice(VERBS[domain]), rng.choice(NOUNS)
    if like is not None and rng.random() < 0.5:
        noun = like["functionality"].split()[1]
    elif like is not None:
        domain, verb = like["domain"], like["functionality"].split()[0]
    hub = rng.choice(list(CALLS))
    name, size = nonce(rng), rng.randint(2, 9)
    arguments = rng.choice(ARGUMENTS)
    return {
        "domain": domain,
        "framework": hub,
        "functionality": f"{verb} {noun}",
        "api_name": name,
        "api_call": f"{CALLS[hub]}({arguments.format(name=name, size=size)})",
        "api_arguments": ["size"] if "size" in arguments else [],
        "description": rng.choice(DESCRIPTIONS).format(task=f"{verb} {noun}"),
    }


KNOWN = tuple(draw_records(Random("known"), 12))


def ask(rng: Random, record: Record) -> str:
    """A question that the record's API answers."""
    return rng.choice(QUESTIONS).format(task=record["functionality"])


def document_text(record: Record) -> str:
    """How a prompt shows one record: the fields that a reply needs."""
    return f"API: {json.dumps({field: record[field] for field in FIELDS})}"  # type: ignore[literal-required]


def question_text(question: str) -> str:
    """How a prompt shows the question."""
    return f"Question: {question}"


def reply_text(record: Record) -> str:
    """The reply whose call is the record's."""
    domain, call, provider = record["domain"], record["api_call"], record["framework"]
    return f"<<<domain>>>: {domain}, <<<api_call>>>: {call}, <<<api_provider>>>: {provider}"


def call_in(reply: str) -> str | None:
    """Return the call that a reply of this form makes, or None if it has another form."""
    _before, found, after = reply.partition("<<<api_call>>>: ")
    call, closed, _ = after.partition(", <<<api_provider>>>")
    return call if found and closed else None


def api_call(rng: Random) -> Example:
    """A question and none to three documents; more questions about the same documents may follow."""
    count = rng.choices([0, 1, 2, 3], [2, 3, 5, 3])[0]
    records = draw_records(rng, count) if count else [rng.choice(KNOWN)]
    asked = rng.choices(records, k=rng.randint(1, 4 if count > 1 else 2))
    first = [question_text(ask(rng, asked[0]))]
    documents = [document_text(record) for record in records[:count]]
    lines = first + documents if rng.random() < 0.25 else documents + first
    chat: list[Message] = [system(SYSTEM), user("\n".join(lines)), assistant(reply_text(asked[0]))]
    for record in asked[1:]:
        chat += [user(question_text(ask(rng, record))), assistant(reply_text(record))]
    return example("api-call", chat, lambda reply: call_in(reply) == asked[-1]["api_call"])
