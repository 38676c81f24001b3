"""Reads a chat format off a model's template: from what it makes of sample conversations of unmistakable contents.

What stands between two messages is split into the closing of one and the opening of the other; marks that are not the
same wherever a role follows a role are refused with the reason. How contents are treated (stripped, escaped, cut at
certain texts) is found by trying.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from types import MappingProxyType

from ..ir.errors import Unsupported
from .call_derivation import derive_calls
from .call_format import CallFormat
from .call_results import CallingTemplate
from .chat import ChatFormat, Content, Opening, common_start
from .chat_check import ANSWERED, TemplateCheck, sample, sample_text
from .chat_template import Refused, Template
from .roles import ASSISTANT, ROLES, SYSTEM, TOOL, USER, Pair
from .writing import written

_Roles = tuple[str, ...]

_END, _PROMPT = "end", "generation prompt"
"""What may follow a message beside a message: nothing more, or the prompt for the assistant."""
_LAST, _UNANSWERED = "last assistant", "unanswered assistant"
"""An assistant message that nothing follows, and one that is followed, but by no user message."""

_CORE = ((USER,), (USER, ASSISTANT), (USER, ASSISTANT, USER), (USER, ASSISTANT, USER, ASSISTANT, USER))
_SYSTEM = tuple((SYSTEM, *roles) for roles in (*_CORE, (USER, ASSISTANT, USER, ASSISTANT)))
_TOOL = (
    (USER, ASSISTANT, TOOL),
    (USER, ASSISTANT, TOOL, ASSISTANT),
    (USER, ASSISTANT, TOOL, USER),
    (USER, ASSISTANT, TOOL, TOOL),
    (USER, ASSISTANT, TOOL, ASSISTANT, USER),
    (USER, ASSISTANT, TOOL, ASSISTANT, TOOL, ASSISTANT),
    (USER, ASSISTANT, TOOL, ASSISTANT, USER, ASSISTANT, TOOL, USER),
)
_RESULTS = ((USER, ASSISTANT, TOOL), (USER, ASSISTANT, TOOL, ASSISTANT), (USER, ASSISTANT, TOOL, ASSISTANT, USER))
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
    (USER, ASSISTANT, ASSISTANT, USER),
    (USER, ASSISTANT, SYSTEM),
    (USER, ASSISTANT, SYSTEM, USER),
)
"""Orders that some templates refuse; each only adds the pairs that it shows."""


def derive_chat_format(source: str, tokens: Mapping[str, str] | None = None) -> ChatFormat:
    """The format of a Jinja chat template. tokens: the special tokens that it may name, as `bos_token`.

    Raises ModelError when the template is not valid, Unsupported when its marks cannot be told from its text.
    """
    return _Derivation(Template(source, tokens or {})).format()


class _Derivation:
    """Collects the gaps between the messages of sample conversations and splits them into closings and openings.

    gaps: by the role before and what follows, all texts seen between them. examples: a conversation and a position for
    each of these.
    """

    def __init__(self, template: Template) -> None:
        self.template: Template | CallingTemplate = template
        self.gaps: dict[Pair, set[str]] = {}
        self.examples: dict[Pair, tuple[_Roles, int]] = {}
        self.refusals: dict[Pair, str] = {}
        self.missing: set[str] = set()
        self.notes: list[str] = []
        try:
            self._learn(_CORE)
        except Refused as error:
            raise Unsupported(f"no role marks can be told from the chat template: {error}", help=_NO_MARKS) from error
        self._learn_role(SYSTEM, _SYSTEM)
        self.calls = derive_calls(template)
        self._learn_role(TOOL, _TOOL)
        if TOOL in self.missing and self.calls is not None:
            self._learn_results(template, self.calls)
        self.sure = frozenset(self.gaps)
        for roles in _FREE:
            self._learn_order(roles)

    def format(self) -> ChatFormat:
        """The format, without the orders in which the template does not write what the pairs say."""
        while (wrong := self._first_wrong(made := self._format())) is not None:
            self._forget(wrong)
        return made

    def _format(self) -> ChatFormat:
        closings = {role: self._closing(role) for role in ROLES if role in self._befores}
        openings = self._openings(closings)
        self._note_default_system(openings)
        if not self._has_prompt and openings[USER, ASSISTANT].generated:
            self.notes.append("the template has no generation prompt; the assistant's opening is that of its messages")
        if self.template.asks_date:
            self.notes.append("the template writes the date; it is the one of when the model was opened")
        return ChatFormat(
            MappingProxyType(openings),
            MappingProxyType(closings),
            MappingProxyType(self.refusals),
            MappingProxyType({role: texts for role in closings if (texts := self._rewritten(role, openings))}),
            has_bos=True,
            notes=tuple(self.notes),
            check=TemplateCheck(self.template),
            calls=self.calls,
        )

    def _first_wrong(self, made: ChatFormat) -> _Roles | None:
        """An order of messages of which the format makes something else than the template; a short one if there is."""
        short = (roles for length in range(1, _MAX_CHECKED + 1) for roles in product(made.roles, repeat=length))
        return next((roles for roles in (*short, *_LONG) if not self._is_right(made, roles)), None)

    def _is_right(self, made: ChatFormat, roles: _Roles) -> bool:
        if roles[-1] == ASSISTANT or (roles[-1], ASSISTANT) not in made.openings:
            return True
        try:
            mine, told = written(made, sample(roles), add_generation_prompt=self._has_prompt)
        except Unsupported:
            return True
        try:
            return bool(told) or mine == self.template.render(sample(roles), prompt=True)
        except Refused:
            return False

    def _forget(self, roles: _Roles) -> None:
        """Give up what made an order wrong: a pair of roles that is not usual, else the system or tool role."""
        pairs: list[Pair] = list(zip((None, *roles), (*roles, ASSISTANT), strict=True))
        doubtful = {pair for pair in pairs if not self.sure & set(_all_kinds(pair))}
        if not doubtful:
            role = TOOL if TOOL in roles else SYSTEM
            doubtful = {pair for pair in self.gaps if role in pair}
            if role not in roles or not doubtful:
                told = ", ".join(roles)
                raise Unsupported(
                    f"no role marks can be told from the chat template: {_DEPENDS.format(told)}", help=_NO_MARKS
                )
            self.refusals[None, role] = _DEPENDS.format(", ".join(roles))
        for before, role in doubtful:
            self.refusals.setdefault((before, role), _DEPENDS.format(", ".join(roles)))
            for pair in _all_kinds((before, role)):
                self.gaps.pop(pair, None)

    @property
    def _befores(self) -> set[str | None]:
        return {before for before, _ in self.gaps}

    # What stands between messages.

    def _learn(self, samples: Iterable[_Roles]) -> None:
        """Adds what the samples show, all or nothing; raises Refused."""
        gaps = {pair: set(texts) for pair, texts in self.gaps.items()}
        examples = dict(self.examples)
        for roles in samples:
            for prompt in (False, True) if roles[-1] != ASSISTANT else (False,):
                texts = self._between(roles, prompt=prompt)
                pairs = list(zip((None, *roles), (*_kinds(roles), _PROMPT if prompt else _END), strict=True))
                for index, (pair, text) in enumerate(zip(pairs, texts, strict=True)):
                    gaps.setdefault(pair, set()).add(text)
                    examples.setdefault(pair, (roles, index))
        for (before, follower), variants in gaps.items():
            if len(variants) > 1 and follower not in (_LAST, _UNANSWERED):
                what = f"what stands between {before or 'the start'} and {follower}"
                raise Refused(f"{what} is not always the same: {' or '.join(map(repr, sorted(variants)))}")
        self.gaps, self.examples = gaps, examples

    def _learn_role(self, role: str, samples: Iterable[_Roles]) -> None:
        try:
            self._learn(samples)
        except Refused as error:
            self.refusals[None, role] = str(error)
            self.missing.add(role)
            if role == SYSTEM:
                self.notes.append(f"the template takes no system message: {error}")

    def _learn_results(self, template: Template, calls: CallFormat) -> None:
        """The role of tools in a template that has results of calls only."""
        try:
            self.template = CallingTemplate.of(template, calls)
            self._learn(_RESULTS)
        except Refused:
            self.template = template
            return
        self.missing.discard(TOOL)
        del self.refusals[None, TOOL]
        for roles in _TOOL:
            self._learn_order(roles)

    def _learn_order(self, roles: _Roles) -> None:
        if self.missing & set(roles):
            return
        try:
            self._learn([roles])
        except Refused as error:
            last = (roles[-2] if len(roles) > 1 else None, roles[-1])
            if not self.gaps.keys() & set(_all_kinds(last)):
                self.refusals.setdefault(last, str(error))

    def _between(self, roles: _Roles, *, prompt: bool) -> list[str]:
        """The texts before, between and after the messages of a conversation of these roles; raises Refused."""
        whole = rest = self.template.render(sample(roles), prompt=prompt)
        gaps: list[str] = []
        for index, role in enumerate(roles):
            before, found, rest = rest.partition(sample_text(index))
            if not found or sample_text(index) in rest:
                told = ", ".join(roles)
                raise Refused(f"of the conversation {told} the {role} message {_fault(whole, index, roles)}")
            gaps.append(before)
        return [*gaps, rest]

    # Closings and openings.

    def _closing(self, role: str) -> str:
        """What all the gaps after the role begin with; at least what those begin with that a message follows."""
        after = {follower: texts for (before, follower), texts in self.gaps.items() if before == role}
        closing = _common_start([text for texts in after.values() for text in texts])
        if closing or not any(after.get(_END, ())):
            return closing
        followed = [text for follower, texts in after.items() if follower != _END for text in texts]
        return _first_tag(_common_start(followed)) if followed else ""

    def _openings(self, closings: Mapping[str, str]) -> dict[Pair, Opening]:
        openings: dict[Pair, Opening] = {}
        for before, follower in self.gaps:
            if follower in closings and follower != ASSISTANT:
                text = self._opening_text(before, follower, closings)
                assert text is not None
                openings[before, follower] = Opening.plain(text, self._treatment(before, follower))
        for before in sorted(self._befores, key=str):
            made = self._assistant_opening(before, closings)
            if made is not None:
                openings[before, ASSISTANT] = made
        return openings

    def _opening_text(self, before: str | None, follower: str, closings: Mapping[str, str]) -> str | None:
        """What is left of the gap behind the closing; None when there is no such gap, or no single one."""
        texts = self.gaps.get((before, follower), set())
        if len(texts) != 1:
            return None
        (text,) = texts
        return text.removeprefix(closings[before]) if before is not None else text

    def _assistant_opening(self, before: str | None, closings: Mapping[str, str]) -> Opening | None:
        found = {kind: self._opening_text(before, kind, closings) for kind in (ASSISTANT, _UNANSWERED, _LAST)}
        seen = [kind for kind, text in found.items() if text is not None]
        if not seen:
            return None
        finished = found[seen[0]] or ""
        generated = self._generation_prompt(before, closings)
        continued, unanswered = found[_LAST], found[_UNANSWERED]
        return Opening(
            finished,
            finished.rstrip(" ") if generated is None else generated,
            finished if continued is None else continued,
            self._treatment(before, seen[0]),
            unanswered if unanswered != finished else None,
        )

    def _generation_prompt(self, before: str | None, closings: Mapping[str, str]) -> str | None:
        """What add_generation_prompt adds; None where the template knows no such thing."""
        return self._opening_text(before, _PROMPT, closings) if self._has_prompt else None

    @property
    def _has_prompt(self) -> bool:
        """Whether the template ends a conversation with more than a closing when it is asked for the assistant."""
        prompt = self.gaps[USER, _PROMPT]
        return prompt != self.gaps[USER, _END] or not prompt <= {self._closing(USER)}

    # What is done to contents.

    def _treatment(self, before: str | None, follower: str) -> Content:
        """What the template does to the text of a message at such a place."""
        roles, index = self.examples[before, follower]
        left, right = (self._stripped(roles, index, at_start=at_start) for at_start in (True, False))
        shown = self._shown(roles, index, f"{_MARK}{_AWKWARD}{_MARK}")
        for escape in ("json", "ascii_json"):
            if shown == f"{_MARK}{Content(escape=escape).escaped(_AWKWARD)}{_MARK}":
                return Content(left, right, escape)
        return Content(left, right)

    def _stripped(self, roles: _Roles, index: int, *, at_start: bool) -> str:
        """The white space that is stripped from one end of a message's text."""

        def goes(characters: str) -> bool:
            return self._shown(roles, index, characters + _MARK if at_start else _MARK + characters) == _MARK

        if goes(_SPACES):
            return _SPACES
        common = "".join(filter(goes, " \n\t"))
        return common and "".join(filter(goes, _SPACES))

    def _shown(self, roles: _Roles, index: int, text: str) -> str | None:
        """What becomes of a message's text; None when more than the text changes."""
        plain, changed = sample(roles), sample(roles)
        changed[index] = (roles[index], text)
        try:
            before, _, after = self.template.render(plain, prompt=False).partition(sample_text(index))
            shown = self.template.render(changed, prompt=False)
        except Refused:
            return None
        if not shown.startswith(before) or not shown.endswith(after) or len(shown) < len(before) + len(after):
            return None
        return shown[len(before) : len(shown) - len(after)]

    def _rewritten(self, role: str, openings: Mapping[Pair, Opening]) -> tuple[str, ...]:
        """The texts that, in a message of this role, make the template write something else."""
        pair, (roles, index) = next((pair, place) for pair, place in ANSWERED.items() if pair[1] == role)
        content = openings[pair].content
        texts = sorted(self.template.literals)
        if self._keeps(roles, index, _MARK.join(texts), content):
            return ()
        wrong = [text for text in texts if not self._keeps(roles, index, text, content)]
        return tuple(text for text in wrong if not any(other != text and other in text for other in wrong))

    def _keeps(self, roles: _Roles, index: int, text: str, content: Content) -> bool:
        whole = f"{_MARK}{text}{_MARK}"
        return self._shown(roles, index, whole) == content.whole(whole)

    def _note_default_system(self, openings: Mapping[Pair, Opening]) -> None:
        start, later = openings[None, USER].written, openings[ASSISTANT, USER].written
        extra = start.removesuffix(later).removeprefix(self.template.tokens["bos_token"])
        if later and start != later and start.endswith(later) and extra:
            self.notes.append(f"the template begins a conversation without system message with {extra!r}")


