"""benchmarks/engine.py's worker for ramify: `python engine_ramify.py CHECKPOINT`."""

from __future__ import annotations

import sys
import threading

from engine_case import serve
from ramify.backends.local import LocalBackend
from ramify.runtime.request import Delta, Done, EngineRequest, Event, SamplingParams


def main() -> None:
    """Serve."""
    backend = LocalBackend(sys.argv[1], lookup=False)

    def generate(inputs: list[list[int]], new: int) -> None:
        ends: list[Event] = []
        all_ended = threading.Event()

        def take(event: Event) -> None:
            if not isinstance(event, Delta):
                ends.append(event)
                if len(ends) == len(inputs):
                    all_ended.set()

        params = SamplingParams(max_tokens=new, temperature=0, ignore_eos=True)
        for tokens in inputs:
            backend.engine.submit(EngineRequest(tokens, params, take))
        all_ended.wait()
        assert all(isinstance(end, Done) and end.generated_tokens == new for end in ends), ends[:1]

    serve(sys.argv[1], backend.clear_cache, generate)


if __name__ == "__main__":
    main()
