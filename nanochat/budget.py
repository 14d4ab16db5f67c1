"""
From hours to a recipe: the best chat model that a machine makes in a given time.

A machine of so many FLOP/s reads in so many hours much text with a small model or little with a large one.
In between lies the best, at some RATIO of tokens to parameters, and from that follows the rest:

    hours -> seconds of each stage   their shares, after what starting takes
          -> depth                   that which comes nearest to RATIO in pretraining's seconds
          -> tokens                  all that those seconds hold
          -> vocabulary, context     small models want small ones
          -> batch, learning rates   as in any run of this depth (scaling.py)
          -> steps, conversations and questions that fill the other stages

How fast the machine is stands in a Machine: measured by scripts/probe.py, or assumed from its data sheet.
Nothing here asks the machine or imports torch.
"""
import math
from dataclasses import dataclass
from typing import Any

from nanochat import scaling
from nanochat.common import UsageError

# Tokens for each parameter of matrices and head, by which a budget of FLOPs came to the lowest bits per byte:
#
#     3e13 FLOPs   7   the bottom of d1 to d4, one seed, web text (dev/LOG.md, "Scaling on web text")
#     3.1e19       8   the public d24 record of this family, whose default is 12
#
# More than one number these do not support. Between them, where laptops and single GPUs lie, nothing is
# measured; benchmarks/depths.sh would.
RATIO = 8.0
MOST_FLOPS_FITTED = 1e15  # half as much again as the largest run behind predicted_bits()

FORWARD = 1 / 3  # of a training step's FLOPs: the backward pass has twice as many
# On the seconds of training, for validations, saving, prompts that are asked (dev/LOG.md).
MARGIN = 1.12
TOKENIZER_CHARS_PER_S = 10e6  # read and learned from
ENCODE_BYTES_PER_S = 10e6  # text to token ids, one core
CORE_TASKS = 22
MOST_CORE = 500  # questions of a task, as in the public leaderboard
MOST_QUESTIONS = 2500  # of a task; where there is time for more, all are asked
RL_ANSWERS = 16 * 8  # a step: questions, answers to each


@dataclass(frozen=True)
class Text:
    """In what a run on text of the web differs from one on the generated world."""

    shares: dict[str, float]  # of the hours, after starting
    ratio: float
    deepest: int  # that is worth trying
    bytes_per_s: float  # at which text is made; what is fetched arrives while the tokenizer trains
    text_tokens: float  # that there are
    chat_tokens: float  # that there are, or more than which teach nothing new
    conversation_tokens: float  # of one, rather too few: what is not needed is only rendered in vain
    conversation_s: float  # to make and render one
    asked_tokens: float  # read for a question of each task of chat_eval
    said_tokens: float  # answered to them, the mean of four stages; the first goes on until it is cut
    tried_tokens: float = 100  # of an answer in RL


TEXTS = {
    "climbmix": Text(
        {"tok_train": 0.02, "base_train": 0.61, "base_eval": 0.04, "mid_train": 0.14, "chat_sft": 0.09,
         "chat_rl": 0.02, "chat_eval": 0.08}, RATIO, deepest=40,
        bytes_per_s=math.inf, text_tokens=400e9, chat_tokens=240e6, conversation_tokens=150,
        conversation_s=1 / 6000, asked_tokens=3 * 150, said_tokens=3 * 200),
    # A model of fewer than scaling.SMALL layers. Of the web's text it learns words and how sentences go; to
    # answer anything it needs as long again (dev/LOG.md, "what half an hour of real text can say").
    "climbmix, small": Text(
        {"tok_train": 0.02, "base_train": 0.46, "base_eval": 0.04, "mid_train": 0.17, "chat_sft": 0.22,
         "chat_rl": 0.01, "chat_eval": 0.08}, RATIO, deepest=40,
        bytes_per_s=math.inf, text_tokens=400e9, chat_tokens=60e6, conversation_tokens=50,
        conversation_s=1 / 2500, asked_tokens=4 * 150 + 22 * 30, said_tokens=4 * 150 + 22 * 30,
        tried_tokens=50),
    # Its few sentences are soon known: the kindergarten's own tier, a d3, learns from 5.7 tokens a parameter,
    # all stages together.
    "kindergarten": Text(
        {"tok_train": 0.01, "base_train": 0.12, "base_eval": 0.02, "mid_train": 0.12, "chat_sft": 0.53,
         "chat_rl": 0.04, "chat_eval": 0.16}, 5.7, deepest=8,
        bytes_per_s=1.5e6, text_tokens=400e6, chat_tokens=150e6, conversation_tokens=45,
        conversation_s=1 / 2500, asked_tokens=45 * 30, said_tokens=45 * 50),
}
KINDERGARTEN_VOCAB = 6144  # most words are one token, and met often enough (dev/LOG.md)
SHORT_BATCH = 2048  # tokens a step on short texts, as in the kindergarten's tier


