"""gen(tools=[...]) in the form of the model's own chat template: what is written, and what the template would."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
import ramify as rf
import torch
from ramify.backends.local import LocalBackend
from ramify.backends.tiny import model_dir
from ramify.ir.errors import Unsupported
from ramify.runtime.call_declaration import declaring
from ramify.runtime.tool_schema import RequestedCall
from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from ..runtime.tool_templates import TOOL_TEMPLATES

BOTH = pytest.mark.parametrize("eager", [True, False], ids=["eager", "compiled"])
EVERY = pytest.mark.parametrize("family", TOOL_TEMPLATES)
# The tokens of each family's own: those that mark messages, results and so on are special; Qwen's tags are added
# tokens that are plain text, as they are there.
_SPECIAL = {
    "hermes": ["<|im_start|>", "<|im_end|>"],
    "qwen3": ["<|im_start|>", "<|im_end|>"],
    "llama31": ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>"],
    "mistral": ["<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]",
                "[TOOL_RESULTS]", "[/TOOL_RESULTS]"],
    "mistral-args": ["<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[ARGS]", "[TOOL_RESULTS]",
                     "[/TOOL_RESULTS]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"],
}  # fmt: skip
_PLAIN = {
    "hermes": [],
    "qwen3": ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"],
}
_BOS = {"llama31": "<|begin_of_text|>", "mistral": "<s>", "mistral-args": "<s>"}
_EOS = {"llama31": "<|eot_id|>", "mistral": "</s>", "mistral-args": "</s>"}


@rf.tool
def search(query: Literal["cats", "dogs"], limit: Annotated[int, msgspec.Meta(ge=1, le=9)] = 3) -> str:
    """Find pictures.

    Args:
        query: what of
    """
    return f"{limit} {query}"


@rf.tool
def plus(a: Annotated[int, msgspec.Meta(ge=0, le=99)], b: Annotated[int, msgspec.Meta(ge=0, le=99)]) -> int:
    """The sum."""
    return a + b


@rf.tool
def tag(
    words: Annotated[list[Literal["é", '"', "<tool_call>"]], msgspec.Meta(min_length=1, max_length=3)],
    deep: dict[str, bool] | None = None,
) -> str:
    """Remember words."""
    return " ".join(words)


class Part(msgspec.Struct):
    a: None


@rf.tool
def fixed(word: Literal["é"], deep: Annotated[tuple[Part], msgspec.Meta(description="no choice")]) -> str:
    """Says what it always says."""
    return word


TOOLS = [search, plus, tag]


def make_model(directory: Path, family: str) -> Path:
    """A random model of the embedded one's words, with a family's tokens and chat template."""
    shutil.copytree(model_dir(), directory)
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in _SPECIAL[family]])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in _PLAIN.get(family, [])])
    tokenizer.save(str(directory / "tokenizer.json"))
    config = json.loads((directory / "tokenizer_config.json").read_text())
    eos = _EOS.get(family, "<|im_end|>")
    config |= {"eos_token": eos, "bos_token": _BOS.get(family), "chat_template": TOOL_TEMPLATES[family]}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    torch.manual_seed(5)
    shape = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=4096, tie_word_embeddings=True,
        eos_token_id=tokenizer.token_to_id(eos), bos_token_id=None, initializer_range=0.5,
    )  # fmt: skip
    LlamaForCausalLM(shape).save_pretrained(directory)
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": tokenizer.token_to_id(eos)}))
    return directory


_DIRECTORIES: dict[str, str] = {}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, LocalBackend]]:
    """A backend for each family."""
    root = tmp_path_factory.mktemp("models")
    made = {
        family: LocalBackend(make_model(root / family, family), device="cpu", check=True) for family in TOOL_TEMPLATES
    }
    _DIRECTORIES.update({backend.name: str(root / family) for family, backend in made.items()})
    yield made
    for backend in made.values():
        backend.close()


@cache
def reference(directory: str) -> Any:
    """The model's tokenizer as transformers has it."""
    return AutoTokenizer.from_pretrained(directory)


def rendered(backend: LocalBackend, messages: list[dict[str, Any]], **given: Any) -> tuple[str, list[int]]:
    """A conversation as transformers writes it, and its token ids."""
    tokenizer = reference(_DIRECTORIES[backend.name])
    text = tokenizer.apply_chat_template(messages, tokenize=False, **given)
    # Qwen's shows the last message with empty thoughts, but not once a result of the calls follows.
    text = text.replace("<think>\n\n</think>\n\n", "")
    return text, tokenizer(text, add_special_tokens=False)["input_ids"]


