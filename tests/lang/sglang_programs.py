"""Programs as users of SGLang's frontend write them; only the import is another. They are the conformance test's cases.

All are of this project's making. What a case's check says must hold of the run, whatever the model answers.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ramify as sgl


@dataclass(frozen=True)
class Case:
    """A program, its arguments, and what must hold of the state it leaves."""

    program: sgl.SglFunction
    arguments: dict[str, Any]
    check: Callable[[sgl.ProgramState], object]
    settings: dict[str, Any] = field(default_factory=dict)


CASES: list[Case] = []


def case(check: Callable[[sgl.ProgramState], object], settings: dict[str, Any] | None = None, **arguments: Any) -> Any:
    def add(program: sgl.SglFunction) -> sgl.SglFunction:
        CASES.append(Case(program, arguments, check, settings or {}))
        return program

    return add


# Few-shot question answering.

SHOTS = [("What is 2 + 2?", "4"), ("What is 7 + 1?", "8"), ("What is 5 + 0?", "5")]


@case(
    lambda state: state["answer"] and "\n" not in state["answer"] and state.text().count("Q:") == 4, q="What is 3 + 4?"
)
@sgl.function
def few_shot_qa(s, q):
    s += "Answer each question in one line.\n\n"
    for question, answer in SHOTS:
        s += "Q: " + question + "\n" + "A: " + answer + "\n\n"
    s += "Q: " + q + "\n"
    s += "A:" + sgl.gen("answer", stop="\n", max_tokens=12)


# A chat of two turns, with roles in all their forms.


def two_turns(state: sgl.ProgramState) -> object:
    roles = [message["role"] for message in state.messages()]
    return roles == ["system", "user", "assistant", "user", "assistant"] and state["first"] != ""


@case(two_turns, one="What is 3 + 4?", two="What is 2 + 2?")
@sgl.function
def chat_by_expressions(s, one, two):
    s += sgl.system("You are a helpful assistant.")
    s += sgl.user(one)
    s += sgl.assistant(sgl.gen("first", max_tokens=24))
    s += sgl.user(two)
    s += sgl.assistant("I say: " + sgl.gen("second", max_tokens=24))


@case(two_turns, one="What is 3 + 4?", two="What is 2 + 2?")
@sgl.function
def chat_by_blocks(s, one, two):
    with s.system():
        s += "You are a helpful assistant."
    with s.user():
        s += one
    with s.assistant():
        s += sgl.gen("first", max_tokens=24)
    with s.user():
        s += two
    with s.assistant():
        s += "I say: " + sgl.gen("second", max_tokens=24)


@case(two_turns, one="What is 3 + 4?", two="What is 2 + 2?")
@sgl.function
def chat_by_halves(s, one, two):
    s += sgl.system_begin() + "You are a helpful assistant." + sgl.system_end()
    s += sgl.user_begin()
    s += one
    s += sgl.user_end()
    s += sgl.assistant_begin() + sgl.gen("first", max_tokens=24) + sgl.assistant_end()
    s.user(two)
    s.assistant("I say: " + sgl.gen("second", max_tokens=24))


# Choices, and a branch on one.


@case(
    lambda state: state["tool"] in ("calculator", "dictionary") and state.ret_value is not None,
    question="What is 6 * 7?",
)
@sgl.function
def pick_a_tool(s, question):
    s += sgl.user(question + " Which tool helps, a calculator or a dictionary?")
    s += sgl.assistant("A " + sgl.select("tool", choices=["calculator", "dictionary"]))
    if s["tool"] == "calculator":
        s += sgl.user("Write the sum only.")
        s += sgl.assistant(sgl.gen("sum", regex=r"\d \* \d"))
        return eval(s["sum"])
    s += sgl.user("Which word?")
    s += sgl.assistant(sgl.gen("word", max_tokens=8, stop=[".", "\n"]))
    return f"looked up {s['word']}"


@case(lambda state: state["a"] in ("yes", "no") and state["b"] in ("cold", "warm"))
@sgl.function
def choices_in_two_forms(s):
    s += "Is snow warm? " + sgl.gen("a", choices=["yes", "no"], choices_method=sgl.greedy_token_selection)
    s += "\nSnow is " + sgl.select(
        "b", ["cold", "warm"], temperature=0.0, choices_method=sgl.unconditional_likelihood_normalized
    )


# Tools in a loop.


@case(lambda state: state["total"] == sum(state.ret_value) and len(state.ret_value) == 3, amounts=[3, 4, 5])
@sgl.function
def tool_loop(s, amounts):
    results = []
    s["total"] = 0
    for index, amount in enumerate(amounts):
        s += sgl.user(f"Step {index}: the total is {s['total']}. Add or subtract {amount}?")
        s += sgl.assistant(sgl.select(f"op_{index}", ["add", "subtract"]))
        results.append(amount if s[f"op_{index}"] == "add" else -amount)
        s["total"] = s["total"] + results[-1]
    s += sgl.user(f"The total is {s['total']}.")
    return results


# ReAct: thoughts, actions and observations until it finishes.

PLACES = {"oak": "An oak is a tree.", "fox": "A fox is an animal."}


def react_steps(state: sgl.ProgramState) -> object:
    return state.text().count("Thought") == state.text().count("Action") and state.ret_value[0] in ("found", "gave up")


@case(react_steps, question="What is an oak?")
@sgl.function
def react(s, question, max_steps=3):
    s += f"Question: {question}\n"
    for step in range(1, max_steps + 1):
        s += f"Thought {step}:" + sgl.gen(f"thought_{step}", stop=["\n", "Action"], max_tokens=12) + "\n"
        s += f"Action {step}: " + sgl.gen("action", choices=["Look up oak", "Look up fox", "Finish"]) + "\n"
        if s["action"] == "Finish":
            s += "Answer:" + sgl.gen("answer", stop="\n", max_tokens=8)
            return "found", s["answer"]
        topic = s["action"].removeprefix("Look up ")
        s += f"Observation {step}: {PLACES[topic]}\n"
    return "gave up", s[f"thought_{max_steps}"]


# Parallel decoding, with forks in forks.


def nested_forks(state: sgl.ProgramState) -> object:
    return (
        len(state["advice"]) == 2 and all(len(details) == 3 for details in state["detail"]) and state["end"] is not None
    )


@case(nested_forks, topics=["sleep", "food"])
@sgl.function
def parallel_advice(s, topics):
    s += sgl.system("Give short advice.")
    forks = s.fork(len(topics))
    for branch, topic in zip(forks, topics):
        branch += sgl.user(f"Advice on {topic}.") + sgl.assistant(sgl.gen("advice", max_tokens=12))
        parts = branch.fork(3)
        parts += sgl.user("One detail, please.")
        parts += [sgl.assistant(f"{n}. " + sgl.gen("detail", max_tokens=6)) for n in range(3)]
        parts.join()
    forks.join()
    s += sgl.user("Together: " + "; ".join(s["advice"]))
    s += sgl.assistant(sgl.gen("end", max_tokens=12))


@case(lambda state: state.text().count("\nTip") == 3 and len(state["tip"]) == 3)
@sgl.function
def appended_branches(s):
    s += "Tips for a good day."
    forks = s.fork(3, position_ids_offset=[0, 10, 20])
    forks += lambda index: f"\nTip {index + 1}:" + sgl.gen("tip", max_tokens=6, stop=[".", "\n"])
    forks.join("concate_and_append")
    s["tip"] = [branch["tip"] for branch in forks]
    s += "\nDone."


# Fork, judge, merge.

ASPECTS = ["clarity", "tone", "length"]


def judged(state: sgl.ProgramState) -> object:
    return set(json.loads(state["grade"])) == {"score", "good"} and list(state.ret_value) == ASPECTS


GRADE = {
    "type": "object",
    "properties": {"score": {"type": "integer", "minimum": 1, "maximum": 5}, "good": {"type": "boolean"}},
    "required": ["score", "good"],
    "additionalProperties": False,
}


@case(judged, essay="The fox ran. The end.")
@sgl.function
def judge_essay(s, essay):
    s += sgl.system("Judge essays.") + sgl.user("Essay: " + essay)
    forks = s.fork(len(ASPECTS))
    for fork, aspect in zip(forks, ASPECTS):
        fork += (
            sgl.assistant_begin() + f"Its {aspect}:" + sgl.gen("view", max_tokens=10, stop="\n") + sgl.assistant_end()
        )
    views = {aspect: fork["view"] for aspect, fork in zip(ASPECTS, forks)}
    s += sgl.assistant("Views: " + " | ".join(f"{aspect}: {view}" for aspect, view in views.items()))
    s += sgl.user("Grade it as JSON.")
    s += sgl.assistant(sgl.gen("grade", json_schema=json.dumps(GRADE), max_tokens=48))
    return views


# Constrained decoding.


def constrained(state: sgl.ProgramState) -> object:
    shapes = [re.fullmatch(r"(\d{1,3}\.){3}\d{1,3}", state["ip"]), re.fullmatch("[A-Z][a-z]{2,8}", state["name"])]
    kinds = [type(state[name]) for name in ("count", "price", "fresh", "word")]
    return all(shapes) and kinds == [int, float, bool, str]


@case(constrained)
@sgl.function
def constrained_values(s):
    s += "The server has the address " + sgl.gen("ip", regex=r"(\d{1,3}\.){3}\d{1,3}", max_tokens=24)
    s += "\nIts name is " + sgl.gen("name", regex=r"[A-Z][a-z]{2,8}", max_tokens=12)
    s += "\nIt has this many users: " + sgl.gen_int("count", max_tokens=4)
    s += "\nIt costs " + sgl.gen("price", dtype=float, max_tokens=6)
    s += "\nIs it new? " + sgl.gen("fresh", dtype=bool)
    s += "\nIn a word: " + sgl.gen_string("word", max_tokens=6)


# Branching on log-probabilities.


@case(lambda state: state.ret_value[0] in ("sure", "unsure") and len(state.ret_value[1]) == 2, claim="Snow is cold.")
@sgl.function
def ask_when_unsure(s, claim, margin=0.5):
    s += sgl.user(f"{claim} True or false?")
    s += sgl.assistant(sgl.select("verdict", ["true", "false"]))
    logprobs = s.get_meta_info("verdict")["normalized_prompt_logprobs"]
    if abs(logprobs[0] - logprobs[1]) > margin:
        return "sure", logprobs
    s += sgl.user("Why?") + sgl.assistant(sgl.gen("why", max_tokens=12))
    return "unsure", logprobs


# One program calls others; one of them has an argument bound.


@sgl.function
def expand_tip(s, tip, style="short"):
    s += sgl.user(f"Say more about this tip, {style}: {tip}")
    s += sgl.assistant(sgl.gen("expanded", max_tokens=12))
    return s["expanded"]


long_tip = expand_tip.bind(style="long")


@case(lambda state: len(state.ret_value) == 3 and state.ret_value[1] == state["expanded"], topic="staying healthy")
@sgl.function
def expand_tips(s, topic):
    s += sgl.system("Give tips.") + sgl.user(f"Two tips for {topic}.")
    s += sgl.assistant(
        "1." + sgl.gen("tip_1", stop="\n", max_tokens=12) + "\n2." + sgl.gen("tip_2", stop="\n", max_tokens=12)
    )
    draft = s.copy()
    first = expand_tip(draft, s["tip_1"])
    second = long_tip(s, tip=s["tip_2"])
    apart = expand_tip.run(s["tip_1"], temperature=0)
    return [first, second, apart["expanded"]]


# A tree of thought, with helpers that take and give states.


def propose(s, question, num_branches):
    s += sgl.user(question + " Propose a step.")
    forks = s.fork(num_branches)
    for number, branch in enumerate(forks):
        branch += sgl.assistant(f"Step {number}:" + sgl.gen("step", max_tokens=8))
    return forks


def rate(s):
    s += sgl.user("Is this step good?") + sgl.assistant(sgl.select("rating", ["good", "bad"]))
    return s


def keep_best(states, number):
    rated = [rate(state) for state in states]
    return sorted(rated, key=lambda state: state["rating"] != "good")[:number]


@case(
    lambda state: len(state.ret_value) == 4 and set(state["ratings"]) <= {"good", "bad"},
    question="How to cross a river?",
)
@sgl.function
def tree_of_thought(s, question, width=2, depth=2):
    frontier = [s]
    for _ in range(depth):
        found = [branch for state in frontier for branch in propose(state, question, width)]
        frontier = keep_best(found, width)
    leaves = [leaf for state in frontier for leaf in state.fork(2)]
    for leaf in leaves:
        leaf += sgl.user("So?") + sgl.assistant(sgl.gen("answer", max_tokens=8))
    s["ratings"] = [state["rating"] for state in frontier]
    return [leaf["answer"] for leaf in leaves]


# Voting among branches, scopes of variables, and a name that is joined again.


@case(lambda state: state.ret_value == Counter(state["answer"]).most_common(1)[0][0] and len(state["answer"]) == 5)
@sgl.function
def vote(s):
    s += sgl.user("What is 3 + 4?")
    forks = s.fork(5)
    forks += sgl.assistant(sgl.gen("answer", max_tokens=6))
    forks.join()
    (winner, _), *_ = Counter(s["answer"]).most_common(1)
    return winner


@case(lambda state: len(state["x"]) == 3 and state["note"] == "Noted." + state["more"])
@sgl.function
def joins_twice(s):
    for size in (2, 3):
        forks = s.fork(size)
        for index in range(size):
            forks[index] += f"{index}:" + sgl.gen("x", max_tokens=3)
        forks.join()
    with s.var_scope("note"):
        s += "Noted." + sgl.gen("more", max_tokens=3)
