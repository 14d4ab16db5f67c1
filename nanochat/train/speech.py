"""
What a model says to the same few prompts as it learns: babble that becomes speech.

The loop writes it into the run's log at a handful of steps, early ones close together, because most of it
happens early. Who trains never looks at it: the likeliest token is taken each time, so no random number is
drawn, and the weights, the order of the data and the generators stay as they are.
"""
import functools
from collections.abc import Sequence

import torch

from nanochat.common import log
from nanochat.data.chat_format import parse_reply, plain_text, render_prompt
from nanochat.data.tokenizer import Tokenizer
from nanochat.infer.engine import Engine
from nanochat.memory import OutOfMemory
from nanochat.model.gpt import GPT

TIMES = 8  # a run
TOKENS = 24  # of an answer: a dozen words tell


@functools.cache
def speaking_steps(steps: int) -> frozenset[int]:
    """At most TIMES of a run's steps, the first and the last among them, each about as much later as the one
    before: of 500 steps 1, 2, 6, 14, 35, 85, 206, 500."""
    return frozenset(round(steps ** (i / (TIMES - 1))) for i in range(TIMES))


def answers(model: GPT, tokenizer: Tokenizer, prompts: Sequence[str], chats: bool) -> list[list[str]]:
    """[[prompt, text], ...]: the reply to each prompt, or how a model that does not chat goes on with it.

    Leaves the model in training mode. A prompt that fills the model's context is passed over. [] where memory
    does not suffice, which is said: that is no reason for a run to end.
    """
    asked = {}
    for prompt in prompts:
        if chats:
            ids = render_prompt(tokenizer, [{"role": "user", "content": prompt}])
        else:
            ids = [tokenizer.bos_id, *tokenizer.encode(prompt)]
        if len(ids) < model.config.sequence_len:
            asked[prompt] = ids
    model.eval()
    try:
        # By model/gpt.py itself, which `graphs` means on a CPU and its absence on a GPU: to make graphs, or
        # the compiled kernels on a fresh machine, takes longer than they save in so few tokens.
        engine = Engine(model, tokenizer, graphs=model.device.type == "cpu")
        replies = engine.generate([*asked.values()], max_new_tokens=TOKENS, temperature=0.0, use_tools=chats)
    except (OutOfMemory, torch.OutOfMemoryError) as error:
        log.info(f"no answers for the log this time: {error}")
        return []
    finally:
        model.train()
    said = []
    for prompt, reply in zip(asked, replies):
        text = plain_text(parse_reply(tokenizer, reply.ids)) if chats else tokenizer.decode(reply.ids)
        said.append([prompt, text])
    return said