def told(calls: list[RequestedCall]) -> dict[str, Any]:
    """The assistant's message of calls, as chat APIs have it."""
    records = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in calls
    ]
    return {"role": "assistant", "content": "", "tool_calls": records}


def token_ids(run: rf.Run, backend: LocalBackend) -> list[int]:
    """Those of the whole prompt that a run has ended with."""
    assert run.state is not None
    return backend.tokens.prompt_tokens(run.state.prompt)


@rf.program
def ask(s, question, tools, **params):
    params.setdefault("max_tokens", 600)
    s += rf.user(question) + rf.assistant(rf.gen("calls", tools=tools, **params))
    return s["calls"]


@EVERY
@BOTH
def test_calls_that_leave_no_choice_have_the_templates_tokens(
    models: dict[str, LocalBackend], family: str, eager: bool
) -> None:
    backend = models[family]
    for count in (None, 2):
        if family == "llama31" and count == 2:
            continue
        run = ask.run("Go!", [fixed], num_calls=count, backend=backend, eager=eager)
        calls = run.value if count else [run.value]
        assert [(call.name, call.arguments) for call in calls] == [
            ("fixed", {"word": "é", "deep": [{"a": None}]})
        ] * len(calls)
        text, ids = rendered(backend, [{"role": "user", "content": "Go!"}, told(calls)])
        assert run.text == text
        if family != "mistral":  # the model makes its ids of other tokens
            assert token_ids(run, backend) == ids


@EVERY
@pytest.mark.parametrize("count", [None, 1, 2, (1, 3), (0, 2), "any"])
def test_random_draws_decode_and_are_as_the_template_writes_them(
    models: dict[str, LocalBackend], family: str, count: Any
) -> None:
    backend = models[family]
    if family == "llama31" and count == 2:
        with pytest.raises(Unsupported, match="one call in a message, and num_calls asks for 2"):
            ask.run("Go!", TOOLS, num_calls=count, backend=backend)
        return
    least, most = {None: (1, 1), "any": (0, 8)}.get(count, count if isinstance(count, tuple) else (count, count))
    for seed in range(3):
        given = {
            "max_tokens": 40 if least == 0 else 600,
            "num_calls": count,
            "temperature": 1.0,
            "seed": seed,
            "backend": backend,
            "close": True,
        }
        run = ask.run("Go!", TOOLS, **given)
        eagerly = ask.run("Go!", TOOLS, **given, eager=True)
        assert (run.value, run.text) == (eagerly.value, eagerly.text)
        calls = run.value if count else [run.value]
        assert least <= len(calls) <= most
        assert [result.ok for result in rf.call_tools(calls)] == [True] * len(calls)
        if calls:
            text, _ = rendered(backend, [{"role": "user", "content": "Go!"}, told(calls)])
            assert unescaped(run.text) == text


def unescaped(text: str) -> str:
    """With the characters for the escapes that JSON does not need: a model may write either."""
    return re.sub(r"(\\\\)|\\u([0-9a-f]{4})", lambda found: found[1] or chr(int(found[2], 16)), text)


@BOTH
def test_words_where_no_call_need_be_made(models: dict[str, LocalBackend], eager: bool) -> None:
    for family, backend in models.items():
        run = ask.run(
            "Go!", TOOLS, num_calls=(0, 1), temperature=1.0, seed=3, backend=backend, eager=eager, max_tokens=9
        )
        if not run.value:
            assert run.messages[-1]["content"] == run.trace[0].text, family


@BOTH
def test_text_may_stand_before_calls(models: dict[str, LocalBackend], eager: bool) -> None:
    @rf.program
    def thinks(s):
        s += rf.user("Go!") + rf.assistant("I look." + rf.gen("calls", tools=[fixed], num_calls=1, max_tokens=99))
        return s["calls"]

    backend = models["hermes"]
    run = thinks.run(backend=backend, eager=eager)
    assert [call.name for call in run.value] == ["fixed"]
    assert run.text.partition("I look.")[2].lstrip("\n").startswith("<tool_call>\n")


