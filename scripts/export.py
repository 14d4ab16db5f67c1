"""
A checkpoint for transformers, which then gives the same logits, with its tokenizer and a model card.

    python -m scripts.export -i base --out=FOLDER    not the newest chat model, not into the base directory

    model = AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)

It carries its code, in one file that one can read, unless it is of transformers' own NanoChat architecture.
scripts/import_hf.py is the way back.
"""
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from nanochat.cli import option, parse
from nanochat.common import (
    MissingArtifact,
    NanochatError,
    UsageError,
    atomic_dir,
    atomic_write,
    base_dir,
    log,
    run,
    setup_logging,
    write_json,
)
from nanochat.data.hf_tokenizer import CHAT_TEMPLATE, RESPONSE_TEMPLATE, tokenizer_json
from nanochat.data.tokenizer import Tokenizer
from nanochat.model import hf_layout
from nanochat.model.gpt import GPT
from nanochat.model.known import unknown_parts
from nanochat.report import model_card
from nanochat.report.results import load_results, scores_of
from nanochat.runtime import Runtime
from nanochat.train import checkpoint


@dataclass
class Config:
    source: str = checkpoint.source_flag()
    tag: str = option("", "tag of the model (default: the newest)")
    out: str = option("", "folder to write (default: hf/<stage>_<tag> under the base directory)")
    license: str = option("", "of the weights, for the model card, such as mit")


def main(argv: list[str] | None = None) -> None:
    config = parse(Config, argv, __doc__)
    setup_logging()
    stage = config.source or checkpoint.newest_chat_stage(config.tag)
    path = checkpoint.find(stage, config.tag)
    tag = path.parent.name
    model, tokenizer, meta = checkpoint.load_model(stage, Runtime(), tag)
    unknown = unknown_parts(model)
    if unknown:
        raise NanochatError(f"this export does not know {', '.join(unknown)}: it would be another model "
                            "there. Teach scripts/export.py, or train without it.")

    out = Path(config.out or base_dir() / "hf" / f"{stage}_{tag}").expanduser().resolve()
    code = "" if hf_layout.is_plain(model.config) else f"{hf_layout.REMOTE_FILE}.py"
    with atomic_dir(out) as folder:
        write_model(folder, model, tokenizer, meta)
        if code:
            atomic_write(folder / code, hf_layout.remote_code())
        scores = {}
        with contextlib.suppress(MissingArtifact):
            scores = scores_of(stage, meta, load_results())
        card = model_card.write(out.name, lineage(stage, tag, meta), model.num_params(), scores, code,
                                config.license)
        atomic_write(folder / model_card.NAME, card)
        written = {file.name for file in folder.iterdir()}
        if out.is_file() or {file.name for file in out.glob("*")} - written:
            raise UsageError(f"--out={out} holds other things. Name another folder.")
    log.info(f"{path} is in {out}" + (f"; trust_remote_code=True runs its {code}" if code else ""))


def lineage(stage: str, tag: str, meta: dict[str, Any]) -> list[tuple[str, dict]]:
    """[(stage, meta.json)] of what a model went through, as far as that is here; itself last."""
    flags = meta.get("config", {})
    with contextlib.suppress(KeyError, MissingArtifact):  # new weights, or imported ones
        source_tag = flags["source_tag"] or tag
        before = checkpoint.read_meta(checkpoint.find(flags["source"], source_tag))
        if before["files"]["model.safetensors"] == meta["identity"]["source"]:
            return [*lineage(flags["source"], source_tag, before), (stage, meta)]
    return [(stage, meta)]


def write_model(folder: Path, model: GPT, tokenizer: Tokenizer, meta: dict[str, Any]) -> None:
    """The files that AutoModelForCausalLM and AutoTokenizer read."""
    special_ids = {
        "bos_token_id": tokenizer.bos_id,
        "pad_token_id": tokenizer.bos_id,
        # A reply ends with the first; a document, from a base model, with the bos of the next.
        "eos_token_id": [tokenizer.special("<|assistant_end|>"), tokenizer.bos_id],
    }
    shape = hf_layout.config_json(model.config)
    shape["nanochat"] |= {"dataset": meta["dataset"], "data": meta.get("data"),
                          "batch_tokens": meta.get("identity", {}).get("batch_tokens")}
    if hf_layout.is_plain(model.config):
        weights = hf_layout.plain_tensors(model)
    else:
        weights = {f"gpt.{name}": tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    write_json(folder / "config.json", {**shape, **special_ids})
    write_json(folder / "generation_config.json", special_ids)
    write_json(folder / "tokenizer.json", tokenizer_json(tokenizer))
    write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|bos|>",
        "eos_token": "<|assistant_end|>",
        "pad_token": "<|bos|>",
        "model_max_length": model.config.sequence_len,
        "chat_template": CHAT_TEMPLATE,
        "response_template": RESPONSE_TEMPLATE,
    })


if __name__ == "__main__":
    run(main)
