"""`:step`: where a run stops, and what can be done there."""

from __future__ import annotations

import _thread
import io
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from ramify.backends.scripted import ScriptedBackend
from ramify.ir.errors import Cancelled
from ramify.lang.commands.table import Commands
from ramify.lang.console import NameCompleter
from ramify.lang.options import set_default_backend
from ramify.lang.repl import read_lines, run_script
from ramify.lang.session import Session

SHOP = '''\
import ramify as rf

CALLS = []


@rf.tool
def price(item: str) -> float:
    """The price of goods."""
    CALLS.append(item)
    return {"lamp": 20.0, "chair": 45.5}[item]


@rf.program
def ask(s, question):
    s += rf.user(question)
    s += rf.assistant(rf.gen("reply", max_tokens=8))
    return s["reply"]


@rf.program
def shop(s, items):
    s += "A shop.\\n"
    total = 0
    for branch, item in zip(s.fork(len(items)), items):
        cost = price(item)
        branch += f"{item}: {cost}. " + rf.gen("answer", max_tokens=8)
        if branch["answer"].strip() == "yes":
            total += cost
    word = ask(s, f"Is {total} much?")
    s += rf.select("verdict", ["much", "little"])
    return word, total
'''

Stepped = Callable[[str], str]


@pytest.fixture
def backend() -> Iterator[ScriptedBackend]:
    """One that says yes to lamps."""
    backend = ScriptedBackend(lambda text, params: " yes" if "lamp" in text.rpartition("\n")[2] else " no")
    set_default_backend(backend)
    yield backend
    set_default_backend(None)


@pytest.fixture
def shop(tmp_path: Path, backend: ScriptedBackend) -> Session:
    """A session with the programs."""
    (tmp_path / "shop.py").write_text(SHOP)
    session = Session(io.StringIO())
    session.load(tmp_path / "shop.py")
    return session


@pytest.fixture
def stepped(shop: Session) -> Stepped:
    """Types lines, and gives the transcript without the times."""
    commands = Commands(shop)

    def stepped(lines: str) -> str:
        shop.out.seek(0)
        shop.out.truncate()
        run_script(textwrap.dedent(lines).splitlines(), shop, commands, keeps_going=True)
        written = re.sub(r"  \(prompt .*", "", shop.out.getvalue())  # type: ignore[attr-defined]
        return re.sub(r"[\d.]+ m?s$", "TIME", written, flags=re.MULTILINE)

    return stepped


def stops(transcript: str) -> list[str]:
    """The lines that say where the program stands."""
    return [line for line in transcript.splitlines() if line.startswith("step ")]


def test_step_by_step(stepped: Stepped) -> None:
    assert stepped(
        """\
        :step shop ["lamp", "chair"]
        n
        n
        n
        s
        n
        p cost, total, answer
        p branch.text()
        n
        s
        w
        c
        """
    ) == textwrap.dedent(
        """\
        >>> :step shop ["lamp", "chair"]
        step 1, shop.py:22 in shop: append
                s += "A shop.\\n"
                     ^^^^^^^^^^^
        (shop:22) n
        step 2, shop.py:24 in shop: fork
                for branch, item in zip(s.fork(len(items)), items):
                                        ^^^^^^^^^^^^^^^^^^
        (shop:24) n
        step 3, shop.py:25 in shop: tool price
                    cost = price(item)
                    ^^^^^^^^^^^^^^^^^^
        (shop:25) n
        price(item='lamp') = 20.0
        step 4, branch 0, shop.py:26 in shop: append
                    branch += f"{item}: {cost}. " + rf.gen("answer", max_tokens=8)
                              ^^^^^^^^^^^^^^^^^^^
        (branch 0, shop:26) s
        step 5, branch 0, shop.py:26 in shop: gen answer
                    branch += f"{item}: {cost}. " + rf.gen("answer", max_tokens=8)
                                                    ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        (branch 0, shop:26) n
        branch 0: answer = ' yes'
        step 6, branch 0, shop.py:27 in shop: read answer
                    if branch["answer"].strip() == "yes":
                       ^^^^^^^^^^^^^^^^
        (branch 0, shop:27) p cost, total, answer
        (20.0, 0, ' yes')
        (branch 0, shop:27) p branch.text()
        'A shop.\\nlamp: 20.0.  yes'
        (branch 0, shop:27) n
        step 7, shop.py:25 in shop: tool price
                    cost = price(item)
                    ^^^^^^^^^^^^^^^^^^
        (shop:25) s
        price(item='chair') = 45.5
        step 8, branch 1, shop.py:26 in shop: append
                    branch += f"{item}: {cost}. " + rf.gen("answer", max_tokens=8)
                              ^^^^^^^^^^^^^^^^^^^
        (branch 1, shop:26) w
        shop.py:26 in shop
                    branch += f"{item}: {cost}. " + rf.gen("answer", max_tokens=8)
                              ^^^^^^^^^^^^^^^^^^^
            %0 = prompt.append %1, %2 : prompt
        (branch 1, shop:26) c
        branch 1: answer = ' no'
        reply = ' no'
        verdict = 'much'
        value: [" no", 20.0]
        prompt 24 tokens, 0 cached (0%), generated 3 tokens, 4 calls, TIME
        """
    )


