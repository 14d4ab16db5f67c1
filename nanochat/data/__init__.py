"""From text to batches: tokenizer, conversations as tokens, downloads, shards, packing."""
