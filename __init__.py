"""ramify: a language embedded in Python for LM programs, a compiler for it, and the runtime that executes them.

    import ramify as rf

    @rf.program
    def answer(s, question):
        s += rf.user(question)
        s += rf.assistant(rf.gen("answer"))

    answer.run(question="...")["answer"]

Names are loaded when they are first used, so that importing ramify is quick.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if __name__ != "ramify":
    raise ImportError("the repository root is the package `ramify`; install it (pip install -e .) and import that")

if TYPE_CHECKING:
    from .backends.anthropic import Anthropic as Anthropic
    from .backends.endpoint import RuntimeEndpoint as RuntimeEndpoint
    from .backends.openai import OpenAI as OpenAI
    from .ir.errors import ChangedFileWarning as ChangedFileWarning
    from .ir.errors import OutputError as OutputError
    from .ir.errors import RamifyError as RamifyError
    from .ir.errors import ReboundStateWarning as ReboundStateWarning
    from .ir.errors import RecordingError as RecordingError
    from .ir.errors import RecordingWarning as RecordingWarning
    from .ir.errors import ReplayMismatch as ReplayMismatch
    from .ir.errors import UsageError as UsageError
    from .lang import processors as processors
    from .lang.batch import Batch as Batch
    from .lang.blocks import best_of_k as best_of_k
    from .lang.cassettes import record as record
    from .lang.cassettes import replay as replay
    from .lang.confidence import confidence as confidence
    from .lang.embedding import embed as embed
    from .lang.mcp import connect_mcp as connect_mcp
    from .lang.notebook import load_ipython_extension as load_ipython_extension
    from .lang.notebook import unload_ipython_extension as unload_ipython_extension
    from .lang.options import set_default_backend as set_default_backend
    from .lang.primitives import assistant as assistant
    from .lang.primitives import assistant_begin as assistant_begin
    from .lang.primitives import assistant_end as assistant_end
    from .lang.primitives import gen as gen
    from .lang.primitives import gen_int as gen_int
    from .lang.primitives import gen_string as gen_string
    from .lang.primitives import image as image
    from .lang.primitives import score as score
    from .lang.primitives import select as select
    from .lang.primitives import separate_reasoning as separate_reasoning
    from .lang.primitives import system as system
    from .lang.primitives import system_begin as system_begin
    from .lang.primitives import system_end as system_end
    from .lang.primitives import user as user
    from .lang.primitives import user_begin as user_begin
    from .lang.primitives import user_end as user_end
    from .lang.primitives import video as video
    from .lang.program import Program as Program
    from .lang.program import load as load
    from .lang.program import program as program
    from .lang.run import Run as Run
    from .lang.schema_tool import SchemaTool as SchemaTool
    from .lang.sglang.engine import Engine as Engine
    from .lang.sglang.engine import Runtime as Runtime
    from .lang.sglang.function import SglFunction as SglFunction
    from .lang.sglang.function import function as function
    from .lang.sglang.gone import Crusoe as Crusoe
    from .lang.sglang.gone import LiteLLM as LiteLLM
    from .lang.sglang.gone import ServerArgs as ServerArgs
    from .lang.sglang.gone import VertexAI as VertexAI
    from .lang.sglang.process import flush_cache as flush_cache
    from .lang.sglang.process import get_server_info as get_server_info
    from .lang.sglang.process import global_config as global_config
    from .lang.sglang.program_state import ProgramState as ProgramState
    from .lang.state import ForkGroup as ForkGroup
    from .lang.state import State as State
    from .lang.timeline import timeline as timeline
    from .lang.toolcalls import ToolResult as ToolResult
    from .lang.toolcalls import call_tools as call_tools
    from .lang.toolcalls import describe_tools as describe_tools
    from .lang.toolcalls import tool_message as tool_message
    from .lang.tools import Tool as Tool
    from .lang.tools import tool as tool
    from .runtime.chat import ChatTemplateWarning as ChatTemplateWarning
    from .runtime.choices import greedy_token_selection as greedy_token_selection
    from .runtime.choices import token_length_normalized as token_length_normalized
    from .runtime.choices import unconditional_likelihood_normalized as unconditional_likelihood_normalized
    from .runtime.prices import Prices as Prices
    from .runtime.request import SamplingParams as SamplingParams
    from .runtime.toolcall import ToolError as ToolError

__version__ = "0.1.0"

_HOMES = {
    "lang.embedding": ("embed",),
    "ir.errors": (
        "ChangedFileWarning", "OutputError", "RamifyError", "ReboundStateWarning", "RecordingError",
        "RecordingWarning", "ReplayMismatch", "UsageError",
    ),
    "lang.mcp": ("connect_mcp",),
    "lang.options": ("set_default_backend",),
    "lang.primitives": (
        "gen", "gen_int", "gen_string", "image", "score", "select", "system", "user", "assistant",
        "system_begin", "system_end", "user_begin", "user_end", "assistant_begin", "assistant_end",
        "separate_reasoning", "video",
    ),
    "lang.program": ("Program", "load", "program"),
    "lang.batch": ("Batch",),
    "lang.blocks": ("best_of_k",),
    "lang.cassettes": ("record", "replay"),
    "lang.confidence": ("confidence",),
    "lang.processors": ("processors",),
    "lang.run": ("Run",),
    "lang.sglang.engine": ("Engine", "Runtime"),
    "lang.sglang.function": ("SglFunction", "function"),
    "lang.sglang.gone": ("Crusoe", "LiteLLM", "ServerArgs", "VertexAI"),
    "lang.sglang.process": ("flush_cache", "get_server_info", "global_config"),
    "lang.sglang.program_state": ("ProgramState",),
    "lang.state": ("ForkGroup", "State"),
    "runtime.chat": ("ChatTemplateWarning",),
    "runtime.choices": (
        "greedy_token_selection", "token_length_normalized", "unconditional_likelihood_normalized",
    ),
    "lang.schema_tool": ("SchemaTool",),
    "lang.toolcalls": ("ToolResult", "call_tools", "describe_tools", "tool_message"),
    "lang.timeline": ("timeline",),
    "lang.tools": ("Tool", "tool"),
    "runtime.prices": ("Prices",),
    "runtime.request": ("SamplingParams",),
    "runtime.toolcall": ("ToolError",),
}  # fmt: skip
# These need packages of their own (`ramify[openai]`, `[anthropic]`), so `from ramify import *` leaves them out.
_EXTRA_HOMES = {
    "backends.anthropic": ("Anthropic",),
    "backends.endpoint": ("RuntimeEndpoint",),
    "backends.openai": ("OpenAI",),
}
# What IPython asks for.
_NOTEBOOK_HOMES = {"lang.notebook": ("load_ipython_extension", "unload_ipython_extension")}
_HOME = {name: home for home, names in (_HOMES | _EXTRA_HOMES | _NOTEBOOK_HOMES).items() for name in names}

__all__ = [name for names in _HOMES.values() for name in names]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        # With `name` and `obj`, Python says which name was probably meant.
        raise AttributeError(f"module 'ramify' has no attribute {name!r}", name=name, obj=sys.modules[__name__])
    home = import_module(f".{_HOME[name]}", __name__)
    value = home if name == "processors" else getattr(home, name)  # a module of functions
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
