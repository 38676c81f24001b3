"""The rules of APIBench's three hubs: which arguments of a reference call have to reappear in a candidate.

They are those of the scorers released with Gorilla (arXiv 2305.15334, section 4), oddities included: TorchHub looks for
the words `repo_or_dir` and `model` anywhere in an argument, and a reference without such an argument never matches.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ramify.ir.errors import UsageError

__all__ = ["HUBS", "HubRules", "hub_rules"]

PUNCTUATION = ("(", ")", ",")


@dataclass(frozen=True, slots=True)
class HubRules:
    """How a hub's reference calls are compared with a candidate.

    `is_keyword` says of an argument's text whether only its value (the third node of `key = value`) has to reappear;
    `takes_others_whole`, whether every other argument has to reappear as it stands; `judges_whole_text`, whether a
    reply that names no `api_call` is a candidate from end to end, and not simply wrong.
    """

    is_keyword: Callable[[str], bool]
    takes_others_whole: bool
    judges_whole_text: bool


HUBS = {
    "torchhub": HubRules(lambda text: "repo_or_dir" in text or "model" in text, False, False),
    "tensorflowhub": HubRules(lambda text: "model=" in text or "model =" in text, True, True),
    "huggingface": HubRules(lambda text: "=" in text, True, True),
}


def hub_rules(name: str) -> HubRules:
    """The rules of a hub. Raises UsageError for a hub that there is not."""
    if name not in HUBS:
        raise UsageError(f"there is no hub {name!r}", help=f"choose one of {', '.join(HUBS)}")
    return HUBS[name]
