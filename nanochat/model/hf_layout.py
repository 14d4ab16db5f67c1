"""
A GPT's shape and weights for transformers, and back.

A model without offsets, value tables and skips, and whose attention logits reach the root of a head's
channels, is transformers' own NanoChatForCausalLM: such as one that came from there. Any other keeps its
weights as they are and brings its code along (for_transformers.py).
"""
import inspect
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from nanochat.common import DataError
from nanochat.model import attention, elementwise, gpt, loss
from nanochat.model.gpt import GPT, GPTConfig

Tensors = dict[str, torch.Tensor]
REMOTE_FILE = "modeling_nanochat"
REMOTE_TYPE = "nanochat_gpt"
EPS = torch.finfo(torch.float32).eps  # which F.rms_norm adds to a mean square


def is_plain(config: GPTConfig) -> bool:
    """Whether transformers' NanoChatForCausalLM can express it."""
    added = config.key_offset or config.value_offset or config.value_tables or config.embedding_skips
    return not added and math.isclose(config.max_attn_logit ** 2, config.head_dim)


# ---- there
def _names(config):
    """{our parameter: transformers'}."""
    names = {"wte.weight": "model.embed_tokens.weight", "lm_head.weight": "lm_head.weight"}
    for i in range(config.n_layer):
        for ours, theirs in (("attn.c_q", "self_attn.q_proj"), ("attn.c_k", "self_attn.k_proj"),
                             ("attn.c_v", "self_attn.v_proj"), ("attn.c_proj", "self_attn.o_proj"),
                             ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2")):
            names[f"blocks.{i}.{ours}.weight"] = f"model.layers.{i}.{theirs}.weight"
    return names


def plain_tensors(model: GPT) -> Tensors:
    """The weights under transformers' names. Each must be taken: a forgotten one would be another model."""
    ours = model.state_dict()
    theirs = {}
    for name, their_name in _names(model.config).items():
        tensor = ours.pop(name)
        if not name.startswith("blocks"):
            tensor = tensor[:model.config.vocab_size]  # without the padding to 64
        theirs[their_name] = tensor.contiguous()
    assert not ours, f"nothing is known of {sorted(ours)}"
    return theirs


def config_json(config: GPTConfig) -> dict[str, Any]:
    """What transformers wants to know, and under "nanochat" what we want to know on the way back."""
    told = {
        "dtype": "float32",
        "vocab_size": config.vocab_size,
        "hidden_size": config.n_embd,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.n_kv_head,
        "max_position_embeddings": config.sequence_len,
        "tie_word_embeddings": False,
        "nanochat": {"model": asdict(config)},
    }
    if not is_plain(config):
        return {
            **told,
            "model_type": REMOTE_TYPE,
            "architectures": ["NanochatForCausalLM"],
            "auto_map": {"AutoConfig": f"{REMOTE_FILE}.NanochatConfig",
                         "AutoModelForCausalLM": f"{REMOTE_FILE}.NanochatForCausalLM"},
        }
    return {
        **told,
        "model_type": "nanochat",
        "architectures": ["NanoChatForCausalLM"],
        "intermediate_size": 4 * config.n_embd,
        "head_dim": config.head_dim,
        "rms_norm_eps": EPS,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
        "final_logit_softcapping": config.softcap,
    }


def remote_code() -> str:
    """for_transformers.py with the model's source in place of its import from nanochat."""
    methods = [GPT.__init__, GPT.look, GPT.offset, GPT.causal, GPT.hidden, GPT._rotary, GPT._head, GPT.logits]
    whole = inspect.getsource(GPT)
    parts = [
        "# ---- from nanochat/model: attention.py, elementwise.py, loss.py, gpt.py",
        *_sources(attention.sdpa, elementwise.plain_norm, elementwise.rotate, elementwise.plain_rotate_norm,
                  loss.softcapped_logits),
        "# Where nanochat takes faster ways, these are the reference.\n"
        "attention = sdpa\nnorm = plain_norm\nrotate_norm = plain_rotate_norm\n"
        "Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]  # (layer, q, k, v) -> y",
        *_sources(gpt.GPTConfig, gpt.move_on, gpt.Attention, gpt.MLP, gpt.Block),
        "\n".join([whole[:whole.index("    def ")].rstrip() + "\n", *_sources(*methods)]),
        "# ---- for transformers",
    ]
    path = Path(__file__).parent / "for_transformers.py"
    before, line, after = path.read_text(encoding="utf-8").partition(
        "from nanochat.model.gpt import GPT, Attend, GPTConfig\n")
    assert line, f"{path} imports something else of nanochat"
    source = "\n\n\n".join(part.rstrip() for part in parts)
    return before.replace("  # noqa: F401", "") + source + after


def _sources(*parts: Any) -> list[str]:
    return [inspect.getsource(part) for part in parts]


# ---- and back
def from_folder(config: dict[str, Any], tensors: Tensors, ids: list[int]) -> tuple[GPTConfig, Tensors]:
    """(shape, weights) of ours from a config.json and its tensors. Raises DataError.

    `ids`: of each of our tokens, its id over there. Rows that pad the vocabulary, which nothing reads, are 0.
    """
    if config["model_type"] not in ("nanochat", REMOTE_TYPE):
        raise DataError(f"model_type={config['model_type']}, not nanochat")
    ours = GPTConfig(**config["nanochat"]["model"]) if "nanochat" in config else _shape(config, len(ids))
    if config["model_type"] == REMOTE_TYPE:
        return ours, {name.removeprefix("gpt."): tensor.float() for name, tensor in tensors.items()}
    found = {}
    for name, their_name in _names(ours).items():
        tensor = tensors[their_name].float()
        if not name.startswith("blocks"):
            tensor = F.pad(tensor[ids], (0, 0, 0, ours.padded_vocab_size - len(ids)))
        found[name] = tensor.contiguous()
    return ours, found


def _shape(config, vocab_size):
    """Our shape of a config.json that transformers wrote. Raises DataError for what we have no word for."""
    C = config["hidden_size"]
    D = C // config["num_attention_heads"]
    rope = config.get("rope_parameters") or {"rope_theta": config.get("rope_theta", 10000.0)}
    told = {**config, "rope_type": rope.get("rope_type", "default")}
    expected = {"hidden_act": "relu2", "attention_bias": False, "tie_word_embeddings": False, "head_dim": D,
                "intermediate_size": 4 * C, "rope_type": "default"}
    for name, value in expected.items():
        if told.get(name, value) != value:
            raise DataError(f"config.json says {name}={told[name]}, and here it can only be {value}")
    return GPTConfig(
        sequence_len=config["max_position_embeddings"], vocab_size=vocab_size,
        n_layer=config["num_hidden_layers"], n_head=config["num_attention_heads"],
        n_kv_head=config["num_key_value_heads"], n_embd=C, softcap=config["final_logit_softcapping"],
        rope_base=rope["rope_theta"], max_attn_logit=D ** 0.5)
