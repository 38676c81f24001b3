"""The chat format that a user gives for a server's model: a template, a file, a model directory or a format itself."""

from __future__ import annotations

from pathlib import Path

from ..ir.errors import ModelError, UsageError
from ..runtime.chat import ChatFormat
from ..runtime.chat_derivation import derive_chat_format
from ..runtime.tokens import Tokenizer

_WAYS = "give a Jinja template, the path of one, a model directory, or a ChatFormat"


def chat_format(source: str | Path | ChatFormat) -> ChatFormat:
    """The format that `source` names. Raises UsageError, ModelError, Unsupported (for a template without marks)."""
    if isinstance(source, ChatFormat):
        return source
    if not isinstance(source, str | Path):
        raise UsageError(f"a chat template is no {type(source).__name__}: {source!r}", help=_WAYS)
    if isinstance(source, str) and ("{{" in source or "{%" in source):
        return _of_template(source)
    path = Path(source).expanduser()
    if path.is_dir():
        return _of_directory(path)
    if not path.is_file():
        raise UsageError(f"there is no chat template {str(source)!r}", help=_WAYS)
    return _of_template(path.read_text(encoding="utf-8"))


def _of_template(source: str) -> ChatFormat:
    """The format of a template alone: the server's tokenizer puts the beginning-of-text token before the text."""
    return derive_chat_format(source).without_bos("")


def _of_directory(path: Path) -> ChatFormat:
    chat = Tokenizer.load(path).chat_in_text
    if chat is None:
        raise ModelError(f"the model in {path} has no chat template", help=_WAYS)
    return chat
