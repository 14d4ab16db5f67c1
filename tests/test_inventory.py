"""What the report counts beside results."""
from nanochat.report import inventory


def test_code_is_counted_from_files_without_what_it_makes(tmp_path):
    for name, text in {"pyproject.toml": "a\n", "nanochat/x.py": "é\n", "tests/test_x.py": "12\n3\n", "report.md": "no\n",
                       ".venv/lib/y.py": "no\n", "report_files/a.png": "no\n", ".ci/run": "b\n", "dev/stages.sh": "c\n",
                       "nanochat/infer/table.txt": "d\n", "nanochat/tasks/words.txt": "one\n", "dev/LOG.md": "\n",
                       "nanochat.egg-info/SOURCES.txt": "no\n", "nanochat/serve/page/page.js": "e\n",
                       "docs/01-x.md": "4\n"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert inventory.code_size(tmp_path) == [
        ("the code", 6, 6, 12), ("word lists", 1, 1, 4), ("tests, benchmarks, dev, docs", 3, 4, 8)]


def test_dependencies_are_those_of_pyproject():
    names = inventory.dependencies()
    assert {"torch", "rustbpe", "tiktoken"} <= set(names) and "pytest" not in names and len(names) >= 13
