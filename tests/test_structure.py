"""
The house plan, held: arrows point down, rooms stay small, and what the plan forbids is nowhere in the code.
"""
import ast
import importlib
import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

from nanochat.cli import build_parser
from nanochat.report.inventory import code_files, code_size

# The rooms, from the ground up: each imports only from those before it. Within a folder anything goes but circles.
ROOMS = ["common", "cli", "scaling", "runtime", "model", "kindergarten", "data", "infer", "tasks", "eval", "train", "report",
         "serve", "dataset", "scripts"]
NO_TORCH = ["common", "cli", "scaling", "kindergarten", "report", "report.inventory"]
SCRIPTS = ["tok_train", "tok_eval", "base_train", "base_loss", "base_eval", "mid_train", "chat_sft", "chat_rl", "chat_eval",
           "chat_cli", "chat_web", "plan", "export"]
DOORS = [f"scripts.{name}" for name in SCRIPTS] + ["nanochat.dataset", "nanochat.report"]

MODULES = sorted([*(ROOT / "nanochat").rglob("*.py"), *(ROOT / "scripts").glob("*.py")])
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}
PYTHON = [*MODULES, *sorted((ROOT / "tests").glob("*.py")), *sorted((ROOT / "benchmarks").rglob("*.py")),
          *sorted((ROOT / "dev").rglob("*.py"))]


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
            names = ([f"{node.module}.{alias.name}" for alias in node.names] if node.module in ("nanochat", "scripts")
                     else [node.module])
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
    exceptions = {("common", "filelock"), ("common", "rich")}
    wrong = []
    for path in MODULES:
        if room(path) in ("common", "cli", "kindergarten"):
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
             if path.name != "sandbox_child.py"]
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
@pytest.mark.parametrize("path", PYTHON + [ROOT / "nanochat" / "serve" / "page" / "index.html", ROOT / "speedrun.sh"], ids=where)
def test_a_file_can_be_read_in_one_sitting(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    room_for = 600 if path.parts[-2] == "tests" or path.suffix == ".html" else 400
    assert len(lines) <= room_for, f"{where(path)} has {len(lines)} lines, room for {room_for}"
    long = [i for i, line in enumerate(lines, 1) if len(line) > 132]
    assert path.suffix != ".py" or not long, f"{where(path)}: the aim is 120 columns, these have over 132: {long}"


def test_all_that_a_reader_must_read_fits_into_a_language_model():
    (_, files, _, characters), _ = code_size()
    biggest = sorted(((len(path.read_text(encoding="utf-8")), where(path)) for path, must in code_files() if must), reverse=True)
    assert characters <= 640_000, f"{characters:,} characters in {files} files; the biggest: {biggest[:8]}"


def test_functions_are_short():
    wrong = [f"{where(path, node)}: {node.name} has {node.end_lineno - node.lineno + 1} lines" for path in MODULES
             for node in ast.walk(TREES[path]) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
             and node.end_lineno - node.lineno >= 75]
    assert not wrong, wrong


# ----------------------------------------------------------------------------------------------------------- forbidden
def calls(path):
    """(dotted name, node) of every call in a file."""
    for node in ast.walk(TREES.get(path) or ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_no_pickle():
    wrong = [where(path, node) for path in MODULES for target, node, _ in imports(path)
             if target in ("pickle", "dill", "cloudpickle", "shelve", "joblib")]
    wrong += [where(path, node) for path in MODULES for name, node in calls(path) if name in ("torch.load", "torch.save")]
    wrong += [where(path, node) for path in MODULES for name, node in calls(path)
              if name in ("np.load", "numpy.load") and any(k.arg == "allow_pickle" for k in node.keywords)]
    assert not wrong, wrong


def test_every_file_is_opened_with_an_encoding_or_as_bytes():
    wrong = []
    for path in PYTHON:
        for name, node in calls(path):
            method = name.rpartition(".")[2]
            named = {k.arg: k.value for k in node.keywords}
            if name in ("open", "io.open", "os.fdopen") or (method == "open" and name.split(".")[0] in ("path", "Path")):
                mode = named.get("mode") or (node.args[1] if len(node.args) > 1 and name != "path.open" else None)
                binary = isinstance(mode, ast.Constant) and "b" in str(mode.value)
                if not binary and "encoding" not in named:
                    wrong.append(where(path, node))
            elif method == "read_text" and "encoding" not in named and not node.args:
                wrong.append(where(path, node))
            elif method == "write_text" and "encoding" not in named and len(node.args) < 2:
                wrong.append(where(path, node))
    assert not wrong, f"without an encoding the text depends on the machine: {wrong}"


def test_the_launcher_is_asked_in_one_place():
    words = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "NANOCHAT_DTYPE"}
    wrong = [where(path, node) for path in MODULES if room(path) != "runtime" for node in ast.walk(TREES[path])
             if isinstance(node, ast.Constant) and node.value in words]
    assert not wrong, f"only runtime.py reads {words}: {wrong}"


def test_the_base_directory_is_asked_in_one_place():
    wrong = [where(path, node) for path in MODULES if room(path) != "common" for node in ast.walk(TREES[path])
             if isinstance(node, ast.Constant) and node.value == "NANOCHAT_BASE_DIR"]
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
    wrong = [where(path, node) for path in MODULES if room(path) != "report" for node in ast.walk(TREES[path])
             if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"[\w./]*\.md", node.value)]
    assert not wrong, wrong


def test_every_module_says_what_it_is():
    wrong = [where(path) for path in MODULES if path.name != "__init__.py" and not ast.get_docstring(TREES[path])]
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
