"""
Inference: KV cache, sampling, tool use and continuous batching. It takes a model and a tokenizer and loads neither.

Three parts that know little of each other: `Sequence` is one reply's state (what may be sampled, when a tool's output
is forced, when it ends) and holds no tensor; `KVCache` is tensors without policy; `Batcher` owns the slots of one
cache, lets waiting sequences join as others leave, and runs one batched step at a time. `Engine` is the door for
offline work (`generate`) and for one conversation (`stream`); the web server drives a Batcher of its own.

Each sequence draws from its own generator, so what it says does not depend on who else is in the batch, beyond the
rounding noise of differently shaped matrix products.
"""
import codecs
import math
import random
from collections import deque
from dataclasses import dataclass, field

import torch

from nanochat import tools
from nanochat.common import UsageError, mix_seed
from nanochat.sampling import Sampling, sample

MAX_TOOL_CALLS = 8        # of one reply; beyond, python_start can no longer be sampled
PREFILL_TOKENS = 16384    # padded prompt tokens in one prefill: bounds its activations in memory
FREE, IN_CODE, NO_TOOLS = range(3)   # what a sequence may sample next; index into Batcher.bans


# ------------------------------------------------------------------------------------------------------- the KV cache
class KVCache:
    """Keys and values of B rows (slots), each of its own length: k, v (n_layer, B, S, n_kv_head, head_dim).

    The model calls `update` once a layer and the owner calls `advance` once a step. `rows` gives a window on some slots
    that shares their memory. The buffers are never resized. In memory a head's positions stand together (the views are
    transposed): on a CPU in bf16 attention over 256 positions is a third faster for it. The last `offset` channels of a
    key are stored one position on (`gpt.offset_keys`), for which k has room for one position more.
    """

    def __init__(self, k, v, lengths, offset):
        self.k, self.v, self.lengths, self.offset = k, v, lengths, offset
        self.longest = int(lengths.max())
        self._row = torch.arange(lengths.size(0), device=lengths.device)[:, None]

    @classmethod
    def empty(cls, model, batch_size, capacity):
        """A cache on the model's device and in its dtype; `capacity` is the tokens a row can hold."""
        c = model.config
        # Zeros, not empty: a masked key counts for nothing, but 0 * NaN from old memory would still be NaN.
        k, v = (torch.zeros((c.n_layer, batch_size, c.n_kv_head, positions, c.head_dim), dtype=model.dtype,
                            device=model.device) for positions in (capacity + 1, capacity))
        lengths = torch.zeros(batch_size, dtype=torch.int64, device=model.device)
        return cls(k.transpose(2, 3), v.transpose(2, 3), lengths, c.offset_channels)

    @property
    def capacity(self):
        return self.v.size(2)

    def rows(self, start, stop):
        """The slots start..stop-1 as a KVCache over the same memory."""
        return KVCache(self.k[:, start:stop], self.v[:, start:stop], self.lengths[start:stop], self.offset)

    def update(self, layer, k, v):
        """Store k, v (B, T, n_kv_head, head_dim) at each row's positions lengths[b]..lengths[b]+T-1.

        Returns that layer's k, v (B, max(lengths)+T, n_kv_head, head_dim). Raises UsageError past the capacity.
        """
        T = k.size(1)
        end = self.longest + T
        if end > self.capacity:
            raise UsageError(f"{end} tokens do not fit a KV cache of {self.capacity}. Shorten prompt or answer.")
        at = self.lengths[:, None] + torch.arange(T, device=self.lengths.device)
        here = k.size(-1) - self.offset
        self.k[layer][..., :here].index_put_((self._row, at), k[..., :here])
        if self.offset:
            self.k[layer][..., here:].index_put_((self._row, at + 1), k[..., here:])
        self.v[layer].index_put_((self._row, at), v)
        return self.k[layer][:, :end], self.v[layer][:, :end]

    def advance(self, n):
        """Count n more tokens a row as stored; n is an int or (B,) int64."""
        self.lengths += n
        self.longest = self.longest + n if isinstance(n, int) else int(self.lengths.max())

    def move(self, source, target):
        """Copy slot `source` over slot `target`."""
        n = int(self.lengths[source])
        for x in (self.k, self.v):
            x[:, target, :n + 1] = x[:, source, :n + 1]
        self.lengths[target] = n


