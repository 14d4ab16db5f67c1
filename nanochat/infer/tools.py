"""
The tools a chat model may call. There is one: a calculator for numbers and for short strings.

It walks the syntax tree of one expression and knows every operation by name. Lengths are checked first, so
none takes long.
"""
import ast
import math
import operator

MAX_CODE_CHARS = 1000
MAX_DEPTH = 40
MAX_BITS = 1000  # of an integer: 300 digits, which still fit a float
MAX_STR = 1000

_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
              ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow,
              ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
              ast.Gt: operator.gt, ast.GtE: operator.ge,
              ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
              ast.UAdd: operator.pos, ast.USub: operator.neg, ast.Not: operator.not_}
_FUNCTIONS = {f.__name__: f for f in (abs, float, int, len, max, min, round, str)}
# Their results are no longer than what they are given; replace() is measured first.
_METHODS = set("capitalize count endswith find index isalpha isdigit islower isupper lower lstrip replace rstrip "
               "startswith strip title upper".split())


def run_tool(code) -> str:
    """The value of the expression `code` as text, or "error: ..."; never raises, never takes long."""
    try:
        if len(code) > MAX_CODE_CHARS:
            raise ValueError("expression too long")
        if "\\" in code:
            raise ValueError("no backslashes, please")
        return _show(_value(ast.parse(code.strip(), mode="eval").body))
    except ZeroDivisionError:
        return "error: division by zero"
    except OverflowError:
        return "error: number too large"
    except (SyntaxError, RecursionError, MemoryError):
        return "error: not an expression"
    except (TypeError, ValueError, IndexError) as e:
        return f"error: {e}"[:120]


def _show(value):
    """A float to 12 digits and without a needless '.0', a str without quotes."""
    if not isinstance(value, float):
        return str(value)
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else format(value, ".12g")


def _known(table, thing):
    """What `table` has for the type of a node or of a value."""
    if type(thing) not in table:
        raise ValueError(f"{type(thing).__name__} is not supported")
    return table[type(thing)]


def _value(node, depth=0):
    """The value of a node: int, float, bool or str within the caps; ValueError for anything else."""
    if depth > MAX_DEPTH:
        raise ValueError("expression too deep")

    def value(child):
        return _value(child, depth + 1)
    match node:
        case ast.Constant():
            result = node.value
        case ast.Name():
            raise ValueError(f"name {node.id!r} is not known")
        case ast.UnaryOp():
            result = _known(_OPERATORS, node.op)(value(node.operand))
        case ast.BinOp():
            result = _binary(node.op, value(node.left), value(node.right))
        case ast.BoolOp():
            for result in map(value, node.values):  # up to the operand that decides
                if bool(result) is isinstance(node.op, ast.Or):
                    break
        case ast.Compare():
            left = value(node.left)
            for op, right in zip(node.ops, map(value, node.comparators)):
                if not (result := _known(_OPERATORS, op)(left, right)):
                    break
                left = right
        case ast.Subscript():
            result = _subscript(value(node.value), node.slice, value)
        case ast.Call():
            result = _call(node, value)
        case _:
            raise ValueError(f"{type(node).__name__} is not supported")
    fits, problem = _known(_CAPS, result)
    if not fits(result):
        raise ValueError(problem)
    return result


def _binary(op, left, right):
    calculate = _known(_OPERATORS, op)
    if isinstance(left, str) or isinstance(right, str):
        if not isinstance(op, (ast.Add, ast.Mult)):  # '%' would format, at any width
            raise ValueError(f"{type(op).__name__} is not supported on strings")
        sizes = [len(x) if isinstance(x, str) else x for x in (left, right)]
        if isinstance(op, ast.Mult) and sizes[0] * sizes[1] > MAX_STR:
            raise ValueError("string too long")
    elif isinstance(op, ast.Pow) and isinstance(left, int) and isinstance(right, int):
        if abs(right) * left.bit_length() > MAX_BITS:
            raise ValueError("number too large")
    return calculate(left, right)


def _subscript(text, at, value):
    if not isinstance(text, str):
        raise ValueError("only strings can be indexed")
    if isinstance(at, ast.Slice):
        return text[slice(*(end and value(end) for end in (at.lower, at.upper, at.step)))]
    return text[value(at)]


def _call(node, value):
    if node.keywords or any(isinstance(a, ast.Starred) for a in node.args):
        raise ValueError("only plain arguments are supported")
    arguments = [value(a) for a in node.args]
    if isinstance(node.func, ast.Attribute):
        text, name = value(node.func.value), node.func.attr
        if not isinstance(text, str) or name not in _METHODS:
            raise ValueError(f"method {name!r} is not supported")
        if name == "replace" and len(arguments) > 1 and all(isinstance(a, str) for a in arguments[:2]):
            if len(text) + text.count(arguments[0]) * len(arguments[1]) > MAX_STR:
                raise ValueError("string too long")
        return getattr(text, name)(*arguments)
    name = getattr(node.func, "id", "")
    if name not in _FUNCTIONS:
        raise ValueError(f"function {name!r} is not supported")
    if name == "round" and len(arguments) > 1 and abs(arguments[1]) > MAX_BITS // 4:
        raise ValueError("too many digits")
    return _FUNCTIONS[name](*arguments)


_CAPS = {str: (lambda text: len(text) <= MAX_STR, "string too long"),
         float: (math.isfinite, "not a finite number"),
         int: (lambda number: number.bit_length() <= MAX_BITS, "number too large"), bool: (lambda _: True, "")}
