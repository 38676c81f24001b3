"""The checker accepts valid IR and names what is wrong with the rest: one invalid module, or more, for each rule."""

from __future__ import annotations

import linecache

import pytest
from ramify.ir.builder import Builder
from ramify.ir.core import Function, Module, Op, Region, Value
from ramify.ir.errors import VerifyError
from ramify.ir.ops import OPS
from ramify.ir.parser import parse
from ramify.ir.span import Span
from ramify.ir.types import CELL, OBJ, PROMPT, Type
from ramify.ir.verify import python_problem, verify

_HELPER = "func @helper(%s: cell, %n: obj) {\n  flow.return %n\n}\n"


def _module(body: str) -> Module:
    """A module whose main function, of a cell %s and an obj %x, has the body."""
    return parse(f"module @main\nfunc @main(%s: cell, %x: obj) {{\n{body}\n}}\n{_HELPER}")


def _error(module: Module, after: str | None = None) -> str:
    with pytest.raises(VerifyError) as caught:
        verify(module, after=after)
    return str(caught.value)


_RETURN = "flow.return %x"
_INVALID = {
    "unknown op": (
        f"%y = lm.dream %x : obj {_RETURN}",
        "there is no op lm.dream",
    ),
    "the operand of a hint": (
        f"%p = cell.load %s : prompt hint.warm %p, %x {{parts = [0, 1]}} {_RETURN}",
        "1 is no part of a prompt: a text, an operand's index, a name or a mark",
    ),
    "a choice that comes later": (
        f'%p = cell.load %s : prompt hint.warm %p {{parts = ["text", {{choice = "yes"}}]}} {_RETURN}',
        '{choice = "yes"} is no part of a prompt: a text, an operand\'s index, a name or a mark',
    ),
    "the parts of a hint": (
        f'%p = cell.load %s : prompt hint.warm %p {{parts = "text"}} {_RETURN}',
        "the parts of hint.warm are a list",
    ),
    "too few operands": (
        f"%y = py.unbox : obj {_RETURN}",
        "py.unbox takes 1 operand (obj), not 0",
    ),
    "too many operands": (
        f"%y = py.unbox %x, %x : obj {_RETURN}",
        "py.unbox takes 1 operand (obj), not 2",
    ),
    "too few operands of a repeating op": (
        f"%p = cell.load %s : prompt %q = lm.select %p : prompt {_RETURN}",
        "lm.select takes at least 2 operands (prompt, obj, obj...), not 1",
    ),
    "operand type": (
        f"%y = prompt.text %x : text {_RETURN}",
        "operand 1 of prompt.text must be prompt, not obj",
    ),
    "result type": (
        f"%y = py.list : prompt {_RETURN}",
        "py.list gives obj, not prompt",
    ),
    "result missing": (
        f"py.list {_RETURN}",
        "py.list gives obj, not none",
    ),
    "result too many": (
        f"%p = cell.load %s : prompt %y = cell.store %s, %p : obj {_RETURN}",
        "cell.store gives no result, not obj",
    ),
    "attribute missing": (
        f"%y = py.box %x : obj {_RETURN}",
        "py.box lacks its attribute name",
    ),
    "attribute unknown": (
        f'%y = py.box %x {{name = "a", size = 1}} : obj {_RETURN}',
        "py.box has no attribute size; it has name",
    ),
    "attribute unknown to an op without any": (
        f"%y = py.list {{size = 1}} : obj {_RETURN}",
        "py.list has no attribute size; it has none",
    ),
    "attribute of the wrong kind": (
        f"%y = py.box %x {{name = 1}} : obj {_RETURN}",
        "attribute name of py.box must be a str, not 1",
    ),
    "strs": (
        f'%y = py.expr %x {{code = "x", inputs = ["x", 1]}} : obj {_RETURN}',
        'attribute inputs of py.expr must be a list of str, not ["x", 1]',
    ),
    "bool": (
        f'%y = py.expr %x {{code = "x", inputs = ["x"], lazy = 1}} : obj {_RETURN}',
        "attribute lazy of py.expr must be a bool, not 1",
    ),
    "dict": (
        f"%p = cell.load %s : prompt %q = lm.gen %p {{params = []}} : prompt {_RETURN}",
        "attribute params of lm.gen must be a dict with str keys and plain values, not []",
    ),
    "regions": (
        f"flow.if %x {{ flow.yield }} {_RETURN}",
        "flow.if has 1 region, not 2",
    ),
    "regions of an op without any": (
        f"%y = py.list : obj {{ flow.yield }} {_RETURN}",
        "py.list has 1 region, not 0",
    ),
    "terminator in the middle": (
        f"{_RETURN} {_RETURN}",
        "flow.return must be the last op of its region",
    ),
    "terminator missing": (
        "%y = py.list : obj",
        "the body of a function must end in flow.return",
    ),
    "terminator missing from an empty region": (
        f"flow.if %x {{ }} else {{ flow.yield }} {_RETURN}",
        "a region of flow.if must end in flow.yield or flow.return",
    ),
    "function ends in something else": (
        "flow.yield %x",
        "flow.yield cannot end the body of a function; that ends in flow.return",
    ),
    "dynamic names but no operand": (
        f'%p = cell.load %s : prompt %q = lm.gen %p {{dynamic = ["seed"]}} : prompt {_RETURN}',
        "lm.gen names 1 dynamic operand but has 0",
    ),
    "an operand of a request without a name": (
        f'%c = lm.call %x {{op = "lm.gen"}} : obj {_RETURN}',
        "lm.call names 0 dynamic operands but has 1",
    ),
    "a try without its handlers' argument": (
        f"%y, %z = flow.try : obj, obj do {{ flow.yield }} except {{ flow.yield }} else {{ flow.yield }} finally "
        f"{{ flow.yield }} {_RETURN}",
        "the handlers of flow.try takes the exception, an obj",
    ),
    "a return inside of a try": (
        f"%y, %z = flow.try : obj, obj do {{ flow.return %x }} except (%e: obj) {{ flow.yield }} else {{ flow.yield }} "
        f"finally {{ flow.yield }} {_RETURN}",
        "flow.return cannot end the body of flow.try; that ends in flow.yield or flow.leave",
    ),
    "a return out of a loop inside of a try": (
        "%y, %z = flow.try : obj, obj do { flow.for %x do (%i: obj) { flow.return %x } flow.yield } "
        f"except (%e: obj) {{ flow.yield }} else {{ flow.yield }} finally {{ flow.yield }} {_RETURN}",
        "flow.return cannot end the body of flow.for; that ends in flow.yield or flow.continue or flow.break or "
        "flow.leave",
    ),
    "raising again outside of the handlers": (
        "%y, %z = flow.try : obj, obj do { flow.raise %x } except (%e: obj) { flow.yield } else { flow.yield } "
        f"finally {{ flow.yield }} {_RETURN}",
        "flow.raise cannot end the body of flow.try; that ends in flow.yield or flow.leave",
    ),
    "leaving outside of a try": (
        'flow.leave %x {kind = "return"}',
        "flow.leave cannot end the body of a function; that ends in flow.return",
    ),
    "leaving for a return of nothing": (
        '%y, %z = flow.try : obj, obj do { flow.leave {kind = "return"} } except (%e: obj) { flow.yield } else '
        f"{{ flow.yield }} finally {{ flow.yield }} {_RETURN}",
        "flow.leave for a return takes 1 operand, not 0",
    ),
    "leaving for a jump": (
        '%y, %z = flow.try : obj, obj do { flow.leave {kind = "jump"} } except (%e: obj) { flow.yield } else '
        f"{{ flow.yield }} finally {{ flow.yield }} {_RETURN}",
        'flow.leave is for a return, break or continue, not "jump"',
    ),
    "a write that is no output": (
        '%v = var.new %x : obj %y = py.block %v {code = "y = 1", inputs = [], writes = ["z"], outputs = ["y"]} : obj '
        f"{_RETURN}",
        "py.block writes z, which is none of its outputs",
    ),
    "a role twice": (
        f'%p = cell.load %s : prompt %q = prompt.role %p, %x {{role = "user", mark = "end", dynamic = ["role"]}} '
        f": prompt {_RETURN}",
        "prompt.role needs its role once, as an attribute or as a dynamic operand",
    ),
    "a variable without a name": (
        f"%p = cell.load %s : prompt %q = prompt.bind %p, %x : prompt {_RETURN}",
        "prompt.bind needs its name once, as an attribute or as a dynamic operand",
    ),
    "score without texts": (
        f"%p = cell.load %s : prompt %q = lm.score %p : prompt {_RETURN}",
        "lm.score takes at least 2 operands (prompt, obj, obj...), not 1",
    ),
    "dynamic operand without a name": (
        f"%p = cell.load %s : prompt %q = lm.select %p, %x, %x : prompt {_RETURN}",
        "lm.select names 0 dynamic operands but has 1",
    ),
    "host inputs": (
        f'%y = py.expr %x {{code = "x", inputs = ["x"], captures = ["c"]}} : obj {_RETURN}',
        "py.expr names 2 inputs, captures and writes, but has 1 operand",
    ),
    "host outputs": (
        f'%y = py.block {{code = "y = 1", inputs = [], outputs = ["y"], signals = True}} : obj {_RETURN}',
        "py.block must give 3 results, one for each output and two for signals, not 1",
    ),
    "host result type": (
        f'%y = py.block {{code = "y = 1", inputs = [], outputs = ["y"]}} : prompt {_RETURN}',
        "py.block passes (obj) where (prompt) is expected",
    ),
    "code of an expression": (
        f'%y = py.expr {{code = "pass", inputs = []}} : obj {_RETURN}',
        "the code of py.expr is not Python: invalid syntax",
    ),
    "code of statements": (
        f'%y = py.block {{code = "y = ", inputs = [], outputs = ["y"]}} : obj {_RETURN}',
        "the code of py.block is not Python: invalid syntax",
    ),
    "if yields too little": (
        f"%y = flow.if %x : obj {{ flow.yield %x }} else {{ flow.yield }} {_RETURN}",
        "flow.yield to a region of flow.if passes () where (obj) is expected",
    ),
    "if yields another type": (
        f"%y = flow.if %x : prompt {{ flow.return %x }} else {{ flow.yield %x }} {_RETURN}",
        "flow.yield to a region of flow.if passes (obj) where (prompt) is expected",
    ),
    "if with arguments": (
        f"flow.if %x (%i: obj) {{ flow.yield }} else {{ flow.yield }} {_RETURN}",
        "the regions of flow.if take no arguments",
    ),
    "for without an item": (
        f"flow.for %x do {{ flow.yield }} {_RETURN}",
        "the first argument of flow.for's body is the item, an obj",
    ),
    "for with a wrong start": (
        f"%p = flow.for %x, %x : prompt do (%i: obj, %q: prompt) {{ flow.yield %q }} {_RETURN}",
        "the start of flow.for passes (obj) where (prompt) is expected",
    ),
    "for with wrong arguments": (
        f"%p = flow.for %x, %x : obj do (%i: obj) {{ flow.yield %x }} {_RETURN}",
        "flow.for's body takes (), but the loop carries (obj)",
    ),
    "for with a wrong yield": (
        f"%p = flow.for %x, %x : obj do (%i: obj, %c: obj) {{ flow.yield }} {_RETURN}",
        "flow.yield to the body of flow.for passes () where (obj) is expected",
    ),
    "for that ends in a condition": (
        f"flow.for %x do (%i: obj) {{ flow.condition %x }} {_RETURN}",
        "flow.condition cannot end the body of flow.for; that ends in flow.yield or flow.continue or flow.break or "
        "flow.return",
    ),
    "while with a wrong start": (
        f"%c = flow.while : obj test (%a: obj) {{ flow.condition %x, %a }} do (%b: obj) {{ flow.yield %b }} {_RETURN}",
        "the start of flow.while passes () where (obj) is expected",
    ),
    "while with wrong test arguments": (
        f"%c = flow.while %x : obj test {{ flow.condition %x, %x }} do (%b: obj) {{ flow.yield %b }} {_RETURN}",
        "flow.while's test takes (), but the loop carries (obj)",
    ),
    "while with wrong body arguments": (
        "%c = flow.while %x : obj test (%a: obj) { flow.condition %x, %a } do (%b: text) { flow.break %b } "
        f"{_RETURN}",
        "flow.while's body takes (text), but the loop carries (obj)",
    ),
    "while with a wrong condition": (
        f"%c = flow.while %x : obj test (%a: obj) {{ flow.condition %x }} do (%b: obj) {{ flow.yield %b }} {_RETURN}",
        "flow.condition to the test of flow.while passes () where (obj) is expected",
    ),
    "while without a condition": (
        f"flow.while test {{ flow.yield }} do {{ flow.yield }} {_RETURN}",
        "flow.yield cannot end the test of flow.while; that ends in flow.condition",
    ),
    "break outside of a loop": (
        f"flow.if %x {{ flow.break }} else {{ flow.yield }} {_RETURN}",
        "flow.break cannot end a region of flow.if outside of any loop; that ends in flow.yield or flow.return",
    ),
    "break in the test of a loop": (
        "flow.for %x do (%i: obj) { flow.while test { flow.if %x { flow.break } else { flow.yield } "
        f"flow.condition %x }} do {{ flow.yield }} flow.yield }} {_RETURN}",
        "flow.break cannot end a region of flow.if outside of any loop; that ends in flow.yield",
    ),
    "break through an if": (
        "%y = flow.for %x, %x : obj do (%i: obj, %c: obj) { flow.if %x { flow.break } else { flow.yield } "
        f"flow.yield %c }} {_RETURN}",
        "flow.break to a region of flow.if passes () where (obj) is expected",
    ),
    "continue with another type": (
        "%p = cell.load %s : prompt %y = flow.for %x, %p : prompt do (%i: obj, %c: prompt) { flow.continue %x } "
        f"{_RETURN}",
        "flow.continue to the body of flow.for passes (obj) where (prompt) is expected",
    ),
    "forked value": (
        f"%y = prompt.fork %x, %x : obj {_RETURN}",
        "prompt.fork forks a prompt or a cell, not obj",
    ),
    "callee": (
        f'%y = flow.call {{callee = "gone"}} : obj {_RETURN}',
        "flow.call calls @gone, which does not exist; the module has @main, @helper",
    ),
    "callee of a body that runs as it is": (
        f'%y = py.call {{callee = "gone"}} : obj {_RETURN}',
        "py.call calls @gone, which does not exist; the module has @main, @helper",
    ),
    "a direct call that gives a parameter twice": (
        f'%y = flow.call %s, %s {{callee = "helper", keywords = ["c"], direct = True}} : obj {_RETURN}',
        "a direct flow.call of @helper gives each of its parameters one value at most",
    ),
    "a direct call that gives too much": (
        f'%y = flow.call %s, %x, %x {{callee = "helper", direct = True}} : obj {_RETURN}',
        "a direct flow.call of @helper gives each of its parameters one value at most",
    ),
    "a direct call with a keyword of nobody's": (
        f'%y = flow.call %s, %x {{callee = "helper", keywords = ["m"], direct = True}} : obj {_RETURN}',
        "a direct flow.call of @helper gives each of its parameters one value at most",
    ),
    "keywords": (
        f'%y = flow.call {{callee = "helper", keywords = ["n"]}} : obj {_RETURN}',
        "flow.call names 1 keyword but has 0 operands",
    ),
    "more keywords than operands of a host value": (
        f'%y = flow.invoke %x, %s {{keywords = ["a", "b"]}} : obj {_RETURN}',
        "flow.invoke names 2 keywords but has 1 operand",
    ),
    "cell parameter": (
        f'%y = flow.call %x, %x {{callee = "helper"}} : obj {_RETURN}',
        "@helper takes cell as s, not obj",
    ),
    "cell parameter by keyword": (
        f'%y = flow.call %x {{callee = "helper", keywords = ["s"]}} : obj {_RETURN}',
        "@helper takes cell as s, not obj",
    ),
}


