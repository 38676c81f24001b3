"""Multi-agent debate (arXiv 2305.19118) on any question: sides that argue, a moderator after each round, a judge.

    ramify run examples/debate --arg question="What is 8 + 7?"
    python -m ramify.examples.debate run --data questions.jsonl --out verdicts.jsonl

Every role is an append-only chat, greedy unless the run says otherwise. All debaters share one system prompt, moderator
and judge another, so most of each prompt is served from the cache. What is said to them is in templates.py.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import ramify as rf
from ramify.ir.errors import UsageError

from .replies import Reply, ReplyForm
from .templates import Prompts, load_templates

__all__ = ["VARIANTS", "Variant", "Verdict", "debate"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a debate ended: the final answer, the reason for it, and the side that is right, of which only the moderator
    tells.

    rounds: how many were held. by: "moderator", or "judge" where the moderator came to no answer. base: the answer
    without a debate; empty where the templates ask for none.
    """

    answer: str
    side: str
    reason: str
    rounds: int
    by: str
    base: str


@dataclass(frozen=True, slots=True)
class Variant:
    """Rules of a debate. own_base: whether the base answer is the affirmative side's own first turn."""

    rounds: int
    stops: Callable[[Reply], bool]
    own_base: bool


# As the released code has them, and as the published logs were made.
VARIANTS = {
    "code": Variant(rounds=3, stops=lambda reply: reply.answer != "", own_base=False),
    "log": Variant(rounds=4, stops=lambda reply: reply.preference == "Yes", own_base=True),
}


@rf.program(max_tokens=512)
def debate(
    s,
    question: str,
    claim: str = "",
    templates: str = "",
    variant: str = "",
    rounds: int = 0,
    debaters: int = 2,
    level: int = 2,
    schema: bool = False,
    languages: str = "",
):
    """Debate a question; the Verdict's transcripts are the variable `players`.

    claim: a base answer to begin with, instead of the model's. templates: a file of prompts. variant: "code" or "log";
    the templates' without it. rounds: at most so many; the variant's without it. level: of disagreement, 0 to 3.
    schema: hold the moderator's and the judge's replies to JSON. languages: for templates that leave them open.
    """
    texts = load_templates(templates, languages)
    prompts = texts.about(question, level)
    rules = rules_of(prompts, variant, claim, debaters, rounds)
    baseline, players = s.fork(2)
    players += rf.system(prompts.player_system())
    sides = players.fork(debaters)
    s += rf.system(prompts.moderator_system())
    judge = s.copy()

    base = claim
    if prompts.has_base and rules.own_base:
        base = ask(sides[0], prompts.base(), "base", said=claim)
    elif prompts.has_base and not claim:
        base = ask(baseline, prompts.base(), "base")

    said: list[str] = []
    for number in range(1, rules.rounds + 1):
        for debater, side in enumerate(sides):
            statement = ask(side, prompts.turn(debater, number, base, said), "statement")
            said[debater : debater + 1] = [statement]
        if number == 1:
            first = list(said)
        reply = consult(
            s, prompts.round(number, said), texts.moderator_form, schema, f"the moderator in round {number}"
        )
        settled = rules.stops(reply)
        if settled:
            break

    decided_by = "moderator"
    if not settled or not reply.answer:
        decided_by = "judge"
        ask(judge, prompts.candidates(first), "candidates")
        reply = consult(judge, prompts.decision(), texts.judge_form, schema, f"the judge after round {number}")
    s["players"] = transcripts(sides, s, judge)
    return Verdict(reply.answer, reply.side, reply.reason, number, decided_by, base)


def ask(s, request: str, name: str, said: str = ""):
    """One turn of a role; `said` puts words into its mouth."""
    s += rf.user(request)
    if said:
        s += rf.assistant(said)
        return said
    s += rf.assistant(rf.gen(name))
    return s[name]


def consult(s, request: str, form: ReplyForm, schema: bool, who: str) -> Reply:
    """One turn of the moderator or the judge, read as the dict that it is."""
    s += rf.user(request) + rf.assistant(rf.gen("reply", json_schema=form.schema() if schema else None, close=schema))
    return form.read(s["reply"], who, is_json=schema)


def rules_of(prompts: Prompts, variant: str, claim: str, debaters: int, rounds: int) -> Variant:
    """The rules of a variant, with at most `rounds` rounds if that is not 0.

    Raises UsageError for numbers that cannot be, and for a variant that there is not or that the templates have no
    words for.
    """
    name = variant or prompts.templates.variant
    if name not in VARIANTS:
        raise UsageError(f"there is no variant {name!r} of the debate", help=f"there are {', '.join(VARIANTS)}")
    if debaters < 2 or rounds < 0:
        raise UsageError(f"a debate takes two debaters and a round at least, not {debaters} and {rounds}")
    rules = replace(VARIANTS[name], rounds=rounds or VARIANTS[name].rounds)
    if not prompts.shows_base and (claim or prompts.has_base) and not (rules.own_base and prompts.has_base):
        raise UsageError(
            "these templates do not show the affirmative side a base answer: affirmative_first has no <BASE>",
            help='with variant="log" it is its own first turn' if prompts.has_base else "leave `claim` out",
        )
    return rules


def transcripts(sides, moderator, judge) -> dict[str, list[dict[str, str]]]:
    """What each role heard and said, by its name; without a judge who heard nothing."""
    names = ["Affirmative side", "Negative side", *(f"Debater {number}" for number in range(3, len(sides) + 1))]
    found = {name: side.messages() for name, side in zip(names, sides, strict=True)}
    found["Moderator"] = moderator.messages()
    judged = judge.messages()
    return found | ({"Judge": judged} if len(judged) > 1 else {})