def test_into_a_program_and_over_it(stepped: Stepped) -> None:
    into = stops(stepped(':step shop ["lamp"]\nb 29\nc\ns\nw\nn\nn\nn\nq\n'))
    assert [line.split(", ")[-1] for line in into] == [
        "shop.py:22 in shop: append",
        "shop.py:29 in shop: call ask",
        "shop.py:15 in ask: append",
        "shop.py:16 in ask: gen reply",
        "shop.py:17 in ask: return",
        "shop.py:30 in shop: select verdict",
    ]
    assert stops(stepped(':step shop ["lamp"]\nb 29\nc\nn\nq\n'))[-1].endswith("shop.py:30 in shop: select verdict")


def test_where_tells_of_the_calls_above(stepped: Stepped) -> None:
    shown = stepped(':step shop ["lamp"]\nb ask\nc\nw\nq\n').split("(ask:15) w\n")[1]
    assert shown.splitlines()[0] == "shop.py:15 in ask"
    assert "called from shop.py:29 in shop\n        word = ask(s," in shown


def test_breakpoints(stepped: Stepped) -> None:
    shown = stepped(
        """\
        :step shop ["lamp", "chair"]
        b 26 if item == "chair"
        b select
        b ask
        c
        p item
        b
        b- 2
        b
        c
        c
        """
    )
    assert [line.split(": ", 1)[0] for line in stops(shown)] == [
        "step 1, shop.py:22 in shop",
        "step 8, branch 1, shop.py:26 in shop",
        "step 12, shop.py:15 in ask",
    ]
    assert "(branch 1, shop:26) p item\n'chair'\n" in shown
    assert '1: 26 if item == "chair"  (hit once)\n2: select\n3: ask\n' in shown
    assert shown.splitlines()[-2] == 'value: [" no", 20.0]'


def test_a_condition_on_a_generated_text(stepped: Stepped) -> None:
    shown = stepped(""":step shop ["lamp", "chair"]\nb answer if answer == " no"\nc\np answer, item\nq\n""")
    assert stops(shown)[-1] == "step 10, branch 1, shop.py:27 in shop: read answer"
    assert "breakpoint 1: answer if answer ==" in shown and "\n(' no', 'chair')\n" in shown


