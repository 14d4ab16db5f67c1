"""
EleutherAI's lm-evaluation-harness asks the server, or loads the exported model in transformers, and finds the accuracy
that the project's own scoring finds.

    python3 -m venv HARNESS && HARNESS/bin/pip install "lm_eval[api]==0.4.13" transformers      it brings a torch of its own
    python -m benchmarks.lm_eval_harness --harness=HARNESS/bin/lm_eval -i base                  a minute
    HARNESS/bin/pip install "lm_eval[hf]==0.4.13"
    python -m benchmarks.lm_eval_harness --harness=HARNESS/bin/lm_eval -i base --exported       the same, without the server

Nothing is downloaded: the task is sums with four choices, made here, and the tokenizer is the project's own in Hugging
Face's form. A task of your own is asked in the same way: --model=local-completions or hf with the model_args printed here; at the
server the model's context less bos and the token that is said is its max_length. Exits 1 where the two do not agree.
"""
import json
import os
import random
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.serving import serving
from nanochat.cli import option, parse
from nanochat.common import run
from nanochat.data.hf_tokenizer import tokenizer_json
from nanochat.eval.prompts import Item, Span
from nanochat.eval.scoring import score_items
from nanochat.runtime import Runtime
from nanochat.train import checkpoint
from scripts import export

TOLERANCE = 0.02  # nats of a choice: both round
TASK = """
task: nanochat_sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {items}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: gold
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


@dataclass
class Config:
    harness: str = option("lm_eval", "the harness's command")
    source: str = checkpoint.source_flag()
    questions: int = option(200, "sums to ask, four choices each")
    batch: int = option(4, "choices in a request")
    tokens: bool = option(True, "send prompts as token ids; else as texts")
    exported: bool = option(False, "the exported model in transformers, not the server")


def make_items(n: int) -> list[dict]:
    rng = random.Random(7)
    items = []
    for _ in range(n):
        left = rng.randrange(2, 50)
        right = rng.randrange(2, 50)
        choices = [left + right, left + right + 1, left + right + 10, abs(left - right)]
        rng.shuffle(choices)
        items.append({"question": f"Question: What is {left} + {right}?\nAnswer:", "choices": [str(x) for x in choices],
                      "gold": choices.index(left + right)})
    return items


def write_tokenizer(tokenizer, folder: Path) -> None:
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(tokenizer)), encoding="utf-8")
    named = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|bos|>", "eos_token": "<|bos|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named), encoding="utf-8")


def own_scores(model, tokenizer, items: list[dict]) -> list[list[float]]:
    """The log-likelihood of each choice by nanochat/eval/scoring.py."""
    asked = []
    for number, item in enumerate(items):
        start = 1 + len(tokenizer.encode(item["question"]))
        texts = [f"{item['question']} {choice}" for choice in item["choices"]]
        asked.append(Item(number, [Span([tokenizer.bos_id, *tokenizer.encode(text)], start) for text in texts], item["gold"]))
    found = []
    for item, scores in zip(asked, score_items(model, asked)):
        found.append([score.log_likelihood * (len(span.ids) - span.start) for span, score in zip(item.spans, scores)])
    return found


def at_server(config: Config, url: str, folder: Path) -> dict:
    """model_args of --model=local-completions."""
    model = httpx.get(f"{url}/v1/models").json()["data"][0]
    return {"model": model["id"], "base_url": f"{url}/v1/completions", "tokenizer_backend": "huggingface",
            "tokenizer": folder / "tokenizer", "tokenized_requests": config.tokens, "max_length": model["max_model_len"] - 1}


def harness_samples(config: Config, kind: str, model_args: dict, folder: Path) -> list[dict]:
    """What the harness logged of each question, in order."""
    command = [config.harness, "run", "--model", kind, "--tasks", "nanochat_sums", "--include_path", folder,
               "--batch_size", str(config.batch), "--output_path", folder / "out", "--log_samples",
               "--model_args", ",".join(f"{name}={value}" for name, value in model_args.items())]
    print(*command, flush=True)
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "home")}
    subprocess.run([str(part) for part in command], check=True, env={**os.environ, **offline})
    logged, = (folder / "out").rglob("samples_*.jsonl")
    samples = [json.loads(line) for line in logged.read_text(encoding="utf-8").splitlines()]
    return sorted(samples, key=lambda sample: sample["doc_id"])


def main(argv: list[str] | None = None) -> None:
    config = parse(Config, argv, __doc__)
    source = config.source or checkpoint.newest_chat_stage()
    model, tokenizer, _ = checkpoint.load_model(source, Runtime())
    items = make_items(config.questions)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tokenizer(tokenizer, folder / "tokenizer")
        lines = [json.dumps(item) for item in items]
        (folder / "items.jsonl").write_text("\n".join(lines), encoding="utf-8")
        (folder / "sums.yaml").write_text(TASK.format(items=folder / "items.jsonl"), encoding="utf-8")
        if config.exported:
            export.main(["-i", source, f"--out={folder / 'model'}"])
            model_args = {"pretrained": folder / "model", "trust_remote_code": True, "add_bos_token": True, "dtype": "float32"}
            samples = harness_samples(config, "hf", model_args, folder)
        else:
            with serving(source) as url:
                samples = harness_samples(config, "local-completions", at_server(config, url, folder), folder)

    deviation = 0.0  # the largest, in nats
    own_right = 0
    harness_right = 0
    same = 0
    for item, sample, own in zip(items, samples, own_scores(model, tokenizer, items), strict=True):
        theirs = [float(score) for score, _ in sample["filtered_resps"]]
        deviation = max(deviation, *[abs(a - b) for a, b in zip(own, theirs)])
        picked = own.index(max(own))
        own_right += picked == item["gold"]
        harness_right += bool(sample["acc"])
        same += picked == theirs.index(max(theirs))
    n = len(items)
    print(f"accuracy: {own_right / n:.3f} by nanochat/eval/scoring.py, {harness_right / n:.3f} by lm-evaluation-harness; "
          f"the same choice in {same} of {n}, log-likelihoods at most {deviation:.4f} nats apart")
    if deviation > TOLERANCE or own_right != harness_right or same != n:
        raise SystemExit(1)


if __name__ == "__main__":
    run(main)