@pytest.mark.parametrize("name", _INVALID)
def test_invalid_modules_are_refused_by_name(name: str) -> None:
    body, message = _INVALID[name]
    assert _error(_module(body)).split("error: ")[-1].split("\n")[0] == message


_VALID = {
    "a call by keyword": '%y = flow.call %s, %x {callee = "helper", keywords = ["n"]} : obj',
    "an obj carries anything": "%y = flow.for %x, %s : obj do (%i: obj, %c: obj) { flow.yield %s }",
    "branches leave loops": (
        "%y = flow.for %x, %x : obj do (%i: obj, %c: obj) {\n flow.if %c { flow.break %i } else {\n"
        " flow.if %c { flow.continue %i } else { flow.return %x }\n flow.yield }\n flow.yield %c }"
    ),
    "a try, and a loop that leaves it": (
        """%y, %z = flow.try : obj, obj do {
             flow.for %x do (%i: obj) {
               flow.if %i { flow.leave %i {kind = "return"} } else { flow.break }
               flow.yield
             }
             flow.leave {kind = "break"}
           } except (%e: obj) {
             flow.if %e { flow.raise %e } else { flow.yield }
             flow.yield
           } else { flow.yield } finally { flow.yield }"""
    ),
    "a dynamic name": ('%p = cell.load %s : prompt %y = prompt.bind %p, %x, %x {dynamic = ["name"]} : prompt'),
    "signals": '%y, %z, %w = py.block %x {code = "if x: return 1\\ny = 2", inputs = ["x"], outputs = ["y"], '
    "signals = True} : obj, obj, obj",
}


