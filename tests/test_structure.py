"""
The house plan, held: arrows point down, rooms stay small, the code keeps its habits, and what the plan forbids is nowhere.
"""
import ast
import importlib
import os
import re
import subprocess
import sys
from collections import defaultdict

import habits
import pytest
from conftest import ROOT

from nanochat.cli import build_parser
from nanochat.report.inventory import CODE, code_files, code_size

# The rooms, from the ground up: each imports only from those before it. Within a folder anything goes but circles.
ROOMS = ["terminal", "common", "cli", "scaling", "budget", "runtime", "memory", "model", "kindergarten", "data", "infer",
         "tasks", "eval", "train", "report", "serve", "dataset", "scripts"]
NO_TORCH = ["terminal", "common", "cli", "scaling", "budget", "kindergarten", "report", "report.inventory"]
SCRIPTS = ["tok_train", "tok_eval", "base_train", "base_loss", "base_eval", "mid_train", "chat_sft", "chat_rl", "chat_eval",
           "chat_cli", "chat_web", "plan", "probe", "export", "import_hf"]
DOORS = [f"scripts.{name}" for name in SCRIPTS] + ["nanochat.dataset", "nanochat.report"]

PACKAGE = sorted((ROOT / "nanochat").rglob("*.py"))
MODULES = sorted([*PACKAGE, *(ROOT / "scripts").glob("*.py")])
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}
TESTS = sorted((ROOT / "tests").glob("*.py"))
PYTHON = [*MODULES, *TESTS, *sorted((ROOT / "benchmarks").rglob("*.py")), *sorted((ROOT / "dev").rglob("*.py"))]
SHELL = [ROOT / "speedrun.sh", ROOT / "test.sh", *sorted((ROOT / "dev").glob("*.sh")), *sorted((ROOT / "runs").glob("*.sh"))]
PAGE = sorted(path for path in (ROOT / "nanochat" / "serve" / "page").iterdir() if path.suffix in (".html", ".css", ".js"))


def where(path, node=None):
    return f"{path.relative_to(ROOT)}{f':{node.lineno}' if node else ''}"


def room(path):
    """The room a file belongs to: nanochat/cli.py is cli, all of nanochat/model/ is model, scripts/x.py is scripts."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return "scripts" if parts[0] == "scripts" else parts[1]


def imports(path):
    """(room or outside package, node, top package) of everything a file imports, inside functions too."""
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{where(path, node)}: imports are absolute"
            names = [node.module]
            if node.module in ("nanochat", "scripts"):          # from nanochat import scaling
                names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            yield parts[1 if parts[0] == "nanochat" else 0], node, parts[0]


# -------------------------------------------------------------------------------------------------------------- arrows
def test_the_rooms_are_those_of_the_plan():
    found = {room(path) for path in MODULES if path != ROOT / "nanochat" / "__init__.py"}
    assert found == set(ROOMS)


def test_arrows_point_down():
    wrong = []
    for path in MODULES:
        if path == ROOT / "nanochat" / "__init__.py":
            continue
        here = room(path)
        for target, node, top in imports(path):
            if top == "nanochat" and target != here and ROOMS.index(target) > ROOMS.index(here):
                wrong.append(f"{where(path, node)}: {here} imports {target}, which stands above it")
    assert not wrong, "\n".join(wrong)


def test_no_script_is_imported():
    wrong = [where(path, node) for path in MODULES for _, node, top in imports(path) if top == "scripts"]
    assert not wrong, f"what two doors share belongs into nanochat/: {wrong}"


def test_the_ground_and_the_kindergarten_stand_on_the_standard_library():
    allowed = {*sys.stdlib_module_names, "nanochat"}
    exceptions = {("common", "filelock"), ("terminal", "rich")}
    wrong = []
    for path in MODULES:
        if room(path) in ("terminal", "common", "cli", "kindergarten"):
            for _, node, top in imports(path):
                if top not in allowed and (room(path), top) not in exceptions:
                    wrong.append(f"{where(path, node)}: {top}")
    assert not wrong, wrong


def test_what_the_ground_borrows_is_imported_where_it_is_used(python):
    done = python("-c", "import sys, nanochat.common; print({'filelock', 'rich', 'asyncio'} & set(sys.modules))")
    assert done.stdout == "set()\n", done.stdout + done.stderr


@pytest.mark.parametrize("name", NO_TORCH)
def test_import_needs_no_torch(name, python):
    done = python("-c", f"import sys, nanochat.{name}; print('torch' in sys.modules)")
    assert done.stdout == "False\n", done.stdout + done.stderr


def test_import_does_nothing(tmp_path, base):
    """Importing every module asks no device, makes no folder, prints nothing and sets up no logging."""
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in MODULES
             if path.name not in ("sandbox_child.py", "for_transformers.py")]
    code = f"""
