"""
Every command that the documentation shows is one that works: README.md, CONTRIBUTING.md, speedrun.sh, and the scripts'
own docstrings.

A command is parsed by the very parser of the script that it names, so a renamed flag or script fails here.
"""
import importlib
import re
import shlex
import subprocess

import pytest
from conftest import ROOT

from nanochat.cli import parse
from nanochat.common import UsageError

PUBLIC = """
bash speedrun.sh
bash speedrun.sh kindergarten
bash speedrun.sh d20
bash speedrun.sh d26
bash speedrun.sh d32
bash speedrun.sh --hours=8
bash speedrun.sh --dollars=100
bash speedrun.sh --fresh
bash test.sh
python -m nanochat.dataset -n 450
python -m scripts.tok_train
python -m scripts.tok_eval
python -m scripts.base_train --depth=26 --device_batch_size=16
python -m scripts.base_train --depth=26 --device-batch-size=16
torchrun --standalone --nproc_per_node=8 -m scripts.base_train -- --depth=26 --device_batch_size=16
python -m scripts.base_loss
python -m scripts.base_eval
python -m scripts.mid_train
python -m scripts.chat_sft
python -m scripts.chat_rl
python -m scripts.chat_eval -i base
python -m scripts.chat_eval -i mid
python -m scripts.chat_eval -i sft
python -m scripts.chat_eval -i rl -a gsm8k
python -m scripts.chat_cli
python -m scripts.chat_cli -p "Why is the sky blue?"
python -m scripts.chat_web
python -m scripts.plan
python -m scripts.plan --depth=26 --gpus=8
python -m scripts.plan --depth=26 --gpus=8 --gpu=h100
python -m scripts.plan --hours=8 --gpu=4090
python -m scripts.probe
python -m scripts.export
python -m scripts.import_hf --folder=FOLDER -i sft
python -m nanochat.report reset
python -m nanochat.report generate
python -m pytest tests/test_rustbpe.py -v -s
""".strip().splitlines()

TIERS = {"kindergarten", "d20", "d26", "d32"}
MADE = {"report.md", "report.html"}  # by running it
ELSEWHERE = {"git", "cd", "source", "export", "curl", "cat", "ls", "less", "open", "ssh", "pip", "apt", "apt-get"}


