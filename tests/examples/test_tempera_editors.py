"""Editors of prompts on models that are functions of the prompt, the learner, its runs, and the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from ramify.backends.scripted import ScriptedBackend
from ramify.examples.tempera.__main__ import main
from ramify.examples.tempera.editors import Beam, Greedy, Learnt, RandomEditor, Unedited
from ramify.examples.tempera.environment import EditState
from ramify.examples.tempera.episodes import Environment
from ramify.examples.tempera.evaluate import Evaluated, share_right, table
from ramify.examples.tempera.features import Features
from ramify.examples.tempera.figure import draw
from ramify.examples.tempera.labelling import LabelModel
from ramify.examples.tempera.policy import AttentionPolicy, PolicyShape, load_policy, save_policy
from ramify.examples.tempera.ppo import Learner, Settings
from ramify.examples.tempera.problem import Problem, Source
from ramify.examples.tempera.program import edit
from ramify.examples.tempera.rate import measure
from ramify.examples.tempera.training import CURVE, POLICY, train
from ramify.ir.errors import UsageError


def last_word(text: str) -> str:
    return text.rstrip(".").split()[-1]


def sure(prompt: str) -> dict[str, float]:
    """A reader who knows the opinions of the prompt's exemplars and no others, and likes great a little."""
    *shown, query = prompt.split("Review: ")[1:]
    labels = {last_word(each.split("\n")[0]): each.split("Sentiment: ")[1].strip() for each in shown}
    known = labels.get(last_word(query.split("\n")[0]))
    return {label: 0.9 if label == known else 0.1 for label in ("terrible", "great")} if known else {"great": 0.6}


def reader() -> ScriptedBackend:
    return ScriptedBackend(score=lambda text, choice: sure(text).get(choice.strip(), 0.4))


@pytest.fixture(scope="module")
def problem() -> Problem:
    return Source().problem(0)


def unknown(problem: Problem, environment: Environment) -> list[EditState]:
    """States of queries whose word only an exemplar of the pool explains."""
    states = environment.start(problem.split.test, problem.exemplars)
    return [s for s in states if any(last_word(str(row.text)) == last_word(str(s.query.text)) for row in s.pool)][:6]


def test_a_batch_of_edits_runs_each_prompt_once(problem: Problem) -> None:
    environment = problem.environment(reader())
    (state,) = environment.start(problem.split.test[:1], problem.exemplars)
    edited = [problem.actions.apply(state, action) for action in range(len(problem.actions))]
    prompts = [problem.prompts.write(each) for each in edited]
    assert environment.probabilities(edited) == [environment.model.known[prompt] for prompt in prompts]
    counts = environment.model.counts
    assert counts.asked == len(edited) == 75 and counts.computed == len(set(prompts)) < 75
    environment.probabilities(edited)
    assert counts.asked == 150 and counts.computed == len(set(prompts))
    assert all(sum(each) == pytest.approx(1.0) for each in environment.probabilities(edited))


@pytest.mark.parametrize("editor", [Greedy(), Beam(width=2), Greedy(goal="label")])
def test_searching_editors_find_the_exemplar_that_tells(problem: Problem, editor: Beam) -> None:
    environment = problem.environment(reader())
    states = unknown(problem, environment)
    before = environment.scores(states)
    edited = editor.edit(environment, states)
    assert len(states) == 6 and all(environment.is_right(edited))
    assert all(after > earlier for earlier, after in zip(before, environment.scores(edited), strict=True))


def test_random_edits_depend_on_their_generator_alone(problem: Problem) -> None:
    environment = problem.environment(reader())
    states = environment.start(problem.split.test[:4], problem.exemplars)
    edited = [RandomEditor(Random(seed)).edit(environment, states) for seed in (1, 1, 2)]
    assert edited[0] == edited[1] != edited[2] and Unedited().edit(environment, states) == states