@BOTH
def test_outside_of_a_message_calls_are_json(models: dict[str, LocalBackend], eager: bool) -> None:
    @rf.program
    def bare(s):
        s += "Call: " + rf.gen("call", tools=[fixed])
        return s["call"]

    run = bare.run(backend=models["hermes"], eager=eager)
    assert run.text == 'Call: {"name":"fixed","arguments":{"word":"é","deep":[{"a":null}]}}'


@BOTH
def test_a_call_that_is_cut_off(models: dict[str, LocalBackend], eager: bool) -> None:
    for backend in models.values():
        with pytest.raises(rf.OutputError, match=r"gen\('calls', tools=\[fixed\]\).*cut it off"):
            ask.run("Go!", [fixed], max_tokens=8, backend=backend, eager=eager)
        closed = ask.run("Go!", [fixed], max_tokens=8, close=True, backend=backend, eager=eager)
        assert closed.value.name == "fixed"


@rf.program
def agent(s, question, system, tools):
    if system is None:
        s += rf.user(question, tools=tools)
    else:
        s += rf.system(system, tools=tools) + rf.user(question)
    s += rf.assistant(rf.gen("calls", tools=tools, num_calls=1, max_tokens=600))
    for result in rf.call_tools(s["calls"]):
        s += rf.tool_message(result)
    s += rf.assistant(rf.gen("answer", max_tokens=3))
    return s["calls"]


@EVERY
@BOTH
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_a_whole_conversation_has_the_templates_tokens(
    models: dict[str, LocalBackend], family: str, eager: bool, system: str | None
) -> None:
    """Declarations, a call, its result and the next generation prompt: what the template makes of the same messages."""
    backend = models[family]
    run = agent.run("Go!", system, [fixed], backend=backend, eager=eager)
    (call,) = run.value
    messages = [{"role": "system", "content": system}] if system else []
    result = {"role": "tool", "content": "é", "tool_call_id": call.id, "name": "fixed"}
    messages += [{"role": "user", "content": "Go!"}, told(run.value), result]
    text, ids = rendered(
        backend, messages, tools=None if family == "mistral-args" else [fixed.schema], add_generation_prompt=True
    )
    asked = before_the_last_gen(run)
    if family == "mistral-args":  # says nothing of tools: they are told of in the text
        assert (
            "These tools can be called:\n" + json.dumps(fixed.schema, ensure_ascii=False, separators=(",", ":"))
            in run.text
        )
        return
    assert asked == text
    if family != "mistral":  # the model makes its ids of other tokens
        assert backend.tokens.prompt_tokens(place_of_the_last_gen(run)) == ids


def place_of_the_last_gen(run: rf.Run) -> Any:
    assert run.state is not None
    return next(node for node in run.state.prompt.upwards() if node.kind == "gen").parent


def before_the_last_gen(run: rf.Run) -> str:
    return str(place_of_the_last_gen(run).text())


@rf.program
def long_agent(s, tools):
    s += rf.system("Be brief.", tools=tools)
    for question in ("Go!", "Again!"):
        s += rf.user(question) + rf.assistant(rf.gen("calls", tools=tools, num_calls=2, max_tokens=600))
        for result in rf.call_tools(s["calls"]):
            s += rf.tool_message(result)
        s += rf.assistant(rf.gen("answer", max_tokens=3))
    return s["calls"]


@BOTH
@pytest.mark.parametrize("family", ["hermes", "qwen3"])
def test_several_calls_and_turns(models: dict[str, LocalBackend], family: str, eager: bool) -> None:
    backend = models[family]
    run = long_agent.run([fixed], backend=backend, eager=eager)
    results = [{"role": "tool", "content": "é"}] * 2
    texts = [str(record.text) for record in run.trace if record.name == "answer"]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Go!"},
        told(run.value),
        *results,
    ]
    messages += [
        {"role": "assistant", "content": texts[0]},
        {"role": "user", "content": "Again!"},
        told(run.value),
        *results,
    ]
    text, ids = rendered(backend, messages, tools=[fixed.schema], add_generation_prompt=True)
    assert before_the_last_gen(run) == text
    own = backend.tokens.prompt_tokens(place_of_the_last_gen(run))
    assert reference(_DIRECTORIES[backend.name]).decode(own) == reference(_DIRECTORIES[backend.name]).decode(ids)


