"""The chat format that a user gives for a server's model: a template, a file, a model directory or a format itself."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from ..ir.errors import ModelError, UsageError
from ..runtime.backend import Chat
from ..runtime.chat import ChatFormat
from ..runtime.tokens import Tokenizer

_WAYS = "give a Jinja template, the path of one, a model directory, or a ChatFormat"


def chat_format(source: str | Path | Chat) -> Chat:
    """The format that `source` names. Raises UsageError, ModelError, Unsupported (for a template without marks)."""
    if not isinstance(source, str | Path):
        if not hasattr(source, "opening"):
            raise UsageError(f"a chat template is no {type(source).__name__}: {source!r}", help=_WAYS)
        return source
    if isinstance(source, str) and ("{{" in source or "{%" in source):
        return ChatFormat.from_template(source, bos_token=None, eos_token=None)
    path = Path(source).expanduser()
    if path.is_dir():
        return _of_directory(path)
    if not path.is_file():
        raise UsageError(f"there is no chat template {str(source)!r}", help=_WAYS)
    return ChatFormat.from_template(path.read_text(encoding="utf-8"), bos_token=None, eos_token=None)


def _of_directory(path: Path) -> Chat:
    chat = Tokenizer.load(path).chat
    if chat is None:
        raise ModelError(f"the model in {path} has no chat template", help=_WAYS)
    return cast(Chat, chat)
