"""The file of a recording: a beginning of it can be read, and damage is found."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ramify.backends.replay.frames import MAGIC, FrameWriter, read_frames
from ramify.ir.errors import RecordingError

PAYLOADS = [b"first", b"", b"third " * 20, b"\0\0\0\0\0\0\0\0\0\0\0\0"]


def written(folder: Path, payloads: list[bytes] = PAYLOADS) -> tuple[Path, list[int]]:
    """A file of these frames, and where each begins, with the end of the last."""
    path = folder / "frames.rec"
    writer = FrameWriter(path)
    starts = [len(MAGIC)]
    for payload in payloads:
        writer.add(payload)
        starts.append(path.stat().st_size)
    writer.close()
    return path, starts


def test_frames_come_back(tmp_path: Path) -> None:
    path, _ = written(tmp_path)
    assert list(read_frames(path)) == PAYLOADS


def test_a_file_that_is_cut_anywhere_has_the_frames_before(tmp_path: Path) -> None:
    path, starts = written(tmp_path)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        whole = sum(start <= length for start in starts[1:])
        assert list(read_frames(path)) == PAYLOADS[:whole]


def test_blocks_that_a_disk_lost_are_zeros_at_the_end(tmp_path: Path) -> None:
    path, starts = written(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: starts[2]] + bytes(len(data) - starts[2]))
    assert list(read_frames(path)) == PAYLOADS[:2]


def test_each_damaged_byte_is_found_and_its_frame_named(tmp_path: Path) -> None:
    path, starts = written(tmp_path)
    data = path.read_bytes()
    for place in range(len(MAGIC), len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        frame = max(start for start in starts[:-1] if start <= place)
        found = []
        with pytest.raises(RecordingError, match=rf"damaged: what stands at byte {frame:,} "):
            found.extend(read_frames(path))


@given(st.binary(max_size=60), st.integers(0, 200), st.integers(0, 60))
def test_whatever_stands_in_a_file_is_read_or_refused(tmp_path_factory, junk: bytes, place: int, cut: int) -> None:
    path, _ = written(tmp_path_factory.mktemp("junk"))
    data = path.read_bytes()
    path.write_bytes(data[:place] + junk + data[place + cut :])
    try:
        frames = list(read_frames(path))
    except RecordingError:
        return
    assert all(frame in PAYLOADS for frame in frames)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_bytes(b"ramify recording 2\n....")
    with pytest.raises(RecordingError, match="another version"):
        list(read_frames(path))
    path.write_text("some text")
    with pytest.raises(RecordingError, match="is no recording"):
        list(read_frames(path))
    with pytest.raises(RecordingError, match="cannot be read"):
        list(read_frames(tmp_path))


def test_a_recording_is_never_written_over(tmp_path: Path) -> None:
    path, _ = written(tmp_path)
    with pytest.raises(RecordingError, match="exists already"):
        FrameWriter(path)
    with pytest.raises(RecordingError, match="cannot be written"):
        FrameWriter(tmp_path / "nowhere" / "frames.rec")


def test_a_writer_that_is_closed_takes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "frames.rec"
    writer = FrameWriter(path)
    writer.close()
    writer.close()
    writer.add(b"late")
    assert list(read_frames(path)) == []


def test_a_full_disk_is_an_error_and_leaves_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "frames.rec"
    writer = FrameWriter(path)
    writer.add(b"first")
    held = writer._file

    class Full:
        def write(self, data: bytes) -> int:
            assert held is not None
            held.write(data[:5])
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            assert held is not None
            held.close()

    monkeypatch.setattr(writer, "_file", Full())
    with pytest.raises(RecordingError, match="No space left"):
        writer.add(b"second")
    writer.add(b"third")
    assert list(read_frames(path)) == [b"first"]
