"""The tasks of the embedded model: each is a function from a random generator to an Example.

The closed, templated world is deliberate: a model of this size is only good at what it has seen often. Tasks of the
example programs have their own modules. `TASKS` maps a task's name to its generator and its share of the training
conversations.
"""

import json
from collections.abc import Callable
from random import Random

from . import apis, books, calls, debate, reviews
from .example import Example, Message, Split, assistant, example, random_for, system, user
from .words import CATEGORIES, CHAT, CITIES, COLOURS, FACTS, MOODS, NAMES, THINGS, TIPS, UNKNOWN, a, nonce

__all__ = ["DEMO_TASKS", "TASKS", "draw", "draw_task"]

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "Answer briefly.",
    "You are a careful assistant. Answer in few words.",
)
SHORT = (" Answer briefly.", " Answer with the number only.", " Just the answer.")
SUMS_REQUESTS = ("Work these out, one per line: {sums}", "Solve: {sums}", "Write the results: {sums}")
YES_NO = (" Answer yes or no.", " Yes or no?", " Reply with yes or no.")
PICK = ("Answer with one of the options.", "Choose one option.", "Pick one.")
PEOPLE = (
    "{name} is {age} years old and lives in {city}.",
    "{name}, aged {age}, comes from {city}.",
    "My name is {name}, I am {age} and I live in {city}.",
    "In {city} lives {name}, who is {age} years old.",
)
ORDERS = (
    "{name} bought a {colour} {item} for {price} dollars in {city}.",
    "{name} from {city} sells a {colour} {item} for {price} dollars.",
    "A {colour} {item} costs {price} dollars, says {name} in {city}.",
    "For {price} dollars {name} ordered a {colour} {item} from {city}.",
)
FIELD_QUESTIONS = ("What is the {field}?", "Give the {field}.", "Which {field} is named?", "Find the {field}.")
JSON_REQUESTS = ("Give the {fields} as JSON.", "Extract the {fields} as JSON.", "Answer in JSON with {fields}.")
COPY_REQUESTS = ("Repeat: {text}", "Copy this text: {text}", "Say exactly: {text}", "Quote this: {text}")
LIST_REQUESTS = ("Repeat this list, one item per line: {text}", "Write each item on its own line: {text}")


def opened(rng: Random, turns: list[Message]) -> list[Message]:
    """The turns, sometimes after a general system prompt."""
    return [system(rng.choice(SYSTEM_PROMPTS)), *turns] if rng.random() < 0.3 else turns


def exchange(pairs: list[tuple[str, str]]) -> list[Message]:
    """A chat from (user, assistant) texts."""
    return [turn for asked, said in pairs for turn in (user(asked), assistant(said))]


def joined(words: list[str], last: str = "and") -> str:
    """a, b and c."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def quiz(rng: Random) -> Example:
    """Short questions of arithmetic and comparison, answered with the bare answer."""
    pairs = []
    for _ in range(rng.randint(1, 8)):
        question = debate.draw_question(rng)
        pairs.append((question.text + (rng.choice(SHORT) if rng.random() < 0.2 else ""), question.answer))
    return example("quiz", opened(rng, exchange(pairs)))


def sums(rng: Random) -> Example:
    """Several sums at once, each repeated with its result: the form in which the debaters reason."""
    drawn = [debate.calculation(rng) for _ in range(rng.randint(2, 8))]
    asked = rng.choice(SUMS_REQUESTS).format(sums=", ".join(text for text, _ in drawn))
    return example("sums", opened(rng, exchange([(asked, "\n".join(f"{text} = {result}" for text, result in drawn))])))


def fact_question(rng: Random) -> tuple[str, str]:
    """A yes/no question on a known fact, a category, two numbers, or a sentence given with it."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice(list(FACTS.items()))
    if kind == 1:
        category, other = rng.sample([name for name in CATEGORIES if name != "city"], 2)
        noun = rng.choice(CATEGORIES[category])
        true = rng.random() < 0.5
        return f"Is {noun} {a(category if true else other)}?", "yes" if true else "no"
    if kind == 2:
        left, right = rng.sample(range(21), 2)
        word = rng.choice(["larger", "smaller"])
        return f"Is {left} {word} than {right}?", "yes" if (left > right) == (word == "larger") else "no"
    return read_question(rng)


def read_question(rng: Random) -> tuple[str, str]:
    """A yes/no question on the sentence before it."""
    item, (told, other) = rng.choice(CATEGORIES["item"]), rng.sample(COLOURS, 2)
    true = rng.random() < 0.5
    return f"The {item} is {told}. Is the {item} {told if true else other}?", "yes" if true else "no"


