"""Each pass against golden files: a line that names the passes, the input, `// ----`, the expected output."""

from __future__ import annotations

from pathlib import Path

import pytest
from ramify.compiler.pipeline import PIPELINE, run_pipeline
from ramify.ir.core import Module
from ramify.ir.errors import UsageError, VerifyError
from ramify.ir.parser import parse
from ramify.ir.printer import print_module

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = sorted(path for each in PIPELINE for path in (GOLDEN / each.name).glob("*.ir"))


@pytest.mark.parametrize("path", CASES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_golden(path: Path, golden) -> None:
    header, rest = path.read_text(encoding="utf-8").split("\n", 1)
    before = rest.split("// ----\n")[0]
    wanted = header.removeprefix("// passes: ").split(", ")
    disable = [each.name for each in PIPELINE if each.name not in wanted]
    after = run_pipeline(parse(before), disable=disable)
    golden(path.relative_to(GOLDEN), f"{header}\n{before}// ----\n{print_module(after)}")


def test_every_pass_has_golden_files() -> None:
    assert {path.parent.name for path in CASES} == {each.name for each in PIPELINE}


def test_unknown_pass_is_named() -> None:
    with pytest.raises(UsageError, match="there is no pass 'promot'"):
        run_pipeline(Module({}, "f"), after="promot")


def test_a_pass_that_breaks_the_module_is_named(monkeypatch) -> None:
    from ramify.compiler import pipeline

    text = "module @f\n\nfunc @f(%s: cell) {\n  %v = py.const {value = 1} : obj\n  flow.return %v\n}\n"
    broken = pipeline.Pass("vandal", lambda module: module.functions["f"].body.ops.pop(), "drops the end")
    monkeypatch.setattr(pipeline, "PIPELINE", (broken,))
    with pytest.raises(VerifyError, match="vandal"):
        run_pipeline(parse(text))


def test_a_pass_that_breaks_it_for_a_later_one_is_named(monkeypatch) -> None:
    """A later pass fails on what it finds; the one before is to blame."""
    from ramify.compiler import pipeline

    def drop(module: Module) -> None:
        del module.functions["f"].body.ops[0]

    def look(module: Module) -> None:
        raise LookupError("the constant is gone" if len(module.functions["f"].body.ops) < 2 else "nothing to find")

    text = "module @f\n\nfunc @f(%s: cell) {\n  %v = py.const {value = 1} : obj\n  flow.return %v\n}\n"
    passes = (pipeline.Pass("vandal", drop, "drops a value"), pipeline.Pass("victim", look, "looks for it"))
    monkeypatch.setattr(pipeline, "PIPELINE", passes)
    with pytest.raises(VerifyError, match="after the pass `vandal`"):
        run_pipeline(parse(text))
    with pytest.raises(LookupError, match="nothing to find") as caught:
        run_pipeline(parse(text), disable=["vandal"])
    assert caught.value.__notes__ == ["in the pass `victim`"]


def test_the_input_is_left_alone() -> None:
    text = (GOLDEN / "promote" / "loop.ir").read_text(encoding="utf-8").split("\n", 1)[1].split("// ----\n")[0]
    module = parse(text)
    before = print_module(module)
    assert print_module(run_pipeline(module)) != before
    assert print_module(module) == before


def test_on_pass_reports_every_pass_and_its_time() -> None:
    text = "module @f\n\nfunc @f(%s: cell) {\n  %v = py.const {value = 1} : obj\n  flow.return %v\n}\n"
    seen: list[tuple[str, bool]] = []
    run_pipeline(parse(text), on_pass=lambda each, _module, ms: seen.append((each.name, ms >= 0)))
    assert seen == [(each.name, True) for each in PIPELINE]
