"""
What the report counts beside results: the code, the packages it asks for, the machine.
"""
import os
import platform
import re
from pathlib import Path

SUFFIXES = (".py", ".sh", ".md", ".html", ".toml")
ROOT = Path(__file__).parents[2]
ASIDE = ("tests", "benchmarks", "dev")  # not needed to understand the code
NOT_OURS = ("build", "report.md", "report_files")  # made by running it


def code_files(root=ROOT):
    """[(path, whether a reader must read it)] of the code's own text files."""
    tops = [top for top in sorted(root.iterdir())
            if top.name == ".ci" or top.name[0] != "." and top.name not in NOT_OURS]
    return [(path, top.name not in ASIDE) for top in tops for path in [top, *sorted(top.rglob("*"))]
            if path.suffix in SUFFIXES or path.parent.name == ".ci"]


def code_size(root=ROOT):
    """[(what, files, lines, characters)]: what a reader must read, then the rest."""
    counts = {True: [0, 0, 0], False: [0, 0, 0]}
    for path, must_read in code_files(root):
        text = path.read_text(encoding="utf-8")
        counts[must_read] = [a + b for a, b in zip(counts[must_read], (1, text.count("\n"), len(text)))]
    return [("the code", *counts[True]), (", ".join(ASIDE), *counts[False])]


def dependencies(root=ROOT):
    """Names of the packages that pyproject.toml asks for, without the extras."""
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    return re.findall(r'"([\w.-]+)', re.search(r"^dependencies = \[(.*?)^\]", text, re.DOTALL | re.MULTILINE)[1])


def hardware():
    """This machine's processor and memory in words; accelerators are named by the results."""
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.*)", cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else "", re.M)
    name = found[1] if found else platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{cores} cores of {name}, {memory:.0f} GiB memory, {platform.system()}"
