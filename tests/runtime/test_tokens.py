"""Text runs grow to the same ids as whole texts, streams decode to the same text, and bad files are named."""

from __future__ import annotations

import base64
import json
import os
import random
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ramify.backends.tiny import model_dir
from ramify.ir.errors import ModelError, RequestError, Unsupported
from ramify.runtime.cuts import CutRule, cut_rule, matches_over_space
from ramify.runtime.tokens import CONTINUATION, TextRun, Tokenizer
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Inner

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|im_end|>x"]
WORDS = [
    "the",
    "then",
    "it's",
    "I'LL",
    "12",
    "3456",
    "été",
    "e\u0301",
    "日本",
    "語。",
    "naïve",
    "a/b",
    "--",
    "!\n",
    "\n\n",
]
GAPS = [" ", "  ", "   ", "\n", " \n", "\n  ", "\t", "", "\u00a0"]


@cache
def corpus() -> list[str]:
    rng = random.Random(1)
    return ["".join(rng.choice(WORDS) + rng.choice(GAPS) for _ in range(60)) for _ in range(150)]


def _train(inner: Inner) -> None:
    _train_on_corpus(inner, 420, ["<unk>", "<s>"], pre_tokenizers.ByteLevel.alphabet())


def _trained_pieces(inner: Inner) -> Inner:
    """Trained in SentencePiece's manner; the byte tokens are given as special ones, and then made plain tokens."""
    _train_on_corpus(inner, 500, ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256))], [])
    added = json.loads(inner.to_str())["added_tokens"]
    return _changed(inner, added_tokens=[token for token in added if not token["content"].startswith("<0x")])


def _train_on_corpus(inner: Inner, size: int, tokens: list[str], alphabet: list[str]) -> None:
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, special_tokens=tokens, show_progress=False, max_token_length=12
    )
    inner.train_from_iterator(corpus(), trainer)


def _byte_level(pattern: str, *, first_stages: tuple[Any, ...] = (), normalizer: Any = None) -> Inner:
    inner = Inner(models.BPE())
    main = pre_tokenizers.Split(Regex(pattern), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.pre_tokenizer = pre_tokenizers.Sequence([*first_stages, main, byte_level])
    if normalizer is not None:
        inner.normalizer = normalizer
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = processors.ByteLevel(trim_offsets=True)
    _train(inner)
    inner.add_special_tokens(SPECIAL)
    return inner


def _classic_gpt2(*, add_prefix_space: bool) -> Inner:
    inner = Inner(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    inner.decoder = decoders.ByteLevel()
    _train(inner)
    inner.add_special_tokens(SPECIAL)
    return inner


def _deepseek() -> Inner:
    digits = pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated")
    cjk = pre_tokenizers.Split(Regex("[一-龥\u3040-ゟ゠-ヿ]+"), "isolated")
    return _byte_level(DEEPSEEK, first_stages=(digits, cjk))


def _llama2(*, normalized_specials: bool = False) -> Inner:
    """SentencePiece-style in the form of Llama 2's tokenizer.json: normalizer, no pre-tokenizer, byte fallback."""
    inner = Inner(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    inner = _changed(_trained_pieces(inner), pre_tokenizer=None)
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    inner.add_special_tokens([AddedToken(text, normalized=normalized_specials) for text in SPECIAL])
    return inner


def _metaspace(prepend: str, *, split: bool) -> Inner:
    inner = Inner(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend)
    inner = _trained_pieces(inner)
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend, split=split)
    inner.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=prepend)])
    inner.add_special_tokens(SPECIAL)
    return inner


def _gemma() -> Inner:
    inner = _changed(_llama2(), pre_tokenizer=None)
    inner.normalizer = normalizers.Replace(" ", "▁")
    inner.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return inner


def _swallowing() -> Inner:
    """Added tokens with every flag that reaches beyond the token's own text."""
    inner = _byte_level(LLAMA3)
    inner.add_tokens(
        [
            AddedToken("<|end|>", rstrip=True, normalized=False),
            AddedToken("[mask]", lstrip=True),
            AddedToken("then", single_word=True),
            AddedToken("日本", rstrip=True, lstrip=True),
        ]
    )
    return inner


def _spanning_tokens() -> Inner:
    """A vocabulary with tokens over spaces and no pre-tokenizer: nothing can be cut."""
    inner = Inner(models.BPE(unk_token="<unk>", byte_fallback=True))
    inner.normalizer = normalizers.Replace(" ", "▁")
    inner.decoder = decoders.Replace("▁", " ")
    return _trained_pieces(inner)


