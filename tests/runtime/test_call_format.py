"""Formats of tool calls: read off templates, written and read, and as grammars."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from ramify.backends.native_tools import SHOWN_CALLS
from ramify.runtime.call_derivation import derive_calls
from ramify.runtime.call_format import CallFormat, WrittenCall, call_record
from ramify.runtime.call_grammar import CallRequest
from ramify.runtime.chat_derivation import derive_chat_format
from ramify.runtime.chat_template import Template
from ramify.runtime.constraint import Constraint, matches

from .chat_templates import BOS, EOS, TEMPLATES
from .tool_templates import TOOL_TEMPLATES

TOKENS = {"bos_token": BOS, "eos_token": EOS}
TOOLS: list[dict[str, Any]] = [
    {
        "name": "f",
        "description": "",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "array", "items": {"type": "string"}}},
            "required": ["a"],
            "additionalProperties": False,
        },
    },
    {"name": "ff", "description": "", "parameters": {"type": "object", "additionalProperties": False}},
]
CALLS = [
    WrittenCall("f", {"a": 1, "b": ["é}", '"', "</tool_call>\n"]}, "123456789"),
    WrittenCall("ff", {}, "abcdefghi"),
]


def derived(source: str) -> CallFormat | None:
    return derive_calls(Template(source, TOKENS))


def calls_of(form: CallFormat, count: int) -> list[WrittenCall]:
    return [call if form.has_ids else call._replace(id=None) for call in CALLS[:count]]


FORMS = {**{name: derived(source) for name, source in TOOL_TEMPLATES.items()}, "server": SHOWN_CALLS}


@pytest.mark.parametrize("name", FORMS)
def test_what_is_written_is_read(name: str) -> None:
    form = FORMS[name]
    assert form is not None
    for count in (1, 2) if form.separator is not None else (1,):
        calls = calls_of(form, count)
        text = form.write(calls)
        assert form.read(text) == calls
        begun = [text[:length] for length in range(len(form.mark), len(text))] + [text + "x"]
        for broken in begun:
            if broken != form.write(calls[:1]):
                with pytest.raises(ValueError, match=r"it has|behind|no end|Expecting|Unterminated|Invalid|Extra"):
                    form.read(broken)
    assert form.read("words") is None and form.read("") is None


@pytest.mark.parametrize("name", TOOL_TEMPLATES)
def test_the_template_writes_the_same(name: str) -> None:
    form = FORMS[name]
    assert form is not None
    records = [call_record(call) for call in CALLS[:1]]
    messages = [{"role": "user", "content": "Go!"}, {"role": "assistant", "content": "", "tool_calls": records}]
    assert form.write(calls_of(form, 1)) in Template(TOOL_TEMPLATES[name], TOKENS).render_records(
        messages, prompt=False
    )


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_that_know_no_calls_have_no_format(name: str) -> None:
    assert derived(TEMPLATES[name]) is None


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(("least", "most"), [(1, 1), (0, 1), (1, 2), (2, 2), (0, 8)])
def test_the_grammar_has_so_many_calls_and_where_it_may_words(name: str, least: int, most: int) -> None:
    form = FORMS[name]
    assert form is not None
    if form.separator is None and least > 1:
        return
    for follows_text in (False, True):
        request = CallRequest(form, TOOLS, least, most, follows_text)
        constraint = Constraint("calls", msgspec.json.encode(request).decode())
        constraint.check()
        for count in (1, 2) if form.separator is not None else (1,):
            text = form.write(calls_of(form, count))
            assert matches(constraint, text) == (least <= count <= most)
            if form.lead:
                assert matches(constraint, form.lead + text) == (follows_text and least <= count <= most)
        for words in ("", "Hello!", form.mark[0] * 3, f"a {form.mark}", form.mark[:-1], f"{form.mark}{form.mark}"):
            assert matches(constraint, words) == (least == 0 and form.mark not in words)


def test_words_are_all_texts_without_the_mark() -> None:
    form = FORMS["hermes"]
    assert form is not None
    constraint = Constraint("calls", msgspec.json.encode(CallRequest(form, TOOLS, 0, 1)).decode())
    for pieces in itertools.product(["<", "tool_call>", "<tool_call>", "x"], repeat=3):
        words = "".join(pieces)
        assert matches(constraint, words) == ("<tool_call>" not in words)


ARGUMENTS_AS_TEXT = """{% for m in messages %}{{ '<' + m.role + '>' + (m.content or '') }}\
{% for c in m.tool_calls or [] %}{{ '<call>' + c.function.name + '\\n' + c.function.arguments + '</call>' }}\
{% endfor %}{{ '<end>' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"""
COMPACT = ARGUMENTS_AS_TEXT.replace("c.function.arguments", "(c.function.arguments | tojson(separators=(',', ':')))")
NUMBERED = ARGUMENTS_AS_TEXT.replace("'<call>'", "'<call ' + loop.index | string + '>'")
AS_XML = ARGUMENTS_AS_TEXT.replace("c.function.arguments", "(c.function.arguments.items() | list | string)")


def test_odd_templates() -> None:
    text, compact, numbered = derived(ARGUMENTS_AS_TEXT), derived(COMPACT), derived(NUMBERED)
    assert text is not None and compact is not None and numbered is not None
    assert (text.opening, text.between, text.separator, text.closing) == ("<call>", ("\n",), "</call><call>", "</call>")
    assert not text.is_compact and compact.is_compact
    assert numbered.separator is None  # calls behind the first are written otherwise
    assert derived(AS_XML) is None


def test_results_are_read_off_templates_that_have_none_without_calls() -> None:
    chat = derive_chat_format(TOOL_TEMPLATES["mistral"], TOKENS)
    assert "tool" in chat.roles
    assert chat.opening("tool", "assistant").written == '[TOOL_RESULTS] {"content": '
    assert chat.opening("assistant", "tool").generated == ""