# ---- the machine
@dataclass(frozen=True)
class Machine:
    """A machine, as far as a plan must know it."""

    name: str
    gpus: int  # devices; a CPU is one
    kind: scaling.GPU  # memory, peak and price of one
    speeds: list[tuple[float, float]]  # (FLOPs a token, FLOP/s of all devices) in training, ascending
    decoding: float  # tokens decoded, 64 replies at a time, in the time of one that is trained on
    starting_s: float  # of all stages together, until they compute
    cores: int
    known_by: str  # "measured here", or what is assumed
    short_step: float = 1.0  # a token's time in a step of SHORT_BATCH of chats, of that in pretraining's

    def token_s(self, depth: int, vocab_size: int, sequence_len: int) -> float:
        """Seconds of training for each token.

        FLOP/s lie on a line (of logarithms) between those measured and are flat beyond: small products leave
        a device idle.
        """
        flops = scaling.flops_per_token(depth, vocab_size, sequence_len)
        first = self.speeds[0]
        last = self.speeds[-1]
        along = 0.0
        if last[0] > first[0]:
            along = math.log(flops / first[0]) / math.log(last[0] / first[0])
        return flops / (first[1] * (last[1] / first[1]) ** min(max(along, 0.0), 1.0))


def assumed(name: str, gpus: int, kind: scaling.GPU, mfu: float) -> Machine:
    """A machine of which only the data sheet is known; mfu is the share of the peak that it shall reach."""
    if not kind.peak_flops:
        raise UsageError(f"how fast {name} is, is not known here. Name a kind that is near it: --gpu=h100.")
    peak = gpus * kind.peak_flops
    known_by = f"assumed: {mfu:.0%} of {peak / 1e12:,.4g} TFLOP/s"
    speeds = [(1.0, peak * mfu)]
    if name in scaling.FLOAT32:
        return Machine(name, gpus, kind, speeds, decoding=0.8, starting_s=80.0, cores=2, known_by=known_by)
    return Machine(name, gpus, kind, speeds, decoding=0.05, starting_s=400.0, cores=16 * gpus,
                   known_by=known_by)


def machine_from(saved: dict[str, Any]) -> Machine:
    """A Machine from its asdict()."""
    return Machine(**{**saved, "kind": scaling.GPU(**saved["kind"])})


def hours_for(dollars: float, machine: Machine) -> float:
    """How long they rent the machine. Raises UsageError where its price is not known."""
    price = machine.gpus * machine.kind.dollars
    if not price:
        raise UsageError(f"what an hour of {machine.name} costs is not known. Name --hours.")
    return dollars / price


# ---- from the depth
def vocab_size(depth: int) -> int:
    """A power of two whose head has up to a third of the blocks' parameters, in 2,048 to 32,768.

    A large head takes most of a small model's time; a small vocabulary makes long texts for a large one. With
    12 C^2 parameters a layer and C = 64 a layer that third is 256 depth^2.
    """
    return 2 ** max(11, min(15, int(math.log2(256 * depth**2))))


def sequence_len(depth: int) -> int:
    """A context that a model of this depth can use; what attention costs grows with it."""
    for from_depth, tokens in ((scaling.DEEP, 2048), (8, 1024), (3, 512)):
        if depth >= from_depth:
            return tokens
    return 256


def bytes_per_token(vocabulary: int) -> float:
    """Of English: 2.9 with 2,048 tokens, 4.4 with 32,768 (measured), 4.8 with 65,536 (a public run)."""
    return 2.9 + 0.38 * math.log2(vocabulary / 2048)


