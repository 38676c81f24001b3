"""What llguidance makes of a grammar or JSON schema, and what it says of one that it cannot take."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLParserLimits
    from llguidance._lib import JsonCompileOptions

# Grammars that name special tokens are checked where there is a tokenizer.
_NEEDS_TOKENIZER = "no tokenizer"
_NOTHING = "Unsatisfiable schema"
# White space where it is asked for: at most so much at a place, so that it cannot go on for ever.
SPACE = r"[ \t\r\n]{1,64}"
# Text that has to follow is not worked out to its end.
_NO_FORCING = '\n%llguidance {"no_forcing": true}\n'
# What llguidance says of a text that nothing can follow.
_STUCK = "NoExtensionBias"
# How llguidance refuses what looks at the text beside it, and what that is.
_ANCHORED = re.compile(r"lookarounds not supported yet; (\w+) in regex (/.*/)")
_ANCHORS = {
    **dict.fromkeys(("Start", "StartLF", "StartCRLF"), "a `^` that is not at its beginning"),
    **dict.fromkeys(("End", "EndLF", "EndCRLF"), "a `$` that is not at its end"),
    **dict.fromkeys(("WordUnicode", "WordAscii"), "`\\b`"),
    **dict.fromkeys(("WordUnicodeNegate", "WordAsciiNegate"), "`\\B`"),
}
# What a mask, and following a text, may cost, so that patterns with long counted repetitions work: a third of a second
# at worst, once.
_LEXER_FUEL = 5_000_000


def limits() -> LLParserLimits:
    """What following a grammar may cost."""
    from llguidance import LLParserLimits

    return LLParserLimits(step_lexer_fuel=_LEXER_FUEL, initial_lexer_fuel=_LEXER_FUEL)


def json_grammar(schema: Any, *, has_space: bool = False) -> str:
    """The grammar of a JSON schema's texts, compact or with white space. Raises ValueError for what is no schema."""
    from llguidance import LLMatcher  # slow to import

    options: JsonCompileOptions = {"whitespace_flexible": False}
    if has_space:
        options["whitespace_pattern"] = SPACE
    return LLMatcher.grammar_from_json_schema(msgspec.json.encode(schema).decode(), overrides=options)


def unforced(grammar: str) -> str:
    """A grammar whose matchers do not look ahead for text that has to follow, which may be long, or without end."""
    if not grammar.startswith("{"):
        return grammar + _NO_FORCING
    parts = msgspec.json.decode(grammar)["grammars"]
    lark = parts[0].get("lark_grammar") or f"start: %json {msgspec.json.encode(parts[0]['json_schema']).decode()}"
    return lark + _NO_FORCING


def byte_matcher(grammar: str) -> LLMatcher:
    """A matcher for which every byte is a token."""
    from llguidance import LLMatcher, LLTokenizer

    return LLMatcher(LLTokenizer("byte"), grammar, log_level=0, limits=limits())


def is_stuck(matcher: LLMatcher) -> bool:
    """Whether no text matches, where that shows at once."""
    if matcher.is_error() or matcher.is_accepting():
        return False
    matcher.compute_bitmask()
    return matcher.get_error().startswith(_STUCK)


@lru_cache(maxsize=4096)
def problem_in(grammar: str) -> str | None:
    """What is wrong with a grammar, in one line."""
    from llguidance import LLMatcher

    failed, messages = LLMatcher.validate_grammar_with_warnings(grammar)
    problems = [message for message in messages if failed or not message.startswith(_NEEDS_TOKENIZER)]
    return brief(problems[0]) if problems else None


def problem_of(schema: Any) -> str | None:
    """What is wrong with a JSON schema, in one line."""
    try:
        return problem_in(json_grammar(schema))
    except ValueError as error:
        return str(error)


def is_unsatisfiable(problem: str | None) -> bool:
    """Whether it is that no text matches."""
    return problem is not None and problem.startswith(_NOTHING)


def brief(message: str) -> str:
    """What llguidance says, in one line: it adds the source, or the whole state of the parser."""
    if (found := _ANCHORED.search(message)) is not None:
        sign = _ANCHORS.get(found[1], f"`{found[1]}`")
        return f"look-around is not supported: {sign} in {found[2]:.80}"
    lines = [line.strip() for line in message.splitlines() if line.strip()] or ["it cannot be compiled"]
    causes = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    place = re.match(r"at (\d+)\((\d+)\): ", lines[0])
    if causes:  # a regular expression that does not parse, perhaps somewhere in a grammar
        return f"line {place[1]}: {causes[0]}" if place and place[1] != "1" else causes[0]
    text = lines[0].partition(" Enable ")[0]
    return f"line {place[1]}, column {place[2]}: {text[place.end() :]}" if place else text
