"""
The tools a chat model may call. There is one: a calculator for numbers, short strings and short lists.

What it computes was written by a model, that is by anyone who talks to it, so Python's eval is out of the
question: through ().__class__ and the like any expression reaches files and the shell, whatever names are
taken away from it. Instead it walks the syntax tree of one expression and knows every operation by name; what
is not in its tables does not exist. Nor may an expression be expensive: it runs while others wait for their
next token. So text, depth, numbers and strings have caps, each size is checked before the operation that
would make it, and none takes long.
"""
import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

MAX_CODE_CHARS = 1000
MAX_DEPTH = 40  # of parentheses and the like; Python's own recursion limit is far away
MAX_BITS = 1000  # of an integer: 300 digits, which still fit a float
MAX_STR = 1000
MAX_ITEMS = 100  # of a list
MAX_ERROR_CHARS = 120  # the model reads the error, and its context is short

OPERATORS = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow,
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.In: lambda part, whole: part in whole, ast.NotIn: lambda part, whole: part not in whole,
    ast.UAdd: operator.pos, ast.USub: operator.neg, ast.Not: operator.not_,
}


def _numbers(first: int, last: int, step: int = 1) -> list[int]:
    """From first to last, both among them, up or down: who counts has only the two to copy."""
    direction = 1 if first <= last else -1
    row = range(first, last + direction, direction * abs(step))
    if len(row[: MAX_ITEMS + 1]) > MAX_ITEMS:
        raise ValueError("list too long")
    return list(row)


FUNCTIONS: dict[str, Callable] = {
    "abs": abs,
    "float": float,
    "int": int,
    "len": len,
    "max": max,
    "min": min,
    "numbers": _numbers,
    "round": round,
    "sorted": sorted,
    "str": str,
    "sum": sum,
}
# map(' banana'.count, 'aeiou'), [1, 0, ...]; filter('aeiou'.count, ' banana') are the vowels. Lists here, so
# that nothing is left to be computed later.
APPLIED: dict[str, Callable[[Callable, Any], list]] = {
    "filter": lambda test, items: [item for item in items if test(item)],
    "map": lambda function, items: [function(item) for item in items],
}
# Of strings. Their results are no longer than what they are given (ljust's are not); those of join and
# replace are measured first.
METHODS = {
    "capitalize",
    "count",
    "endswith",
    "find",
    "index",
    "isalpha",
    "isdigit",
    "islower",
    "isupper",
    "join",
    "lower",
    "lstrip",
    "replace",
    "rstrip",
    "split",
    "startswith",
    "strip",
    "title",
    "upper",
}


def _is_flat(items: list) -> bool:
    return len(items) <= MAX_ITEMS and not any(isinstance(item, list) for item in items)


# The types that a value may have, here and in between, and for each: what must be true of it, or what is
# wrong.
CAPS = {
    str: (lambda text: len(text) <= MAX_STR, "string too long"),
    float: (math.isfinite, "not a finite number"),
    int: (lambda number: number.bit_length() <= MAX_BITS, "number too large"),
    bool: (lambda _: True, ""),
    list: (_is_flat, "list too long"),
}


def run_tool(code: str) -> str:
    """The value of the expression `code` as text, or "error: ..."; never raises, never takes long."""
    try:
        if len(code) > MAX_CODE_CHARS:
            raise ValueError("expression too long")
        if "\\" in code:
            raise ValueError("no backslashes, please")
        tree = ast.parse(code.strip(), mode="eval")
        return _show(_value(tree.body))
    except ZeroDivisionError:
        return "error: division by zero"
    except OverflowError:
        return "error: number too large"
    except (SyntaxError, RecursionError, MemoryError):  # the parser's ways to give up
        return "error: not an expression"
    except (TypeError, ValueError, IndexError) as error:
        return f"error: {error}"[:MAX_ERROR_CHARS]


def _show(value: Any) -> str:
    """A float to 12 digits and without a needless '.0' (0.1 + 0.2 is 0.3), a str without quotes, a list
    without brackets."""
    if isinstance(value, list):
        shown = ", ".join(_show(item) for item in value)
        if len(shown) > MAX_STR:
            raise ValueError("list too long")
        return shown
    if not isinstance(value, float):
        return str(value)
    if value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return format(value, ".12g")


def _known(table: Mapping[Any, Any], thing: Any) -> Any:
    """What `table` has for the type of a node or of a value."""
    if type(thing) not in table:
        raise ValueError(f"{type(thing).__name__} is not supported")
    return table[type(thing)]