_NO_MARKS = "write the prompts without role marks, or give the format yourself with ChatFormat.from_marks"
_MARK = "Zq_qZ"
_SPACES = "".join(character for character in map(chr, range(0x3001)) if character.isspace())
_AWKWARD = "\"\\\n\té<&>'"
_DEPENDS = "what it writes between the messages of {} is not the same as elsewhere"
_MAX_CHECKED = 4
_TURNS = ((USER, ASSISTANT), (USER, ASSISTANT, TOOL, ASSISTANT), (USER, ASSISTANT, TOOL, TOOL, ASSISTANT))
_LONG = (
    ((USER, ASSISTANT) * 4 + (USER,)),
    *(
        (*start, *first, *second, *end)
        for start in ((), (SYSTEM,))
        for first, second in product(_TURNS, repeat=2)
        for end in ((TOOL,), (USER,), (USER, ASSISTANT, TOOL))
    ),
)
"""Usual orders, longer than all orders can be tried."""
_TAG = re.compile(r"<[^<>\s]{1,40}>|\[/?[A-Z_]+\]|\w+")


def _kinds(roles: _Roles) -> list[str]:
    """The messages by what follows them, as far as that counts."""
    last = len(roles) - 1
    return [
        role if role != ASSISTANT or USER in roles[index:] else (_LAST if index == last else _UNANSWERED)
        for index, role in enumerate(roles)
    ]


