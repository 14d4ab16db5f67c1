"""
The model card of an exported model, for the hub: what it learned from, what it scored, what it cannot do.

The words are in model_card.txt, the metadata huggingface_hub's. Only what is known to be of this model is
told: its line of descent goes by the hashes of weights, its scores were measured after it was trained.
"""
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from nanochat.data.datasets import DATASETS
from nanochat.report.markdown import duration, human, percent, table
from nanochat.tasks import TASKS
from nanochat.train.stages import STAGES

NAME = "README.md"


def write(name: str, stages: list[tuple[str, dict]], n_params: int, scores: dict[str, dict], code: str,
          license: str) -> str:
    """The whole card of the model `name`.

    `stages` are (stage, meta.json) of what it went through, the last its own; `code` is its file of code, if
    any.
    """
    meta = stages[-1][1]
    rows = []
    seconds = 0.0
    for stage, its in stages:
        state = its.get("state", {"tokens": 0, "train_s": 0.0})
        seconds += state["train_s"]
        rows.append([STAGES[stage].title, its.get("data") or its["dataset"], f"{state['tokens']:,}",
                     duration(state["train_s"]), its.get("device", "")])
    told = []
    for record in scores.values():
        told.append([record["title"], f"{record['n']:,}", percent(record["score"], record["ci95"]),
                     percent(record["chance"])])
    card = ModelCard.from_template(
        _metadata(name, meta, scores, license), template_path=str(Path(__file__).with_suffix(".txt")),
        name=name, n_params=human(n_params), commit=meta["commit"], context=meta["model"]["sequence_len"],
        trust=", trust_remote_code=True" if code else "", trust_file=code, hours=f"{seconds / 3600:.2f}",
        training="\n".join(table(["stage", "data", "tokens", "time", "device"], rows, left=2)),
        scores="\n".join(table(["", "n", "% ± longer side of 95 %", "chance"], told)) if told else "",
        chats=STAGES[stages[-1][0]].chats, kindergarten=meta["dataset"] == "kindergarten")
    return str(card)


def _metadata(name, meta, scores, license):
    """What the hub reads, in YAML."""
    text = DATASETS.get(meta["dataset"])
    results = []
    for task, record in scores.items():
        low, high = record["ci95"]
        results.append(EvalResult(
            task_type="text-generation", dataset_type=(TASKS[task].source or [task])[0],
            dataset_name=record["title"], metric_type="accuracy", metric_value=round(record["score"], 4),
            metric_name=f"accuracy, n = {record['n']}, 95 % interval {low:.3f} to {high:.3f}"))
    return ModelCardData(
        language="en", license=license or None, library_name="transformers", pipeline_tag="text-generation",
        tags=["nanochat"], datasets=[text.repo] if text and text.repo else None, model_name=name,
        eval_results=results or None)
