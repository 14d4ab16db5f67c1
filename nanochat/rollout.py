"""
Reinforcement learning on checkable tasks: sample answers, compare them with each other, make a training batch.

The estimator is REINFORCE with the mean of a prompt's own samples as its baseline (the core of GRPO, arXiv 2402.03300,
without its KL term and clipping, and without dividing by the standard deviation, which arXiv 2503.20783 shows to be
biased towards questions that are nearly always or nearly never solved). Updates are on-policy and every sampled token
counts alike, so the advantage is all that the loss needs: it is the `weight` of an ordinary Batch.
"""
from dataclasses import dataclass

import torch

from nanochat import runtime
from nanochat.chat_format import parse_reply, render_prompt
from nanochat.dataloader import Batch


@dataclass(frozen=True)
class Rollout:
    """One sampled answer: prompt and completion ids, which completion tokens the model sampled, and its reward."""

    prompt: list
    ids: list
    sampled: list
    reward: float


def sample(engine, tokenizer, tasks_and_items, samples, *, max_new_tokens, temperature, seed, top_k=None, batch_size=128):
    """`samples` rollouts for each (task, conversation): a list of lists, one inner list a conversation."""
    prompts = [render_prompt(tokenizer, conversation["messages"][:-1]) for _, conversation in tasks_and_items]
    repeated = [prompt for prompt in prompts for _ in range(samples)]
    completions = engine.generate(repeated, max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k, seed=seed,
                                  batch_size=batch_size)
    end, groups = tokenizer.special("<|assistant_end|>"), []
    for i, (task, conversation) in enumerate(tasks_and_items):
        group = []
        for completion in completions[i * samples: (i + 1) * samples]:
            reward = task.reward(conversation, parse_reply(tokenizer, completion.ids))
            stopped = completion.finish_reason == "stop"
            group.append(Rollout(prompts[i], completion.ids + [end] * stopped, completion.sampled + [1] * stopped, reward))
        groups.append(group)
    return groups


def make_batches(groups, device_batch_size, pad_id, rt):
    """(this rank's micro-batches, global mean reward) from this rank's groups of rollouts; every rank must call.

    Groups whose rewards are all equal teach nothing and are left out. The count of every Batch is the global number of
    sampled tokens that do teach, so the loss is a mean over tokens.
    """
    taught = []
    for group in groups:
        mean = sum(r.reward for r in group) / len(group)
        if any(r.reward != group[0].reward for r in group):
            taught += [(r, r.reward - mean) for r in group]
    taught.sort(key=lambda pair: len(pair[0].prompt) + len(pair[0].ids))      # one long answer would pad all beside it
    rewards = [r.reward for group in groups for r in group]
    sums = torch.tensor([sum(sum(r.sampled) for r, _ in taught), sum(rewards), len(rewards)], dtype=torch.float64)
    n_tokens, reward, n = runtime.all_reduce_sum(rt, sums.to(rt.device)).tolist()
    count = max(1.0, n_tokens)
    batches = []
    for start in range(0, len(taught), device_batch_size):
        part = taught[start: start + device_batch_size]
        width = max(len(r.prompt) + len(r.ids) for r, _ in part)
        tokens = torch.full((len(part), width), pad_id, dtype=torch.int64)
        weight = torch.zeros((len(part), width))
        for row, (r, advantage) in enumerate(part):
            whole = r.prompt + r.ids
            tokens[row, : len(whole)] = torch.tensor(whole)
            weight[row, len(r.prompt): len(whole)] = torch.tensor(r.sampled, dtype=torch.float32) * advantage
        batches.append(Batch(tokens[:, :-1], tokens[:, 1:], weight[:, 1:], count, list(range(start, start + len(part)))))
    return batches, reward / n
