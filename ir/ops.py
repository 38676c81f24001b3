"""The op set, declared as data: what each op takes, gives and means. The verifier reads this table.

Operand signatures are comma lists of types; a trailing `...` repeats the last one any number of times. A result
signature of `*` means the op's own rule decides (see `rule` and verify.py). Attributes marked `?` may be absent.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class OpDef:
    """The declaration of one op.

    attrs: name -> kind ("str", "int", "bool", "strs", "dict", "json"; a trailing "?" makes it optional).
    regions: how many. terminator: ends its region. silent: can neither fail nor be seen, so that it may be dropped when
    nobody uses its result. rule: the name of an extra check in verify.py.
    """

    name: str
    operands: str
    results: str
    doc: str
    attrs: dict[str, str] = field(default_factory=dict)
    regions: int = 0
    terminator: bool = False
    silent: bool = False
    rule: str = ""


_DECLARED = (
    # Prompts are values: each of these leaves its operand valid and makes a new prompt.
    OpDef("prompt.empty", "", "prompt", "The prompt with no segments.", silent=True),
    OpDef(
        "prompt.append",
        "prompt, obj",
        "prompt",
        "Append a text or any value that renders as one (an expression).",
        {"share": "bool?", "keep": "bool?", "plan": "strs?"},
    ),
    OpDef("prompt.part", "obj", "", "Check that a value is a text or an expression, so that it can be appended."),
    OpDef(
        "prompt.role",
        "prompt, obj...",
        "prompt",
        "Begin or end a chat message of a role, which is an attribute or an operand.",
        {"role": "str?", "mark": "str", "dynamic": "strs?"},
        rule="named",
    ),
    OpDef("prompt.item", "prompt", "prompt", "The end of an item of an unordered group.", silent=True),
    OpDef(
        "prompt.group",
        "prompt, prompt",
        "prompt",
        "The end of an unordered group that began at the second prompt: its items may stand in any order. With "
        "`reorder` the rows of a batch put first what they share, of that first the `constants`.",
        {"reorder": "bool?", "constants": "strs?"},
    ),
    OpDef("prompt.image", "prompt, obj", "prompt", "Append an image: a path, a URL, bytes, or an image of PIL."),
    OpDef("prompt.video", "prompt, obj, obj", "prompt", "Append a video, and how many frames of it are looked at."),
    OpDef(
        "prompt.bind",
        "prompt, obj, obj...",
        "prompt",
        "Bind a variable, named by an attribute or an operand, without appending text.",
        {"name": "str?", "dynamic": "strs?"},
        rule="named",
    ),
    OpDef("prompt.get", "prompt", "obj", "Read a variable; the value may still be on its way.", {"name": "str"}),
    OpDef("prompt.text", "prompt", "text", "The whole text; may still be on its way."),
    OpDef("prompt.since", "prompt, prompt", "text", "The text appended since; may still be on its way."),
    OpDef("prompt.messages", "prompt", "obj", "The chat messages so far; may still be on their way."),
    OpDef(
        "prompt.fork",
        "obj, obj",
        "obj",
        "A group of n new cells that hold this prompt, or that of this cell. With "
        "`joins` the group's join may store to the cell.",
        {"joins": "bool?"},
        rule="fork",
    ),
    OpDef("prompt.branch", "prompt", "prompt", "A copy's prompt: the same, on a branch of its own."),
    # The model. `name` binds the result in the new prompt; `params` are constant arguments; `dynamic` names those that
    # come as operands after the fixed ones, in order; with `share` the answer of an equal request will do;
    # `keep` says whether a later op of the model may begin with the result; with `plan` the request is planned with
    # those that come at the same time, and it names the parameters that the prompts are made of by then. All three
    # also go for what `prompt.append` may ask for.
    OpDef(
        "lm.gen",
        "prompt, obj...",
        "prompt",
        "Generate text after the prompt.",
        {"name": "str?", "params": "dict?", "dynamic": "strs?", "share": "bool?", "keep": "bool?", "plan": "strs?"},
        rule="dynamic",
    ),
    OpDef(
        "lm.select",
        "prompt, obj, obj...",
        "prompt",
        "Append the most likely of a list of choices.",
        {"name": "str?", "params": "dict?", "dynamic": "strs?", "share": "bool?", "keep": "bool?", "plan": "strs?"},
        rule="dynamic",
    ),
    OpDef(
        "lm.score",
        "prompt, obj, obj...",
        "prompt",
        "Bind the log-probability of a text after the prompt, or those of a list of texts; append nothing.",
        {"name": "str?", "params": "dict?", "dynamic": "strs?", "share": "bool?", "plan": "strs?"},
        rule="dynamic",
    ),
    OpDef(
        "lm.call",
        "obj...",
        "obj",
        "Check the arguments of a request, all of which are attributes or dynamic operands, before something else "
        "happens. `op` is the op of the model that takes the result as its dynamic operand `call`.",
        {"op": "str", "name": "str?", "params": "dict?", "dynamic": "strs?"},
        rule="dynamic",
    ),
    # Hints change nothing that can be noticed; only passes make them. A part is a text, the index of an operand after
    # the first, {role, mark}, {global}: a name from outside of the function ({global, of}: of an inlined one), or,
    # as the first one, {choice}: what the choice that the prompt ends in is supposed to be.
    OpDef(
        "hint.warm",
        "prompt, obj...",
        "",
        "What may be asked for next begins with this prompt and these `parts` (texts, operands by index, names from "
        "outside, role marks, a choice), so that a backend may prefill it. With `open` it goes on in a way that is "
        "not known. With `brief` there is no time for it once the op before is done.",
        {"parts": "json", "open": "bool?", "brief": "bool?"},
        rule="warm",
    ),
    # Cells: the user's State objects.
    OpDef("cell.new", "prompt", "cell", "A new cell that holds the prompt."),
    OpDef("cell.load", "cell", "prompt", "The prompt a cell holds now.", silent=True),
    OpDef("cell.store", "cell, prompt", "", "Make a cell hold another prompt."),
    OpDef("cell.of", "obj", "cell", "Check that a host value is a State."),
    # Host code, executed by CPython. `code` is the user's source text; `inputs` names the operands, then come the
    # boxes of `captures`. A lazy expression may be evaluated later, once its inputs have arrived.
    OpDef("py.const", "", "obj", "A constant.", {"value": "json"}, silent=True),
    OpDef(
        "py.unbound", "", "obj", "The state of a local variable before it is assigned.", {"name": "str"}, silent=True
    ),
    OpDef("py.box", "obj", "obj", "A variable shared with nested functions.", {"name": "str"}),
    OpDef("py.unbox", "obj", "obj", "The value in a box."),
    # A variable that a try assigns: an exception may come between any two of its values.
    OpDef("var.new", "obj", "obj", "A variable with its first value (or py.unbound).", silent=True),
    OpDef("var.get", "obj", "obj", "The value of a variable now.", silent=True),
    OpDef("var.set", "obj, obj", "", "Give a variable another value."),
    OpDef(
        "py.expr",
        "obj...",
        "obj",
        "Evaluate an expression. States named in `reads` are only read by it. With `ahead`, what follows need not "
        "wait for it. With `pure` it calls a pure tool, whose value is a 'text', a 'scalar' or an 'object'.",
        {
            "code": "str",
            "inputs": "strs",
            "captures": "strs?",
            "reads": "strs?",
            "lazy": "bool?",
            "ahead": "bool?",
            "pure": "str?",
        },
        rule="host",
    ),
    OpDef(
        "py.block",
        "obj...",
        "*",
        "Execute statements; results are the variables in `outputs`. With `signals`, two "
        "more results follow: None, 'return', 'break' or 'continue', and the returned value. The outputs in `writes` "
        "also go to variables (the last operands), as far as they were assigned even when the code raises. `outer` "
        "names the variables outside of the function that it assigns.",
        {
            "code": "str",
            "inputs": "strs",
            "captures": "strs?",
            "reads": "strs?",
            "writes": "strs?",
            "outer": "strs?",
            "outputs": "strs",
            "signals": "bool?",
            "ahead": "bool?",
        },
        rule="host",
    ),
    OpDef(
        "py.call",
        "obj...",
        "obj",
        "Run the Python body of a function of this module as it is (eagerly).",
        {"callee": "str"},
        rule="callee",
    ),
    OpDef(
        "py.default",
        "",
        "obj",
        "What a parameter of a function holds when no argument is given for it; the function may have been inlined.",
        {"callee": "str", "name": "str"},
        silent=True,
    ),
    OpDef("py.bound", "obj", "", "Check that a variable is assigned."),
    OpDef(
        "py.catches", "obj, obj", "obj", "Whether `except` with this class or tuple of classes catches an exception."
    ),
    OpDef("py.list", "", "obj", "A new list that a comprehension fills."),
    OpDef("py.push", "obj, obj", "", "Append to such a list; the item may still be on its way."),
    OpDef("py.collect", "obj", "obj", "The list with every item arrived."),
    OpDef("py.dict", "obj, obj", "obj", "The dict of a list of keys, each in a dict of its own, and one of values."),
    # Control flow. Loops carry values: operands after the fixed ones start them, region arguments hold them,
    # terminators pass them on, results are their last values.
    OpDef(
        "flow.if",
        "obj",
        "*",
        "Run the first region if the condition is true, else the second. `ahead` is as for host code.",
        {"ahead": "bool?"},
        regions=2,
        rule="if",
    ),
    OpDef(
        "flow.for",
        "obj, obj...",
        "*",
        "Run the region for each item; its first argument is the item. With `apart`, a turn need not end before "
        "the next begins, as far as nobody can tell.",
        {"ahead": "bool?", "apart": "bool?"},
        regions=1,
        rule="for",
    ),
    OpDef(
        "flow.while",
        "obj...",
        "*",
        "Region 0 ends in flow.condition, region 1 is the body.",
        {"ahead": "bool?"},
        regions=2,
        rule="while",
    ),
    OpDef(
        "flow.try",
        "",
        "obj, obj",
        "Run region 0; then region 2, or region 1 with the exception that was raised; then region 3 whatever happened. "
        "Gives None, 'return', 'break' or 'continue', and the returned value.",
        {"ahead": "bool?"},
        regions=4,
        rule="try",
    ),
    OpDef(
        "flow.call",
        "obj...",
        "obj",
        "Call a function of this module; `keywords` names the last operands. With `method`, "
        "the first operand is an object that was expected to have the function under this name; if it has not, what it "
        "has is called as Python. `direct` says that operands and defaults give each parameter one value, and that the "
        "function is no coroutine.",
        {"callee": "str", "keywords": "strs?", "method": "str?", "direct": "bool?", "ahead": "bool?"},
        rule="call",
    ),
    OpDef(
        "flow.invoke",
        "obj, obj...",
        "obj",
        "Call a host value; `keywords` names the last operands. A program runs its compiled form on the states it is "
        "given, anything else as Python.",
        {"keywords": "strs?"},
        rule="keywords",
    ),
    OpDef(
        "flow.yield",
        "obj...",
        "",
        "End a region of flow.if or flow.try, or a loop body, with its values.",
        terminator=True,
    ),
    OpDef("flow.condition", "obj, obj...", "", "End a while's region 0: go on?, carried values.", terminator=True),
    OpDef("flow.break", "obj...", "", "Leave the innermost loop with its carried values.", terminator=True),
    OpDef("flow.continue", "obj...", "", "Go to the innermost loop's next turn.", terminator=True),
    OpDef("flow.return", "obj", "", "Leave the function with a value.", terminator=True),
    OpDef(
        "flow.leave",
        "obj...",
        "",
        "Leave the innermost flow.try, which says that it was for a 'return' (of the operand), 'break' or 'continue'.",
        {"kind": "str"},
        terminator=True,
        rule="leave",
    ),
    OpDef("flow.raise", "obj", "", "Go on raising the exception that a flow.try has caught.", terminator=True),
)

OPS: dict[str, OpDef] = {declaration.name: declaration for declaration in _DECLARED}
