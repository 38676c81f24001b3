"""Text to tokens and back: the model directory's tokenizer, text runs that grow, and incremental decoding.

A prompt's tokens are kept, never re-derived: `Tokenizer.extend` tokenizes only what an append can have changed and
gives the same ids as tokenizing the whole run (the text between generated spans). Decoding joins the tokens' bytes
and reads them as UTF-8, so that streaming it costs the same for each token and gives the same text as all at once.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
from tokenizers import Encoding
from tokenizers import Tokenizer as Inner

from ..ir.errors import ModelError, RequestError, Unsupported
from .call_format import CallFormat
from .chat import ChatFormat
from .chat_derivation import derive_chat_format
from .cuts import METASPACE, CutRule, cut_rule

# As many tokens at the end of a text may well change when it grows: those of its last word.
_UNSETTLED = 4


@dataclass(frozen=True, slots=True)
class TextRun:
    """A text and its token ids, ready to grow (`Tokenizer.extend`).

    The private fields say from where to go on: `_kept` ids cover the text before the position `_cut`, and stay;
    what follows is tokenized again together with some context before it, from `_context` on. A continuation follows
    generated tokens: where the tokenizer puts a space of its own before a text, it gets none.
    """

    text: str = ""
    ids: tuple[int, ...] = ()
    continuation: bool = False
    _context: int = field(default=0, repr=False, compare=False)
    _cut: int = field(default=0, repr=False, compare=False)
    _kept: int = field(default=0, repr=False, compare=False)

    @property
    def settled_ids(self) -> tuple[int, ...]:
        """The ids that stay, whatever the text grows by; most likely, where no place is known from which they do."""
        return self.ids[: max(self._kept, len(self.ids) - _UNSETTLED)]


CONTINUATION = TextRun(continuation=True)


class DecodeStream:
    """Turns generated ids into text one by one; text that was returned is final.

    All steps and the flush together are `Tokenizer.decode` of all ids. Bytes of an unfinished character are held back.
    """

    __slots__ = ("_decoder", "_holds", "_texts", "_token_bytes")

    def __init__(self, token_bytes: Callable[[int], bytes], texts: dict[int, str]) -> None:
        """texts: of tokens whose bytes are characters by themselves; filled by all streams that share it."""
        self._token_bytes = token_bytes
        self._texts = texts
        self._holds = False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def step(self, token_id: int) -> str:
        """The text that becomes final with this token; often empty inside a character of several tokens."""
        if not self._holds:
            known = self._texts.get(token_id)
            if known is not None:
                return known
        added = self._token_bytes(token_id)
        if not self._holds and added.isascii():
            return self._texts.setdefault(token_id, added.decode("ascii"))
        text = self._decoder.decode(added)
        self._holds = bool(self._decoder.getstate()[0])
        return text

    def flush(self) -> str:
        """What was held back, with U+FFFD for bytes that never became a character; the stream starts afresh."""
        self._holds = False
        return self._decoder.decode(b"", final=True)


class Tokenizer:
    """The tokenizer of a model directory.

    vocab_size: one more than the largest token id; base_vocab_size: without tokens that were added. bos_id: the token
    that the tokenizer itself puts before a text, or None; `encode` never adds it. eos_ids: the tokens that end a
    generation.
    """

    def __init__(
        self,
        inner: Inner,
        parts: Mapping[str, Any],
        *,
        bos_id: int | None = None,
        eos_ids: tuple[int, ...] = (),
        bos_text: str = "",
        chat: Callable[[], ChatFormat | None] = lambda: None,
    ) -> None:
        """`parts` are those of tokenizer.json that `load` reads; `chat` makes the chat format when first asked.
        bos_text: how a chat template writes the beginning-of-text token.

        Takes `inner` over: its post-processor, truncation and padding are switched off, for plain ids and true
        offsets. Raises ModelError when its tokens have no bytes of their own.
        """
        inner.post_processor = None
        inner.no_truncation()
        inner.no_padding()
        self._inner = inner
        self._bare = _without_prefix(inner, parts)
        self.bos_id = bos_id
        self.eos_ids = eos_ids
        self._bos_text = bos_text
        self._chat = chat
        vocabulary = inner.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocabulary.values(), default=-1) + 1
        self.base_vocab_size = max(inner.get_vocab(with_added_tokens=False).values(), default=-1) + 1
        self._added = dict(inner.get_added_tokens_decoder())
        self._to_bytes, self._strips_first_space = _byte_decoder(parts.get("decoder"))
        self._bytes: dict[int, bytes] = {}
        self._texts: dict[int, str] = {}
        self._rule: CutRule | None = cut_rule(parts, inner.get_vocab(with_added_tokens=False))

    @classmethod
    def load(cls, model_dir: Path) -> Tokenizer:
        """Reads tokenizer.json and, where present, tokenizer_config.json, special_tokens_map.json,
        generation_config.json, config.json and chat_template.jinja. Raises ModelError that names the file."""
        path = model_dir / "tokenizer.json"
        if not path.is_file():
            raise ModelError(
                f"{model_dir} has no tokenizer.json",
                help="give a model directory in Hugging Face layout; an older one is converted by "
                "transformers.AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)",
            )
        parts = _read_parts(path)
        try:
            inner = Inner.from_file(str(path))
        except Exception as error:  # The library raises bare Exception for whatever it cannot read.
            raise ModelError(f"{path} is not a tokenizer: {error}", help=_DAMAGED) from error
        config = _read_json(model_dir / "tokenizer_config.json")
        bos_id = _bos_id(inner, config, model_dir)
        special = _special_texts(_read_json(model_dir / "special_tokens_map.json") | config)
        return cls(
            inner,
            parts,
            bos_id=bos_id,
            eos_ids=_eos_ids(inner, config, model_dir),
            bos_text=special.get("bos_token", ""),
            chat=_chat_maker(model_dir, config, special),
        )

    @cached_property
    def chat(self) -> ChatFormat | None:
        """The chat format derived from the model's template, or None if it has none.

        A template from which none can be derived gives a format that refuses messages. Raises ModelError for one that
        is not valid.
        """
        chat = self._chat()
        if chat is None or chat.calls is None:
            return chat
        return replace(chat, calls=self._with_tokens(chat.calls))

    def _with_tokens(self, calls: CallFormat) -> CallFormat:
        """The format of calls with the tokens that its marks are."""
        found = ((mark, self._inner.token_to_id(mark)) for mark in sorted(calls.marks()))
        return msgspec.structs.replace(calls, tokens=tuple(each for each in found if each[1] in self._added))

    @cached_property
    def chat_in_text(self) -> ChatFormat | None:
        """The same for text that is tokenized elsewhere, with this tokenizer's own first token before it."""
        return None if self.chat is None else self.chat.without_bos(self._bos_text if self.bos_id is not None else "")

    @property
    def special_ids(self) -> frozenset[int]:
        """The special tokens, which decode to nothing."""
        return frozenset(token_id for token_id, token in self._added.items() if token.special)

    def encode(self, text: str) -> list[int]:
        """The ids of `text` without BOS; special tokens written in the text are recognised."""
        return self._encode(self._inner, text).ids

    def encode_after(self, text: str) -> tuple[int, ...]:
        """The ids of a text that follows generated tokens."""
        return self.extend(CONTINUATION, text).ids

    def extend(self, run: TextRun | None, text: str) -> TextRun:
        """The run grown by `text`; `.ids` equals `encode` of the whole text. None is the empty run.

        For a run that began as CONTINUATION, `encode` without the space that the tokenizer may put before a text.
        """
        run = run or TextRun()
        whole = run.text + text
        if run.continuation and self._bare is not self._inner:
            return TextRun(whole, self._continued(whole), continuation=True)
        encoding = self._encode(self._inner, whole[run._context :])
        start = _index_at(encoding, run._cut - run._context) if run._cut else 0
        if start is None:
            return self.extend(replace(TextRun(), continuation=run.continuation), whole)
        ids = run.ids[: run._kept] + tuple(encoding.ids[start:])
        cut = self._last_cut(whole, run._cut + 1, len(whole))
        index = None if cut is None else _index_at(encoding, cut - run._context)
        if cut is None or index is None:
            return replace(run, text=whole, ids=ids)
        context = self._last_cut(whole, run._cut + 1, cut)
        context = run._cut if context is None else context
        return TextRun(whole, ids, run.continuation, context, cut, run._kept + index - start)

    def decode(self, ids: Iterable[int], *, at_start: bool = False) -> str:
        """The text of `ids` without special tokens, as a continuation of what came before.

        A SentencePiece-style tokenizer puts a space before a text; a continuation keeps it, `at_start` drops it.
        """
        text = b"".join(map(self.token_bytes, ids)).decode("utf-8", "replace")
        return text.removeprefix(" ") if at_start and self._strips_first_space else text

    def decode_stream(self, shown: Collection[int] = ()) -> DecodeStream:
        """A fresh incremental decoder of generated ids. shown: special tokens that it writes by their names."""
        if not shown:
            return DecodeStream(self.token_bytes, self._texts)
        names = {token_id: self.token_text(token_id).encode() for token_id in shown}
        return DecodeStream(lambda token_id: names.get(token_id) or self.token_bytes(token_id), {})

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token adds to a text: none for special tokens and for ids without a token."""
        known = self._bytes.get(token_id)
        if known is None:
            known = self._bytes[token_id] = self._bytes_of(token_id)
        return known

    def token_text(self, token_id: int) -> str:
        """A token for showing: special tokens by name, bytes that are not UTF-8 as escapes."""
        token = self._added.get(token_id)
        if token is not None:
            return token.content
        if self._inner.id_to_token(token_id) is None:
            return f"<no token {token_id}>"
        return self.token_bytes(token_id).decode("utf-8", "backslashreplace")

    def token_id(self, token: str) -> int | None:
        """The id of a token by its name in the vocabulary, such as `<|im_end|>`."""
        return self._inner.token_to_id(token)

    def _bytes_of(self, token_id: int) -> bytes:
        added = self._added.get(token_id)
        if added is not None:
            return b"" if added.special else added.content.encode()
        token = self._inner.id_to_token(token_id)
        return b"" if token is None else self._to_bytes(token)

    def _continued(self, text: str) -> tuple[int, ...]:
        """The ids of a text after generated tokens: only up to a special token is it without the tokenizer's space."""
        found = self._added_pattern.search(text) if self._added else None
        first = found.start() if found else len(text)
        rest = self._encode(self._inner, text[first:]).ids if found else []
        return (*self._encode(self._bare, text[:first]).ids, *rest)

    @cached_property
    def _added_pattern(self) -> re.Pattern[str]:
        contents = sorted((token.content for token in self._added.values()), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, contents)))

    def _encode(self, inner: Inner, text: str) -> Encoding:
        try:
            return inner.encode(text, add_special_tokens=False)
        except TypeError:
            # The library refuses text with lone surrogates as if it were not a string.
            raise RequestError(f"this text cannot be tokenized: {text[:80]!r}", help=_SURROGATES) from None

    def _last_cut(self, text: str, start: int, stop: int) -> int | None:
        return self._rule.last(text, start, stop) if self._rule is not None else None


