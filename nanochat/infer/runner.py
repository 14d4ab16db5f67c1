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
# A trial multiplies about so many weights and tokens, which takes a tenth of a second once a model: 190
# tokens of a d4, 8 of a d12.
TRIAL_WORK = 1_000_000_000
TRIAL_TOKENS = (8, 256)  # least and most
# Least deviation, of the results' size, that the trial takes for another function and not for rounding.
DEVIATION = {torch.float32: 0.02, torch.bfloat16: 0.2, torch.float16: 0.1}
INT8_DEVIATION = 0.4

# model -> {int8: why it is not decoded by the compiled way, or ""}
_tried: weakref.WeakKeyDictionary[GPT, dict[bool, str]] = weakref.WeakKeyDictionary()
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
        trials = _tried.setdefault(model, {})
        problem = ", ".join(unknown_parts(model)) or trials.get(int8, "")
        if not problem:
            self.compiled = CompiledModel(model, batch_size, capacity, logit_bias, deterministic, int8)
            self.cache = self.compiled.cache
            if int8 not in trials:
                tolerance = INT8_DEVIATION if int8 else DEVIATION[model.dtype]
                trials[int8] = _trial(model, self.compiled, tolerance)
            problem = trials[int8]
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
        lengths = torch.tensor([len(piece.tokens) for piece in pieces])
        return self._states(pieces)[lengths.cumsum(0) - 1]

    def _states(self, pieces):
        """The hidden states of all tokens of all pieces, (N, C)."""
        ids = []
        for piece in pieces:
            ids += piece.tokens
        positions, attend = self.cache.attend_pieces(pieces)
        idx = torch.tensor([ids], device=self.model.device)  # (1, N)
        return self.model.hidden(idx, positions, attend)[0]

    def all_states(self, piece: Piece) -> Tensor:
        """Reads a piece as `forward` does: the hidden states of all its tokens, (len(piece.tokens), C)."""
        if not self.compiled:
            return self._states([piece])
        alone = []  # each token as a piece, whose last state it is
        for position, token in enumerate(piece.tokens, piece.start):
            alone.append(Piece(piece.slot, position, [token]))
        return self.compiled.forward(alone)

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
    """Read some tokens in both of the compiled ways and in the model's own; why they are not the same
    function, or "".

    A changed activation adds no parameter and no field to be recognised by: only what comes out tells. What
    shows in longer texts alone, such as a wide window, is not seen here and wants a field in the config.
    """
    least, most = TRIAL_TOKENS
    n = min(max(TRIAL_WORK // model.num_params(), least), most, compiled.capacity)
    ids = [(7 * i + 3) % model.config.vocab_size for i in range(n)]
    hidden = model.hidden(torch.tensor([ids]))[0]  # (n, C)
    logits = model.logits(hidden)  # (n, vocab_size)
    found = []  # (what, expected, found)
    for tokens, way in (("few tokens", compiled.few), ("many tokens", compiled.many)):
        states = torch.from_numpy(way([Piece(0, 0, ids)]))
        found.append((f"hidden states of {tokens}", hidden, states))
    for rows in (1, n):
        unbiased = compiled.logits(states[-rows:], [0] * rows) - torch.from_numpy(compiled.logit_bias[:1])
        found.append((f"logits of {rows}", logits[-rows:], unbiased))
    for what, expected, said in found:
        known = said.isfinite()  # the bias forbids some tokens
        deviation = ((said - expected)[known].norm() / expected[known].float().norm()).item()
        if not deviation < tolerance:  # nan, too
            return (f"its {what} are {deviation:.0%} off those of model/gpt.py, where rounding explains "
                    f"{tolerance:.0%}")
    return ""
