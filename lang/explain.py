"""What a program costs over rows of arguments, predicted from dry runs (lang/dry_runs.py) and told by line of source.

The requests of all rows go into one prefix tree, which is a cache that never evicts; what they find there is what they
need not compute.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypedDict

from ..compiler.pipeline import PIPELINE
from ..ir.core import Module
from ..ir.errors import RamifyError, Unsupported, UsageError
from ..ir.span import Span
from ..runtime.generation import GenRecord
from ..runtime.interpreter import Interpreter
from ..runtime.prefix_tree import PrefixTree
from .arguments import Arguments
from .dry import Certainty, DryCall, DryRow, Model, Placeholders, Sent
from .dry_runs import dry_runs
from .execution import is_async
from .options import Options
from .outline import Outlined, outline

if TYPE_CHECKING:
    from .compiled import Compiled
    from .program import Program, Row

CERTAINTIES: tuple[Certainty, ...] = ("exact", "bound", "estimate")


class ExplainKeywords(TypedDict, total=False):
    """The options of `explain`."""

    backend: Any
    actual: bool
    run_host: bool
    passes: bool


@dataclass(slots=True)
class Costs:
    """Calls and tokens. prompt: of all prompts, as computed without sharing; cached: of them, what is there already.

    decode: generated tokens, in predictions the most that may come. shared_calls: calls that an equal one answers.
    kv: tokens of keys and values that the cache grows by.
    """

    calls: int = 0
    shared_calls: int = 0
    prompt: int = 0
    cached: int = 0
    decode: int = 0
    kv: int = 0

    @property
    def prefill(self) -> int:
        """Prompt tokens that are computed."""
        return self.prompt - self.cached

    def add(self, other: Costs) -> None:
        """Add all numbers of another one to these."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(frozen=True, slots=True)
class Doubt:
    """How far predicted costs are to be believed.

    prompt: how exact prompt, cached and prefill are. has_exact_length: whether decode is what comes, and not only the
    most. is_sure: whether the calls are made whatever is generated. has_exact_kv: whether no generated text may begin
    as another text in its place does, so that they share KV.
    """

    prompt: Certainty = "exact"
    has_exact_length: bool = True
    is_sure: bool = True
    has_exact_kv: bool = True

    def __or__(self, other: Doubt) -> Doubt:
        """The doubt of both together."""
        prompt = max(self.prompt, other.prompt, key=CERTAINTIES.index)
        return Doubt(
            prompt,
            self.has_exact_length and other.has_exact_length,
            self.is_sure and other.is_sure,
            self.has_exact_kv and other.has_exact_kv,
        )


@dataclass(slots=True)
class Line:
    """What a generation, choice or score of the source costs over all rows, and what was measured, if it was run."""

    kind: str
    name: str | None
    span: Span | None
    costs: Costs = field(default_factory=Costs)
    doubt: Doubt = Doubt()
    measured: Costs | None = None

    @property
    def label(self) -> str:
        """What the table calls it."""
        return self.name or self.kind

    @property
    def place(self) -> str:
        """File and line."""
        return "" if self.span is None else f"{Path(self.span.file).name}:{self.span.line}"


@dataclass(frozen=True, slots=True)
class PassSaving:
    """What the program would cost more without a pass of the compiler."""

    name: str
    calls: int
    prefill: int
    decode: int
    critical_path: int

    @property
    def saves(self) -> bool:
        """Whether anything is different without it."""
        return any((self.calls, self.prefill, self.decode, self.critical_path))


@dataclass(frozen=True, slots=True)
class Stop:
    """Rows whose prediction ends early. is_certain: whether the program ends there whatever is generated."""

    rows: tuple[int, ...]
    error: BaseException
    is_certain: bool


