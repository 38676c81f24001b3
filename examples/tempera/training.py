"""Training runs of the learnt editor: a folder for each seed, which a run that was stopped goes on from."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from ramify.ir.errors import UsageError
from ramify.runtime.backend import Backend

from .editors import Editor, Learnt, RandomEditor, Unedited
from .evaluate import share_right
from .policy import AttentionPolicy, PolicyShape, save_policy
from .ppo import Learner, Progress, Settings
from .problem import Problem, Source

__all__ = ["CURVE", "POLICY", "read_curve", "train"]

POLICY, STATE, CURVE, RUN = "policy.pt", "state.pt", "curve.jsonl", "run.json"
LOOKS = 4


def train(
    source: Source,
    seed: int,
    folder: Path,
    settings: Settings,
    backend: str | Path | Backend | None,
    *,
    resume: bool,
    overwrite: bool,
    tell: Callable[[str], None],
) -> None:
    """Train one policy in a folder, with a line of its curve after each update.

    Raises UsageError for a folder that holds another run, or one that is not to be gone on with.
    """
    problem = source.problem(seed)
    begin(folder, {"source": asdict(source), "seed": seed, "settings": asdict(settings)}, resume, overwrite)
    torch.manual_seed(seed)
    environment, features = problem.environment(backend), problem.features(backend)
    hidden_size = features.of(environment.start(problem.queries[:1], problem.exemplars)).shape[-1]
    policy = AttentionPolicy(PolicyShape.of(problem.actions, hidden_size))
    learner = Learner(environment, features, policy, settings, problem.queries, problem.exemplars, seed)
    restore(learner, folder)
    if learner.update == 0:
        add_line(folder, first_look(learner, problem))
    for progress in learner.run():
        line = asdict(progress) | look(learner, problem)
        add_line(folder, line)
        save(learner, folder)
        seen = f"  held-out {line['held_out']:.3f}" if "held_out" in line else ""
        tell(f"seed {seed}  {describe(progress)}{seen}")
    tell(f"seed {seed}  {environment.model.counts}")


def begin(folder: Path, run: dict[str, Any], resume: bool, overwrite: bool) -> None:
    """Make the folder, or check that what is in it is this run."""
    path = folder / RUN
    described = json.dumps(run, default=str, indent=1)
    if path.exists() and not resume and not overwrite:
        raise UsageError(f"{folder} holds a run", help="--resume goes on with it, --overwrite starts again")
    if path.exists() and resume and path.read_text(encoding="utf-8") != described:
        raise UsageError(f"{folder} holds a run with other data or settings", help="give the same, or --overwrite")
    folder.mkdir(parents=True, exist_ok=True)
    if not resume:
        for name in (POLICY, STATE, CURVE):
            (folder / name).unlink(missing_ok=True)
    path.write_text(described, encoding="utf-8")


def restore(learner: Learner, folder: Path) -> None:
    """Go on from what `save` wrote, if it is there. Episodes that were under way are begun anew."""
    if not (folder / STATE).exists():
        (folder / CURVE).unlink(missing_ok=True)
        return
    saved = torch.load(folder / STATE, weights_only=True)
    learner.update = saved["update"]
    learner.policy.load_state_dict(saved["policy"])
    learner.optimizer.load_state_dict(saved["optimizer"])
    learner.generator.set_state(saved["generator"])
    learner.rng.seed(f"{learner.update} updates")
    lines = (folder / CURVE).read_text(encoding="utf-8").splitlines()
    (folder / CURVE).write_text("".join(f"{line}\n" for line in lines[: learner.update + 1]), encoding="utf-8")


def save(learner: Learner, folder: Path) -> None:
    """Write the policy, and what a further run needs to go on; each file is replaced at once."""
    state = {
        "update": learner.update,
        "policy": learner.policy.state_dict(),
        "optimizer": learner.optimizer.state_dict(),
        "generator": learner.generator.get_state(),
    }
    save_policy(learner.policy, folder / f"{POLICY}.part")
    (folder / f"{POLICY}.part").replace(folder / POLICY)
    torch.save(state, folder / f"{STATE}.part")
    (folder / f"{STATE}.part").replace(folder / STATE)


def first_look(learner: Learner, problem: Problem) -> dict[str, Any]:
    """The curve's first line: the shares that are right before any training, unedited and edited at random."""
    states = learner.environment.start(problem.split.dev, problem.exemplars)
    editors: dict[str, Editor] = {"unedited": Unedited(), "random": RandomEditor(learner.rng)}
    shares = {name: share_right(learner.environment, editor, states) for name, editor in editors.items()}
    return {"update": 0, "env_steps": 0, **shares} | {"held_out": held_out(learner, problem)}


def look(learner: Learner, problem: Problem) -> dict[str, float]:
    """Now and then: the share that is right of held-out queries whose prompts the policy has edited."""
    every = max(1, learner.settings.num_updates // LOOKS)
    if learner.update % every and learner.update != learner.settings.num_updates:
        return {}
    return {"held_out": held_out(learner, problem)}


def held_out(learner: Learner, problem: Problem) -> float:
    """The share that is right of the development rows after the policy's edits."""
    states = learner.environment.start(problem.split.dev, problem.exemplars)
    return share_right(learner.environment, Learnt(learner.policy, learner.features), states)


def add_line(folder: Path, line: dict[str, Any]) -> None:
    """Append a line to the curve."""
    with (folder / CURVE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def read_curve(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's curve."""
    return [json.loads(line) for line in (folder / CURVE).read_text(encoding="utf-8").splitlines()]


def describe(progress: Progress) -> str:
    """How training stands, as a line."""
    return (
        f"{progress.env_steps:6,} edits  reward {progress.reward:+.2f}  right {progress.right:.2f}  "
        f"{progress.edits:.1f} edits a prompt  entropy {progress.entropy:.2f}"
    )
