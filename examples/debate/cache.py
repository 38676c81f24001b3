"""How much of the prompts of a debate the radix cache serves, and how much it could.

Recorded debates are held on a model of this process that is held to the recorded turns, so prompts, tokens and cache
are what they were. The bound is what any cache could serve: a prompt's longest beginning that an earlier request of the
debate had as its prompt or generated. A prompt's last token is always computed, for the logits after it.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ramify.backends.local import LocalBackend
from ramify.backends.tiny import model_dir
from ramify.runtime.prefix_tree import PrefixTree

from .program import debate
from .recorded import Call, ForcedBackend, Log

__all__ = ["Share", "calls_of", "long_tiny", "measure"]

LONG = 16_384


@dataclass(frozen=True, slots=True)
class Share:
    """Tokens of the prompts of some requests: all, those that came from the cache, and those that could have."""

    prompt: int
    cached: int
    bound: int

    @classmethod
    def of(cls, calls: Iterable[Call]) -> "Share":
        """The share of requests that began with an empty cache, in their order."""
        tree, prompt, cached, bound = PrefixTree(), 0, 0, 0
        for call in calls:
            prompt += len(call.prompt)
            cached += call.cached
            bound += min(len(call.prompt) - 1, tree.match_len(call.prompt))
            tree.add((*call.prompt, *call.generated))
        return cls(prompt, cached, bound)

    def __str__(self) -> str:
        return (
            f"{self.prompt:,} prompt tokens, {self.cached:,} cached ({self.cached / self.prompt:.1%}), "
            f"bound {self.bound:,} ({self.bound / self.prompt:.1%})"
        )

    def __add__(self, other: "Share") -> "Share":
        return Share(self.prompt + other.prompt, self.cached + other.cached, self.bound + other.bound)


def calls_of(log: Log, templates: Path, model: LocalBackend) -> list[Call]:
    """Hold a recorded debate on an empty cache; what the engine did, call by call."""
    model.clear_cache()
    backend = ForcedBackend(model, log)
    debate.run(log.question, templates=str(templates), variant="log", backend=backend)
    return backend.calls


@contextmanager
def long_tiny() -> Iterator[LocalBackend]:
    """The embedded model with a context that the longest log fits in.

    It was never trained at such positions, which is no matter where it is told what to say.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        for file in model_dir().iterdir():
            (folder / file.name).symlink_to(file)
        config = folder / "config.json"
        changed = json.loads(config.read_text()) | {"max_position_embeddings": LONG}
        config.unlink()
        config.write_text(json.dumps(changed))
        model = LocalBackend(folder)
        try:
            yield model
        finally:
            model.close()


def measure(logs: list[Log], templates: Path, model: LocalBackend) -> list[Call]:
    """Measure all debates and print the shares, each on a cache of its own; gives the calls of the longest."""
    total, longest = Share(0, 0, 0), list[Call]()
    for log in logs:
        calls = calls_of(log, templates, model)
        share = Share.of(calls)
        total += share
        longest = max(longest, calls, key=len)
        print(f"{log.name:10} {share}", flush=True)
    print(f"{'all':10} {total}: {total.cached / total.bound:.2%} of the bound")
    return longest