@pytest.mark.parametrize("name", _VALID)
def test_valid_modules_pass(name: str) -> None:
    verify(_module(f"{_VALID[name]} {_RETURN}"))


def test_every_rule_of_the_op_table_is_exercised() -> None:
    exercised = {op.name for body, _ in _INVALID.values() for op in _module(body).walk()}
    assert {name for name, declared in OPS.items() if declared.rule} <= exercised


def test_error_shows_source_line_ir_and_pass() -> None:
    source = "def richte(s):\n    s += größe('ß') + 日本\n"
    linecache.cache["richter.py"] = (len(source), None, source.splitlines(keepends=True), "richter.py")
    span = Span("richter.py", 2, 9, 2, 24)
    cell, question = Value(CELL, "s"), Value(OBJ, "größe")
    builder = Builder(Region([cell, question]), span)
    prompt = builder.value("cell.load", cell, hint="p")
    builder.op("cell.store", [cell, question])
    builder.op("flow.return", [prompt])
    module = Module({"richte": Function("richte", builder.region, ["s", "größe"])}, "richte")
    assert _error(module, after="dce") == (
        "richter.py:2\n"
        "        s += größe('ß') + 日本\n"
        "             ^^^^^^^^^^^^^^^^^\n"
        "error: operand 2 of cell.store must be prompt, not obj\n"
        "  in @richte, after the pass `dce`:\n"
        "    func @richte(%s: cell, %größe: obj) {\n"
        "      %p = cell.load %s : prompt\n"
        "  >   cell.store %s, %größe\n"
        "      flow.return %p\n"
        "    }"
    )


