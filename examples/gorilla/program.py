"""Tool calling with Gorilla (arXiv 2305.15334): retrieve API documents, ask for a call, cut it out of the reply.

    ramify run examples/gorilla --arg question="How do I find lions here?"

What prompts share comes first: the system turn, then the documents, then the question. `order="question-first"` is the
paper's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ramify as rf

from .data import load_questions
from .evaluate import candidate_call
from .hubs import HUBS
from .retrieve import DENSE_MODEL, retrieve
from .template import load_template, reply_pattern

__all__ = ["ApiCall", "call_api", "load_rows"]


@dataclass(frozen=True, slots=True)
class ApiCall:
    """The model's whole reply, the call cut out of it (None where it names none), and the documents it was shown."""

    question_id: int
    text: str
    call: str | None
    documents: list[str]


@rf.program
def call_api(
    s,
    question: str,
    question_id: int = 0,
    retriever: str = "bm25",
    k: int = 1,
    api: str = "",
    reference: dict[str, Any] | None = None,
    constrained: bool = False,
    template: str = "chat",
    order: str = "documents-first",
    max_tokens: int = 128,
    dense_model: str = DENSE_MODEL,
):
    """Answer a question with an API call; `api` is the database to retrieve from, without it an invented one.

    `reference` is the document that the oracle shows. With `constrained`, the reply holds a call of the database.
    """
    documents = retrieve(question, retriever, k, api, reference, dense_model)
    prompt = load_template(template)
    asked = prompt.ask(question, documents, order)
    pattern = reply_pattern(template, api) if constrained else None
    reply = rf.gen("reply", max_tokens=max_tokens, stop=prompt.stop, regex=pattern, close=constrained, temperature=0)
    if prompt.system:
        s += rf.system(prompt.system)
    if prompt.style == "chat":
        s += rf.user(asked) + rf.assistant(reply)
    else:
        s += asked + reply
    call = candidate_call(s["reply"], HUBS["torchhub"])
    return ApiCall(question_id, s["reply"], call, [document["api_call"] for document in documents])


def load_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows for `ramify run --data`: a file of questions, or APIBench's evaluation file."""
    for question in load_questions(path):
        yield {"question": question.text, "question_id": question.question_id}
