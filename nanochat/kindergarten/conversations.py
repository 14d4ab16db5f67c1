"""
The mixture: which skills exist, how often each is trained, and the examples of each side of the split.

A training example depends on (i, seed, size, stage) alone; test examples are numbered per skill and distinct as long
as its space lasts. SFT leans to what is hard and leaves the word problems to reinforcement learning.
"""
import functools
import itertools
import random

from nanochat.common import UsageError, mix_seed
from nanochat.kindergarten import documents, skills_numbers, skills_people, skills_social, skills_words, skills_world
from nanochat.kindergarten.skill import Example, Skill
from nanochat.kindergarten.world import World

REPLAYED = 0.06  # part that is biographies instead, lest the unasked be forgotten
JOINED = 0.12  # part that has an unrelated one in front, so that the model meets a past
MAX_JOINED_CHARS = 360  # both together: under 200 tokens
TRIES = 50  # draws without anything new until a skill's space is used up

_p, _w, _n, _s, _l = skills_people, skills_words, skills_numbers, skills_social, skills_world
SKILLS = {make.__name__: Skill(make.__name__, title, chance, split, make, mid, sft)
          for make, title, chance, split, mid, sft in (
    (_p.facts_seen, "Facts, people asked about", 0.07, "seen", 20, 10),
    (_p.facts_new_people, "Facts, people only read about", 0.07, "people", 0, 0),
    (_p.facts_paraphrase, "Facts, new wordings", 0.07, "paraphrase", 0, 0),
    (_p.reverse, "Reverse questions", 0.02, "paraphrase", 5, 4),
    (_p.yes_no, "Yes or no", 0.5, "pairs", 8, 13),
    (_p.choice, "Multiple choice", 0.25, "pairs", 5, 8),
    (_p.follow_up, "Follow-up with a pronoun", 0.07, "pairs", 4, 4),
    (_p.unknown, "I don't know", 0.0, "words", 8, 7),
    (_l.facts_world, "The real world", 0.05, "paraphrase", 14, 10),
    (_l.story, "Stories", 0.3, "stories", 9, 13),
    (_n.arithmetic, "Sums with the calculator", 0.0, "pairs", 6, 4),
    (_n.word_problem, "Word problems with the calculator", 0.0, "pairs", 4, 0.6),
    (_w.spelling, "Spelling", 0.0, "paraphrase", 5, 3),
    (_w.spelling_new_words, "Spelling, words only read", 0.0, "words", 0, 0),
    (_w.counting, "Counting letters", 0.55, "pairs", 8, 17),
    (_w.copying, "Copying", 0.0, "words", 8, 8),
    (_w.reversing, "Reversing", 0.0, "words", 4, 8),
    (_s.identity, "Who are you?", 0.0, "paraphrase", 8, 8),
    (_s.greetings, "Greetings", 0.0, "paraphrase", 4, 3),
    (_s.memory, "Remembering", 0.0, "words", 16, 20),
    (_s.memory_names, "Remembering a name", 0.0, "words", 0, 0),
)}
STAGES = {"mid": 1, "sft": 2}  # stage -> level of difficulty


_world = functools.lru_cache(maxsize=2)(World)


def _example(name, made):
    messages, check = made
    conversation = {"messages": messages}
    if check["kind"] == "letter":
        conversation["letters"] = list(skills_people.LETTERS)
    return Example(conversation, name, SKILLS[name].split, check)


def training_example(i, seed=0, size=60, stage="mid"):
    """The i-th training Example of a stage ("mid" or "sft")."""
    if stage not in STAGES:
        raise UsageError(f"stage is one of {', '.join(STAGES)}; got {stage!r}")
    rng, world = random.Random(mix_seed("train", stage, seed, i)), _world(size)

    def one():
        name = rng.choices(tuple(SKILLS), [getattr(skill, stage) for skill in SKILLS.values()])[0]
        return name, SKILLS[name].make(rng, world, False, STAGES[stage])
    name, (messages, check) = one()
    if rng.random() < JOINED:
        _, (before, _) = one()
        if sum(len(str(m["content"])) for m in before + messages) < MAX_JOINED_CHARS:
            messages = before + messages
    return _example(name, (messages, check))


def train_conversations(n, seed=0, size=60, stage="mid"):
    """Yield the first `n` training conversations, some replaced by a biography: {"text": str}."""
    for i in range(n):
        rng = random.Random(mix_seed("replay", stage, seed, i))
        if rng.random() < REPLAYED:
            yield {"text": documents.life(rng, rng.choice(_world(size).people))}
        else:
            yield training_example(i, seed, size, stage).conversation


@functools.cache
def _tests(skill, seed, size):
    """(a skill's test examples so far, the iterator that makes more)."""
    def different():
        asked, missed = set(), 0
        for draw in itertools.count():
            made = SKILLS[skill].make(random.Random(mix_seed("test", skill, seed, draw)), _world(size), True, 2)
            question = str(made[0][:-1])
            missed = missed + 1 if question in asked else 0
            if missed > TRIES:
                return
            if not missed:
                asked.add(question)
                yield _example(skill, made)
    if skill not in SKILLS:
        raise UsageError(f"unknown skill {skill!r}; one of {', '.join(SKILLS)}")
    return [], different()


def eval_example(skill, i, seed=0, size=60):
    """The i-th test Example of a skill, which begins again after its last."""
    made, more = _tests(skill, seed, size)
    made.extend(itertools.islice(more, max(0, i + 1 - len(made))))
    return made[i % len(made)]


def rl_example(i, seed=0, size=60, skill="word_problem"):
    """The i-th fresh training-side Example of one skill, at full difficulty."""
    if skill not in SKILLS or not SKILLS[skill].sft:
        trained = ", ".join(name for name in SKILLS if SKILLS[name].sft)
        raise UsageError(f"no training examples of skill {skill!r}; one of {trained}")
    rng = random.Random(mix_seed("rl", skill, seed, i))
    return _example(skill, SKILLS[skill].make(rng, _world(size), False, 2))
