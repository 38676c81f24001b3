"""Invented books, vague questions of readers who look for one, and the clue that a question holds for each field.

The world of the tip-of-the-tongue example (arXiv 2305.15053): author, title, cover and plot draw on the same names,
towns and things, as in a real library, and a question also says what has nothing to do with the book. A clue is copied
from the question word for word; only `date` is a year, counted back from the day of posting where need be.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from .example import Example, Message, example
from .words import CATEGORIES, CITIES, COLOURS, NAMES, a, nonce, words

__all__ = ["CLUE_FIELDS", "INSTRUCTIONS", "NO_CLUE", "Book", "Question", "clue_task", "draw_book", "draw_question"]

NO_CLUE = "N/A"
CLUE_FIELDS = ("author", "cover", "date", "date_extract", "genre", "plot", "title")
MARKS = {field: f"{field.split('_')[0].capitalize()} Clue:" for field in CLUE_FIELDS}

COPY = (
    "Each question is from a reader who looks for a book. Copy the words of the question that are about {subject}. "
    "If there are none, write N/A. Do not guess. Examples:"
)
YEAR = (
    "Each question is from a reader who looks for a book. Write the year in which the book was read or came out, as "
    "four digits. Count back from the day of posting, or else write the year of posting. Examples:"
)
NEXT = "Do the same for this question."
SUBJECTS = {
    "author": "the author",
    "cover": "the cover",
    "date_extract": "when it was read or came out",
    "genre": "the genre",
    "plot": "what happens in it",
    "title": "the title",
}
INSTRUCTIONS = {
    field: (COPY.format(subject=SUBJECTS[field]) if field in SUBJECTS else YEAR, NEXT) for field in CLUE_FIELDS
}
"""For each field, what stands before the worked examples and what stands after them."""

GENRES = words("mystery romance fantasy horror comedy thriller history adventure crime poetry")
JOBS = words("baker doctor teacher sailor farmer painter driver soldier nurse singer judge cook")
MOODS = words("old lost last little cold dark happy strong")
THINGS = CATEGORIES["item"] + CATEGORIES["animal"] + CATEGORIES["vehicle"]
YEARS_AGO = {"five": 5, "ten": 10, "twenty": 20, "thirty": 30}
PRESENT = {"author": 0.3, "cover": 0.5, "date": 0.5, "genre": 0.4, "plot": 0.6, "title": 0.3, "": 0.7}
"""How often a question says something about each field, and something that is about none."""


@dataclass(frozen=True, slots=True)
class Book:
    """An invented book; the texts are made of the parts that questions recall."""

    title: str
    author: str
    year: int
    genre: str
    cover: str
    plot: str
    title_words: tuple[str, str]
    cover_colour: str
    cover_things: tuple[str, str]
    hero: str
    job: str
    towns: tuple[str, str]
    finds: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Question:
    """A reader's question, the day it was posted, and the gold clue of each field (`NO_CLUE` where there is none)."""

    text: str
    posted: str
    clues: dict[str, str]


def draw_book(rng: Random) -> Book:
    """Draw a book published in 1976..2010."""
    title_words = (rng.choice([*MOODS, *COLOURS]), rng.choice(THINGS))
    title = f"The {title_words[0].capitalize()} {title_words[1].capitalize()}"
    colour, things = rng.choice(COLOURS), rng.sample(THINGS, 2)
    hero, friend = rng.sample(NAMES, 2)
    job, towns, finds = rng.choice(JOBS), rng.sample(CITIES, 2), rng.sample(CATEGORIES["item"], 2)
    plot = (
        f"{hero} is {a(job)} in {towns[0]} and finds the {rng.choice(COLOURS)} {finds[0]} of {friend}. "
        f"A {rng.choice(CATEGORIES['animal'])} follows them to {towns[1]}, where they lose a {finds[1]}."
    )
    return Book(
        title=title,
        author=f"{rng.choice(NAMES)} {nonce(rng, capital=True)}",
        year=rng.randint(1976, 2010),
        genre=rng.choice(GENRES),
        cover=f"{a(things[0]).capitalize()} and {a(things[1])} on {colour}",
        plot=plot,
        title_words=title_words,
        cover_colour=colour,
        cover_things=(things[0], things[1]),
        hero=hero,
        job=job,
        towns=(towns[0], towns[1]),
        finds=(finds[0], finds[1]),
    )


def recalled(rng: Random, truth: str, choices: list[str]) -> str:
    """What a reader recalls: mostly the truth, now and then something else."""
    return truth if rng.random() < 0.8 else rng.choice(choices)


def author_clause(rng: Random, book: Book) -> str:
    """What a reader says about the author: one of the two names."""
    first, last = book.author.split()
    said = recalled(rng, first, NAMES)
    return rng.choice(
        [
            f"the author was {said} something",
            f"the author was called {last}",
            f"the author was {said} or {rng.choice(NAMES)}",
        ]
    )


def cover_clause(rng: Random, book: Book) -> str:
    """What a reader says about the cover."""
    colour, thing = recalled(rng, book.cover_colour, COLOURS), rng.choice(book.cover_things)
    return rng.choice(
        [
            f"the cover was {colour}",
            f"the cover was {colour} or {rng.choice(COLOURS)}",
            f"the cover had {a(thing)} on it",
            f"the cover was {colour} with {a(thing)}",
        ]
    )