def _unigram(*, split: bool) -> Inner:
    pieces = [("<unk>", 0.0), ("▁", -2.0), ("▁the", -3.0), ("the", -3.5), ("t", -5.0), ("h", -5.0), ("e", -5.0)]
    pieces += [("n", -5.0), ("e▁t", -4.0), ("▁▁", -3.0), ("\n", -5.0), ("en▁", -6.0)]
    inner = Inner(models.Unigram(pieces, 0, False))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=split)
    inner.decoder = decoders.Metaspace(prepend_scheme="first")
    return inner


def _late_merges() -> Inner:
    """Llama 3's pattern with tokens that only join once more white space has come."""
    return _merging(_byte_level(LLAMA3), [("Ċ", "Ċ"), ("!", "ĊĊ"), ("Ġ", "Ċ"), ("Ġ", "ĠĊ")])


def _late_pieces() -> Inner:
    """Llama 2's form with tokens that only join once the word after them has grown, and tokens that take spaces."""
    inner = _merging(_llama2(), [("b", "c"), ("▁", "b"), ("▁", "▁")])
    inner.add_tokens([AddedToken("<e>", rstrip=True, normalized=False), AddedToken(" x", normalized=False)])
    return inner


def _merging(inner: Inner, merges: list[tuple[str, str]]) -> Inner:
    model = json.loads(inner.to_str())["model"]
    kept = [token for token in model["vocab"] if len(token) == 1 or token.startswith(("<0x", "<unk", "<s>"))]
    tokens = dict.fromkeys([*kept, "b", "c", "▁", *("".join(pair) for pair in merges)])
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return _changed(inner, model=model | {"vocab": vocabulary, "merges": merges}, added_tokens=[])


def _changed(inner: Inner, **parts: Any) -> Inner:
    return Inner.from_str(json.dumps(json.loads(inner.to_str()) | parts))


def data_file(name: str) -> Path:
    root = os.environ.get("RAMIFY_DATA")
    data = Path(root) if root else Path(__file__).resolve().parents[3] / "shared" / "data"
    path = data / name
    if not path.is_file():
        pytest.skip(f"{path} is absent; set RAMIFY_DATA to the folder of test data")
    return path


@cache
def gpt2_ranks() -> dict[bytes, int]:
    lines = data_file("tokenizers/gpt2.tiktoken").read_bytes().splitlines()
    return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines if line)}