_DAMAGED = "the file may be damaged or cut off; copy it again from where the model came"
_SURROGATES = "pass a str without lone surrogates (U+D800 to U+DFFF)"
_DECODERS = "models with ByteLevel or SentencePiece-style (Metaspace, ByteFallback) decoders can be used"


class _Parts(msgspec.Struct):
    """What is read of tokenizer.json beside what the library reads; the rest is skipped."""

    normalizer: Any = None
    pre_tokenizer: Any = None
    decoder: Any = None
    added_tokens: list[dict[str, Any]] = []
    model: _ModelPart | None = None


class _ModelPart(msgspec.Struct):
    type: str = ""
    dropout: float | None = None
    continuing_subword_prefix: str | None = None
    end_of_word_suffix: str | None = None


def _read_parts(path: Path) -> dict[str, Any]:
    try:
        parts = msgspec.json.decode(path.read_bytes(), type=_Parts)
    except (OSError, msgspec.DecodeError) as error:
        raise ModelError(f"{path} cannot be read: {error}", help=_DAMAGED) from error
    found: dict[str, Any] = msgspec.to_builtins(parts)
    return found


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty when there is no such file. Raises ModelError."""
    if not path.is_file():
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError) as error:
        raise ModelError(f"{path} cannot be read: {error}", help=_DAMAGED) from error


def _without_prefix(inner: Inner, parts: Mapping[str, Any]) -> Inner:
    """The tokenizer without the space that it puts before a text; itself if it puts none."""
    if not any(map(_is_prefix, [*_members(parts, "normalizer"), *_members(parts, "pre_tokenizer")])):
        return inner
    description = msgspec.json.decode(inner.to_str(), type=dict[str, Any])
    normalizers = [part for part in _members(description, "normalizer") if part["type"] != "Prepend"]
    description["normalizer"] = {"type": "Sequence", "normalizers": normalizers} if normalizers else None
    for part in _members(description, "pre_tokenizer"):
        if part["type"] == "Metaspace":
            part["prepend_scheme"] = "never"
        if "add_prefix_space" in part:
            part["add_prefix_space"] = False
    return Inner.from_str(msgspec.json.encode(description).decode())


def _is_prefix(part: Mapping[str, Any]) -> bool:
    """Whether a stage of a tokenizer puts a space before every text."""
    if part["type"] == "Metaspace":
        return bool(part.get("prepend_scheme", "always") != "never")
    return part["type"] == "Prepend" or bool(part.get("add_prefix_space"))


def _members(parts: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The stages of a normalizer or pre-tokenizer, which may be none, one, or a sequence."""
    part = parts.get(name)
    if part is None:
        return []
    return part.get("normalizers" if name == "normalizer" else "pretokenizers", [part])  # type: ignore[no-any-return]


