"""What all tests share: `--update-golden`, the real data's folder, and backends."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

# Models in the tests are tiny: a second thread would only wait for the first. Read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def _interpret_kernels() -> None:
    """Has Triton run kernels in its interpreter where there is no GPU. It decides that when it is imported."""
    import torch

    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"


if find_spec("triton") is not None:
    _interpret_kernels()

GOLDEN = Path(__file__).parent / "golden"
DATA = Path(os.environ.get("RAMIFY_DATA", Path(__file__).parents[2] / "shared" / "data"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the expected halves of golden files")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Compare a text with a file under tests/golden; with --update-golden, write it."""

    def check(name: Path, actual: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(actual, encoding="utf-8")
        assert path.exists(), f"{path} is missing: run pytest --update-golden and read what it writes"
        assert actual == path.read_text(encoding="utf-8")

    return check


@pytest.fixture(params=[1, 2])
def num_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """How many threads torch, and kernels with it, use in the test: one, and several."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real inputs; tests that need it are skipped where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"no real data at {DATA} (set RAMIFY_DATA)")
    return DATA
