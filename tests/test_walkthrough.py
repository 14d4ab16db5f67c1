"""The chapters of docs/: what they name is there, what they show was printed, and what they say to do can be done."""
import ast
import contextlib
import importlib
import io
import os
import re
import shlex
import subprocess

import pytest
from conftest import ROOT
from test_commands import check, shown_commands

from nanochat import tasks
from nanochat.data import datasets
from nanochat.model import gpt, optim

PAGES = sorted((ROOT / "docs").glob("*.md"))
CHAPTERS = sorted((ROOT / "docs").glob("[0-9]*.md"))
BLOCK = re.compile(r"```(bash|python)\n(.*?)```(?:\n\n<!-- output: (always|of a run) -->\n(?:```text\n(.*?)```\n)?<!-- end -->)?",
                   re.DOTALL)
LINK = re.compile(r"\[([^\]]*)\]\(([^)]+)\)")
SMALL = {r"--num_iterations=\d+": "--num_iterations=1", r"--conversations=\d+": "--conversations=60",
         r"--max_problems=\d+": "--max_problems=2", r"--eval_tokens=\d+": "--eval_tokens=1024", r"range\(40\)": "range(2)",
         r"max_new_tokens=64": "max_new_tokens=4", r"Sampling\(64": "Sampling(4"}


def text_of(page):
    return page.read_text(encoding="utf-8")


def blocks(page):
    """(language, code, "always", "of a run" or None, output or None) of each block of a page."""
    return [block.groups() for block in BLOCK.finditer(text_of(page))]


def names_in(path):
    """Everything that a Python file defines, methods as Class.method."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = [*getattr(node, "targets", []), getattr(node, "target", None)]
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return found


# ------------------------------------------------------------------------------------------------------------- the pages
def test_the_chapters_are_numbered_and_all_are_in_the_table_of_contents():
    assert [int(page.name[:2]) for page in CHAPTERS] == list(range(1, 13))
    first = text_of(ROOT / "docs" / "README.md")
    assert [target for _, target in LINK.findall(first) if re.match(r"\d", target)] == [page.name for page in CHAPTERS]
    for page, following in zip(CHAPTERS, CHAPTERS[1:]):
        assert text_of(page).rstrip().splitlines()[-1].endswith(f"]({following.name})."), page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_chapter_is_two_pages_at_most_and_shows_what_it_ran(page):
    without_outputs = BLOCK.sub(lambda block: block[2], text_of(page))
    assert len(without_outputs.split()) <= 910
    number = "" if page.name == "README.md" else f"{int(page.name[:2])}. "
    assert text_of(page).startswith(f"# {number}") and max(map(len, without_outputs.splitlines())) <= 132
    for _, code, when, output in blocks(page):
        assert not when or (output and "Traceback" not in output), f"{page.name}: {code}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_chapter_names_is_there(page):
    links = LINK.findall(text_of(page))
    assert len(links) > 3
    for said, target in links:
        path = (page.parent / target).resolve()
        assert path.exists(), f"{page.name}: {target}"
        if path.suffix == ".py" and re.fullmatch(r"`[A-Za-z_.]+`", said) and not said.endswith(".py`"):
            assert said.strip("`") in names_in(path), f"{page.name}: there is no {said} in {target}"


def test_every_picture_is_small_and_shown():
    shown = {target for page in PAGES for _, target in LINK.findall(text_of(page)) if target.startswith("pictures/")}
    there = {f"pictures/{path.name}" for path in (ROOT / "docs" / "pictures").iterdir()}
    assert shown == there
    assert all((ROOT / "docs" / name).stat().st_size < 40_000 for name in there)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_chapter_parses(page):
    for command in shown_commands(f"docs/{page.name}"):
        for part in command.split(" | "):
            if not part.startswith(("cp ", "head ", "tail ", "cut ", "grep ")):
                check(part.replace("kg_leap_year|", ""))  # the last chapter makes that skill
    for language, code, _, _ in blocks(page):
        if language == "python":
            compile(code, page.name, "exec")


def test_nothing_of_this_machine_is_shown():
    for page in PAGES:
        for _, code, _, output in blocks(page):
            assert not re.search(r"/tmp|/home|/root|/work|tok/s|\bs left", output or ""), f"{page.name}: {code}"


# ----------------------------------------------------------------------------------------------------------- their blocks
ALWAYS = [(page, code, output) for page in CHAPTERS for _, code, when, output in blocks(page) if when == "always"]


@pytest.mark.parametrize("page, code, output", ALWAYS, ids=lambda value: getattr(value, "name", ""))
def test_what_needs_no_run_prints_what_the_chapter_shows(page, code, output):
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(code, {"__name__": "__main__"})
    number = re.compile(r"[-+]?\d+\.?\d*")
    assert number.sub("#", said.getvalue().rstrip()) == number.sub("#", output.rstrip())
    for printed, shown in zip(number.findall(said.getvalue()), number.findall(output)):
        assert float(printed) == pytest.approx(float(shown), rel=0.02, abs=0.02)  # floats differ a little between machines


def command(line):
    """Run one command of a bash block, a script of ours in this process."""
    words = shlex.split(os.path.expandvars(line.split(" | ")[0]))
    if words[:2] == ["python", "-m"]:
        importlib.import_module(words[2]).main(words[3:])
    else:
        assert subprocess.run(["bash", "-ec", line]).returncode == 0


def test_what_needs_a_run_runs_on_a_toy(monkeypatch):
    """A model of one layer and a few steps stands in for the kindergarten's; what it says is nonsense."""
    monkeypatch.setattr(datasets, "KINDERGARTEN_SHARD", 120)
    monkeypatch.setattr(datasets, "KINDERGARTEN_VAL", 30)
    monkeypatch.setattr(tasks, "GENERATED_CONVERSATIONS", 100)
    monkeypatch.setattr(gpt, "attention", gpt.attention)  # a chapter replaces it, and the next
    monkeypatch.setattr(optim, "orthogonalize", optim.orthogonalize)
    rl = "--num_iterations=1 --questions=2 --samples=2 --anchor_rows=0 --tasks=kg_alphabet --max_new_tokens=8"
    compared = "kg_word_problem|kg_sentences|kg_story|kg_lists|kg_words_by_letter"
    for line in ("tok_train --vocab_size=600",
                 "base_train --dataset=kindergarten --depth=1 --sequence_len=256 --total_batch_size=512 --num_iterations=2 "
                 "--tag=d3",
                 "mid_train --conversations=60 --num_iterations=1", "chat_sft --conversations=60 --num_iterations=1",
                 f"chat_rl {rl}",
                 *(f"chat_eval -i {stage} -a '{compared}' --max_problems=2 --max_new_tokens=4" for stage in ("sft", "rl"))):
        command(f"python -m scripts.{line}")
    for page in CHAPTERS:
        for language, code, when, _ in blocks(page):
            if when != "of a run":
                continue
            for pattern, small in SMALL.items():
                code = re.sub(pattern, small, code)
            if language == "python":
                exec(code, {"__name__": "__main__"})
            else:
                for line in code.replace("\\\n", " ").splitlines():
                    command(line)
