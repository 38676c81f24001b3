"""`:tokens` and `:tree` on a model: log-probabilities, masks, what was cached, and what still is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ramify.backends.local import LocalBackend
from ramify.backends.tiny import model_dir
from ramify.lang.origins import origins
from ramify.lang.session import Session
from ramify.lang.token_listing import calls_of, listed

from .terminal import HELLO, Type

FORKS = """\
@rf.program
def forks(s):
    s += "One two three four five six seven.\\n"
    for branch in s.fork(2):
        branch += rf.user("Say what is said.") + rf.assistant(rf.gen("answer", max_tokens=3, logprobs=2))

forks.run().ok
"""
MASKED = """\
@rf.program
def masked(s):
    s += "Say" + rf.gen("sure", regex="(ab|xb)cdefgh", max_tokens=20, logprobs=1)
    s += rf.select("which", ["yes", "no"])

masked.run().ok
"""


@pytest.fixture
def local(session: Session) -> Iterator[LocalBackend]:
    from ramify.lang.options import set_default_backend

    local = LocalBackend(model_dir(), device="cpu")
    set_default_backend(local)
    yield local
    local.close()


def test_tokens_without_logprobs_and_without_a_model(type_in: Type) -> None:
    assert type_in(":tokens a\n").startswith("error: nothing was run yet")
    type_in(HELLO + "r = hello.run('Bob')\n")
    shown = type_in(":tokens a\n")
    assert shown.startswith("a: 3 tokens, ended by ") and "log-probabilities were not asked for" in shown
    assert type_in(":tokens b\n") == ("error: the last run generated nothing called 'b'\n  help: it generated a\n")
    assert type_in(":tokens\n").startswith("error: :tokens takes the name")


def test_tokens_with_logprobs(type_in: Type, session: Session, local: LocalBackend) -> None:
    type_in(FORKS)
    first, second, *lines = type_in(":tokens answer\n").splitlines()
    assert first.startswith("answer, branch 0: 3 tokens, ended by ") and second.split() == [
        "token",
        "logprob",
        "instead",
    ]
    assert lines[3].startswith("answer, branch 1: ") and len(lines) == 3 + 2 + 3
    run = session.latest_run()
    call = calls_of(run, "answer")[0]
    tokens = listed(call)
    assert "".join(token.text for token in tokens) == call.record().text
    assert [token.logprob for token in tokens] == [each.logprob for each in call.record().logprobs]
    assert all(len(token.alternatives) in (1, 2) and token.num_allowed is None for token in tokens)


def test_what_a_constraint_forced(type_in: Type, session: Session, local: LocalBackend) -> None:
    type_in(MASKED)
    shown = type_in(":tokens sure\n").splitlines()
    assert shown[1].split() == ["token", "logprob", "allowed", "instead"]
    tokens = listed(calls_of(session.latest_run(), "sure")[0])
    assert "".join(token.text for token in tokens)[1:] == "bcdefgh"
    assert not tokens[0].forced and (tokens[0].num_allowed or 0) >= 2  # a or x, alone or with what follows
    assert all(token.forced for token in tokens[1:]) and len(tokens) > 1
    likely = [alternative for token in tokens for alternative in token.alternatives]
    assert not any(is_allowed for text, _, is_allowed in likely if not set(text) & set("abcdefghx"))
    assert any("masked" in line for line in shown) == any(not is_allowed for *_, is_allowed in likely)
    title, _, *scores = type_in(":tokens which\n").splitlines()
    assert title in ("which: 'yes'", "which: 'no'") and [line.split()[0] for line in scores] == ["'yes'", "'no'"]


def test_where_tokens_came_from(type_in: Type, session: Session, local: LocalBackend) -> None:
    type_in(FORKS)
    assert type_in(":tree\n").count("(alive)") == 2
    known = [(text, origin) for pieces in origins(session.latest_run()).values() for text, origin in pieces if text]
    assert known.count(("Say what is said.", "computed")) == 1  # the other branch's request is answered by an equal one
    assert {origin for text, origin in known if text != "Say what is said."} == {"computed"}
    local.clear_cache()
    assert "branch 0  (0 of " in type_in(":tree\n")
    type_in("x = forks.run()\ny = forks.run()\n")
    pieces = origins(session.latest_run())
    assert {"".join(text for text, _ in each) for each in pieces.values()} == {
        "One two three four five six seven.\n", "Say what is said."
    }  # fmt: skip
    texts = [text for each in pieces.values() for text, origin in each if origin == "cached"]
    assert "One two three four five six seven.\n" in texts
