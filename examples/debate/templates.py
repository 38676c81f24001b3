"""The texts of a debate: a JSON file of prompts, and what it says to each role about one question.

Three forms of file are read: ours (default.json), that of the published logs, which is the same with fewer keys, and
the config of the paper's released code, whose keys and marks have other names. A mark such as <SRC> stands for a text:

    <SRC>         the question                <OPPO>       what the others said since one's own last turn
    <BASE>        the base answer             <A1>, <N1>   the first statements of either side
    <AFF>, <NEG>  the newest statements       <ORD>        first, second, ... round

The prompts of the moderator and of the judge end with the dict to reply with, and so say what its fields are called.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ramify.ir.errors import UsageError

from .replies import FIELDS, ReplyForm, dict_in

__all__ = ["DEFAULT", "Prompts", "Templates", "load_templates"]

DEFAULT = Path(__file__).with_name("default.json")
# Each prompt with the marks that it must have, and those that it may have.
MARKS = {
    "player_system": ("SRC", ""),
    "moderator_system": ("SRC", ""),
    "base": ("SRC", ""),
    "affirmative_first": ("", "SRC BASE"),
    "negative_first": ("AFF", "SRC"),
    "debate": ("OPPO", "SRC"),
    "moderator": ("AFF NEG", "SRC ORD"),
    "judge1": ("A1 N1", "SRC"),
    "judge2": ("", "SRC"),
}
# What the released code calls them.
RELEASED_KEYS = {
    "player_meta_prompt": "player_system",
    "moderator_meta_prompt": "moderator_system",
    "base_prompt": "base",
    "affirmative_prompt": "affirmative_first",
    "negative_prompt": "negative_first",
    "debate_prompt": "debate",
    "moderator_prompt": "moderator",
    "judge_prompt_last1": "judge1",
    "judge_prompt_last2": "judge2",
}
RELEASED_MARKS = {
    "debate_topic": "<SRC>",
    "source": "<SRC>",
    "base_translation": "<BASE>",
    "aff_ans": "<AFF>",
    "neg_ans": "<NEG>",
    "oppo_ans": "<OPPO>",
    "round": "<ORD>",
}
LANGUAGE_MARKS = ("src_lng", "tgt_lng")
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_MARK = re.compile(r"<(SRC|BASE|AFF|NEG|OPPO|A1|N1|ORD|NUM|TEXT)>")


@dataclass(frozen=True, slots=True)
class Templates:
    """A file of prompts: `texts` by name as in MARKS, without `base` where it has none.

    variant: whose rules the debate follows unless something else is said. speaker: how a statement is shown where
    there are more than two debaters. levels: a sentence for each level of disagreement, which the debaters' system
    prompt ends with.
    """

    texts: Mapping[str, str]
    variant: str
    speaker: str
    levels: tuple[str, ...]
    moderator_form: ReplyForm
    judge_form: ReplyForm

    def about(self, question: str, level: int) -> "Prompts":
        """The prompts about a question. Raises UsageError for a level that there is not."""
        if not 0 <= level < len(self.levels):
            raise UsageError(f"there is no level {level} of disagreement", help=f"0 to {len(self.levels) - 1}")
        return Prompts(self, question, self.levels[level])


@dataclass(frozen=True, slots=True)
class Prompts:
    """What is said to each role about one question. Statements come in the debaters' order, the affirmative's first."""

    templates: Templates
    question: str
    level: str

    @property
    def has_base(self) -> bool:
        """Whether the question is first answered without a debate."""
        return "base" in self.templates.texts

    @property
    def shows_base(self) -> bool:
        """Whether the affirmative side is shown a base answer that is not its own."""
        return "<BASE>" in self.templates.texts["affirmative_first"]

    def player_system(self) -> str:
        """The debaters' system prompt."""
        return f"{self._fill('player_system')} {self.level}".rstrip() if self.level else self._fill("player_system")

    def moderator_system(self) -> str:
        """The system prompt of the moderator, and of the judge."""
        return self._fill("moderator_system")

    def base(self) -> str:
        """What asks for the base answer."""
        return self._fill("base")

    def turn(self, debater: int, number: int, base: str, said: Sequence[str]) -> str:
        """What a debater hears in round `number`, from 1, when it is its turn; said: everybody's newest statements."""
        if number > 1:
            others = [*range(debater + 1, len(said)), *range(debater)]
            return self._fill("debate", OPPO=self._joined(said, others))
        if debater == 0:
            return self._fill("affirmative_first", BASE=base)
        return self._fill("negative_first", AFF=self._joined(said, range(debater)))

    def round(self, number: int, said: Sequence[str]) -> str:
        """What the moderator hears after a round."""
        ordinal = ORDINALS[number - 1] if number <= len(ORDINALS) else f"{number}th"
        return self._fill("moderator", ORD=ordinal, AFF=said[0], NEG=self._joined(said, range(1, len(said))))

    def candidates(self, first: Sequence[str]) -> str:
        """What the judge hears first: the statements of the first round."""
        return self._fill("judge1", A1=first[0], N1=self._joined(first, range(1, len(first))))

    def decision(self) -> str:
        """What asks the judge to decide."""
        return self._fill("judge2")

    def _joined(self, said: Sequence[str], debaters: Sequence[int]) -> str:
        """Statements of some debaters: one as it is, several each with its debater's number."""
        if len(debaters) == 1:
            return said[debaters[0]]
        shown = (_fill(self.templates.speaker, {"NUM": str(each + 1), "TEXT": said[each]}) for each in debaters)
        return "\n".join(shown)

    def _fill(self, name: str, **texts: str) -> str:
        return _fill(self.templates.texts[name], {"SRC": self.question, **texts})