# ---- the recipe
@dataclass(frozen=True)
class Recipe:
    """All that a run of some hours is made of; speedrun.sh has these fields as variables."""

    hours: float
    dataset: str
    depth: int
    vocab_size: int
    sequence_len: int
    batch_tokens: int  # a step of pretraining, on all devices
    chat_batch_tokens: int  # of the stages after it
    rows: int  # at a time on a device; 0 where not even one fits
    fp8: bool
    tokenizer_chars: int
    text_chars: int  # to fetch, or to make
    base_steps: int
    core_questions: int  # a task
    mid_steps: int
    mid_conversations: int
    sft_steps: int
    sft_conversations: int
    sft_lr_scale: float  # on pretraining's learning rates
    rl_steps: int
    questions: int  # a task, after each of four stages; 0: all there are
    seconds: dict[str, float]  # planned, by the stages' names in speedrun.sh

    @property
    def ratio(self) -> float:
        """Tokens of pretraining for each parameter of matrices and head."""
        return self.base_steps * self.batch_tokens / _multiplied(self)


def predicted_bits(found: Recipe) -> float | None:
    """Bits per byte of hidden text after pretraining on text of the web; None beyond what was measured.

    The form is Chinchilla's (arXiv 2203.15556): what no model knows, what more parameters and what more
    tokens would have known. The last term is of twelve runs of d1 to d4 (dev/LOG.md, "Scaling on web text"),
    the others go through budgets of a half and of one hour.
    """
    tokens = found.base_steps * found.batch_tokens
    flops = tokens * scaling.flops_per_token(found.depth, found.vocab_size, found.sequence_len)
    if found.dataset != "climbmix" or flops > MOST_FLOPS_FITTED:
        return None
    return 1.085 + 39.2 * _multiplied(found) ** -0.34 + 32.6 * tokens ** -0.30


def _multiplied(found: Recipe) -> int:
    return scaling.matrix_params(found.depth) + scaling.head_params(found.depth, found.vocab_size)


def recipe(machine: Machine, hours: float, dataset: str = "climbmix") -> Recipe:
    """The recipe of the depth that suits these hours best, among those that fit the memory.

    Half the tokens for a parameter count as much as twice as many: about so the budgets measured rise on both
    sides of the best. Raises UsageError where starting the stages takes nearly all of the hours.
    """
    def misfit(found):
        tokens = found.base_steps * found.batch_tokens
        if found.dataset == "kindergarten":
            tokens += (found.mid_steps + found.sft_steps) * found.chat_batch_tokens
        return abs(math.log(tokens / _multiplied(found) / TEXTS[dataset].ratio))

    depths = range(1, TEXTS[dataset].deepest + 1)
    found = [of_depth(machine, hours, depth, dataset) for depth in depths]
    return min([one for one in found if one.rows] or found[:1], key=misfit)


