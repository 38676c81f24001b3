"""Programs about what waits and when: reads in odd places, walrus, nested functions, comprehensions, changing lists.

Each takes the state and a list to log to; test_try.py runs them eagerly and compiled.
"""

from __future__ import annotations

import itertools

import ramify as rf


def note(log, v):
    log.append(v)
    return v


def walrus_of_read(s, log):
    s += "a" + rf.gen("x", max_tokens=2)
    if (w := s["x"]) and (v := w.strip()):
        s += f"[{w}]{v}"
    s += w + (u := s["x"] + v) + u
    return w, v, u, s.text()


def walrus_state(s, log):
    (t := s.copy()).set_var("k", 1)
    t += "in t" + rf.gen("x", max_tokens=1)
    s += (q := t)["x"]
    q += "more"
    return t.text(), q is t, s.text()


def walrus_in_while(s, log):
    n = 0
    while (line := s.text()[-3:]) != "..." and (n := n + 1) < 4:
        s += rf.gen("x", max_tokens=1) + ("..." if n == 3 else "")
    return n, line, s.text()


def walrus_in_comprehension(s, log):
    s += "a" + rf.gen("x", max_tokens=3)
    words = [last := w for w in s["x"].split() if (n := len(w)) > 2 and note(log, n)]
    s += last
    return words, last, n


def walrus_in_comprehension_states(s, log):
    forks = s.fork(2)
    for i, b in enumerate(forks):
        b += f"{i}" + rf.gen("x", max_tokens=1)
    texts = [t for b in forks if (t := b["x"])]
    s += "".join(texts) + t
    return s.text()


def comprehension_conditions(s, log):
    forks = s.fork(3)
    for i, b in enumerate(forks):
        b += f"{i}" + rf.gen("x", max_tokens=i + 1)
    a = [b["x"] for b in forks if len(b["x"]) > 6 if note(log, b["x"])]
    c = {b["x"]: b.text() for b in forks if b.get("x")}
    d = {b["x"][:2] for b in forks if b["x"] != a}
    e = [(i, j, b["x"]) for i, b in enumerate(forks) for j in range(i) if b["x"] or note(log, "no")]
    f = sum(len(b["x"]) for b in forks if b["x"])
    g = any(b["x"].startswith(" z") for b in forks) or all(b["x"] for b in forks)
    return a, c, sorted(d), e, f, g


def comprehension_appends(s, log):
    out = [ask(b, str(i)) for i, b in enumerate(s.fork(2)) if not ask(b, "first") or i]
    return out


def ask(s, q):
    s += q + rf.gen("a", max_tokens=1)
    return s["a"]


def nested_function_reads_later(s, log):
    s += "a" + rf.gen("x", max_tokens=1)
    word = s["x"]

    def later():
        return word + s["x"]

    s += rf.gen("x", max_tokens=1)
    word = s["x"] + "!"
    s += later()
    return s.text()


def nested_function_appends(s, log):
    def add(text):
        nonlocal s
        s += text + rf.gen("x", max_tokens=1)
        return s["x"]

    t = s
    s += add("a") + add("b")
    s = s.copy()
    s += "copy"
    add("c")
    return t.text(), s.text()


def late_binding(s, log):
    fs = []
    for i in range(2):
        t = s.copy()
        t += f"{i}" + rf.gen("x", max_tokens=1)
        fs.append(lambda: t["x"] + str(i))
    return [f() for f in fs]


def generator_consumed_later(s, log):
    s += "a" + rf.gen("x", max_tokens=1)
    g = (w + s["x"] for w in "ab")
    s += "b" + rf.gen("x", max_tokens=1)
    return list(g), s.text()


def conditional_effects(s, log):
    s += "a" + rf.gen("x", max_tokens=1)
    y = s["x"] if note(log, True) else ask(s, "never")
    z = ask(s, "q") if not log[-1] else s["x"]
    w = (s["x"] and ask(s, "and")) or ask(s, "or")
    v = not ask(s, "not")
    u = 1 < len(ask(s, "cmp")) < len(note(log, ask(s, "cmp2")))
    return y, z, w, v, u, s.text()


def chained_compare_reads(s, log):
    s += "a" + rf.gen("x", max_tokens=2)
    return s["x"] == s["x"] != "z" in s.text()


def reads_of_a_changed_list(s, log):
    s += "a" + rf.gen("x", max_tokens=1)
    items = [s["x"]]
    alias = items
    alias.append("b")
    items += [s["x"]]
    s += str(items)
    s += rf.gen("x", max_tokens=1)
    items[0] = s["x"]
    d = {"k": items, "v": s["x"]}
    d["k"].append(d["v"])
    del items[1]
    return items, alias is items, d, s.text()


def lazily_formatted_mutable(s, log):
    items = []
    s += "a" + rf.gen("x", max_tokens=1)
    s += f"{items}{s['x']}{items.append(1)}{items}"
    text = f"{items}" + s["x"]
    items.append(2)
    s += text
    return s.text()