def test_the_program_edits_as_the_greedy_editor_does(problem: Problem) -> None:
    environment = problem.environment(reader())
    state = replace(unknown(problem, environment)[0])
    run = edit.run(str(state.query.text), steps=1, backend=reader())
    (edited,) = Greedy(steps=1).edit(environment, [state])
    assert run.value == problem.prompts.task.labels[state.query.label]
    assert problem.prompts.write(edited).startswith(problem.prompts.task.instruction)


class Flags:
    """Features that say of each exemplar whether it has the query's word."""

    def of(self, states: Sequence[EditState]) -> torch.Tensor:
        rows = [
            [(0.0, 1.0), *((float(last_word(row.text) == last_word(s.query.text)), 0.0) for row in (*s.slots, *s.pool))]
            for s in states
        ]
        return torch.tensor(rows)


def learner(problem: Problem, env_steps: int) -> Learner:
    torch.manual_seed(0)
    settings = Settings(env_steps=env_steps, num_processes=16, lr=3e-3, minibatches=2)
    policy = AttentionPolicy(PolicyShape(2, 4, 12, 4, width=16, heads=2, layers=1))
    environment = problem.environment(reader())
    return Learner(environment, Flags(), policy, settings, problem.queries, problem.exemplars, seed=0)  # type: ignore[arg-type]


def test_the_learner_learns_which_exemplar_tells(problem: Problem) -> None:
    torch.set_num_threads(1)
    learning = learner(problem, 1280)
    progress = list(learning.run())
    states = unknown(problem, learning.environment)
    editor = Learnt(learning.policy, learning.features)
    assert progress[-1].env_steps == 1280 and progress[-1].reward > progress[0].reward + 0.3
    assert share_right(learning.environment, editor, states) > share_right(learning.environment, Unedited(), states)


def test_a_policy_has_a_logit_for_each_edit_and_survives_a_file(problem: Problem, tmp_path: Path) -> None:
    policy = AttentionPolicy(PolicyShape(8, 4, 12, 4, num_instruction_edits=52))
    features, template_ids = torch.randn(3, 17, 8), torch.zeros(3, 4, dtype=torch.long)
    policy.normalizer.see(features)
    logits, values = policy(features, template_ids)
    assert logits.shape == (3, 75 + 52) and values.shape == (3,)
    assert policy.normalizer(features).mean().abs() < 1e-5
    save_policy(policy, tmp_path / "policy.pt")
    assert torch.equal(load_policy(tmp_path / "policy.pt")(features, template_ids)[0], logits)


def test_features_are_the_hidden_states_of_prompts_and_pairs(problem: Problem) -> None:
    features = Features(problem.prompts)
    environment = problem.environment(None)
    states = environment.start(problem.split.test[:1], problem.exemplars)
    found = features.of([states[0], problem.actions.apply(states[0], 11)])
    assert found.shape == (2, 17, 256) and len(features.known) == 18
    assert torch.equal(found[0, 1], found[1, 5]) and not torch.equal(found[0, 0], found[1, 0])
    assert problem.prompts.write(states[0]) in features.known


def small_split(problem: Problem, folder: Path) -> Path:
    """A k-shot folder of a few invented reviews."""
    folder.mkdir()
    for name, rows in {"train": problem.split.train[:20], "dev": problem.split.dev[:2]}.items():
        text = "".join(f"{row.text}\t{row.label}\n" for row in rows)
        (folder / f"{name}.tsv").write_text(f"sentence\tlabel\n{text}", encoding="utf-8")
    return folder


