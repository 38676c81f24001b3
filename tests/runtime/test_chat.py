"""What is sent for chat messages is what the model's template writes of them, and where it cannot be, that is told."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import ramify as rf
from hypothesis import given, settings
from hypothesis import strategies as st
from ramify.backends.scripted import ScriptedBackend
from ramify.ir.errors import ModelError, Unsupported
from ramify.runtime.chat import DEFAULT_CHAT, NO_TEMPLATE, ChatFormat, ChatTemplateWarning, Content
from ramify.runtime.chat_derivation import derive_chat_format
from ramify.runtime.chat_template import Refused, Template
from ramify.runtime.context import Context
from ramify.runtime.prompt import Prompt
from ramify.runtime.prompt_tokens import PromptTokens
from ramify.runtime.tokens import Tokenizer
from ramify.runtime.writing import written

from .chat_templates import BOS, EOS, TEMPLATES

TOKENS = {"bos_token": BOS, "eos_token": EOS}
WEIGHTS = Path(rf.__file__).parent / "backends" / "tiny" / "weights"
# Templates whose writing of a message depends on what follows it; the others must agree in every conversation.
REWRITING = {"r1", "deepseek-v3", "qwen3", "unanswered", "modes", "keeps-the-last", "harmony"}
WITHOUT_SYSTEM = {"mistral", "mistral-system-last", "gemma"}
Conversation = list[tuple[str, str]]


@cache
def derived(name: str) -> ChatFormat:
    return derive_chat_format(TEMPLATES[name], TOKENS)


@cache
def template(name: str) -> Template:
    return Template(TEMPLATES[name], TOKENS)


def applied(of: Template, messages: Conversation) -> str | None:
    """The conversation with its generation prompt as the template writes it; None when it refuses it."""
    try:
        return of.render(messages, prompt=True)
    except Refused:
        return None


def marked(chat: ChatFormat, pieces: list[tuple[str, list[str]]], replies: list[str] | None = None) -> Prompt:
    """The prompt of messages in pieces, up to where the assistant is asked. With replies it writes its own messages."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _marked(chat, pieces, replies)


def _marked(chat: ChatFormat, pieces: list[tuple[str, list[str]]], replies: list[str] | None) -> Prompt:
    left = list(replies or ())
    prompt = Context(ScriptedBackend(lambda *_: left.pop(0), chat=chat)).root()
    for role, parts in pieces:
        prompt = prompt.role(role, "begin")
        if role == "assistant" and replies is not None:
            prompt = prompt.append_value(rf.gen("reply", max_tokens=1000))
            prompt.sync()
        else:
            for part in parts:
                prompt = prompt.append_text(part)
        prompt = prompt.role(role, "end")
    return prompt.role("assistant", "begin")