def _index_at(encoding: Encoding, position: int) -> int | None:
    """The index of the token that begins at this character, or None when none does."""
    index: int | None = encoding.char_to_token(position)
    if index is None:
        return None
    characters = encoding.token_to_chars(index)
    return index if characters is not None and characters[0] == position else None


def _bos_id(inner: Inner, config: Mapping[str, Any], model_dir: Path) -> int | None:
    """The id that the tokenizer puts before a text, by its post-processor or its configuration."""
    plain = _unpadded(inner.encode("a", add_special_tokens=False))
    full = _unpadded(inner.encode("a", add_special_tokens=True))
    if full[1 : 1 + len(plain)] == plain and full[:1] != plain[:1]:
        return full[0]
    token = _token_text(config.get("bos_token"))
    if not config.get("add_bos_token") or token is None:
        return None
    return _known_id(inner, token, "bos_token", model_dir)


def _unpadded(encoding: Encoding) -> list[int]:
    return [token_id for token_id, real in zip(encoding.ids, encoding.attention_mask, strict=True) if real]


def _known_id(inner: Inner, token: str, key: str, model_dir: Path) -> int:
    found: int | None = inner.token_to_id(token)
    if found is None:
        path = model_dir / "tokenizer_config.json"
        raise ModelError(f"{path}: {key} {token!r} is not in tokenizer.json", help="correct one of the two files")
    return found