@dataclass(slots=True)
class Explanation:
    """The costs of a program, predicted. `str()` of it is the table; `show()` prints it, `html()` is a page.

    num_rows: how many rows there were. critical_path: the most calls of a row that wait for one another. stops: where
    predictions end early. passes: what each pass saves; None if that was not asked for, or cannot be told. impossible:
    why nothing could be predicted. outline: what is known of the program without running it. module: its IR. measured:
    what was measured, if it was run. failures: the rows that failed then. decode gives the text of tokens.
    """

    program: str
    model: str
    num_rows: int
    lines: list[Line]
    total: Costs
    critical_path: int
    bytes_per_token: int
    stops: list[Stop]
    passes: list[PassSaving] | None
    tree: PrefixTree
    outline: list[Outlined]
    module: Module
    decode: Callable[[Sequence[int]], str] = str
    impossible: RamifyError | None = None
    measured: Costs | None = None
    failures: list[tuple[int, BaseException]] = field(default_factory=list)

    @property
    def kv_bytes(self) -> int:
        """Bytes of keys and values when all of them are kept."""
        return self.total.kv * self.bytes_per_token

    @property
    def doubt(self) -> Doubt:
        """That of all lines together."""
        return reduce(or_, (line.doubt for line in self.lines), Doubt())

    def show(self, file: IO[str] | None = None) -> None:
        """Print the table; None is stdout."""
        from .explain_table import print_explanation

        print_explanation(self, file)

    def html(self) -> str:
        """A page with the table, the prefix tree, the IR and the source, which needs nothing from elsewhere."""
        from .explain_page import page

        return page(self)

    def _repr_html_(self) -> str:
        from .html_views import explanation_html

        return explanation_html(self)

    def __str__(self) -> str:
        from .explain_table import table_text

        return table_text(self)

    def to_dict(self) -> dict[str, Any]:
        """All numbers, as JSON can say them."""
        from .explain_table import as_dict

        return as_dict(self)


def explain(
    program: Program,
    rows: Iterable[Row] | None,
    *,
    backend: Any = None,
    actual: bool = False,
    run_host: bool = False,
    passes: bool = True,
) -> Explanation:
    """See Program.explain."""
    given = {} if backend is None else {"backend": backend}
    program = program.options(**given)
    compiled = program.compile()
    if rows is None and (missing := program.signature.missing()):
        return _without_arguments(program, compiled, missing)
    rows = [{}] if rows is None else list(rows)
    bound = [program.bind_row(number, row) for number, row in enumerate(rows)]
    found = _predict(program, compiled, bound, run_host=run_host, passes=passes and not run_host)
    if actual:
        from .explain_actual import measure

        measure(found, program, rows)
    return found


def _predict(
    program: Program, compiled: Compiled, rows: Sequence[Arguments], *, run_host: bool, passes: bool
) -> Explanation:
    options = program.run_options
    found = _nothing_yet(program, compiled, len(rows))
    try:
        model = Model.of(options)
        _check_predictable(program)
    except RamifyError as error:
        found.impossible = error
        return found
    found.model, found.bytes_per_token = model.name, model.bytes_per_token
    found.decode = lambda tokens: model.tokens.tokenizer.decode(list(tokens))
    dry_rows = _dry_rows(compiled.interpreter, model, rows, options, run_host=run_host)
    _account(found, dry_rows)
    found.stops = _stops(dry_rows)
    if passes and not compiled.is_from_file:
        found.passes = [
            _saving(name, found, compiled.without(name), model, rows, options)
            for name in (each.name for each in PIPELINE)
            if name not in compiled.disable
        ]
    return found


def _nothing_yet(program: Program, compiled: Compiled, num_rows: int) -> Explanation:
    """What is known without a prediction."""
    module = compiled.module
    return Explanation(program.name, "", num_rows, [], Costs(), 0, 0, [], None, PrefixTree(), outline(module), module)


def _without_arguments(program: Program, compiled: Compiled, missing: Sequence[str]) -> Explanation:
    found = _nothing_yet(program, compiled, 0)
    found.impossible = UsageError(
        f"nothing can be predicted without {', '.join(map(repr, missing))}",
        help=f"give a run's arguments (--arg {missing[0]}=...) or rows of them (--data FILE, explain([{{...}}, ...]))",
    )
    return found


def _check_predictable(program: Program) -> None:
    if is_async(program.fn):
        raise Unsupported(
            "an `async def` program is not predicted: what it awaits is outside of ramify",
            help="run it, and look at the trace of the run",
        )


