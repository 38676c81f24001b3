"""Plain functions that the front end's golden tests compile; each shows one construct."""

import functools

import ramify as rf


def ask(s, question, limit=8):
    s += rf.user(question) + rf.assistant(rf.gen("answer", max_tokens=limit))
    return s["answer"]


def appends(s, topic: str):
    """Docstrings are not host code."""
    s += "Topic: " + topic + rf.gen("x", max_tokens=4, stop=["\n", "."]) + "."
    s += rf.system("Be brief.") + rf.user(f"Say: {topic}")
    s += rf.assistant("I say " + rf.gen_int("n") + rf.select("mood", ["good", "bad"]))


def branches(s, flag):
    if flag:
        s += "yes"
        word = s["x"]
    else:
        word = "none"
    return word


def loops(s, items):
    found = []
    for index, item in enumerate(items):
        if not item:
            continue
        s += item + rf.gen(f"g{index}")
        if s[f"g{index}"] == "stop":
            break
        found.append(item)
    while len(found) < 3:
        s += "more"
        found.append("more")
    return found


def forks(s, aspects):
    for branch, aspect in zip(s.fork(len(aspects)), aspects, strict=True):
        branch += aspect + rf.gen("review")
        s += f"{aspect}: {branch['review']}"
    return [b["review"] for b in s.fork(2) if b["review"]]


def beams(s, width):
    kept = [s.copy()]
    scored = []
    for beam in kept:
        for idea in range(width):
            branch = beam.copy()
            branch += rf.gen("step")
            scored.append((len(branch["step"]), idea, branch))
    scored.sort(key=lambda entry: entry[:2])
    kept = [branch for _, _, branch in scored[:2]]
    kept[0] += rf.gen("answer")
    return kept


def helpers(s, question):
    first = ask(s, question)
    return first, ask(s.copy(), question="again", limit=2)


def closures(s, scale):
    total = 0
    double = lambda v: v * scale + total  # noqa: E731
    total = double(2)
    s += str(total)
    s["total"] = total
    return s.get_var("total")


def scopes(s, role, words):
    for word in words:
        with s.role(role), s.var_scope("said"):
            if not word:
                continue
            s += word
    with s.copy() as t, t.unordered():
        t += "a"
        return t.text()


def loop_else(s, words):
    for word in words:
        s += word
        if word == "stop":
            break
    else:
        s += "all"
    return s.text()


def matches(s, point):
    match point:
        case (0, y) if y > 1:
            s += f"on the axis at {y}"
        case (x, y) if s["far"]:
            s += f"{x} {y}"
        case other:
            s += f"{other}"


def tries(s):
    for _ in range(2):
        try:
            s += rf.gen("x")
            number = int(s["x"])
            if number:
                return number
        except ValueError as error:
            s += f"{error}"
            continue
        except (KeyError, TypeError):
            number = 0
        else:
            break
        finally:
            s += "!"
    return number


def eager_statement(s):
    with open("x") as file:
        for line in file:
            s += line
            if line:
                return 1
    return 2


def eager_whole(s):
    counter = 1
    s += f"{locals()}"


def outer_names(s):
    global counter
    counter = 1
    s += f"{counter}" + rf.gen("x")
    for counter in range(2):
        counter += len(s["x"])


async def coroutine(s, fetch):
    s += await fetch("a") + rf.gen("x")
    word = await fetch(s["x"])
    words = [await fetch(each) for each in s.text()]
    await ask_later(s.copy(), word)
    return words


async def ask_later(s, question):
    s += question


GOLDEN = (
    appends, branches, loops, forks, beams, helpers, closures, scopes, loop_else, matches, tries, coroutine,
    eager_statement, eager_whole, outer_names,
)  # fmt: skip


def programs_decorator(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)

    return wrapper


@programs_decorator
def wrapped(s):
    s += "inside"


# What the front end refuses.


def no_parameters():
    return 1


def generator(s):
    s += "größe: "
    for größe in (1, 2):
        x = ("größe", (yield größe))
    return x
