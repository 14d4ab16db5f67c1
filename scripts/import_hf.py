"""
A NanoChat model of transformers becomes one of ours: to chat with, to evaluate, to finetune.

    python -m scripts.import_hf --folder=FOLDER -i sft    to sft_checkpoints/<the folder's name>

FOLDER holds config.json, tokenizer.json and *.safetensors: NanoChatForCausalLM as save_pretrained leaves it
or the hub has it (hf download OWNER/NAME --local-dir FOLDER), or what scripts/export.py wrote. No code of it
is run. Texts are rendered in our chat format, with a blank before each: a model that learned without wants
some finetuning.
"""
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from nanochat import scaling
from nanochat.cli import option, parse
from nanochat.common import DataError, UsageError, is_there, log, run, setup_logging
from nanochat.data.hf_tokenizer import from_tokenizer_json
from nanochat.data.tokenizer import Tokenizer
from nanochat.model import hf_layout
from nanochat.model.gpt import GPT, GPTConfig
from nanochat.train import checkpoint
from nanochat.train.stages import STAGES


@dataclass
class Config:
    folder: str = option("", "of the model")
    source: str = option("sft", "stage that it becomes a model of", choices=tuple(STAGES), short="i")
    tag: str = option("", "of the new checkpoint (default: the folder's name)")

    def __post_init__(self):
        if not self.folder:
            raise UsageError("--folder=FOLDER names the model to import.")


def main(argv: list[str] | None = None) -> None:
    config = parse(Config, argv, __doc__)
    setup_logging()
    source = Path(config.folder).expanduser().resolve()
    target = checkpoint.stage_dir(config.source) / (config.tag or source.name)
    if target.exists():
        raise UsageError(f"{target} is there already. Give this one another --tag.")
    try:
        shape, weights, tokenizer, about = read(source)
        GPT(shape).load_state_dict(weights)
    except (DataError, AssertionError, RuntimeError, ValueError, SafetensorError) as error:
        raise DataError(f"{source} cannot be imported: {' '.join(str(error).split())}") from None
    except (LookupError, TypeError, AttributeError) as error:  # str() of a KeyError is a name alone
        raise DataError(f"{source} cannot be imported: its files lack something, {error!r}") from None
    checkpoint.save(target, 0, weights, None, meta_of(shape, tokenizer, about), tokenizer=tokenizer)
    log.info(f"{source} is the {config.source} model {target.name} now")


def read(folder: Path) -> tuple[GPTConfig, hf_layout.Tensors, Tokenizer, dict[str, Any]]:
    """(shape, weights, tokenizer, what an export of ours says of itself). Raises DataError, UsageError."""
    files = sorted(folder.glob("*.safetensors"))
    for path in (folder / "config.json", folder / "tokenizer.json", *(files or [folder / "*.safetensors"])):
        if not is_there(path):
            raise UsageError(f"{path} is missing. --folder wants a model as save_pretrained leaves it.")
    theirs = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    their_tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tensors = {}
    for path in files:
        tensors.update(load_file(path))
    tokenizer, ids = from_tokenizer_json(their_tokenizer, theirs.get("bos_token_id"))
    shape, weights = hf_layout.from_folder(theirs, tensors, ids)
    eps = theirs.get("rms_norm_eps", hf_layout.EPS)
    if eps != hf_layout.EPS:
        log.info(f"its norms add {eps:.1e} to a mean square, ours {hf_layout.EPS:.1e}")
    return shape, weights, tokenizer, theirs.get("nanochat", {})


def meta_of(shape: GPTConfig, tokenizer: Tokenizer, about: dict[str, Any]) -> dict[str, Any]:
    """What later stages ask a checkpoint for: by default, as for a model of real text of this depth."""
    T = shape.sequence_len
    usual = scaling.pretraining(shape.n_layer, shape.vocab_size).batch_tokens
    batch_tokens = about.get("batch_tokens") or max(T, usual // T * T)
    return {"tokenizer": tokenizer.hash, "model": asdict(shape), "identity": {"batch_tokens": batch_tokens},
            "dataset": about.get("dataset") or "climbmix", "data": about.get("data") or "smoltalk"}


if __name__ == "__main__":
    run(main)
