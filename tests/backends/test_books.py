"""The invented books: clues are copied from the question, years are resolved, prompts stay short."""

from random import Random

import pytest
from ramify.backends.tiny import model_dir
from ramify.backends.tiny.books import CLUE_FIELDS, NO_CLUE, YEARS_AGO, draw_book, draw_question
from ramify.backends.tiny.tasks import draw_task
from tokenizers import Tokenizer

TOKENIZER = Tokenizer.from_file(str(model_dir() / "tokenizer.json"))


def test_clues_are_words_of_the_question_and_together_all_that_is_about_the_book() -> None:
    rng = Random(0)
    for _ in range(300):
        question = draw_question(rng, draw_book(rng))
        copied = {field: clue for field, clue in question.clues.items() if field != "date" and clue != NO_CLUE}
        assert len(copied) >= 2
        assert all(clue in question.text for clue in copied.values())
        assert set(question.clues) == set(CLUE_FIELDS)


def test_the_date_is_counted_back_from_the_day_of_posting() -> None:
    rng, seen = Random(1), set()
    for _ in range(400):
        book = draw_book(rng)
        question = draw_question(rng, book)
        said, meant, posted = question.clues["date_extract"], question.clues["date"], int(question.posted[:4])
        ago = [span for word, span in YEARS_AGO.items() if f"about {word} years ago" in said]
        seen.add((said == NO_CLUE, *ago))
        if ago:
            assert int(meant) == posted - ago[0] >= book.year
        elif said == NO_CLUE:
            assert int(meant) == posted
        else:
            assert meant in said
    assert seen == {(True,), (False,), *((False, span) for span in YEARS_AGO.values())}


@pytest.mark.parametrize("field", CLUE_FIELDS)
def test_prompts_are_short(field: str) -> None:
    drawn = [draw_task(f"clue-{field}", "held-out", index) for index in range(100)]
    lengths = [len(TOKENIZER.encode("".join(m.content for m in example.messages)).ids) for example in drawn]
    assert max(lengths) < 500 and sum(lengths) / len(lengths) < 320
