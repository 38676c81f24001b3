"""Role marks derived from a model's chat template: the text before and after each message.

A prompt grows message by message, so it needs a template's marks, not its whole rendering. They are read off by
rendering sample conversations of unmistakable contents and looking at what stands between these; marks that do not
hold in every sample are refused with the reason. The assistant's opening is what `add_generation_prompt` adds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ..ir.errors import ModelError, Unsupported

Messages = Sequence[tuple[str, str]]
"""A conversation: (role, content) pairs."""

_Pair = tuple[str | None, str]
"""A role and the role of the message before it (None: it is the first)."""

SYSTEM, USER, ASSISTANT, TOOL = "system", "user", "assistant", "tool"


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """What stands before and after each message of a conversation.

    notes: what the user should know of this template, in words. assistant_lead: text that the template puts between
    the assistant's opening and a finished message, which a model generates itself (often a space). starts_with_bos:
    whether the template begins a conversation with the BOS text.
    """

    openings: Mapping[_Pair, str]
    closings: Mapping[str, str]
    refusals: Mapping[_Pair, str] = field(default_factory=lambda: MappingProxyType({}))
    assistant_lead: str = ""
    starts_with_bos: bool = False
    notes: tuple[str, ...] = ()

    @classmethod
    def from_template(
        cls, template: str, *, bos_token: str | None, eos_token: str | None, omit_bos: bool = True
    ) -> ChatFormat:
        """The format of a Jinja chat template.

        omit_bos: leave the BOS text out of the first opening, because the caller puts the token there itself.
        Raises ModelError when the template is not valid, Unsupported when its marks cannot be told from its text.
        """
        return _Derivation(_Template(template, bos_token or "", eos_token or "")).format(omit_bos=omit_bos)

    @classmethod
    def from_marks(
        cls, marks: Mapping[str, tuple[str, str]], *, assistant_lead: str = "", notes: tuple[str, ...] = ()
    ) -> ChatFormat:
        """A plain format: the same opening and closing for each role wherever it stands."""
        befores: tuple[str | None, ...] = (None, *marks)
        openings = {(before, role): opening for role, (opening, _) in marks.items() for before in befores}
        closings = {role: closing for role, (_, closing) in marks.items()}
        return cls(openings, closings, assistant_lead=assistant_lead, notes=notes)

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that the format can express."""
        return tuple(self.closings)

    def opening(self, role: str, index: int, previous: str | None = None) -> str:
        """The text before message number `index`; for the assistant what a generation prompt adds.

        previous: the role of the message before; without it the usual one. Raises Unsupported.
        """
        before = None if index == 0 else previous or _usual_previous(role, index)
        if (before, role) in self.openings:
            return self.openings[before, role]
        raise self._refusal(before, role)

    def closing(self, role: str) -> str:
        """The text after a message of this role. Raises Unsupported."""
        if role in self.closings:
            return self.closings[role]
        raise self._refusal(None, role)

    def render(self, messages: Messages, *, add_generation_prompt: bool = False) -> str:
        """A whole conversation as text; what the template itself would render, less an omitted BOS."""
        parts: list[str] = []
        previous: str | None = None
        for index, (role, content) in enumerate(messages):
            lead = self.assistant_lead if role == ASSISTANT else ""
            parts += [self.opening(role, index, previous), lead, content, self.closing(role)]
            previous = role
        if add_generation_prompt:
            parts.append(self.opening(ASSISTANT, len(messages), previous))
        return "".join(parts)

    def _refusal(self, before: str | None, role: str) -> Unsupported:
        place = "at the start" if before is None else f"after one of role {before!r}"
        reason = self.refusals.get((before, role)) or self.refusals.get((None, role))
        because = f": {reason}" if reason else f"; its roles are {', '.join(self.roles)}"
        return Unsupported(f"the model's chat template has no message of role {role!r} {place}{because}")