# --------------------------------------------------------------------------------------------------------- one reply
class Sequence:
    """The state of one reply: its tokens so far, the tool machine, and whether it has ended. Holds no tensor.

    `ids` are the reply's tokens without the closing one; `sampled[i]` is 1 where the model chose ids[i] and 0 where a
    tool's output was forced. `finish_reason` is None until it is "stop" or "length".
    """

    def __init__(self, tokenizer, prompt, sampling, index=0):
        self.tokenizer, self.prompt, self.sampling = tokenizer, prompt, sampling
        self.ids, self.sampled, self.finish_reason = [], [], None
        self.room = sampling.max_new_tokens   # lowered to what the cache can hold by Batcher.add
        self.tool_calls, self._code, self._forced = 0, None, deque()
        self.random = random.Random(mix_seed(sampling.seed, index))
        special = tokenizer.special
        self._stops = (special("<|assistant_end|>"), tokenizer.bos_id)
        self._python = (special("<|python_start|>"), special("<|python_end|>"))
        self._output = (special("<|output_start|>"), special("<|output_end|>"))

    @property
    def state(self):
        """FREE, IN_CODE or NO_TOOLS: which special tokens the model may choose next."""
        if self._code is not None:
            return IN_CODE
        return FREE if self.sampling.use_tools and self.tool_calls < MAX_TOOL_CALLS else NO_TOOLS

    @property
    def forced(self):
        """True when the next token is a tool's and not the model's."""
        return bool(self._forced)

    def accept(self, token):
        """Take the next token: the forced one if there is any, else `token`, which the model sampled."""
        forced = self.forced
        if forced:
            token = self._forced.popleft()
        elif token in self._stops:
            self.finish_reason = "stop"
            return
        self.ids.append(token)
        self.sampled.append(0 if forced else 1)
        if not forced:
            self._follow_code(token)
        if len(self.ids) >= self.room:
            self.finish_reason = "length"

    def _follow_code(self, token):
        start, end = self._python
        if token == start:
            self._code = []
        elif token == end and self._code is not None:
            result = tools.run_tool(self.tokenizer.decode(self._code))
            self._forced.extend([self._output[0], *self.tokenizer.encode(result), self._output[1]])
            self._code, self.tool_calls = None, self.tool_calls + 1
        elif self._code is not None:
            self._code.append(token)


def banned(tokenizer, vocab_size):
    """(3, vocab_size) float32 to be added to the logits, one row a state: -inf where a token would break the format."""
    special = tokenizer.special
    stops = {special("<|assistant_end|>"), tokenizer.bos_id}
    allowed = {FREE: stops | {special("<|python_start|>")}, NO_TOOLS: stops,
               IN_CODE: stops | {special("<|python_end|>")}}
    bias = torch.zeros(3, vocab_size)
    bias[:, tokenizer.vocab_size:] = -math.inf
    for state, ids in allowed.items():
        bias[state, sorted(tokenizer.special_ids - ids)] = -math.inf
    return bias


