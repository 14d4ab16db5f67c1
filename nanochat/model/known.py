"""
For code that has an idea of its own of the architecture (compiled decoding, export): is this model the one it
knows?

Who adds a gate or a scalar to gpt.py should never get answers in which it is silently missing. So such code
asks here first, and what it does not know is named: it declines, and model/gpt.py itself does the work.
"""
import dataclasses
import re

import torch

FIELDS = {"sequence_len", "vocab_size", "n_layer", "n_head", "n_kv_head", "n_embd", "softcap", "rope_base",
          "max_attn_logit", "key_offset", "value_offset", "value_tables", "embedding_skips"}
PARAMETERS = re.compile(r"""
    wte\.weight | lm_head\.weight | skips
    | blocks\.\d+\.attn\.(c_q|c_k|c_v|c_proj)\.weight
    | blocks\.\d+\.attn\.table\.weight
    | blocks\.\d+\.mlp\.(c_fc|c_proj)\.weight
    """, re.VERBOSE)


def unknown_parts(model: torch.nn.Module) -> list[str]:
    """What of a GPT has been added to the architecture known here: "config.window", "blocks.*.gate", ...;
    mostly nothing."""
    unknown = []
    for field in dataclasses.fields(model.config):
        if field.name not in FIELDS:
            unknown.append(f"config.{field.name}")
    for name, _ in [*model.named_parameters(), *model.named_buffers()]:
        if not PARAMETERS.fullmatch(name):
            unknown.append(re.sub(r"^blocks\.\d+\.", "blocks.*.", name))
    return list(dict.fromkeys(unknown))  # each once, in order
