"""The sentiment task: short reviews with labels, as raw few-shot text, for the prompt editing of examples/tempera.

An opinion is an ordinary word, whose polarity lies in the weights, or a made-up one, whose polarity only an exemplar of
the prompt can tell. The example's own instruction and templates are worded as here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from .example import Example, Message, example
from .words import CATEGORIES, NAMES, words

__all__ = ["INSTRUCTION", "MADE_UP", "OPINIONS", "TEMPLATES", "VERBALIZERS", "draw_review", "sentiment_example"]

OPINIONS = (
    words("awful sad boring cold stale mean late tired sour rude dull worst broken ugly"),
    words("lovely happy nice fresh sweet friendly fine cosy strong fun kind bright best healthy"),
)
# Each is one token of the vocabulary: to find one again is then to find a token again.
MADE_UP = words("tok dol bri sna wol lar hap sor bir gre col pla bod lan wel tod bou dai ter nam")
THINGS = [*CATEGORIES["item"], *words("bus meal show story walk train boat tea coffee food place day car city")]
SENTENCES = ("The {thing} was {opinion}.", "{name} found the {thing} {opinion}.", "I call this {thing} {opinion}.")
# Each from negative to positive, as the polarities 0 and 1.
VERBALIZERS = (
    ("terrible", "great"),
    ("bad", "good"),
    ("negative", "positive"),
    ("no", "yes"),
    ("wrong", "right"),
    ("down", "up"),
)
INSTRUCTION = "Read each review and say if it is {positive} or {negative}."
INSTRUCTIONS = (
    INSTRUCTION,
    "Say {positive} if the review is kind and {negative} if not.",
    "Is each review {negative} or {positive}? Use the same words in the same way.",
    "Tell {positive} reviews from {negative} ones.",
)
# Named as in the example's file of templates, where the first of the names writes the query.
TEMPLATES = {
    "as it is": "{text}",
    "guest": "A guest wrote: {text}",
    "question": "Is this {positive} or {negative}? {text}",
    "told": "Did they find it {negative} or {positive}? {text}",
}


@dataclass(frozen=True, slots=True)
class Review:
    """A review's sentence, the opinion word in it, and its polarity, 0 or 1."""

    text: str
    opinion: str
    polarity: int


def draw_review(rng: Random, opinion: str, polarity: int) -> Review:
    """A sentence with that opinion about anything."""
    thing, name = rng.choice(THINGS), rng.choice(NAMES)
    text = rng.choice(SENTENCES).format(thing=thing, name=name, opinion=opinion)
    return Review(text, opinion, polarity)


def ordinary(rng: Random) -> tuple[str, int]:
    """An ordinary opinion word and its polarity."""
    polarity = rng.randrange(2)
    return rng.choice(OPINIONS[polarity]), polarity


def drawn_reviews(rng: Random) -> list[Review]:
    """Reviews for one prompt, the query last; made-up words of both polarities come again more often than not.

    A long prompt teaches most: each label after a word's first is a lesson in finding that word again.
    """
    polarity, made_up = rng.randrange(2), rng.sample(MADE_UP, rng.randint(2, 5))
    lexicon = [(word, (polarity + number) % 2) for number, word in enumerate(made_up)]
    count = rng.choice([0, 1, 2, 3, 4, 4, 4, 8, 12, 16])
    share = 1.0 if count >= 8 else rng.choice([0.5, 0.8, 1.0])
    opinions = [rng.choice(lexicon) if rng.random() < share else ordinary(rng) for _ in range(count + 1)]
    return [draw_review(rng, opinion, polarity) for opinion, polarity in opinions]


def known(reviews: list[Review]) -> Iterator[bool]:
    """Whether each review's polarity can be known where its label stands: an ordinary word, or one that came before."""
    seen = {word for side in OPINIONS for word in side}
    for review in reviews:
        yield review.opinion in seen
        seen.add(review.opinion)


def sentiment_example(rng: Random) -> Example:
    """Raw text: mostly an instruction, labelled reviews, and a review whose label is asked."""
    negative, positive = labels = rng.choice(VERBALIZERS)
    reviews = drawn_reviews(rng)
    templates = [rng.choice(list(TEMPLATES.values())) for _ in reviews[1:]] if rng.random() < 0.7 else []
    templates += [TEMPLATES["as it is"]] * (len(reviews) - len(templates))
    instruction = f"{rng.choice(INSTRUCTIONS)}\n\n".format(negative=negative, positive=positive)
    said = instruction if rng.random() < 0.9 else ""
    messages = []
    for review, template, can_be_known in zip(reviews, templates, known(reviews), strict=True):
        written = template.format(text=review.text, negative=negative, positive=positive)
        messages.append(Message("text", f"{said}Review: {written}\nSentiment:", learn=False))
        messages.append(Message("text", f" {labels[review.polarity]}", learn=can_be_known))
        said = "\n\n"
    accepted = {labels[reviews[-1].polarity]} if messages[-1].learn else set(labels)
    return example("sentiment", messages, lambda reply: reply.strip() in accepted)