@pytest.mark.parametrize(
    ("line", "error", "help"),
    [
        ("b 23", "no step begins at line 23", "the nearest lines are 22 and 24"),
        ("b other.py:3", "no step of the program is in other.py", "its files are shop.py"),
        ("b anser", "the program has no line, op or name 'anser'", "did you mean 'answer'?"),
        ("b image", "the program has no image", "its ops are append, fork, gen, select, call, return, read, tool"),
        ("b gen if itm", "nothing is called 'itm', so the condition cannot hold", "did you mean 'item'?"),
        ("b gen if )", "the condition is no expression: unmatched ')': )", "b LINE | FILE:LINE | OP"),
        ("b- 7", "there is no breakpoint 7", "b lists them"),
        ("nxt", "'nxt' is nothing to do while a program is stepped", "did you mean 'next'?"),
        ("x = 3", "'x' is nothing to do while a program is stepped", "h lists the commands; p EXPRESSION"),
        ("n 3", "n takes nothing, so not '3' either", "h lists"),
        ("u", "there is no branch before this one", ""),
        ("set", "this is no assignment: nothing", "set NAME = VALUE"),
        ("set total 3", "this is no assignment: total 3", "set NAME = VALUE"),
        ("set totl = 3", "there is no variable 'totl' here", "did you mean 'total'?"),
        ("set s = 3", "s stands for a state, which cannot be replaced", "set NAME"),
        ("p", "p takes an expression", "p EXPRESSION"),
        (':step shop ["lamp"]', "shop is being stepped", "q ends it"),
    ],
)
def test_mistakes_are_named(stepped: Stepped, line: str, error: str, help: str) -> None:
    shown = stepped(f':step shop ["lamp"]\nn\n{line}\np total\nq\n1 + 1\n')
    assert f"error: {error}\n" in shown and help in shown
    assert shown.endswith("(shop:24) p total\n0\n(shop:24) q\n>>> 1 + 1\n2\n")


def test_back_asks_nothing_again(stepped: Stepped, shop: Session, backend: ScriptedBackend) -> None:
    shown = stepped(':step shop ["lamp", "chair"]\nb verdict\nc\n')
    asked = list(backend.requests)
    assert len(asked) == 3 and shop.names["CALLS"] == ["lamp", "chair"]
    shown = stepped("back\nback 3\np word\np total\nback 20\nback 9\nn\nc\nq\n")
    assert [line.split(" in ")[0] for line in stops(shown)] == [
        "step 14, shop.py:17",
        "step 11, shop.py:29",
        "step 2, shop.py:24",
        "step 3, shop.py:25",
        "step 15, shop.py:30",
    ]
    assert "NameError: name 'word' is not defined" in shown and "\n20.0\n" in shown
    assert "error: 10 steps lie behind\n" in shown
    assert backend.requests == asked and shop.names["CALLS"] == ["lamp", "chair"]


def test_what_is_printed_is_not_printed_again(stepped: Stepped) -> None:
    shown = stepped(
        """\
        @program
        def talks(s):
            s += "a"
            print("hello")
            s += "b"
            s += "c"
        :step talks
        c
        :step
        back 3
        n
        q
        """
    )
    assert shown.count("\nhello\n") == 2
    assert shown.split(":step\n")[1].splitlines()[0].endswith("in talks: return (the end of the function)")


def test_another_answer_is_gone_on_with(stepped: Stepped, backend: ScriptedBackend) -> None:
    shown = stepped(
        """\
        :step shop ["lamp", "chair"]
        b 27
        c
        set answer = " no"
        p branch.text()
        c
        set branch["answer"] = " yes"
        set total = 7
        back
        n
        p answer, total
        b- 1
        c
        """
    )
    assert "answer is ' no' now in branch 0\n" in shown
    assert "'A shop.\\nlamp: 20.0.  no'" in shown
    assert "(' yes', 7)" not in shown  # the step to which they belong has been left again
    assert "\n(' no', 0)\n" in shown and shown.splitlines()[-2] == 'value: [" no", 0]'


def test_what_was_set_is_set_again(stepped: Stepped) -> None:
    shown = stepped(
        """\
        :step shop ["lamp", "chair"]
        b 27
        c
        set answer = " no"
        set total = 7
        n
        n
        back 2
        p answer, total
        b- 1
        c
        """
    )
    assert "\n(' no', 7)\n" in shown and shown.splitlines()[-2] == 'value: [" no", 7]'