def test_error_without_span_marks_the_op_in_its_region() -> None:
    module = _module(f"%l = py.list : obj flow.if %x {{ py.push %l, %x flow.break }} else {{ flow.yield }} {_RETURN}")
    assert _error(module) == (
        "flow.break cannot end a region of flow.if outside of any loop; that ends in flow.yield or flow.return\n"
        "  in @main:\n"
        "      %l = py.list : obj\n"
        "      flow.if %x {\n"
        "        py.push %l, %x\n"
        "  >     flow.break\n"
        "      } else {\n"
        "        flow.yield\n"
        "      }"
    )


def _function(ops: list[Op], args: list[Value]) -> Module:
    return Module({"f": Function("f", Region(args, ops), [f"a{i}" for i in range(len(args))])}, "f")


def test_value_used_before_its_definition() -> None:
    value = Value(OBJ, "later")
    use, definition = Op("flow.return", [value]), Op("py.list", [], [value])
    message = "operand 1 of flow.return (%later) is used before any op defines it\n"
    assert _error(_function([use], [])).startswith(message)
    box = Op("py.unbox", [value], [Value(OBJ)])
    assert _error(_function([box, definition, use], [])).startswith(message.replace("flow.return", "py.unbox"))


def test_value_of_a_region_that_has_ended() -> None:
    inner = Value(OBJ, "inner")
    branch = Region([], [Op("py.list", [], [inner]), Op("flow.yield")])
    condition = Value(OBJ, "c")
    op = Op("flow.if", [condition], regions=[branch, Region([], [Op("flow.yield", [])])])
    message = "operand 1 of flow.return (%inner) is not visible here: the region that defines it has ended\n"
    assert _error(_function([op, Op("flow.return", [inner])], [condition])).startswith(message)


