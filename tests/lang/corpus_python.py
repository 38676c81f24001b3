"""Programs of the corpus that use Python's darker corners around states: calls, scopes, closures, statements."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections import ChainMap, defaultdict, deque
from typing import Any

import ramify as rf

from .corpus import case

# fmt: off
COUNTER = 0
calls: list[Any] = []


def ask(s: Any, question: str, /, name: str = "answer", *, limit: int = 2, seen: list[str] = []) -> str:  # noqa: B006
    seen.append(question)
    s += question + rf.gen(name, max_tokens=limit)
    return f"{s[name]}{len(seen) > 0}"


def all_of(s: Any, *words: str, joiner: str = ",", **more: Any) -> Any:
    s += joiner.join(words) + rf.gen("x", max_tokens=1)
    return words, joiner, sorted(more), s["x"]


def states_of(*states: Any, **named: Any) -> Any:
    for index, state in enumerate([*states, *named.values()]):
        state += f"{index}" + rf.gen("z", max_tokens=1)
    return [state["z"] for state in states], {name: state["z"] for name, state in named.items()}


def twice(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(s: Any, *args: Any, **kwargs: Any) -> Any:
        return function(s, *args, **kwargs), function(s, *args, **kwargs)

    return wrapper


@twice
def said(s: Any, word: str) -> str:
    s += word + rf.gen("said", max_tokens=1)
    return s["said"]


@case(args=["b", "c"], kwargs={"joiner": "-", "key": 1})
@rf.program
def star_arguments(s, args, kwargs):
    first = all_of(s, "a", *args, **kwargs)
    second = all_of(s, *args)
    third = all_of(s.copy(), **kwargs)
    a, b = s.fork(2)
    fourth = states_of(s, *[a, b], last=s.copy())
    fifth = states_of(*s.fork(2))
    sixth = ask(*[s, "q"], **{"limit": 1})
    return first, second, third, fourth, fifth, sixth, s.text(), a.text()


@case()
@rf.program
def decorated_helpers(s):
    return said(s, "w"), s.text()


DEFAULTS = [1]


@case()
@rf.program
def defaults_are_evaluated_once(s, items=DEFAULTS, *, limit=len(DEFAULTS)):
    def inner(value, kept=s, number=len(s.text())):
        kept += f"{value}{number}"
        return kept

    s += "abc" + rf.gen("x", max_tokens=limit)
    same = inner(1) is inner(2) is s
    return same, items is DEFAULTS, s.text()


@rf.program
def even(s, n):
    s += f"e{n}" + rf.gen("x", max_tokens=1)
    return True if n == 0 else odd(s, n - 1)


@rf.program
def odd(s, n):
    s += f"o{n}"
    return False if n == 0 else even(s, n - 1)


@case()
@rf.program
def mutual_recursion(s):
    return even(s, 3), odd(s.copy(), 3), even.run(2).value, s.text()


@case(n=3)
@rf.program
def recursion_with_forks(s, n):
    if n == 0:
        s += "leaf" + rf.gen("x", max_tokens=1)
        return [s["x"]]
    out = []
    for i, branch in enumerate(s.fork(2)):
        branch += f"{n}{i}"
        out += recursion_with_forks(branch, n - 1)
    return out


@case()
@rf.program
def closures_over_loop_variables(s):
    late, early, states = [], [], []
    for i, branch in enumerate(s.fork(3)):
        branch += f"{i}"
        late.append(lambda: (i, branch.text()))
        early.append(lambda i=i, branch=branch: (i, branch.text()))
        states.append(branch)
    branch += "!"
    i = 10
    return [f() for f in late], [f() for f in early], [state.text() for state in states]


@case()
@rf.program
def generators_that_read(s):
    def lines(state, count):
        for number in range(count):
            state += f"{number}" + rf.gen("x", max_tokens=1)
            yield state["x"]

    def all_lines():
        yield from lines(s, 2)
        got = yield "middle"
        yield got

    generator = all_lines()
    first = [next(generator), next(generator), next(generator), generator.send("sent")]
    lazy = (s[name] for name in ("x", "x"))
    s += "tail" + rf.gen("x", max_tokens=1)
    return first, list(lazy), sum(len(line) for line in lines(s.copy(), 3)), s.text()


@dataclasses.dataclass(order=True)
class Scored:
    score: int
    state: Any = dataclasses.field(compare=False)
    words: list[str] = dataclasses.field(default_factory=list)

    def grow(self, word: str) -> Scored:
        self.state += word + rf.gen("x", max_tokens=1)
        self.words.append(self.state["x"])
        return self


@case()
@rf.program
def dataclasses_with_states(s):
    items = [Scored(len(word), s.copy()).grow(word) for word in ("aaa", "b", "cc")]
    best = max(items)
    best.state += "best"
    first, *_, last = sorted(items)
    other = dataclasses.replace(first, score=9)
    other.state += "shared"
    return best.state.text(), first.state.text(), last is best, [item.words for item in items]


@case()
@rf.program
def walrus_in_odd_places(s):
    s += "w" + rf.gen("x", max_tokens=2)
    if (x := s["x"]) and (n := len(x)) > 0:
        s += f"{(m := n + 1)}"
    found = [y for word in x.split() if (y := word.upper())]
    step = 0
    while (left := len(s.text())) < 22:
        s += "." * (step := 3)
    (a := s).set_var("v", left)
    return x, n, m, found, y, left, step, a["v"], (z := s["x"]) + z, s.text()


@case()
@rf.program
def nonlocal_and_nested(s):
    total = 0
    text = ""

    def outer():
        nonlocal text

        def inner(word):
            nonlocal total, text
            total += len(word)
            text += word
            s.set_var("total", total)

        inner(s["x"])
        text = text + "!"
        return inner

    s += "n" + rf.gen("x", max_tokens=1)
    again = outer()
    s += text + rf.gen("x", max_tokens=1)
    again(s["x"])
    return total, text, s["total"]


@case()
@rf.program
def class_bodies(s):
    s += "c" + rf.gen("x", max_tokens=1)
    prefix = "p"

    class Reader:
        prefix = "q" + s["x"]
        table = {k: s for k in "ab"}
        names = [f"{s['x']}{i}" for i in range(2)]

        @property
        def text(self):
            return self.prefix + s.text()

        @staticmethod
        def size(state=s):
            return len(state.text())

        def __getitem__(self, key):
            return self.table[key]["x"]

    s += "more"
    reader = Reader()
    return reader.text, Reader.size(), reader["a"], Reader.names, Reader.__qualname__, prefix


@case()
@rf.program
def deletions(s):
    values = {"a": 1, "b": s}
    values["b"] += "x"
    del values["a"]
    items = [1, 2, 3, 4]
    del items[1:3]
    other = s.copy()
    other += "o"
    del other
    try:
        other  # noqa: B018
    except UnboundLocalError as error:
        message = str(error)
    del items[0], values
    return items, message, s.text(), "values" in locals.__name__


@case(raises=UnboundLocalError)
@rf.program
def a_deleted_state(s):
    t = s.copy()
    t += "a"
    del t
    t += "b"


@case(raises=UnboundLocalError)
@rf.program
def an_exception_variable_is_gone(s):
    try:
        raise ValueError("x")
    except ValueError as error:
        s += str(error)
    s += f"{error}"


@case()
@rf.program
def unpacking(s):
    s += "u" + rf.gen("x", max_tokens=3)
    head, *tail = s["x"].split() or [""]
    first, (second, *rest), last = 1, (s["x"], 2, 3), [4]
    a, b, *others = s.fork(3)
    [c] = [s.copy()]
    a, b = b, a
    a += "a"
    c += "c"
    x = y = s.copy()
    y += "xy"
    merged = {**{"k": s["x"]}, "n": 1} | dict(zip("ab", (1, 2), strict=True))
    row = [*range(2), *s["x"].split(), *(s["x"],)]
    return head, tail, first, second, rest, last, a.text(), b.text(), len(others), c.text(), x.text(), merged, row


@case()
@rf.program
def comparisons_and_logic(s):
    s += "c" + rf.gen("x", max_tokens=2) + rf.gen("n", max_tokens=1)
    log: list[str] = []

    def note(value):
        log.append(str(value))
        return value

    chained = note(0) < len(s["x"]) < note(100) > note(3) != len(s["n"])
    stopped = note(5) < note(1) < len(s["x"])
    either = note(0) or s["x"] or note("never")
    both = note(1) and s["n"] and note("last")
    neither = not (s["x"] and not s["n"])
    inside = "x" in s and "y" not in s and s["x"] in s.text()
    return chained, stopped, either, both, neither, inside, log, None is not s, s is s and s == s


@case(width=12)
@rf.program
def format_strings(s, width):
    s += "f" + rf.gen("x", max_tokens=2)
    value = 3.14159
    plain = f"{s['x']=} {value=:.2f} {width!r:>{width}} {{}} {s['x']!s:^{len(s['x']) + 4}}|"
    nested = f"{f'''{s['x']}'''.upper():<{width}}|{'a' if s['x'] else 'b'}|{s['x'][:3]!a}"  # fmt: skip
    many = f"""{s["x"]}
  {width:05d} {", ".join(f"{i}:{s['x']}" for i in range(2))}"""
    s += f"{s.text()!r}" "joined" f"{width}" + f"{s['x']}"
    return plain, nested, many, s.text(), "%s-%d" % (s["x"], width), "{0}{k}".format(s["x"], k=width)


@case(flag=True)
@rf.program
def assertions_hold(s, flag):
    s += "a" + rf.gen("x", max_tokens=1)
    assert s["x"], "there is something"
    assert flag
    return s["x"]


@case(raises=AssertionError)
@rf.program
def assertions_fail(s):
    s += "a" + rf.gen("x", max_tokens=1)
    assert (
        not s["x"]
    ), f"found {s['x']}"


@case()
@rf.program
def global_variables(s):
    global COUNTER
    COUNTER = 5
    s += f"{COUNTER}" + rf.gen("x", max_tokens=1)
    COUNTER += len(s["x"])
    return COUNTER, s["x"]


@case()
@rf.program
def global_variables_of_helpers(s):
    calls.clear()
    for word in ("a", "b"):
        remember(s, word)
        s += str(len(calls))
    return list(calls), s.text()


def remember(s: Any, word: str) -> None:
    global calls
    s += word + rf.gen("x", max_tokens=1)
    calls = [*calls, s["x"]]


@case()
@rf.program
def lambdas(s):
    read = lambda name="x": s[name]  # noqa: E731
    append = lambda state, text: state.__iadd__(text)  # noqa: E731
    s += "l" + rf.gen("x", max_tokens=1)
    same = append(s, "!") is s
    key = {"a": lambda: s.text(), "b": read}
    return same, [f() for f in key.values()], (lambda *a, **k: (a, k, s["x"]))(1, k=2), list(map(read, ["x", "x"]))


@case()
@rf.program
def sets_and_dicts(s):
    s += "s" + rf.gen("x", max_tokens=2) + rf.gen("y", max_tokens=1)
    words = {s["x"], s["y"], "k"}
    lengths = {name: len(s[name]) for name in ("x", "y")}
    inverse = {s[name]: name for name in ("x", "y") if s[name]}
    branches = {name: s.copy() for name in "ab"}
    for name, branch in branches.items():
        branch += name
    grouped = defaultdict(list)
    for name in ("x", "y"):
        grouped[len(s[name])].append(name)
    layers = ChainMap({"x": s["x"]}, {"y": s})
    recent = deque([s["x"]], maxlen=1)
    recent.append(s["y"])
    nested = [[s["x"] for _ in range(i)] for i in range(3)]
    return (
        sorted(words), lengths, inverse, {k: v.text() for k, v in branches.items()}, dict(grouped),
        layers["y"]["y"], list(recent), nested, {*words} == words, {len(w) for w in words if w != s["y"]},
    )  # fmt: skip


@case()
@rf.program
def ordering_by_reads(s):
    forks = s.fork(4)
    for i, branch in enumerate(forks):
        branch += "x" * i + rf.gen("x", max_tokens=i + 1)
    ranked = sorted(forks, key=lambda b: (len(b["x"]), b["x"]), reverse=True)
    by_hand = sorted(range(4), key=lambda i: -len(forks[i]["x"]))
    best = max(forks, key=lambda b: len(b["x"]))
    kept = [b["x"] for b in ranked if any(word in b["x"] for word in ("a", "e")) and all(b["x"] for b in forks)]
    total = sum(len(b["x"]) for b in forks)
    pairs = [(a.text() < b.text()) for a, b in itertools.pairwise(forks)]
    grouped = [list(g) for _, g in itertools.groupby(b["x"][:1] for b in forks)]
    return [b.text() for b in ranked], by_hand, best is ranked[0], kept, total, pairs, grouped


@case(flag=False)
@case(flag=True)
@rf.program
def conditional_expressions(s, flag):
    s += "c" + rf.gen("x", max_tokens=1)
    target = s if flag else s.copy()
    target += "t" + (rf.gen("y", max_tokens=1) if flag else "none")
    s += ("yes" if "y" in s else "no") + (s["y"] if flag else s["x"])
    word = ask(s, "q") if flag else ask(s.copy(), "r", limit=1) if s["x"] else "never"
    (s if flag else target).set_var("z", word)
    return word, s.text(), target.text(), "z" in s


@case()
@rf.program
def augmented_assignments(s):
    s += "a" + rf.gen("x", max_tokens=2)
    count = [0, 0]
    count[len(s["x"]) % 2] += 1
    text = ""
    text += s["x"]
    text *= 2
    table = {"k": [s]}
    table["k"][0] += "!"
    table["k"] += [s.copy()]
    number = 10
    number -= len(s["x"])
    number **= 2
    words = {s["x"]}
    words |= {"b"}
    holder = Scored(1, s)
    holder.state += "held"
    holder.score += len(s["x"])
    return count, text, len(table["k"]), number, sorted(words), s.text(), holder.score


@case()
@rf.program
def loops_in_odd_shapes(s):
    out = []
    for i in range(3):
        for word in s.text().split("x") or ["-"]:
            if i == 1:
                break
            out.append((i, word))
        else:
            s += "x"
            continue
        out.append("broken")
    while True:
        s += "." + rf.gen("x", max_tokens=1)
        if len(s.text()) > 12:
            break
    for s["loop"] in range(2):
        out.append(s["loop"])
    for holder in [[s], [s.copy()]]:
        for holder[0]["inner"] in "ab":
            pass
    return out, s["inner"], s.text()


@case()
@rf.program
def states_that_change_hands(s):
    def swap(first, second):
        return second, first

    a, b = s.copy(), s.copy()
    a, b = swap(a, b)
    a += "a"
    stack = [a]
    stack.append(b)
    top = stack.pop()
    top += "top" + rf.gen("x", max_tokens=1)
    queue = {"s": s}
    queue.setdefault("t", top)["v"] = 1
    current = s
    for _ in range(2):
        current = current.copy()
        current += "c"
    s = current
    s += "end"
    return a.text(), b is top, top["v"], queue["s"].text(), s.text()


@case(raises=TypeError)
@rf.program
def a_number_is_no_state(s):
    t = s if len(s.text()) else 5
    t += "a" + rf.gen("x", max_tokens=1)


@case(raises=AttributeError)
@rf.program
def a_method_that_states_lack(s):
    s += "a"
    s.append("b")


@case(raises=IndexError)
@rf.program
def an_index_out_of_range(s):
    forks = s.fork(2)
    forks[0] += "a"
    forks[2] += "b"


@case(raises=ValueError)
@rf.program
def too_many_to_unpack(s):
    s += "a"
    a, b = s.fork(3)
    a += b.text()


@case(raises=ZeroDivisionError)
@rf.program
def an_error_deep_in_host_code(s):
    def inner(value):
        return 1 / value

    def outer(state):
        return [inner(0) for _ in state["x"]]

    s += "a" + rf.gen("x", max_tokens=1)
    values = outer(s)
    s += str(values)


@case(raises=ZeroDivisionError)
@rf.program
def an_error_in_a_lambda(s):
    s += "a" + rf.gen("x", max_tokens=1)
    return sorted(
        [s["x"], "b"],
        key=lambda word: 1 / (len(word) - len(word)),
    )


@case(raises=RecursionError)
@rf.program
def an_endless_recursion_in_host_code(s):
    def forever(n):
        return forever(n + 1)

    s += "a"
    return forever(0)


@case(raises=NameError)
@rf.program
def an_unknown_name(s):
    s += "a" + rf.gen("x", max_tokens=1)
    return nowhere(s)  # noqa: F821


@case(raises=TypeError)
@rf.program
def a_helper_called_wrongly(s):
    s += "a"
    return ask(s, question="q")


@case(raises=KeyError)
@rf.program
def an_error_from_another(s):
    s += "a" + rf.gen("x", max_tokens=1)
    try:
        return {}[s["x"]]
    except KeyError as error:
        raise KeyError("again") from error


@case(raises=ExceptionGroup)
@rf.program
def exception_groups(s):
    s += "a"
    try:
        raise ExceptionGroup("g", [ValueError("v"), TypeError("t"), KeyError("k")])
    except* ValueError as group:
        s += f"{len(group.exceptions)}" + rf.gen("x", max_tokens=1)
    except* TypeError:
        s += "type"


@case()
@rf.program
def imports_and_annotations(s):
    import math as m
    from collections import Counter

    number: int = 3
    later: str
    s += f"{m.floor(2.5)}" + rf.gen("x", max_tokens=1)
    later = s["x"]
    counts: Counter[str] = Counter(s["x"])
    t: Any = s.copy()
    t += later
    return number, sorted(counts), t.text()


@case()
@rf.program
def types_of_things(s):
    s += "t" + rf.gen("x", max_tokens=1)
    forks = s.fork(2)
    return (
        isinstance(s, rf.State), type(s["x"]).__name__, callable(s), hasattr(s, "fork"), len(forks), bool(s),
        isinstance(forks, list), forks[0] is not forks[1], [*forks][0] is forks[0], s != forks[0], {s: 1}[s],
        str(type(s).__name__), repr(s), getattr(s, "text")(),
    )  # fmt: skip


@case(n=2)
@rf.program
def shadowed_names(s, n):
    len = lambda value: 42  # noqa: E731
    str = "shadow"
    s += f"{len(s)}{str}" + rf.gen("x", max_tokens=n)
    list = [s for s in s.fork(2)]
    print = s.copy
    copied = print()
    copied += "p"
    return len([]), str, [each.text() for each in list], copied.text()


@case(ask=1)
@rf.program
def a_parameter_that_hides_a_helper(s, ask, rf_=rf):
    s += f"{ask}" + rf_.gen("x", max_tokens=1)
    said = s["x"]
    return ask, said


@case()
@rf.program
def partial_application(s):
    bound = functools.partial(ask, s, name="p")
    first = bound("q1", limit=1)
    method = s.text
    read = s.__getitem__
    s += "!"
    reduced = functools.reduce(lambda acc, state: acc + state.text(), [s, s.copy()], "")
    return first, method(), read("p"), reduced, bound.func is ask


@case()
@rf.program
def statements_on_one_line(s):
    a = 1; s += f"{a}"; b = 2; s += rf.gen("x", max_tokens=1); c = s["x"]  # noqa: E702
    if a: s += "if"; b += 1  # noqa: E701, E702
    for i in range(2): s += f"{i}"  # noqa: E701
    return a, b, c, s.text()


class Private:
    __secret = 3

    def __init__(self) -> None:
        self.__words = ["a"]

    def __grow(self, s, __word):
        s += __word + rf.gen("x", max_tokens=1)
        self.__words.append(s["x"])
        return len(self.__words)

    @rf.program
    def ask(self, s):
        __local = self.__secret
        self.__words = ["a"]
        s += f"{self.__words}{__local}"
        if __local > 2:
            __late = self.__grow(s, "b")
        grown = self.__grow(s, "c"), self.__grow(s.copy(), "d")

        def inner():
            return self.__secret + __local

        for __local in range(2):
            s += f"{__local}"
        return grown, inner(), self._Private__words, __late, s.text()


case()(Private().ask)


class Parent:
    word = "parent"

    @rf.program
    def ask(self, s, question="q"):
        s += self.word + question + rf.gen("x", max_tokens=1)
        return s["x"]

    def helper(self, s, *words, **more):
        s += "".join(words)
        return self, sorted(more)

    @property
    def loud(self):
        return self.word.upper()

    @staticmethod
    def plain(s, word):
        s += word + rf.gen("p", max_tokens=1)
        return s["p"]

    @classmethod
    def of_class(cls, s):
        s += cls.word
        return cls.__name__


class Child(Parent):
    word = "child"

    @rf.program
    def ask(self, s, question="r"):
        first = super().ask(s, question)
        second = super(Child, self).ask(s.copy(), "s")
        return first, second, __class__.__name__  # noqa: F821

    @rf.program
    def work(self, s):
        me, more = self.helper(s, self.loud, "b", k=1)
        same = me is self
        said = [self.plain(s, "p"), Child.plain(s, "q"), self.of_class(s), Parent.ask(self, s)]
        method = self.ask
        said.append(method(s, question="m"))
        said += [self.ask(branch, str(i)) for i, branch in enumerate(s.fork(2))]
        other = Parent()
        return same, more, said, other.ask(s), other.ask.run(question="z").ok, s.text()


    @rf.program
    def odd(self, s):
        def inner(this):
            return super().loud, __class__.word

        s += "o" + rf.gen("x", max_tokens=1)
        loud = super().loud + s["x"]
        late = lambda: self
        try:
            bad = [super().loud for _ in "a"]
        except TypeError as error:
            bad = str(error)
        self = Child()
        self.word = "other"
        return inner(self), loud, super().loud, bad, late() is self, super().plain(s, "p"), super().helper(s, "h")[1]


case()(Child().work)
case()(Child().ask)
case()(Child().odd)


def touch(first: Any, second: Any) -> Any:
    first += "1"
    second += "2" + rf.gen("x", max_tokens=1)
    first["same"] = first is second
    second += first.text()
    return first


def rebinds(state: Any, word: str) -> Any:
    state += word
    state = state.copy()
    state += "copied" + rf.gen("x", max_tokens=1)
    word = state["x"]
    return state, word


@case()
@rf.program
def the_same_state_twice(s):
    t = touch(s, s)
    u = touch(s.copy(), s)
    v, word = rebinds(s, "w")
    t += "!"
    return s["same"], t is s, u.text(), v.text(), word, s.text()


@case()
@rf.program
def targets_of_every_kind(s):
    table: dict[Any, Any] = {}
    log: list[str] = []

    def key(name):
        log.append(name)
        return name

    s += "t" + rf.gen("x", max_tokens=1)
    table[key("a")] = s[key("x")]
    table[key("b")], table[key(s["x"])] = key("c"), ask(s, key("q"))
    s["one"] = s["two"] = ask(s, "r", limit=1)
    s["two"] += "more"
    s["list"] = [1]
    s["list"] += [2]
    s["list"].append(3)
    holder = Scored(1, s.copy())
    holder.state, holder.score = holder.state.copy(), len(holder.state.text())
    holder.state += "h"
    (first, *table["rest"]), holder.words[:] = s["x"], s["one"]
    return table, log, s["one"], s["two"], s["list"], holder.state.text(), first, holder.words, (*table, s["x"])


@case()
@rf.program
def literals(s):
    values = [1e999, -0.0, 10**30, 12345678901234567890123, 1_000, 0xFF, 1j, b"\x00\xff", ..., "\ud800", "a\r\n\tb\x00"]
    big = 123456789012345678901234567890
    infinite = 1e999
    odd = "\ud83d"
    s += "größe ﬁ 🙂" + f"{big}" + rf.gen("x", max_tokens=1)
    größe = s["x"]
    s += "tab\there" "\N{BULLET}" r"\raw" + f"{infinite}"
    return [repr(value) for value in values], big, infinite, repr(odd), größe, s.text(), -big, not größe, ~5


@case()
@rf.program
def comprehensions_over_states(s):
    s += "c" + rf.gen("x", max_tokens=3)
    words = s["x"].split()
    forks = s.fork(2)
    pairs = [(i, w, b["x"]) for i, b in enumerate(forks) for w in b["x"].split() if w if i or w]
    asked = [ask(b, w, limit=1) for b, w in zip(forks, words, strict=False)]
    table = {w: [ask(b, w, limit=1) for b in s.fork(1)] for w in words}
    first = next((b["answer"] for b in forks if "answer" in b), "none")
    matrix = [[b.text() + str(i) for i in range(2)] for b in forks]
    flat = [cell for row in matrix for cell in row if cell.endswith("1")]
    some = any(word in s for word in ("y", "x")), all(b.text() for b in forks)
    x = [x for x in [s["x"], "y"] if x]
    return pairs, asked, table, first, flat, some, x, {*words, *x} >= set(x), (*(b["x"] for b in forks),)


@case()
@rf.program
def nested_definitions(s):
    @functools.lru_cache
    def square(n):
        return n * n

    @dataclasses.dataclass
    class Box:
        state: Any
        size: int = dataclasses.field(default_factory=lambda: square(3))

        def read(self):
            return self.state["x"], self.size, square(2)

    def make(depth):
        if depth == 0:
            return lambda: s["x"]
        return make(depth - 1)

    s += f"{square(4)}" + rf.gen("x", max_tokens=1)
    box = Box(s)
    s += str(box.size)
    return box.read(), make(3)(), square.cache_info().hits, repr(type(box).__name__)


@case()
@rf.program
def names_of_builtins(s):
    s += "d" + rf.gen("x", max_tokens=1)
    x = s["x"]
    return sorted(dir())[:3], x


@case(raises=RuntimeError)
@rf.program
def a_dict_that_changes_while_it_is_walked(s):
    table = {"a": 1}
    for key in table:
        s += key
        table[key + s.text()] = 2


@case(raises=TypeError)
@rf.program
def iterating_over_a_state(s):
    s += "a"
    for each in s:
        s += each


@case(raises=AttributeError)
@rf.program
def deleting_a_variable_of_a_state(s):
    s["x"] = 1
    del s["x"]


@case(raises=TypeError)
@rf.program
def an_error_on_a_later_line(s):
    s += "a" + rf.gen("x", max_tokens=1)
    return dict(
        first=s["x"],
        second=len(
            s["x"]
        ) + "b",
    )


@case(raises=ZeroDivisionError)
@rf.program
def an_error_on_a_later_line_of_a_call(s):
    s += "a" + rf.gen("x", max_tokens=1)
    said = ask(
        s,
        "b" * (
            1 // (len(s["x"]) * 0)
        ),
    )
    return said


@case(raises=KeyError)
@rf.program
def a_read_on_a_later_line(s):
    s += "a" + rf.gen("x", max_tokens=1)
    return [
        s["x"],
        s["y"],
    ]


@case(raises=ValueError)
@rf.program
def an_error_in_a_comprehension(s):
    s += "a" + rf.gen("x", max_tokens=1)
    return [
        int(word)
        for word in s["x"].split()
    ]


@case(raises=StopIteration)
@rf.program
def a_stop_iteration(s):
    s += "a"
    next(iter(s.text().split("a")[2:]))


@case(raises=RuntimeError)
@rf.program
def a_stop_iteration_in_a_generator(s):
    def broken():
        yield s.text()
        next(iter(()))

    s += "a"
    for each in broken():
        s += each


@case()
@rf.program
def threads_in_host_code(s):
    from concurrent.futures import ThreadPoolExecutor

    s += "start"
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda branch: ask(branch, "q", limit=1), s.fork(4)))
    return said, s.text()


@case()
@rf.program
def coroutines_in_host_code(s):
    import asyncio

    async def read(name):
        await asyncio.sleep(0)
        return s[name]

    async def both():
        return await asyncio.gather(read("x"), read("x"))

    s += "a" + rf.gen("x", max_tokens=1)
    return asyncio.run(both())


@case(a=1, key=2)
@rf.program
def parameters_of_every_kind(s, a, b=[1], c="c", *rest, key, other=(), **more):  # noqa: B006
    b = [*b, len(b)]
    s += f"{a}{b}{c}{rest}{key}{other}{more}" + rf.gen("x", max_tokens=1)
    if a < 3:
        return parameters_of_every_kind(s, a + 1, [], key=key, more=s["x"])
    return s.text()


@case()
@rf.program
def names_that_look_like_ours(s):
    __t1, __t2 = 1, [2]
    s += "a" + rf.gen("x", max_tokens=1)
    both = (__t1, s["x"], __t2, ask(s, "q"), s["x"])
    for __value, __signal in [(1, 2)]:
        s += f"{__value}{__signal}"
    return both, s.text()


@case()
@rf.program
def the_state_as_a_loop_variable(s):
    out = []
    for i, s in enumerate(s.fork(2)):
        s += f"{i}" + rf.gen("x", max_tokens=1)
        out.append(s["x"])
    s += "last"
    with s.copy() as s:
        s += "copy"
    return out, s.text()


@case()
@rf.program
def the_state_becomes_a_text(s):
    s += "a" + rf.gen("x", max_tokens=1)
    s = s["x"]
    s += "text"
    return s, len(s)


@case(raises=UnboundLocalError)
@rf.program
def the_state_is_deleted(s):
    s += "a"
    t = s
    del s
    t += "b"
    s += "c"


@case(other=None)
@rf.program
def a_state_by_default(s, other=None):
    t = other or s
    t += "a" + rf.gen("x", max_tokens=1)
    t = s if t else other
    t += "b"
    return t is s, s.text()


@case()
@rf.program
def inner_functions_with_states(s):
    depth = 0

    def grow(state, n):
        nonlocal depth
        depth = max(depth, n)
        state += f"{n}" + rf.gen("x", max_tokens=1)
        if n < 2:
            return [state["x"], *grow(state.copy(), n + 1)]
        return [state["x"]]

    def swap():
        nonlocal s
        s = s.copy()
        s += "swapped"

    first = s
    said = grow(s, 0)
    swap()
    s += "!" + rf.gen("y", max_tokens=1)
    return said, depth, first.text(), s.text(), s is first


@case()
@rf.program
def generators_are_drawn_in_step(s):
    log: list[Any] = []

    def numbers():
        for i in range(3):
            log.append(("make", i, len(s.text())))
            yield i
        log.append("done")

    for branch, number in zip(s.fork(4), numbers()):
        branch += f"{number}" + rf.gen("x", max_tokens=1)
        s += branch["x"]
        log.append(("used", number))
    items = iter("abc")
    for a, b in zip(items, items):
        s += a + b
    rest = list(items)
    for letter in (letter.upper() for letter in s["x"] if letter.strip()) if "x" in s else "none":
        s += letter
    return log, rest, s.text()


@case()
@rf.program
def calls_in_a_chain(s):
    s += "a" + rf.gen("x", max_tokens=2)
    tail = s.copy().fork(2)[1].copy()
    tail += "t"
    words = s["x"].strip().split()[0].upper().replace("A", "b").center(10, "*")
    s.fork(2)[0].set_var("lost", 1)
    (lambda t: t.set_var("kept", words))(s)
    s.user("question")
    s.assistant(rf.gen("y", max_tokens=1))
    return tail.text(), words, s["kept"], "lost" in s, s.messages()


@case(names=["a", "b"])
@rf.program
def dynamic_names(s, names):
    for name in names:
        s += name + rf.gen(name, max_tokens=1)
    key = names[0]
    values = {name: s[name] for name in names} | {key: s[key]}
    s[key + "!"] = s[f"{names[-1]}"]
    got = s.get_var(key), (s[key], s["b"]), [s[n] for n in (*names, "a!")]
    return values, got, names[0] in s, all(n in s for n in names)


@case()
@rf.program
def exceptions_carry_what_they_should(s):
    s += "a" + rf.gen("x", max_tokens=1)
    seen = []
    try:
        try:
            int(s["x"] + "z")
        except ValueError as error:
            error.add_note("noted")
            raise LookupError("outer") from error
    except LookupError as error:
        cause = error.__cause__
        seen.append((type(cause).__name__, cause.__notes__, error.__suppress_context__))
    try:
        raise KeyError("k") from None
    except (KeyError, IndexError) as error:
        seen.append((error.args, error.__cause__, error.__context__))
    error = "kept"
    return seen, error, s.text()


@case()
@rf.program
def many_variables(s):
    a1 = a2 = a3 = a4 = 1
    b1, b2, b3, b4 = range(4)
    for i in range(3):
        a1, a2, a3, a4 = a2, a3, a4, a1 + i
        b1 += a1
        if i % 2:
            s += f"{a1}{a4}" + rf.gen(f"g{i}", max_tokens=1)
            b2 = s[f"g{i}"]
            c = b2
        elif i:
            c = i
        while b1 > 3:
            b1 -= 2
            b3 = (b3, b1)
    return a1, a2, a3, a4, b1, b2, b3, b4, c, i


@case()
@rf.program
def groups_of_branches(s):
    s += "g"
    group = s.fork(3)
    group += ["a", rf.gen("x", max_tokens=1), "c" + rf.gen("y", max_tokens=1)]
    group[1:][0].set_var("z", 1)
    group[-1] += "last"
    first, *rest = group
    first += "first" + rf.gen("x", max_tokens=2)
    pair = rest + [s.copy()]
    pair[-1] += "pair"
    group.join("concate_and_append")
    other = s.fork(2)
    other += lambda i: f"{i}" + rf.gen("w", max_tokens=1)
    other.join()
    return s.text(), sorted(s["w"]), [b.text() for b in pair], len(rest), "x" in s


@case()
@rf.program
def types_defined_inside(s):
    from enum import Enum
    from typing import NamedTuple

    class Tone(Enum):
        KIND = "kind"
        HARSH = "harsh"

        def say(self, state):
            state += self.value + rf.gen("said", max_tokens=1)
            return state["said"]

    class Answer(NamedTuple):
        text: str
        tone: Tone = Tone.KIND

    class Meta(type):
        def __call__(cls, *args):
            made = super().__call__(*args)
            made.state = s
            return made

    class Held(metaclass=Meta):
        def __iadd__(self, text):
            self.state += text
            return self

    held = Held()
    held += "held"
    answers = [Answer(tone.say(s), tone) for tone in Tone]
    return [(a.text, a.tone.name) for a in answers], Answer("x").tone.value, s.text()


@case()
@rf.program
def context_managers_of_python(s):
    import contextlib
    import io

    @contextlib.contextmanager
    def doubled(state):
        inner = state.copy()
        yield inner
        state += inner.text()

    out = io.StringIO()
    with contextlib.redirect_stdout(out), doubled(s) as inner:
        print("printed", end="")
        inner += "in" + rf.gen("x", max_tokens=1)
    with contextlib.suppress(KeyError):
        s += s["nothing"]
    with contextlib.ExitStack() as stack:
        stack.callback(s.set_var, "closed", True)
        s += "stack"
        open_ = "closed" in s
    return out.getvalue(), open_, s["closed"], s.text()


@case()
@rf.program
def odd_iterables(s):
    class Countdown:
        def __init__(self, n):
            self.n = n

        def __getitem__(self, index):
            if index >= self.n:
                raise IndexError
            return self.n - index

        def __bool__(self):
            return len(s.text()) < 8

        def __len__(self):
            return self.n

    down = Countdown(3)
    for number in down:
        s += f"{number}" + rf.gen("x", max_tokens=1)
    first = "true" if down else "false"
    if not down:
        s += "!"
    while down:
        s += "."
    for number in reversed(down):
        s += f"{number}"
    for a, (b, *c), d in [(1, (2, 3, 4), {"k": s})]:
        d["k"] += f"{a}{b}{c}"
    return first, s.text(), number, len(down), 2 in down


TALLY: list[Any] = []
NUMBER = 0


def counting(s: Any) -> int:
    global NUMBER
    NUMBER += 1
    s += f"{NUMBER}" + rf.gen("n", max_tokens=1)
    return NUMBER


@case()
@rf.program
def globals_in_every_position(s):
    global NUMBER, TALLY, made, Made, m, T
    NUMBER, TALLY = 0, []
    before = NUMBER, counting(s), NUMBER, counting(s), s["n"]
    for NUMBER in range(3):
        TALLY += [NUMBER]
    with s.copy() as T:
        T += "t" + rf.gen("x", max_tokens=1)
    T += "more"
    import math as m

    def made():
        return NUMBER

    class Made:
        value = NUMBER

    try:
        raise ValueError("v")
    except ValueError as NUMBER:
        s += f"{NUMBER}"
    try:
        NUMBER
    except NameError as error:
        gone = str(error)
    NUMBER = len([NUMBER := 7, s["n"]])
    if s["n"]:
        NUMBER += 1
    del TALLY
    return before, made(), Made.value, m.pi > 3, gone, NUMBER, T.text(), "TALLY" in globals()


def enclosing() -> Any:
    count, log = 0, []

    @rf.program
    def program(s, times=2):
        nonlocal count, log
        log = []
        for count in range(times):
            log.append((count, peek()))
            s += f"{count}" + rf.gen("x", max_tokens=1)
        count += len(s["x"])
        s += f"{peek()}"
        return count, peek(), log, s.text()

    def peek():
        return count

    return program


case()(enclosing())


@case()
@rf.program
def globals_are_read_when_it_is_their_turn(s):
    global NUMBER
    NUMBER = 0
    s += "a" + rf.gen("x", max_tokens=2)
    first = f"{NUMBER}{s['x']}"
    counting(s)
    second = f"{NUMBER}{s['x']}" + first
    NUMBER += 1
    s += first + second
    return NUMBER, s.text()


@case(words=["b", "a", "b"])
@rf.program
def dicts_and_generators_of_calls(s, words):
    asked = {w: ask(s.copy(), w, limit=1) for w in words}
    nested = {w + s.text(): {v: ask(b, v) for v, b in zip("xy", s.fork(2), strict=True)} for w in words if w != "a"}
    joined = ", ".join(ask(b, "j", limit=1) for b in s.fork(2))
    listed = list(ask(b, w) for b, w in zip(s.fork(3), words, strict=True))
    several = tuple(b["answer"] for w in words for b in s.fork(1) if ask(b, w) if w > "a")
    ranked = sorted((ask(b, w) for b, w in zip(s.fork(3), words, strict=True)), key=len, reverse=True)
    s += "k" + rf.gen("x", max_tokens=1)
    keyed = {s["x"]: s["x"] for _ in range(2)}
    first = next(ask(b, "n") for b in s.fork(2))
    lazy = (ask(b, "l") for b in s.fork(2))
    return asked, nested, joined, listed, several, ranked, keyed, first, sum(1 for _ in lazy), {w: s for w in words}


@case(raises=TypeError)
@rf.program
def an_unhashable_key(s):
    log: list[Any] = []
    return {[]: ask(s, "q") for _ in range(2)}, log


@case(raises=TypeError)
@rf.program
def joining_what_is_no_text(s):
    return "".join(len(ask(b, "q")) for b in s.fork(2))


@case(raises=ZeroDivisionError)
@rf.program
def an_error_in_a_dict_comprehension(s):
    return {
        w: 1 / len(ask(s, w)[:0])
        for w in "ab"
    }
