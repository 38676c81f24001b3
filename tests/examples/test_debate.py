"""The debate example: prompts as the embedded model learnt them, the flow of a debate, and the published logs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ramify.backends.scripted import ScriptedBackend
from ramify.backends.tiny import debate as learnt
from ramify.examples.debate import debate
from ramify.examples.debate.__main__ import main
from ramify.examples.debate.cache import Share, calls_of, long_tiny
from ramify.examples.debate.check import compare
from ramify.examples.debate.evaluate import Accuracy, ciar, is_right
from ramify.examples.debate.picture import picture
from ramify.examples.debate.recorded import load_logs, scripted
from ramify.examples.debate.replies import FIELDS, ReplyForm
from ramify.examples.debate.templates import load_templates
from ramify.ir.errors import OutputError, UsageError

FILE = Path(__file__).parents[2] / "examples" / "debate"
NO = '{"Preference": "No", "Side": "", "Reason": "", "Answer": ""}'
YES = '{"Preference": "Yes", "Side": "Negative", "Reason": "it is", "Answer": "5"}'
TEXTS = {
    "player_system": "You argue about <SRC>",
    "moderator_system": "You judge <SRC>",
    "base": "What is your answer to <SRC>",
    "affirmative_first": "Affirm <BASE>.",
    "negative_first": "Deny: <AFF>",
    "debate": "Reply to: <OPPO>",
    "moderator": f"Round <ORD>: <AFF> | <NEG> Reply as {NO}",
    "judge1": "First: <A1> | <N1>",
    "judge2": 'Decide <SRC> as {"Reason": "", "Answer": ""}',
}


@pytest.fixture
def templates(tmp_path: Path) -> Callable[..., str]:
    """Writes a file of templates, with some of them changed (None: left out)."""

    def write(**changed: Any) -> str:
        path = tmp_path / "templates.json"
        given = {name: text for name, text in (TEXTS | changed).items() if text is not None}
        path.write_text(json.dumps(given), encoding="utf-8")
        return str(path)

    return write


def speaker(*rounds: str, verdict: str = '{"Reason": "so", "Answer": "7"}') -> ScriptedBackend:
    """Says who is asked; the moderator's replies are given, one for each round."""

    def reply(text: str, _params: object) -> str:
        request = text.rpartition("<user>")[2]
        if request.startswith("Round"):
            return rounds[text.count("Round") - 1]
        if request.startswith("Decide"):
            return verdict
        return request.split(":")[0].split()[0] + f" {text.count('<user>')}"

    return ScriptedBackend(reply)


def test_prompts_are_those_the_embedded_model_learnt() -> None:
    question, ours, theirs = "What is 2 + 2?", "The answer is 4, because 2 + 2 = 4.", "No."
    prompts = load_templates().about(question, 2)
    assert prompts.player_system() == learnt.debater_system(question)
    assert prompts.moderator_system() == learnt.moderator_system(question)
    assert prompts.base() == question
    assert prompts.turn(0, 1, "5", []) == learnt.support("5")
    assert prompts.turn(1, 1, "5", [ours]) == learnt.attack(ours)
    assert prompts.turn(0, 2, "5", [ours, theirs]) == learnt.attacked(theirs)
    assert prompts.round(1, [ours, theirs]) == learnt.ask_moderator(ours, theirs)
    assert prompts.candidates([ours, theirs]) == learnt.ask_candidates(ours, theirs)
    assert prompts.decision() == learnt.ask_judge(question)


@pytest.mark.parametrize("level", range(4))
def test_levels_of_disagreement_are_those_the_embedded_model_learnt(level: int) -> None:
    assert load_templates().about("Why?", level).player_system() == learnt.debater_system("Why?", level)


@pytest.mark.parametrize(("variant", "rounds"), [("code", 3), ("log", 4)])
def test_without_a_verdict_a_fresh_judge_hears_the_first_round(
    templates: Callable[..., str], variant: str, rounds: int
) -> None:
    backend = speaker(*[NO] * rounds)
    run = debate.run("why?", templates=templates(), variant=variant, claim="four", backend=backend)
    assert (run.value.answer, run.value.reason, run.value.by, run.value.rounds) == ("7", "so", "judge", rounds)
    judge, players = run.vars["players"]["Judge"], run.vars["players"]
    first = [players["Negative side"][2]["content"], players["Affirmative side"][2 + 2 * (variant == "log")]["content"]]
    assert judge[1]["content"] == f"First: {first[1]} | {first[0]}"
    assert [message["role"] for message in judge] == ["system", "user", "assistant", "user", "assistant"]
    assert judge[0] == players["Moderator"][0]


