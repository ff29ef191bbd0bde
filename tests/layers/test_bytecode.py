"""What is read of Python code, the same under every Python that is supported."""

import dis

import pytest

from buttress.layers import opcodes
from buttress.layers.bytecode import read_code, read_instructions


def text(expression):
    """An expression as it is written, of local names what they are set to."""
    if expression is None:
        return "?"
    parts = [text(part) for part in expression.parts]
    if expression.kind in ("name", "constant", "code"):
        return {"name": str(expression.value), "constant": repr(expression.value), "code": "code"}[expression.kind]
    if expression.kind == "attribute":
        return f"{parts[0] if parts else '?'}.{expression.value}"
    return f"{expression.kind}({', '.join(parts)})"


def function(*lines):
    names = {}
    exec("\n    ".join(("def f(self, x, y, layers):", *lines)), names)
    return names["f"].__code__


def callees(code):
    return [text(call.callee) for call in read_code(code).calls]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["return x + y(x)"], ["y"]),  # two local names at once
        (["return self.act(x, y(x, layers))"], ["y", "self.act"]),
        (["return x & y(self, x, layers)"], ["y"]),
        (["for a, b in layers: x = a(x, b)"], ["a"]),
        (["a, b = layers", "return a(x, b(y))"], ["b", "a"]),
        (["return self.act(x, inplace=True)"], ["self.act"]),
        (["return self.f(x and y, self.g(x) or y, self.h(y))"], ["self.g", "self.h", "self.f"]),
        (["return self.f(x, 0 < y < 1, self.g(y))"], ["self.g", "self.f"]),
        (["return self.parts[1:](x)"], ["item(self.parts, slice(1, None))"]),
        (["return self.f(self.a(x) if y else self.b(x))"], ["self.a", "self.f", "self.b"]),  # its end is written twice
        (["try: x = self.a(x)", "finally: y = self.b(y)", "return self.c(x)"], ["self.a", "self.b", "self.c"]),
    ],
)
def test_callees(lines, expected):
    assert sorted(callees(function(*lines))) == sorted(expected)


@pytest.mark.parametrize(
    "call",
    ["self.f(x, [y(x) for y in layers])", "self.f({y(x) for y in layers})", "self.f({x: y(x) for y in layers})"],
)
def test_a_comprehension_is_read_where_it_is_or_as_code_of_its_own(call):
    code = function("before = self.g(x)", f"return {call}(before)")
    inside = [c for c in code.co_consts if isinstance(c, type(code))]
    read = [part for part in (code, *inside) for part in read_code(part).calls]
    (inner,) = [call for call in read if text(call.callee) == "y"]
    (elements,) = inner.callee.parts
    assert text(elements) in ("item(layers)", "item(.0)")
    assert text(read_code(code).calls[-1].callee).startswith("result(self.f, ")
    assert all("layers" not in part for part in read_code(code).locals)


def test_a_name_is_again_what_it_was_before_a_comprehension():
    code = function("z = self.a", "h = [z(x) for z in layers]", "return z(h)")
    last = read_code(code).calls[-1].callee
    assert text(last) == "z"
    assert [text(part) for part in last.parts] == ["self.a"]


def test_the_end_of_a_function_that_is_written_twice_is_one_place():
    code = function("return self.head(self.f(self.a(x) if y else self.b(x)))")
    read = read_code(code)
    (call,) = [call for call in read.calls if text(call.callee) == "self.f"]
    assert all(read.call_at(offset) is call for offset, _ in call.spans)
    order = read.before({call.offset for call in read.calls})
    names = {text(call.callee): order[call.offset] for call in read.calls}
    assert names == {"self.a": 0, "self.b": 0, "self.f": 1, "self.head": 2}


@pytest.mark.parametrize("at", [0, 3, -1])
def test_an_instruction_that_is_not_known_is_not_guessed_at(at):
    """No number is better than a wrong one: names are counted by run then."""
    code = function("return self.act(self.act(x))")
    instructions = list(dis.get_instructions(code))
    assert len(read_instructions(instructions, len(code.co_code)).calls) == 2
    instructions[at] = instructions[at]._replace(opname="LOAD_FAST_AND_CALL")
    assert "LOAD_FAST_AND_CALL" not in opcodes.KNOWN
    read = read_instructions(instructions, len(code.co_code))
    assert read.calls == ()
    assert read.call_at(instructions[3].offset) is None


def test_this_python_is_known():
    """Every instruction that the code of this test's own file is made of."""
    assert all(i.opname in opcodes.KNOWN for f in (text, function, callees) for i in dis.get_instructions(f))
