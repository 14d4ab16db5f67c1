"""
What the report counts beside results: the code, the packages it asks for, the machine.

The count is for a reader, and for the language model that reads in a reader's stead: everything in this
repository that somebody must read to understand what it does, shell, style sheets, pages of text and tables
that are code included. Word lists are data, which nobody reads to understand the code; tests, benchmarks, the
log and the walkthrough, which tells in other words what the code says, stand beside it. Characters count
rather than lines, because lines can be made longer.
"""
import os
import platform
import re
from pathlib import Path

from nanochat.common import cpu_name, main_memory_gib

ROOT = Path(__file__).parents[2]
SUFFIXES = (".py", ".sh", ".html", ".css", ".js", ".md", ".toml", ".txt")
SHELL_OF_THE_SPEEDRUN = ("dev/venv.sh", "dev/stages.sh")  # it sources them: whoever reads it reads these
WORD_LISTS = ("nanochat/kindergarten/", "nanochat/tasks/")  # here a .txt is data; elsewhere a table of code
ASIDE = ("tests", "benchmarks", "dev", "docs")  # not needed to understand the code
MADE = ("build", "report.md", "report.html", "report_files")  # by running it, like *.egg-info

CODE = "the code"
DATA = "word lists"
BESIDE = ", ".join(ASIDE)
KINDS = (CODE, DATA, BESIDE)


def kind_of(name: str) -> str:
    """Which of KINDS the file with this name is, a path from the repository's root with slashes."""
    if name.endswith(".txt") and name.startswith(WORD_LISTS):
        return DATA
    if name.split("/")[0] in ASIDE and name not in SHELL_OF_THE_SPEEDRUN:
        return BESIDE
    return CODE


def code_files(root: Path = ROOT) -> list[tuple[Path, str]]:
    """(path, its kind of KINDS) of every text file of the repository, in the order of their paths."""
    found = []
    for top in sorted(root.iterdir()):
        hidden = top.name.startswith(".") and top.name != ".ci"
        if hidden or top.name in MADE or top.suffix == ".egg-info":
            continue
        for path in [top, *sorted(top.rglob("*"))]:
            if path.is_file() and (path.suffix in SUFFIXES or path.parent.name == ".ci"):
                found.append((path, kind_of(path.relative_to(root).as_posix())))
    return found


def code_size(root: Path = ROOT) -> list[tuple[str, int, int, int]]:
    """A row (what, files, lines, characters) for each of KINDS, in that order."""
    counts = {kind: [0, 0, 0] for kind in KINDS}
    for path, kind in code_files(root):
        text = path.read_text(encoding="utf-8")
        count = counts[kind]
        count[0] += 1
        count[1] += text.count("\n")
        count[2] += len(text)
    return [(kind, files, lines, characters) for kind, (files, lines, characters) in counts.items()]


def dependencies(root: Path = ROOT) -> list[str]:
    """Names of the packages that pyproject.toml asks for, without the extras."""
    # By hand, as tomllib came with Python 3.11 and 3.10 is supported.
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    block = re.search(r"^dependencies = \[(.*?)^\]", text, re.DOTALL | re.MULTILINE)
    assert block, f"{root / 'pyproject.toml'} has no list of dependencies"
    return re.findall(r'"([\w.-]+)', block[1])


def hardware() -> str:
    """This machine's processor and memory in words; accelerators are named by the results."""
    # The cores that this process may use: a container is often given fewer than the machine has.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores of {cpu_name()}, {main_memory_gib():.0f} GiB memory, {platform.system()}"