def _token_text(value: Any) -> str | None:
    """A token in tokenizer_config.json: a string or an object with its content."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None


def _eos_ids(inner: Inner, config: Mapping[str, Any], model_dir: Path) -> tuple[int, ...]:
    """All ids that any of the three files calls end of sequence, without repeats."""
    ids: list[int] = []
    for name in ("generation_config.json", "config.json"):
        path = model_dir / name
        value = _read_json(path).get("eos_token_id")
        ids += _id_list(value, path)
    token = _token_text(config.get("eos_token"))
    if token is not None:
        ids.append(_known_id(inner, token, "eos_token", model_dir))
    return tuple(dict.fromkeys(ids))


def _id_list(value: Any, path: Path) -> list[int]:
    ids = [] if value is None else value if isinstance(value, list) else [value]
    if not all(type(item) is int and item >= 0 for item in ids):
        raise ModelError(f"{path}: eos_token_id must be a token id or a list of them, got {value!r}")
    return ids


def _special_texts(config: Mapping[str, Any]) -> dict[str, str]:
    """The texts of the special tokens that a configuration names, such as `bos_token`."""
    texts = {name: _token_text(value) for name, value in config.items() if name.endswith("_token")}
    return {name: text for name, text in texts.items() if text is not None}


def _chat_maker(
    model_dir: Path, config: Mapping[str, Any], special: Mapping[str, str]
) -> Callable[[], ChatFormat | None]:
    template = _chat_template(model_dir, config)
    if template is None:
        return lambda: None
    return lambda: _derived(template, special)


def _derived(template: str, special: Mapping[str, str]) -> ChatFormat:
    try:
        return derive_chat_format(template, special)
    except Unsupported as error:  # programs without messages run all the same
        return ChatFormat.refusing(error.message, error.help or "")


def _chat_template(model_dir: Path, config: Mapping[str, Any]) -> str | None:
    """The template file if there is one, else the configuration's (the one named "default" of several)."""
    path = model_dir / "chat_template.jinja"
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"{path} cannot be read: {error}", help=_DAMAGED) from error
    value = config.get("chat_template")
    if isinstance(value, list):
        named = _named_templates(value, model_dir)
        value = named.get("default", next(iter(named.values()), None))
    if value is not None and not isinstance(value, str):
        raise ModelError(f"{model_dir / 'tokenizer_config.json'}: chat_template must be text, got {value!r:.80}")
    return value


