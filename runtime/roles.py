"""The roles of chat messages."""

from __future__ import annotations

SYSTEM, USER, ASSISTANT, TOOL = "system", "user", "assistant", "tool"
ROLES = (SYSTEM, USER, ASSISTANT, TOOL)

Pair = tuple[str | None, str]
"""The role of the message before (None: there is none), and a role."""
