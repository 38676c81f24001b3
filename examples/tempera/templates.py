"""Templates in PromptSource's file format: how an exemplar's text is worded.

A file holds named Jinja texts; what stands before "|||" is the input, and the answer choices in it are replaced by the
task's own label words.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import SandboxedEnvironment
from ramify.ir.errors import UsageError

__all__ = ["LONGEST", "PromptTemplate", "load_templates"]

LONGEST = 2048
SEPARATOR = "|||"
ENVIRONMENT = SandboxedEnvironment()
GIVEN = frozenset({"answer_choices"})


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """One wording: a name, the compiled Jinja text, the label words, and the fields of an example that it shows."""

    name: str
    jinja: jinja2.Template
    labels: tuple[str, ...]
    fields: frozenset[str]

    def write(self, example: str | dict[str, str]) -> str:
        """The example as this template words it; a plain text stands for every field.

        Raises UsageError if a field is missing.
        """
        values = dict.fromkeys(self.fields, example) if isinstance(example, str) else example
        if missing := sorted(self.fields - values.keys()):
            raise UsageError(
                f"the template {self.name!r} shows the field {missing[0]!r}, which an example lacks",
                help=f"it has {', '.join(values)}; take templates that were written for this data set",
            )
        return self.jinja.render(values, answer_choices=self.labels).strip()


def load_templates(path: Path, labels: Sequence[str]) -> list[PromptTemplate]:
    """The templates of a file, sorted by name, with the task's label words in place of their answer choices.

    Left out are those that write a text for some labels only, since that text would tell the label. Raises UsageError
    for a file that is none of PromptSource's, or has no other.
    """
    records = sorted(read_records(path), key=lambda record: str(record["name"]))
    inputs = [(record, own_choices(record, labels).split(SEPARATOR)[0]) for record in records]
    templates = [template(str(record["name"]), text, labels) for record, text in inputs if is_for_every_label(text)]
    if not templates:
        raise UsageError(f"{path}: no template that fits every label")
    return templates


def template(name: str, text: str, labels: Sequence[str]) -> PromptTemplate:
    """Compile the Jinja text of a template's input."""
    limited = re.sub(r"\{\{(.+?)\}\}", rf"{{{{\1 | string | truncate({LONGEST})}}}}", text, flags=re.DOTALL)
    fields = frozenset(find_undeclared_variables(ENVIRONMENT.parse(limited)) - GIVEN)
    return PromptTemplate(name, ENVIRONMENT.from_string(limited), tuple(labels), fields)


def own_choices(record: dict[str, Any], labels: Sequence[str]) -> str:
    """The Jinja text with each answer choice replaced, in order, wherever it stands, by the label word for it."""
    text = str(record["jinja"])
    choices = str(record.get("answer_choices") or "").split(SEPARATOR)
    for choice, label in zip(map(str.strip, choices), labels, strict=False):
        if choice:
            text = text.replace(choice, label)
    return text


def is_for_every_label(text: str) -> bool:
    """Whether a text stands by itself: no block opened in it is closed behind the separator, and no label decides."""
    try:
        return "label" not in find_undeclared_variables(ENVIRONMENT.parse(text))
    except jinja2.TemplateSyntaxError:
        return False


def read_records(path: Path) -> list[dict[str, Any]]:
    """The templates' records as the file has them."""
    content = parse_yaml(path)
    records = content.get("templates") if isinstance(content, dict) else None
    if not isinstance(records, dict) or not all(
        isinstance(record, dict) and {"name", "jinja"} <= record.keys() for record in records.values()
    ):
        raise UsageError(
            f"{path}: not a file of PromptSource templates", help="it needs `templates:` with name and jinja"
        )
    return list(records.values())


def parse_yaml(path: Path) -> Any:
    """A YAML file in which PromptSource's own tags stand for plain mappings."""
    try:
        import yaml
    except ImportError:
        raise UsageError("reading templates takes pyyaml", help='pip install "ramify[examples]"') from None

    class Loader(yaml.SafeLoader):  # type: ignore[misc, unused-ignore]
        pass

    for tag in ("!Template", "!TemplateMetadata"):
        Loader.add_constructor(tag, lambda loader, node: loader.construct_mapping(node, deep=True))
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader)
    except OSError as error:
        raise UsageError(f"cannot read the templates: {error}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not YAML: {error}") from error
