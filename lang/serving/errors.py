"""Errors as OpenAI's API tells them: a status, and an object with message, type, param and code."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from ...ir.errors import Cancelled, ContextOverflow, RamifyError, RequestError, UsageError

_FIELD = re.compile(r"(?:missing required|unknown) field `([^`]*)`")
_PLACE = re.compile(r" - at `\$\.?([^`]*)`")
_NAME = re.compile(r"[a-z_]+")


class ApiError(Exception):
    """What a client is told instead of an answer. param: the field that is wrong. headers: of the response."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    @property
    def kind(self) -> str:
        """OpenAI's name for what went wrong."""
        return _KINDS.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")

    def body(self) -> dict[str, Any]:
        """What is sent."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": error}


class Gone(Exception):
    """The client has gone: there is nobody to tell anything."""


_KINDS = {401: "authentication_error", 429: "rate_limit_error"}


def invalid(message: str, param: str | None = None) -> ApiError:
    """A request that cannot be served as it is."""
    return ApiError(400, message, param=param, code="invalid_value" if param else None)


def not_understood(error: msgspec.DecodeError) -> ApiError:
    """A body that is no JSON, or not of the fields that it should have."""
    text = str(error)
    if not isinstance(error, msgspec.ValidationError):
        return ApiError(400, f"the body is not JSON: {text}")
    place, field = _PLACE.search(text), _FIELD.search(text)
    parts = [part for part in (place[1] if place else "", field[1] if field else "") if part]
    code = "unknown_parameter" if "unknown field" in text else "invalid_type"
    return ApiError(400, text, param=".".join(parts) or None, code=code)


def told(error: BaseException, fields: Collection[str] = ()) -> ApiError:
    """What a client is told of an error. fields: those of the request, of which a message may name one."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, Cancelled):
        return ApiError(503, "the server ended the request", code="cancelled")
    if not isinstance(error, RequestError | UsageError | TypeError | ValueError):
        return ApiError(500, f"the server failed: {type(error).__name__}: {error}")
    message = in_words(error)
    name = _NAME.match(message)
    param = name[0] if name is not None and name[0] in fields else None
    code = "context_length_exceeded" if isinstance(error, ContextOverflow) else None
    return ApiError(400, message, param=param, code=code)


def in_words(error: BaseException) -> str:
    """An error without the place in a source, which the client has not."""
    if not isinstance(error, RamifyError):
        return str(error)
    return error.message if error.help is None else f"{error.message}; {error.help}"
