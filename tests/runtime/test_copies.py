"""Copies in the background: what keeps their memory, what waits for them, and that they copy what they should."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import pytest
import torch
from ramify.runtime import copies as copies_module
from ramify.runtime.copies import Copier, Copy, CopyQueue, DirectCopies, copy_queue
from ramify.runtime.host_tier import HostLayout
from ramify.runtime.pool import KVLayout

from .late_copies import NONSENSE, LateCopies

LAYOUT = KVLayout(3, 2, 4, torch.float32, torch.device("cpu"))
HOST = HostLayout(3, 2, 4, torch.float32, torch.device("cpu"))


def filled(length: int) -> torch.Tensor:
    return LAYOUT.empty(length).normal_()


def test_memory_is_held_until_the_copy_has_ended_and_no_longer() -> None:
    queue = LateCopies()
    copier = Copier(queue)
    source, destination = filled(5), HOST.empty(5)
    want, alive = source.clone(), [weakref.ref(source), weakref.ref(destination)]
    transfer = copier.begin([Copy(destination, source)])
    del source, destination
    gc.collect()
    assert not transfer.is_done() and copier.bytes_in_flight == 5 * LAYOUT.bytes_per_token
    held = alive[1]()
    assert held is not None and bool((held == NONSENSE).all())
    queue.carry_out()
    assert torch.equal(held, want)
    del held
    copier.wait_all()
    gc.collect()
    assert copier.bytes_in_flight == 0 and [reference() for reference in alive] == [None, None]


def test_no_more_memory_is_held_than_allowed() -> None:
    queue = LateCopies()
    copier = Copier(queue, most_bytes=10 * LAYOUT.bytes_per_token)
    for _ in range(5):
        copier.begin([Copy(HOST.empty(4), filled(4))])
        assert copier.bytes_in_flight <= 8 * LAYOUT.bytes_per_token
    assert len(queue.pending) == 2, "only the oldest were waited for"
    copier.begin([Copy(HOST.empty(40), filled(40))])
    assert len(queue.pending) == 1, "what is larger goes alone"
    copier.wait_all()
    assert not queue.pending and copier.bytes_in_flight == 0


def test_small_copies_are_put_off_and_begun_together(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = LateCopies()
    copier = Copier(queue)
    monkeypatch.setattr(copies_module, "_MOST_BYTES_PUT_OFF", 10 * LAYOUT.bytes_per_token)
    pairs = [Copy(HOST.empty(3), filled(3)) for _ in range(7)]
    for pair in pairs[:3]:
        copier.put_off([pair])
    assert queue.num_begun == 0
    copier.put_off(pairs[3:4])
    assert queue.num_begun == 1, "enough for a transfer"
    copier.put_off(pairs[4:5])
    transfer = copier.begin(pairs[5:6])
    assert queue.num_begun == 2, "what comes later takes along what was put off"
    copier.put_off(pairs[6:])
    copier.wait_all()
    assert transfer.is_done() and queue.num_begun == 3 and copier.bytes_in_flight == 0
    copier.flush()
    assert queue.num_begun == 3 and all(torch.equal(pair.destination, pair.source) for pair in pairs)


def test_the_speed_is_that_of_large_transfers() -> None:
    queue = LateCopies()
    copier = Copier(queue)
    before = copier.seconds_per_byte
    copier.begin([Copy(HOST.empty(4), filled(4))])
    copier.wait_all()
    assert copier.seconds_per_byte == before
    length = (1 << 20) // LAYOUT.bytes_per_token + 1
    copier.begin([Copy(HOST.empty(length), filled(length))])
    copier.wait_all()
    assert before < copier.seconds_per_byte < 1 / (length * LAYOUT.bytes_per_token)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("staged_bytes", [1, 700, 1 << 20])
def test_kv_goes_out_and_comes_back(device: str, staged_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    monkeypatch.setattr(copies_module, "_STAGED_BYTES", staged_bytes)
    layout = replace(LAYOUT, device=torch.device(device))
    host = HostLayout(3, 2, 4, torch.float32, torch.device("cpu"), is_pinned=device == "cuda")
    queue: CopyQueue = copy_queue(layout.device)
    assert device == "cuda" or isinstance(queue, DirectCopies)
    copier = Copier(queue)
    first, second, there, back = layout.empty(9).normal_(), layout.empty(5).normal_(), host.empty(14), layout.empty(11)
    copier.begin([Copy(there.narrow(3, 0, 9), first), Copy(there.narrow(3, 9, 5), second)])
    transfer = copier.begin([Copy(back.narrow(3, 2, 4), there.narrow(3, 7, 4))])
    transfer.join()
    assert torch.equal(back.narrow(3, 2, 4), torch.cat([first, second], dim=3).narrow(3, 7, 4))
    copier.wait_all()
    assert transfer.is_done() and transfer.seconds() >= 0
    assert torch.equal(there, torch.cat([first, second], dim=3).cpu())


def test_pieces_of_a_large_copy_are_staged_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies_module, "_STAGED_BYTES", 3 * LAYOUT.bytes_per_token)
    source, destination = filled(10).narrow(3, 1, 8), HOST.empty(12).narrow(3, 2, 8)
    copies_module._copy_staged(Copy(destination, source))
    assert torch.equal(destination, source)


def test_any_run_of_tokens_is_one_piece_of_host_memory() -> None:
    run = HOST.empty(7).narrow(3, 2, 3)
    assert run.shape == (3, 2, 2, 3, 4) and run.permute(copies_module.TOKENS_FIRST).is_contiguous()