def lazy_shadowing(s, log):
    s += "a" + rf.gen("x", max_tokens=1)
    x = s["x"]
    y = x + "1"
    x = "changed"
    s += y + x
    y += "2"
    z = y = y.strip().upper()
    s += z
    return x, y, z, s.text()


def lazy_unpack(s, log):
    s += "a" + rf.gen("x", max_tokens=2)
    a, *b = s["x"].split()
    (c, d), e = (s["x"], a), b
    first, second = s["x"], s.text()
    s += c + d
    return a, b, c, d, e, first, second


def lazy_swap(s, log):
    s += "a" + rf.gen("x", max_tokens=1) + rf.gen("y", max_tokens=1)
    x, y = s["x"], s["y"]
    x, y = y, x
    s += x + "|" + y
    return s.text()


def lazy_aug(s, log):
    s += "a" + rf.gen("x", max_tokens=1)
    total = ""
    for _ in range(3):
        total += s["x"]
        s += rf.gen("x", max_tokens=1)
    n = 0
    n += len(s["x"])
    d = {"t": ""}
    d["t"] += s["x"]
    return total, n, d


def del_and_rebind(s, log):
    s += "a" + rf.gen("x", max_tokens=1)
    x = s["x"]
    del x
    s += "b"
    x = s["x"] + "!"
    s += x
    return x


def lambda_defaults(s, log):
    s += "a" + rf.gen("x", max_tokens=1)
    f = lambda v=s["x"], *, w=len(s["x"]): v * w

    def g(v: str = s["x"]) -> x:
        return v

    s += rf.gen("x", max_tokens=1)
    return f(), g(), g.__defaults__


def class_body_reads(s, log):
    s += "a" + rf.gen("x", max_tokens=1)

    class C:
        word = s["x"]

        def __str__(self):
            return self.word + s["x"]

    s += rf.gen("x", max_tokens=1)
    s += f"{C()}" + str(C())
    return s.text()


def star_args(s, log):
    s += "a" + rf.gen("x", max_tokens=1)
    return note(*[log, s["x"]]), dict(**{"a": s["x"]}, b=s["x"]), [*s["x"]], {**{"c": s["x"]}}


def slices(s, log):
    s += "abc" + rf.gen("x", max_tokens=3)
    i = len(s["x"])
    return s["x"][1:i], s["x"][-1], s.text()[: len(s["x"])], s["x"][note(log, 0) : note(log, 2)]


def order_of_reads_and_notes(s, log):
    s += "a" + rf.gen("x", max_tokens=1)
    d = {note(log, 1): s["x"], note(log, 2): note(log, s["x"])}
    f = note(log, s["x"])[note(log, 0)] + s["x"][note(log, 1) * 0]
    log[note(log, 0)] = s["x"]
    return d, f


def assert_reads(s, log):
    s += "a" + rf.gen("x", max_tokens=1)
    assert s["x"], s["nothing"]
    assert not s["x"], f"it is {s['x']}" + str(log)


def raise_reads(s, log):
    s += "a" + rf.gen("x", max_tokens=1)
    raise ValueError(s["x"]) from KeyError(s.text())


def with_item_reads(s, log):
    s += "a" + rf.gen("x", max_tokens=1)
    from contextlib import nullcontext

    with nullcontext(s["x"]) as w:
        s += w
    return w


def global_statement_like(s, log):
    import string

    s += "a" + rf.gen("x", max_tokens=1)
    return string.capwords(s["x"]), [c for c in string.digits if c in s["x"]]


def annotated(s, log):
    s += "a" + rf.gen("x", max_tokens=1)
    word: str = s["x"]
    later: str
    n: int = len(word)
    later = word * n
    return later


def zip_of_reads(s, log):
    forks = s.fork(2)
    for b, w in zip(forks, "ab"):
        b += w + rf.gen("x", max_tokens=1)
    for i, (b, text) in enumerate(zip(forks, [f["x"] for f in forks])):
        b += text
        s += f"{i}{text}"
    for text in map(lambda f: f["x"], forks):
        s += text
    for a, b in itertools.pairwise(forks):
        a += b["x"]
        s += a.text()
    return s.text()


def truthiness(s, log):
    s += "a" + rf.gen("x", max_tokens=1, dtype=str)
    n = 0
    while s["x"] and n < 2:
        n += 1
        if not s["x"].strip():
            break
        s += rf.gen("x", max_tokens=1)
    return n, bool(s["x"]), s["x"] and 1, s["x"] or 2


def return_tuple_mix(s, log):
    s += "a" + rf.gen("x", max_tokens=1)
    t = s.copy()
    t += rf.gen("y", max_tokens=1)
    return s["x"], t["y"], (s["x"], [t["y"]]), {"k": t["y"]}, s, [t]


def unbound_walrus(s, log):
    if log and (w := s.text()):
        pass
    s += "a"
    s += w


def walrus_in_append(s, log):
    s += (w := "a") + w + (g := rf.gen("x", max_tokens=1)) + w
    s += g + s["x"]
    return s.text()


def walrus_order(s, log):
    s += "a" + rf.gen("x", max_tokens=1)
    x = 1
    pair = (x, (x := s["x"]), x, note(log, x), ask(s, x), (x := 3), x)
    return pair, x