def test_an_answer_in_all_branches(stepped: Stepped, backend: ScriptedBackend) -> None:
    backend.reply = lambda text, params: "x" if "then" in text else "3"
    shown = stepped(
        """\
        @program
        def forks(s):
            s += gen("first", max_tokens=4, dtype=int) + select("pick", ["a", "b"])
            for branch in s.fork(2):
                branch += "then " + gen("second", regex="[xy]")
            return s["first"]
        :step forks
        b second
        c
        set first = 12
        set first = "x"
        set first = 8
        set pick = "c"
        set pick = "b"
        p branch.text(), first
        d
        p first, pick
        u
        c
        u
        set second = "z"
        set second = "y"
        p branch.text(), forks
        p s.text()
        b- 1
        c
        """
    )
    assert 'set first = "x"\nerror: ' in shown and "error: 'z' does not match the regex of the generation" in shown
    assert "second is 'y' now in branch 0\n" in shown
    assert "error: 'c' is not one of the choices\n  help: they are " in shown
    assert "first is 8 now in branch 0, and in the first state, branch 1\n" in shown
    assert "\n('8b', 8)\n" in shown and "\n(8, 'b')\n" in shown and "\n'8b'\n" in shown and "\nvalue: 8\n" in shown


def test_errors_of_the_program(stepped: Stepped) -> None:
    shown = stepped(
        """\
        @program
        def fails(s):
            s += gen("a", max_tokens=3)
            s += str(1 / len(s["a"].strip()))
            raise ValueError("bad")
        :step fails
        c
        :step
        p a
        back
        w
        q
        """
    )
    assert "ValueError: bad\nin program fails, <ramify-1>:5\n:step goes back into it\n" in shown
    assert ":step\nstep 2, " in shown and "\n' no'\n" in shown


def test_programs_that_run_as_python_are_refused(stepped: Stepped) -> None:
    shown = stepped("@program\ndef odd(s):\n    s += 'a'\n    return eval('1')\n:step odd\n:step nothing\n:step\n")
    assert "error: odd runs as Python, so it cannot be stepped: `eval` needs the function's own frame\n" in shown
    assert "error: there is no program 'nothing'" in shown and "error: :step takes the name" in shown


def test_programs_in_variables_and_methods(stepped: Stepped) -> None:
    shown = stepped(
        """\
        @program
        def chosen(s, programs):
            for each in programs:
                each(s, "Why?")
        :step chosen [ask, ask]
        b ask
        b replyy
        b reply
        c
        c
        c
        q
        """
    )
    assert "did you mean 'reply'?" in shown
    assert [line.split(" in ")[-1] for line in stops(shown)] == [
        "chosen: call",
        "ask: append",
        "ask: gen reply",
        "ask: append",
    ]


def test_an_async_program(stepped: Stepped) -> None:
    shown = stepped(
        """\
        import asyncio
        @program
        async def part(s, n):
            s += f"{n}: " + gen("a", max_tokens=4)
            return s["a"]
        @program
        async def both(s):
            return await asyncio.gather(*[part(branch, n) for n, branch in enumerate(s.fork(2))])
        :step both
        b append
        c
        s
        s
        back
        c
        """
    )
    assert shown.splitlines()[-2] == 'value: [" no", " no"]'
    assert {line.split(", ")[1] for line in stops(shown) if "in part" in line} == {"branch 0", "branch 1"}


def test_ctrl_c_ends_the_program_and_keeps_the_session(stepped: Stepped, backend: ScriptedBackend) -> None:
    def interrupted(text: str, params: object) -> str:
        _thread.interrupt_main()
        return "late"

    backend.reply, backend.delay = interrupted, 30.0
    shown = stepped(':step ask "Why?"\nc\n1 + 1\n')
    assert shown.endswith("(ask:15) c\ninterrupted\n>>> 1 + 1\n2\n")


def test_a_loaded_program(stepped: Stepped, shop: Session, tmp_path: Path) -> None:
    shop.names["path"] = tmp_path / "ask.ir"
    shown = stepped("ask.compile().save(path)\nagain = rf.load(path, trust=True)\n:step again 'Why?'\nn\nn\nc\n")
    assert len(stops(shown)) == 3 and shown.splitlines()[-2] == "value:  no"


def test_what_failed_to_be_generated(stepped: Stepped, backend: ScriptedBackend) -> None:
    backend.reply = lambda text, params: ValueError("no answer")
    shown = stepped(':step ask "Why?"\nb 17\nc\np reply\nset reply = "because"\nc\n')
    assert "reply failed: no answer\n" in shown and "\nValueError: no answer\n" in shown
    assert shown.splitlines()[-2] == "value: because"