@BOTH
def test_tools_are_declared_in_the_first_message(models: dict[str, LocalBackend], eager: bool) -> None:
    @rf.program
    def late(s):
        s += rf.system("Be brief.")
        s += rf.user("Go!", tools=[fixed])

    @rf.program
    def wrong(s, tools):
        s += "Go! " + rf.user("Go!", tools=tools)

    with pytest.raises(rf.RamifyError, match="tools are declared in a message that is not the first"):
        late.run(backend=models["hermes"], eager=eager)
    with pytest.raises(TypeError, match="len is none"):
        wrong.run([len], backend=models["hermes"], eager=eager)
    with pytest.raises(ValueError, match="two tools of the name 'fixed'"):
        wrong.run([fixed, fixed], backend=models["hermes"], eager=eager)


@BOTH
def test_results_name_their_call_where_the_template_does(models: dict[str, LocalBackend], eager: bool) -> None:
    @rf.program
    def unnamed(s):
        s += rf.user("Go!") + rf.assistant(rf.gen("call", tools=[fixed]))
        s += rf.tool_message("é")

    with pytest.raises(Unsupported, match="writes the id of its call") as caught:
        unnamed.run(backend=models["mistral"], eager=eager)
    assert "rf.tool_message(result)" in str(caught.value)
    assert unnamed.run(backend=models["hermes"], eager=eager).ok


def test_declared_tools_go_with_branches(models: dict[str, LocalBackend]) -> None:
    @rf.program
    def joined(s, tools):
        (branch,) = s.fork(1)
        branch += rf.system("Be brief.", tools=tools) + rf.user("Go!")
        branch += rf.assistant(rf.gen("call", tools=tools))
        (result,) = rf.call_tools(branch["call"])
        branch += rf.tool_message(result)
        return branch.text()

    backend = models["mistral"]
    one, other = (joined.run([fixed], backend=backend, eager=eager).value for eager in (True, False))
    assert one == other and "[AVAILABLE_TOOLS]" in one and "[/TOOL_RESULTS]" in one


@EVERY
def test_declarations_in_text_that_gets_its_first_token_elsewhere(models: dict[str, LocalBackend], family: str) -> None:
    tokenizer = models[family].tokenizer
    assert tokenizer.chat is not None and tokenizer.chat_in_text is not None
    whole, rest = (declaring(chat, [fixed.schema]) for chat in (tokenizer.chat, tokenizer.chat_in_text))
    first = _BOS.get(family, "") if tokenizer.bos_id is not None else ""
    for role in ("user", "system"):
        assert whole.opening(role, None).written == first + rest.opening(role, None).written
        assert tokenizer.chat.opening(role, None).written == first + tokenizer.chat_in_text.opening(role, None).written


@EVERY
@BOTH
def test_white_space_in_arguments(models: dict[str, LocalBackend], family: str, eager: bool) -> None:
    given = {"whitespace": True, "temperature": 1.0, "seed": 4, "close": True, "max_tokens": 90}
    run = ask.run("Go!", TOOLS, backend=models[family], eager=eager, **given)
    assert rf.call_tools(run.value)[0].ok


@EVERY
def test_explained_without_a_model(models: dict[str, LocalBackend], family: str) -> None:
    found = agent.explain(
        [{"question": "Go!", "system": None, "tools": [fixed]}], backend=models[family], run_host=True
    )
    assert (found.stops, [line.name for line in found.lines]) == ([], ["calls", "answer"])


@EVERY
def test_samples_are_calls_each(models: dict[str, LocalBackend], family: str) -> None:
    given = {"n": 3, "temperature": 1.0, "seed": 1, "backend": models[family], "close": True}
    run, eagerly = ask.run("Go!", TOOLS, **given), ask.run("Go!", TOOLS, **given, eager=True)
    assert run.value == eagerly.value and run.text == eagerly.text
    assert [result.ok for result in rf.call_tools(run.value)] == [True] * 3


@EVERY
def test_a_batch_gives_what_single_runs_give(models: dict[str, LocalBackend], family: str) -> None:
    rows = [{"question": f"Go {n}!", "system": None, "tools": TOOLS} for n in range(4)]
    program = agent.options(temperature=1.0, seed=2, close=True)
    batch = program.run_batch(rows, backend=models[family])
    for row, run in zip(rows, batch, strict=True):
        alone = program.run(**row, backend=models[family], eager=True)
        assert run.error is None and (run.value, run.text) == (alone.value, alone.text)