def _named_templates(entries: list[Any], model_dir: Path) -> dict[str, Any]:
    try:
        return {entry["name"]: entry["template"] for entry in entries}
    except (TypeError, KeyError):
        path = model_dir / "tokenizer_config.json"
        raise ModelError(f"{path}: every chat_template of the list needs a name and a template") from None


def _byte_decoder(part: Mapping[str, Any] | None) -> tuple[Callable[[str], bytes], bool]:
    """How a vocabulary token becomes bytes, and whether a text's first space is the tokenizer's own."""
    members = [] if part is None else part["decoders"] if part["type"] == "Sequence" else [part]
    kinds = {member["type"]: member for member in members}
    unknown = kinds.keys() - {"ByteLevel", "ByteFallback", "Fuse", "Strip", "Replace", "Metaspace"}
    if unknown or not kinds:
        name = ", ".join(sorted(unknown)) or "null"
        raise ModelError(f"tokenizer.json: a decoder of type {name} is not supported", help=_DECODERS)
    if "ByteLevel" in kinds:
        return _byte_level, False
    metaspace = kinds.get("Metaspace")
    strips = "Strip" in kinds or (metaspace is not None and metaspace.get("prepend_scheme", "always") != "never")
    replaces = [(m["pattern"].get("String", METASPACE), m["content"]) for m in members if m["type"] == "Replace"]
    replaces += [(metaspace["replacement"], " ")] if metaspace is not None else []
    return _Pieces(tuple(replaces), "ByteFallback" in kinds).to_bytes, strips


def _byte_level(token: str) -> bytes:
    """The bytes of a byte-level token, in which each character stands for a byte (as in GPT-2)."""
    try:
        return bytes(_BYTE_OF[character] for character in token)
    except KeyError:
        return token.encode()


def _byte_table() -> dict[str, int]:
    """Visible Latin-1 characters stand for themselves, the other bytes in order for U+0100 onwards."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = sorted(set(range(256)) - set(visible))
    return {chr(byte): byte for byte in visible} | {chr(0x100 + n): byte for n, byte in enumerate(hidden)}


_BYTE_OF = _byte_table()


@dataclass(frozen=True, slots=True)
class _Pieces:
    """SentencePiece-style tokens: a mark for spaces, and `<0x0A>` for single bytes."""

    replaces: tuple[tuple[str, str], ...]
    has_bytes: bool

    def to_bytes(self, token: str) -> bytes:
        if self.has_bytes and len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            return bytes([int(token[3:5], 16)])
        for mark, text in self.replaces:
            token = token.replace(mark, text)
        return token.encode()