def told(prompt: Prompt) -> tuple[str, list[str]]:
    """A prompt's text, and what it was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        text = prompt.text()
    return text, [str(warning.message) for warning in caught]


# Random conversations.

SPACES = st.sampled_from(["", " ", "\n", "\n\n", "\t", "\u3000", "\x1c"])
WORDS = st.one_of(
    st.text(max_size=6),
    st.sampled_from(["Hello", "line\nline", "\"quoted\" 'text' \\n <b>&amp;", '{"a": [1]}', "a  b", "漢字", "x"]),
)
TEXTS = st.builds("{}{}{}{}".format, SPACES, WORDS, WORDS, SPACES)
TURNS = [
    ("user", "assistant"),
    ("user", "assistant", "tool", "assistant"),
    ("user", "assistant", "tool", "tool", "assistant"),
]


@st.composite
def conversations(draw: st.DrawFn, texts: st.SearchStrategy[str] = TEXTS) -> list[tuple[str, list[str]]]:
    """Messages in usual orders, now and then with one too many, each in one or more pieces, before an answer."""
    roles = ["system"] if draw(st.booleans()) else []
    for turn in draw(st.lists(st.sampled_from(TURNS), min_size=1, max_size=3)):
        roles += turn
    roles = roles[:-1]
    if draw(st.integers(0, 9)) == 0:
        roles.insert(draw(st.integers(0, len(roles))), draw(st.sampled_from(["system", "user", "assistant"])))
    if roles[-1] == "assistant":
        roles.pop()
    return [(role, [draw(texts), *draw(st.lists(SPACES | WORDS, max_size=2))]) for role in roles or ["user"]]


def joined(pieces: list[tuple[str, list[str]]]) -> Conversation:
    return [(role, "".join(parts)) for role, parts in pieces]


@pytest.mark.parametrize("name", TEMPLATES)
@given(pieces=conversations())
@settings(max_examples=40, deadline=None)
def test_what_the_program_writes_is_what_the_template_writes(name: str, pieces: list[tuple[str, list[str]]]) -> None:
    chat, messages = derived(name), joined(pieces)
    if name in WITHOUT_SYSTEM and any(role == "system" for role, _ in messages):
        with pytest.raises(Unsupported):
            marked(chat, pieces)
        return
    try:
        text, warned = told(marked(chat, pieces))
    except Unsupported as error:
        assert any(f"{role!r}" in str(error) for role in ("system", "user", "assistant", "tool"))
        return
    if name == "vicuna":
        text = text.removesuffix(" ASSISTANT:")  # it has no generation prompt
    if warned:
        assert name in REWRITING or any(not text.strip() for _, text in messages)
    else:
        assert text == applied(template(name), messages)


@pytest.mark.parametrize("name", sorted(REWRITING))
@given(st.data())
@settings(max_examples=40, deadline=None)
def test_a_template_that_sees_what_follows_agrees_or_is_warned_of(name: str, data: st.DataObject) -> None:
    """The texts hold the template's own marks, so that it finds something to rewrite."""
    literals = sorted(text for text in template(name).literals if len(text) < 40)
    texts = st.builds("{}{}{}".format, WORDS, st.sampled_from(["", *literals]), WORDS)
    pieces = data.draw(conversations(texts))
    try:
        text, warned = told(marked(derived(name), pieces))
    except Unsupported:
        return
    assert warned or text == applied(template(name), joined(pieces))


@pytest.mark.parametrize("name", sorted(set(TEMPLATES) - {"vicuna"}))
@given(pieces=conversations())
@settings(max_examples=40, deadline=None)
def test_what_the_model_writes_stands_as_in_the_template_or_is_warned_of(
    name: str, pieces: list[tuple[str, list[str]]]
) -> None:
    chat, messages = derived(name), [(role, text.strip() or "x") for role, text in joined(pieces)]
    replies = []
    for index, (role, text) in enumerate(messages):
        if role == "assistant":
            before = messages[index - 1][0] if index else None
            opening = chat.openings.get((before, role))
            if opening is None:
                return
            starts = opening.written.startswith(opening.generated)
            replies.append((opening.written.removeprefix(opening.generated) if starts else "") + text)
    try:
        prompt = marked(chat, [(role, [text]) for role, text in messages], replies)
    except Unsupported:
        return
    text, warned = told(prompt)
    assert warned or text == applied(template(name), messages)