def test_value_of_another_function() -> None:
    other = Value(OBJ, "other")
    module = _function([Op("flow.return", [other])], [other])
    module.functions["g"] = Function("g", Region([], [Op("flow.return", [other])]), [])
    assert "operand 1 of flow.return (%other) is used before any op defines it" in _error(module)


def test_value_defined_twice() -> None:
    value = Value(OBJ, "twice")
    ops = [Op("py.list", [], [value]), Op("py.list", [], [value]), Op("flow.return", [value])]
    assert _error(_function(ops, [])).startswith("the value %twice is defined twice\n")


@pytest.mark.parametrize("bad", [Type("list"), Type("number"), Type("obj", OBJ), "obj"])
def test_unknown_types(bad: Type) -> None:
    value = Value(bad, "v")
    assert _error(_function([Op("flow.return", [value])], [value])).startswith(f"%v has the unknown type {bad}\n")


@pytest.mark.parametrize("value", [(1, 2), {1: 2}, b"x", 1j, [object()], type("Int", (int,), {})(3)])
def test_attributes_hold_plain_values_only(value: object) -> None:
    constant = Op("py.const", [], [Value(OBJ)], {"value": value})
    error = _error(_function([constant, Op("flow.return", constant.results)], []))
    assert error.startswith("attribute value of py.const must be a plain value (None, bool, int, float, str, list")


