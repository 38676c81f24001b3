"""One measurement of benchmarks/endpoints.py, in a process of its own: many programs against a server that only waits.

`python benchmarks/endpoints_ramify.py URL PROGRAMS CALLS CONNECTIONS` prints seconds, processor seconds and megabytes.
"""

from __future__ import annotations

import json
import resource
import sys
import time

import ramify as rf


@rf.program
def ask(s: rf.State, question: str, calls: int) -> None:
    s += rf.system("Be brief.")
    for _ in range(calls):
        s += rf.user(question) + rf.assistant(rf.gen("answer", max_tokens=16))


def main(url: str, programs: int, calls: int, connections: int) -> None:
    """Run and print."""
    backend = rf.OpenAI("stub", base_url=f"{url}/v1", max_connections=connections)
    for run in ask.run_batch([{"question": "Warm?", "calls": calls}] * connections, backend=backend):
        assert run.ok  # the program is compiled, and the connections are open
    rows = [{"question": f"Question {number}?", "calls": calls} for number in range(programs)]
    began, used = time.perf_counter(), time.process_time()
    runs = ask.run_batch(rows, backend=backend, max_in_flight=programs)
    seconds, processor = time.perf_counter() - began, time.process_time() - used
    assert [run.error for run in runs if run.error] == [] and len(runs) == programs
    backend.close()
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "processor": processor, "megabytes": megabytes}))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
