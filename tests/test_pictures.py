"""The pictures of the docs stand alone, and the numbers in those of docs/runtime.md are the runtime's own."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from ramify.runtime.attention.items import Cutter
from ramify.runtime.attention.tables import meetings
from ramify.runtime.batch import Batch, Read, Write
from ramify.runtime.pool import KVLayout, KVPool
from ramify.runtime.radix import RadixTree

DOCS = Path(__file__).parents[1] / "docs"
PICTURES = ("request-life", "extents", "tree-attention")
# What `ramify trace` and `ramify tree` have drawn.
RUNS = ("demo-timeline", "demo-tree")
SVG = "{http://www.w3.org/2000/svg}"


def texts(name: str) -> str:
    root = ElementTree.parse(DOCS / f"{name}.svg").getroot()
    return "\n".join(text.text or "" for text in root.iter(f"{SVG}text"))


def pool() -> KVPool:
    return KVPool(KVLayout(1, 8, 4, torch.float32, torch.device("cpu")), 10_000)


@pytest.mark.parametrize("name", [*PICTURES, *RUNS])
def test_a_picture_stands_alone_and_is_described(name: str) -> None:
    source = (DOCS / f"{name}.svg").read_text(encoding="utf-8")
    root = ElementTree.fromstring(source)
    assert root.findtext(f"{SVG}title") and root.findtext(f"{SVG}desc")
    assert int(root.attrib["width"]) <= (840 if name in RUNS else 760)
    assert not re.search(r"href|@import|https?://(?!www\.w3\.org/2000/svg)|url\((?!#)", source)
    page = DOCS / ("pictures.md" if name in RUNS else "runtime.md")
    alt = re.search(rf"!\[([^\]]+)\]\({name}\.svg\)", page.read_text(encoding="utf-8"))
    assert alt is not None and len(alt[1]) > 80


@pytest.mark.parametrize("name", PICTURES)
def test_the_files_in_a_picture_are_there(name: str) -> None:
    root = DOCS.parent
    for file in re.findall(r"[\w/]+\.py", texts(name)):
        assert (root / file).exists() or (root / "runtime" / file).exists(), file


def test_extents_are_as_in_the_picture() -> None:
    tree = RadixTree(pool())
    prompt, other = np.arange(1500), np.concatenate([np.arange(1000), np.arange(5000, 5700)])
    lower = tree.insert(None, prompt, tree.pool.allocate(1500))
    leaf = tree.insert(lower, np.arange(2000, 2059), tree.pool.trim(tree.pool.allocate(99), 59))
    upper = tree.match(other[:-1])
    tree.lock(upper)
    assert upper is not None and lower.parent is upper and upper.locks == 1
    shown = texts("extents")
    for name, node in (("A", upper), ("B", lower), ("C", leaf)):
        assert f"{name}: [{node.start}, {node.end})" in shown
    own = [tree.pool.allocate(len(other) - upper.end), tree.pool.allocate(99)]
    assert tree.pool.used == 1500 + 59 + 700 + 99
    assert upper.extent.data.untyped_storage().data_ptr() == lower.extent.data.untyped_storage().data_ptr()
    for size in (upper.extent.room + lower.extent.room, leaf.extent.room, *(extent.room for extent in own)):
        assert f"a storage of {size:,} tokens" in shown
    tree.check()


def test_items_are_as_in_the_picture() -> None:
    kv = pool()
    a, b, c, d = (kv.allocate(room) for room in (99, 99, 99, 700))
    nodes = {1000: [(0, 191)], 500: [(0, 2)], 30: [(0, 1)], 40: [(1, 2)], 300: [(2, 3)]}
    reads = [Read(kv.allocate(length), length, rows, False) for length, rows in nodes.items()]
    reads += [Read(a, 20, [(0, 1)], True), Read(b, 35, [(1, 2)], True)]
    reads += [Read(c, 9, [(2, 3)], True), Read(d, 700, [(3, 191)], True)]
    writes = [Write(a, 19, 0, 1), Write(b, 34, 1, 2), Write(c, 8, 2, 3), Write(d, 512, 3, 191)]
    positions = [1549, 1574, 1308, *range(1512, 1700)]
    Batch(torch.zeros(191).long(), torch.tensor(positions), writes, reads, torch.tensor([0])).check()

    items = Cutter(group=2, num_kv_heads=8, num_processors=132).cut(*meetings(reads), 191)
    shared, prompt = items.wide[:12].tolist(), items.wide[12:].tolist()
    assert [item[3] for item in shared[::3]] == [256, 256, 256, 232]
    assert sorted({item[6] for item in shared}) == [63, 64] and len(prompt) == 9
    assert [item[3] for item in prompt[6:]] == [188, 128, 64]
    assert items.narrow[:, 3].tolist() == [128, 128, 128, 116, 30, 40, 128, 128, 44, 20, 35, 9]
    parts = np.diff(items.begins)
    assert parts[0] == 10 and set(parts[3:].tolist()) == {7}
    shown = texts("tree-attention")
    for words in ("P: 12 wide items", "d: 9 wide items", "12 narrow items", "4 + 4 + 1 + 1 = 10", "4 + 3 = 7"):
        assert words in shown