def yes_no(rng: Random) -> Example:
    """Yes/no questions."""
    pairs = []
    for _ in range(rng.randint(1, 5)):
        question, answer = fact_question(rng)
        pairs.append((question + rng.choice(("", *YES_NO)), answer))
    return example("yes-no", opened(rng, exchange(pairs)))


def pick_question(rng: Random) -> tuple[str, str]:
    """A question with listed options: by category, by a sentence, or by mood."""
    kind = rng.randrange(3)
    if kind == 0:
        names = rng.sample(list(CATEGORIES), rng.randint(2, 4))
        options = [rng.choice(CATEGORIES[name]) for name in names]
        asked, answer = f"Which one is {a(names[0])}?", options[0]
    elif kind == 1:
        options = rng.sample(rng.choice(list(CATEGORIES.values())), rng.randint(2, 4))
        answer = options[0]
        asked = rng.choice(["{} likes {} most. What does {} like?", "{} chose {}. What did {} choose?"])
        name = rng.choice(NAMES)
        asked = asked.format(name, answer, name)
    else:
        options, answer = ["positive", "negative"], rng.choice(["positive", "negative"])
        sentence = rng.choice(MOODS[answer].rstrip(".").split(". "))
        asked = f'Is this sentence positive or negative? "{sentence}."'
    options = rng.sample(options, len(options))
    return laid_out(rng, asked, options), answer


def laid_out(rng: Random, asked: str, options: list[str]) -> str:
    """A question and its options in one of a few layouts."""
    listed = f"Options: {', '.join(options)}."
    parts = [listed, asked] if rng.random() < 0.6 else [asked, listed]
    if rng.random() < 0.4:
        parts.append(rng.choice(PICK))
    return rng.choice([" ", "\n"]).join(parts)


def pick(rng: Random) -> Example:
    """Choosing one of the listed options, word for word."""
    return example("pick", opened(rng, exchange([pick_question(rng) for _ in range(rng.randint(1, 3))])))


def drawn_record(rng: Random) -> tuple[str, dict[str, str | int]]:
    """A sentence about a person or an order, and the fields that it holds, in the order of the request."""
    made_up = rng.random() < 0.3
    record: dict[str, str | int] = {
        "name": nonce(rng, capital=True) if made_up else rng.choice(NAMES),
        "city": nonce(rng, capital=True) if made_up else rng.choice(CITIES),
    }
    if rng.random() < 0.5:
        record = {"name": record["name"], "age": rng.randint(5, 90), "city": record["city"]}
        return rng.choice(PEOPLE).format(**record), record
    record |= {"item": rng.choice(CATEGORIES["item"]), "colour": rng.choice(COLOURS), "price": rng.randint(2, 99)}
    return rng.choice(ORDERS).format(**record), record


def extract(rng: Random) -> Example:
    """Fields of a sentence, asked one after another in one chat."""
    sentence, record = drawn_record(rng)
    fields = rng.sample(list(record), rng.randint(1, len(record)))
    asked = [rng.choice(FIELD_QUESTIONS).format(field=field) for field in fields]
    asked[0] = f"{sentence}{rng.choice([' ', chr(10)])}{asked[0]}"
    answers = [str(record[field]) for field in fields]
    return example("extract", opened(rng, exchange(list(zip(asked, answers, strict=True)))))


def extract_json(rng: Random) -> Example:
    """Fields of a sentence as one compact JSON object, keys in the order of the request."""
    sentence, record = drawn_record(rng)
    fields = rng.sample(list(record), rng.randint(2, min(4, len(record))))
    request = rng.choice(JSON_REQUESTS).format(fields=joined(fields))
    answer = json.dumps({field: record[field] for field in fields}, separators=(",", ":"))
    asked = f"{sentence}{rng.choice([' ', chr(10)])}{request}"
    return example("extract-json", opened(rng, exchange([(asked, answer)])))


def copied_words(rng: Random) -> list[str]:
    """Random words to copy, known and made up."""
    known = rng.choice(list(CATEGORIES.values()))
    return [nonce(rng) if rng.random() < 0.4 else rng.choice(known) for _ in range(rng.choice([1, 2, 4, 8, 16]))]


def copy(rng: Random) -> Example:
    """Repeating a short text, or a list line by line."""
    words = copied_words(rng)
    if rng.random() < 0.3:
        return example("copy", exchange([(rng.choice(LIST_REQUESTS).format(text=", ".join(words)), "\n".join(words))]))
    text = rng.choice([" ".join(words), joined(words), drawn_record(rng)[0], rng.choice(list(FACTS))])
    return example("copy", opened(rng, exchange([(rng.choice(COPY_REQUESTS).format(text=text), text)])))