def _merge_of(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The pair that BPE with the lower ranks leaves of a token: the merge that made it."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        joined = [ranks.get(left + right, len(ranks)) for left, right in pairwise(parts)]
        at = joined.index(min(joined))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts[0], parts[1]


def from_ranks(ranks: dict[bytes, int], pattern: str) -> Inner:
    """A byte-level BPE of tiktoken's ranks, its merges recovered."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    shown = {byte: chr(byte) for byte in visible} | {byte: chr(0x100 + n) for n, byte in enumerate(hidden)}

    def name(token: bytes) -> str:
        return "".join(shown[byte] for byte in token)

    pairs = [_merge_of(token, ranks) for token in sorted(ranks, key=ranks.__getitem__) if len(token) > 1]
    vocabulary = {name(token): rank for token, rank in ranks.items()}
    inner = Inner(models.BPE(vocab=vocabulary, merges=[(name(left), name(right)) for left, right in pairs]))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level])
    inner.decoder = decoders.ByteLevel()
    return inner


MAKERS = {
    "gpt2": lambda: _classic_gpt2(add_prefix_space=False),
    "gpt2-prefix-space": lambda: _classic_gpt2(add_prefix_space=True),
    "gpt2-regex": lambda: _byte_level(GPT2),
    "llama3": lambda: _byte_level(LLAMA3),
    "qwen2": lambda: _byte_level(QWEN2, normalizer=normalizers.NFC()),
    "o200k": lambda: _byte_level(O200K),
    "deepseek": _deepseek,
    "llama2": _llama2,
    "llama2-normalized": lambda: _llama2(normalized_specials=True),
    "metaspace-first": lambda: _metaspace("first", split=True),
    "metaspace-always": lambda: _metaspace("always", split=True),
    "metaspace-first-joined": lambda: _metaspace("first", split=False),
    "gemma": _gemma,
    "swallowing": _swallowing,
    "late-merges": _late_merges,
    "late-pieces": _late_pieces,
    "unigram": lambda: _unigram(split=True),
    "spanning": _spanning_tokens,
    "unigram-joined": lambda: _unigram(split=False),
    "nfkc": lambda: _byte_level(LLAMA3, normalizer=normalizers.NFKC()),
    "gpt2-real": lambda: from_ranks(gpt2_ranks(), GPT2),
    "embedded": lambda: Inner.from_file(str(model_dir() / "tokenizer.json")),
}
UNCUT = {"spanning", "unigram-joined", "nfkc"}
"""Tokenizers for which no cut can be proved, so that runs are tokenized anew."""


@cache
def made(kind: str) -> Tokenizer:
    inner = MAKERS[kind]()
    return Tokenizer(inner, json.loads(inner.to_str()))


PIECES = [
    *WORDS, *GAPS, *SPECIAL, "<|im_", "end|>", "<|", "|>", "<s>", "<|end|>", "[mask]", "[ma", "sk]", "<0x41>",
    "▁", "'s", "'", "S", "x", "1", "7", ".", "/", "\r\n", "\u0301", "👩\u200d🚀", "\u200b", "\x00", "ﬁ",
    "\u2028", "\ufffd",
]  # fmt: skip
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=14).map("".join)


@pytest.mark.parametrize("kind", MAKERS)
@settings(max_examples=120, deadline=None)
@given(parts=st.lists(texts, max_size=6))
@example(parts=["a \n", "  ", "\n b"])
@example(parts=["one <|im_", "end|> two"])
@example(parts=["word ", "<s>", " more words <s", ">"])
@example(parts=["e caf", "e ", "\u0301 x", "\u0301"])
@example(parts=["a!\n", "\n"])
@example(parts=["a  ", "\n"])
@example(parts=["x▁ b", "c"])
@example(parts=["a b<e> x c", " d", " e"])
@example(parts=["a<|end|> ", " b c", " [mask]", "\t[mask]"])
def test_a_growing_run_has_the_ids_of_the_whole_text(kind: str, parts: list[str]) -> None:
    tokenizer = made(kind)
    run: TextRun | None = None
    for count, part in enumerate(parts, start=1):
        before, run = run, tokenizer.extend(run, part)
        assert run.text == "".join(parts[:count])
        assert list(run.ids) == tokenizer.encode(run.text)
        assert before is None or list(before.ids) == tokenizer.encode(before.text), "extending must not change a run"


@pytest.mark.parametrize("kind", ["llama3", "qwen2", "llama2", "gpt2-real"])
def test_a_long_run_grown_by_single_characters(kind: str) -> None:
    tokenizer = made(kind)
    text = "".join(corpus()[:3])[:600]
    run = None
    for character in text:
        run = tokenizer.extend(run, character)
        assert list(run.ids) == tokenizer.encode(run.text)


@pytest.mark.parametrize("kind", sorted(set(MAKERS) - UNCUT))
def test_only_the_end_of_a_run_is_tokenized_again(kind: str) -> None:
    tokenizer = made(kind)
    run = tokenizer.extend(None, "Some words of plain text here. " * 40)
    assert run._context > len(run.text) - 40


@pytest.mark.parametrize("kind", sorted(UNCUT))
def test_a_tokenizer_without_safe_cuts_is_known_as_such(kind: str) -> None:
    assert made(kind).extend(None, "some words of plain text " * 10)._context == 0


@pytest.mark.parametrize("pattern", [GPT2, LLAMA3, QWEN2, O200K, DEEPSEEK, r"\p{N}{1,3}", "[一-龥]+", r"[^ ]+| +"])
def test_patterns_of_real_tokenizers_never_match_over_a_cut(pattern: str) -> None:
    assert not matches_over_space(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        r"\w+ ", r"(?:a|b )+c", r"a(?= b)", r"(?:x|(?= y))?\p{L} ?z", ".+", r"[!-~ ]+", r"[^a]+", r"\p{L}+\s",
        "(?<=a)b", r"a\b", r"\P{L}+", r"a{2,3}(?: b)*", r"[\w ]{2}", r"[ -~]+", "(", "[a", r"\x61", r"[a&&b]", "a{2",
        "^a", "(?x)a",
    ],
)  # fmt: skip
def test_patterns_that_may_match_over_a_cut_are_refused(pattern: str) -> None:
    assert matches_over_space(pattern)


@pytest.mark.parametrize(
    "change",
    [
        {"added_tokens": [{"content": "new york"}]},
        {"added_tokens": [{"content": " x", "single_word": True}]},
        {"normalizer": {"type": "Lowercase"}},
        {"normalizer": {"type": "Replace", "pattern": {"Regex": " +"}, "content": " "}},
        {"pre_tokenizer": None},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": r"\s+"}, "behavior": "MergedWithNext"}},
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": r"\S+"}, "behavior": "Removed", "invert": True}},
        {"model": {"type": "BPE", "dropout": 0.1}},
    ],
    ids=str,
)
def test_parts_that_break_the_proof_switch_cuts_off(change: dict[str, Any]) -> None:
    good: dict[str, Any] = {"pre_tokenizer": {"type": "ByteLevel", "use_regex": True}, "model": {"type": "BPE"}}
    assert cut_rule(good, []) is not None
    assert cut_rule(good | change, []) is None


@pytest.mark.parametrize(
    ("text", "cuts"),
    [
        ("one two. three", [3, 8]),
        ("a  b", [1]),
        ("a! \n b", [2]),
        ("a\n\tb\nc", []),
        (" a ", [2]),
        ("a\u00a0 b\u200b c\u2003 d", []),
        ("a▁ b", []),
        ("日本 語", [2]),
        ("a <e> b", [1]),
        ("", []),
    ],
)
def test_cuts_lie_between_a_visible_character_and_a_space(text: str, cuts: list[int]) -> None:
    rule = CutRule(no_cut_after=("<e>",))
    assert [position for position in range(-1, len(text) + 1) if rule.is_cut(text, position)] == cuts
    assert rule.last(text, 0, len(text)) == (cuts[-1] if cuts else None)
    assert rule.last(text, 0, cuts[-1] if cuts else 0) == (cuts[-2] if len(cuts) > 1 else None)


@pytest.mark.parametrize("kind", ["gpt2-prefix-space", "llama2", "metaspace-first", "metaspace-always", "llama3"])
@settings(max_examples=60, deadline=None)
@given(parts=st.lists(st.sampled_from(["one", " two", "\n", ".", " ", "é", "3"]), min_size=1, max_size=6))
def test_text_after_generated_tokens_gets_no_space_of_the_tokenizers_own(kind: str, parts: list[str]) -> None:
    tokenizer = made(kind)
    run = CONTINUATION
    for count, part in enumerate(parts, start=1):
        run = tokenizer.extend(run, part)
        assert tokenizer.decode(run.ids) == "".join(parts[:count])


@pytest.mark.parametrize("kind", ["llama2", "metaspace-first", "metaspace-always"])
def test_behind_a_special_token_a_continuation_is_like_any_text(kind: str) -> None:
    tokenizer = made(kind)
    special = SPECIAL[0]
    run = tokenizer.extend(tokenizer.extend(CONTINUATION, " one"), f"{special}two three")
    head = tokenizer.extend(CONTINUATION, " one").ids
    assert run.ids == (*head, *tokenizer.encode(f"{special}two three"))


def test_extending_does_not_touch_the_earlier_run() -> None:
    tokenizer = made("llama3")
    first = tokenizer.extend(None, "the trunk then ")
    left, right = tokenizer.extend(first, "left"), tokenizer.extend(first, "\n\nright")
    assert first == TextRun("the trunk then ", tuple(tokenizer.encode("the trunk then ")))
    assert list(left.ids) == tokenizer.encode(left.text)
    assert list(right.ids) == tokenizer.encode(right.text)


def test_ids_of_real_ranks_are_those_of_tiktoken() -> None:
    import tiktoken

    ranks = gpt2_ranks()
    reference = tiktoken.Encoding("gpt2-test", pat_str=GPT2, mergeable_ranks=ranks, special_tokens={})
    tokenizer = made("gpt2-real")
    assert tokenizer.vocab_size == len(ranks)
    for text in [*corpus()[:40], "Hello, world! 12345 \n\n  x", "👩‍🚀 ünïcödé\t日本語"]:
        ids = tokenizer.encode(text)
        assert ids == reference.encode(text)
        assert tokenizer.decode(ids) == text
        assert [tokenizer.token_bytes(i) for i in ids] == [reference.decode_single_token_bytes(i) for i in ids]


@pytest.mark.parametrize("kind", MAKERS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_streamed_text_is_the_decoded_text(kind: str, data: st.DataObject) -> None:
    tokenizer = made(kind)
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size + 2), max_size=20) | texts.map(tokenizer.encode))
    stream = tokenizer.decode_stream()
    steps = [stream.step(token_id) for token_id in ids]
    assert "".join(steps) + stream.flush() == tokenizer.decode(ids)
    assert stream.flush() == ""


# The library decodes special tokens that it normalizes although it was told to skip them.
@pytest.mark.parametrize("kind", sorted(set(MAKERS) - {"unigram", "unigram-joined", "spanning", "llama2-normalized"}))
@settings(max_examples=60, deadline=None)
@given(text=texts)
def test_decoding_agrees_with_the_library_on_texts(kind: str, text: str) -> None:
    tokenizer = made(kind)
    ids = [i for i in tokenizer.encode(text) if tokenizer.token_text(i) not in ("<unk>", "<s>")]
    assert tokenizer.decode(ids, at_start=True) == tokenizer._inner.decode(ids, skip_special_tokens=True)


def test_a_character_of_several_tokens_is_held_back() -> None:
    tokenizer = made("gpt2-real")
    ids = tokenizer.encode("👩")
    stream = tokenizer.decode_stream()
    assert len(ids) > 1
    assert [stream.step(i) for i in ids] == [""] * (len(ids) - 1) + ["👩"]
    assert stream.step(ids[0]) == ""
    assert stream.flush() == "\ufffd"


def test_special_tokens_decode_to_nothing_and_show_by_name() -> None:
    tokenizer = made("llama3")
    end = tokenizer.token_id("<|im_end|>")
    assert end is not None
    assert tokenizer.encode("the<|im_end|>") == [*tokenizer.encode("the"), end]
    assert tokenizer.decode([*tokenizer.encode("the"), end, *tokenizer.encode(" it")]) == "the it"
    assert tokenizer.token_text(end) == "<|im_end|>"
    assert end in tokenizer.special_ids and not tokenizer.special_ids & set(tokenizer.encode("the it's"))
    assert tokenizer.token_text(tokenizer.vocab_size + 5) == f"<no token {tokenizer.vocab_size + 5}>"
    assert [tokenizer.token_text(i) for i in tokenizer.encode("Ж")] == ["\\xd0", "\\x96"]


def test_a_continuation_keeps_its_leading_space() -> None:
    tokenizer = made("llama2")
    ids = tokenizer.encode("the")
    assert tokenizer.decode(ids) == " the"
    assert tokenizer.decode(ids, at_start=True) == "the"
    assert made("gpt2").decode(made("gpt2").encode(" the"), at_start=True) == " the"


def test_a_lone_surrogate_is_refused_with_a_reason() -> None:
    with pytest.raises(RequestError, match="surrogate"):
        made("gpt2").encode("a\ud800")


# Loading.


def _write(folder: Path, inner: Inner, **files: Any) -> Path:
    folder.mkdir(exist_ok=True)
    inner.save(str(folder / "tokenizer.json"))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def _with_bos() -> Inner:
    inner = _classic_gpt2(add_prefix_space=False)
    template = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    inner.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return inner


def test_load_reads_what_the_directory_says(tmp_path: Path) -> None:
    inner = _with_bos()
    inner.enable_truncation(3)
    inner.enable_padding(length=64)
    start, end = (inner.token_to_id(token) for token in ("<|im_start|>", "<|im_end|>"))
    tokenizer = Tokenizer.load(
        _write(
            tmp_path,
            inner,
            tokenizer_config={"eos_token": {"content": "<|im_end|>"}, "bos_token": "<s>", "chat_template": CHATML},
            generation_config={"eos_token_id": [0, start]},
            config={"eos_token_id": start},
        )
    )
    assert tokenizer.bos_id == 1
    assert tokenizer.eos_ids == (0, start, end)
    assert tokenizer.vocab_size == inner.get_vocab_size()
    ids = tokenizer.encode("the then it's 12")
    assert 3 < len(ids) < 64, "neither truncated nor padded"
    assert tokenizer.decode(ids) == "the then it's 12"
    assert tokenizer.chat is not None
    assert tokenizer.chat.opening("user", None).written == "<|im_start|>user\n"
    assert tokenizer.extend(None, "one two three ")._cut > 0


CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_load_needs_tokenizer_json_alone(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(_write(tmp_path, _classic_gpt2(add_prefix_space=False)))
    assert (tokenizer.bos_id, tokenizer.eos_ids, tokenizer.chat) == (None, (), None)


@pytest.mark.parametrize(("flag", "bos_id"), [(True, 1), (False, None), (None, None)])
def test_bos_by_configuration(tmp_path: Path, flag: bool | None, bos_id: int | None) -> None:
    config = {"bos_token": "<s>", "add_bos_token": flag}
    tokenizer = Tokenizer.load(_write(tmp_path, _classic_gpt2(add_prefix_space=False), tokenizer_config=config))
    assert tokenizer.bos_id == bos_id
    assert 1 not in tokenizer.encode("the")


def test_the_template_file_wins_and_default_of_several_is_taken(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": CHATML}]
    folder = _write(tmp_path, _classic_gpt2(add_prefix_space=False), tokenizer_config={"chat_template": named})
    chat = Tokenizer.load(folder).chat
    assert chat is not None and chat.closing("user") == "<|im_end|>\n"
    (tmp_path / "chat_template.jinja").write_text(CHATML.replace("im_", "x_"))
    chat = Tokenizer.load(folder).chat
    assert chat is not None and chat.closing("user") == "<|x_end|>\n"


def test_a_template_writes_the_bos_text_that_other_tokenizers_add(tmp_path: Path) -> None:
    config = {"bos_token": "<s>", "chat_template": "{{ bos_token }}" + CHATML}
    plain = Tokenizer.load(_write(tmp_path / "plain", _classic_gpt2(add_prefix_space=False), tokenizer_config=config))
    adding = Tokenizer.load(_write(tmp_path / "adding", _with_bos(), tokenizer_config=config))
    for tokenizer, in_text in ((plain, "<s><|im_start|>user\n"), (adding, "<|im_start|>user\n")):
        assert tokenizer.chat is not None and tokenizer.chat_in_text is not None
        assert tokenizer.chat.opening("user", None).written == "<s><|im_start|>user\n"
        assert tokenizer.chat_in_text.opening("user", None).written == in_text
        assert (tokenizer.chat.has_bos, tokenizer.chat_in_text.has_bos) == (True, False)


def test_a_template_may_name_all_special_tokens(tmp_path: Path) -> None:
    config = {"pad_token": {"content": "<pad>"}, "unk_token": None, "chat_template": "{{ pad_token }}" + CHATML}
    chat = Tokenizer.load(_write(tmp_path, _classic_gpt2(add_prefix_space=False), tokenizer_config=config)).chat
    assert chat is not None and chat.opening("user", None).written == "<pad><|im_start|>user\n"


def test_a_template_without_marks_refuses_messages_when_they_are_used(tmp_path: Path) -> None:
    config = {"chat_template": "always the same"}
    chat = Tokenizer.load(_write(tmp_path, _classic_gpt2(add_prefix_space=False), tokenizer_config=config)).chat
    assert chat is not None
    with pytest.raises(Unsupported, match="no role marks can be told from the chat template"):
        chat.opening("user", None)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("tokenizer.json", None, "has no tokenizer.json"),
        ("tokenizer.json", b"{", "tokenizer.json cannot be read"),
        ("tokenizer.json", b'{"version": "1.0"}', "tokenizer.json is not a tokenizer"),
        ("tokenizer_config.json", b"[1]", "tokenizer_config.json cannot be read"),
        ("tokenizer_config.json", b"\xff", "tokenizer_config.json cannot be read"),
        ("tokenizer_config.json", b'{"eos_token": "<nope>"}', "eos_token '<nope>' is not in"),
        ("tokenizer_config.json", b'{"bos_token": "<nope>", "add_bos_token": true}', "bos_token '<nope>' is not in"),
        ("tokenizer_config.json", b'{"chat_template": 3}', "chat_template must be text"),
        ("tokenizer_config.json", b'{"chat_template": ["x"]}', "needs a name and a template"),
        ("generation_config.json", b'{"eos_token_id": "2"}', "generation_config.json: eos_token_id must be"),
        ("config.json", b'{"eos_token_id": [true]}', "config.json: eos_token_id must be"),
        ("chat_template.jinja", b"\xff\xfe", "chat_template.jinja cannot be read"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    _write(tmp_path, _classic_gpt2(add_prefix_space=False))
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=words) as caught:
        Tokenizer.load(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("decoder", [None, {"type": "WordPiece", "prefix": "##", "cleanup": True}])
def test_a_decoder_without_bytes_is_refused(tmp_path: Path, decoder: Any) -> None:
    inner = _changed(_classic_gpt2(add_prefix_space=False), decoder=decoder)
    with pytest.raises(ModelError, match=r"decoder of type"):
        Tokenizer.load(_write(tmp_path, inner))