def test_the_variants_stop_at_different_replies(templates: Callable[..., str]) -> None:
    undecided = '{"Preference": "No", "Side": "", "Reason": "", "Answer": "both"}'
    told = dict(templates=templates(), claim="four")
    code = debate.run("why?", variant="code", backend=speaker(NO, undecided, YES), **told)
    assert (code.value.answer, code.value.rounds, code.value.by) == ("both", 2, "moderator")
    log = debate.run("why?", variant="log", backend=speaker(NO, undecided, YES), **told)
    assert (log.value.answer, log.value.rounds, log.value.side) == ("5", 3, "Negative")
    assert debate.run("why?", rounds=1, backend=speaker(NO), **told).value.rounds == 1


def test_the_base_answer_is_asked_for_where_the_variant_says(templates: Callable[..., str]) -> None:
    backend = speaker(YES)
    run = debate.run("why?", templates=templates(), variant="code", backend=backend)
    assert run.value.base == "What 1" and backend.requests[0].startswith("<user>What is your answer to why?")
    assert run.vars["players"]["Affirmative side"][1]["content"] == "Affirm What 1."
    own = debate.run("why?", templates=templates(), variant="log", backend=speaker(YES))
    assert [message["content"] for message in own.vars["players"]["Affirmative side"][1:4]] == [
        "What is your answer to why?",
        "What 1",
        "Affirm What 1.",
    ]
    with pytest.raises(UsageError, match="no <BASE>"):
        debate.run("why?", templates=templates(affirmative_first="Go on."), variant="code", backend=speaker(YES))
    silent = templates(base=None, affirmative_first="Go on.")
    assert debate.run("why?", templates=silent, backend=speaker(YES)).value.base == ""


def test_every_debater_hears_what_was_said_since_its_last_turn(templates: Callable[..., str]) -> None:
    run = debate.run("why?", templates=templates(), claim="four", debaters=3, rounds=2, backend=speaker(NO, NO))
    players = run.vars["players"]
    said = {name: [m["content"] for m in players[name] if m["role"] == "assistant"] for name in players}
    first, second, third = said["Affirmative side"], said["Negative side"], said["Debater 3"]
    assert players["Negative side"][1]["content"] == f"Deny: {first[0]}"
    assert players["Debater 3"][1]["content"] == f"Deny: Debater 1: {first[0]}\nDebater 2: {second[0]}"
    assert players["Negative side"][3]["content"] == f"Reply to: Debater 3: {third[0]}\nDebater 1: {first[1]}"
    assert f"Debater 2: {second[1]}\nDebater 3: {third[1]}" in players["Moderator"][3]["content"]


def test_a_reply_that_is_no_dict_names_who_gave_it(templates: Callable[..., str]) -> None:
    told = dict(templates=templates(), claim="four", variant="code")
    with pytest.raises(OutputError, match=r"the moderator in round 2 did not reply with a Python dict: 'well\.'"):
        debate.run("why?", backend=speaker(NO, "well."), **told)
    with pytest.raises(OutputError, match="the reply of the judge after round 3 has no 'Answer'"):
        debate.run("why?", backend=speaker(NO, NO, NO, verdict="{'Reason': 'x'}"), **told)
    runs = debate.run_batch([{"question": "why?"} | told] * 2, backend=speaker("[]", "[]"))
    assert [type(run.error) for run in runs] == [OutputError] * 2


@pytest.mark.parametrize("text", ["__import__('os').getcwd()", "{'a': 1 + open('x')}", "((" * 5000, "{", "", "{[]: 1}"])
def test_replies_are_never_executed(text: str) -> None:
    with pytest.raises(OutputError, match="did not reply with a Python dict"):
        ReplyForm(FIELDS, ("a", "b", "c", "d")).read(text, "the judge")


