"""
A checkpoint for transformers' own NanoChatForCausalLM, which then gives the same logits.

    python -m scripts.export -i base --out=FOLDER       not the newest chat model, not into hf/ under the base directory

Its attention has no max_attn_logit, but heads may be wider: in one of W channels a query holds itself and `a` times
itself again, where the key is zero; normalised over W their product is ours if 1 + a^2 = W / max_attn_logit^2.
key_offset and value_tables are refused. With its tokenizer, unlike ours, a text can spell special tokens.
"""
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from nanochat.cli import option, parse
from nanochat.common import NanochatError, UsageError, atomic_dir, base_dir, log, run, setup_logging, write_json
from nanochat.data.tokenizer import SPECIAL_TOKENS
from nanochat.runtime import Runtime
from nanochat.train import checkpoint

EXPRESSED = "sequence_len vocab_size n_layer n_head n_kv_head n_embd softcap rope_base max_attn_logit".split()
CHAT_TEMPLATE = ("{{ bos_token }}{% for m in messages %}<|{{ m.role }}_start|>{% if m.content %} {{ m.content }}"
                 "{% endif %}<|{{ m.role }}_end|>{% endfor %}"
                 "{% if add_generation_prompt %}<|assistant_start|>{% endif %}")


@dataclass
class Config:
    source: str = checkpoint.source_flag()
    tag: str = option("", "tag of the model (default: the newest)")
    out: str = option("", "folder to write (default: hf/<stage>_<tag> under the base directory)")


def head_width(config):
    """As many channels as ours at the usual scale, else at least twice as many."""
    D, square = config.head_dim, config.max_attn_logit ** 2
    return D if square == D else max(2 * D, -int(-square // 8) * 8)


def widen(weight, D, W, copy=0.0):
    """(H * D, C) -> (H * W, C): each half of a head's channels, `copy` times the same, zeros."""
    halves = weight.view(-1, 2, D // 2, weight.size(1))
    both = torch.cat((halves, copy * halves), dim=2)[:, :, :W // 2]
    return F.pad(both, (0, 0, 0, W // 2 - both.size(2))).reshape(-1, weight.size(1))


def tensors(model):
    c, w = model.config, model.state_dict()
    D, W = c.head_dim, head_width(c)
    copy = (W / c.max_attn_logit ** 2 - 1) ** 0.5
    out = {"model.embed_tokens": w.pop("wte.weight")[:c.vocab_size], "lm_head": w.pop("lm_head.weight")[:c.vocab_size]}
    for i in range(c.n_layer):
        q, k, v, o, fc1, fc2 = (w.pop(f"blocks.{i}.{name}.weight") for name in
                                ("attn.c_q", "attn.c_k", "attn.c_v", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"))
        theirs = {"self_attn.q_proj": widen(q, D, W, copy), "self_attn.k_proj": widen(k, D, W), "mlp.fc1": fc1,
                  "self_attn.v_proj": widen(v, D, W), "self_attn.o_proj": widen(o.T, D, W).T, "mlp.fc2": fc2}
        out |= {f"model.layers.{i}.{name}": weight for name, weight in theirs.items()}
    assert not w, f"nothing is known of {sorted(w)}"
    return {f"{name}.weight": tensor.contiguous() for name, tensor in out.items()}


def model_config(c):
    """The rotary base is raised so that the channels of a wider head turn as fast."""
    W = head_width(c)
    return {"architectures": ["NanoChatForCausalLM"], "model_type": "nanochat", "dtype": "float32",
            "vocab_size": c.vocab_size, "hidden_size": c.n_embd, "intermediate_size": 4 * c.n_embd,
            "num_hidden_layers": c.n_layer, "num_attention_heads": c.n_head, "num_key_value_heads": c.n_kv_head,
            "head_dim": W, "max_position_embeddings": c.sequence_len, "rms_norm_eps": torch.finfo(torch.float32).eps,
            "rope_parameters": {"rope_type": "default", "rope_theta": c.rope_base ** (W / c.head_dim)},
            "final_logit_softcapping": c.softcap}


def tokenizer_json(tokenizer):
    """For the `tokenizers` library: bytes as GPT-2's visible characters, every pair that makes a token."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = sorted(set(range(256)) - set(shown))
    character = {b: chr(b) for b in shown} | {b: chr(256 + i) for i, b in enumerate(hidden)}
    vocab = {"".join(character[b] for b in token): i for i, token in enumerate(tokenizer.tokens)}
    merges = [(name[:at], name[at:]) for name in vocab for at in range(1, len(name))
              if {name[:at], name[at:]} <= vocab.keys()]
    no = dict.fromkeys("single_word lstrip rstrip normalized".split(), False)
    special = [{"id": tokenizer.special(name), "content": name, "special": True, **no} for name in SPECIAL_TOKENS]
    bytelevel = {"type": "ByteLevel", **dict.fromkeys(("add_prefix_space", "trim_offsets", "use_regex"), False)}
    split = {"type": "Split", "pattern": {"Regex": tokenizer.pattern}, "behavior": "Isolated", "invert": False}
    start = [{"SpecialToken": {"id": "<|bos|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    bos = {"<|bos|>": {"id": "<|bos|>", "ids": [tokenizer.bos_id], "tokens": ["<|bos|>"]}}
    return {"version": "1.0", "added_tokens": special, "decoder": bytelevel,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, bytelevel]},
            "post_processor": {"type": "TemplateProcessing", "single": start, "pair": start, "special_tokens": bos},
            "model": {"type": "BPE", "ignore_merges": True, "vocab": vocab, "merges": merges}}


def main(argv=None):
    config = parse(Config, argv, __doc__)
    setup_logging()
    stage = config.source or checkpoint.newest_chat_stage()
    path = checkpoint.find(stage, config.tag)
    model, tokenizer, _ = checkpoint.load_model(stage, Runtime(), path.parent.name)
    if more := {name: value for name, value in asdict(model.config).items() if name not in EXPRESSED and value}:
        has, flags = ", ".join(f"{n}={v}" for n, v in more.items()), " ".join(f"--{n}=0" for n in more)
        raise NanochatError(f"transformers' NanoChatForCausalLM cannot express {has}: it would be another model there. "
                            f"One trained with {flags} can be exported.")
    # a document ends with the bos of the next
    ids = {"bos_token_id": tokenizer.bos_id, "pad_token_id": tokenizer.bos_id,
           "eos_token_id": [tokenizer.special("<|assistant_end|>"), tokenizer.bos_id]}
    out = Path(config.out or base_dir() / "hf" / f"{stage}_{path.parent.name}").expanduser().resolve()
    with atomic_dir(out) as folder:
        save_file(tensors(model), folder / "model.safetensors", {"format": "pt"})
        write_json(folder / "config.json", model_config(model.config) | ids)
        write_json(folder / "generation_config.json", ids)
        write_json(folder / "tokenizer.json", tokenizer_json(tokenizer))
        write_json(folder / "tokenizer_config.json", {
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|bos|>", "eos_token": "<|assistant_end|>",
            "pad_token": "<|bos|>", "model_max_length": model.config.sequence_len, "chat_template": CHAT_TEMPLATE})
        if out.is_file() or {p.name for p in out.glob("*")} - {p.name for p in folder.iterdir()}:
            raise UsageError(f"--out={out} holds other things. Name another folder.")
    log.info(f"{path} is in {out}; heads of {model.config.head_dim} channels became {head_width(model.config)} wide")


if __name__ == "__main__":
    run(main)
