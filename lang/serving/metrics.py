"""What a server has done, as Prometheus reads it (text format 0.0.4)."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import fields

from ...runtime.engine import EngineStats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0, 300.0)
# What an engine tells of the moment; all else it tells is counted since it was made.
_OF_THE_MOMENT = {"running", "waiting", "capacity", "used", "free", "cached", "on_host"}


class Histogram:
    """How many values were at most each bound."""

    def __init__(self, bounds: tuple[float, ...] = _SECONDS) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str) -> Iterator[str]:
        """The metric's lines."""
        total = 0
        for bound, count in zip((*map(repr, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            yield f'{name}_bucket{{le="{bound}"}} {total}'
        yield f"{name}_sum {self._sum!r}"
        yield f"{name}_count {total}"


class Metrics:
    """Counts of a server. Requests are told apart by their path and the status that was answered (0: the client had
    gone)."""

    def __init__(self) -> None:
        self.num_active = 0
        self.num_disconnected = 0
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.generated_tokens = 0
        self.seconds = Histogram()
        self.first_seconds = Histogram()
        self._requests: Counter[tuple[str, int]] = Counter()

    def count(self, path: str, status: int, seconds: float) -> None:
        """A request has been answered."""
        self._requests[path, status] += 1
        self.seconds.add(seconds)

    def text(self, engine: EngineStats) -> str:
        """All metrics."""
        return "\n".join([*self._lines(), *_engine_lines(engine), ""])

    def _lines(self) -> Iterator[str]:
        yield from _head("ramify_requests_total", "counter", "Requests answered, by path and status.")
        for (path, status), count in sorted(self._requests.items()):
            yield f'ramify_requests_total{{path="{path}",status="{status}"}} {count}'
        yield from _one("ramify_requests_active", "gauge", "Requests being served.", self.num_active)
        yield from _one("ramify_disconnects_total", "counter", "Clients gone before the end.", self.num_disconnected)
        yield from _one("ramify_prompt_tokens_total", "counter", "Tokens of prompts.", self.prompt_tokens)
        yield from _one("ramify_cached_tokens_total", "counter", "Those of them that were cached.", self.cached_tokens)
        yield from _one("ramify_generated_tokens_total", "counter", "Tokens generated.", self.generated_tokens)
        yield from _head("ramify_request_seconds", "histogram", "From a request's arrival to its answer's end.")
        yield from self.seconds.lines("ramify_request_seconds")
        yield from _head("ramify_first_token_seconds", "histogram", "From a streamed request's arrival to its text.")
        yield from self.first_seconds.lines("ramify_first_token_seconds")


def _engine_lines(engine: EngineStats) -> Iterable[str]:
    for field in fields(engine):
        is_gauge = field.name in _OF_THE_MOMENT
        name = f"ramify_engine_{field.name}" + ("" if is_gauge else "_total")
        text = f"The engine's {field.name.replace('_', ' ')}; see EngineStats."
        yield from _one(name, "gauge" if is_gauge else "counter", text, getattr(engine, field.name))


def _one(name: str, kind: str, text: str, value: int) -> Iterator[str]:
    yield from _head(name, kind, text)
    yield f"{name} {value}"


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