def walrus_conditional(s, log):
    s += "a" + rf.gen("x", max_tokens=1)
    v = (w := s["x"]) if "x" in s else (u := 2)
    try:
        s += f"{u}"
    except NameError:
        s += "unbound"
    return v, w


def f_string_specs(s, log):
    s += "a" + rf.gen("x", max_tokens=1)
    width = 9
    s += f"{s['x']:>{width}}|{s['x']!r:^{len(s['x']) + 4}}|{s['x'] = }|{width:03d}"
    return s.text()


def exception_in_comprehension(s, log):
    s += "a" + rf.gen("x", max_tokens=1)
    try:
        out = [10 // (i - 1) for i in range(3) if note(log, i) is not None and s["x"]]
    except ZeroDivisionError:
        s += "zero"
        out = log[:]
    return out


def method_of_read(s, log):
    s += "a, b" + rf.gen("x", max_tokens=2)
    parts = s.text().split(",")
    parts.sort(key=lambda p: (len(p), s["x"]))
    return [p.strip() for p in parts], s["x"].join(parts)


def loop_var_after(s, log):
    for i in range(3):
        s += f"{i}"
        if i == 1:
            late = s.text()
    for i, c in enumerate("xy"):
        pass
    s += late + f"{i}{c}"
    return s.text()


def loop_over_read(s, log):
    s += "a" + rf.gen("x", max_tokens=3)
    for w in s["x"].split():
        s += w[0] + rf.gen("x", max_tokens=1)
    for c in s["x"][:2]:
        log.append(c)
    return s.text()


def loop_over_changing_list(s, log):
    items = ["a"]
    for item in items:
        s += item + rf.gen("x", max_tokens=1)
        if len(items) < 3:
            items.append(s["x"])
    return items


def recursion_with_lists(s, log, depth=2):
    s += f"{depth}" + rf.gen("x", max_tokens=1)
    below = recursion_with_lists(s.copy(), log, depth - 1) if depth else []
    return [s["x"], *below]


def set_var_on_what_is_unbound(s, log):
    if log:
        t = s.copy()
    t.set_var("x", len(ask(s, "never")))


def set_var_evaluates_its_state_first(s, log):
    t = s
    t.set_var("x", (t := s.copy()).text())
    t["y"] = ask(t, "q")
    s += "a"
    return "x" in s, "x" in t, t["y"]


def format_of_two_unbound(s, log):
    if log:
        word = s["x"]
    s += f"{word}{undefined}"


def format_of_two_undefined(s, log):
    s += "a" + rf.gen("x", max_tokens=1)
    return f"{s['x']}{zzz}{aaa}"


def format_of_what_has_no_value(s, log):
    word = "a"
    s += f"{word}{undefined}"


def sum_of_what_does_not_fit(s, log):
    n = 1
    s += "a" + n + undefined


def wrong_gen_before_what_fails(s, log):
    if log:
        word = "a"
    n = 1
    s += rf.gen(n, max_tokens=1) + word


def wrong_gen_behind_a_request(s, log):
    n = "many"
    s += rf.gen("x", max_tokens=1) + rf.select("y", [n, 1])


def wrong_gen_in_wrong_messages(s, log):
    n = "many"
    with s.user():
        s += rf.user("a" + rf.gen("x", max_tokens=n))


def wrong_gen_before_effects(s, log):
    n = 1
    s += "a" + rf.gen("x", regex="(") + note(log, "a")


def text_that_is_none_before_a_wrong_gen(s, log):
    words, n = ["a"], 1
    s += words + rf.gen(n, max_tokens=1)


def gen_with_an_iterator(s, log):
    stops = iter(["z", "y"])
    s += rf.user("a") + rf.assistant(rf.gen("x", max_tokens=2, stop=stops) + note(log, "b"))
    return s.text(), list(stops)


def gen_with_a_list_that_changes(s, log):
    stops = ["q"]
    s += rf.gen("x", max_tokens=3, stop=stops) + f"{stops.append(' ')}"
    return s.text()


def gen_with_an_argument_on_its_way(s, log):
    s += "NUM" + rf.gen("n", dtype=int)
    s += rf.user("a") + rf.assistant(rf.gen("x", max_tokens=s["n"] % 3 + 1) + note(log, "b"))
    try:
        s += rf.user("a") + rf.assistant(rf.gen("x", max_tokens=s["n"]) + rf.gen(s["n"]) + note(log, "c"))
    except TypeError as error:
        log.append(str(error))
    return s.text()


def number_of(n):
    return rf.gen("n", dtype=int, max_tokens=n)


def gen_that_another_function_makes(s, log):
    s += "a" + number_of(2)
    return s["n"]


def gen_on_another_line(s, log):
    s += rf.user("a") + rf.assistant(
        number_of(2)
        + "b"
    )  # fmt: skip
    return s["n"]


def walrus_on_several_lines(s, log):
    s += "a" + rf.gen("x", max_tokens=1)
    s += (
        (word := s["x"])
        + (other := word.upper()
           + undefined)
    )  # fmt: skip