@given(conversations(), st.lists(st.tuples(st.integers(0, 40), st.sampled_from(["x", " ", "\n", ""])), max_size=6))
@settings(max_examples=30, deadline=None)
@pytest.mark.parametrize("name", ["chatml", "llama2", "llama31-tools", "gemma", "r1", "unanswered", "harmony"])
def test_the_tokens_are_those_of_the_text_whatever_was_asked_before(
    name: str, pieces: list[tuple[str, list[str]]], forks: list[tuple[int, str]]
) -> None:
    """Prompts that part anywhere, tokenized in any order, remember nothing that depends on the order."""
    tokenizer = tiny_tokenizer()
    try:
        end = marked(derived(name), pieces)
    except Unsupported:
        return
    nodes = [*end.upwards()]
    branches = [nodes[place % len(nodes)].append_text(text) for place, text in forks]
    kept = PromptTokens(tokenizer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for prompt in [*branches, *nodes[::3], *branches]:
            assert kept.prompt_tokens(prompt) == tokenizer.encode(prompt.text())
            assert kept.prepare(prompt).run().with_text("yes") == PromptTokens(tokenizer).prepare(
                prompt
            ).run().with_text("yes")


@cache
def tiny_tokenizer() -> Tokenizer:
    return Tokenizer.load(WEIGHTS)


def real_templates(data: Path) -> Iterator[Path]:
    for config in sorted((data / "tokenizers").rglob("tokenizer.json")):
        if (config.parent / "chat_template.jinja").is_file() or "chat_template" in _text(config.parent):
            yield config.parent


def _text(folder: Path) -> str:
    path = folder / "tokenizer_config.json"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def test_every_real_tokenizer_with_a_template(data: Path) -> None:
    folders = [WEIGHTS, *real_templates(data)]
    for folder in folders:
        check_tokenizer(folder)
    if len(folders) == 1:
        pytest.skip(f"no tokenizer with a chat template below {data / 'tokenizers'}; the embedded model's was checked")


def check_tokenizer(folder: Path) -> None:
    auto = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(folder)
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.chat is not None
    for start, turns in itertools.product(([], ["system"]), (1, 2, 3)):
        roles = [*start, *(["user", "assistant"] * turns)[:-1]]
        messages = [(role, f" Text {index}\nof the {role}. ") for index, role in enumerate(roles)]
        records = [{"role": role, "content": text} for role, text in messages]
        try:
            prompt = marked(tokenizer.chat, [(role, [text]) for role, text in messages])
        except Unsupported:
            continue
        text, warned = told(prompt)
        assert warned or text == auto.apply_chat_template(records, tokenize=False, add_generation_prompt=True)
        if not warned:
            ids = auto.apply_chat_template(records, add_generation_prompt=True, return_dict=False)
            assert PromptTokens(tokenizer).prompt_tokens(prompt) == list(ids)


# Single features.


@pytest.mark.parametrize("name", TEMPLATES)
def test_usual_conversations_need_no_warning(name: str) -> None:
    chat = derived(name)
    for start, turns in itertools.product(([], ["system"]), (1, 2, 3)):
        roles = [*start, *(["user", "assistant"] * turns)[:-1]]
        messages = [(role, f"Text {index}\nof the {role}.") for index, role in enumerate(roles)]
        if start and name in WITHOUT_SYSTEM:
            continue
        text, warned = written(chat, messages, add_generation_prompt=name != "vicuna")
        assert (text, warned) == (applied(template(name), messages), ())


def test_chatml() -> None:
    chat = derived("chatml")
    assert chat.roles == ("system", "user", "assistant", "tool")
    assert {opening.written for opening in chat.openings.values()} == {f"<|im_start|>{role}\n" for role in chat.roles}
    assert set(chat.closings.values()) == {"<|im_end|>\n"}
    assert (chat.notes, dict(chat.rewritten), chat.has_bos) == ((), {}, True)


def test_a_default_system_prompt_is_part_of_the_first_opening() -> None:
    chat = derived("chatml-default-system")
    default = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    assert chat.opening("user", None).written == default + "<|im_start|>user\n"
    assert chat.opening("user", "assistant").written == "<|im_start|>user\n"
    assert chat.opening("system", None).written == "<|im_start|>system\n"
    assert any("without system message" in note and "helpful assistant" in note for note in chat.notes)


def test_the_second_answer_still_has_the_system_prompt() -> None:
    for name in ("llama2", "gemma-merging", "mistral-system-prompt", "qwen3", "deepseek-v3"):
        pieces = [("system", ["Be brief."]), ("user", ["a"]), ("assistant", ["b"]), ("user", ["c"])]
        assert "Be brief." in marked(derived(name), pieces).text()


def test_llama2_merges_the_system_message_into_the_first_user_turn() -> None:
    chat = derived("llama2")
    assert chat.opening("system", None).written == "<s>[INST] <<SYS>>\n"
    assert chat.closing("system") + chat.opening("user", "system").written == "\n<</SYS>>\n\n"
    assert chat.opening("user", "assistant").written == "<s>[INST] "
    assert chat.closing("user") == " [/INST]"
    assistant = chat.opening("assistant", "user")
    assert (assistant.written, assistant.generated, assistant.continued) == (" ", "", " ")
    assert chat.closing("assistant") == " </s>"


def test_what_is_stripped_depends_on_the_place() -> None:
    chat = derived("llama2")
    first, after_system = chat.opening("user", None).content, chat.opening("user", "system").content
    assert (" " in first.left, "\u3000" in first.right) == (True, True)
    assert (after_system.left, "\n" in after_system.right) == ("", True)
    assert not chat.opening("system", None).content


def test_json_that_a_template_makes_of_a_tool_message() -> None:
    chat = derived("llama31-tools")
    assert chat.opening("tool", "assistant").content == Content(escape="json")
    text = marked(chat, [("user", ["a"]), ("assistant", ["b"]), ("tool", ['say "', 'é"\n'])]).text()
    assert '"say \\"é\\"\\n"<|eot_id|>' in text


def test_bos_is_written_by_the_template_and_may_be_left_out() -> None:
    gemma = derived("gemma")
    assert gemma.opening("user", None).written == "<s><start_of_turn>user\n"
    plain = gemma.without_bos(BOS)
    assert plain.opening("user", None).written == "<start_of_turn>user\n"
    assert (gemma.has_bos, plain.has_bos) == (True, False)


def test_the_date_stays_what_it_was_when_the_model_was_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Template("{{ strftime_now('%Y') }}", {})
    assert any("the date" in note for note in derived("llama31").notes)
    assert not any("the date" in note for note in derived("llama3").notes)
    from datetime import datetime

    assert source.render([], prompt=False) == str(datetime.now().year)
    monkeypatch.setattr(source, "_now", datetime(2001, 2, 3))
    assert source.render([], prompt=False) == "2001"


@pytest.mark.parametrize(
    ("name", "role", "words"),
    [
        ("gemma", "system", "System role not supported"),
        ("mistral", "system", "roles must alternate"),
        ("mistral-system-last", "system", "of the conversation system, user, assistant the system message is left out"),
        ("llama31", "tool", "no role tool"),
        ("harmony", "tool", "needs a tool call before it"),
        ("chatml", "critic", "its roles are system, user, assistant, tool"),
    ],
)
def test_a_role_that_cannot_be_expressed_is_refused_with_the_reason(name: str, role: str, words: str) -> None:
    chat = derived(name)
    for call in (lambda: chat.opening(role, None), lambda: chat.closing(role), lambda: written(chat, [(role, "x")])):
        with pytest.raises(Unsupported, match=words) as caught:
            call()
        assert repr(role) in str(caught.value)
    assert role not in chat.roles
    assert role != "system" or any("no system message" in note for note in chat.notes)


def test_an_order_that_the_template_refuses_is_refused_with_its_words() -> None:
    with pytest.raises(Unsupported, match=r"'user' after one of role 'user': .*must alternate"):
        written(derived("gemma"), [("user", "a"), ("user", "b")])
    with pytest.raises(Unsupported, match=r"'assistant' at the start: .*must alternate"):
        derived("gemma").opening("assistant", None)


@rf.program
def with_system(s, question):
    s += "Before. "
    s += rf.system("Be brief.") + rf.user(question)
    s += rf.assistant(rf.gen("answer"))


@pytest.mark.parametrize("eager", [True, False])
def test_a_missing_role_is_an_error_at_the_line_that_uses_it(eager: bool) -> None:
    backend = ScriptedBackend(chat=derived("gemma"))
    with pytest.raises(Unsupported, match="System role not supported") as caught:
        with_system.run("Why?", backend=backend, eager=eager)
    assert caught.value.span is not None
    assert caught.value.span.line == with_system.fn.__code__.co_firstlineno + 3
    assert "beginning of the first user message" in str(caught.value)
    assert backend.requests == []


# Who writes a message, and what follows it.


def test_an_opening_depends_on_who_writes_the_message() -> None:
    opening = derived("r1").opening("assistant", "user")
    assert (opening.generated, opening.written) == ("<|Assistant|><think>\n", "<|Assistant|>")
    asked = marked(derived("r1"), [("user", ["a"])])
    assert asked.text() == "<s><|User|>a<|Assistant|><think>\n"
    assert asked.append_text("b").text() == "<s><|User|>a<|Assistant|>b"
    assert asked.append_text("b").role("assistant", "end").text() == "<s><|User|>a<|Assistant|>b</s>"


def test_a_message_that_the_model_goes_on_with_stands_as_the_last() -> None:
    opening = derived("qwen3").opening("assistant", "user")
    empty = "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert (opening.written, opening.generated, opening.continued) == (empty[:22], empty[:22], empty)
    asked = marked(derived("qwen3"), [("user", ["a"])])
    prefilled = asked.append_text("The answer")
    assert prefilled.text().endswith(empty + "The answer")
    assert prefilled.role("assistant", "end").text().endswith("assistant\nThe answer<|im_end|>\n")


@pytest.mark.parametrize(
    ("name", "reply", "words"),
    [
        ("qwen3", "<think>\nHm.\n</think>\n\nYes.", "holds '</think>' once the user has answered it"),
        ("r1", "Hm.\n</think>\n\nYes.", "holds '</think>'"),
        ("r1", "Yes.", "so that it begins with '<|Assistant|>'"),
        ("unanswered", "Hm.\n</think>\n\nYes.", "holds '</think>'"),
        ("harmony", "Yes.", "so that it begins with '<|start|>assistant<|channel|>final<|message|>'"),
    ],
)
def test_an_earlier_message_stays_as_it_was_sent_with_a_warning(name: str, reply: str, words: str) -> None:
    first = marked(derived(name), [("user", ["a"])])
    later = marked(derived(name), [("user", ["a"]), ("assistant", []), ("user", ["b"])], [reply])
    with pytest.warns(ChatTemplateWarning, match="stays as it was sent") as caught:
        text = later.text()
    assert words in str(caught[0].message)
    assert text.startswith(first.text() + reply)


def test_reasoning_in_a_tool_loop_is_kept_by_the_template_too() -> None:
    reply = "Hm.\n</think>\n\n[call]"
    pieces = [("user", ["a"]), ("assistant", []), ("tool", ["8"])]
    text, warned = told(marked(derived("unanswered"), pieces, [reply]))
    assert not warned
    assert text == applied(template("unanswered"), [("user", "a"), ("assistant", "<think>\n" + reply), ("tool", "8")])


def test_a_message_of_the_program_that_nobody_has_answered_is_warned_of() -> None:
    prompt = marked(derived("unanswered"), [("user", ["a"]), ("assistant", ["[call]"]), ("tool", ["8"])])
    with pytest.warns(ChatTemplateWarning, match="until the user answers it"):
        assert prompt.text().startswith("<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[call]<|im_end|>\n")


def test_an_empty_message_that_the_template_leaves_out_is_warned_of() -> None:
    prompt = marked(derived("phi3"), [("system", [""]), ("user", ["a"])])
    with pytest.warns(ChatTemplateWarning, match="role 'system' that is empty"):
        assert prompt.text() == "<|system|>\n<|end|>\n<|user|>\na<|end|>\n<|assistant|>\n"
    assert not told(marked(derived("chatml"), [("system", [""]), ("user", ["  "])]))[1]


@pytest.mark.parametrize("roles", [("user", "user"), ("assistant", "user"), ("user", "assistant", "assistant", "user")])
def test_an_empty_message_at_an_odd_place_is_not_warned_of(roles: tuple[str, ...]) -> None:
    pieces = [(role, [""]) for role in roles]
    text, warned = told(marked(derived("chatml"), pieces))
    assert not warned
    assert text == applied(template("chatml"), [(role, "") for role in roles])


def test_a_switch_in_the_system_message_is_warned_of() -> None:
    prompt = marked(derived("modes"), [("system", ["Be brief. /no_think"]), ("user", ["a"])])
    with pytest.warns(ChatTemplateWarning, match="role 'system' that holds '/no_think'; here it stays as it was sent"):
        prompt.text()


def test_a_gen_sees_the_warning_as_well() -> None:
    prompt = marked(
        derived("qwen3"), [("user", ["a"]), ("assistant", []), ("user", ["b"])], ["<think>\n</think>\nYes."]
    )
    with pytest.warns(ChatTemplateWarning):
        PromptTokens(tiny_tokenizer()).prompt_tokens(prompt)


@pytest.mark.filterwarnings("ignore::ramify.runtime.chat.ChatTemplateWarning")
@pytest.mark.parametrize("name", ["r1", "qwen3", "llama2", "llama3", "zephyr"])
@pytest.mark.parametrize("eager", [True, False])
def test_a_stream_tells_all_of_the_text_and_nothing_twice(name: str, eager: bool) -> None:
    @rf.program
    def program(s):
        s += rf.user(" a ")
        s += rf.assistant("Well, " + rf.gen("x"))
        s += rf.user("b") + rf.assistant(" written ") + rf.user("c ")
        s += rf.assistant(rf.gen("y")) + rf.user("d")
        s += rf.assistant(rf.select("z", ["yes", "no"]))

    events: list[Any] = []
    run = program.run(backend=ScriptedBackend(chat=derived(name)), eager=eager, stream=events.append)
    assert "".join(event.written for event in events) == run.text


@pytest.mark.parametrize("eager", [True, False])
def test_separate_reasoning_writes_what_the_template_writes(eager: bool) -> None:
    @rf.program
    def program(s):
        s += rf.user("a") + rf.assistant(rf.separate_reasoning(rf.gen("x"), "qwen3"))
        s += rf.user("b") + rf.assistant(rf.gen("y"))

    backend = ScriptedBackend(lambda *_: "<think>\nHm.\n</think>Yes.", chat=derived("qwen3"))
    run = program.run(backend=backend, eager=eager)
    messages = [("user", "a"), ("assistant", run["x"]), ("user", "b")]
    assert backend.requests[-1] == applied(template("qwen3"), messages)


# Templates without marks, and the format without template.


def test_a_template_without_generation_prompt_opens_as_its_messages_do() -> None:
    chat = derived("vicuna")
    opening = chat.opening("assistant", "user")
    assert (opening.generated, opening.written) == (" ASSISTANT:", " ASSISTANT: ")
    assert any("no generation prompt" in note for note in chat.notes)


def test_a_template_that_leaves_the_last_message_open() -> None:
    chat = derived("open-end")
    assert (chat.closing("assistant"), chat.opening("user", "assistant").written) == ("", "</s>Q: ")
    opening = chat.opening("assistant", "user")
    assert (opening.generated, opening.written) == ("\nA:", "\nA: ")


def test_marks_are_not_cut_in_two() -> None:
    assert derived("phi3").closings == {role: "<|end|>\n" for role in ("system", "user", "assistant")}
    assert derived("harmony").closing("assistant") == "<|end|>"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("fixed text", "the user message is left out"),
        ("{{ messages[0].content }}{{ messages[0].content }}", "the user message is repeated"),
        ("{{ raise_exception('no thanks') }}", "no thanks"),
        (
            "{% for m in messages|reverse %}{{ m.content }}{% endfor %}",
            "assistant message is moved before the user message",
        ),
        ("{% for m in messages %}{{ m.role ~ messages|length ~ m.content }}{% endfor %}", "not always the same"),
        ("{{ messages[0].content + 1 }}", "concatenate|can only"),
        ("{% for m in messages %}{{ m.role + m.content + (loop.index0 > 5) | string }}{% endfor %}", "not the same"),
    ],
)
def test_a_template_without_marks_is_refused(source: str, words: str) -> None:
    with pytest.raises(Unsupported, match=words) as caught:
        derive_chat_format(source)
    assert "from_marks" in str(caught.value)


