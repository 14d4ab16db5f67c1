"""
Reinforcement learning on checkable tasks: sample answers, compare them, make a batch.

REINFORCE with the mean of a prompt's own samples as its baseline (GRPO, arXiv 2402.03300, without KL term,
clipping, and division by the standard deviation, which arXiv 2503.20783 shows to be biased). Updates are
on-policy, so the advantage is the `weight` of an ordinary Batch.
"""
from dataclasses import dataclass
from itertools import islice

import torch

from nanochat import runtime
from nanochat.data.chat_format import parse_reply, render_prompt
from nanochat.data.dataloader import Batch


@dataclass(frozen=True)
class Rollout:
    """One sampled answer; `sampled` says which of its `ids` the model chose."""

    prompt: list
    ids: list
    sampled: list
    reward: float

    def __len__(self):
        return len(self.prompt) + len(self.ids)


def sample(engine, tokenizer, tasks_and_items, samples, **sampling):
    """`samples` rollouts for each (task, conversation): a list of lists."""
    prompts = [render_prompt(tokenizer, conversation["messages"][:-1]) for _, conversation in tasks_and_items]
    replies = iter(engine.generate([prompt for prompt in prompts for _ in range(samples)], batch_size=128, **sampling))
    end = tokenizer.special("<|assistant_end|>")

    def judge(task, conversation, prompt, reply):
        stopped = reply.finish_reason == "stop"
        return Rollout(prompt, reply.ids + [end] * stopped, reply.sampled + [1] * stopped,
                       task.reward(conversation, parse_reply(tokenizer, reply.ids)))
    return [[judge(task, conversation, prompt, reply) for reply in islice(replies, samples)]
            for (task, conversation), prompt in zip(tasks_and_items, prompts)]


def make_batches(groups, device_batch_size, pad_id, rt):
    """(this rank's micro-batches, global mean reward) from this rank's groups of rollouts; every rank must
    call.

    Groups whose rewards are all equal teach nothing and are left out. The loss is a mean over the sampled
    tokens of the others on all ranks.
    """
    taught, rewards = [], [r.reward for group in groups for r in group]
    for group in groups:
        mean = sum(r.reward for r in group) / len(group)
        if any(r.reward != group[0].reward for r in group):
            taught += [(r, r.reward - mean) for r in group]
    taught.sort(key=lambda pair: len(pair[0]))  # one long answer would pad all beside it
    sums = sum(sum(r.sampled) for r, _ in taught), sum(rewards), len(rewards)
    n_tokens, reward, n = map(sum, zip(*runtime.all_gather_object(rt, sums)))
    batches = []
    for start in range(0, len(taught), device_batch_size):
        part = taught[start: start + device_batch_size]
        tokens = torch.full((len(part), len(part[-1][0])), pad_id, dtype=torch.int64)
        weight = torch.zeros(tokens.shape)
        for row, (r, advantage) in enumerate(part):
            tokens[row, :len(r)] = torch.tensor(r.prompt + r.ids)
            weight[row, len(r.prompt):len(r)] = torch.tensor(r.sampled, dtype=torch.float32) * advantage
        batches.append(Batch(tokens[:, :-1], tokens[:, 1:], weight[:, 1:], max(1.0, n_tokens),
                             list(range(start, start + len(part)))))
    return batches, reward / n