def test_huge_int_in_an_error() -> None:
    argument = Value(OBJ)
    box = Op("py.box", [argument], [Value(OBJ)], {"name": 10**5000})
    error = _error(_function([box, Op("flow.return", [argument])], [argument]))
    assert "must be a str, not 0x" in error.split("\n")[0]


def test_module_level_rules() -> None:
    def module(**changes: object) -> Module:
        made = _module(_RETURN)
        for name, value in changes.items():
            setattr(made, name, value)
        return made

    missing = "the entry function @gone does not exist; the module has @main, @helper"
    assert _error(module(entry="gone")) == missing
    assert _error(module(entry="gone"), after="inline") == missing + ", after the pass `inline`"
    renamed = module()
    renamed.functions["other"] = renamed.functions.pop("helper")
    assert _error(renamed) == "the module lists @helper under the name @other"
    assert _error(module(constants={"k": {1}})) == "the constant k is <{1}>, which a module cannot hold"
    assert _error(module(imports={"k": 1})) == "the source or import of k is 1, not a str"


def test_parameter_names() -> None:
    module = _module(_RETURN)
    module.functions["main"].param_names = ["s"]
    assert _error(module).startswith("1 parameter name for 2 parameters\n  in @main:\n  > func @main(")
    module.functions["main"].param_names = ["s", "s"]
    assert _error(module).startswith("two parameters of the same name in s, s\n")


def test_too_deep_nesting() -> None:
    region = Region([], [Op("flow.yield")])
    condition = Value(OBJ)
    for _ in range(2000):
        region = Region(
            [], [Op("flow.if", [condition], regions=[region, Region([], [Op("flow.yield")])]), Op("flow.yield")]
        )
    region.ops[-1] = Op("flow.return", [condition])
    module = _function(region.ops, [condition])
    assert _error(module) == "@f nests regions too deeply"


_EXPRESSIONS = ["a", " a\n  + b", "a, b", "(x for x in y)", "'\\d'", "await a", "(a := 1)", "a # größe", "1 is 1"]
_NO_EXPRESSIONS = ["", " # a", "a) + (b", "a] + [b", "a = 1", "pass", "x for x in y", "a\nb", "\0", "\ud800"]
_STATEMENTS = [
    "a = 1",
    "    a = 1\n    b = '''\nx'''\n",
    "\tif a:\n\t\tbreak",
    "\n  a = 1",
    "return 1",
    "'\\d'",
    "await a",
    "# a",
]
_NO_STATEMENTS = ["a =", "  a = 1\nb = 2", "a = 1\n  b = 2", "if a:", "\0", "  a\nelse:\n  b", "\ud800"]


@pytest.mark.parametrize("code", _EXPRESSIONS)
def test_expressions(code: str) -> None:
    assert python_problem(code, "expression") is None


@pytest.mark.parametrize("code", _NO_EXPRESSIONS)
def test_what_is_no_expression(code: str) -> None:
    assert python_problem(code, "expression") is not None


@pytest.mark.parametrize("code", _STATEMENTS)
def test_statements(code: str) -> None:
    assert python_problem(code, "statements") is None


@pytest.mark.parametrize("code", _NO_STATEMENTS)
def test_what_are_no_statements(code: str) -> None:
    assert python_problem(code, "statements") is not None


def test_lists_give_their_elements_to_loops() -> None:
    prompts, body = Value(Type("list", PROMPT), "ps"), Region([Value(PROMPT, "p")], [Op("flow.yield")])
    loop = Op("flow.for", [prompts], regions=[body])
    verify(_function([loop, Op("flow.return", [prompts])], [prompts]))
    body.args = [Value(CELL, "p")]
    assert "the item, an obj" in _error(_function([loop, Op("flow.return", [prompts])], [prompts]))