import importlib, logging, sys
for name in {names!r}:
    importlib.import_module(name)
import torch
assert not torch.cuda.is_initialized(), "CUDA was initialised"
assert not torch.distributed.is_initialized(), "torch.distributed was initialised"
assert not logging.getLogger("nanochat").handlers, "logging was set up"
assert torch.get_default_dtype() == torch.float32, "the default dtype was changed"
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not base.exists() and list(tmp_path.iterdir()) == []


# --------------------------------------------------------------------------------------------------------------- sizes
@pytest.mark.parametrize("path", PYTHON + SHELL + PAGE, ids=where)
def test_a_file_can_be_read_in_one_sitting(path):
    """The aim is 250 lines. Columns: ruff holds the code to 110, this the page, shell and tests."""
    lines = path.read_text(encoding="utf-8").splitlines()
    room_for = 600 if path in TESTS else 400
    assert len(lines) <= room_for, f"{where(path)} has {len(lines)} lines, room for {room_for}"
    columns = 120 if path in PAGE else 132
    long = [number for number, line in enumerate(lines, 1) if len(line) > columns]
    by_ruff = path.suffix == ".py" and path not in TESTS
    assert by_ruff or not long, f"{where(path)}: lines of more than {columns} columns: {long}"


def must_be_read():
    """(characters, the biggest files) of what a reader must read."""
    total = {kind: characters for kind, _, _, characters in code_size()}[CODE]
    files = [path for path, kind in code_files() if kind == CODE]
    biggest = sorted(((len(path.read_text(encoding="utf-8")), where(path)) for path in files), reverse=True)
    return total, biggest[:8]


@pytest.mark.xfail(strict=True, reason="missed since plain statements and comments took the place of golf; dev/LOG.md")
def test_all_that_a_reader_must_read_fits_into_a_language_model():
    """
    640,000 characters, about 160,000 tokens: a model that reads it all has room left to answer. When a feature does not
    fit, a feature leaves: this number does not grow, and comments, blank lines and plain statements are not what pays.
    """
    total, biggest = must_be_read()
    assert total <= 640_000, f"{total:,} characters; the biggest: {biggest}"


def test_what_a_reader_must_read_does_not_grow_further():
    total, biggest = must_be_read()
    assert total <= 1_245_500, f"{total:,} characters; the biggest: {biggest}"


# -------------------------------------------------------------------------------------------------------------- habits
# Code golf is measured, because it comes back a line at a time. `python tests/habits.py FILES` lists all the places.
# The figures of code that people learn from, per 1,000 lines: 3 to 7 tuple assignments, 11 to 25 comprehensions.
HABITS = habits.count(MODULES)


def told(places):
    return "\n".join(f"{where(path)}:{line}: {what}" for path, line, what in places)


def test_no_conditional_expression_stands_inside_another():
    assert not HABITS.nested_conditionals, told(HABITS.nested_conditionals)


def test_one_statement_makes_one_thing():
    """`a, b = x, y` is two statements in one, unless it swaps."""
    found = HABITS.per_thousand(HABITS.tuple_assignments)
    assert found <= 8, f"{found:.1f} tuple assignments in 1,000 lines:\n{told(HABITS.tuple_assignments)}"


def test_comprehensions_are_no_programming_language_of_their_own():
    found = HABITS.per_thousand(HABITS.comprehensions)
    per_file = defaultdict(int)
    for path, _, _ in HABITS.comprehensions:
        per_file[where(path)] += 1
    most = sorted(per_file.items(), key=lambda item: -item[1])[:12]
    assert found <= 40, f"{found:.1f} comprehensions in 1,000 lines; the most: {most}"


def test_a_function_fits_on_a_screen_or_says_why_not():
    assert not HABITS.long_functions, told(HABITS.long_functions)


def test_public_arguments_have_names():
    assert not HABITS.nameless_arguments, told(HABITS.nameless_arguments)


def test_public_functions_are_annotated():
    assert not HABITS.unannotated, told(HABITS.unannotated)


@pytest.mark.parametrize("name", ["model", "train", "infer"])
def test_the_rooms_that_people_learn_from_explain_themselves(name):
    share = habits.count([path for path in MODULES if room(path) == name]).comment_share
    assert share >= 0.18, f"{share:.1%} of the characters in nanochat/{name}/ are comments and docstrings, 18 % wanted"


def test_every_module_says_what_it_is():
    wrong = [where(path) for path in MODULES if path.name != "__init__.py" and not ast.get_docstring(TREES[path])]
    assert not wrong, wrong


