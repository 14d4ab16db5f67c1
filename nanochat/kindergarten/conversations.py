"""
The mixture: which skills exist, how often each is trained, and the examples of each side of the split.

A training example depends on (index, seed, stage) alone, so that any of them can be made again; test
examples are numbered per skill and distinct as long as its space lasts. SFT leans to what is hard and leaves
the word problems to reinforcement learning, which needs something that is not yet solved.
"""
import functools
import itertools
from collections.abc import Collection, Iterator
from random import Random
from typing import Any

from nanochat.common import UsageError, mix_seed
from nanochat.kindergarten import (
    documents,
    skills_counting,
    skills_everyday,
    skills_followups,
    skills_letters,
    skills_lists,
    skills_manners,
    skills_numbers,
    skills_orders,
    skills_passages,
    skills_people,
    skills_problems,
    skills_reading,
    skills_recall,
    skills_sentences,
    skills_social,
    skills_tales,
    skills_two,
    skills_words,
    skills_world,
)
from nanochat.kindergarten.skill import Example, Made, Message, Skill
from nanochat.kindergarten.world import World

REPLAYED = 0.07  # part that is biographies instead, lest the unasked be forgotten
JOINED = 0.3  # part that has an unrelated one in front, of these again: one thing is asked after another
MAX_JOINED_CHARS = 400  # all together: under 220 tokens
MAX_REPEATS = 50  # draws in a row without anything new, until a skill's space counts as used up
STAGES = {"mid": 1, "sft": 2}  # stage -> level of difficulty

_ROWS = (
    # maker (its name is the skill's), title, chance, split, weight in midtraining, in SFT
    (skills_people.facts_seen, "Facts, people asked about", 0.07, "seen", 16, 6),
    (skills_people.facts_new_people, "Facts, people only read about", 0.07, "people", 0, 0),
    (skills_people.facts_paraphrase, "Facts, new wordings", 0.07, "paraphrase", 0, 0),
    (skills_people.reverse, "Reverse questions", 0.02, "paraphrase", 5, 4),
    (skills_people.yes_no, "Yes or no", 0.5, "pairs", 10, 10),
    (skills_people.choice, "Multiple choice", 0.25, "pairs", 5, 4),
    (skills_people.follow_up, "Follow-up with a pronoun", 0.07, "pairs", 4, 4),
    (skills_people.unknown, "I don't know", 0.0, "words", 8, 7),
    (skills_world.facts_world, "The real world", 0.05, "paraphrase", 12, 7),
    (skills_world.story, "Stories", 0.3, "stories", 9, 11),
    (skills_numbers.arithmetic, "Sums with the calculator", 0.0, "pairs", 6, 4),
    (skills_numbers.word_problem, "Word problems with the calculator", 0.0, "pairs", 6, 2),
    (skills_words.spelling, "Spelling", 0.0, "paraphrase", 5, 3),
    (skills_words.spelling_new_words, "Spelling, words only read", 0.0, "words", 0, 0),
    (skills_words.counting, "Counting letters", 0.55, "pairs", 6, 5),
    (skills_words.copying, "Copying", 0.0, "words", 10, 8),
    (skills_words.reversing, "Reversing", 0.0, "words", 6, 9),
    (skills_social.identity, "Who are you?", 0.0, "paraphrase", 6, 5),
    (skills_social.greetings, "Greetings", 0.0, "paraphrase", 4, 2),
    (skills_social.memory, "Remembering", 0.0, "words", 12, 8),
    (skills_social.memory_names, "Remembering a name", 0.0, "words", 0, 0),
    # asked as strangers ask
    (skills_manners.manners, "Small talk", 0.0, "wordings", 30, 55),
    (skills_tales.tales, "Stories, poems and jokes on request", 0.0, "wordings", 10, 18),
    (skills_reading.reading, "Reading", 0.3, "templates", 6, 10),
    (skills_sentences.sentences, "Reading, sentences of a grammar", 0.2, "stories", 12, 18),
    (skills_passages.passages, "Reading, little stories", 0.2, "templates", 4, 18),
    (skills_recall.recall, "Remembering, in any words", 0.0, "words", 12, 20),
    (skills_recall.instructions, "Say what you are told", 0.0, "words", 8, 12),
    (skills_orders.orders, "Doing as told", 0.0, "templates", 2, 12),
    (skills_two.two_questions, "Two questions at once", 0.0, "wordings", 4, 8),
    (skills_followups.follow_ups, "What is said next", 0.0, "wordings", 5, 12),
    (skills_everyday.facts_everyday, "What a child knows", 0.05, "templates", 30, 56),
    (skills_everyday.yes_no_world, "Yes or no, about the world", 0.5, "pairs", 14, 18),
    (skills_everyday.comparing, "Comparing things", 0.5, "pairs", 8, 12),
    (skills_lists.lists, "Lists", 0.0, "templates", 10, 20),
    (skills_letters.spelling_any, "Spelling any word", 0.0, "words", 10, 11),
    (skills_letters.backwards_any, "Any word backwards", 0.0, "words", 3, 4),
    (skills_letters.letter_of_word, "Letters at a place", 0.08, "words", 7, 11),
    (skills_letters.counting_any, "Counting letters of any word", 0.3, "words", 7, 11),
    (skills_letters.words_by_letter, "Words by letter", 0.15, "templates", 3, 5),
    (skills_letters.alphabet, "The alphabet", 0.08, "templates", 4, 5),
    (skills_numbers.sums_any, "Sums in other words", 0.0, "templates", 8, 14),
    (skills_numbers.number_sense, "Comparing numbers", 0.45, "templates", 5, 8),
    (skills_counting.counting_numbers, "Counting aloud", 0.0, "templates", 12, 13),
    (skills_problems.word_problem_wide, "Word problems, new numbers", 0.0, "pairs", 10, 28),
    (skills_problems.word_problem_new, "Word problems, new stories", 0.0, "templates", 0, 0),
)


