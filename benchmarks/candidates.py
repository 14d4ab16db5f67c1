"""
What bench_train.py and bench_infer.py share: candidates that are measured in a process each (`--one=NAME`
prints JSON), and the peer that both compare with.
"""

import json
import os
import subprocess
import sys

from nanochat import scaling


def launch(script, candidate, **flags):
    """The figures of one candidate, what `script` prints last with these flags, or None and a line why."""
    command = [sys.executable, script, f"--one={candidate}"]
    command += [f"--{name}={value}" for name, value in flags.items()]
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no message"]
        print(f"| {candidate} | failed: {said[-1][:200]} |", flush=True)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def main(config, measure, compare):
    """Measure one candidate where the flags say so, else compare all at every shape."""
    if config.one:
        print(json.dumps(measure(config)))
        return
    for shape in config.shapes.split(","):
        compare(config, shape)


def transformers_model(shape, **more):
    """transformers' model of the same architecture, random; shape is (depth, sequence_len, vocab_size)."""
    from transformers import NanoChatConfig, NanoChatForCausalLM

    depth, T, V = shape
    size = scaling.model_shape(depth)
    return NanoChatForCausalLM(
        NanoChatConfig(
            vocab_size=V,
            hidden_size=size.n_embd,
            intermediate_size=4 * size.n_embd,
            num_hidden_layers=depth,
            num_attention_heads=size.n_head,
            num_key_value_heads=size.n_kv_head,
            max_position_embeddings=T,
            **more,
        )
    )
