"""The debate task: its prompt texts, which programs use word for word, and conversations made from them.

Four roles talk in append-only chats. Both debaters share one system turn, the moderator and the judge another; each
holds the question, so a role's chat extends its partner's prefix. The flow is that of multi-agent debate (Liang et al.,
arXiv 2305.19118): the affirmative side opens, the negative side must disagree, the sides reply to each other, after
each round the moderator says whether they agree by now, and a judge decides.

    affirmative: [debater_system, OPEN or support(answer)] -> statement, then [attacked(negative's)] -> statement, ...
                 or, with a first answer of its own, [debater_system, question] -> answer, then [support(answer)] -> ...
    negative:    [debater_system, attack(affirmative's statement)] -> statement, then [attacked(...)] -> statement, ...
    moderator:   [moderator_system, ask_moderator(affirmative, negative)] -> a Python dict, then the next round ...
    judge:       [moderator_system, ask_candidates(first statements)] -> both answers, then [ask_judge] -> a Python dict

The older form has "yes" or "no" for the moderator (round_text), whose chat the judge goes on (JUDGE).

A sentence of LEVELS behind the debaters' system turn says how much they are to disagree: 0 the negative side agrees at
once, 1 either side gives way to the truth, 2 (no sentence) only the affirmative side does, 3 neither.

A statement is "<lead> The answer is <answer>, because <reason>."; a verdict has three lines: the reason, the final
answer, and the side ("affirmative" or "negative") whose first statement gave that answer. The reason names both first
answers and the right one, "14 (affirmative) or 15 (negative)? 7 + 8 = 15 (negative).", so that the side is found by
looking up the answer, which a small model learns far sooner than comparing two debaters' texts.
"""

import json
from dataclasses import dataclass
from random import Random

from .example import Example, Message, assistant, example, system, user

__all__ = [
    "JUDGE",
    "LEVELS",
    "OPEN",
    "SIDES",
    "Question",
    "answer_in",
    "ask_candidates",
    "ask_judge",
    "ask_moderator",
    "attack",
    "attack_example",
    "attacked",
    "base_example",
    "debater_system",
    "draw_question",
    "judge_example",
    "level_example",
    "moderator_example",
    "moderator_system",
    "opening_example",
    "reply_example",
    "round_text",
    "settled_example",
    "support",
    "verdict_example",
]

SIDES = ("affirmative", "negative")
OPEN = "You are the affirmative side. State your answer and support it."
JUDGE = "Judge the debate: give the reason, the final answer and the side that is right."
ATTACK_LEADS = ("I disagree.", "That is wrong.", "No, that is not right.")
KEEP_LEADS = ("I keep my answer.", "I stand by it.")
YIELD_LEAD = "You are right."
AGREED_LEAD = "We agree."
LEVELS = (
    "Both sides must agree on every point.",
    "Agree where the other side is right.",
    "",
    "Both sides must disagree on every point.",
)
FORM = '{"Preference": "Yes or No", "Side": "Affirmative or Negative", "Reason": "", "Answer": ""}'
VERDICT_FORM = '{"Reason": "", "Answer": "", "Side": "Affirmative or Negative"}'


def debater_system(question: str, level: int = 2) -> str:
    """The system turn of both debaters."""
    return f"Question: {question}\nYou are a debater. Two sides argue about the question. {LEVELS[level]}".rstrip()


def moderator_system(question: str) -> str:
    """The system turn of the moderator and of the judge."""
    return f"Question: {question}\nYou listen to a debate about the question."


def support(answer: str) -> str:
    """The turn that opens the debate with an assigned answer, right or wrong (instead of OPEN)."""
    return f"You are the affirmative side. Support the answer {answer}."


def attack(statement: str) -> str:
    """The turn that asks the negative side to disagree with the affirmative side's opening."""
    return f"You are the negative side. The affirmative side says: {statement}\nDisagree and give another answer."


def attacked(statement: str) -> str:
    """The turn that shows a debater the other side's latest statement and asks for a reply."""
    return f"The other side says: {statement}\nReply to it."


def round_text(affirmative: str, negative: str) -> str:
    """The turn that shows the moderator one round and asks whether the sides give the same answer by now."""
    return f"Affirmative side: {affirmative}\nNegative side: {negative}\nIs the debate settled? Answer yes or no."


def ask_moderator(affirmative: str, negative: str) -> str:
    """The turn that shows the moderator one round and asks for a dict: is it settled, for whom, why, and how."""
    return f"Affirmative side: {affirmative}\nNegative side: {negative}\nIs the debate settled? Reply as {FORM}"


