"""Images and videos as parts of a prompt. They are read when they are made, so that a prompt never changes."""

from __future__ import annotations

import base64
import io
import mimetypes
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from ..ir.errors import RequestError
from .expression import Expression, Where, describe, span_of

_REMOTE = ("http://", "https://", "data:")
# How files of a type begin: offset, bytes, type.
_BEGINNINGS = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF8", "image/gif"),
    (0, b"BM", "image/bmp"),
    (8, b"WEBP", "image/webp"),
    (4, b"ftyp", "video/mp4"),
    (0, b"\x1aE\xdf\xa3", "video/webm"),
)


@dataclass(frozen=True, slots=True)
class Media(Expression):
    """An image or a video: its bytes with their MIME type, or the address that a server can get it from.

    num_frames: how many frames of a video are looked at.
    """

    features: ClassVar[dict[str, str]] = {"image": "images", "video": "videos"}
    kind: Literal["image", "video"]
    data: bytes | None = field(default=None, repr=False)
    mime_type: str = ""
    address: str = ""
    num_frames: int | None = None
    where: Where = field(default=None, compare=False, repr=False)

    @property
    def feature(self) -> str:
        """The feature of a backend that takes it."""
        return self.features[self.kind]

    def url(self) -> str:
        """Its address, or all of it as a data URL."""
        if self.data is None:
            return self.address
        return f"data:{self.mime_type};base64,{base64.b64encode(self.data).decode()}"

    def content_part(self) -> dict[str, Any]:
        """It as a part of a message's content, as OpenAI's chat interface has it."""
        part: dict[str, Any] = {"type": f"{self.kind}_url", f"{self.kind}_url": {"url": self.url()}}
        return part if self.num_frames is None else part | {"num_frames": self.num_frames}


def build_image(source: object, where: Where = None) -> Media:
    """The expression of `image(source)`. May block. Raises TypeError, and RequestError for what cannot be read."""
    save = getattr(source, "save", None)
    if callable(save):  # an image of PIL
        buffer = io.BytesIO()
        save(buffer, format="PNG")
        return Media("image", buffer.getvalue(), "image/png", where=where)
    return _read("image", source, None, where)


def build_video(source: object, num_frames: object, where: Where = None) -> Media:
    """The expression of `video(source, num_frames)`. May block. Raises as `build_image` does."""
    if isinstance(num_frames, bool) or not isinstance(num_frames, int):
        raise TypeError(f"video() takes the number of frames (int), not {describe(num_frames)}")
    if num_frames < 1:
        raise RequestError(f"num_frames must be >= 1, got {num_frames}", span=span_of(where))
    return _read("video", source, num_frames, where)


def _read(kind: Literal["image", "video"], source: object, num_frames: int | None, where: Where) -> Media:
    if isinstance(source, str) and source.startswith(_REMOTE):
        return Media(kind, address=source, num_frames=num_frames, where=where)
    if isinstance(source, bytes):
        return Media(kind, source, _mime_type(source, ""), num_frames=num_frames, where=where)
    if not isinstance(source, str | os.PathLike):
        others = "bytes or an image of PIL" if kind == "image" else "or bytes"
        raise TypeError(f"{kind}() takes a path, a URL, {others}, not {describe(source)}")
    path = Path(os.fsdecode(source))
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RequestError(
            f"the {kind} {str(path)!r} cannot be read: {error.strerror}",
            span=span_of(where),
            help=f"paths are taken from the working directory, {os.getcwd()}" if not path.is_absolute() else None,
        ) from None
    return Media(kind, data, _mime_type(data, path.name), num_frames=num_frames, where=where)


def _mime_type(data: bytes, name: str) -> str:
    for offset, beginning, mime_type in _BEGINNINGS:
        if data[offset : offset + len(beginning)] == beginning:
            return mime_type
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def add_text(message: dict[str, Any], text: str) -> None:
    """Text at the end of a message."""
    content = message["content"]
    if isinstance(content, str):
        message["content"] = content + text
    elif content[-1]["type"] == "text":
        content[-1]["text"] += text
    else:
        content.append({"type": "text", "text": text})


def add_media(message: dict[str, Any], media: Media) -> None:
    """Media at the end of a message, whose content is a list of parts from then on."""
    content = message["content"]
    if isinstance(content, str):
        content = message["content"] = [{"type": "text", "text": content}] if content else []
    content.append(media.content_part())
