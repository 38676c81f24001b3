"""Multi-agent debate (arXiv 2305.19118) on any question: two sides, a moderator after each round, a judge at the end.

    ramify run examples/debate --arg question="What is 8 + 7?"
    ramify run examples/debate --data questions.jsonl --out verdicts.jsonl

Every role is an append-only chat at temperature 0. Both debaters share one system turn, moderator and judge another, so
most of each prompt is served from the cache. Prompts are worded as the embedded model learnt them.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import ramify as rf

DEBATER = "Question: {question}\nYou are a debater. Two sides argue about the question."
MODERATOR = "Question: {question}\nYou listen to a debate about the question."
OPEN = "You are the affirmative side. State your answer and support it."
SUPPORT = "You are the affirmative side. Support the answer {claim}."
ATTACK = "You are the negative side. The affirmative side says: {statement}\nDisagree and give another answer."
REPLY = "The other side says: {statement}\nReply to it."
SETTLED = "Affirmative side: {ours}\nNegative side: {theirs}\nIs the debate settled? Answer yes or no."
JUDGE = "Judge the debate: give the reason, the final answer and the side that is right."


def speak(side, prompt: str) -> str:
    """One turn of a debater."""
    side += rf.user(prompt) + rf.assistant(rf.gen("statement", max_tokens=48, stop="\n"))
    return side["statement"]


@rf.program
def debate(s, question: str, rounds: int = 2, claim: str = ""):
    """Debate a question for at most `rounds` rounds; with `claim`, the affirmative side has to support that answer."""
    debaters = s.copy()
    debaters += rf.system(DEBATER.format(question=question))
    affirmative, negative = debaters.fork(2)
    s += rf.system(MODERATOR.format(question=question))

    ours = speak(affirmative, SUPPORT.format(claim=claim) if claim else OPEN)
    theirs = speak(negative, ATTACK.format(statement=ours))
    for round_number in range(1, rounds + 1):
        if round_number > 1:
            ours = speak(affirmative, REPLY.format(statement=theirs))
            theirs = speak(negative, REPLY.format(statement=ours))
        s += rf.user(SETTLED.format(ours=ours, theirs=theirs))
        s += rf.assistant(rf.select("settled", ["yes", "no"]))
        if s["settled"] == "yes":
            break

    s += rf.user(JUDGE)
    s += rf.assistant(
        rf.gen("reason", max_tokens=64, stop="\n")
        + "\n"
        + rf.gen("answer", max_tokens=16, stop="\n")
        + "\n"
        + rf.select("side", ["affirmative", "negative"])
    )
    return {"answer": s["answer"], "side": s["side"], "reason": s["reason"], "rounds": round_number}


def load_rows(path: Path) -> Iterator[dict[str, str]]:
    """Rows for `ramify run --data`: JSON lines, or a JSON list of objects, of which only the question is used."""
    text = path.read_text(encoding="utf-8")
    records = (
        json.loads(text) if text.lstrip().startswith("[") else map(json.loads, filter(str.strip, text.splitlines()))
    )
    for record in records:
        yield {"question": record["question"]}