def ask_candidates(affirmative: str, negative: str) -> str:
    """The judge's first turn: the sides' first statements, of which it is to list the answers."""
    return f"Affirmative side: {affirmative}\nNegative side: {negative}\nWhich answers do we have?"


def ask_judge(question: str) -> str:
    """The judge's second turn, which asks for the verdict as a dict."""
    return f"{question} Give the reason and the final answer as {VERDICT_FORM}"


def answer_in(statement: str) -> str | None:
    """Return the answer that a debater's statement gives, or None if it has not the trained form."""
    _before, found, after = statement.partition("The answer is ")
    answer, comma, _ = after.partition(",")
    return answer.strip() if found and comma else None


@dataclass(frozen=True, slots=True)
class Question:
    """A question, the answers one can hold, and the reason that each is held for; the first answer is the true one."""

    text: str
    reasons: dict[str, str]

    @property
    def answer(self) -> str:
        """The true answer."""
        return next(iter(self.reasons))

    @property
    def reason(self) -> str:
        """The reason for the true answer."""
        return self.reasons[self.answer]

    @property
    def rivals(self) -> list[str]:
        """The wrong answers."""
        return list(self.reasons)[1:]


def near(rng: Random, number: int) -> list[str]:
    """Two wrong results close to a right one, in random order."""
    wrong = [number + 1, number - 1 if number else number + 2]
    rng.shuffle(wrong)
    return [str(w) for w in wrong]


def calculation(rng: Random) -> tuple[str, int]:
    """An addition of two numbers of 0..10, or such an addition undone, and its result."""
    a, b = rng.randint(0, 10), rng.randint(0, 10)
    return (f"{a} + {b}", a + b) if rng.random() < 0.5 else (f"{a + b} - {b}", a)


def arithmetic(rng: Random) -> Question:
    """What is 7 + 8?"""
    sum_text, result = calculation(rng)
    answers = [str(result), *near(rng, result)]
    return Question(f"What is {sum_text}?", {answer: f"{sum_text} = {answer}" for answer in answers})


def equality(rng: Random) -> Question:
    """Is 12 - 5 equal to 8?"""
    sum_text, result = calculation(rng)
    offered = str(result) if rng.random() < 0.5 else near(rng, result)[0]
    same, differs = f"{sum_text} = {offered}", f"{sum_text} is not {offered}"
    text = f"Is {sum_text} equal to {offered}?"
    if offered == str(result):
        return Question(text, {"yes": same, "no": differs})
    return Question(text, {"no": f"{sum_text} = {result}", "yes": same})


def comparison(rng: Random) -> Question:
    """Which is larger, 14 or 9?"""
    a, b = rng.sample(range(21), 2)
    word = rng.choice(["larger", "smaller"])
    right, wrong = (max(a, b), min(a, b)) if word == "larger" else (min(a, b), max(a, b))
    reasons = {str(right): f"{right} is {word} than {wrong}", str(wrong): f"{wrong} is {word} than {right}"}
    return Question(f"Which is {word}, {a} or {b}?", reasons)


def largest(rng: Random) -> Question:
    """Which is the largest, 4, 17 or 9?"""
    numbers = rng.sample(range(21), 3)
    best = max(numbers)
    rivals = [n for n in numbers if n != best]
    reasons = {str(n): f"{n} is the largest of the three" for n in [best, *rivals]}
    return Question(f"Which is the largest, {numbers[0]}, {numbers[1]} or {numbers[2]}?", reasons)


def parity(rng: Random) -> Question:
    """Is 7 even or odd?"""
    number = rng.randint(0, 20)
    right, wrong = ("odd", "even") if number % 2 else ("even", "odd")
    return Question(f"Is {number} even or odd?", {word: f"{number} is an {word} number" for word in (right, wrong)})


KINDS = (arithmetic, arithmetic, equality, comparison, largest, parity)


def draw_question(rng: Random) -> Question:
    """Draw a question of any kind."""
    return rng.choice(KINDS)(rng)


def statement(lead: str, answer: str, question: Question) -> str:
    """What a debater says for an answer."""
    return f"{lead} The answer is {answer}, because {question.reasons[answer]}.".lstrip()


@dataclass(frozen=True, slots=True)
class Debate:
    """A question with what the sides said in each round."""

    question: Question
    affirmative: tuple[str, ...]
    negative: tuple[str, ...]


def reply(rng: Random, own: str, other: str, question: Question) -> str:
    """A side's reply: agree if both say the same, give way to the truth, else hold one's ground."""
    if own == other:
        return statement(AGREED_LEAD, own, question)
    if other == question.answer:
        return statement(YIELD_LEAD, other, question)
    return statement(rng.choice(KEEP_LEADS), own, question)


