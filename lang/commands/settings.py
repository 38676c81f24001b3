"""`:set`: what the session's programs run on, and how they sample where nothing else is said."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ...ir.errors import UsageError, nearest
from ...runtime.request import SamplingParams
from ..options import Options, default_backend, set_default_backend
from ..session import Session
from .command import Command

_DEFAULT = "default"
_SAMPLING = ("temperature", "max_tokens", "seed", "logprobs")


@dataclass(frozen=True, slots=True)
class Setting:
    """Something that can be set: what changes it, given a text, and what it is now."""

    change: Callable[[Session, str], None]
    shown: Callable[[Session], str]
    choices: tuple[str, ...] = (_DEFAULT,)


def _set(session: Session, rest: str) -> None:
    name, _, value = rest.partition(" ")
    if name and name not in _SETTINGS:
        raise UsageError(f"there is no setting {name!r}", help=nearest(name, _SETTINGS, "the settings are"))
    if value.strip():
        _SETTINGS[name].change(session, value.strip())
    width = max(map(len, _SETTINGS))
    for each, setting in _SETTINGS.items():
        if not name or each == name:
            session.print(f"{each:<{0 if name else width}}  {setting.shown(session)}")


def _complete(session: Session, words: Sequence[str]) -> Iterable[str]:
    if len(words) == 1:
        return _SETTINGS
    return _SETTINGS[words[0]].choices if len(words) == 2 and words[0] in _SETTINGS else ()


def _set_model(session: Session, text: str) -> None:
    _use(None if text == _DEFAULT else text)


def _set_backend(session: Session, text: str) -> None:
    _use(None if text == _DEFAULT else eval(text, session.names))


def _use(backend: Any) -> None:
    """Have programs run on a backend, once it could be opened."""
    if backend is not None:
        Options(backend=backend).open_backend()
    set_default_backend(backend)


def _backend_name(session: Session) -> str:
    backend = default_backend()
    return str(getattr(backend, "name", backend))


def _sampling(name: str) -> Setting:
    def change(session: Session, text: str) -> None:
        if text == _DEFAULT:
            session.settings.pop(name, None)
            return
        value = _literal(text)
        try:
            Options().updated({name: value})
        except TypeError as error:
            raise UsageError(str(error), help=f":set {name} {_DEFAULT} takes it back") from None
        session.settings[name] = value

    def shown(session: Session) -> str:
        if name in session.settings:
            return str(session.settings[name])
        return f"as programs say, else {getattr(SamplingParams(), name)}"

    return Setting(change, shown)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _set_debug(session: Session, text: str) -> None:
    if text not in ("on", "off"):
        raise UsageError(f"debug is on or off, not {text}")
    session.debug = text == "on"


_SETTINGS = {
    "model": Setting(_set_model, _backend_name, ("tiny", "scripted", _DEFAULT)),
    "backend": Setting(_set_backend, _backend_name),
    **{name: _sampling(name) for name in _SAMPLING},
    "debug": Setting(_set_debug, lambda session: "on" if session.debug else "off", ("on", "off")),
}
SET = Command(":set", "[NAME [VALUE | default]]", "what programs run on, and sampling they do not set", _set, _complete)
