"""Marks taken from templates of the shapes in use give back the templates' own renderings."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ramify.ir.errors import ModelError, Unsupported
from ramify.runtime.chat import DEFAULT_CHAT, ChatFormat, _Template

CHATML = """{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}
{%- endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\n' }}
{%- endif %}"""
CHATML_DEFAULT_SYSTEM = """{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
{%- else %}
    {{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) or message.role == 'assistant' %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.index0 == 0 or messages[loop.index0 - 1].role != 'tool' %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\n<tool_response>\n' + message.content + '\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}
            {{- '<|im_end|>\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}"""

LLAMA2 = """{% if messages[0]['role'] == 'system' %}
{% set turns = messages[1:] %}{% set system_message = messages[0]['content'] %}
{% else %}
{% set turns = messages %}{% set system_message = false %}
{% endif %}
{% for message in turns %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{% endif %}
{% if loop.index0 == 0 and system_message != false %}
{% set content = '<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' + message['content'] %}
{% else %}
{% set content = message['content'] %}
{% endif %}
{% if message['role'] == 'user' %}
{{- bos_token + '[INST] ' + content.strip() + ' [/INST]' -}}
{% elif message['role'] == 'assistant' %}
{{- ' ' + content.strip() + ' ' + eos_token -}}
{% endif %}
{% endfor %}"""

LLAMA3 = """{% set loop_messages = messages %}{% for message in loop_messages %}\
{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim \
+ '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}\
{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""

LLAMA31 = """{{- bos_token }}
{%- if not date_string is defined %}{%- set date_string = strftime_now("%d %b %Y") %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}{%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{{- "Today Date: " + date_string + "\n\n" + system_message + "<|eot_id|>" }}
{%- for message in messages %}
    {%- if message.role not in ['user', 'assistant'] %}{{ raise_exception('no role ' + message.role) }}{%- endif %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"""

MISTRAL = """{{ bos_token }}{% for message in messages %}\
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}\
{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}\
{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}\
{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"""

MISTRAL_SYSTEM_LAST = """{%- if messages[0]['role'] == 'system' %}\
{%- set system_message = messages[0]['content'] %}{%- set turns = messages[1:] %}\
{%- else %}{%- set turns = messages %}{%- endif %}
{{- bos_token }}
{%- for message in turns %}
    {%- if message['role'] == 'user' %}
        {%- if loop.last and system_message is defined %}
            {{- '[INST] ' + system_message + '\n\n' + message['content'] + '[/INST]' }}
        {%- else %}
            {{- '[INST] ' + message['content'] + '[/INST]' }}
        {%- endif %}
    {%- else %}
        {{- ' ' + message['content'] + eos_token }}
    {%- endif %}
{%- endfor %}"""

GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}\
{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}\
{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}\
{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"""

QWEN3 = """{%- set ns = namespace(last_query=messages|length - 1, open=true) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.open and message.role == "user" %}{%- set ns.open = false %}{%- set ns.last_query = index %}{%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == "assistant" %}
        {%- set content = message.content %}{%- set reasoning = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].split('<think>')[-1].strip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query %}
            {{- '<|im_start|>assistant\n<think>\n' + reasoning + '\n</think>\n\n' + content + '<|im_end|>\n' }}
        {%- else %}
            {{- '<|im_start|>assistant\n' + content + '<|im_end|>\n' }}
        {%- endif %}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"""

DEEPSEEK_R1 = """{{ bos_token }}{% for message in messages %}\
{% if message['role'] == 'system' %}{{ message['content'] }}{% endif %}\
{% if message['role'] == 'user' %}{{ '<|User|>' + message['content'] }}{% endif %}\
{% if message['role'] == 'assistant' %}{{ '<|Assistant|>' + message['content'].split('</think>')[-1] + eos_token }}\
{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|Assistant|><think>\n' }}{% endif %}"""

VICUNA = """{% for m in messages %}{% if m.role == 'system' %}{{ m.content + ' ' }}\
{% elif m.role == 'user' %}{{ 'USER: ' + m.content }}{% else %}{{ ' ASSISTANT: ' + m.content + eos_token }}{% endif %}\
{% endfor %}"""

ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{% generation %}{{ '<|assistant|>\n' + message['content'] + eos_token }}{% endgeneration %}

{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""

OPEN_END = """{% for m in messages %}{% if m.role == 'user' %}{{ 'Q: ' + m.content }}{% else %}\
{{ '\nA: ' + m.content }}{% endif %}{% if not loop.last %}{{ '' if m.role == 'user' else eos_token }}{% endif %}\
{% endfor %}{% if add_generation_prompt %}{{ '\nA:' }}{% endif %}"""

TEMPLATES = {
    "chatml": CHATML,
    "chatml-default-system": CHATML_DEFAULT_SYSTEM,
    "llama2": LLAMA2,
    "llama3": LLAMA3,
    "llama31": LLAMA31,
    "mistral": MISTRAL,
    "mistral-system-last": MISTRAL_SYSTEM_LAST,
    "gemma": GEMMA,
    "vicuna": VICUNA,
    "zephyr": ZEPHYR,
    "open-end": OPEN_END,
    "r1": DEEPSEEK_R1,
    "qwen3": QWEN3,
}
WITHOUT_SYSTEM = {"mistral", "mistral-system-last", "gemma", "open-end"}
BOS, EOS = "<s>", "</s>"


@cache
def derived(name: str, **options: Any) -> ChatFormat:
    return ChatFormat.from_template(TEMPLATES[name], bos_token=BOS, eos_token=EOS, **options)


def rendered(name: str, messages: list[tuple[str, str]], *, prompt: bool = False) -> str:
    return _Template(TEMPLATES[name], BOS, EOS).render(messages, prompt=prompt)


def conversation(roles: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(role, f"Text {index}\nof the {role}.") for index, role in enumerate(roles)]


TURNS = [("user", "assistant", "user", "assistant", "user", "assistant", "user")[:length] for length in range(1, 8)]


def _expressible() -> Iterator[tuple[str, tuple[str, ...]]]:
    """The conversations that each template writes without changing their turns."""
    for name, turns in itertools.product(TEMPLATES, TURNS):
        is_rewritten = (name == "qwen3" and turns[-1] == "assistant") or (name == "r1" and "assistant" in turns)
        if not is_rewritten:
            yield name, turns
        if not is_rewritten and name not in WITHOUT_SYSTEM:
            yield name, ("system", *turns)


@pytest.mark.parametrize(
    ("name", "roles"), [*_expressible()], ids=lambda value: value if type(value) is str else len(value)
)
def test_marks_and_contents_are_the_templates_rendering(name: str, roles: tuple[str, ...]) -> None:
    chat = derived(name)
    messages = conversation(roles)
    bos = BOS if chat.starts_with_bos else ""
    assert bos + chat.render(messages) == rendered(name, messages)
    if roles[-1] == "user" and name != "vicuna":
        assert bos + chat.render(messages, add_generation_prompt=True) == rendered(name, messages, prompt=True)


@pytest.mark.parametrize("name", sorted(set(TEMPLATES) - {"open-end"}))
def test_the_usual_previous_role_is_known(name: str) -> None:
    chat = derived(name)
    for roles in itertools.chain(TURNS, [] if name in WITHOUT_SYSTEM else [("system", *turns) for turns in TURNS]):
        for index, role in enumerate(roles):
            previous = roles[index - 1] if index else None
            assert chat.opening(role, index) == chat.opening(role, index, previous)


@given(st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), st.text(max_size=8)), min_size=1))
def test_chatml_in_any_order_with_any_contents(messages: list[tuple[str, str]]) -> None:
    expected = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in messages)
    assert derived("chatml").render(messages) == expected


def test_chatml() -> None:
    chat = derived("chatml")
    assert chat.roles == ("system", "user", "assistant", "tool")
    assert [chat.opening("user", index) for index in (0, 1, 2)] == ["<|im_start|>user\n"] * 3
    assert chat.opening("assistant", 1) == "<|im_start|>assistant\n"
    assert chat.closing("assistant") == "<|im_end|>\n"
    assert (chat.notes, chat.assistant_lead, chat.starts_with_bos) == ((), "", False)


def test_a_default_system_prompt_is_part_of_the_first_opening() -> None:
    chat = derived("chatml-default-system")
    default = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    assert chat.opening("user", 0) == default + "<|im_start|>user\n"
    assert chat.opening("user", 1) == "<|im_start|>user\n"
    assert chat.opening("system", 0) == "<|im_start|>system\n"
    assert any("without system message" in note and "helpful assistant" in note for note in chat.notes)


def test_tool_messages_of_a_template_that_groups_them() -> None:
    name, roles = "chatml-default-system", ("user", "assistant", "tool", "assistant", "user")
    chat = derived(name)
    assert "tool" not in chat.refusals
    assert chat.render(conversation(roles)) == rendered(name, conversation(roles))
    two = conversation(("user", "assistant", "tool", "tool", "assistant"))
    assert chat.render(two) == rendered(name, two)


def test_llama2_merges_the_system_message_into_the_first_user_turn() -> None:
    chat = derived("llama2")
    assert chat.opening("system", 0) == "[INST] <<SYS>>\n"
    assert chat.closing("system") + chat.opening("user", 1) == "\n<</SYS>>\n\n"
    assert chat.opening("user", 0) == "[INST] "
    assert chat.opening("user", 2) == "<s>[INST] "
    assert chat.closing("user") == " [/INST]"
    assert (chat.opening("assistant", 1), chat.assistant_lead) == ("", " ")
    assert chat.closing("assistant") == " </s>"
    assert any("strips white space" in note for note in chat.notes)


def test_llama3_and_gemma_begin_with_bos_that_is_left_out() -> None:
    assert derived("llama3").opening("system", 0) == "<|start_header_id|>system<|end_header_id|>\n\n"
    gemma = derived("gemma")
    assert gemma.opening("user", 0) == "<start_of_turn>user\n"
    assert gemma.opening("assistant", 1) == "<start_of_turn>model\n"
    assert gemma.starts_with_bos
    assert derived("gemma", omit_bos=False).opening("user", 0) == "<s><start_of_turn>user\n"


@pytest.mark.parametrize(
    ("name", "role", "words"),
    [
        ("gemma", "system", "System role not supported"),
        ("mistral", "system", "roles must alternate"),
        ("mistral-system-last", "system", "left out, moved or repeated"),
        ("llama31", "tool", "no role tool"),
        ("chatml", "critic", "its roles are system, user, assistant, tool"),
    ],
)
def test_a_role_that_cannot_be_expressed_is_refused_with_the_reason(name: str, role: str, words: str) -> None:
    chat = derived(name)
    for call in (lambda: chat.opening(role, 0), lambda: chat.closing(role), lambda: chat.render([(role, "x")])):
        with pytest.raises(Unsupported, match=words) as caught:
            call()
        assert repr(role) in str(caught.value)
    assert role not in chat.roles
    assert role != "system" or any("no system message" in note for note in chat.notes)


def test_an_order_that_the_template_refuses_is_refused_with_its_words() -> None:
    chat = derived("gemma")
    with pytest.raises(Unsupported, match=r"'user' after one of role 'user': .*must alternate"):
        chat.render([("user", "a"), ("user", "b")])
    with pytest.raises(Unsupported, match=r"'assistant' at the start: .*must alternate"):
        chat.opening("assistant", 0)


def test_templates_that_rewrite_or_depend_on_the_date_say_so() -> None:
    assert any("date" in note for note in derived("llama31").notes)
    assert not any("date" in note for note in derived("llama3").notes)
    assert any("reasoning" in note for note in derived("qwen3").notes)
    assert any("<think>" in note and "some assistant messages" in note for note in derived("qwen3").notes)
    assert any("as its generation prompt" in note for note in derived("r1").notes)
    assert derived("r1").opening("assistant", 1) == "<|Assistant|><think>\n"


def test_a_template_without_generation_prompt_opens_as_its_messages_do() -> None:
    chat = derived("vicuna")
    assert (chat.opening("assistant", 1), chat.assistant_lead) == (" ASSISTANT:", " ")
    assert any("no generation prompt" in note for note in chat.notes)


def test_a_template_that_leaves_the_last_message_open() -> None:
    chat = derived("open-end")
    assert (chat.closing("assistant"), chat.opening("user", 2)) == ("", "</s>Q: ")
    assert (chat.opening("assistant", 1), chat.assistant_lead) == ("\nA:", " ")


def test_a_last_message_that_ends_otherwise_is_noted() -> None:
    template = "{% for m in messages %}{{ m.role + ': ' + m.content + ('.\n' if loop.last else ';\n') }}{% endfor %}"
    chat = ChatFormat.from_template(template, bos_token=None, eos_token=None)
    assert (chat.closing("user"), chat.opening("user", 2)) == ("", ";\nuser: ")
    assert any("last user message differently" in note for note in chat.notes)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("fixed text", "the user message is left out"),
        ("{{ messages[0].content }}{{ messages[0].content }}", "left out, moved or repeated"),
        ("{{ raise_exception('no thanks') }}", "no thanks"),
        ("{% for m in messages|reverse %}{{ m.content }}{% endfor %}", "moved"),
        ("{% for m in messages %}{{ m.role ~ messages|length ~ m.content }}{% endfor %}", "not always the same"),
        ("{{ messages[0].content + 1 }}", "concatenate|can only"),
    ],
)
def test_a_template_without_marks_is_refused(template: str, words: str) -> None:
    with pytest.raises(Unsupported, match=words) as caught:
        ChatFormat.from_template(template, bos_token=None, eos_token=None)
    assert "from_marks" in str(caught.value)


def test_a_template_that_does_not_parse_is_an_error_of_the_model() -> None:
    with pytest.raises(ModelError, match="not valid"):
        ChatFormat.from_template("{% for %}", bos_token=None, eos_token=None)


def test_templates_run_in_a_sandbox() -> None:
    with pytest.raises(Unsupported):
        ChatFormat.from_template("{{ ''.__class__.__mro__ }}{{ messages.append(1) }}", bos_token="", eos_token="")


def test_the_functions_that_templates_expect() -> None:
    source = "{{ {'a': '<é>'} | tojson }}{{ [1] | tojson(indent=1) }}{% for x in [1, 2] %}{% break %}{% endfor %}"
    assert _Template(source, "", "").render([], prompt=False) == '{"a": "<é>"}[\n 1\n]'


def test_the_plain_format() -> None:
    messages = [("system", "Be fair."), ("user", "Hi"), ("assistant", "Yes"), ("user", "Why")]
    text = "SYSTEM: Be fair.\nUSER: Hi\nASSISTANT: Yes\nUSER: Why\nASSISTANT:"
    assert DEFAULT_CHAT.render(messages, add_generation_prompt=True) == text
    assert DEFAULT_CHAT.notes
    with pytest.raises(Unsupported, match="'tool'"):
        DEFAULT_CHAT.opening("tool", 1)


@pytest.mark.parametrize("name", TEMPLATES)
def test_our_rendering_of_templates_is_that_of_transformers(name: str) -> None:
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    for prompt in (False, True):
        messages = conversation(("user", "assistant", "user"))
        records = [{"role": role, "content": content} for role, content in messages]
        theirs, _ = utils.render_jinja_template(
            [records], chat_template=TEMPLATES[name], add_generation_prompt=prompt, bos_token=BOS, eos_token=EOS
        )
        assert theirs == [rendered(name, messages, prompt=prompt)]
