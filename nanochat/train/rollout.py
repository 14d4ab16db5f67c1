"""
Reinforcement learning on checkable tasks: sample answers, compare them, make a batch.

REINFORCE with the mean of a prompt's own samples as its baseline: an answer is reinforced as far as it is
better than the model's other answers to the same question, so no second network has to guess how hard a
question is. That is GRPO (arXiv 2402.03300) with three things left away. There is no KL term to the model of
the start, as a reward that is checked, not learned, leaves little to exploit. No ratio is clipped: every
sample is used once, by the model that made it, so all ratios are 1. And nothing is divided by the standard
deviation, which would give most weight to questions that are nearly always or nearly never solved (a bias,
arXiv 2503.20783). The gradient of sum(advantage * log p) over sampled tokens is that of a cross-entropy with
the advantage as weight, so the result is an ordinary Batch.
"""
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from nanochat import runtime
from nanochat.data.chat_format import message_parts, parse_reply, plain_text, render_prompt
from nanochat.data.dataloader import Batch
from nanochat.data.tokenizer import Tokenizer
from nanochat.infer.engine import Engine
from nanochat.runtime import Runtime


@dataclass(frozen=True)
class Rollout:
    """One sampled answer; `sampled` says which of its `ids` the model chose (1) and which a tool wrote
    (0)."""

    prompt: list[int]
    ids: list[int]
    sampled: list[int]
    reward: float

    def __len__(self):
        return len(self.prompt) + len(self.ids)


def sample(engine: Engine, tokenizer: Tokenizer, tasks_and_items: list[tuple], samples: int,
           **sampling: Any) -> list[list[Rollout]]:
    """`samples` rollouts for each (task, conversation): a group for each.

    A question that leaves less than half of the context for its answers loses its beginning.
    """
    room = engine.max_len - min(sampling["max_new_tokens"], engine.max_len // 2)
    prompts = []
    for _, conversation in tasks_and_items:
        without_answer = conversation["messages"][:-1]
        prompts.append(render_prompt(tokenizer, without_answer, max_tokens=room))
    repeated = [prompt for prompt in prompts for _ in range(samples)]
    replies = iter(engine.generate(repeated, batch_size=128, **sampling))
    groups = []
    for (task, conversation), prompt in zip(tasks_and_items, prompts):
        group = [_judge(tokenizer, task, conversation, prompt, reply) for reply in islice(replies, samples)]
        groups.append(group)
    return groups


def _judge(tokenizer, task, conversation, prompt, reply):
    """The Rollout of one reply. Its end is a choice of the model, too, though not among reply.ids."""
    ids = list(reply.ids)
    sampled = list(reply.sampled)
    if reply.closing:  # None where it was cut
        token, _ = reply.closing
        ids.append(token)
        sampled.append(1)
    return Rollout(prompt, ids, sampled, task.reward(conversation, parse_reply(tokenizer, reply.ids)))


def readable(tokenizer: Tokenizer, tasks_and_items: list[tuple], groups: list[list[Rollout]]) -> dict:
    """A question and its answers for a person to read: {"question", "answers": [[text, reward], ...]}.

    One from which something is learned, if there is one; the best answers first.
    """
    spreads = []
    for group in groups:
        rewards = [rollout.reward for rollout in group]
        spreads.append(max(rewards) - min(rewards))
    chosen = spreads.index(max(spreads))
    _, conversation = tasks_and_items[chosen]
    answers = []
    for rollout in sorted(groups[chosen], key=lambda rollout: -rollout.reward):
        answers.append([plain_text(parse_reply(tokenizer, rollout.ids)), rollout.reward])
    return {"question": plain_text(message_parts(conversation["messages"][-2])), "answers": answers}


def advantages(groups: list[list[Rollout]]) -> list[tuple[Rollout, float]]:
    """[(rollout, its reward above the group's mean)], short ones first.

    Groups whose rewards are all equal teach nothing and are left out.
    """
    found = []
    for group in groups:
        mean = sum(rollout.reward for rollout in group) / len(group)
        if any(rollout.reward != group[0].reward for rollout in group):
            found += [(rollout, rollout.reward - mean) for rollout in group]
    found.sort(key=lambda pair: len(pair[0]))  # one long answer would pad all beside it
    return found


def make_batches(groups: list[list[Rollout]], device_batch_size: int, pad_id: int,
                 rt: Runtime) -> tuple[list[Batch], float]:
    """(this rank's micro-batches, global mean reward) from this rank's groups of rollouts; every rank must
    call.

    The loss is a mean over the sampled tokens of all ranks, not of each answer: else a token of a long wrong
    answer would count less than one of a short, and wrong answers would grow.
    """
    taught = advantages(groups)
    rewards = [rollout.reward for group in groups for rollout in group]
    n_sampled = sum(sum(rollout.sampled) for rollout, _ in taught)
    sums = runtime.all_gather_object(rt, (n_sampled, sum(rewards), len(rewards)))  # of every rank
    n_tokens = sum(tokens for tokens, _, _ in sums)
    reward_sum = sum(reward for _, reward, _ in sums)
    n_rewards = sum(count for _, _, count in sums)
    batches = []
    for first in range(0, len(taught), device_batch_size):
        part = taught[first: first + device_batch_size]
        batches.append(_batch(part, pad_id, max(1.0, n_tokens), first))
    return batches, reward_sum / n_rewards


def _batch(part, pad_id, count, first):
    """The Batch of (rollout, advantage) pairs sorted by length, padded on the right."""
    longest, _ = part[-1]
    tokens = torch.full((len(part), len(longest)), pad_id, dtype=torch.int64)  # (B, T + 1)
    weight = torch.zeros(tokens.shape)
    for row, (rollout, advantage) in enumerate(part):
        end = len(rollout)
        tokens[row, :end] = torch.tensor(rollout.prompt + rollout.ids)
        weight[row, len(rollout.prompt):end] = torch.tensor(rollout.sampled, dtype=torch.float32) * advantage
    numbers = list(range(first, first + len(part)))
    return Batch(tokens[:, :-1], tokens[:, 1:], weight[:, 1:], count, numbers)
