"""
A checkpoint for transformers' own NanoChatForCausalLM, which then gives the same logits.

    python -m scripts.export -i base --out=FOLDER    not the newest chat model, not into the base directory

Queries and keys are normalised, so an attention logit is a cosine times its greatest value: ours is
max_attn_logit, over there the root of a head's width W. Heads may be wider there, and that is the way out: in
one of W channels a query holds itself and `a` times itself again, where the key is zero, which lengthens it
without changing the product; normalised over W the logit is ours if 1 + a^2 = W / max_attn_logit^2.
key_offset and value_tables have no such way and are refused. With its tokenizer, unlike ours, a text can
spell special tokens.
"""
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from nanochat.cli import option, parse
from nanochat.common import (
    NanochatError,
    UsageError,
    atomic_dir,
    base_dir,
    log,
    run,
    setup_logging,
    write_json,
)
from nanochat.data.tokenizer import SPECIAL_TOKENS, Tokenizer
from nanochat.model.gpt import GPT, GPTConfig
from nanochat.model.known import unknown_parts
from nanochat.runtime import Runtime
from nanochat.train import checkpoint

# The fields of GPTConfig that NanoChatForCausalLM has too, under the same name or another.
EXPRESSED = {"sequence_len", "vocab_size", "n_layer", "n_head", "n_kv_head", "n_embd", "softcap", "rope_base",
             "max_attn_logit"}
# In Jinja, what nanochat/data/chat_format.py renders; a test holds the two together.
CHAT_TEMPLATE = ("{{ bos_token }}{% for m in messages %}<|{{ m.role }}_start|>"
                 "{% if m.content %} {{ m.content }}{% endif %}<|{{ m.role }}_end|>{% endfor %}"
                 "{% if add_generation_prompt %}<|assistant_start|>{% endif %}")


@dataclass
class Config:
    source: str = checkpoint.source_flag()
    tag: str = option("", "tag of the model (default: the newest)")
    out: str = option("", "folder to write (default: hf/<stage>_<tag> under the base directory)")


# ---- weights
def head_width(config: GPTConfig) -> int:
    """Channels of a head over there: ours at the usual scale, else at least twice as many (in whole 8s)."""
    scale_squared = config.max_attn_logit ** 2
    if scale_squared == config.head_dim:
        return config.head_dim
    return max(2 * config.head_dim, math.ceil(scale_squared / 8) * 8)