# ------------------------------------------------------------------------------------------------ continuous batching
class Batcher:
    """`batch_size` slots of one KV cache. Sequences wait, join a free slot, are decoded together, and leave.

    Active sequences are kept in the first slots (the last one moves into a gap), so a step works on plain slices. Not
    thread-safe: one thread owns it.
    """

    def __init__(self, model, tokenizer, batch_size, capacity):
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        self.cache = KVCache.empty(model, batch_size, capacity)
        self.bans = banned(tokenizer, model.config.vocab_size).to(model.device)
        self.waiting, self.active, self._window = deque(), [], None

    @property
    def idle(self):
        return not self.waiting and not self.active

    def add(self, sequence):
        """Queue a sequence. Raises UsageError when its prompt leaves no room for an answer."""
        n, capacity = len(sequence.prompt), self.cache.capacity
        if not 0 < n < capacity:
            raise UsageError(f"the prompt has {n} tokens; it must have 1 to {capacity - 1} to leave room for an "
                             "answer. Shorten it, or start a new conversation.")
        sequence.room = min(sequence.sampling.max_new_tokens, capacity - n)
        self.waiting.append(sequence)

    def remove(self, sequence):
        """Drop a sequence, waiting or active, and free its slot. One that is not here is ignored."""
        if sequence in self.waiting:
            self.waiting.remove(sequence)
        elif sequence in self.active:
            self._leave(self.active.index(sequence))

    @torch.inference_mode()
    def step(self):
        """Let newcomers join (prompts read, first tokens chosen), then one token for every active row.

        Returns the sequences that gained tokens or ended.
        """
        touched = self._prefill()
        self._leave_finished()
        if self.active:
            touched = list(dict.fromkeys(touched + self.active))
            self._decode()
            self._leave_finished()
        return touched

    def _prefill(self):
        joined, longest = [], 0
        while self.waiting and len(self.active) + len(joined) < self.batch_size:
            longest = max(longest, len(self.waiting[0].prompt))
            if joined and longest * (len(joined) + 1) > PREFILL_TOKENS:
                break
            joined.append(self.waiting.popleft())
        if not joined:
            return []
        self.cache.lengths[len(self.active): len(self.active) + len(joined)] = 0
        window = self.cache.rows(len(self.active), len(self.active) + len(joined))
        lengths = [len(s.prompt) for s in joined]
        width = max(lengths)
        device = self.model.device
        idx = torch.tensor([s.prompt + [0] * (width - n) for s, n in zip(joined, lengths)], device=device)
        lengths = torch.tensor(lengths, device=device)
        hidden = self.model.hidden(idx, window)
        window.advance(lengths)   # past a row's true length its cache is garbage, which later tokens overwrite
        last = hidden[torch.arange(len(joined), device=device), lengths - 1]
        self.active, self._window = self.active + joined, None
        self._choose(joined, self.model.logits(last))
        return joined

    def _decode(self):
        if self._window is None:
            self._window = self.cache.rows(0, len(self.active))
        idx = torch.tensor([[s.ids[-1]] for s in self.active], device=self.model.device)
        hidden = self.model.hidden(idx, self._window)
        self._window.advance(1)
        self._choose(self.active, self.model.logits(hidden[:, 0]))

    def _choose(self, sequences, logits):
        top_k, top_p = [s.sampling.top_k or 0 for s in sequences], [s.sampling.top_p or 1.0 for s in sequences]
        logits = logits + self.bans[[s.state for s in sequences]]
        temperature = [0.0 if s.forced else s.sampling.temperature for s in sequences]
        uniform = [s.random.random() if t else 0.0 for s, t in zip(sequences, temperature)]
        for sequence, token in zip(sequences, sample(logits, temperature, top_k, top_p, uniform).tolist()):
            sequence.accept(token)

    def _leave_finished(self):
        for slot in reversed(range(len(self.active))):
            if self.active[slot].finish_reason:
                self._leave(slot)

    def _leave(self, slot):
        last = len(self.active) - 1
        if slot != last:
            self.cache.move(last, slot)
            self.active[slot] = self.active[last]
        self.active.pop()
        self._window = None


# ---------------------------------------------------------------------------------------------------- text as it comes
@dataclass(frozen=True)
class Event:
    """Something a reader of the stream sees: "text" comes in pieces, "python" and "python_output" come whole.

    The last one is "end" with finish_reason "stop" or "length" and usage {"prompt_tokens", "completion_tokens"}.
    """

    kind: str
    text: str = ""
    finish_reason: str | None = None
    usage: dict = field(default_factory=dict)