def test_a_template_that_does_not_parse_is_an_error_of_the_model() -> None:
    with pytest.raises(ModelError, match="not valid"):
        derive_chat_format("{% for %}")


def test_templates_run_in_a_sandbox() -> None:
    with pytest.raises(Unsupported):
        derive_chat_format("{{ ''.__class__.__mro__ }}{{ messages.append(1) }}")


def test_the_functions_that_templates_expect() -> None:
    source = "{{ {'a': '<é>'} | tojson }}{{ [1] | tojson(indent=1) }}{% for x in [1, 2] %}{% break %}{% endfor %}"
    assert Template(source, {}).render([], prompt=False) == '{"a": "<é>"}[\n 1\n]'


def test_the_plain_format() -> None:
    messages = [("system", "Be fair."), ("user", "Hi"), ("assistant", "Yes"), ("user", "Why")]
    text = "SYSTEM: Be fair.\nUSER: Hi\nASSISTANT: Yes\nUSER: Why\nASSISTANT:"
    assert written(DEFAULT_CHAT, messages, add_generation_prompt=True) == (text, ())
    assert DEFAULT_CHAT.notes
    text, warned = told(marked(NO_TEMPLATE, [("user", ["Hi"])]))
    assert (text, len(warned)) == ("USER: Hi\nASSISTANT:", 1)
    assert "has no chat template" in warned[0]
    with pytest.raises(Unsupported, match="'tool'"):
        DEFAULT_CHAT.opening("tool", "assistant")


@pytest.mark.parametrize("name", TEMPLATES)
def test_our_rendering_of_templates_is_that_of_transformers(name: str) -> None:
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    for prompt in (False, True):
        messages = [(role, f"Text of the {role}.") for role in ("user", "assistant", "user")]
        records = [{"role": role, "content": content} for role, content in messages]
        theirs, _ = utils.render_jinja_template(
            [records], chat_template=TEMPLATES[name], add_generation_prompt=prompt, bos_token=BOS, eos_token=EOS
        )
        assert theirs == [template(name).render(messages, prompt=prompt)]
