"""The words and sentences that the task generators draw from: a small closed world, on purpose."""

from random import Random

__all__ = [
    "CATEGORIES",
    "CHAT",
    "CITIES",
    "COLOURS",
    "FACTS",
    "MOODS",
    "NAMES",
    "THINGS",
    "TIPS",
    "UNKNOWN",
    "a",
    "nonce",
    "words",
]


def words(text: str, separator: str | None = None) -> list[str]:
    """The words of a text, which reads better than a list of quoted ones."""
    return text.split(separator)


NAMES = words(
    "Anna Ben Carla David Emma Felix Grace Henry Ida Jack Karin Leo Maria Nils Olga Paul Quinn Rosa Sam Tara Uma "
    "Victor Wendy Yusuf Zoe Alice Bob Clara Daniel Eva Frank Hanna Ivan Julia Kofi Lena Mark Nora Omar Peter Ruth "
    "Simon Tom"
)
CITIES = words(
    "Paris London Berlin Madrid Rome Vienna Oslo Lisbon Dublin Prague Athens Warsaw Cairo Tokyo Delhi Boston Chicago "
    "Toronto Sydney Lima Nairobi Seoul Hamburg Munich Zurich Geneva Lyon Porto Milan Helsinki"
)
COLOURS = words("red green blue yellow black white brown orange pink grey purple")
CATEGORIES = {
    "colour": COLOURS,
    "animal": words("dog cat horse cow sheep goat pig duck fish bird mouse lion tiger bear wolf rabbit frog bee"),
    "fruit": words("apple banana pear cherry grape lemon plum peach mango melon fig kiwi"),
    "item": words("book lamp chair table bag cup hat coat clock phone bike pen ring desk knife camera radio umbrella"),
    "city": CITIES,
    "drink": words("water tea coffee milk juice wine beer cocoa"),
    "vehicle": words("car bus train boat plane truck ship tram"),
}
FACTS = {
    "Is the sky blue?": "yes",
    "Is ice cold?": "yes",
    "Is ice hot?": "no",
    "Is fire hot?": "yes",
    "Is fire cold?": "no",
    "Is water wet?": "yes",
    "Is the sun a star?": "yes",
    "Is the moon a star?": "no",
    "Can birds fly?": "yes",
    "Can stones swim?": "no",
    "Can fish swim?": "yes",
    "Can dogs fly?": "no",
    "Is grass green?": "yes",
    "Is snow black?": "no",
    "Is snow white?": "yes",
    "Is a week seven days long?": "yes",
    "Is a day ten hours long?": "no",
    "Is Paris in France?": "yes",
    "Is Berlin in France?": "no",
    "Is Rome in Italy?": "yes",
    "Is London in Spain?": "no",
    "Is sugar sweet?": "yes",
    "Is a lemon sweet?": "no",
    "Is a lemon sour?": "yes",
    "Does a car have wheels?": "yes",
    "Does a snake have legs?": "no",
    "Does a dog have four legs?": "yes",
    "Is the night dark?": "yes",
    "Is the earth round?": "yes",
    "Is the earth flat?": "no",
}
MOODS = {
    "positive": "I love it. It was great. What a lovely day. This works very well. I am happy. The food was good. "
    "It is the best. A wonderful book. I like this place. Everyone was kind.",
    "negative": "I hate it. It was awful. What a terrible day. This never works. I am sad. The food was bad. "
    "It is the worst. A boring book. I dislike this place. Everyone was rude.",
}
TIPS = {
    "staying healthy": {
        "Eat fresh food.": "Fruit and vegetables give the body what it needs.",
        "Sleep enough.": "Eight hours of sleep keep the mind clear.",
        "Move every day.": "A short walk each day keeps the heart strong.",
        "Drink water.": "Water helps the body work well all day.",
    },
    "learning": {
        "Practise a little every day.": "Small daily steps stay in the memory.",
        "Teach it to a friend.": "Saying it aloud shows what is still unclear.",
        "Take breaks.": "A rested mind learns faster.",
        "Write short notes.": "Notes in your own words are easy to remember.",
    },
    "saving money": {
        "Write down what you spend.": "A list shows where the money goes.",
        "Cook at home.": "A meal at home costs less than one outside.",
        "Wait a day before you buy.": "Many wishes are gone by the next day.",
        "Compare prices.": "The same thing is often cheaper elsewhere.",
    },
    "writing code": {
        "Keep functions short.": "A short function is easy to read and to test.",
        "Choose clear names.": "A good name says what a thing is for.",
        "Write tests.": "Tests show at once when something breaks.",
        "Commit often.": "Small commits are easy to check and to undo.",
    },
}
CHAT = (
    (("Hello!", "Hi!", "Hello there.", "Good morning!", "Hey"), "Hello! How can I help?"),
    (("How are you?", "How are you today?", "How is it going?"), "I am fine, thank you. How are you?"),
    (("I am fine.", "I am well, thanks.", "Fine, thank you."), "Good to hear."),
    (
        ("Who are you?", "What are you?", "Introduce yourself.", "What is your name?", "Tell me who you are."),
        "I am the small model inside ramify.",
    ),
    (
        ("What can you do?", "How can you help me?", "What do you know?"),
        "I can add small numbers, compare them, pick from options, find facts in a sentence and give short tips.",
    ),
    (("Are you a human?", "Are you a person?", "Are you real?"), "No, I am a small language model."),
    (("Are you smart?", "Are you a big model?", "How big are you?"), "I am very small, so please check what I say."),
    (("Thank you!", "Thanks.", "Thanks a lot!", "Thank you very much."), "You are welcome."),
    (("Goodbye!", "Bye.", "See you later.", "Good night."), "Goodbye, and take care."),
    (
        ("Tell me a joke.", "Make me laugh.", "Do you know a joke?"),
        "Why did the token cross the cache? To reach the next page.",
    ),
    (
        ("What is ramify?", "Tell me about ramify.", "Explain ramify."),
        "Ramify is a language, a compiler and a runtime for programs that call language models.",
    ),
    (("I am tired.", "I feel tired.", "I am so tired."), "Then take a break and sleep early tonight."),
    (("I am sad.", "I feel sad today.", "I feel bad."), "I am sorry. Talk to a friend, or take a walk outside."),
    (("I am bored.", "What should I do today?"), "Read a good book, or call an old friend."),
    (
        ("Tell me a story.", "Tell me a short story."),
        "Once a small model met a big question. It said what it knew, and went to sleep.",
    ),
)
UNKNOWN = (
    "Who wrote {x}?",
    "What is the capital of {x}?",
    "When was {x} born?",
    "Explain the history of {x}.",
    "How do I build {x}?",
    "What happened in {x} last year?",
    "Who is the president of {x}?",
    "What does {x} mean in law?",
    "Write an essay about {x}.",
    "How many people live in {x}?",
    "What is the weather in {x}?",
    "Why is {x} so famous?",
    "Translate {x} into French.",
    "Who won the match against {x}?",
)
THINGS = words(
    "France|Brazil|the moon|the war|Mars|the ocean|physics|chemistry|quantum theory|the French Revolution|gravity|"
    "Shakespeare|Einstein|Mozart|the president|football|a bridge|a house|a database|a compiler|the internet|Python|"
    "an engine|the stock market|a contract|music|philosophy|the brain|a virus|a computer|the Roman empire|biology|"
    "language|the economy|climate|a rocket|a novel|photosynthesis|the universe|art|evolution|electricity|a poem|taxes",
    "|",
)
SYLLABLES = words(
    "ba be bo da de do fa fi ga go ka ki ko la le lo ma mi mo na ne no pa "
    "pe po ra re ri ro sa se so ta te to va vi za zo"
)


def nonce(rng: Random, capital: bool = False) -> str:
    """A made-up word, so that copying cannot lean on known words."""
    word = "".join(rng.choices(SYLLABLES, k=rng.randint(2, 3))) + rng.choice(["", "", "n", "r", "s", "l"])
    return word.capitalize() if capital else word


def a(noun: str) -> str:
    """The noun with its indefinite article."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
