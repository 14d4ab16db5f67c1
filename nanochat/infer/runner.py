"""
Runs a GPT over pieces of many conversations at once and keeps their keys and values.

There are two ways. The general one is the model's own forward pass over a KVCache: right for whatever
model/gpt.py says, on every device, with single tokens as captured graphs on a GPU. On a CPU stands the
compiled one beside it (infer/cpu), several times as fast for small models. It is taken only when it knows
every part of the model and a trial gives the same hidden states; else a line says what it does not know.
"""
import weakref

import torch
from torch import Tensor

from nanochat.common import UsageError, log
from nanochat.infer.cpu.compiled import CompiledModel
from nanochat.infer.graphs import DecodeGraphs
from nanochat.infer.kv_cache import KVCache, Piece
from nanochat.model.gpt import GPT
from nanochat.model.known import unknown_parts

COMPILED = "the compiled decoding (nanochat/infer/cpu)"
TRIAL_TOKENS = 8
# Least deviation, of the hidden states' size, that the trial takes for another function and not for rounding.
DEVIATION = {torch.float32: 0.02, torch.bfloat16: 0.2, torch.float16: 0.1}
INT8_DEVIATION = 0.4

_tried: weakref.WeakKeyDictionary[GPT, str] = weakref.WeakKeyDictionary()  # model -> why not compiled, or ""
_told: weakref.WeakSet[GPT] = weakref.WeakSet()  # models of which a line was said


class Runner:
    """The forward pass of a GPT for inference, whose weights must stay as they are.

    `logit_bias` (states, vocab_size) is added to the logits by state. `deterministic` (CPU): a token's result
    is the same bits in any company, slot, chunks and cache. `int8` (CPU): weights in 8 bits. Both are for the
    compiled way alone: raises UsageError where it cannot be taken. `graphs`: by default on a GPU; only CUDA
    captures them.
    """

    @torch.inference_mode()
    def __init__(self, model: GPT, batch_size: int, capacity: int, logit_bias: Tensor | None = None,
                 deterministic: bool = False, int8: bool = False, graphs: bool | None = None) -> None:
        on_cpu = model.device.type == "cpu"
        if (deterministic or int8) and not on_cpu:
            raise UsageError("deterministic answers and int8 weights are for a CPU.")
        if logit_bias is None:
            logit_bias = torch.zeros(1, model.config.vocab_size, device=model.device)
        if graphs is None:
            graphs = not on_cpu
        self.model = model
        self.logit_bias = logit_bias
        self.graphs = None
        self.compiled = None
        if graphs:
            # One position more, for slots that sit out.
            self.cache = KVCache(model, batch_size, capacity + 1, model.dtype)
            self.graphs = DecodeGraphs(self._decode_all, batch_size, capacity, model.device)
            return
        problem = ", ".join(unknown_parts(model))
        if not problem:
            self.compiled = CompiledModel(model, batch_size, capacity, logit_bias, deterministic, int8)
            self.cache = self.compiled.cache
            if model not in _tried:
                tolerance = INT8_DEVIATION if int8 else DEVIATION[model.dtype]
                _tried[model] = _trial(model, self.compiled, tolerance)
            problem = _tried[model]
        if problem:
            self._decline(problem, deterministic or int8)
            self.compiled = None
            self.cache = KVCache(model, batch_size, capacity, model.dtype)

    def _decline(self, problem, needed):
        if needed:
            raise UsageError(f"deterministic answers and int8 weights need {COMPILED}, which does not know "
                             f"this model: {problem}. Leave them away, or teach it.")
        if self.model not in _told:
            _told.add(self.model)
            log.warning(f"decoding by model/gpt.py, right but slower: {COMPILED} does not know this model: "
                        f"{problem}")

    @torch.inference_mode()
    def forward(self, pieces: list[Piece]) -> Tensor:
        """Each piece's last hidden state: (len(pieces), C)."""
        if self.compiled:
            return self.compiled.forward(pieces)
        if not self.graphs:
            return self._forward(pieces)
        single = [piece for piece in pieces if len(piece.tokens) == 1]
        longer = [piece for piece in pieces if len(piece.tokens) > 1]
        last: dict[int, Tensor] = {}  # hidden state by slot
        if single:
            last.update(zip([piece.slot for piece in single], self.graphs(single)))
        if longer:
            last.update(zip([piece.slot for piece in longer], self._forward(longer)))
        return torch.stack([last[piece.slot] for piece in pieces])

    def _forward(self, pieces):
        ids = []
        ends = []
        for piece in pieces:
            ids += piece.tokens
            ends.append(len(ids) - 1)
        positions, attend = self.cache.attend_pieces(pieces)
        idx = torch.tensor([ids], device=self.model.device)  # (1, N)
        return self.model.hidden(idx, positions, attend)[0, ends]

    def _decode_all(self, ids, positions, seen):
        """One token for every slot, ids and positions (slots,): its hidden states (slots, C)."""
        attend = self.cache.attend_all(positions, seen)
        return self.model.hidden(ids[:, None], positions[:, None], attend)[:, 0]

    def logits(self, hidden: Tensor, states: list[int] | None = None) -> Tensor:
        """hidden (n, C) -> float32 (n, vocab_size), with the logit bias of each row's state."""
        if states is None:
            states = [0] * len(hidden)
        if self.compiled:
            return self.compiled.logits(hidden, states)
        return self.model.logits(hidden) + self.logit_bias[states]


def _trial(model, compiled, tolerance):
    """Read a few tokens in both of the compiled ways and in the model's own; why they are not the same
    function, or "".

    A changed activation adds no parameter and no field to be recognised by: only what comes out tells.
    """
    ids = [(7 * i + 3) % model.config.vocab_size for i in range(min(TRIAL_TOKENS, compiled.capacity))]
    expected = model.hidden(torch.tensor([ids]))[0].float()  # (n, C)
    ways = (("few tokens", compiled.few), ("many tokens", compiled.many))
    for name, way in ways:
        found = torch.from_numpy(way([Piece(0, 0, ids)]))  # (n, C)
        deviation = ((found - expected).norm() / expected.norm()).item()
        if not deviation < tolerance:  # nan, too
            return (f"its hidden states are {deviation:.0%} off those of model/gpt.py (for {name}), where "
                    f"rounding explains {tolerance:.0%}")
    return ""