def _usual_previous(role: str, index: int) -> str:
    if role in (ASSISTANT, SYSTEM):
        return USER
    return SYSTEM if role == USER and index == 1 else ASSISTANT


DEFAULT_CHAT = ChatFormat.from_marks(
    {SYSTEM: ("SYSTEM: ", "\n"), USER: ("USER: ", "\n"), ASSISTANT: ("ASSISTANT:", "\n")},
    assistant_lead=" ",
    notes=("the model has no chat template; roles are written as plain text (SYSTEM: USER: ASSISTANT:)",),
)


class _GenerationBlock(Extension):
    """`{% generation %}...{% endgeneration %}`, which marks assistant text for training: only its body counts."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 declares it so)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Template:
    """A compiled chat template, with the functions that templates expect; remembers whether it asked for the date."""

    def __init__(self, source: str, bos_token: str, eos_token: str) -> None:
        self.bos_token, self.eos_token = bos_token, eos_token
        self.asks_date = False
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals |= {"raise_exception": _raise_exception, "strftime_now": self._strftime_now}
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise ModelError(f"the chat template is not valid: {error}", help=_FIX_TEMPLATE) from error

    def render(self, messages: Messages, *, prompt: bool) -> str:
        """Raises _Refused with the template's own words."""
        records = [{"role": role, "content": content} for role, content in messages]
        try:
            return self._template.render(
                messages=records,
                add_generation_prompt=prompt,
                bos_token=self.bos_token,
                eos_token=self.eos_token,
                tools=None,
                documents=None,
            )
        except Exception as error:  # A template is a program: it may also fail by a type error or a division.
            raise _Refused(str(error) or type(error).__name__) from error

    def _strftime_now(self, layout: str) -> str:
        self.asks_date = True
        return datetime.now().strftime(layout)


_FIX_TEMPLATE = "correct chat_template.jinja (or chat_template in tokenizer_config.json)"


class _Refused(Exception):
    """The template refuses a conversation, or does not show its messages once each and in order."""


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without Jinja's HTML escapes, as chat templates mean it."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


_CORE = ((USER,), (USER, ASSISTANT), (USER, ASSISTANT, USER), (USER, ASSISTANT, USER, ASSISTANT, USER))
_SYSTEM = tuple((SYSTEM, *roles) for roles in (*_CORE, (USER, ASSISTANT, USER, ASSISTANT)))
_TOOL = (
    (USER, ASSISTANT, TOOL),
    (USER, ASSISTANT, TOOL, ASSISTANT),
    (USER, ASSISTANT, TOOL, USER),
    (USER, ASSISTANT, TOOL, TOOL),
    (USER, ASSISTANT, TOOL, ASSISTANT, USER),
)
_FREE = (
    (SYSTEM,),
    (ASSISTANT,),
    (ASSISTANT, USER),
    (SYSTEM, ASSISTANT),
    (SYSTEM, ASSISTANT, USER),
    (SYSTEM, SYSTEM),
    (USER, USER),
    (USER, SYSTEM),
    (USER, SYSTEM, USER),
    (USER, ASSISTANT, ASSISTANT),
    (USER, ASSISTANT, SYSTEM),
    (USER, ASSISTANT, SYSTEM, USER),
)
"""Orders that some templates refuse; each only adds the pairs that it shows."""

_END, _PROMPT = "end", "generation prompt"
"""What may follow a message beside a message: nothing more, or the prompt for the assistant."""