def keep(rng: Random, own: str, other: str, question: Question) -> str:
    """The affirmative side's reply where nobody is to give way."""
    return statement(AGREED_LEAD if own == other else rng.choice(KEEP_LEADS), own, question)


def hold(rng: Random, own: str, other: str, question: Question) -> str:
    """The negative side's reply: it is there to disagree, so only an agreement moves it."""
    lead = AGREED_LEAD if own == other else rng.choice(ATTACK_LEADS)
    return statement(lead, own, question)


def draw_debate(rng: Random, rounds: int = 1, level: int = 2) -> Debate:
    """Draw a debate in which exactly one side opens with the truth; `level` is how much the sides disagree."""
    question = draw_question(rng)
    pair = [question.answer, rng.choice(question.rivals)]
    rng.shuffle(pair)
    ours = [statement("", pair[0], question)]
    theirs = [statement(rng.choice(ATTACK_LEADS), pair[1], question)]
    if level == 0:
        theirs = [statement(AGREED_LEAD, pair[0], question)]
    for _ in range(rounds - 1):
        ours.append(
            (keep if level == 3 else reply)(rng, str(answer_in(ours[-1])), str(answer_in(theirs[-1])), question)
        )
        answers = str(answer_in(theirs[-1])), str(answer_in(ours[-1]))
        theirs.append((reply if level == 1 else hold)(rng, *answers, question))
    return Debate(question, tuple(ours), tuple(theirs))


def gives(question: Question, reply_text: str, answers: list[str]) -> bool:
    """Whether a statement has the trained form, one of the answers, and the reason that goes with it."""
    answer = answer_in(reply_text)
    return answer in answers and reply_text.rstrip().endswith(f"because {question.reasons[str(answer)]}.")


def opening_example(rng: Random) -> Example:
    """The affirmative side's opening: the truth, or whatever answer it is told to support."""
    question = draw_question(rng)
    told = rng.random() < 0.3
    answer = rng.choice(list(question.reasons)) if told else question.answer
    turns = [system(debater_system(question.text)), user(support(answer) if told else OPEN)]
    said = assistant(statement("", answer, question))
    return example("debate-open", [*turns, said], lambda text: gives(question, text, [answer]))


def attack_example(rng: Random) -> Example:
    """The negative side's first statement: any other answer, with its reason."""
    debate = draw_debate(rng)
    question, claimed = debate.question, answer_in(debate.affirmative[0])
    others = [answer for answer in question.reasons if answer != claimed]
    return example("debate-attack", negative_chat(debate)[:3], lambda text: gives(question, text, others))


def reply_example(rng: Random) -> Example:
    """A later statement of either side."""
    debate = draw_debate(rng, rounds=rng.randint(2, 3))
    chat = rng.choice([affirmative_chat, negative_chat])(debate)
    expected = [str(answer_in(chat[-1].content))]
    return example("debate-reply", chat, lambda text: gives(debate.question, text, expected))


def moderator_example(rng: Random) -> Example:
    """The moderator's word on one or more rounds; in a third of the draws the sides agree from the start."""
    debate = draw_debate(rng, rounds=rng.choice([1, 2, 2, 3]))
    if rng.random() < 0.3:
        ours = debate.affirmative[0]
        lead = AGREED_LEAD if rng.random() < 0.7 else rng.choice(ATTACK_LEADS)
        theirs = statement(lead, str(answer_in(ours)), debate.question)
        debate = Debate(debate.question, (ours,), (theirs,))
    return example("debate-moderate", moderator_chat(debate))


def judge_example(rng: Random) -> Example:
    """The judge's verdict; scored on the final answer and the side."""
    debate = draw_debate(rng, rounds=rng.choice([1, 1, 2, 3]))
    chat = judge_chat(debate)
    return example("debate-judge", chat, lambda text: text.strip().split("\n")[1:] == chat[-1].content.split("\n")[1:])


def base_example(rng: Random) -> Example:
    """The affirmative side answers the question itself, or is told to have answered so, and then supports that."""
    question, level = draw_question(rng), rng.choice([2, 2, 2, 0, 1, 3])
    told = rng.random() < 0.2
    answer = rng.choice(list(question.reasons)) if told else question.answer
    turns = [system(debater_system(question.text, level)), user(question.text), assistant(answer, learn=not told)]
    said = assistant(statement("", answer, question))
    return example("argue-base", [*turns, user(support(answer)), said], lambda text: gives(question, text, [answer]))


