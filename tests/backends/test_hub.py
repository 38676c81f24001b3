"""Models by their name on the Hugging Face Hub: taken from its cache, and what is said where they cannot be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ramify as rf
from ramify.backends import hub, model_directory, open_backend, split_model
from ramify.backends.tiny import model_dir
from ramify.ir.errors import ModelError, UsageError

huggingface_hub = pytest.importorskip("huggingface_hub")
constants = pytest.importorskip("huggingface_hub.constants")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub's cache with the embedded model as `someone/small`, on a machine without a network."""
    repo = tmp_path / "models--someone--small"
    (repo / "snapshots").mkdir(parents=True)
    (repo / "snapshots" / COMMIT).symlink_to(model_dir())
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.hub_directory.cache_clear()
    return tmp_path


def test_a_model_in_the_cache_runs_by_its_name(cache: Path) -> None:
    found = model_directory("someone/small")
    assert found == cache / "models--someone--small" / "snapshots" / COMMIT
    assert model_directory(f"someone/small@{COMMIT}") == found
    assert model_directory(cache / "models--someone--small") == found, "its folder in the cache is as good"
    assert split_model("someone/small:int8") == (found, "int8")
    backend = open_backend("someone/small")

    @rf.program(backend=backend)
    def hello(s):  # type: ignore[no-untyped-def]
        s += rf.user("Hello!") + rf.assistant(rf.gen("reply", max_tokens=4))

    assert hello.run()["reply"] and backend is open_backend("someone/small")
    assert backend.name == "local:someone/small"


def test_one_that_cannot_be_had_says_why(cache: Path) -> None:
    with pytest.raises(
        ModelError, match="no directory someone/large, and no model of that name could be had"
    ) as caught:
        model_directory("someone/large")
    assert caught.value.help is not None and "with a network it is downloaded" in caught.value.help


@pytest.mark.parametrize("name", ["someone", "a/b/c", "./a/b", "/a/b", "a b/c", "a/b@", "../a"])
def test_what_is_no_name_of_the_hub_is_not_asked_for(name: str) -> None:
    with pytest.raises(UsageError, match="neither a known name nor a directory"):
        model_directory(name)


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        ("GatedRepoError", "given only to those who have agreed to its terms"),
        ("RevisionNotFoundError", "the model someone/small has no revision 'v9'"),
        ("RepositoryNotFoundError", "the Hugging Face Hub has no such model, or a private one"),
    ],
)
def test_what_the_hub_refuses(raised: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: Any, **_options: Any) -> str:
        kind = getattr(huggingface_hub.errors, raised)
        raise kind.__new__(kind)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(ModelError, match=told):
        model_directory("someone/small@v9")