class TextStream:
    """Turns a sequence's tokens into Events as they come: no half character, none dropped, no special token as text."""

    def __init__(self, tokenizer):
        special = tokenizer.special
        self.tokenizer, self.kind, self._parts, self._taken = tokenizer, "text", [], 0
        self._begins = True     # the blank before a text part's first word is the format's, not the reader's
        self._enters = {special("<|python_start|>"): "python", special("<|output_start|>"): "python_output",
                        special("<|python_end|>"): "text", special("<|output_end|>"): "text"}
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def take(self, sequence):
        """The events of the tokens that `sequence` gained since the last call; with "end" when it has finished."""
        events, new = [], sequence.ids[self._taken:]
        self._taken += len(new)
        for token in new:
            if token in self._enters:
                events += self._close()
                self.kind, self._begins = self._enters[token], True
            else:
                events += self._piece(self._decoder.decode(self.tokenizer.decode_bytes([token])))
        if sequence.finish_reason:
            usage = {"prompt_tokens": len(sequence.prompt), "completion_tokens": len(sequence.ids)}
            events += self._close() + [Event("end", finish_reason=sequence.finish_reason, usage=usage)]
        return events

    def _piece(self, text):
        if self.kind == "text":
            if text and self._begins:
                text, self._begins = text.removeprefix(" "), False
            return [Event("text", text)] if text else []
        self._parts.append(text)
        return []

    def _close(self):
        """End the current part: a character cut off in the middle becomes one replacement character."""
        events = self._piece(self._decoder.decode(b"", final=True))
        self._decoder.reset()
        if self.kind != "text":
            events = [Event(self.kind, "".join(self._parts))]
            self._parts = []
        return events


# ------------------------------------------------------------------------------------------------------------ the door
@dataclass
class Completion:
    """A finished reply: `ids` without the closing token, `sampled` 1 where the model chose and 0 where a tool did."""

    ids: list[int]
    sampled: list[int]
    finish_reason: str


class Engine:
    """Generates with `model` (eval mode, on its device); a conversation may hold `max_len` tokens, prompt and answer.

    max_len defaults to the length that the model was trained at. Rotary positions allow more, at falling quality.
    """

    def __init__(self, model, tokenizer, max_len=None):
        self.model, self.tokenizer = model, tokenizer
        self.max_len = max_len or model.config.sequence_len

    def batcher(self, batch_size, capacity=None):
        """A Batcher of this model for who wants to drive the steps himself."""
        return Batcher(self.model, self.tokenizer, batch_size, capacity or self.max_len)

    def _capacity(self, prompts, max_new_tokens):
        return min(self.max_len, max(len(p) for p in prompts) + max_new_tokens)

    def generate(self, prompts, *, max_new_tokens, temperature=1.0, top_k=None, top_p=None, seed=0, use_tools=True,
                 batch_size=64) -> list[Completion]:
        """One Completion a prompt (a list of token ids), in order. Sequence i samples from the seed (seed, i).

        Raises UsageError before any work when a prompt leaves no room below max_len.
        """
        if not prompts:
            return []
        sampling = Sampling(max_new_tokens, temperature, top_k, top_p, seed, use_tools)
        batcher = self.batcher(min(batch_size, len(prompts)), self._capacity(prompts, max_new_tokens))
        sequences = [Sequence(self.tokenizer, list(p), sampling, i) for i, p in enumerate(prompts)]
        for sequence in sequences:
            batcher.add(sequence)
        while not batcher.idle:
            batcher.step()
        return [Completion(s.ids, s.sampled, s.finish_reason) for s in sequences]

    def stream(self, prompt, **sampling):
        """The Events of one reply as they come; keywords as in `generate`. Closing the iterator stops the work."""
        sampling = Sampling(**sampling)
        batcher = self.batcher(1, self._capacity([prompt], sampling.max_new_tokens))
        sequence, text = Sequence(self.tokenizer, list(prompt), sampling), TextStream(self.tokenizer)
        batcher.add(sequence)
        while not batcher.idle:
            batcher.step()
            yield from text.take(sequence)
