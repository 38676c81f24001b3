"""Programs as SGLang's users write them run eagerly, compiled, streamed and in batches, with equal results."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest
import ramify as sgl

from .comparing import comparable
from .sglang_programs import CASES, Case, chat_by_blocks, chat_by_expressions, chat_by_halves

each_case = pytest.mark.parametrize("case", CASES, ids=[case.program.__name__ for case in CASES])


def run(case: Case, **settings: Any) -> sgl.ProgramState:
    arguments = copy.deepcopy(case.arguments)
    return case.program.run(**arguments, **({"temperature": 0} | case.settings | settings))


def facts(state: sgl.ProgramState) -> Any:
    assert state.error() is None, state.run.traceback
    return comparable([state.text(), state.messages(), dict(state.run.vars), state.ret_value])


@each_case
def test_eager_and_compiled_give_the_same(case: Case) -> None:
    compiled = run(case)
    assert case.check(compiled), compiled.text()
    assert facts(run(case, eager=True)) == facts(compiled)


@each_case
def test_streamed_runs_and_batches_give_the_same(case: Case) -> None:
    alone = facts(run(case))
    for eager in (False, True):
        streamed = run(case, stream=True, eager=eager)
        assert "".join(streamed.text_iter()) == streamed.text()
        assert facts(streamed) == alone
    rows = [copy.deepcopy(case.arguments) for _ in range(2)]
    assert [facts(state) for state in case.program.run_batch(rows, temperature=0, **case.settings)] == [alone, alone]


def test_streaming_in_asyncio_gives_the_same() -> None:
    async def texts() -> list[str]:
        async def text(case: Case) -> str:
            state = run(case, stream=True)
            return "".join([piece async for piece in state.text_async_iter()])

        return await asyncio.gather(*map(text, CASES))

    assert asyncio.run(texts()) == [run(case).text() for case in CASES]


def test_roles_mean_the_same_in_all_forms() -> None:
    arguments = {"one": "What is 3 + 4?", "two": "Again."}
    texts = {
        form.run(**arguments, temperature=0).text() for form in (chat_by_expressions, chat_by_blocks, chat_by_halves)
    }
    assert len(texts) == 1
