"""`try` -> flow.try: a region each for the body, the handlers, `else` and `finally`.

An exception may come between any two assignments, so the variables that the statement assigns are followed (var.* ops):
whoever reads them behind the place where they were assigned reads what they hold by then. What leaves a region by
`return`, `break` or `continue` ends the flow.try, which says so; the rest of the way is lowered behind it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from ..ir.core import Region, Value
from ..ir.types import OBJ
from .branching import choose
from .expressions import lower_expression
from .leaving import Ending, Try, leave, leave_if
from .lowering import Lowering, deleted_names, surely_assigned
from .scope import num_mentions

_LowerBody = Callable[[list[ast.stmt]], None]


def lower_try(low: Lowering, node: ast.Try, lower_body: _LowerBody) -> None:
    """Lower a try statement; `lower_body` lowers the statements of its parts."""
    parts = [node.body, *(handler.body for handler in node.handlers), node.orelse, node.finalbody]
    names = [name for name in low.assigned([node]) if not _is_private(low, parts, name)]
    with _followed(low, names):
        work = _Try(low, names, deleted_names([node]))
        work.body(lambda: lower_body(node.body), (lambda: lower_body(node.orelse)) if node.orelse else None)
        work.handlers(lambda error: _handlers(work, node, error, node.handlers, lower_body))
        work.final((lambda: lower_body(node.finalbody)) if node.finalbody else None)
        work.close()


def lower_guarded(
    low: Lowering,
    node: ast.stmt,
    body: Callable[[], None],
    *,
    failed: Callable[[Value], None],
    ended: Callable[[], None],
) -> None:
    """Lower a body, what happens to the exceptions that leave it, and what follows its normal end.

    node: the statement, which has all the variables that the body assigns.
    """
    names = low.assigned([node])
    with _followed(low, names):
        work = _Try(low, names, deleted_names([node]))

        def handler(error: Value) -> None:
            failed(error)
            if not low.builder.terminated:
                work.ends.append(work.sure_now())

        work.body(body, ended)
        work.handlers(handler)
        work.final(None)
        work.close()


def _is_private(low: Lowering, parts: list[list[ast.stmt]], name: str) -> bool:
    """Whether one part of the statement has the variable for itself, so that no exception can show its values."""
    everywhere = num_mentions(name, low.source.tree.body)
    return any(name in surely_assigned(part) and num_mentions(name, part) == everywhere for part in parts)


@contextmanager
def _followed(low: Lowering, names: Collection[str]) -> Iterator[None]:
    """Inside, assignments to the names also go to variables."""
    new = [name for name in names if name not in low.followed]
    for name in new:
        low.followed[name] = low.builder.value("var.new", low.lookup(name), hint=name)
    yield
    for name in new:
        del low.followed[name]


class _Try:
    """A flow.try in the making. Its methods are called once each, in the order in which they stand here.

    names: the variables assigned inside. `ends` has, for each way to its normal end, the names that are certainly bound
    there.
    """

    def __init__(self, low: Lowering, names: Collection[str], deleted: Collection[str]) -> None:
        self.low = low
        self.names = names
        self.around = Try(set())
        self.regions = [Region(), Region([Value(OBJ, "error")]), Region(), Region()]
        self.sure_anywhere = {name for name in names if low.is_sure(name) and name not in deleted}
        self.ends: list[set[str]] = []

    def body(self, lower: Callable[[], None], orelse: Callable[[], None] | None) -> None:
        sure = self.region(0, lower)
        if sure is not None and orelse is not None:
            sure = self.region(2, orelse, sure)
        else:
            self.region(2, lambda: None)
        if sure is not None:
            self.ends.append(sure)

    def handlers(self, lower: Callable[[Value], None]) -> None:
        self.region(1, lambda: lower(self.regions[1].args[0]), self.sure_anywhere)

    def final(self, lower: Callable[[], None] | None) -> None:
        if lower is None:
            self.region(3, lambda: None)
            return
        entered: dict[str, Value] = {}
        ended: dict[str, Value] = {}

        def watched() -> None:
            entered.update(self.low.env)
            lower()
            ended.update(self.low.env)

        sure = self.region(3, watched, self.sure_anywhere)
        if sure is None:
            self.ends = []
        else:
            kept = {name for name in self.names if ended.get(name) is entered.get(name)}
            self.ends = [(end & kept) | sure for end in self.ends]

    def region(self, index: int, lower: Callable[[], None], sure: Collection[str] | None = None) -> set[str] | None:
        """Lower one region, on whose entry the variables are read anew if `sure` says which of them are bound.

        Gives the names that are certainly bound at its end; None when it has none.
        """
        low = self.low
        with low.region(self.regions[index]):
            if sure is not None:
                self.read(sure)
            low.around.append(self.around)
            lower()
            low.around.pop()
            if low.builder.terminated:
                return None
            low.builder.op("flow.yield")
            return self.sure_now()

    def sure_now(self) -> set[str]:
        """The names that are certainly bound at this place."""
        return {name for name in self.names if self.low.is_sure(name)}

    def read(self, sure: Collection[str]) -> None:
        """Read the variables, of which those in `sure` are certainly bound."""
        low = self.low
        for name in self.names:
            value = low.env[name] = low.builder.value("var.get", low.followed[name], hint=name)
            if name not in sure:
                low.unsure.add(value)

    def close(self) -> None:
        """Build the op, and what leaves more than it."""
        low = self.low
        made = low.builder.op("flow.try", [], hints=["how", "value"], regions=self.regions)
        self.read(set.intersection(*self.ends) if self.ends else set())
        how, value = made.results
        kinds = sorted(self.around.kinds)
        for kind in kinds if self.ends else kinds[:-1]:
            leave_if(low, how, kind, value)
        if not self.ends:
            leave(low, kinds[-1], value)


def _handlers(
    work: _Try, node: ast.Try, error: Value, handlers: list[ast.ExceptHandler], lower_body: _LowerBody
) -> None:
    """Lower the handlers from one on: the first that catches the exception runs; else it goes on."""
    low = work.low
    if not handlers:
        low.builder.op("flow.raise", [error])
        return
    first, rest = handlers[0], handlers[1:]

    def run() -> None:
        _handler(work, node, error, first, lower_body)
        if not low.builder.terminated:
            work.ends.append(work.sure_now())

    if first.type is None:
        return run()
    with low.at(first.type):
        caught = low.builder.value("py.catches", error, lower_expression(low, first.type))
        choose(low, caught, run, lambda: _handlers(work, node, error, rest, lower_body), [])
    return None


def _handler(work: _Try, node: ast.Try, error: Value, handler: ast.ExceptHandler, lower_body: _LowerBody) -> None:
    """Lower the body of a handler, behind which its name is unbound, however it is left."""
    low, name = work.low, handler.name
    if name is None:
        return lower_body(handler.body)
    low.assign(name, error)

    def forget() -> None:
        low.delete(name)

    if not (node.finalbody or any(isinstance(around, Try) for around in low.around[:-1]) or name in low.boxes):
        low.around.append(Ending(forget))  # nobody is left who could read it after an exception
        lower_body(handler.body)
        low.around.pop()
        return None if low.builder.terminated else forget()
    followed = [each for each in low.assigned([handler]) if each in low.followed]
    inner = _Try(low, followed, deleted_names([handler]))
    inner.body(lambda: lower_body(handler.body), None)
    inner.handlers(lambda error: raise_again(low, error))
    inner.final(forget)
    return inner.close()


def raise_again(low: Lowering, error: Value) -> None:
    """Let the exception that is being handled go on."""
    low.builder.op("flow.raise", [error])
