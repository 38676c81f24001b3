"""Measure the embedded model: `python -m ramify.backends.tiny.evaluate [--draws N] [--task NAME ...]`.

Draws fresh held-out examples, lets the model answer each greedily through ramify's own engine, and prints the share of
accepted replies of each task.
"""

import argparse

import ramify as rf

from .example import Example, Message
from .tasks import TASKS, draw_task

__all__ = ["accuracy", "held_out", "main"]

MAX_TOKENS = 128


@rf.program
def reply(s, messages: list[Message], max_tokens: int):  # type: ignore[no-untyped-def]
    """Answer a chat greedily."""
    for message in messages:
        if message.role == "system":
            s += rf.system(message.content)
        elif message.role == "user":
            s += rf.user(message.content)
        elif message.role == "tool":
            s += rf.tool_message(message.content)
        else:
            s += rf.assistant(message.content)
    s += rf.assistant(rf.gen("reply", max_tokens=max_tokens, temperature=0))


@rf.program
def continuation(s, text: str, max_tokens: int):  # type: ignore[no-untyped-def]
    """Go on with raw text up to the end of the line, greedily."""
    s += text
    s += rf.gen("reply", max_tokens=max_tokens, temperature=0, stop="\n")


def held_out(task: str, draws: int) -> list[Example]:
    """The first held-out draws of a task."""
    return [draw_task(task, "held-out", index) for index in range(draws)]


def replies(examples: list[Example]) -> list[str]:
    """What the model says to each example; the examples are all chats or all raw text."""
    if examples[0].messages[-1].role == "text":
        texts = ("".join(message.content for message in example.prompt) for example in examples)
        rows = [{"text": text, "max_tokens": MAX_TOKENS} for text in texts]
        return [run["reply"] for run in continuation.run_batch(rows)]
    chats = [{"messages": list(example.prompt), "max_tokens": MAX_TOKENS} for example in examples]
    return [run["reply"] for run in reply.run_batch(chats)]


def accuracy(task: str, draws: int) -> float:
    """The share of a task's first held-out draws whose greedy reply is accepted."""
    examples = held_out(task, draws)
    accepted = [example.accepts(said) for example, said in zip(examples, replies(examples), strict=True)]
    return sum(accepted) / draws


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(description="Measure ramify's embedded model.")
    parser.add_argument("--draws", type=int, default=200, help="held-out draws of each task")
    parser.add_argument("--task", action="append", choices=list(TASKS), help="only this task (may be repeated)")
    arguments = parser.parse_args()
    print(f"{'task':16} accuracy over {arguments.draws} held-out draws")
    for task in arguments.task or TASKS:
        print(f"{task:16} {accuracy(task, arguments.draws):.3f}", flush=True)


if __name__ == "__main__":
    main()
