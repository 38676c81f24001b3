"""Gorilla's scorer: its rules on small cases, and every released verdict on APIBench's TorchHub replies."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from ramify.examples.gorilla.data import load_database, load_references, load_responses
from ramify.examples.gorilla.evaluate import Scorer, candidate_call, subtrees, tally
from ramify.examples.gorilla.evaluate import parse as parse_python
from ramify.examples.gorilla.hubs import HUBS, hub_rules
from ramify.ir.errors import UsageError

pytest.importorskip("tree_sitter_python")
RELEASED_KINDS = {"correct": "correct", "wrong": "wrong", "hallucinated": "halluc", "no call": "nocall"}


def record(call: str, domain: str = "Sounds") -> dict[str, Any]:
    return {"api_call": call, "domain": domain}


def found(hub: str, calls: list[str], candidate: str) -> int | None:
    return Scorer([record(call) for call in calls], HUBS[hub]).find(candidate)


@pytest.mark.parametrize(
    ("reply", "call"),
    [
        ("<<<api_call>>>: f('a'), <<<api_provider>>>: X", "f('a')"),
        ("{'api_call': 'f(g(1))', 'api_provider': 'X'}", "'f(g(1))"),
        ("api_call: f(1) and f(2) or so", "f(1) and f(2)"),
        ("api_call: no bracket", "no bracke"),
        ("api_call f(1)", "(1)"),
        ("api_call: f(1), api_call: f(2), api_provider", "f(1)"),
        ("api_provider: X, api_call: f(1)", "f(1)"),
        ("api_call", ""),
    ],
)
def test_the_call_is_cut_out_by_the_scorers_rule(reply: str, call: str) -> None:
    assert candidate_call(reply, HUBS["torchhub"]) == call


def test_a_reply_without_a_call_is_a_candidate_on_two_hubs_only() -> None:
    assert candidate_call("f(1)", HUBS["torchhub"]) is None
    assert candidate_call("f(1)", HUBS["tensorflowhub"]) == candidate_call("f(1)", HUBS["huggingface"]) == "f(1)"
    scorer = Scorer([record("f('a')")], HUBS["torchhub"])
    assert scorer.judge("f('a')", record("")).kind == scorer.judge(None, record("")).kind == "no call"


def test_subtrees_come_depth_first_and_the_last_sibling_first() -> None:
    texts = [text for _, text in subtrees(parse_python("f(a(1), b(2))"))]
    assert texts == ["f(a(1), b(2))"] * 3 + ["(a(1), b(2))", "b(2)", "(2)", "a(1)", "(1)"]
    assert list(subtrees(parse_python(""))) == [(None, "")]


def test_torchhub_asks_for_repository_and_model_only() -> None:
    call = "torch.hub.load(repo_or_dir='u/r', model='m', pretrained=True)"
    assert found("torchhub", [call], "torch.hub.load('u/r', 'm', pretrained=False)") == 0
    assert found("torchhub", [call], "torch.hub.load('u/r', 'n')") is None
    assert found("torchhub", ["torch.hub.load(size=3)"], "torch.hub.load(size=3)") is None


def test_tensorflowhub_asks_for_the_value_of_a_model_and_for_everything_else_whole() -> None:
    call = "hub.load(model='m', trainable=True)"
    assert found("tensorflowhub", [call], "hub.load('m', trainable=True)") == 0
    assert found("tensorflowhub", [call], "hub.load(model='m', trainable=False)") is None
    assert found("tensorflowhub", ["hub.load(model = 'm')"], "hub.load('m')") == 0


def test_huggingface_asks_for_the_values_of_keywords() -> None:
    call = "pipeline('task', model='base')"
    assert found("huggingface", [call], "pipeline(task='task', name='base')") == 0
    assert found("huggingface", [call], "pipeline('task', model='large')") is None


def test_the_subtree_is_the_first_of_the_function_and_else_the_last_of_all() -> None:
    assert found("huggingface", ["f('a')"], "f('b', f('a'))") == 0  # the outer f comes first and holds all
    assert found("huggingface", ["f('a')"], "x = [f('b'), f('a')]") == 0  # the last f comes first
    assert found("huggingface", ["f('a')"], "x = [f('a'), f('b')]") is None
    # No f: the last subtree is the arguments of g, or a string in them. An API of another name can match.
    assert found("huggingface", ["f('a')"], "g('ba')") == 0
    assert found("huggingface", ["f('a')"], "g('a', 'c')") == 0
    assert found("huggingface", ["f('a')"], "g(['a'], 'c')") == 0
    assert found("huggingface", ["f('c')"], "g(['a'], 'c')") is None


def test_the_first_api_that_matches_wins_and_its_domain_decides() -> None:
    scorer = Scorer([record("f('a')", "Sounds"), record("f('ab')", "Images")], HUBS["huggingface"])
    verdict = scorer.judge("api_call: f('ab'), api_provider", record("f('ab')", "Images"))
    assert (verdict.kind, verdict.api, verdict.same) == ("wrong", 0, False)
    verdict = scorer.judge("api_call: f('ab'), api_provider", record("f('a')", "Sounds"))
    assert (verdict.kind, verdict.api, verdict.same) == ("correct", 0, True)


def test_calls_that_nothing_can_match_and_text_that_is_no_python() -> None:
    assert found("huggingface", ["f()", "run.sh --x", "", "f"], "f()") is None
    for broken in ("", "((((", "'\ud800'", "\x00"):
        assert found("huggingface", ["f('a')"], broken) is None


def test_hubs_are_named() -> None:
    with pytest.raises(UsageError, match="no hub 'pypi'"):
        hub_rules("pypi")


def test_every_released_verdict_on_torchhub(data: Path) -> None:
    folder = data / "gorilla"
    expected = defaultdict(list)
    for line in (folder / "expected_verdicts.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        expected[row["file"]].append((row["question_id"], row["verdict_ts025"], row["api_index_ts025"]))
    totals = json.loads((folder / "expected_aggregates.json").read_text("utf-8"))
    references = load_references(folder / "apibench" / "torchhub_eval.json")
    scorer = Scorer(load_database(str(folder / "api" / "torchhub_api.jsonl")), HUBS["torchhub"])
    assert len(expected) == 8
    for name, rows in expected.items():
        responses = load_responses(folder / "responses" / name)
        verdicts = [scorer.judge(each.text, references[each.question_id - 1]) for each in responses]
        judged = [
            (each.question_id, RELEASED_KINDS[verdict.kind], verdict.api)
            for each, verdict in zip(responses, verdicts, strict=True)
        ]
        assert judged == [(number, kind, index if index >= 0 else None) for number, kind, index in rows]
        score, total = tally(verdicts), totals[name]
        assert (score.replies, score.correct, score.hallucinated) == (total["n"], total["correct"], total["halluc"])
        assert (score.accuracy, score.hallucination) == (total["acc"], total["hall"])


@pytest.mark.parametrize(
    ("file", "hub", "kinds"),
    [
        ("torchhub_api.jsonl", "torchhub", {"correct": 94}),
        ("tensorflowhub_api.jsonl", "tensorflowhub", {"correct": 674, "wrong": 22}),
        ("huggingface_api.jsonl", "huggingface", {"correct": 897, "wrong": 24, "hallucinated": 15}),
    ],
)
def test_a_databases_own_calls_are_right_where_the_rules_allow_it(
    data: Path, file: str, hub: str, kinds: dict[str, int]
) -> None:
    scorer = Scorer(load_database(str(data / "gorilla" / "api" / file)), HUBS[hub])
    told = [(each, scorer.judge(f"api_call: {each['api_call']}, api_provider", each)) for each in scorer.database]
    assert Counter(verdict.kind for _, verdict in told) == kinds
    for index, (_each, verdict) in enumerate(told):
        if verdict.kind == "wrong":  # an earlier API, of another domain, has arguments that are part of these
            assert verdict.api is not None and verdict.api < index
        if verdict.kind == "hallucinated":  # no call, or one without arguments
            assert scorer.references[index] is None