def _skills() -> dict[str, Skill]:
    skills = {}
    for make, title, chance, split, mid, sft in _ROWS:
        name = make.__name__
        skills[name] = Skill(name, title, chance, split, make, mid, sft)
    return skills


SKILLS = _skills()
_world = functools.cache(World)  # making one takes longer than an example


def _example(skill: str, made: Made) -> Example:
    messages, check = made
    conversation: dict[str, Any] = {"messages": messages}
    if check["kind"] == "letter":
        conversation["letters"] = list(skills_people.LETTERS)
    return Example(conversation, skill, SKILLS[skill].split, check)


# ---- training
def training_example(index: int, seed: int = 0, stage: str = "mid",
                     skills: Collection[str] = ()) -> Example:
    """The training Example of this number of a stage ("mid" or "sft"), of these skills ((): of all)."""
    if stage not in STAGES:
        raise UsageError(f"stage is one of {', '.join(STAGES)}; got {stage!r}")
    rng = Random(mix_seed("train", stage, seed, index))
    world = _world()
    names = sorted(skills) if skills else list(SKILLS)
    weights = [getattr(SKILLS[name], stage) for name in names]

    def one() -> tuple[str, Made]:
        name = rng.choices(names, weights)[0]
        return name, SKILLS[name].make(rng, world, False, STAGES[stage])

    name, (messages, check) = one()
    while rng.random() < JOINED:
        _, (before, _) = one()
        joined = before + messages
        if sum(len(_all_text(message)) for message in joined) >= MAX_JOINED_CHARS:
            break
        messages = joined
    return _example(name, (messages, check))


def _all_text(message: Message) -> str:
    """All that a message writes: what is said, the calculator's calls and their results."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content)


def train_conversations(n_conversations: int, seed: int = 0,
                        stage: str = "mid") -> Iterator[dict[str, Any]]:
    """Yield so many training conversations, the first ones; some are replaced by a biography: {"text": str}.

    Finetuning on answers alone lets a model forget whom it is never asked about, hence the replay."""
    for index in range(n_conversations):
        rng = Random(mix_seed("replay", stage, seed, index))
        if rng.random() < REPLAYED:
            person = rng.choice(_world().people)
            yield {"text": documents.life(rng, person)}
        else:
            yield training_example(index, seed, stage).conversation


def rl_example(index: int, seed: int = 0, skill: str = "word_problem") -> Example:
    """A fresh training-side Example of one skill, at full difficulty."""
    if skill not in SKILLS or not SKILLS[skill].sft:
        trained = ", ".join(name for name in SKILLS if SKILLS[name].sft)
        raise UsageError(f"no training examples of skill {skill!r}; one of {trained}")
    rng = Random(mix_seed("rl", skill, seed, index))
    made = SKILLS[skill].make(rng, _world(), False, STAGES["sft"])
    return _example(skill, made)


# ---- tests
def eval_example(skill: str, index: int, seed: int = 0) -> Example:
    """The test Example of this number of a skill, which begins again after its last."""
    if skill not in SKILLS:
        raise UsageError(f"unknown skill {skill!r}; one of {', '.join(SKILLS)}")
    made, more = _tests_so_far(skill, seed)
    missing = max(0, index + 1 - len(made))
    made.extend(itertools.islice(more, missing))
    return made[index % len(made)]


@functools.cache
def _tests_so_far(skill: str, seed: int) -> tuple[list[Example], Iterator[Example]]:
    """(a skill's test examples so far, the iterator that makes more)."""
    return [], _distinct_tests(skill, seed)


def _distinct_tests(skill: str, seed: int) -> Iterator[Example]:
    """Test examples no two of which ask the same: a small space would be counted several times over."""
    asked = set()
    repeats = 0
    for number in itertools.count():
        rng = Random(mix_seed("test", skill, seed, number))
        made = SKILLS[skill].make(rng, _world(), True, STAGES["sft"])
        messages, _ = made
        question = str(messages[:-1])
        if question not in asked:
            repeats = 0
            asked.add(question)
            yield _example(skill, made)
            continue
        repeats += 1
        if repeats > MAX_REPEATS:
            return