def load_templates(path: str | Path = "", languages: str = "") -> Templates:
    """Read a file of templates; without a path, the default ones.

    languages: "Chinese-English", for files of the released code that leave the languages open. Raises UsageError for a
    file that is none, and says what it lacks.
    """
    file = Path(path) if path else DEFAULT
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"the templates {file} cannot be read: {error.strerror}") from None
    return _parsed(text, str(file), languages)


@lru_cache(maxsize=16)
def _parsed(text: str, name: str, languages: str) -> Templates:
    try:
        given = json.loads(text)
    except ValueError as error:
        raise UsageError(f"the templates {name} are not JSON: {error}") from None
    if not isinstance(given, dict):
        raise UsageError(f"the templates {name} are no JSON object of prompts")
    if "player_meta_prompt" in given:
        given = _converted(given, name, languages)
    texts = {prompt: given[prompt] for prompt in MARKS if given.get(prompt)}
    _check(texts, name)
    defaults = json.loads(DEFAULT.read_text(encoding="utf-8"))
    moderator, judge = _forms(texts, name)
    return Templates(
        texts,
        given.get("variant", "log" if "base" in texts and "<BASE>" not in texts["affirmative_first"] else "code"),
        given.get("speaker", defaults["speaker"]),
        tuple(given.get("levels", defaults["levels"])),
        moderator,
        judge,
    )


def _forms(texts: Mapping[str, str], name: str) -> tuple[ReplyForm, ReplyForm]:
    """The moderator's and the judge's replies, as their prompts show them."""
    keys = tuple(dict_in(texts["moderator"]))
    if len(keys) != len(FIELDS):
        raise UsageError(
            f"the prompt `moderator` in {name} does not show the dict to reply with",
            help=f"one of four fields, in this order: {', '.join(FIELDS)}",
        )
    _preference, _side, *decision = keys
    if not set(decision) <= dict_in(texts["judge2"]).keys():
        raise UsageError(
            f"the prompt `judge2` in {name} does not show the dict to reply with",
            help=f"one of the moderator's {' and '.join(map(repr, decision))}",
        )
    return ReplyForm(FIELDS, keys), ReplyForm(FIELDS[2:], tuple(decision))


def _converted(config: Mapping[str, Any], name: str, languages: str) -> dict[str, str]:
    """A config of the released code with our keys and marks."""
    source, _, target = languages.partition("-")
    marks = dict(RELEASED_MARKS)
    for mark, language in zip(LANGUAGE_MARKS, (source, target), strict=True):
        marks[mark] = config.get(mark) or language
    found = {}
    for key, prompt in RELEASED_KEYS.items():
        text = str(config.get(key, ""))
        for mark, meant in marks.items():
            if f"##{mark}##" in text and not meant:
                raise UsageError(
                    f"{name} leaves the languages open", help="say which: languages=Chinese-English (--languages)"
                )
            text = text.replace(f"##{mark}##", meant)
        found[prompt] = text
    found["judge1"] = found["judge1"].replace("<AFF>", "<A1>").replace("<NEG>", "<N1>")
    return found


def _check(texts: Mapping[str, str], name: str) -> None:
    """Raises UsageError for prompts that are missing, and for marks that are missing or mean nothing where they are."""
    if missing := [prompt for prompt in MARKS if prompt not in texts and prompt != "base"]:
        raise UsageError(f"the templates {name} lack {', '.join(missing)}", help=f"a file has {', '.join(MARKS)}")
    for prompt, text in texts.items():
        required, allowed = MARKS[prompt]
        if not isinstance(text, str):
            raise UsageError(f"{prompt} in {name} is no text but {text!r:.40}")
        marks = set(_MARK.findall(text))
        if lacking := set(required.split()) - marks:
            raise UsageError(f"{prompt} in {name} lacks <{min(lacking)}>")
        if useless := marks - set(required.split()) - set(allowed.split()):
            raise UsageError(f"{prompt} in {name} has <{min(useless)}>, which means nothing there")


def _fill(text: str, values: Mapping[str, str]) -> str:
    """A text with its marks filled in, all at once: what is filled in may hold marks and stays as it is."""
    return _MARK.sub(lambda mark: values[mark[1]], text)