def _dry_rows(
    interpreter: Interpreter, model: Model, rows: Sequence[Arguments], options: Options, *, run_host: bool
) -> list[DryRow]:
    return dry_runs(interpreter, Placeholders(model), rows, options, run_host=run_host)


def _saving(
    name: str, found: Explanation, without: Compiled, model: Model, rows: Sequence[Arguments], options: Options
) -> PassSaving:
    """Predict once more, without a pass."""
    other = Explanation("", "", 0, [], Costs(), 0, 0, [], None, PrefixTree(), [], without.module)
    _account(other, _dry_rows(without.interpreter, model, rows, options, run_host=False))
    more, less = other.total, found.total
    return PassSaving(
        name,
        (more.calls - more.shared_calls) - (less.calls - less.shared_calls),
        more.prefill - less.prefill,
        more.decode - less.decode,
        other.critical_path - found.critical_path,
    )


def line_key(kind: str, name: str | None, span: Span | None) -> Hashable:
    """What the calls of one line of the table have in common."""
    return kind, name, None if span is None else (span.file, span.line, span.column)


def _account(found: Explanation, rows: Sequence[DryRow]) -> None:
    """Put the calls of all rows into the prefix tree, round by round, and add up what each line costs."""
    lines: dict[Hashable, Line] = {}
    answered: set[Hashable] = set()
    calls = [(call.depth, number, call) for number, row in enumerate(rows) for call in row.calls]
    for _, _, call in sorted(calls, key=lambda entry: entry[:2]):
        line = lines.setdefault(line_key(call.kind, call.name, call.span), Line(call.kind, call.name, call.span))
        line.doubt |= Doubt(call.certainty, call.has_exact_length, call.is_sure)
        costs = _costs(found.tree, call, line, is_answered=call.key is not None and call.key in answered)
        answered.add(call.key)
        line.costs.add(costs)
        found.total.add(costs)
    _doubt_kv(found.tree)
    found.lines = sorted(lines.values(), key=_reading_order)
    found.critical_path = max((call.depth for row in rows for call in row.calls), default=0)


def _doubt_kv(tree: PrefixTree) -> None:
    """Where generated text stands beside other text, mark its line: both may begin with the same tokens."""
    for node in tree.root.walk():
        if len(node.children) > 1:
            for token, child in node.children.items():
                if token < 0 and isinstance(child.owner, Line):
                    child.owner.doubt |= Doubt(has_exact_kv=False)


def _costs(tree: PrefixTree, call: DryCall, line: Line, *, is_answered: bool) -> Costs:
    costs = Costs(calls=1, shared_calls=int(is_answered))
    for sent in call.sent:
        costs.prompt += len(sent.tokens)
        if is_answered:
            costs.cached += len(sent.tokens)
        else:
            _send(tree, sent, line, costs)
    return costs


def _send(tree: PrefixTree, sent: Sent, line: Line, costs: Costs) -> None:
    costs.decode += len(sent.generated)
    if sent.is_computed:
        costs.cached += tree.match_len(sent.tokens[: sent.num_cachable])
        costs.kv += tree.add((sent.tokens + sent.generated)[: sent.num_kept], line)


def _reading_order(line: Line) -> tuple[str, int, int]:
    span = line.span
    return ("", 0, 0) if span is None else (span.file, span.line, span.column)


def _stops(rows: Sequence[DryRow]) -> list[Stop]:
    """Where predictions end early, each reason with its rows."""
    found: dict[Hashable, Stop] = {}
    for number, row in enumerate(rows):
        if row.stopped is not None:
            key = _reason(row.stopped)
            known = found.get(key, Stop((), row.stopped, row.is_certain))
            found[key] = Stop((*known.rows, number), known.error, known.is_certain and row.is_certain)
    return list(found.values())


def _reason(error: BaseException) -> Hashable:
    """What errors of the same line have in common; the texts of Python's own may hold the row's values."""
    notes = getattr(error, "__notes__", None)
    return type(error), str(error) if isinstance(error, RamifyError) or not notes else notes[0]


def measured_costs(record: GenRecord) -> Costs:
    """What the trace says of a call."""
    return Costs(1, int(record.shared), record.prompt_tokens, record.cached_tokens, record.generated_tokens, 0)
