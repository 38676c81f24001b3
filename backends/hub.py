"""Models of the Hugging Face Hub, by name: downloaded at the first use into the Hub's cache, and found there later."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from ..ir.errors import ModelError

# OWNER/NAME, as the Hub allows them, and perhaps @REVISION: a branch, a tag or a commit.
_NAME = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")
# What is read of a model. Some repositories hold the weights a second time, in other layouts.
_READ = ["*.json", "*.safetensors", "*.jinja"]
_NOT_READ = ["original/*", "consolidated*", "onnx/*"]


def is_hub_name(name: str) -> bool:
    """Whether a name has the form OWNER/NAME or OWNER/NAME@REVISION."""
    return _NAME.fullmatch(name) is not None


@lru_cache
def hub_directory(name: str) -> Path:
    """The directory of a model of the Hub on this machine, with progress on stderr while it is downloaded.

    The Hub is asked once a process whether there is anything newer; without a network the copy that is there is taken.
    Raises ModelError with what to do where there is none, or where the Hub refuses.
    """
    from huggingface_hub import errors, snapshot_download

    match = _NAME.fullmatch(name)
    assert match is not None
    repo = match["repo"]
    try:
        found = snapshot_download(repo, revision=match["revision"], allow_patterns=_READ, ignore_patterns=_NOT_READ)
    except errors.GatedRepoError as error:
        raise ModelError(
            f"the model {repo} is given only to those who have agreed to its terms",
            help=f"agree at https://huggingface.co/{repo}, then say who you are: `hf auth login`, or HF_TOKEN",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(f"the model {repo} has no revision {match['revision']!r}") from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"there is no directory {name}, and the Hugging Face Hub has no such model, or a private one",
            help="for a private one say who you are: `hf auth login`, or HF_TOKEN",
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, errors.HfHubHTTPError, OSError) as error:
        raise ModelError(
            f"there is no directory {name}, and no model of that name could be had from the Hugging Face Hub: "
            + _reason(error),
            help="with a network it is downloaded; or pass the path of a model directory",
        ) from error
    return Path(found)


def _reason(error: Exception) -> str:
    """Why the Hub did not give it: the first line of the first cause."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    return str(error).strip().split("\n")[0]


def snapshot_in(directory: Path) -> Path:
    """What a directory of the Hub's cache (models--OWNER--NAME) stands for: its main revision; others themselves."""
    ref = directory / "refs" / "main"
    if not (directory / "snapshots").is_dir() or not ref.is_file():
        return directory
    return directory / "snapshots" / ref.read_text(encoding="utf-8").strip()


def name_of(directory: Path) -> str:
    """What a model directory is called: of one in the Hub's cache, its name there."""
    if directory.parent.name == "snapshots" and directory.parent.parent.name.startswith("models--"):
        return directory.parent.parent.name.removeprefix("models--").replace("--", "/")
    return directory.name