def level_example(rng: Random) -> Example:
    """A statement of either side when they are told how much to disagree."""
    level, rounds = rng.choice([0, 1, 3]), rng.randint(1, 3)
    debate = draw_debate(rng, rounds, level)
    chat = negative_chat(debate, level)
    if rounds > 1 and rng.random() < 0.5:
        chat = affirmative_chat(debate, level)
    answer = str(answer_in(chat[-1].content))
    others = [other for other in debate.question.reasons if other != answer_in(debate.affirmative[0])]
    expected = others if len(chat) == 3 and level != 0 else [answer]
    return example("argue-level", chat, lambda text: gives(debate.question, text, expected))


def settled_example(rng: Random) -> Example:
    """The moderator's dict on one or more rounds; in a fifth of the draws the sides agree from the start."""
    level = rng.choice([2, 2, 2, 1, 0])
    debate = draw_debate(rng, rounds=1 if level == 0 else rng.choice([1, 1, 2, 2, 3]), level=level)
    turns = [system(moderator_system(debate.question.text))]
    for ours, theirs in zip(debate.affirmative, debate.negative, strict=True):
        turns += [user(ask_moderator(ours, theirs)), assistant(settled(debate, ours, theirs))]
        if answer_in(ours) == answer_in(theirs):
            break
    return example("argue-moderate", turns)


def settled(debate: Debate, ours: str, theirs: str) -> str:
    """The moderator's reply to a round: the answer that the sides agree on, and the side that said it first."""
    answer = str(answer_in(ours))
    if answer != answer_in(theirs):
        return json.dumps({"Preference": "No", "Side": "", "Reason": "", "Answer": ""})
    side = SIDES[answer != answer_in(debate.affirmative[0])].capitalize()
    return json.dumps({"Preference": "Yes", "Side": side, "Reason": debate.question.reasons[answer], "Answer": answer})


def verdict_example(rng: Random) -> Example:
    """A fresh judge, who sees the first statements only: it lists the answers and decides; scored on the answer."""
    debate = draw_debate(rng)
    question, answers = debate.question, [answer_in(debate.affirmative[0]), answer_in(debate.negative[0])]
    side = SIDES[answers.index(question.answer)].capitalize()
    verdict = json.dumps({"Reason": question.reason, "Answer": question.answer, "Side": side})
    turns = [
        system(moderator_system(question.text)),
        user(ask_candidates(debate.affirmative[0], debate.negative[0])),
        assistant(f"{answers[0]} (affirmative) or {answers[1]} (negative)"),
        user(ask_judge(question.text)),
        assistant(verdict),
    ]
    return example("argue-judge", turns, lambda text: f'"Answer": "{question.answer}",' in text)


def affirmative_chat(debate: Debate, level: int | None = None) -> list[Message]:
    """The affirmative side's whole chat; its first statement is not learnt, since it may be false.

    With a level its first answer stands before it, as in base_example.
    """
    first = [user(OPEN)]
    if level is not None:
        answer = str(answer_in(debate.affirmative[0]))
        first = [user(debate.question.text), assistant(answer, learn=False), user(support(answer))]
    turns = [system(debater_system(debate.question.text, 2 if level is None else level)), *first]
    turns.append(assistant(debate.affirmative[0], learn=False))
    for theirs, ours in zip(debate.negative, debate.affirmative[1:], strict=False):
        turns += [user(attacked(theirs)), assistant(ours)]
    return turns


def negative_chat(debate: Debate, level: int = 2) -> list[Message]:
    """The negative side's whole chat."""
    opening = attack(debate.affirmative[0])
    turns = [system(debater_system(debate.question.text, level)), user(opening), assistant(debate.negative[0])]
    for ours, theirs in zip(debate.affirmative[1:], debate.negative[1:], strict=True):
        turns += [user(attacked(ours)), assistant(theirs)]
    return turns


def moderator_chat(debate: Debate) -> list[Message]:
    """The moderator's whole chat."""
    turns = [system(moderator_system(debate.question.text))]
    for ours, theirs in zip(debate.affirmative, debate.negative, strict=True):
        settled = "yes" if answer_in(ours) == answer_in(theirs) else "no"
        turns += [user(round_text(ours, theirs)), assistant(settled)]
    return turns


def judge_chat(debate: Debate) -> list[Message]:
    """The moderator's chat and the judge's verdict after it."""
    question = debate.question
    side = SIDES[answer_in(debate.affirmative[0]) != question.answer]
    held = f"{answer_in(debate.affirmative[0])} (affirmative) or {answer_in(debate.negative[0])} (negative)?"
    named = (
        question.reason if question.reason.endswith(f"= {question.answer}") else f"{question.reason}: {question.answer}"
    )
    verdict = f"{held} {named} ({side}).\n{question.answer}\n{side}"
    return [*moderator_chat(debate), user(JUDGE), assistant(verdict)]