def chat(rng: Random) -> Example:
    """Greetings, questions about the model, small talk."""
    pairs = [(rng.choice(asked), said) for asked, said in rng.sample(CHAT, rng.randint(1, 4))]
    return example("chat", opened(rng, exchange(pairs)))


def tips(rng: Random) -> Example:
    """A list of tips on a known topic, each then explained when asked."""
    topic = rng.choice(list(TIPS))
    known = list(TIPS[topic].items())
    count = rng.randint(1, len(known))
    listed = "\n".join(f"{number}. {tip}" for number, (tip, _) in enumerate(known[:count], 1))
    wording = rng.choice(["Give {} on {}.", "List {} for {}.", "Write {} about {}."])
    pairs = [(wording.format("one tip" if count == 1 else f"{count} tips", topic), listed)]
    for tip, reason in rng.sample(known[:count], rng.randint(0, count)):
        pairs.append((f"Explain this tip in one sentence: {tip}", reason))
    if rng.random() < 0.4 and len(pairs) > 1:
        pairs = pairs[1:]
    return example("tips", opened(rng, exchange(pairs)))


def unknown(rng: Random) -> Example:
    """A question outside the model's world, which it should say it cannot answer."""
    thing = rng.choice([nonce(rng, capital=True), "the " + nonce(rng), *rng.sample(THINGS, 4)])
    return example("unknown", opened(rng, exchange([(rng.choice(UNKNOWN).format(x=thing), "I do not know.")])))


def completion(rng: Random) -> Example:
    """Raw few-shot text with no chat roles, ending in one more answer."""
    ask = rng.choice([debate.draw_question, debate.draw_question, None])
    shots = []
    for _ in range(rng.randint(2, 5)):
        question = ask(rng) if ask else None
        shots.append((question.text, question.answer) if question else fact_question(rng))
    blocks = [f"Q: {asked}\nA:" for asked, _ in shots]
    text = "".join(f"{block} {answer}\n\n" for block, (_, answer) in zip(blocks, shots[:-1], strict=False)) + blocks[-1]
    last = shots[-1][1]
    return example("completion", [Message("text", text), Message("text", f" {last}")], starts_with(last))


def starts_with(answer: str) -> Callable[[str], bool]:
    """Accept a reply whose first line is the answer (raw text has no end of turn)."""
    return lambda reply: reply.strip().split("\n")[0].strip() == answer


TASKS: dict[str, tuple[Callable[[Random], Example], float]] = {
    "debate-open": (debate.opening_example, 1.0),
    "debate-attack": (debate.attack_example, 1.0),
    "debate-reply": (debate.reply_example, 0.8),
    "debate-moderate": (debate.moderator_example, 0.3),
    "debate-judge": (debate.judge_example, 1.0),
    "argue-base": (debate.base_example, 0.6),
    "argue-level": (debate.level_example, 1.0),
    "argue-moderate": (debate.settled_example, 1.5),
    "argue-judge": (debate.verdict_example, 1.5),
    "quiz": (quiz, 1.2),
    "sums": (sums, 0.6),
    "yes-no": (yes_no, 0.8),
    "pick": (pick, 0.6),
    "extract": (extract, 0.5),
    "extract-json": (extract_json, 0.5),
    "copy": (copy, 1.5),
    "chat": (chat, 0.1),
    "tips": (tips, 0.1),
    "unknown": (unknown, 0.1),
    "completion": (completion, 0.5),
    "api-call": (apis.api_call, 2.0),
    **{f"clue-{field}": (books.clue_task(field), 0.6 if field == "date" else 0.35) for field in books.CLUE_FIELDS},
    "tool-call": (calls.call_example, 2.6),
    "sentiment": (reviews.sentiment_example, 4.0),
}
DEMO_TASKS = tuple(name for name in TASKS if name.startswith(("debate-", "argue-")))


def draw(split: Split, index: int) -> Example:
    """Draw example `index` of a split from the mixture of tasks; equal arguments give equal examples."""
    rng = random_for(split, index)
    (generate,) = rng.choices([task for task, _ in TASKS.values()], [share for _, share in TASKS.values()])
    return generate(rng)


def draw_task(task: str, split: Split, index: int) -> Example:
    """Draw example `index` of one task."""
    return TASKS[task][0](random_for(split, index))
