"""Speculative execution against our own server: what one request answers is what the model writes by itself."""

from __future__ import annotations

from typing import Any

import ramify as rf
from ramify.backends.openai import OpenAI

from .serving import serving


@rf.program
def words(s: rf.State, start: str) -> Any:
    s += start
    for number in range(3):
        s += " " + rf.gen(f"word{number}", stop=" ", max_tokens=40)


@rf.program
def whole(s: rf.State, start: str) -> Any:
    s += start
    s += " " + rf.gen("text", max_tokens=40)


def test_words_are_those_of_the_text_that_the_model_writes() -> None:
    with serving() as server:
        backend = OpenAI("tiny", base_url=f"{server.url}/v1", is_chat_model=False, flavour="ramify")
        start = "Question: What is 3 + 4? Answer:"
        text = whole.run(start, backend=backend).text
        run = words.options(speculative_tokens=40).run(start, backend=backend)
        backend.close()
    sent = [record for record in run.trace if record.prompt_tokens]
    assert text.startswith(run.text) or run.text.startswith(text), "until the model ends, it is the same text"
    assert len(sent) == 1 or text.removeprefix(start).count(" ") < 4, "one request has answered all three"
