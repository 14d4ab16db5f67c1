"""
This model for transformers, as remote code: scripts/export.py writes it beside the weights, as one file.

    model = AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)

The Transformer is nanochat/model/gpt.py's, whose source takes the place of its import when the file is made.
The rest is what transformers wants: a cache that it keeps, padding on the left of shorter texts, a loss.
"""
from collections.abc import Callable  # noqa: F401
from dataclasses import dataclass  # noqa: F401
from typing import Any

import torch
import torch.nn as nn  # noqa: F401
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from nanochat.model.gpt import GPT, Attend, GPTConfig

# What an output calls the cache: transformers renamed it.
CACHE = "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else "past_key_values"


class NanochatConfig(PretrainedConfig):
    """config.json; GPTConfig's fields are under its key nanochat."""

    model_type = "nanochat_gpt"  # "nanochat" is transformers' own, without offset keys and tables


class NanochatForCausalLM(PreTrainedModel, GenerationMixin):
    """GPT with transformers' forward and generate."""

    config_class = NanochatConfig
    base_model_prefix = "gpt"
    _no_split_modules = ["GPT"]  # it is small: all on one device
    _supports_sdpa = True

    def __init__(self, config: NanochatConfig) -> None:
        super().__init__(config)
        self.gpt = GPT(GPTConfig(**config.nanochat["model"]))
        self.post_init()

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.gpt.wte

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None,
                position_ids: Tensor | None = None, past_key_values: Any = None, cache: Any = None,
                labels: Tensor | None = None, use_cache: bool | None = None, logits_to_keep: int = 0,
                **more: Any) -> CausalLMOutputWithPast:
        """input_ids (B, T) -> float32 logits (B, T or logits_to_keep, vocab_size).

        attention_mask (B, S) is 0 where one of all S tokens, those in the cache first, only pads.
        """
        if attention_mask is not None and attention_mask.dim() != 2:
            raise ValueError("this model wants an attention mask (B, S): it has no static cache")
        cache = past_key_values if cache is None else cache
        if cache is None and use_cache:
            cache = DynamicCache()
        past = cache.get_seq_length() if cache is not None else 0
        if position_ids is None:
            position_ids = past + torch.arange(input_ids.size(1), device=input_ids.device)[None]
        self.gpt.dtype = self.gpt.lm_head.weight.dtype  # from_pretrained and .to() change it
        attend = self._attend(past, input_ids.size(1), attention_mask, cache)
        hidden = self.gpt.hidden(input_ids, position_ids, attend)
        logits = self.gpt.logits(hidden[:, -logits_to_keep:])  # 0: all
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, vocab_size=self.config.vocab_size, **more)
        return CausalLMOutputWithPast(loss=loss, logits=logits, **{CACHE: cache})

    def _attend(self, past: int, T: int, attention_mask: Tensor | None, cache: Any) -> Attend | None:
        """What T queries find after `past` tokens; None, the model's own way, for whole texts unpadded."""
        if cache is None and (attention_mask is None or attention_mask.all()):
            return None
        place = torch.arange(past + T, device=self.device)
        query_place = place[past:, None]
        seen = (place <= query_place)[None]  # (1, T, S)
        if attention_mask is not None:
            # A token that only pads sees at least itself: a softmax over nothing is NaN.
            seen = seen & attention_mask[:, None].bool() | (place == query_place)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            if cache is not None:  # it gives all so far, as they came: not yet offset
                k, v = cache.update(k.transpose(1, 2), v.transpose(1, 2), layer)  # (B, H_kv, S, D)
                k = k.transpose(1, 2)
                v = v.transpose(1, 2)
            if attention_mask is not None:  # before the first token is nothing, hence zeros in move_on
                real = attention_mask[:, :, None, None].to(k.dtype)
                k = k * real
                v = v * real
            k, v = self.gpt.offset(layer, k, v)
            grouped = q.size(2) != k.size(2)
            found = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2),
                                                   seen[:, None], enable_gqa=grouped)
            return found.transpose(1, 2)

        return attend
