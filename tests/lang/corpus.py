"""Programs that between them use every construct of the language; each is run eagerly and compiled (invariant I1)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import ramify as rf

CASES: list[Case] = []


@dataclass(frozen=True, slots=True)
class Case:
    """A program and its arguments; `raises` is the type of error that both ways must end in."""

    program: Any
    arguments: dict[str, Any] = field(default_factory=dict)
    raises: type[BaseException] | None = None


def case(*, raises: type[BaseException] | None = None, **arguments: Any) -> Any:
    def register(program: Any) -> Any:
        CASES.append(Case(program, arguments, raises))
        return program

    return register


def ask(s: Any, question: str, name: str = "answer", *, limit: int = 6) -> str:
    s += rf.user(question)
    s += rf.assistant(rf.gen(name, max_tokens=limit))
    return s[name]


def greet(s: Any) -> None:
    s += rf.system("You are brief.")


def pick_longer(first: Any, second: Any) -> Any:
    return first if len(first["x"]) >= len(second["x"]) else second


def total(items: list[str]) -> int:
    return sum(len(item) for item in items)


LIMIT = 5


@case()
@rf.program
def one_gen(s):
    s += "Once" + rf.gen("x", max_tokens=4)


@case(question="What is 2 + 2?")
@rf.program
def question_answer(s, question):
    s += "Q: " + question + "\nA:"
    s += rf.gen("answer", max_tokens=5, stop="\n")
    return s["answer"]


@case(question="Is 3 larger than 2?")
@rf.program
def chat(s, question: str):
    s += rf.system("You answer shortly.") + rf.user(question)
    s += rf.assistant(rf.gen("answer", max_tokens=8))
    return s["answer"].strip().lower()


@case()
@rf.program
def roles_begin_end(s):
    s += rf.user_begin() + "Hi, " + "there." + rf.user_end()
    s += rf.assistant_begin()
    s += "I " + rf.gen("x", max_tokens=3)
    s += rf.assistant_end()
    return s["x"]


@case()
@rf.program
def roles_with(s):
    with s.user():
        s += "Say"
        s += " something."
    with s.assistant():
        s += rf.gen("x", max_tokens=3)
    return s.text()


@case()
@rf.program
def role_methods(s):
    s.system_begin()
    s += "Rules."
    s.system_end()
    s += rf.user("Go.") + rf.assistant(rf.gen("x", max_tokens=2))
    return s.messages()


@case(n=3)
@rf.program
def argument_called_n(s, n: int, stream: str = "a", temperature: float = 0.5):
    s += f"{n} {stream} {temperature}" + rf.gen("x", max_tokens=n)
    return s["x"]


@case(aspects=["clarity", "length", "style"])
@rf.program
def fork_join(s, aspects: list[str]):
    s += "Essay: it was a day."
    forks = s.fork(len(aspects))
    for branch, aspect in zip(forks, aspects, strict=True):
        branch += f"\nJudge the {aspect}:" + rf.gen("review", max_tokens=4)
    for branch, aspect in zip(forks, aspects, strict=True):
        s += f"\n{aspect}: {branch['review']}"
    s += "\nVerdict:" + rf.select("verdict", ["accept", "reject"])
    return s["verdict"]


@case(aspects=["a", "b"])
@rf.program
def fork_in_the_loop(s, aspects):
    s += "Start."
    for branch, aspect in zip(s.fork(len(aspects)), aspects, strict=True):
        branch += rf.user(f"Judge {aspect}.")
        branch += rf.assistant(rf.gen("review", max_tokens=3))
        s += f"\n{aspect}: {branch['review']}"
    return s.text()


@case()
@rf.program
def nested_forks(s):
    s += "Root."
    out = []
    for i, outer in enumerate(s.fork(2)):
        outer += f" Outer {i}:" + rf.gen("o", max_tokens=2)
        for j, inner in enumerate(outer.fork(2)):
            inner += f" Inner {j}:" + rf.gen("i", max_tokens=2)
            out.append((i, j, inner["o"], inner["i"]))
    return out


@case()
@rf.program
def fork_by_index(s):
    s += "Base."
    forks = s.fork(3)
    forks[0] += " zero" + rf.gen("x", max_tokens=2)
    forks[1] += " one" + rf.gen("x", max_tokens=3)
    forks[-1] += " last" + rf.gen("x", max_tokens=4)
    return [f["x"] for f in forks], forks[1]["x"], len(forks)


@case()
@rf.program
def group_append(s):
    forks = s.fork(2)
    forks += lambda i: f"branch {i}" + rf.gen("x", max_tokens=2)
    forks.join()
    return s["x"]


@case()
@rf.program
def unpack_forks(s):
    s += "Pair."
    a, b = s.fork(2)
    a += "A" + rf.gen("x", max_tokens=2)
    b += "B" + rf.gen("x", max_tokens=2)
    s += a["x"] + " and " + b["x"]
    return s.text()


@case()
@rf.program
def copies(s):
    s += "Shared."
    t = s.copy()
    s += " left" + rf.gen("x", max_tokens=2)
    t += " right" + rf.gen("x", max_tokens=2)
    return s["x"], t["x"], s.text() == t.text()


@case()
@rf.program
def alias(s):
    t = s
    t += "one"
    s += " two" + rf.gen("x", max_tokens=2)
    return t["x"] == s["x"], t.text()


@case(flag=True)
@case(flag=False)
@rf.program
def rebinding(s, flag):
    other = s.copy()
    other += "other"
    best = s if flag else other
    best += rf.gen("x", max_tokens=3)
    return best["x"], s.text(), other.text()


@case(words=["red", "green", "", "stop", "blue"])
@rf.program
def loop_with_exits(s, words):
    seen = []
    for index, word in enumerate(words):
        if not word:
            continue
        s += f"{index}. {word}" + rf.gen(f"g{index}", max_tokens=2)
        if word == "stop":
            break
        seen.append(s[f"g{index}"])
    return seen, index, word


@case(limit=3)
@rf.program
def while_loop(s, limit):
    count = 0
    while count < limit and "done" not in s.text():
        s += f"step {count}" + rf.gen("x", max_tokens=2)
        count += 1
    s["count"] = count
    return count, s["count"], s["x"]


@case()
@rf.program
def while_true_return(s):
    i = 0
    while True:
        i += 1
        s += f"{i}" + rf.gen("x", max_tokens=1)
        if i == 3:
            return i, s["x"]


@case()
@rf.program
def loop_without_items(s):
    for item in []:
        s += item
    s += "end"
    return s.text()


@case(raises=UnboundLocalError)
@rf.program
def unbound_after_loop(s):
    for item in []:
        s += item
    s += "text"
    return item  # noqa: F821


@case(values=[1, 2, 3])
@rf.program
def host_code(s, values):
    squares = {v: v * v for v in values}
    odd = [v for v in values if v % 2]
    big, *rest = sorted(values, reverse=True)

    def describe(v):
        return f"{v} of {big}"

    s += ", ".join(describe(v) for v in rest)
    values.append(max(squares.values()))
    s += rf.gen("x", max_tokens=len(odd))
    big = 100
    s += describe(1)
    return squares, odd, rest, values, s.text()


@case()
@rf.program
def closures_share(s):
    counter = 0

    def bump():
        nonlocal counter
        counter += 1
        return counter

    for _ in range(3):
        s += f"{bump()}" + rf.gen("x", max_tokens=1)
    late = [lambda: counter for _ in range(2)]
    counter = 10
    return counter, [f() for f in late]


@case()
@rf.program
def data_dependent_branch(s):
    s += "Pick: " + rf.select("choice", ["tea", "coffee", "milk"])
    if s["choice"] == "tea":
        s += " With lemon?" + rf.gen("x", max_tokens=2)
        kind = "leaf"
    elif s["choice"] in ("coffee", "milk"):
        s += " With sugar?" + rf.gen("x", max_tokens=3)
        kind = "bean" if s["choice"] == "coffee" else "cow"
    else:
        kind = "none"
    return kind, s["x"]


@case(question="How old is the sun?")
@rf.program
def helper_call(s, question):
    greet(s)
    first = ask(s, question)
    second = ask(s, f"You said {first}. Are you sure?", name="sure", limit=3)
    return first, second, s.text()


@case(questions=["a?", "b?", "c?"])
@rf.program
def helpers_on_copies(s, questions):
    greet(s)
    answers = [ask(s.copy(), q) for q in questions if q != "b?"]
    return answers


@case()
@rf.program
def helper_returns_state(s):
    s += "Two ways."
    a, b = s.fork(2)
    a += " First:" + rf.gen("x", max_tokens=2)
    b += " Second:" + rf.gen("x", max_tokens=4)
    best = pick_longer(a, b)
    best += " Best!" + rf.gen("y", max_tokens=1)
    return best["x"], best["y"]


@rf.program
def expand(s, tip: str):
    s += f"Expand: {tip}\n" + rf.gen("text", max_tokens=5)
    return s["text"]


@case(tips=["sleep", "eat"])
@rf.program
def program_on_state(s, tips):
    s += "Tips."
    return [expand(s.copy(), tip) for tip in tips]


@case(tips=["walk", "read"])
@rf.program
def program_runs_program(s, tips):
    runs = [expand.run(tip=tip) for tip in tips]
    s += " ".join(run.value for run in runs)
    return [run["text"] for run in runs]


@case(depth=3)
@rf.program
def recursion(s, depth):
    s += f"<{depth}" + rf.gen(f"d{depth}", max_tokens=1)
    if depth > 0:
        recursion(s, depth - 1)
    s += ">"
    return s.text()


@case()
@rf.program
def states_in_containers(s):
    s += "Box."
    states = {"a": s.copy(), "b": s.copy()}
    for name, state in states.items():
        state += f" {name}:" + rf.gen("x", max_tokens=2)
    states["a"] += " more" + rf.gen("y", max_tokens=1)
    return {name: state["x"] for name, state in states.items()}, states["a"].text()


@case()
@rf.program
def list_of_copies(s):
    s += "Many."
    branches = [s.copy() for _ in range(3)]
    for i, branch in enumerate(branches):
        branch += f" {i}" + rf.gen("x", max_tokens=i + 1)
    longest = max(branches, key=lambda b: len(b["x"]))
    return longest["x"], [b["x"] for b in branches]


@case()
@rf.program
def swapped_loop_states(s):
    a, b = s.copy(), s.copy()
    for turn in range(3):
        a += f"turn {turn}" + rf.gen("x", max_tokens=1)
        b += a["x"]
        a, b = b, a
    return a.text(), b.text()


@case()
@rf.program
def try_except(s):
    try:
        s += "number: " + rf.gen("x", max_tokens=2)
        value = int(s["x"] + "z")
    except ValueError as error:
        value = -1
        s += f" failed {type(error).__name__}"
    finally:
        s += " done"
    return value, s.text()


@case()
@rf.program
def try_with_return(s):
    for attempt in range(5):
        try:
            s += f"try {attempt}" + rf.gen("x", max_tokens=1)
            if attempt < 2:
                raise KeyError(attempt)
            return attempt, s["x"]
        except KeyError:
            continue
        finally:
            s += "!"
    return None


@case(point=(3, 4))
@rf.program
def match_statement(s, point):
    match point:
        case (0, y):
            s += f"on the axis at {y}"
        case (x, y) if x < y:
            s += f"above {x}" + rf.gen("x", max_tokens=2)
        case _:
            s += "elsewhere"
    return s.text(), x, y


@case()
@rf.program
def walrus(s):
    s += "w" + rf.gen("x", max_tokens=3)
    if (length := len(s["x"])) > 0:
        s += f"{length}"
    return length, [y := 1, y + 1]


@case()
@rf.program
def conditional_reads(s):
    s += "c" + rf.gen("x", max_tokens=2)
    missing = "y" in s and s["y"]
    present = s["x"] if "x" in s else "none"
    return missing, present, 1 < len(s["x"]) < 50


@case()
@rf.program
def evaluation_order(s):
    log: list[Any] = []

    def note(value):
        log.append(value)
        return value

    s += "o" + rf.gen("x", max_tokens=2)
    result = note(1), s["x"], note(2), ask(s, "why?"), note(s["answer"])
    return result, log


@case()
@rf.program
def variables(s):
    s.set_var("a", [1, 2])
    s["b"] = {"k": 1}
    s += f"{s['a'][0]}" + rf.gen("x", max_tokens=1)
    s["b"]["k"] += 1
    return s["a"], s.get_var("b"), "x" in s, "nope" in s


@case(raises=KeyError)
@rf.program
def missing_variable(s):
    s += "text"
    return s["nothing"]


@case(raises=ZeroDivisionError)
@rf.program
def host_error(s):
    s += "a" + rf.gen("x", max_tokens=1)
    return 1 / (len(s["x"]) * 0)


@case(raises=TypeError)
@rf.program
def appending_a_number(s):
    s += 5


@case(raises=ValueError)
@rf.program
def bad_number(s):
    s += "n: " + rf.gen("n", max_tokens=2, dtype=int)
    return s["n"] + 1


@case(raises=rf.RamifyError)
@rf.program
def bad_parameter(s):
    s += rf.gen("x", top_p=3.0)
    return s["x"]


@case()
@rf.program
def sampled(s):
    s += "Random:" + rf.gen("a", max_tokens=6, temperature=1.0, seed=7)
    s += " again:" + rf.gen("b", max_tokens=6, temperature=0.8, top_p=0.9, seed=7)
    s += " cut:" + rf.gen("c", max_tokens=6, temperature=1.2, top_k=5, min_p=0.01, seed=11)
    return s["a"], s["b"], s["c"]


@case(options=["one", "two"])
@rf.program
def dynamic_arguments(s, options):
    limits = {"max_tokens": 2}
    name = "x" + str(len(options))
    s += rf.gen(name, max_tokens=limits["max_tokens"] + 1) + "."
    s += rf.gen(**limits, name="y") + rf.select("z", choices=options + ["three"])
    part = rf.gen("late", max_tokens=1)
    s += "(" + part + ")"
    return s[name], s["y"], s["z"], s["late"]


@case(flag=False)
@rf.program
def expression_values(s, flag):
    tail = rf.gen("t", max_tokens=1) if flag else "nothing"
    s += "head " + tail
    s += rf.user("u" + rf.gen("inner", max_tokens=1) + "v")
    for part in ["a", rf.gen("loop", max_tokens=1), "b"]:
        s += part
    return s.text()


@case()
@rf.program
def globals_and_defaults(s, scale: int = LIMIT, *, suffix: str = "!"):
    s += f"{scale}{suffix}" + rf.gen("x", max_tokens=LIMIT)
    pairs = list(itertools.product("ab", repeat=2))
    return len(pairs), total(["a", "bc"]), s["x"]


@case(first="x", rest=("y", "z"))
@rf.program
def many_arguments(s, first, rest=(), **extra):
    s += first + "".join(rest)
    assert s.text() == first + "".join(rest), "the text is what was appended"
    return sorted(extra)


@case(other=1)
@rf.program
def any_state_name(prompt, **other):
    prompt += f"{other}" + rf.gen("x", max_tokens=1)
    return prompt["x"]


@case()
@rf.program
def whole_body_eager(s):
    names = sorted(locals())
    s += "e" + rf.gen("x", max_tokens=2)
    return names, s["x"]


@case()
@rf.program
def unused_gens(s):
    for branch in s.fork(3):
        branch += "never read" + rf.gen("x", max_tokens=2)
    s += "main" + rf.gen("x", max_tokens=2)


@case()
@rf.program
def string_methods(s):
    s += "  spaced  " + rf.gen("x", max_tokens=3)
    tidy = s["x"].strip().upper()
    s += f"[{tidy!r:>10}] [{tidy}]" + tidy
    s += "\n" * 2
    return tidy, s.text()


@case()
@rf.program
def deleted_variable(s):
    value = 1
    s += f"{value}"
    del value
    try:
        return value  # noqa: F821
    except UnboundLocalError:
        return "gone"


@case()
@rf.program
def for_else(s):
    for i in range(2):
        s += f"{i}" + rf.gen("x", max_tokens=1)
    else:
        s += "else"
    return s.text()


# What generated programs have found, made small.


@case(flag=True)
@case(flag=False)
@rf.program
def branches_of_elif(s, flag):
    seen = []
    if flag:
        s += "if" + rf.gen("x", max_tokens=1)
    elif not flag:
        seen.append("elif")
    else:
        seen.append("never")
    return seen, s.text()


@case(n=2)
@rf.program
def a_parameter_becomes_a_state(s, n):
    forks = s.fork(n)
    for n, word in zip(forks, ["a", "b"], strict=True):
        n += word
    return n.text()


@case()
@rf.program
def bound_in_an_expression(s):
    first: object = (second := s)
    second += "one" + rf.gen("x", max_tokens=1)
    try:
        third = fourth = second
    finally:
        first += "two"
    fourth += third["x"]
    return s.text(), first is fourth


@case(flag=False)
@rf.program
def bound_in_one_branch_of_an_expression(s, flag):
    said = ask(s.copy(), "why?") if flag else (word := "no")
    s += said + word
    return s.text()


@case(flag=True)
@rf.program
def a_conditional_state_for_a_helper(s, flag):
    other = s.copy()
    first_or_second(s if flag else other, other, flag) and None
    return ask(s if flag else other, "who?"), other.text()


def first_or_second(first: Any, second: Any, flag: Any) -> Any:
    first += "f" + rf.gen("x", max_tokens=1)
    return first if flag else second


@case()
@rf.program
def fields_are_formatted_in_order(s):
    items = ["a"]

    def grow(state):
        items.append(state["x"])
        return len(items)

    s += "o" + rf.gen("x", max_tokens=1)
    s += f"{items}{grow(s)!s:>3}{items!r}" + f"{len(items)}{ask(s, str(items))}{s['x']}"
    return s.text(), f"{s['x']!r:>{len(items) + 20}}|{items[0]}é{ask(s, 'q')!r}"


@case(raises=UnboundLocalError)
@rf.program
def the_first_error_counts(s, flag=False):
    if flag:
        word = "never"
    return f"{word}{s['nothing']}"


@case()
@rf.program
def definitions_are_shared(s):
    def size(state):
        return len(state["x"])

    s += "d" + rf.gen("x", max_tokens=1)

    class Sized:
        of_state = size(s)

        def get(self):
            return size(s) + self.of_state

    s += rf.gen("x", max_tokens=2)
    return Sized().get(), Sized.get.__qualname__


@case(raises=UnboundLocalError)
@rf.program
def an_empty_box(s):
    if not s.text():
        s += "e"
    else:
        word = "never"
    late = lambda: word  # noqa: E731
    return word, late


@case()
@rf.program
def lists_of_states_that_change(s):
    states = [s, s.copy()]
    states[0] += "a" + rf.gen("x", max_tokens=1)
    alias_of = states
    alias_of[1] = "plain"
    states.append("more")
    out = []
    for each in states:
        each += "!"
        out.append(each if isinstance(each, str) else each.text())
    return out


@case()
@rf.program
def a_shadowed_builtin(s):
    def zip(*parts):
        return [(len(parts), "w")]

    for number, word in zip(s.fork(2), "ab"):
        number += 1
        s += f"{number}{word}"
    return s.text()


@case(raises=UnboundLocalError)
@rf.program
def an_empty_box_is_read_where_it_is_assigned(s, flag=False):
    if flag:
        word = "never"
    late = lambda: word  # noqa: E731
    other = word
    s += "text"
    return other, late


@case(raises=UnboundLocalError)
@rf.program
def the_target_is_evaluated_first(s, flag=False):
    if flag:
        states = {"a": s}
    states["a"] += "b" + s["nothing"]


@case(raises=ValueError)
@rf.program
def nothing_is_appended_after_a_failed_read(s):
    s += "n: " + rf.gen("n", max_tokens=2, dtype=int)
    number = s["n"]
    s += "more" + rf.gen("x", max_tokens=1)
    return number


@case(raises=TypeError)
@rf.program
def a_number_in_an_append(s):
    s += "a" + rf.gen("x", max_tokens=1) + 5


# Scores and choice methods.


def shortest(choices: Any) -> int:
    return min(range(len(choices)), key=lambda i: (len(choices[i].text), i))


@case(options=[" a red", " a", " blue"])
@rf.program
def scores(s, options):
    s += "The sky is" + rf.score("all", options) + rf.score("one", " blue")
    likeliest = max(range(len(options)), key=lambda i: s["all"][i])
    s += options[likeliest] + rf.gen("x", max_tokens=1)
    return s["all"], s["one"] < 0, likeliest, s.text()


@case(options=["tea", "tea with milk", "coffee"])
@rf.program
def choice_methods(s, options):
    s += "Drink: "
    a, b, c, d, e = s.fork(5)
    a += rf.select("x", options, choices_method="greedy_token_selection")
    b += rf.select("x", options, 0.0, rf.unconditional_likelihood_normalized)
    c += rf.gen("x", choices=["milk", "water"], choices_method=rf.greedy_token_selection, max_tokens=3)
    d += rf.gen("x", choices=options, choices_method=shortest)
    e += rf.select("x", options, choices_method=lambda choices: len(choices) - 1)
    return [branch["x"] for branch in (a, b, c, d, e)], a.get_meta_info("x")["token_counts"]


@case(raises=ValueError)
@rf.program
def a_choice_method_that_fails(s):
    s += "Drink: " + rf.select("x", ["tea", "milk"], choices_method=lambda choices: 7)
    return s["x"]


@case(raises=TypeError)
@rf.program
def a_score_without_texts(s):
    s += "Drink: " + rf.score("x")


@case(raises=TypeError)
@rf.program
def a_select_with_another_argument(s):
    s += "Drink: " + rf.select("x", ["a"], seed=3)


@case(raises=rf.RamifyError)
@rf.program
def a_score_of_the_first_word(s):
    s += rf.score("x", "one two", **{})
    s += rf.gen("y", stop="")


# Samples, SGLang's names, stop patterns and log-probabilities.


@case(k=3)
@rf.program
def several_samples(s, k):
    s += "Once" + rf.gen("x", n=k, temperature=1.0, seed=5, max_tokens=4)
    s += " and" + rf.gen("y", 3, n=2, return_logprob=True)
    best = max(range(k), key=lambda i: (len(s["x"][i]), i))
    return s["x"][best], len(s["y"]), [len(info["output_token_logprobs"]) > 0 for info in s.get_meta_info("y")]


@case(flag=True)
@case(flag=False)
@rf.program
def late_values_read_sometimes(s, flag):
    s += "Once" + rf.gen("x", n=2, max_tokens=2) + rf.score("y", [" a", " b"])
    t = s.copy()
    t += " there" + rf.gen("z", max_tokens=2)
    s["late"] = t["z"]
    return flag and (len(s["x"]), len(s["y"]), s["late"])


@case(raises=rf.RamifyError)
@rf.program
def no_samples(s):
    s += "Once" + rf.gen("x", n=0)


@case(raises=TypeError)
@rf.program
def samples_of_a_choice(s):
    s += "Once" + rf.gen("x", choices=["a", "b"], n=2)


@case(options=["a", "b"])
@case(options=None)
@rf.program
def perhaps_a_choice(s, options):
    s += "Once " + rf.gen("x", choices=options, max_tokens=2)
    return s["x"]


@case(raises=TypeError)
@rf.program
def a_select_of_nothing(s, options=None):
    s += "Once " + rf.select("x", options)


@case()
@rf.program
def stop_patterns(s):
    s += "Once" + rf.gen("x", max_new_tokens=8, stop_regex=[r"[e-z]\w", "b.?"])
    return s["x"], s.get_meta_info("x")["matched"]


@case(raises=rf.RamifyError)
@rf.program
def a_bad_stop_pattern(s):
    s += "Once" + rf.gen("x", stop_regex="(")


@case()
@rf.program
def confidence(s):
    s += "Once" + rf.gen("x", max_tokens=4, logprobs=1)
    sure = [token.logprob > -1.5 for token in s.get_meta_info("x")["logprobs"]]
    if not all(sure):
        s += " again" + rf.gen("x", max_tokens=2)
    return s["x"]


# Images and videos.


@case(raises=rf.RamifyError)
@rf.program
def an_image_for_a_model_of_text(s):
    s += rf.user("Look: " + rf.image(b"GIF89a") + rf.gen("x"))


@case(raises=rf.RamifyError)
@rf.program
def a_missing_image(s):
    path = "nowhere/to/be/found.png"
    s += "Look: " + rf.image(path)


@case(raises=TypeError)
@rf.program
def a_number_as_an_image(s):
    s += "Look: " + rf.image(5)


@case(raises=rf.RamifyError)
@rf.program
def a_video_of_no_frames(s):
    s += "Look: " + rf.video(num_frames=0, path=b"")


@case(raises=TypeError)
@rf.program
def a_video_without_frames(s):
    s += "Look: " + rf.video("a.mp4")
