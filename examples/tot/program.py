"""Decomposed tip-of-the-tongue retrieval (arXiv 2305.15053): the model's part.

A query forks into one call for each field, which copies what the query says about it, or says N/A. Queries share each
field's instruction and worked examples, so all but the query itself is computed once.
"""

import json
import math

import ramify as rf

from .prompts import asked, heads

NO_CLUE = "N/A"
YEAR = 'start: " "? ("N/A" | /[0-9]{4}/) "\\n"?'
SHOTS = 2
HEADS = heads(shots=SHOTS)
SCORES = [f"{score}/10" for score in range(11)]
CRITERIA = (
    "A reader looks for a book and remembers this:\n{query}\n"
    "List the criteria that a book's description has to meet to be the one, the most telling first. Be brief."
)
JUDGE = "Book description: {passage}\nHow well does it meet the criteria, from 0/10 to 10/10?"


@rf.program
def decompose(s, query: str, posted: str = "", heads: dict[str, str] = HEADS, chat: bool = False, copied: bool = False):
    """The clue of each field. Without the day of posting, `date` is not asked for.

    chat: each prompt is one user message, as in the paper's release; else raw text, as the embedded model learnt it.
    copied: the model can write nothing but words of the query, a year, or N/A.
    """
    words = copy_grammar(query)
    fields = [field for field in heads if posted or field != "date"]
    forks = s.fork(len(fields))
    for branch, field in zip(forks, fields, strict=True):
        prompt = heads[field] + asked(field, query, posted)
        branch += rf.user(prompt) + rf.assistant_begin() if chat else prompt
        grammar = None if not copied else YEAR if field == "date" else words
        branch += rf.gen("clue", max_tokens=96, stop="\n", temperature=0, grammar=grammar)
    clues = {field: branch["clue"].strip() for branch, field in zip(forks, fields, strict=True)}
    return {field: clues.get(field, NO_CLUE) for field in heads}


def copy_grammar(query: str) -> str:
    """The grammar of N/A and of all runs of whole words of a query, up to the end of the line (Lark, of llguidance).

    It is one terminal, as a query may begin with what a terminal before it would take.
    """
    return f'start: CLUE\nCLUE: " "? ("N/A" | COPY) "\\n"?\nCOPY: %regex {json.dumps({"substring_words": query})}'


@rf.program
def rerank(s, query: str, passages: list[str]):
    """A score of 0..10 for each passage: the query's criteria are listed once, then each passage is held to them.

    The score is the mean of 0/10, 1/10, ... 10/10 under the probabilities that the model gives them.
    """
    s += rf.user(CRITERIA.format(query=query)) + rf.assistant(rf.gen("criteria", max_tokens=200, temperature=0))
    forks = s.fork(len(passages))
    for branch, passage in zip(forks, passages, strict=True):
        branch += rf.user(JUDGE.format(passage=passage)) + rf.assistant_begin() + rf.score("score", SCORES)
    return [expected(branch["score"]) for branch in forks]


def expected(logprobs: list[float]) -> float:
    """The mean of 0..10 whose log-probabilities are given, up to a constant."""
    weights = [math.exp(logprob - max(logprobs)) for logprob in logprobs]
    return sum(score * weight for score, weight in enumerate(weights)) / sum(weights)