def test_what_can_be_completed(stepped: Stepped, shop: Session) -> None:
    stepped(':step shop ["lamp"]\nn\n')
    completer = NameCompleter(shop, Commands(shop))

    def completed(line: str) -> list[str]:
        return [each.text for each in completer.get_completions(Document(line), CompleteEvent())]

    assert completed("b ver") == ["verdict"] and completed("b as") == ["ask"] and completed("p to") == ["total"]
    assert completed("ba") == ["back"] and completed(":us") == [":usage"]


def test_the_list_of_commands(stepped: Stepped) -> None:
    shown = stepped(':step shop ["lamp"]\nh\nq\n:help\n')
    assert "\nback [NUMBER]" in shown and "\n:step [PROGRAM [ARGUMENTS]]" in shown


def test_the_end_of_the_input_ends_the_program(shop: Session) -> None:
    read_lines([':step shop ["lamp"]\n', "n"], shop, Commands(shop))
    debugger = shop.debugger
    assert debugger is not None
    debugger.quit()
    assert isinstance(debugger.run.error, Cancelled)


def test_commands_with_a_colon(stepped: Stepped) -> None:
    """As notebooks have them: `%ramify n`."""
    shown = stepped(':step shop ["lamp"]\n:n\n:p total\n:usage\n:nn\n:q\n')
    assert ":n\nstep 2, " in shown and "p total\n0\n" in shown and "error: nothing was run yet\n" in shown
    assert "error: 'nn' is nothing to do while a program is stepped\n" in shown


def test_what_stays_when_a_program_is_over(stepped: Stepped) -> None:
    shown = stepped(
        ':step shop ["lamp"]\nb select\nb 26\nc\nq\n:step\nq\n:step shop ["lamp"]\nb\nq\n:step ask "Why?"\nb\nq\n'
    )
    assert "q\n>>> :step\nstep 4, branch 0, shop.py:26 in shop: append\n" in shown
    assert "breakpoint 1: select\nbreakpoint 2: 26\n(shop:22) b\n1: select\n2: 26\n(shop:22) q\n" in shown
    assert "(ask:15) b\nno breakpoints\n" in shown


def test_a_run_that_was_stepped_is_a_run(stepped: Stepped) -> None:
    shown = stepped(':step shop ["lamp"]\nb 27\nc\nset answer = " no"\nb- 1\nc\n:tree\n:runs\n:tokens answer\n_.vars\n')
    assert "answer = ' no'" in shown.split(":tree\n")[1] and "\n{'reply': ' no', 'verdict': 'little'}\n" in shown


def test_a_program_that_is_not_the_same_when_it_is_run_again(stepped: Stepped) -> None:
    shown = stepped(
        """\
        times = []
        @program
        def forgetful(s):
            times.append(1)
            if len(times) == 1:
                s += "a" + gen("a", max_tokens=3)
            s += "b"
            s += "c"
        :step forgetful
        n
        n
        n
        n
        back
        c
        """
    )
    assert "\nthe program did something else here when it was run again\n" in shown
    assert shown.splitlines()[-1].startswith("prompt 0 tokens")


def test_requests_that_are_made_in_other_ways(stepped: Stepped) -> None:
    shown = stepped(
        """\
        @program
        def others(s):
            forks = s.fork(2)
            forks += gen("x", max_tokens=2)
            forks.join()
            asked = gen("later", max_tokens=2)
            s += "a" + asked
            return s["x"]
        :step others
        b lter
        b later
        n
        n
        c
        p later, x
        c
        """
    )
    assert [line.split(" in others: ")[1] for line in stops(shown)] == ["fork", "python", "python", "return"]
    assert "did you mean 'later'?" in shown and "\n(' no', [' no', ' no'])\n" in shown


def test_what_cannot_be_played_is_told(stepped: Stepped) -> None:
    shown = stepped(
        """\
        calls = []
        @tool
        def thing(n: int):
            calls.append(n)
            return object()
        @program
        def things(s):
            made = thing(1)
            s += "a"
            s += "b"
        :step things
        n
        n
        back
        q
        calls
        """
    )
    assert "the tool thing cannot be replayed: its value is " in shown and shown.endswith("calls\n[1, 1]\n")
