"""`set NAME = VALUE`: another value for a variable, or another answer in place of one that was generated."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any

from ...ir.errors import UsageError, nearest
from ...runtime.generation import Generation
from ...runtime.prompt import CALLS, Prompt
from ...runtime.reading import Reading
from ...runtime.replacing import Replacing, answered
from ..state import State
from ..transcript import branch_name
from .scene import Scene

_FORM = "set NAME = VALUE, or set STATE['NAME'] = VALUE for what was generated"


@dataclass(frozen=True, slots=True)
class Assignment:
    """What was set: a local variable, or with a `state`, an expression, a variable of that."""

    name: str
    state: str | None
    value: Any


def parse(text: str, scene: Scene) -> Assignment:
    """An assignment as it is written, with its value. Raises UsageError, and what evaluating the value raises."""
    try:
        (statement,) = ast.parse(text.strip()).body
    except (SyntaxError, ValueError):  # also for nothing, or more than one statement
        raise UsageError(f"this is no assignment: {text.strip() or 'nothing'}", help=_FORM) from None
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            return Assignment(name, None, scene.evaluate(ast.unparse(value)))
        case ast.Assign(targets=[ast.Subscript(value=base, slice=ast.Constant(value=str(name)))], value=value):
            return Assignment(name, ast.unparse(base), scene.evaluate(ast.unparse(value)))
    raise UsageError(f"this cannot be set: {text.strip() or 'nothing'}", help=_FORM)


def assign(assignment: Assignment, scene: Scene) -> str:
    """Do it; says what was set. Raises UsageError for names that nothing has, and for values that cannot be."""
    name, value = assignment.name, assignment.value
    if assignment.state is not None:
        state = scene.evaluate(assignment.state)
        if not isinstance(state, Reading):
            raise UsageError(f"{assignment.state} is no state", help=_FORM)
        return _assign_generated(name, value, state.prompt, scene)
    variables, generated = scene.variables, scene.selected.names()
    if name in variables or (name in scene.visit.local_names and name not in generated):
        if isinstance(variables.get(name), State) or isinstance(value, State):
            raise UsageError(f"{name} stands for a state, which cannot be replaced", help=_FORM)
        same = scene.visit.assign(name, value)
        also = f", and so is {' and '.join(same)}, which stands for the same value" if same else ""
        return f"{name} is {value!r} now{also}"
    if name in generated:
        return _assign_generated(name, value, scene.selected, scene)
    known = [*variables, *generated]
    raise UsageError(f"there is no variable {name!r} here", help=nearest(name, known, "there are") or None)


def _assign_generated(name: str, value: Any, prompt: Prompt, scene: Scene) -> str:
    node = prompt.find(name)
    where = branch_name(prompt.branch)
    if node.kind not in CALLS:
        _put({prompt: prompt.bind(name, value)}, scene)
        return f"{name} is {value!r} now in {where}; its text is as it was"
    old: Generation = node.value
    if len(old.samples) > 1:
        raise UsageError(f"{name} has {len(old.samples)} samples, and only a single answer can be replaced")
    new = answered(old, value)
    replacing = Replacing(old, new)
    held = [state.prompt for state in scene.states()] + [scene.selected, scene.visit.prompt]
    held += [value for frame, _ in scene.calls() for value in frame.values if isinstance(value, Prompt)]
    _put({each: replacing.prompt(each) for each in held}, scene)
    prompt.context.replace(old, new)
    others = {each.branch for each in held if replacing.prompt(each) is not each} - {prompt.branch}
    also = f", and in {', '.join(map(branch_name, sorted(others)))}" if others else ""
    return f"{name} is {new.value()!r} now in {where}{also}"


def _put(made: dict[Prompt, Prompt], scene: Scene) -> None:
    """Have whatever holds one of these prompts hold the other one."""
    for state in scene.states():
        state.prompt = made.get(state.prompt, state.prompt)
    for frame, _ in scene.calls():
        frame.values[:] = [made.get(value, value) if isinstance(value, Prompt) else value for value in frame.values]
    scene.selected = made.get(scene.selected, scene.selected)
