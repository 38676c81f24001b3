"""Calls of tools: invented functions are declared as JSON, a request is answered with a JSON list of calls.

The text is that of a program that declares tools with `rf.system(text, tools=...)` and asks for
`rf.gen("calls", tools=..., num_calls="any")`, for a model whose chat template has no form for tools. A request names a
function in words and gives its arguments word for word; one that no function fits is answered with an empty list.
"""

import json
from dataclasses import dataclass
from random import Random
from typing import Any

from .example import Example, Message, assistant, example, system, tool, user
from .words import CATEGORIES, CITIES, COLOURS, NAMES, nonce, words

__all__ = ["RESULT", "SYSTEM", "Function", "call_example", "declared", "draw_functions"]

SYSTEM = "Answer with a JSON list of calls of tools, or [] if none is needed."
RESULT = "What is the result?"
DECLARED = "These tools can be called:"
"""What ramify writes between the system text and the tools."""
VERBS = words("book find send order check add open move sell paint count rent fix hide make plan sort test wash get")
OBJECTS = words(
    "room ticket note bill list party meal song game photo trip task shop table lamp bike car boat dog horse cup coat "
    "price route area speed score rate"
)
WHOLE = words("count age days size year number width length level hours")
BROKEN = words("weight price rate speed height cost")
WORDS = {"name": NAMES, "city": CITIES, "colour": COLOURS, "item": CATEGORIES["item"], "drink": CATEGORIES["drink"]}
FREE = words("title place owner friend brand code from_city to_city")
ENUMS = {
    "unit": words("cm m km feet"),
    "class": words("first second third"),
    "mood": words("happy sad calm"),
    "time": words("morning noon night"),
    "order": words("up down"),
}
FLAGS = words("urgent secret paid open round")
WORDINGS = (
    "Please {asked} with {given}.",
    "{asked}: {given}.",
    "I want to {asked} with {given}.",
    "Can you {asked}? Use {given}.",
)
MOST_PARAMETERS = 4
"""Of all declared functions together: prompts stay short."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function: how it is asked for in words, and what is declared of it."""

    name: str
    asked: str
    parameters: dict[str, dict[str, Any]]
    required: tuple[str, ...]

    @property
    def description(self) -> str:
        """What the declaration says of it."""
        return self.asked.capitalize() + "."

    def declaration(self) -> str:
        """The line of JSON by which ramify tells of it."""
        parameters = {"type": "object", "properties": self.parameters, "required": list(self.required)}
        function = {"name": self.name, "description": self.description, "parameters": parameters}
        return compact({"type": "function", "function": function})


def compact(value: object) -> str:
    """JSON without spaces."""
    return json.dumps(value, separators=(",", ":"))


def declared(functions: list[Function]) -> Message:
    """The system message that declares functions."""
    return system("\n".join([f"{SYSTEM}\n\n{DECLARED}", *(function.declaration() for function in functions)]))


def draw_parameter(rng: Random) -> tuple[str, dict[str, Any]]:
    """A parameter's name and its schema."""
    kind = rng.choice(["integer", "integer", "number", "words", "words", "free", "enum", "boolean"])
    if kind == "integer":
        return rng.choice(WHOLE), {"type": "integer"}
    if kind == "number":
        return rng.choice(BROKEN), {"type": "number"}
    if kind == "enum":
        name = rng.choice(list(ENUMS))
        return name, {"type": "string", "enum": list(ENUMS[name])}
    if kind == "boolean":
        return rng.choice(FLAGS), {"type": "boolean"}
    return rng.choice(list(WORDS) if kind == "words" else FREE), {"type": "string"}


def draw_function(rng: Random, asked: str, size: int) -> Function:
    """A function of a wording, with `size` parameters or one fewer, of which the last may be left out of a call."""
    parameters = dict(draw_parameter(rng) for _ in range(size))
    if rng.random() < 0.15:
        for name, schema in parameters.items():
            schema["description"] = f"The {name.replace('_', ' ')}."
    verb, noun = asked.split(" a ")
    name = rng.choice([f"{verb}_{noun}", f"{verb}_{noun}", f"{noun}.{verb}", f"{verb}{noun.capitalize()}"])
    required = list(parameters)
    if len(required) > 1 and rng.random() < 0.3:
        required.pop()
    return Function(name, asked, parameters, tuple(required))


def draw_functions(rng: Random) -> list[Function]:
    """One to three functions that differ in name."""
    count = rng.choice([1, 1, 2, 2, 3])
    sizes = [rng.randint(1, 3) for _ in range(count)]
    while sum(sizes) > MOST_PARAMETERS:
        sizes[sizes.index(max(sizes))] -= 1
    return [draw_function(rng, asked, size) for asked, size in zip(draw_asked(rng, count), sizes, strict=True)]