def _value(node: ast.expr, depth: int = 0) -> Any:
    """The value of a node: int, float, bool, str or a flat list within the caps; else ValueError."""
    if depth > MAX_DEPTH:
        raise ValueError("expression too deep")

    def value(child: ast.expr) -> Any:
        return _value(child, depth + 1)

    result: Any
    match node:
        case ast.Constant():
            result = node.value
        case ast.Name():
            raise ValueError(f"name {node.id!r} is not known")
        case ast.List():
            result = [value(item) for item in node.elts]
        case ast.UnaryOp():
            result = _known(OPERATORS, node.op)(value(node.operand))
        case ast.BinOp():
            result = _binary(node.op, value(node.left), value(node.right))
        case ast.BoolOp():
            result = _and_or(node, value)
        case ast.Compare():
            result = _compare(node, value)
        case ast.Subscript():
            result = _subscript(value(node.value), node.slice, value)
        case ast.Call():
            result = _call(node, value)
        case _:
            raise ValueError(f"{type(node).__name__} is not supported")

    fits, problem = _known(CAPS, result)
    if not fits(result):
        raise ValueError(problem)
    return result


def _binary(op: ast.operator, left: Any, right: Any) -> Any:
    """left op right, where the result's size can be told from the operands'."""
    calculate = _known(OPERATORS, op)
    if isinstance(left, list) or isinstance(right, list):
        raise ValueError(f"{type(op).__name__} is not supported on lists")
    if isinstance(left, str) or isinstance(right, str):
        if not isinstance(op, (ast.Add, ast.Mult)):  # '%' would format, at any width
            raise ValueError(f"{type(op).__name__} is not supported on strings")
        if isinstance(op, ast.Mult) and _size(left) * _size(right) > MAX_STR:
            raise ValueError("string too long")
    elif isinstance(op, ast.Pow) and isinstance(left, int) and isinstance(right, int):
        if abs(right) * left.bit_length() > MAX_BITS:  # 9**9**9 has 370 million digits
            raise ValueError("number too large")
    return calculate(left, right)


def _size(factor: Any) -> Any:
    """In 'ab' * 3 the 2 and the 3; of a list, the length of all its strings and of one more for each."""
    if isinstance(factor, list):
        return sum(1 + len(str(item)) for item in factor)
    return len(factor) if isinstance(factor, str) else factor


def _and_or(node: ast.BoolOp, value: Callable[[ast.expr], Any]) -> Any:
    """As in Python the operand that decides; those behind it are not computed."""
    decides = isinstance(node.op, ast.Or)
    for operand in node.values:
        result = value(operand)
        if bool(result) is decides:
            break
    return result


def _compare(node: ast.Compare, value: Callable[[ast.expr], Any]) -> Any:
    """As in Python 1 < 2 < 3 is 1 < 2 and 2 < 3."""
    left = value(node.left)
    for op, comparator in zip(node.ops, node.comparators):
        right = value(comparator)
        result = _known(OPERATORS, op)(left, right)
        if not result:
            break
        left = right
    return result


def _subscript(text: Any, at: ast.expr, value: Callable[[ast.expr], Any]) -> Any:
    """text[at], also with a slice."""
    if not isinstance(text, (str, list)):
        raise ValueError("only strings and lists can be indexed")
    if not isinstance(at, ast.Slice):
        return text[value(at)]
    ends = []
    for end in (at.lower, at.upper, at.step):
        ends.append(None if end is None else value(end))
    return text[slice(*ends)]


def _call(node: ast.Call, value: Callable[[ast.expr], Any]) -> Any:
    """A function of FUNCTIONS, or a string's method of METHODS, with plain arguments."""
    if node.keywords or any(isinstance(argument, ast.Starred) for argument in node.args):
        raise ValueError("only plain arguments are supported")
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    if name in APPLIED:
        return _applied(name, node.args, value)
    arguments = [value(argument) for argument in node.args]
    if isinstance(node.func, ast.Attribute):
        return _method(value(node.func.value), node.func.attr, arguments)

    if name not in FUNCTIONS:
        raise ValueError(f"function {name!r} is not supported")
    # Takes as long as 10**digits.
    if name == "round" and len(arguments) > 1 and abs(arguments[1]) > MAX_BITS // 4:
        raise ValueError("too many digits")
    return FUNCTIONS[name](*arguments)


def _applied(name: str, arguments: list[ast.expr], value: Callable[[ast.expr], Any]) -> list:
    """map or filter: a string's method, called with each letter of a string or each item of a list."""
    if len(arguments) != 2 or not isinstance(arguments[0], ast.Attribute):
        raise ValueError(f"{name} takes a string's method and what to call it with")
    method = arguments[0].attr
    text = value(arguments[0].value)
    items = value(arguments[1])
    if not isinstance(items, (str, list)) or len(items) > MAX_ITEMS:
        raise ValueError("list too long")
    return APPLIED[name](lambda item: _method(text, method, [item]), items)


def _method(text: Any, name: str, arguments: list[Any]) -> Any:
    if not isinstance(text, str) or name not in METHODS:
        raise ValueError(f"method {name!r} is not supported")
    if name == "join" and len(arguments) == 1 and (1 + len(text)) * _size(arguments[0]) > MAX_STR:
        raise ValueError("string too long")
    if (
        name == "replace"
        and len(arguments) > 1
        and all(isinstance(argument, str) for argument in arguments[:2])
    ):
        old, new = arguments[:2]
        if len(text) + text.count(old) * len(new) > MAX_STR:
            raise ValueError("string too long")
    return getattr(text, name)(*arguments)
