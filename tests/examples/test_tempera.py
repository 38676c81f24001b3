"""Prompt editing: the recorded episodes, the real tasks and splits, templates, edits of instructions, and editors."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from random import Random

import pytest
from ramify.backends.tiny import reviews
from ramify.examples.tempera.environment import HORIZON, Actions, EditState, Prompts
from ramify.examples.tempera.instruction import InstructionEdits, Phrases
from ramify.examples.tempera.problem import Source
from ramify.examples.tempera.rewards import Scoring
from ramify.examples.tempera.tasks import Row, Task, load_split, load_task
from ramify.examples.tempera.templates import load_templates
from ramify.ir.errors import UsageError

HERE = Path(__file__).parents[2] / "examples" / "tempera"


def hashed(prompt: str, num_labels: int) -> list[float]:
    """The stub model of the recorded episodes: each label's share of the first bytes of a hash, each one larger."""
    counts = [byte + 1 for byte in hashlib.sha256(prompt.encode()).digest()[:num_labels]]
    return [count / sum(counts) for count in counts]


@pytest.mark.parametrize("number", [0, 1])
def test_recorded_episodes_come_out_the_same(data: Path, number: int) -> None:
    episode = json.loads((data / "tempera" / "golden_traces.json").read_text("utf-8"))[number]
    task = load_task(episode["dataset"], data / "tempera" / "task_configs.json")
    path = data / "tempera" / "promptsource_Apache-2.0" / episode["dataset"] / "templates.yaml"
    templates = load_templates(path, task.labels)
    prompts, scoring = Prompts(task, templates), Scoring()
    actions = Actions(4, 12, len(templates))
    assert [template.name for template in templates] == episode["templates"] and len(actions) == episode["n_actions"]

    def score(state: EditState) -> float:
        return scoring.score(hashed(prompts.write(state), len(task.labels)), state.query.label)

    exemplars = [Row(text, label) for text, label in zip(episode["exemplars"], episode["labels"], strict=True)]
    queries = [Row(text, label) for text, label in zip(episode["queries"], episode["query_labels"], strict=True)]
    states = [EditState.first(task, query, exemplars) for query in queries]
    assert [prompts.write(state) for state in states] == episode["init_prompts"]
    assert [score(state) for state in states] == pytest.approx(episode["init_score"], abs=1e-12)
    assert len(episode["steps"]) == HORIZON
    for step in episode["steps"]:
        after = [actions.apply(state, action) for state, action in zip(states, step["actions"], strict=True)]
        rewards = [scoring.reward(score(old), score(new)) for old, new in zip(states, after, strict=True)]
        assert [prompts.write(state) for state in after] == step["prompts"]
        assert rewards == pytest.approx(step["reward"], abs=1e-9)
        assert [state.stopped for state in after] == step["terminated"]
        states = after


def test_every_task_and_split_of_the_paper_loads(data: Path) -> None:
    settings = json.loads((data / "tempera" / "task_configs.json").read_text("utf-8"))
    names = [
        name
        for name in settings
        if "/" in name or name in ("yelp_polarity", "rotten_tomatoes", "customer_review", "ag_news")
    ]
    tasks = {name: load_task(name, data / "tempera" / "task_configs.json") for name in names}
    assert len(tasks) == 6 and tasks["rotten_tomatoes"].instruction == tasks["glue/sst2"].instruction
    for name, task in tasks.items():
        folder = settings[name].get("templates_from", name)
        templates = load_templates(
            data / "tempera" / "promptsource_Apache-2.0" / folder / "templates.yaml", task.labels
        )
        assert [template.name for template in templates] == sorted(template.name for template in templates)
    folders = sorted(path for path in (data / "tempera" / "kshot_MIT").glob("*/16-*"))
    assert len(folders) == 35
    for folder in folders:
        split = load_split(folder)
        labels = [row.label for row in split.train]
        assert all(labels.count(label) == 16 for label in set(labels)) and len(split.dev) == len(split.train)
        assert split.test or folder.parent.name == "yelp-2"


def test_prompts_are_those_the_embedded_model_learnt() -> None:
    task = load_task("reviews")
    words = dict(zip(("negative", "positive"), task.labels, strict=True))
    assert task.instruction == reviews.INSTRUCTION.format(**words) + "\n\n"
    templates = load_templates(HERE / "templates.yaml", task.labels)
    learnt = {name: text.format(text="The cup was bri.", **words) for name, text in reviews.TEMPLATES.items()}
    assert {template.name: template.write("The cup was bri.") for template in templates} == learnt
    row, query = Row("The cup was bri.", 1), Row("The hat was bri.", 1)
    state = EditState(query, (row,), (), (0,), Phrases.of(task.instruction))
    for index in range(200):
        written = "".join(message.content for message in reviews.sentiment_example(Random(index)).messages)
        if "Sentiment: great\n\nReview: " in written and written.startswith(task.instruction):
            break
    else:
        pytest.fail("the form of a prompt is not one that is learnt")
    assert (
        Prompts(task, templates).write(state).endswith("bri.\nSentiment: great\n\nReview: The hat was bri.\nSentiment:")
    )


def write(path: Path, jinja: str, choices: str = "no ||| yes") -> Path:
    record = {"name": "only", "jinja": jinja, "answer_choices": choices}
    path.write_text(json.dumps({"templates": {"only": record}}), encoding="utf-8")
    return path