# Long: one stage after another, each from its seconds.
def of_depth(machine: Machine, hours: float, depth: int, dataset: str = "climbmix") -> Recipe:
    """The recipe of this depth for these hours, whether it is the best or not."""
    generated = dataset == "kindergarten"
    is_small = depth < scaling.SMALL and not generated
    text = TEXTS["climbmix, small" if is_small else dataset]
    vocabulary = KINDERGARTEN_VOCAB if generated else vocab_size(depth)
    context = 256 if generated else sequence_len(depth)

    # What things take: a token of training, read, or said; a question of each task; a step of RL.
    token_s = machine.token_s(depth, vocabulary, context)
    read_s = token_s * FORWARD
    said_s = token_s / machine.decoding
    question_s = text.asked_tokens * read_s + text.said_tokens * said_s
    core_s = CORE_TASKS * min(1.8 * context, 1500) * read_s  # with its examples
    rl_step_s = RL_ANSWERS * text.tried_tokens * (token_s + said_s)
    rl_step_s += 16 * context * token_s  # the anchor's rows
    byte_s = 1 / ENCODE_BYTES_PER_S / min(machine.cores, 32) + 1 / text.bytes_per_s
    text_s = token_s * MARGIN + bytes_per_token(vocabulary) * byte_s
    chat_token_s = token_s * (machine.short_step if is_small or generated else 1.0)
    chat_s = chat_token_s * MARGIN + text.conversation_s / text.conversation_tokens

    tokenizer_chars = 20_000 * vocabulary  # beyond, its tokens hardly change
    seconds = _seconds(text, hours, machine.starting_s, most={
        "tok_train": tokenizer_chars / TOKENIZER_CHARS_PER_S,
        "base_train": text.text_tokens * text_s,
        "base_eval": MOST_CORE * core_s,
        "mid_train": text.chat_tokens * chat_s,
        "chat_sft": text.chat_tokens * chat_s,
        "chat_rl": 467 * rl_step_s,  # all of GSM8K's training questions
        "chat_eval": 4 * MOST_QUESTIONS * question_s,
    })
    base_tokens = seconds["base_train"] / text_s
    mid_tokens = seconds["mid_train"] / chat_s
    sft_tokens = seconds["chat_sft"] / chat_s
    batch_tokens = SHORT_BATCH
    if not generated:
        batch_tokens = scaling.total_batch_tokens(depth, base_tokens, machine.gpus)
    chat_batch_tokens = batch_tokens
    if is_small:
        row_each = context * machine.gpus
        chat_batch_tokens = row_each * math.ceil(SHORT_BATCH / row_each)
        batch_tokens = max(batch_tokens, row_each)
    questions = _count(seconds["chat_eval"] / 4, question_s, least=2, most=MOST_QUESTIONS)
    return Recipe(
        hours=hours, dataset=dataset, depth=depth, vocab_size=vocabulary, sequence_len=context,
        batch_tokens=batch_tokens, chat_batch_tokens=chat_batch_tokens,
        rows=_rows(machine, depth, vocabulary, context, batch_tokens),
        fp8=machine.kind.fp8 and depth >= scaling.DEEP,
        tokenizer_chars=int(max(1e6, seconds["tok_train"] * TOKENIZER_CHARS_PER_S)),
        text_chars=int(base_tokens * bytes_per_token(vocabulary)),
        base_steps=max(1, int(base_tokens / batch_tokens)),
        core_questions=_count(seconds["base_eval"], core_s, least=2, most=MOST_CORE),
        mid_steps=max(1, int(mid_tokens / chat_batch_tokens)),
        mid_conversations=int(max(200, mid_tokens / text.conversation_tokens)),
        sft_steps=max(1, int(sft_tokens / chat_batch_tokens)),
        sft_conversations=int(max(200, sft_tokens / text.conversation_tokens)),
        sft_lr_scale=1.0 if generated or is_small else 0.5,  # what is new wants more than what is chosen from
        rl_steps=_count(seconds["chat_rl"], rl_step_s, least=1, most=467),
        questions=questions % MOST_QUESTIONS, seconds=seconds)


def _seconds(text: Text, hours: float, starting_s: float, most: dict[str, float]) -> dict[str, float]:
    """{stage: its seconds}: its share but no more than `most`; what is left over is pretraining's."""
    work_s = 3600 * hours - starting_s
    if work_s < 360 * hours:
        raise UsageError(f"{hours:g} hours are too few: to start all stages takes {starting_s:.0f} s here. "
                         f"Give at least --hours={starting_s / 3240 + 0.01:.2f}.")
    seconds = {"starting": starting_s}
    for stage, share in text.shares.items():
        seconds[stage] = min(share * work_s, most[stage])
    left_s = 3600 * hours - sum(seconds.values())
    seconds["base_train"] = min(seconds["base_train"] + left_s, most["base_train"])
    return seconds


def _rows(machine: Machine, depth: int, vocabulary: int, context: int, batch_tokens: int) -> int:
    """Rows that a device takes at a time: what fits, as far as that is of use."""
    itemsize = 4 if machine.name in scaling.FLOAT32 else 2
    fit = scaling.device_batch_size(depth, vocabulary, context, machine.kind.gib, machine.gpus,
                                    itemsize=itemsize)
    rows = batch_tokens // context // machine.gpus
    return min(fit, scaling.rows_at_a_time(machine.name, context, rows))


def _count(seconds: float, each_s: float, least: int, most: int) -> int:
    """How many fit into these seconds."""
    return max(least, min(most, int(seconds / each_s)))