class _Derivation:
    """Collects the gaps between the messages of sample conversations and splits them into closings and openings."""

    def __init__(self, template: _Template) -> None:
        self.template = template
        self.gaps: dict[_Pair, set[str]] = {}
        self.refusals: dict[_Pair, str] = {}
        self.notes: list[str] = []
        try:
            self._learn(_CORE)
        except _Refused as error:
            raise Unsupported(f"no role marks can be told from the chat template: {error}", help=_NO_MARKS) from error
        for role, samples in ((SYSTEM, _SYSTEM), (TOOL, _TOOL)):
            self._learn_role(role, samples)
        for sample in _FREE:
            self._learn_pair(sample)

    def format(self, *, omit_bos: bool) -> ChatFormat:
        befores = {before for before, _ in self.gaps}
        closings = {role: self._closing(role) for role in (SYSTEM, USER, ASSISTANT, TOOL) if role in befores}
        openings, lead = self._openings(closings)
        starts_with_bos = self._handle_bos(openings, omit_bos)
        self._note_ends(closings)
        self._note_default_system(openings)
        self._note_contents(tuple(closings))
        if self.template.asks_date:
            self.notes.append("the template asks for today's date, so prompts differ from day to day")
        return ChatFormat(
            MappingProxyType(openings),
            MappingProxyType(closings),
            MappingProxyType(self.refusals),
            lead,
            starts_with_bos,
            tuple(self.notes),
        )

    def _learn(self, samples: Iterable[Sequence[str]]) -> None:
        """Adds what the samples show, all or nothing; raises _Refused."""
        found = {pair: set(texts) for pair, texts in self.gaps.items()}
        for roles in samples:
            for prompt in (False, True) if roles[-1] != ASSISTANT else (False,):
                texts = _gaps(self.template, roles, prompt=prompt)
                followers = (*roles, _PROMPT if prompt else _END)
                for pair, text in zip(zip((None, *roles), followers, strict=True), texts, strict=True):
                    found.setdefault(pair, set()).add(text)
        for (before, role), variants in found.items():
            if len(variants) > 1 and role != ASSISTANT:
                what = f"what stands between {before or 'the start'} and {role}"
                raise _Refused(f"{what} is not always the same: {' or '.join(map(repr, sorted(variants)))}")
        self.gaps = found

    def _learn_role(self, role: str, samples: Iterable[Sequence[str]]) -> None:
        try:
            self._learn(samples)
        except _Refused as error:
            self.refusals[None, role] = str(error)
            if role == SYSTEM:
                self.notes.append(f"the template takes no system message: {error}")

    def _learn_pair(self, sample: Sequence[str]) -> None:
        if any((None, role) in self.refusals for role in sample):
            return
        try:
            self._learn([sample])
        except _Refused as error:
            before = sample[-2] if len(sample) > 1 else None
            # Alone at the start and refused there, a role may still be allowed later: only the pair is refused.
            self.refusals.setdefault((before, sample[-1]), str(error))

    def _closing(self, role: str) -> str:
        """What all the gaps after the role begin with."""
        return _common_start([text for (before, _), texts in self.gaps.items() if before == role for text in texts])

    def _openings(self, closings: Mapping[str, str]) -> tuple[dict[_Pair, str], str]:
        """The openings of all pairs, and the assistant's lead."""
        rest = {
            pair: sorted(text[len(closings[pair[0]]) if pair[0] else 0 :] for text in texts)
            for pair, texts in self.gaps.items()
        }
        openings = {pair: texts[0] for pair, texts in rest.items() if pair[1] not in (ASSISTANT, _END, _PROMPT)}
        finished = {before: texts for (before, role), texts in rest.items() if role == ASSISTANT}
        prompts = {before: texts[0] for (before, role), texts in rest.items() if role == _PROMPT}
        if not prompts[USER]:
            prompts = self._prompts_from_messages(finished)
        lead = self._lead(prompts, finished)
        for before, texts in finished.items():
            openings[before, ASSISTANT] = _common_start(texts).removesuffix(lead)
        openings |= {(before, ASSISTANT): prompt for before, prompt in prompts.items()}
        return openings, lead

    def _prompts_from_messages(self, finished: Mapping[str | None, list[str]]) -> dict[str | None, str]:
        """Openings for a template that ignores add_generation_prompt; a space at their end is the model's to write."""
        prompts = {before: _common_start(texts).rstrip(" ") for before, texts in finished.items()}
        if prompts[USER]:
            self.notes.append("the template has no generation prompt; the assistant's opening is that of its messages")
        return prompts

    def _lead(self, prompts: Mapping[str | None, str], finished: Mapping[str | None, list[str]]) -> str:
        """The text between the generation prompt after a user message and the content of the finished message."""
        prompt, texts = prompts[USER], finished[USER]
        if not all(text.startswith(prompt) for text in texts):
            self.notes.append("the template does not write finished assistant messages as its generation prompt begins")
            return ""
        leads = sorted({text.removeprefix(prompt) for text in texts})
        if len(leads) > 1:
            self.notes.append(f"the template adds {leads[-1]!r} to some assistant messages; here they stay as they are")
            return ""
        if leads[0]:
            self.notes.append(f"the template begins finished assistant messages with {leads[0]!r}")
        return leads[0]

    def _handle_bos(self, openings: dict[_Pair, str], omit_bos: bool) -> bool:
        bos = self.template.bos_token
        starts = [pair for pair in openings if pair[0] is None]
        starts_with_bos = bool(bos) and all(openings[pair].startswith(bos) for pair in starts)
        if starts_with_bos and omit_bos:
            openings |= {pair: openings[pair].removeprefix(bos) for pair in starts}
        return starts_with_bos

    def _note_ends(self, closings: Mapping[str, str]) -> None:
        for role, closing in closings.items():
            if self.gaps.get((role, _END), {closing}) != {closing}:
                self.notes.append(f"the template closes a conversation's last {role} message differently")

    def _note_default_system(self, openings: Mapping[_Pair, str]) -> None:
        start, later = openings[None, USER], openings[ASSISTANT, USER]
        extra = start.removesuffix(later).removeprefix(self.template.bos_token)
        if later and start != later and start.endswith(later) and extra:
            self.notes.append(f"the template begins a conversation without system message with {extra!r}")

    def _note_contents(self, roles: Sequence[str]) -> None:
        """Notes of what the template does to contents, which are used as they are here."""
        if (stripped := [role for role in roles if self._strips(role)]) != []:
            self.notes.append(f"the template strips white space around the text of {', '.join(stripped)}")
        reasoned = f"<think>\nreason\n</think>\n\n{_content(1)}"
        messages = [(USER, _content(0)), (ASSISTANT, reasoned), (USER, _content(2))]
        if self._alters(messages, reasoned):
            self.notes.append("the template rewrites the reasoning of earlier assistant messages; here it stays")

    def _strips(self, role: str) -> bool:
        samples = {SYSTEM: (SYSTEM, USER), USER: (USER,), ASSISTANT: (USER, ASSISTANT), TOOL: (USER, ASSISTANT, TOOL)}
        padded = f" \n{_content(9)}\n "
        messages = [(name, padded if name == role else _content(i)) for i, name in enumerate(samples[role])]
        return self._alters(messages, padded)

    def _alters(self, messages: Messages, content: str) -> bool:
        try:
            return content not in self.template.render(messages, prompt=False)
        except _Refused:
            return True


_NO_MARKS = "write the prompts without role marks, or give the format yourself with ChatFormat.from_marks"


def _common_start(texts: Sequence[str]) -> str:
    """The longest text that all of them begin with; of the sorted texts only the outer two can differ first."""
    low, high = min(texts), max(texts)
    length = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    return low[:length]


def _content(index: int) -> str:
    """A message text that no template contains."""
    return f"Zq{index}qZ"


def _gaps(template: _Template, roles: Sequence[str], *, prompt: bool) -> list[str]:
    """The texts before, between and after the messages of a conversation of these roles; raises _Refused."""
    rest = template.render([(role, _content(i)) for i, role in enumerate(roles)], prompt=prompt)
    gaps: list[str] = []
    for index, role in enumerate(roles):
        before, found, rest = rest.partition(_content(index))
        if not found or _content(index) in rest:
            raise _Refused(f"of the conversation {', '.join(roles)} the {role} message is left out, moved or repeated")
        gaps.append(before)
    return [*gaps, rest]