def test_a_template_takes_the_tasks_labels_and_cuts_long_texts(tmp_path: Path) -> None:
    path = write(tmp_path / "templates.yaml", "{{ text }}\nIs it {{'yes'}} or no? ||| {{ answer_choices[label] }}")
    (template,) = load_templates(path, ("bad", "good"))
    assert template.write("Fine ||| so.") == "Fine ||| so.\nIs it good or bad?"
    assert len(template.write("word " * 1000)) < 2100
    assert template.write({"text": "Fine.", "other": ""}) == "Fine.\nIs it good or bad?"
    with pytest.raises(UsageError, match="'text'"):
        template.write({"sentence": "Fine."})


def test_templates_that_tell_the_label_are_left_out(tmp_path: Path) -> None:
    for jinja in ("{% if label == 1 %}{{text}} ||| yes{% endif %}", "{{text}} {{label}} ||| yes"):
        with pytest.raises(UsageError, match="no template"):
            load_templates(write(tmp_path / "templates.yaml", jinja), ("bad", "good"))


def test_a_file_that_holds_no_templates_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("- 1\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"a\.yaml"):
        load_templates(tmp_path / "a.yaml", ("bad", "good"))
    with pytest.raises(UsageError, match="cannot read"):
        load_templates(tmp_path / "b.yaml", ("bad", "good"))


def test_a_stopped_prompt_is_edited_no_more() -> None:
    task = Task("t", ("bad", "good"), "Say it.\n\n", "Q: ", "A: ")
    exemplars = [Row(f"text {number}", number % 2) for number in range(16)]
    state, actions = EditState.first(task, Row("query", 0), exemplars), Actions(4, 12, 3)
    assert len(actions) == 11 + 48 + 4 * 3
    stopped = actions.apply(state, 0)
    assert stopped.stopped and all(actions.apply(stopped, action) == stopped for action in range(len(actions)))
    both = actions.apply(state, 11 + 2 * 12 + 2)
    assert both.stopped and both.slots[2] == exemplars[6] and both.pool[2] == exemplars[2]
    with pytest.raises(IndexError, match="71"):
        actions.apply(state, 71)


INSTRUCTION = "Read each review, and say if it is great or terrible.\n\n"


def test_an_instruction_is_cut_into_phrases_and_put_together_again() -> None:
    phrases = Phrases.of(INSTRUCTION)
    assert phrases.shown == ("Read each review,", "and say", "if it is great", "or terrible.")
    assert phrases.text == INSTRUCTION and Phrases.of("").text == ""


def test_phrases_are_deleted_swapped_added_and_paraphrased() -> None:
    edits = InstructionEdits({"Read each review,": ["Look at each review,", "Take each review,"]})
    numbers = {edits.describe(number): number for number in range(len(edits))}
    assert len(numbers) == len(edits) == 8 + 28 + 8 + 8

    def after(phrases: Phrases, *names: str) -> Phrases:
        for name in names:
            phrases = edits.apply(phrases, numbers[f"{name.split()[0]} instruction phrase {name.split(' ', 1)[1]}"])
        return phrases

    phrases = Phrases.of(INSTRUCTION)
    assert after(phrases, "delete 1").text == "Read each review, if it is great or terrible.\n\n"
    assert after(phrases, "delete 1", "add 0").text.startswith("and say Read each review,")
    assert after(phrases, "swap 0 and 3").shown[0] == "or terrible."
    assert after(phrases, "paraphrase 0").shown[0] == "Look at each review,"
    assert after(phrases, "paraphrase 0", "paraphrase 0", "paraphrase 0") == phrases
    assert after(phrases, "delete 7", "add 0", "swap 0 and 7", "paraphrase 1") == phrases


def test_paraphrases_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "paraphrases.json"
    path.write_text('{"Read each review,": ["Look at each review,"]}')
    edits = Source(paraphrases=path).problem(0).actions.instruction
    assert edits is not None and edits.paraphrases == {"Read each review,": ["Look at each review,"]}
    path.write_text('{"Read each review,": "Look at each review,"}')
    with pytest.raises(UsageError, match="Expected `array`"):
        Source(paraphrases=path).problem(0)


def test_edits_of_the_instruction_come_behind_the_others() -> None:
    task = Task("t", ("bad", "good"), INSTRUCTION, "Q: ", "A: ")
    state = EditState.first(task, Row("query", 0), [Row("text", 1)] * 16)
    actions = Actions(4, 12, 2, InstructionEdits())
    assert len(actions) == 67 + 52
    assert actions.apply(state, 67).phrases.text == "and say if it is great or terrible.\n\n"
    assert actions.describe(67) == "delete instruction phrase 0" and actions.describe(66) == "give slot 3 template 1"


def test_scores_weigh_the_margin() -> None:
    assert Scoring().score([0.75, 0.25], 0) == pytest.approx(1.0)
    assert Scoring().score([0.75, 0.25], 1) == pytest.approx(-0.9)
    assert Scoring(logarithmic=True).score([0.5, 0.25, 0.25], 0) == pytest.approx(2.0 * 0.6931471805599453)
    assert Scoring().reward(-0.9, 1.0) == pytest.approx(190.0)
