"""Plain ways to the same: a reply without a cache, a loss by autograd, an option's score alone."""
import torch
import torch.nn.functional as F

from nanochat.model.loss import softcapped_logits


def cross_entropy(hidden, head, targets, weight, softcap):
    """What `loss.linear_cross_entropy` computes."""
    logits = softcapped_logits(hidden, head, softcap)
    return (F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none") * weight.flatten()).sum()


@torch.inference_mode()
def score(model, span):
    """What `core_eval.score_items` finds for a span."""
    ids = torch.tensor(span.ids, device=model.device)
    logits, asked = model(ids[None, :-1])[0, span.start - 1:], ids[span.start:]
    likeliest = logits.argmax(-1)
    return -F.cross_entropy(logits, asked).item(), likeliest.equal(asked), likeliest.tolist()


class Reference:
    """A runner like `runner.Runner` without any cache: each piece's last state by a forward over all that its slot has read."""

    def __init__(self, model, batch_size):
        self.model, self.read = model, [[] for _ in range(batch_size)]
        self.logits = model.logits

    def forward(self, pieces):
        found = []
        for slot, start, tokens in pieces:
            self.read[slot][start:] = tokens
            found.append(self.model.hidden(torch.tensor([self.read[slot]]))[0, -1])
        return torch.stack(found)
