"""
Makes the chapters of docs/ true: runs their commands, puts what these print into them, draws their pictures.

    NANOCHAT_BASE_DIR=FOLDER python dev/walkthrough.py          all of it
    NANOCHAT_BASE_DIR=FOLDER python dev/walkthrough.py 04 06    only these chapters, and no picture

FOLDER holds a finished kindergarten run (bash speedrun.sh kindergarten); all is done in a copy of it. A block of bash or
Python is run if "<!-- output: of a run -->" follows, or "<!-- output: always -->": that needs no run and prints the same
everywhere, as tests/test_walkthrough.py holds. Progress lines, times and the folder's path are left out.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from nanochat.common import base_dir
from nanochat.data.dataloader import TextRows, collate, prepare_tokens
from nanochat.data.datasets import shards
from nanochat.data.packing import pack
from nanochat.model.optim import orthogonalize
from nanochat.report.results import log_records
from nanochat.runtime import Runtime
from nanochat.train.checkpoint import load_model

READERS_FOLDER = "~/.cache/nanochat-lessons"  # where docs/README.md has a reader put the copy
BLOCK = re.compile(r"```(bash|python)\n(.*?)```\n\n<!-- output: (always|of a run) -->\n.*?<!-- end -->", re.DOTALL)
TIMES = re.compile(r",? (?:in )?[\d.]+ ?s(?=$|[;,])", re.MULTILINE)  # "read so much in 5.4s; now"
BLUE = "#1f4e79"
RED = "#b5482f"


# ---- outputs
def printed(language, code):
    """What a block prints, as a reader would see it."""
    command = [sys.executable, "-c", code] if language == "python" else ["bash", "-euc", code]
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    text = done.stdout.decode("utf-8")
    if done.returncode:
        raise SystemExit(f"{code}\nfailed:\n{text}")
    lines = [line.rstrip() for line in text.splitlines() if "s left" not in line]
    return TIMES.sub("", "\n".join(lines).replace(str(base_dir()), READERS_FOLDER).strip("\n"))


def filled(block):
    """A block with its output made anew."""
    language, code, when = block.groups()
    print(code.splitlines()[-1], flush=True)
    return f"```{language}\n{code}```\n\n<!-- output: {when} -->\n```text\n{printed(language, code)}\n```\n<!-- end -->"


# ---- pictures
def attention(axis, model, tokenizer):
    """The head that finds best what followed the same token before."""
    ids = [tokenizer.bos_id, *tokenizer.encode(" Nora likes tea. Tom has a red lamp. Nora likes")]
    same = torch.tensor(ids)[:, None] == torch.tensor(ids)
    followed = same.tril(-1).roll(1, dims=1).float()  # (T, T): 1 where a token came after the same one
    heads = []

    def attend(layer, q, k, v):
        scores = torch.einsum("bthd,bshd->bhts", q, model.offset(layer, k, v)[0]) / q.size(-1) ** 0.5
        heads.extend(scores[0].masked_fill(torch.ones_like(followed).triu(1) > 0, -torch.inf).softmax(-1))
        return model.causal(layer, q, k, v)

    model.hidden(torch.tensor([ids]), attend=attend)
    axis.imshow(max(heads, key=lambda weights: (weights * followed).sum()), cmap="Blues", vmin=0, vmax=1)
    names = [tokenizer.decode([i]) or "bos" for i in ids]
    axis.set_xticks(range(len(ids)), names, rotation=90, fontsize=7)
    axis.set_yticks(range(len(ids)), names, fontsize=7)
    axis.set(xlabel="what is looked at", ylabel="who looks")


def muon(axis, model, tokenizer):
    """Singular values of a gradient, before and after."""
    model.requires_grad_(True)
    rows = TextRows(prepare_tokens(tokenizer, shards("kindergarten", "val"), "kindergarten"), 256)
    model.loss(*collate(rows, range(8))).backward()
    gradient = model.blocks[1].mlp.c_fc.weight.grad
    for matrix, color, label in ((gradient, RED, "the gradient"), (orthogonalize(gradient[None])[0], BLUE, "Muon's step")):
        values = torch.linalg.svdvals(matrix)
        axis.plot(values / values.max(), color=color, label=label)
    axis.set(xlabel="singular values, by size", ylabel="as a share of the largest", yscale="log")
    axis.legend(frameon=False)


def packing(axis, model, tokenizer):
    """Documents cut as one stream, and packed."""
    offsets = np.cumsum([0, *np.random.RandomState(1).randint(6, 60, 48)])
    plan = pack(offsets, 128, crop=True)
    cuts = np.union1d(offsets[:-1], np.arange(0, offsets[-1], 128))
    streamed = [(start, end - start, start // 128) for start, end in zip(cuts, [*cuts[1:], offsets[-1]])]
    packed = list(zip(plan.start, plan.length, np.repeat(range(len(plan)), np.diff(plan.first))))
    for x, pieces in ((0, streamed), (148, packed)):
        left = [x] * len(offsets)
        for start, length, row in pieces:
            axis.barh(-row, length, 0.8, left[row], color="#9ab8d8" if start in offsets else RED, edgecolor="white")
            left[row] += length
    axis.set_title("one stream, cut every 128 tokens" + " " * 26 + "packed by best fit", loc="left", fontsize=9)
    axis.axis("off")


def pretraining(axis, model, tokenizer):
    """The loss of every step."""
    log = [record for record in log_records((base_dir() / "logs" / "base_d3.jsonl").read_bytes()) if "loss" in record]
    axis.plot([record["step"] for record in log], [record["loss"] for record in log], color=BLUE, linewidth=0.8)
    axis.plot([record["step"] for record in log], [record["lr"] for record in log], color=RED, linewidth=0.8)
    axis.set(xlabel="step", ylabel="loss; red: rate")


def draw_all():
    for draw, size in ((attention, (4.4, 4.2)), (muon, (4.8, 2.8)), (packing, (7.2, 1.9)), (pretraining, (4.8, 2.8))):
        figure = Figure(size, layout="tight")
        axis = figure.subplots()
        draw(axis, *load_model("base", Runtime(), "d3")[:2])  # in float32, as pictures want it
        axis.spines[["top", "right"]].set_visible(False)
        figure.savefig(ROOT / "docs" / "pictures" / f"{draw.__name__}.png", dpi=100)


def main():
    wanted = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NANOCHAT_BASE_DIR"] = str(shutil.copytree(base_dir(), Path(folder) / "copy"))
        if not wanted:
            draw_all()
        for path in sorted((ROOT / "docs").glob("[0-9]*.md")):
            if not wanted or path.name[:2] in wanted:
                path.write_text(BLOCK.sub(filled, path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
