"""
The keys and values of a batch of conversations; who sits in which row is the engine's business.
"""
import torch


class KVCache:
    """Keys and values of B rows (slots): k, v (n_layer, B, S, n_kv_head, head_dim).

    In memory a head's positions stand together. The last `offset` channels of a key are stored one
    position on (`gpt.offset_keys`), for which k has room for one more.
    """

    def __init__(self, model, batch_size, capacity, dtype):
        c, self.offset = model.config, model.config.offset_channels
        # Zeros, not empty: a masked key counts for nothing, but 0 * NaN from old memory is NaN.
        self.k, self.v = (torch.zeros((c.n_layer, batch_size, c.n_kv_head, positions, c.head_dim), dtype=dtype,
                                      device=model.device).transpose(2, 3) for positions in (capacity + 1, capacity))

    def copy(self, source, target, n):
        """Copy the first n tokens of one slot to another."""
        for x in (self.k, self.v):
            x[:, target, :n + 1] = x[:, source, :n + 1]