def _all_kinds(pair: Pair) -> list[Pair]:
    """The pairs under which the gaps of two roles are kept."""
    before, role = pair
    return [(before, kind) for kind in ((ASSISTANT, _LAST, _UNANSWERED) if role == ASSISTANT else (role,))]


def _fault(whole: str, index: int, roles: _Roles) -> str:
    """What a template has done with a message that is not where it should be, once."""
    places = [whole.find(sample_text(each)) for each in range(len(roles))]
    if places[index] < 0:
        return "is left out"
    if whole.count(sample_text(index)) > 1:
        return "is repeated"
    behind = [roles[other] for other in range(index + 1, len(roles)) if 0 <= places[other] < places[index]]
    before = [roles[other] for other in range(index) if places[index] < places[other]]
    return f"is moved behind the {behind[-1]} message" if behind else f"is moved before the {before[0]} message"


def _common_start(texts: Sequence[str]) -> str:
    """The longest text that all of them begin with and that cuts no tag or word of them in two."""
    if not texts:
        return ""
    length = len(common_start(texts))
    inside = [found.start() for text in texts for found in _TAG.finditer(text) if found.start() < length < found.end()]
    return texts[0][: min(inside, default=length)]


def _first_tag(text: str) -> str:
    found = _TAG.match(text)
    return text if found is None else found[0]
