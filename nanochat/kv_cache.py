"""
The keys and values of a batch of conversations: tensors without policy. Who sits in which row is the engine's business.
"""
import torch

from nanochat.common import UsageError


class KVCache:
    """Keys and values of B rows (slots), each of its own length: k, v (n_layer, B, S, n_kv_head, head_dim).

    In memory a head's positions stand together (the views are transposed), which is faster. The last `offset` channels of
    a key are stored one position on (`gpt.offset_keys`), for which k has room for one position more.
    """

    def __init__(self, k, v, lengths, offset):
        self.k, self.v, self.lengths, self.offset = k, v, lengths, offset
        self.capacity = v.size(2)

    @classmethod
    def empty(cls, model, batch_size, capacity, dtype=None):
        """A cache on the model's device, in its dtype unless told; `capacity` is the tokens a row can hold."""
        c = model.config
        # Zeros, not empty: a masked key counts for nothing, but 0 * NaN from old memory would still be NaN.
        k, v = (torch.zeros((c.n_layer, batch_size, c.n_kv_head, positions, c.head_dim), dtype=dtype or model.dtype,
                            device=model.device).transpose(2, 3) for positions in (capacity + 1, capacity))
        return cls(k, v, torch.zeros(batch_size, dtype=torch.int64, device=model.device), c.offset_channels)

    def rows(self, start, stop):
        """The slots start..stop-1 over the same memory."""
        return KVCache(self.k[:, start:stop], self.v[:, start:stop], self.lengths[start:stop], self.offset)

    def update(self, layer, k, v):
        """Store k, v (B, T, n_kv_head, head_dim) at each row's positions lengths[b]..lengths[b]+T-1.

        Returns that layer's k, v (B, max(lengths)+T, n_kv_head, head_dim). Raises UsageError past the capacity.
        """
        T, device = k.size(1), self.lengths.device
        end = int(self.lengths.max()) + T
        if end > self.capacity:
            raise UsageError(f"{end} tokens do not fit a KV cache of {self.capacity}. Shorten prompt or answer.")
        row = torch.arange(len(self.lengths), device=device)[:, None]
        at = self.lengths[:, None] + torch.arange(T, device=device)
        here = k.size(-1) - self.offset
        self.k[layer][row, at, :, :here] = k[..., :here]
        self.k[layer][row, at + 1, :, here:] = k[..., here:]
        self.v[layer][row, at] = v
        return self.k[layer][:, :end], self.v[layer][:, :end]

    def advance(self, n):
        """Count n more tokens a row as stored; n is an int or (B,) int64."""
        self.lengths += n

    def copy(self, source, target, n):
        """Copy the first n tokens of slot `source` over those of slot `target`."""
        for x in (self.k, self.v):
            x[:, target, :n + 1] = x[:, source, :n + 1]