def test_a_name_can_be_searched_for():
    """No two modules of the package share a name, and no three of its public functions and classes do."""
    modules, names = defaultdict(list), defaultdict(list)
    for path in PACKAGE:
        modules[path.stem].append(where(path))
        for node in TREES[path].body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                names[node.name].append(where(path, node))
    del modules["__init__"], names["main"]
    assert not {name: places for name, places in modules.items() if len(places) > 1}
    assert not {name: places for name, places in names.items() if len(places) > 2}


# ----------------------------------------------------------------------------------------------------------- forbidden
def calls(path):
    """(dotted name, node) of every call in a file."""
    for node in ast.walk(TREES.get(path) or ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def constants(outside):
    """(path, node) of every constant in the modules of all rooms but one."""
    for path in MODULES:
        if room(path) != outside:
            for node in ast.walk(TREES[path]):
                if isinstance(node, ast.Constant):
                    yield path, node


def test_no_pickle():
    wrong = []
    for path in MODULES:
        for target, node, _ in imports(path):
            if target in ("pickle", "dill", "cloudpickle", "shelve", "joblib"):
                wrong.append(where(path, node))
        for name, node in calls(path):
            allowed = any(keyword.arg == "allow_pickle" for keyword in node.keywords)
            if name in ("torch.load", "torch.save") or (name in ("np.load", "numpy.load") and allowed):
                wrong.append(where(path, node))
    assert not wrong, wrong


def test_every_file_is_opened_with_an_encoding_or_as_bytes():
    wrong = [where(path, node) for path in PYTHON for name, node in calls(path) if lacks_an_encoding(name, node)]
    assert not wrong, f"without an encoding the text depends on the machine: {wrong}"


def lacks_an_encoding(name, node):
    """Whether a call of this dotted name reads or writes text without saying how it is encoded."""
    method = name.rpartition(".")[2]
    named = {keyword.arg: keyword.value for keyword in node.keywords}
    if "encoding" in named:
        return False
    if method == "read_text":
        return not node.args
    if method == "write_text":
        return len(node.args) < 2
    if name in ("open", "io.open", "os.fdopen") or (method == "open" and name.split(".")[0] in ("path", "Path")):
        mode = named.get("mode") or (node.args[1] if len(node.args) > 1 and name != "path.open" else None)
        return not (isinstance(mode, ast.Constant) and "b" in str(mode.value))
    return False


def test_the_launcher_is_asked_in_one_place():
    words = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "NANOCHAT_DTYPE"}
    wrong = [where(path, node) for path, node in constants(outside="runtime") if node.value in words]
    assert not wrong, f"only runtime.py reads {words}: {wrong}"


def test_the_base_directory_is_asked_in_one_place():
    wrong = [where(path, node) for path, node in constants(outside="common") if node.value == "NANOCHAT_BASE_DIR"]
    assert not wrong, wrong


def test_the_loop_knows_no_stage():
    text = (ROOT / "nanochat" / "train" / "loop.py").read_text(encoding="utf-8")
    assert not re.findall(r"\b(base|mid|sft|rl)\b", text, re.IGNORECASE)


def test_no_bare_except_and_nothing_swallowed():
    wrong = []
    for path in MODULES:
        for node in ast.walk(TREES[path]):
            if isinstance(node, ast.ExceptHandler):
                catches_all = node.type is None or ast.unparse(node.type) in ("BaseException", "Exception")
                if node.type is None or (catches_all and all(isinstance(n, ast.Pass) for n in node.body)):
                    wrong.append(where(path, node))
    assert not wrong, wrong


def test_only_the_report_writes_markdown():
    wrong = [where(path, node) for path, node in constants(outside="report")
             if isinstance(node.value, str) and re.fullmatch(r"[\w./]*\.md", node.value)]
    assert not wrong, wrong


# --------------------------------------------------------------------------------------------------------------- doors
@pytest.mark.parametrize("name", DOORS)
def test_every_door_explains_itself(name):
    module = importlib.import_module(name)
    assert f"python -m {name}" in module.__doc__, "the docstring shows the command"
    assert callable(module.main)
    for action in build_parser(module.Config, module.__doc__)._actions:
        assert action.help and len(action.help) > 5, f"{name} {action.option_strings}: no help line"


@pytest.mark.parametrize("name", DOORS)
def test_help_and_a_wrong_flag(name, capsys):
    module = importlib.import_module(name)
    argv = ["generate"] if name == "nanochat.report" else []
    with pytest.raises(SystemExit) as stop:
        module.main([*argv, "--help"])
    assert stop.value.code == 0 and "usage:" in capsys.readouterr().out
    with pytest.raises(Exception, match="no_such_flag") as error:
        module.main([*argv, "--no_such_flag=1"])
    assert getattr(error.value, "exit_code", None) == 2


def test_the_doors_are_those_there_are():
    found = {path.stem for path in (ROOT / "scripts").glob("*.py")} - {"__init__"}
    assert found == set(SCRIPTS)