def test_a_run_goes_on_where_it_stopped_and_refuses_another(problem: Problem, tmp_path: Path) -> None:
    few = Settings(num_processes=2, num_steps=2, env_steps=8, minibatches=1, epochs=1)
    source = Source(small_split(problem, tmp_path / "data"))
    told: list[str] = []

    def run(settings: Settings, *, resume: bool = False, stop: bool = False) -> None:
        def tell(line: str) -> None:
            told.append(line)
            if stop:
                raise KeyboardInterrupt

        train(source, 0, tmp_path / "run", settings, None, resume=resume, overwrite=False, tell=tell)

    with pytest.raises(KeyboardInterrupt):
        run(few, stop=True)
    with pytest.raises(UsageError, match="holds a run"):
        run(few)
    with pytest.raises(UsageError, match="other data or settings"):
        run(replace(few, lr=1e-3), resume=True)
    run(few, resume=True)
    lines = [json.loads(line) for line in (tmp_path / "run" / CURVE).read_text("utf-8").splitlines()]
    assert [line["update"] for line in lines] == [0, 1, 2]
    assert (tmp_path / "run" / POLICY).exists() and "prompts asked" in told[-1]
    assert {"unedited", "random", "held_out"} <= lines[0].keys()


def test_curves_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for seed in (0, 1):
        (tmp_path / f"seed-{seed}").mkdir()
        lines = [{"env_steps": 0, "unedited": 0.5, "random": 0.4, "held_out": 0.5}, {"env_steps": 8, "held_out": 0.9}]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / f"seed-{seed}" / CURVE).write_text(text, encoding="utf-8")
    draw(tmp_path, tmp_path / "curve.svg")
    assert "<svg" in (tmp_path / "curve.svg").read_text("utf-8")
    with pytest.raises(UsageError, match="no training run"):
        draw(tmp_path / "empty", tmp_path / "curve.svg")


def test_the_table_says_how_far_the_learnt_editor_is_before_the_others() -> None:
    rights = {("none", 0): 0.5, ("none", 1): 0.6, ("learnt", 0): 0.8, ("learnt", 1): 0.8}
    rows = [Evaluated(editor, seed, 10, right, right, 0.0) for (editor, seed), right in rights.items()]
    assert "learnt - none: 0.250 ± 0.050 over 2 seeds" in table(rows)


def test_editing_goes_on_after_a_kill(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "edited.jsonl"
    command = ["edit", "--editor", "random", "--model", "scripted", "--limit", "20", "--out", str(out), "--quiet"]
    assert main(command) == 0
    whole = out.read_bytes()
    assert whole.count(b"\n") == 20
    out.write_bytes(whole[: len(whole) // 2])
    assert main(command) == 2 and "is there already" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0
    assert [json.loads(line)["query"] for line in out.read_bytes().splitlines()] == [
        json.loads(line)["query"] for line in whole.splitlines()
    ]


def test_usual_mistakes_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mistakes = {
        "no policy": ["evaluate", "--runs", str(tmp_path), "--limit", "1"],
        "no task 'sst'": ["edit", "--task", "sst"],
        "cannot read the rows": ["train", "--data", str(tmp_path), "--out", str(tmp_path / "runs")],
        "has none": ["edit", "--query", "Fine.", "--editor", "greedy-label"],
    }
    for message, command in mistakes.items():
        assert main(command) == 2
        assert message in capsys.readouterr().err


def test_the_rate_is_measured_with_and_without_sharing(problem: Problem) -> None:
    shared, alone, both = measure(problem, None, 1)
    assert "prefixes shared" in shared and "nothing shared" in alone and "times as fast" in both


def test_a_real_split_is_edited(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = data / "tempera"
    source = ["--data", str(folder / "kshot_MIT" / "sst-2" / "16-13"), "--task", "glue/sst2"]
    files = ["--tasks", str(folder / "task_configs.json"), "--templates", str(folder / "promptsource_Apache-2.0")]
    assert main(["edit", *source, *files, "--model", "scripted", "--limit", "2", "--editor", "random", "--quiet"]) == 0
    assert capsys.readouterr().out.count("Sentiment: ") >= 8


def test_labels_are_asked_as_the_task_writes_them(problem: Problem) -> None:
    backend = reader()
    LabelModel(problem.prompts.task, backend).probabilities(["Review: x\nSentiment:"])
    assert problem.prompts.task.label_words == [" terrible", " great"]