def check(command):
    """Assert that `command` (one line of shell) can be run as it stands, as far as that shows without running it."""
    words = shlex.split(command, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    if not words or words[0] in ELSEWHERE:
        return
    program = words[0].rpartition("/")[2]
    if program == "bash":
        script, arguments = words[1], set(words[2:])
        assert (ROOT / script).is_file(), f"{command}: there is no {script}"
        if script == "speedrun.sh":
            arguments = {word for word in arguments if not re.fullmatch(r"--(hours|dollars)=[0-9.]+", word)}
        allowed = TIERS | {"--fresh", "--no_page", "--help"} if script == "speedrun.sh" else arguments
        assert arguments <= allowed, f"{command}: {arguments - allowed}"
    elif program == "sbatch":
        script = next(i for i, word in enumerate(words) if i and not word.startswith("-"))
        assert (ROOT / words[script]).is_file(), f"{command}: there is no {words[script]}"
        check_module(command, ["torchrun", "-m", words[script + 1], "--", *words[script + 2:]], "torchrun")
    elif program in ("python", "python3", "torchrun"):
        check_module(command, words, program)
    else:
        raise AssertionError(f"{command}: unknown program {program}")


def check_module(command, words, program):
    if "-m" not in words:
        path = next(word for word in words[1:] if not word.startswith("-"))
        assert (ROOT / path).is_file(), f"{command}: there is no {path}"
        return
    at = words.index("-m")
    name, argv = words[at + 1], words[at + 2:]
    if name in ("venv", "pip"):
        return
    if name == "pytest":
        for path in (word.partition("::")[0] for word in argv if word.startswith("tests")):
            assert (ROOT / path).exists(), f"{command}: there is no {path}"
        return
    assert name.startswith(("scripts.", "nanochat.")), f"{command}: {name} is not ours"
    argv = argv[1:] if program == "torchrun" and argv[:1] == ["--"] else argv      # torchrun takes it away
    if name == "nanochat.report":
        assert argv[:1] in (["reset"], ["generate"]), command
        argv = argv[1:]
    try:
        parse(importlib.import_module(name).Config, argv)
    except UsageError as e:
        raise AssertionError(f"{command}: {e}") from None


# ---------------------------------------------------------------------------------------------- where commands are shown
def shown_commands(name):
    """The lines of a page's bash blocks, continuation lines joined."""
    text = (ROOT / name).read_text(encoding="utf-8")
    blocks = re.findall(r"^[ ]*```(?:bash|sh|shell)\n(.*?)^[ ]*```", text, re.DOTALL | re.MULTILINE)
    found = []
    for block in blocks:
        for line in block.replace("\\\n", " ").splitlines():
            command = line.strip().removeprefix("$ ")
            if command and not command.startswith("#"):
                found.append(command)
    return found


def speedrun_commands():
    """The stages of speedrun.sh, its variables filled in."""
    text = (ROOT / "speedrun.sh").read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.findall(r"^ +(?:stage|background) +(\w+) +(.*)$", text, re.MULTILINE)
    launcher = "torchrun --standalone --nproc_per_node=8 -m"
    text = {'"${train[@]}"': launcher, '"$dataset"': "climbmix", '"$budget"': "--hours=1"}
    commands = []
    for name, command in found:
        for variable, value in text.items():
            command = command.replace(variable, value)
        commands.append((name, re.sub(r'"\$\w+"', "1", command)))
    return commands


def docstring_commands():
    """(module, command) of the commands in the docstrings of the doors; prose behind two spaces is left away."""
    names = [f"scripts.{path.stem}" for path in sorted((ROOT / "scripts").glob("*.py")) if path.stem != "__init__"]
    for name in [*names, "nanochat.dataset", "nanochat.report"]:
        for line in importlib.import_module(name).__doc__.splitlines():
            found = re.match(r" {4}((?:[A-Z_]+=\S+ )?(?:python|torchrun) .*)", line)
            if found:
                yield name, re.split(r" {2,}", found[1])[0]


# --------------------------------------------------------------------------------------------------------------- tests
@pytest.mark.parametrize("command", PUBLIC)
def test_public_command(command):
    check(command)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_every_command_on_a_page_parses(name):
    commands = shown_commands(name)
    assert "bash test.sh" in [command.partition("  #")[0] for command in commands]
    for command in commands:
        check(command)


def test_the_readme_shows_the_two_commands():
    assert {"bash speedrun.sh", "bash test.sh"} <= set(shown_commands("README.md"))


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_every_file_that_a_page_names_is_there(name):
    """As it is named, or in nanochat/, or by the end of its path: `arc.py`, `model/gpt.py`, `nanochat/tasks/`."""
    text = (ROOT / name).read_text(encoding="utf-8")
    ours = [path.relative_to(ROOT).as_posix() for top in ("nanochat", "scripts", "tests", "benchmarks", "dev", "runs")
            for path in (ROOT / top).rglob("*")]
    ours += [path.name for path in ROOT.iterdir()]
    for named in re.findall(r"`([\w/]+(?:\.(?:py|sh|txt|md)|/))`", text):
        there = any(f"/{path}".endswith("/" + named.rstrip("/")) for path in ours)
        assert there or named in MADE, f"{name} names {named}, which is not there"


def test_every_command_in_speedrun_parses():
    commands = speedrun_commands()
    assert len(commands) > 25
    for _, command in commands:
        check(command)


@pytest.mark.parametrize("tier", ["kindergarten", "gpu_tier", "budget_tier"])
def test_a_tier_runs_every_stage_of_the_report_in_order(tier):
    from nanochat.report.results import TITLES
    text = (ROOT / "speedrun.sh").read_text(encoding="utf-8")
    body = re.search(rf"^{tier}\(\) \{{\n(.*?)^\}}", text, re.DOTALL | re.MULTILINE)[1]
    names = re.findall(r"^ +stage +(\w+)", body, re.MULTILINE)
    assert names[0] == "report_reset" and names[-1] == "report_generate"
    assert [name for name in names if name in TITLES] == list(TITLES)


def test_every_command_in_a_docstring_parses():
    commands = list(docstring_commands())
    assert {name for name, _ in commands} >= {"scripts.base_train", "nanochat.dataset"}
    for _, command in commands:
        check(command)


@pytest.mark.parametrize("command", [
    "python -m scripts.base_train --depht=3", "python -m scripts.no_such_script", "python -m scripts.chat_eval -i nothing",
    "bash speedrun.sh d99", "bash speedrun.sh --hours=x", "bash no_such.sh",
    "python -m pytest tests/test_no_such.py", "pyton -m scripts.tok_train",
    "python -m nanochat.report print", "torchrun --standalone -m scripts.mid_train -- --no_such_flag"])
def test_a_wrong_command_is_noticed(command):
    with pytest.raises((AssertionError, ModuleNotFoundError)):
        check(command)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "dev/LEADERBOARD.md", "dev/LOG.md"])
def test_the_rows_of_a_table_have_the_columns_of_its_head(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    for i, (before, line) in enumerate(zip(["", *lines], lines), 1):
        if line.startswith("|") and before.startswith("|"):
            assert line.count("|") == before.count("|"), f"{name}, line {i}: {line}"


def test_what_the_readme_links_to_and_shows_comes_with_a_clone():
    """What git ignores would be there for us alone, as a picture once was."""
    links = set(re.findall(r"\]\((?!http)([^)#]+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert len(links) > 5
    for link in links:
        assert (ROOT / link).exists(), link
    if (ROOT / ".git").exists():
        ignored = subprocess.run(["git", "check-ignore", *links], cwd=ROOT, capture_output=True, text=True).stdout
        assert not ignored, f"git ignores {ignored.split()}"
