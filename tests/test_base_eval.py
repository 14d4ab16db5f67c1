"""CORE's bundle as it lies on disk, and scripts/base_eval.py, which fetches it and writes the result."""
import http.server
import io
import json
import random
import threading
import zipfile

import pytest
from tiny import save_tiny_checkpoint

from nanochat.common import DataError, UsageError, read_json
from nanochat.eval import bundle
from nanochat.eval.bundle import CoreTask
from scripts import base_eval


def choice_examples(n):
    rng = random.Random(0)
    words = "sky river cat dog".split()
    return [{"query": f"The {rng.choice(words)} {i} is", "choices": rng.sample(words, 2), "gold": rng.randrange(2)}
            for i in range(n)]


# ----------------------------------------------------------------------------------------------------------- the bundle
YAML = '''icl_tasks:
-
  label: jeopardy
  dataset_uri: world/jeopardy.jsonl
  num_fewshot: [10]
  icl_task_type: language_modeling
  continuation_delimiter: "\\nAnswer: "
  has_categories: true
-
  label: copa
  dataset_uri: reasoning/copa.jsonl
  num_fewshot: [0]
  icl_task_type: multiple_choice
'''


def write_bundle(folder, yaml=YAML):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "core.yaml").write_text(yaml, encoding="utf-8")
    (folder / "eval_meta_data.csv").write_text(
        'Eval Task,Random baseline,Description\njeopardy,0,"with, comma"\ncopa,50,\n', encoding="utf-8")


def test_bundle_gives_label_kind_shots_delimiter_and_chance(tmp_path):
    write_bundle(tmp_path)
    jeopardy, copa = bundle.load_bundle(tmp_path)
    assert jeopardy == CoreTask("jeopardy", tmp_path / "eval_data/world/jeopardy.jsonl", "language_modeling", 10,
                                "\nAnswer: ", 0.0)
    assert (copa.delimiter, copa.chance, copa.shots) == (" ", 0.5, 0)


@pytest.mark.parametrize("yaml", [YAML.replace("copa", "unheard_of"), YAML.replace("  num_fewshot: [0]\n", ""),
                                  YAML.replace("multiple_choice", "dance"), YAML.replace("[0]", "[0"),
                                  "", YAML.replace("[10]", "10")])
def test_damaged_bundle_is_one_line_that_names_it(tmp_path, yaml):
    write_bundle(tmp_path, yaml)
    with pytest.raises(DataError, match=str(tmp_path)) as error:
        bundle.load_bundle(tmp_path)
    assert "\n" not in str(error.value)


def test_unreadable_examples_name_the_file(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"query": "half', encoding="utf-8")
    for name in ("x.jsonl", "none.jsonl"):
        with pytest.raises(DataError, match=name):
            bundle.read_examples(tmp_path / name)


# ----------------------------------------------------------------------------------------------------------- the script
@pytest.fixture
def base(base, monkeypatch):
    monkeypatch.setenv("NANOCHAT_DTYPE", "fp32")
    base.mkdir()
    return base


def test_without_the_bundle_core_is_null_and_the_note_says_how_to_get_it(base):
    save_tiny_checkpoint("base", "kindergarten")
    assert base_eval.main([]) is None
    result = read_json(base / "report" / "results" / "base_eval.json")
    assert result["metrics"]["core"] is None
    assert result["notes"][0].startswith("skipped:") and "--download" in result["notes"][0]


def test_core_is_the_mean_of_the_centred_accuracies(base):
    save_tiny_checkpoint("base", "kindergarten")
    folder = base / "eval_bundle"
    for name, rows in {"world/jeopardy": [{"context": f"Number {i}?", "continuation": "cat"} for i in range(6)],
                       "reasoning/copa": choice_examples(8)}.items():
        path = folder / "eval_data" / f"{name}.jsonl"
        path.parent.mkdir(parents=True)
        lines = [json.dumps({**row, "gold": row.get("gold", 0) % 2}) for row in rows]
        path.write_text("\n".join(lines), encoding="utf-8")
    write_bundle(folder)
    base_eval.main(["--max_per_task=5", "--device=cpu"])
    metrics = read_json(base / "report" / "results" / "base_eval.json")["metrics"]
    found = metrics["tasks"]
    assert set(found) == {"jeopardy", "copa"} and found["copa"]["n"] == found["jeopardy"]["n"] == 5
    assert metrics["core_ci95"][0] < metrics["core"] < metrics["core_ci95"][1]
    assert len((base / "report" / "items" / "core_copa.jsonl").read_text(encoding="utf-8").splitlines()) == 5
    assert metrics["core"] == pytest.approx((found["jeopardy"]["centered"] + found["copa"]["centered"]) / 2)
    assert found["copa"]["centered"] == pytest.approx((found["copa"]["accuracy"] - 0.5) / 0.5)


def zip_server(data):
    """A loopback server whose every answer is `data`; returns (server, url)."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}/eval_bundle.zip"


def test_download_unpacks_a_whole_bundle_or_leaves_nothing(base, monkeypatch):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as zipped:
        zipped.writestr("eval_bundle/core.yaml", YAML)
        zipped.writestr("eval_bundle/eval_data/world/jeopardy.jsonl", "{}")
    for data, whole in ((packed.getvalue()[:60], False), (packed.getvalue(), True)):
        server, url = zip_server(data)
        monkeypatch.setattr(base_eval, "URL", url)
        try:
            if whole:
                base_eval.download()
            else:
                with pytest.raises(DataError, match="Unpack a copy"):
                    base_eval.download()
        finally:
            server.shutdown()
            server.server_close()
        assert [p.name for p in base.iterdir()] == (["eval_bundle"] if whole else [])
    assert (base / "eval_bundle" / "eval_data" / "world" / "jeopardy.jsonl").read_text(encoding="utf-8") == "{}"


def test_wrong_flags_are_named():
    with pytest.raises(UsageError, match="--max_per_task"):
        base_eval.main(["--max_per_task=-1"])