def test_a_schema_makes_any_model_reply(templates: Callable[..., str]) -> None:
    short = debate.options(max_tokens=100)
    run = short.run("Is 3 + 4 equal to 8?", templates=templates(), schema=True, rounds=1, claim="no")
    reply = json.loads(run.vars["players"]["Moderator"][-1]["content"])
    assert list(reply) == ["Preference", "Side", "Reason", "Answer"] and reply["Preference"] in ("Yes", "No")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"debate": None, "judge1": None}, "lack debate, judge1"),
        ({"debate": "Well?"}, "debate in .* lacks <OPPO>"),
        ({"debate": "<OPPO> <AFF>"}, "debate in .* has <AFF>, which means nothing there"),
        ({"moderator": "<AFF> <NEG>"}, "does not show the dict"),
        ({"judge2": 'as {"Reason": ""}'}, "`judge2` in .* does not show the dict"),
        ({"player_system": 3}, "player_system in .* is no text"),
    ],
)
def test_templates_that_cannot_work_are_refused(
    templates: Callable[..., str], changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        load_templates(templates(**changed))


def test_what_was_said_is_never_taken_for_a_mark(templates: Callable[..., str]) -> None:
    prompts = load_templates(templates()).about("<AFF>?", 2)
    assert prompts.round(1, ["<NEG>", "<ORD>"]).startswith("Round first: <NEG> | <ORD>")
    assert prompts.player_system() == "You argue about <AFF>?"


def test_wrong_arguments_are_told(tmp_path: Path) -> None:
    for told, message in (
        ({"variant": "paper"}, "no variant 'paper'"),
        ({"debaters": 1}, "takes two debaters"),
        ({"rounds": -1}, "takes two debaters and a round"),
        ({"level": 4}, "no level 4"),
        ({"templates": str(tmp_path / "none.json")}, "cannot be read"),
    ):
        with pytest.raises(UsageError, match=message):
            debate.run("why?", backend=speaker(YES), **told)


def test_the_released_configs_are_templates(data: Path) -> None:
    folder = data / "debate" / "prompts"
    general = load_templates(folder / "config4all.json")
    assert general.variant == "code" and "base" not in general.texts
    assert general.moderator_form.keys[3] == "debate_answer" and general.judge_form.fields == ("reason", "answer")
    assert "##" not in "".join(general.texts.values())
    with pytest.raises(UsageError, match="leaves the languages open"):
        load_templates(folder / "config4tran.json")
    translation = load_templates(folder / "config4tran.json", "Chinese-English").about("X", 2)
    assert translation.base().endswith("from Chinese to English: X") and translation.shows_base
    assert load_templates(folder / "log_variant_templates.json").variant == "log"


def test_published_debates_come_out_byte_for_byte(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = data / "debate"
    logs = ["check", "--logs", str(folder / "logs"), "--templates"]
    assert main([*logs, str(folder / "prompts" / "log_variant_templates.json")]) == 0
    assert "506 of 506 messages are equal; 20 of 20 debates" in capsys.readouterr().out


def test_a_message_that_differs_is_found(data: Path, tmp_path: Path) -> None:
    source = data / "debate" / "prompts" / "log_variant_templates.json"
    changed = tmp_path / "changed.json"
    changed.write_text(source.read_text("utf-8").replace("Restate the", "Restate  the"), encoding="utf-8")
    log = load_logs(data / "debate" / "logs")[0]
    compared = compare(log, changed)
    assert compared.equal == compared.total - 1
    assert compared.difference.startswith("Affirmative side, message 3: was user 'Restate the")


def test_verdicts_are_those_of_the_logs(data: Path) -> None:
    def plain(answer: str) -> str:  # in the logs apostrophes were dropped from verdicts
        return answer.replace("'", "").replace("\\", "")

    told = {"templates": str(data / "debate" / "prompts" / "log_variant_templates.json")}
    endings = set()
    for log in load_logs(data / "debate" / "logs"):
        verdict = debate.options(max_tokens=10_000).run(log.question, backend=scripted(log), **told).value
        assert plain(verdict.answer) == plain(log.answer)
        endings.add((verdict.by, verdict.rounds))
    assert endings == {("moderator", 1), ("moderator", 2), ("moderator", 3), ("moderator", 4), ("judge", 4)}


def test_the_cache_serves_what_it_can(data: Path) -> None:
    templates = data / "debate" / "prompts" / "log_variant_templates.json"
    (short,) = (log for log in load_logs(data / "debate" / "logs") if log.name == "94.json")
    with long_tiny() as model:
        calls = calls_of(short, templates, model)
    share = Share.of(calls)
    assert share.bound >= share.cached >= 0.99 * share.bound > 0.4 * share.prompt
    assert [call.role for call in calls] == [
        "Affirmative side",
        *["Affirmative side", "Negative side", "Moderator"] * 2,
    ]
    assert picture(calls).count('class="cached"') == len(calls) + 1


def test_bleu_of_published_translations(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sacrebleu")
    folder = data / "debate" / "commonmt"
    outputs = [str(folder / "output_baseline.txt"), str(folder / "output_mad.txt")]
    assert main(["bleu", *outputs, "--reference", str(folder / "lexical.zh-en.en")]) == 0
    assert capsys.readouterr().out.split("\n")[:2] == [
        "output_baseline.txt: BLEU 30.3 of 200 lines",
        "output_mad.txt: BLEU 29.1 of 200 lines",
    ]


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ("14", True),
        ("It is 14.0, not a few.", True),
        ("14,000", False),
        ("114", False),
        ("14%", False),
        ("14 or 15", False),
        ("fourteen", False),
        ("", False),
    ],
)
def test_an_answer_is_right_as_a_whole(said: str, right: bool) -> None:
    assert is_right(said, ["14"], ["15"]) is right


def test_accepted_answers_of_ciar_are_right_and_others_wrong(data: Path) -> None:
    records = json.loads((data / "debate" / "CIAR.json").read_text("utf-8"))
    assert ciar([record["answer"][0] for record in records], records) == Accuracy(50, 50)
    assert ciar([f"The answer is {record['answer'][-1]}." for record in records], records) == Accuracy(50, 50)
    assert ciar([record["incorrect answer"][0] for record in records], records) == Accuracy(0, 50)


def test_eager_equals_compiled_on_the_embedded_model() -> None:
    runs = [debate.run("What is 3 + 4?", eager=eager) for eager in (True, False)]
    assert runs[0].value == runs[1].value and runs[0].text == runs[1].text
    assert runs[0].vars["players"] == runs[1].vars["players"]
    assert runs[1].usage.cached_tokens > runs[1].usage.prompt_tokens / 2


def test_debates_on_the_embedded_model_are_mostly_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", "--draws", "10", "--wrong", "--quiet"]) == 0
    base, debated = (int(line.split()[1]) for line in capsys.readouterr().out.splitlines())
    assert base == 0 and debated >= 7


def test_the_command_line_debates_over_data_and_evaluates(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "verdicts.jsonl"
    run = [
        "run",
        "--data",
        str(data / "debate" / "CIAR.json"),
        "--limit",
        "2",
        "--out",
        str(out),
        "--rounds",
        "1",
        "--schema",
    ]
    assert main(run) == 0
    assert "2 rows, 0 failed" in capsys.readouterr().err
    assert main(["ciar", str(out), "--data", str(data / "debate" / "CIAR.json")]) == 0
    assert " of 2 (" in capsys.readouterr().out
    assert main(["run"]) == 2 and "--question TEXT or --data FILE" in capsys.readouterr().err
    assert main(["run", "--data", str(tmp_path / "none.jsonl")]) == 2
    assert "No such file" in capsys.readouterr().err


def ramify(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "ramify.lang.cli", *arguments], stderr=subprocess.DEVNULL)


def test_real_questions_killed_half_way_and_resumed(data: Path, tmp_path: Path) -> None:
    questions = [record["question"] for record in json.loads((data / "debate" / "CIAR.json").read_text("utf-8"))]
    out, part = tmp_path / "verdicts.jsonl", tmp_path / "verdicts.jsonl.part"
    silent = tmp_path / "templates.json"
    silent.write_text(json.dumps(TEXTS), encoding="utf-8")
    # Some time for each answer of the scripted model keeps the run going until it is killed. Its words are no dicts, so
    # that rows fail in the first round; failed rows count as finished.
    run = ["run", str(FILE), "--data", str(data / "debate" / "CIAR.json"), "--out", str(out)]
    run += ["--arg", f"templates={silent}", "--model", "scripted:0.5"]
    first = ramify(*run, "--in-flight", "10")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not part.exists() or part.read_bytes().count(b"\n") < 10):
        time.sleep(0.02)
    first.kill()
    first.wait()
    finished = part.read_bytes().count(b"\n")
    assert 10 <= finished < 50 and not out.exists()
    assert ramify(*run, "--in-flight", "50", "--resume").wait(timeout=60) == 1
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert [row["row"] for row in rows] == list(range(len(questions)))
    assert all(question in row["text"] for question, row in zip(questions, rows, strict=True))