def draw_asked(rng: Random, count: int) -> list[str]:
    """Different things to ask for; now and then made-up words among them, and often some that share a word."""
    verbs, nouns = rng.sample(VERBS, 2), rng.sample(OBJECTS, 2)
    if rng.random() < 0.3:
        nouns[0] = nonce(rng)
    return [f"{verb} a {noun}" for verb, noun in rng.sample([(v, n) for v in verbs for n in nouns], count)]


def draw_value(rng: Random, name: str, schema: dict[str, Any]) -> Any:
    """A value for a parameter."""
    if schema["type"] == "integer":
        return rng.choice([rng.randint(0, 20), rng.randint(0, 99), rng.randint(100, 2999)])
    if schema["type"] == "number":
        return rng.randint(1, 99) + rng.randint(1, 9) / 10
    if schema["type"] == "boolean":
        return rng.random() < 0.5
    if "enum" in schema:
        return rng.choice(schema["enum"])
    if name in WORDS and rng.random() < 0.6:
        return rng.choice(WORDS[name])
    made_up = nonce(rng, capital=rng.random() < 0.7)
    return f"{rng.choice(NAMES)} {made_up}" if rng.random() < 0.15 else made_up


def draw_call(rng: Random, function: Function) -> tuple[str, dict[str, Any]]:
    """A request for a call of a function, and the call."""
    given = {
        name: draw_value(rng, name, schema)
        for name, schema in function.parameters.items()
        if name in function.required or rng.random() < 0.3
    }
    told = [f"{name.replace('_', ' ')} {spoken(value)}" for name, value in given.items()]
    if rng.random() < 0.25:
        rng.shuffle(told)
    asked = rng.choice(WORDINGS).format(asked=function.asked, given=" and ".join(told))
    return asked[0].upper() + asked[1:], {"name": function.name, "arguments": given}


def spoken(value: Any) -> str:
    """A value as a request has it."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def draw_turn(rng: Random, functions: list[Function]) -> tuple[str, list[dict[str, Any]]]:
    """A request, and its calls: one, two of the same or of different functions, or none."""
    kind = rng.random()
    if kind < 0.15:
        missing = next(f for f in iter(lambda: draw_functions(rng)[0], None) if not is_known(f, functions))
        return draw_call(rng, missing)[0], []
    requests, calls = zip(*(draw_call(rng, rng.choice(functions)) for _ in range(2 if kind > 0.7 else 1)), strict=True)
    return " ".join(requests), list(calls)


def is_known(function: Function, functions: list[Function]) -> bool:
    """Whether what a function is asked for is among functions."""
    return function.asked in [other.asked for other in functions]


def draw_result(rng: Random) -> str | int:
    """What a call gave."""
    results: list[str | int] = [rng.randint(0, 999), rng.choice(COLOURS), rng.choice(CITIES), nonce(rng), "done"]
    return rng.choice(results)


def results_told(results: list[str | int]) -> str:
    """The answer to what the result is."""
    told = " and ".join(map(str, results))
    return f"The result is {told}." if len(results) == 1 else f"The results are {told}."


def call_example(rng: Random) -> Example:
    """Requests and their calls; after some the results, and either an end without further calls or a word on them."""
    functions = draw_functions(rng)
    messages = [declared(functions)]
    for _ in range(rng.choice([0, 0, 1, 2, 3, 4])):
        messages += answered(rng, functions)
    asked, calls = draw_turn(rng, functions)
    messages += [user(asked), assistant(compact(calls))]
    if not calls or rng.random() < 0.8:
        return scored(messages)
    results = [draw_result(rng) for _ in calls]
    messages += told(results)
    if rng.random() < 0.5:
        return scored([*messages, assistant("[]")])
    return example("tool-call", [*messages, user(RESULT), assistant(results_told(results))])


def answered(rng: Random, functions: list[Function]) -> list[Message]:
    """A turn before the last one."""
    asked, calls = draw_turn(rng, functions)
    turn = [user(asked), assistant(compact(calls))]
    if not calls or rng.random() < 0.5:
        return turn
    results = [draw_result(rng) for _ in calls]
    turn += told(results)
    return [*turn, assistant("[]")] if rng.random() < 0.6 else [*turn, user(RESULT), assistant(results_told(results))]


def told(results: list[str | int]) -> list[Message]:
    """What calls gave, a message for each."""
    return [tool(compact({"result": result})) for result in results]


def scored(messages: list[Message]) -> Example:
    """An example that ends in calls: any JSON of the same calls counts."""
    expected = json.loads(messages[-1].content)
    return example("tool-call", messages, lambda reply: parsed(reply) == expected)


def parsed(reply: str) -> Any:
    """The JSON of a reply; None if it is none."""
    try:
        return json.loads(reply)
    except ValueError:
        return None