def title_clause(rng: Random, book: Book) -> str:
    """What a reader says about the title."""
    return rng.choice(
        [
            f"the title had {rng.choice(book.title_words)} in it",
            f"the title was something like {recalled(rng, book.title_words[0], MOODS)} {book.title_words[1]}",
            f"the title had {book.title_words[1]} or {rng.choice(THINGS)} in it",
        ]
    )


def genre_clause(rng: Random, book: Book) -> str:
    """What a reader says about the genre."""
    genre = recalled(rng, book.genre, GENRES)
    return rng.choice([f"it was some kind of {genre}", f"I found it on the shelf for {genre}"])


def plot_clause(rng: Random, book: Book) -> str:
    """What a reader says about the plot: one or two sentences."""
    town, other = rng.sample(book.towns, 2)
    first = rng.choice(
        [
            f"it was about {a(book.job)} called {recalled(rng, book.hero, NAMES)}",
            f"it was about {a(book.job)} in {town}",
            f"it was about {a(recalled(rng, book.job, JOBS))} who finds {a(book.finds[0])}",
        ]
    )
    second = rng.choice([f"At the end they go to {other}", f"At the end they lose {a(book.finds[1])}"])
    return f"{first}. {second}" if rng.random() < 0.5 else first


def other_clause(rng: Random, _book: Book) -> str:
    """What a reader says besides, which is about no field."""
    return rng.choice(
        [
            "please help me find it",
            f"my friend {rng.choice(NAMES)} gave it to me",
            f"I lost my copy in {rng.choice(CITIES)}",
            f"I left it on a {rng.choice(COLOURS)} {rng.choice(CATEGORIES['item'])}",
            f"my {rng.choice(CATEGORIES['animal'])} ate it in {rng.choice(CITIES)}",
        ]
    )


def date_clause(rng: Random, book: Book, posted: int) -> tuple[str, int]:
    """What a reader says about when, and the year that is meant; `posted` is the year of the question."""
    read = book.year + rng.randint(0, 4)
    spans = [word for word, span in YEARS_AGO.items() if posted - span >= book.year]
    span = rng.choice(spans)
    return rng.choice(
        [
            (f"I read it in {read}", read),
            (f"I read it about {span} years ago", posted - YEARS_AGO[span]),
            (f"I read it about {span} years ago", posted - YEARS_AGO[span]),
            (f"it came out in {book.year}", book.year),
        ]
    )


CLAUSES: dict[str, Callable[[Random, Book], str]] = {
    "author": author_clause,
    "cover": cover_clause,
    "genre": genre_clause,
    "plot": plot_clause,
    "title": title_clause,
    "": other_clause,
}


def draw_question(rng: Random, book: Book) -> Question:
    """Draw a question about a book that speaks of two or more of its fields."""
    year = rng.randint(2015, 2023)
    posted = f"{year}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
    fields: list[str] = []
    while len(set(fields) - {""}) < 2:
        fields = [field for field, share in PRESENT.items() if rng.random() < share]
    rng.shuffle(fields)
    meant, clauses = year, {}
    for field in fields:
        if field == "date":
            clauses[field], meant = date_clause(rng, book, year)
        else:
            clauses[field] = CLAUSES[field](rng, book)
    text, spoken = joined(rng, clauses)
    clues = {field: spoken.get(field, NO_CLUE) for field in CLUE_FIELDS if field != "date"}
    return Question(text, posted, clues | {"date": str(meant), "date_extract": spoken.get("date", NO_CLUE)})


def joined(rng: Random, clauses: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Clauses as sentences, some of which hold two of them, and each clause as it stands there."""
    text, spoken = "", {}
    for field, clause in clauses.items():
        goes_on = bool(text) and rng.random() < 0.25
        spoken[field] = clause if goes_on else clause[0].upper() + clause[1:]
        text += f"{' and ' if goes_on else '. ' if text else ''}{spoken[field]}"
    return f"{text}.", spoken


def asked(field: str, question: Question) -> str:
    """A question up to its field's mark, after which the clue is to come."""
    day = f" Question Posted Date: {question.posted}" if field == "date" else ""
    return f"Question: {question.text}{day} {MARKS[field]}"


def clue_task(field: str) -> Callable[[Random], Example]:
    """The task of finding one field's clue, after 0 to 3 worked examples, as raw text; every clue is to be learnt."""

    def task(rng: Random) -> Example:
        questions = [draw_question(rng, draw_book(rng)) for _ in range(rng.choice([1, 2, 3, 3, 4]))]
        before, after = INSTRUCTIONS[field]
        *shots, question = questions
        messages = [Message("text", f"{before}\n", learn=False)]
        for shot in shots:
            messages += [Message("text", asked(field, shot), learn=False), Message("text", f" {shot.clues[field]}\n")]
        last = question.clues[field]
        messages += [Message("text", f"\n{after}\n{asked(field, question)}", learn=False), Message("text", f" {last}")]
        return example(f"clue-{field}", messages, lambda reply: reply.strip().split("\n")[0].strip() == last)

    return task