def widen(weight: torch.Tensor, D: int, width: int, copy: float = 0.0) -> torch.Tensor:
    """Make each head's rows of a projection `width` instead of D: (H * D, C) -> (H * width, C).

    The new channels are `copy` times the old ones, then zeros. Rotary embeddings turn channel i of a head's
    first half with channel i of its second, so each half is widened by itself.
    """
    halves = weight.view(-1, 2, D // 2, weight.size(1))  # (H, 2, D/2, C)
    doubled = torch.cat((halves, copy * halves), dim=2)[:, :, :width // 2]
    missing = width // 2 - doubled.size(2)
    padded = F.pad(doubled, (0, 0, 0, missing))  # (H, 2, width/2, C)
    return padded.reshape(-1, weight.size(1))


def tensors(model: GPT) -> dict[str, torch.Tensor]:
    """The weights under transformers' names. Each must be taken: a forgotten one would be another model."""
    config = model.config
    D = config.head_dim
    width = head_width(config)
    copy = (width / config.max_attn_logit ** 2 - 1) ** 0.5  # the a of the docstring
    ours = model.state_dict()
    theirs = {
        "model.embed_tokens": ours.pop("wte.weight")[:config.vocab_size],  # without the padding to 64
        "lm_head": ours.pop("lm_head.weight")[:config.vocab_size],
    }
    for i in range(config.n_layer):
        block = f"blocks.{i}"
        layer = f"model.layers.{i}"
        query = ours.pop(f"{block}.attn.c_q.weight")  # (H * D, C)
        key = ours.pop(f"{block}.attn.c_k.weight")
        value = ours.pop(f"{block}.attn.c_v.weight")
        output = ours.pop(f"{block}.attn.c_proj.weight")  # (C, H * D): heads are its columns
        theirs[f"{layer}.self_attn.q_proj"] = widen(query, D, width, copy)
        theirs[f"{layer}.self_attn.k_proj"] = widen(key, D, width)
        theirs[f"{layer}.self_attn.v_proj"] = widen(value, D, width)
        theirs[f"{layer}.self_attn.o_proj"] = widen(output.T, D, width).T
        theirs[f"{layer}.mlp.fc1"] = ours.pop(f"{block}.mlp.c_fc.weight")
        theirs[f"{layer}.mlp.fc2"] = ours.pop(f"{block}.mlp.c_proj.weight")
    assert not ours, f"nothing is known of {sorted(ours)}"
    return {f"{name}.weight": tensor.contiguous() for name, tensor in theirs.items()}


def model_config(config: GPTConfig) -> dict[str, Any]:
    """Their config.json.

    Channel i of D turns by rope_base^(-2i/D) for each position. Over there D is the wider head's, so the base
    is raised until the same channels turn as fast.
    """
    width = head_width(config)
    base = config.rope_base ** (width / config.head_dim)
    return {
        "architectures": ["NanoChatForCausalLM"],
        "model_type": "nanochat",
        "dtype": "float32",
        "vocab_size": config.vocab_size,
        "hidden_size": config.n_embd,
        "intermediate_size": 4 * config.n_embd,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.n_kv_head,
        "head_dim": width,
        "max_position_embeddings": config.sequence_len,
        "rms_norm_eps": torch.finfo(torch.float32).eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": base},
        "final_logit_softcapping": config.softcap,
    }


# ---- tokenizer
def tokenizer_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """For the `tokenizers` library, which knows a pre-tokenizer, a list of merges and a post-processor.

    Our tokens are bytes and a merge is right wherever two tokens make a third. `ignore_merges`: a piece that
    is a token is taken whole. The post-processor puts bos in front, as the start of a document.
    """
    characters = _byte_characters()
    vocab = {}
    for token_id, token in enumerate(tokenizer.tokens):
        vocab["".join(characters[byte] for byte in token)] = token_id
    merges = []
    for name in vocab:
        for at in range(1, len(name)):
            if name[:at] in vocab and name[at:] in vocab:
                merges.append((name[:at], name[at:]))

    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": tokenizer.pattern}, "behavior": "Isolated",
             "invert": False}
    bos_first = [{"SpecialToken": {"id": "<|bos|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    bos = {"<|bos|>": {"id": "<|bos|>", "ids": [tokenizer.bos_id], "tokens": ["<|bos|>"]}}
    return {
        "version": "1.0",
        "added_tokens": [_added_token(tokenizer.special(name), name) for name in SPECIAL_TOKENS],
        "decoder": byte_level,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": {"type": "TemplateProcessing", "single": bos_first, "pair": bos_first,
                           "special_tokens": bos},
        "model": {"type": "BPE", "ignore_merges": True, "vocab": vocab, "merges": merges},
    }


def _byte_characters() -> dict[int, str]:
    """A visible character for each byte, as GPT-2 chose them, since JSON has no bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    characters = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        if byte not in printable:
            characters[byte] = chr(256 + len(characters) - len(printable))
    return characters


def _added_token(token_id: int, name: str) -> dict[str, Any]:
    return {"id": token_id, "content": name, "special": True, "single_word": False, "lstrip": False,
            "rstrip": False, "normalized": False}


# ---- the folder
def main(argv: list[str] | None = None) -> None:
    config = parse(Config, argv, __doc__)
    setup_logging()
    stage = config.source or checkpoint.newest_chat_stage()
    path = checkpoint.find(stage, config.tag)
    tag = path.parent.name
    model, tokenizer, _ = checkpoint.load_model(stage, Runtime(), tag)
    _refuse_what_cannot_be_expressed(model)

    out = Path(config.out or base_dir() / "hf" / f"{stage}_{tag}").expanduser().resolve()
    with atomic_dir(out) as folder:
        _write(folder, model, tokenizer)
        written = {file.name for file in folder.iterdir()}
        if out.is_file() or {file.name for file in out.glob("*")} - written:
            raise UsageError(f"--out={out} holds other things. Name another folder.")
    log.info(f"{path} is in {out}; heads of {model.config.head_dim} channels became "
             f"{head_width(model.config)} wide")


def _refuse_what_cannot_be_expressed(model: GPT) -> None:
    unknown = unknown_parts(model)
    if unknown:
        raise NanochatError(f"this export does not know {', '.join(unknown)}: it would be another model "
                            "there. Teach scripts/export.py, or train without it.")
    config = asdict(model.config)
    more = {name: value for name, value in config.items() if value and name not in EXPRESSED}
    if more:
        has = ", ".join(f"{name}={value}" for name, value in more.items())
        flags = " ".join(f"--{name}=0" for name in more)
        raise NanochatError(f"transformers' NanoChatForCausalLM cannot express {has}: it would be another "
                            f"model there. One trained with {flags} can be exported.")


def _write(folder: Path, model: GPT, tokenizer: Tokenizer) -> None:
    """The five files that AutoModelForCausalLM and AutoTokenizer read."""
    special_ids = {
        "bos_token_id": tokenizer.bos_id,
        "pad_token_id": tokenizer.bos_id,
        # A reply ends with the first; a document, from a base model, with the bos of the next.
        "eos_token_id": [tokenizer.special("<|assistant_end|>"), tokenizer.bos_id],
    }
    save_file(tensors(model), folder / "model.safetensors", {"format": "pt"})
    write_json(folder / "config.json", model_config(model.config) | special_ids)
    write_json(folder / "generation_config.json", special_ids)
    write_json(folder / "tokenizer.json", tokenizer_json(tokenizer))
    write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|bos|>",
        "eos_token": "<|assistant_end|>",
        "pad_token": "<|bos|>",
        "model_max_length": model.config.sequence_len,
        "chat_template": CHAT_TEMPLATE,
    })


if __name__ == "__main__":
    run(main)
