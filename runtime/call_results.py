"""Results of tool calls in templates that want each to follow its call: a template that is shown plain messages only.

Some templates refuse a tool's message behind an assistant's that holds no call, or write the call's id into it. Here an
assistant's message that results follow becomes one of calls for the template, and in its text plain again; so marks of
messages are read off it as off any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .call_format import RESULT_ID, RESULT_NAME, CallFormat, WrittenCall, call_record
from .chat_template import Messages, Refused, Template
from .roles import ASSISTANT, TOOL, USER


@dataclass(frozen=True, slots=True)
class CallingTemplate:
    """A template that is asked about conversations in which the assistant calls tools.

    form: how it writes calls. space: what it writes before the text of a message, and not before calls.
    """

    template: Template
    form: CallFormat
    space: str = ""

    @classmethod
    def of(cls, template: Template, form: CallFormat) -> CallingTemplate:
        """The template with what is found out about its spaces. Raises Refused."""
        call = WrittenCall("Zqf", {}, RESULT_ID)
        user: dict[str, Any] = {"role": USER, "content": "Zq"}
        plain = template.render([(USER, "Zq"), (ASSISTANT, "Zqa")], prompt=False).partition("Zqa")[0]
        calls = {"role": ASSISTANT, "content": "", "tool_calls": [call_record(call)]}
        before = template.render_records([user, calls], prompt=False).partition(form.write([call]))[0]
        space = plain.removeprefix(before)
        return cls(template, form, "" if space.strip() else space)

    @property
    def literals(self) -> frozenset[str]:
        """The texts in the template."""
        return self.template.literals

    @property
    def tokens(self) -> dict[str, str]:
        """The special tokens that it may name."""
        return self.template.tokens

    @property
    def asks_date(self) -> bool:
        """Whether it has asked for the date."""
        return self.template.asks_date

    def render_records(
        self, records: Sequence[Mapping[str, Any]], *, prompt: bool, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> str:
        """See Template. Raises Refused."""
        return self.template.render_records(records, prompt=prompt, tools=tools)

    def render(self, messages: Messages, *, prompt: bool) -> str:
        """See Template. Raises Refused."""
        followers = [*(role for role, _ in messages[1:]), None]
        records, calls = list[dict[str, Any]](), list[tuple[str, str]]()
        for index, ((role, content), follower) in enumerate(zip(messages, followers, strict=True)):
            record: dict[str, Any] = {"role": role, "content": content}
            if role == ASSISTANT and follower == TOOL:
                call = WrittenCall(f"Zqf{index}qZ", {"Zq": content}, RESULT_ID)
                record |= {"content": "", "tool_calls": [call_record(call)]}
                calls.append((self.form.write([call]), content))
            elif role == TOOL:
                record |= {"tool_call_id": RESULT_ID, "name": RESULT_NAME}
            records.append(record)
        text = self.template.render_records(records, prompt=prompt)
        for written, content in calls:
            if text.count(written) != 1:
                raise Refused("a call is not written as elsewhere")
            text = text.replace(written, self.space + content)
        return text
