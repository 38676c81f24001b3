"""Images and videos in prompts: what arrives at a backend, what messages show, and what is refused."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import ramify as rf
from ramify.backends.scripted import ScriptedBackend
from ramify.ir.errors import RequestError, Unsupported
from ramify.runtime.features import OWN
from ramify.runtime.media import Media

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)
EAGER = pytest.mark.parametrize("eager", [True, False])


def seeing() -> ScriptedBackend:
    return ScriptedBackend(features=OWN | {"images", "videos"})


@rf.program
def look(s, first, second):
    s += rf.system("Look.")
    s += rf.user("This: " + rf.image(first) + " and that: " + rf.video(second, num_frames=4))
    s += rf.assistant(rf.gen("x", max_tokens=2))
    fork = s.fork(1)[0]
    fork += rf.user(rf.image(first)) + rf.assistant(rf.gen("y", max_tokens=1))
    return s.messages(), fork.messages()[-2:], s.text()


def part(data: bytes, mime_type: str, kind: str = "image", **more: Any) -> dict[str, Any]:
    url = f"data:{mime_type};base64,{base64.b64encode(data).decode()}"
    return {"type": f"{kind}_url", f"{kind}_url": {"url": url}, **more}


@EAGER
def test_media_arrive_and_are_shown_as_parts(tmp_path: Path, eager: bool) -> None:
    path = tmp_path / "picture"
    path.write_bytes(PNG)
    backend = seeing()
    run = look.run(path, b"\0\0\0\x18ftypmp42", backend=backend, eager=eager)
    messages, later, text = run.value
    image = part(PNG, "image/png")
    video = part(b"\0\0\0\x18ftypmp42", "video/mp4", "video", num_frames=4)
    parts = [{"type": "text", "text": "This: "}, image, {"type": "text", "text": " and that: "}, video]
    assert messages == [
        {"role": "system", "content": "Look."},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": run["x"]},
    ]
    assert later[0] == {"role": "user", "content": [image]}
    assert text == f"<system>Look.</system>\n<user>This:  and that: </user>\n<assistant>{run['x']}</assistant>\n"
    assert [[media.kind for media in each] for each in backend.media] == [
        ["image", "video"],
        ["image", "video", "image"],
    ]
    assert backend.media[0][0].data == PNG and backend.media[0][1].num_frames == 4


@EAGER
def test_a_prompt_keeps_what_was_read(tmp_path: Path, eager: bool) -> None:
    path = tmp_path / "a.gif"
    path.write_bytes(b"GIF89a")

    @rf.program(backend=seeing(), eager=eager)
    def rewritten(s):
        s += rf.user(rf.image(str(path)))
        s.sync()
        path.write_bytes(b"changed")
        return s.messages()[0]["content"]

    assert rewritten.run().value == [part(b"GIF89a", "image/gif")]


@EAGER
def test_a_missing_file_is_an_error_at_the_append(tmp_path: Path, eager: bool) -> None:
    backend = seeing()
    missing = tmp_path / "missing.png"
    with pytest.raises(RequestError) as caught:
        look.run(missing, b"", backend=backend, eager=eager)
    error = caught.value
    assert error.message == f"the image {str(missing)!r} cannot be read: No such file or directory"
    assert error.span is not None and "rf.image(first)" in error.span.source_line()
    assert backend.requests == []
    with pytest.raises(RequestError, match="cannot be read: Is a directory"):
        look.run(tmp_path, b"", backend=backend, eager=eager)


@EAGER
@pytest.mark.parametrize(("features", "what"), [(OWN, "images"), (OWN | {"images"}, "videos")])
def test_a_backend_without_them_refuses_at_the_append(features: frozenset[str], what: str, eager: bool) -> None:
    backend = ScriptedBackend(features=features)
    with pytest.raises(Unsupported, match=f"the backend 'scripted' cannot take {what}") as caught:
        look.run(PNG, b"", backend=backend, eager=eager)
    assert caught.value.span is not None and "rf.user(" in caught.value.span.source_line()
    assert backend.requests == []


class Picture:
    """What an image of PIL is used for."""

    def __init__(self) -> None:
        self.pixels = b"pixels"

    def save(self, file: Any, format: str) -> None:
        assert format == "PNG"
        file.write(b"\x89PNG\r\n\x1a\n" + self.pixels)


@EAGER
def test_an_image_of_pil_is_kept_as_it_was(eager: bool) -> None:
    picture = Picture()

    @rf.program(backend=seeing(), eager=eager)
    def draw(s):
        s += rf.user(rf.image(picture))
        s.sync()
        picture.pixels = b"others"
        return s.messages()[0]["content"]

    assert draw.run().value == [part(b"\x89PNG\r\n\x1a\npixels", "image/png")]


def test_urls_are_passed_on() -> None:
    for url in ("https://example.org/a.png", "http://example.org/b", "data:image/png;base64,AAAA"):
        assert rf.image(url).url() == url
        assert rf.image(url).content_part() == {"type": "image_url", "image_url": {"url": url}}


@pytest.mark.parametrize(
    ("data", "name", "mime_type"),
    [
        (b"\xff\xd8\xff\xe0", "a.png", "image/jpeg"),
        (b"RIFF\0\0\0\0WEBP", "", "image/webp"),
        (b"<svg/>", "a.svg", "image/svg+xml"),
        (b"what", "", "application/octet-stream"),
    ],
)
def test_types_are_told_by_the_bytes_then_by_the_name(tmp_path: Path, data: bytes, name: str, mime_type: str) -> None:
    path = tmp_path / (name or "nameless")
    path.write_bytes(data)
    assert rf.image(path).mime_type == mime_type
    assert "data" not in repr(rf.image(path))


def test_what_is_no_media() -> None:
    with pytest.raises(TypeError, match=r"image\(\) takes a path, a URL, bytes or an image of PIL, not int: 5"):
        rf.image(5)
    with pytest.raises(TypeError, match="number of frames"):
        rf.video("a.mp4", "all")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="num_frames must be >= 1, got 0"):
        rf.video("a.mp4", 0)
    assert isinstance(rf.image(PNG), Media)


@EAGER
def test_joined_branches_bring_their_images(eager: bool) -> None:
    @rf.program(backend=seeing(), eager=eager)
    def join(s):
        with s.user():
            group = s.fork(2)
            group += lambda i: f"{i}:" + rf.image(PNG)
            group.join("concate_and_append")
        return s.messages()[0]["content"]

    image = part(PNG, "image/png")
    assert join.run().value == [{"type": "text", "text": "0:"}, image, {"type": "text", "text": "1:"}, image]


def test_the_ops_are_in_the_ir() -> None:
    ir = look.compile().ir
    assert "prompt.image %" in ir and "prompt.video %" in ir
