"""
Counts what makes code hard to read: nested conditionals, tuple juggling, long functions, nameless arguments.

    python tests/habits.py nanochat/train scripts/base_train.py    what stands in these files, with places

tests/test_structure.py holds the whole project to it.
"""
import ast
import io
import sys
import tokenize
from dataclasses import dataclass, field
from pathlib import Path

LONGEST_FUNCTION = 40  # lines; more wants a comment above it that begins with "# Long"
FIELD_NAMES = set("BTCHDVqkvx")  # one-letter names that the field itself uses
LOOPS = (ast.For, ast.AsyncFor, ast.comprehension)


@dataclass
class Habits:
    """Places are (path, line, what)."""

    lines: int = 0  # that are not blank
    comment_characters: int = 0
    characters: int = 0
    nested_conditionals: list = field(default_factory=list)
    tuple_assignments: list = field(default_factory=list)
    comprehensions: list = field(default_factory=list)
    long_functions: list = field(default_factory=list)
    nameless_arguments: list = field(default_factory=list)
    nameless_variables: list = field(default_factory=list)
    unannotated: list = field(default_factory=list)

    def per_thousand(self, places):
        return 1000 * len(places) / max(self.lines, 1)

    @property
    def comment_share(self):
        return self.comment_characters / max(self.characters, 1)


def count(paths) -> Habits:
    found = Habits()
    for path in paths:
        text = Path(path).read_text(encoding="utf-8")
        lines = text.splitlines()
        found.lines += sum(bool(line.strip()) for line in lines)
        found.characters += len(text)
        found.comment_characters += _comment_characters(text)
        _count_file(found, path, ast.parse(text), lines)
    return found


def _comment_characters(text):
    """Of comments, those behind code too; docstrings are counted with what they belong to."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return sum(len(token.string) for token in tokens if token.type == tokenize.COMMENT)


def _count_file(found, path, tree, lines):
    for node in ast.walk(tree):
        here = (path, getattr(node, "lineno", 0))
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            found.comment_characters += len(ast.get_docstring(node) or "")
        if isinstance(node, ast.IfExp):
            inside = [child for child in ast.walk(node) if isinstance(child, ast.IfExp) and child is not node]
            if inside:
                found.nested_conditionals.append((*here, ast.unparse(node)))
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
            if any(isinstance(target, ast.Tuple) for target in node.targets):
                found.tuple_assignments.append((*here, ast.unparse(node)))
        if isinstance(node, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            found.comprehensions.append((*here, ast.unparse(node)))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            _count_function(found, path, node, lines)
    for function in _public_functions(tree):
        _count_signature(found, path, function)


def _count_function(found, path, function, lines):
    first = min([function.lineno, *(d.lineno for d in function.decorator_list)])
    length = function.end_lineno - function.lineno + 1
    excused = first >= 2 and lines[first - 2].strip().startswith("# Long")
    if length > LONGEST_FUNCTION and not excused:
        found.long_functions.append((path, function.lineno, f"{function.name}: {length} lines"))
    in_loops = {name.id for node in ast.walk(function) if isinstance(node, LOOPS)
                for name in ast.walk(node.target) if isinstance(name, ast.Name)}
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and len(node.id) == 1:
            if node.id not in FIELD_NAMES | in_loops | {"_"}:
                found.nameless_variables.append((path, node.lineno, node.id))


def _public_functions(tree):
    """Functions and methods whose names, and whose classes' names, have no underscore in front."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith("_"):
            yield node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _public_functions(node)


def _count_signature(found, path, function):
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    named = [argument for argument in named if argument.arg not in ("self", "cls")]
    for argument in named:
        if len(argument.arg) == 1 and argument.arg not in FIELD_NAMES:
            found.nameless_arguments.append((path, function.lineno, f"{function.name}({argument.arg})"))
    missing = [argument.arg for argument in named if argument.annotation is None]
    if function.returns is None:
        missing.append("return")
    if missing:
        found.unannotated.append((path, function.lineno, f"{function.name}: {', '.join(missing)}"))


def main():
    paths = []
    for argument in sys.argv[1:]:
        path = Path(argument)
        paths += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    found = count(paths)
    for name in ("nested_conditionals", "tuple_assignments", "long_functions", "nameless_arguments",
                 "nameless_variables", "unannotated"):
        places = getattr(found, name)
        for path, line, what in places:
            print(f"{name}: {path}:{line}: {what}")
    for name in ("nested_conditionals", "tuple_assignments", "comprehensions", "long_functions", "nameless_arguments",
                 "nameless_variables", "unannotated"):
        places = getattr(found, name)
        print(f"{name:<22} {len(places):>4}, {found.per_thousand(places):5.1f} per 1,000 of {found.lines:,} lines")
    print(f"comments and docstrings are {found.comment_share:.1%} of all characters")


if __name__ == "__main__":
    main()
