"""
Pretraining text, most documents 250 to 600 characters long.

A kind of document is a function (rng, world) -> text; KINDS says how often each is written. Nothing that a
test asks (a pair of numbers, a story, a wording) is in any of them. About a quarter of the
text is dialogue, so that questions and answers are nothing new when finetuning begins.
"""
from collections.abc import Callable, Iterator
from random import Random

from nanochat.common import mix_seed
from nanochat.kindergarten import (
    categories,
    everyday,
    skills_counting,
    skills_everyday,
    skills_followups,
    skills_letters,
    skills_lists,
    skills_manners,
    skills_people,
    skills_reading,
    skills_recall,
    skills_sentences,
    skills_social,
    skills_tales,
    skills_words,
    skills_world,
    stories,
    tables,
)
from nanochat.kindergarten.phrases import STATEMENTS, WORDINGS, state, with_article, with_pronoun
from nanochat.kindergarten.skill import draw, weighted
from nanochat.kindergarten.skills_numbers import calculate, number_key
from nanochat.kindergarten.skills_words import spelled
from nanochat.kindergarten.unlisted import some_name, some_thing
from nanochat.kindergarten.world import Person, World

LONG_ENOUGH = 420  # characters of a document made of small pieces
LISTED = 0.1  # part of the biographies and spelled words with one sentence a line
OPENINGS = [*WORDINGS["documents"]["openings"], "", "", ""]


# ---- people
def _biography(rng: Random, world: World) -> str:
    """All facts of two people, in random order: friends, or any two."""
    person, other = rng.sample(world.people, 2)
    if rng.random() < 0.4:
        other = world.people[person.index ^ 1]
    return f"{life(rng, person)}\n{life(rng, other)}"


def life(rng: Random, person: Person) -> str:
    """The person's facts, as a paragraph with pronouns or as a list of sentences by name.

    In random order, so that no fact can be told from its place alone. Lists are few: without a blank before
    it a name is another token, and answers have one (chat_format.py)."""
    told = [state(rng, person, attribute) for attribute in STATEMENTS]
    rng.shuffle(told)
    opening = rng.choice(OPENINGS).format(n=person.name)
    said = [opening] if opening else []
    if rng.random() < LISTED:
        return "\n".join(said + told)
    for sentence in told:
        if said and rng.random() < 0.35:
            sentence = with_pronoun(sentence, person)
        said.append(sentence)
    return " ".join(said)


def _group(rng: Random, world: World) -> str:
    """One attribute of several people."""
    attribute = rng.choice(tuple(STATEMENTS))
    return " ".join(state(rng, rng.choice(world.people), attribute) for _ in range(11))


# ---- the real world
def _animals(rng: Random, world: World) -> str:
    return f"{_animal(rng)}\n{_animal(rng)}"


def _animal(rng: Random) -> str:
    """All facts of an animal, and how it compares with others."""
    sizes = everyday.SIZES
    name = rng.choice(tuple(sizes))
    said = [rng.choice(told) for told in everyday.ANIMALS_TOLD[name]]
    rng.shuffle(said)
    for other in rng.sample(tuple(sizes), 3):
        bigger, smaller = (name, other) if sizes[name] > sizes[other] else (other, name)
        if sizes[bigger] - sizes[smaller] <= 1:  # neighbours are a matter of opinion
            continue
        if rng.random() < 0.6:
            said.append(f"{with_article(bigger).capitalize()} is bigger than {with_article(smaller)}.")
        else:
            said.append(f"{with_article(smaller).capitalize()} is smaller than {with_article(bigger)}.")
    return " ".join(said)


def _nature(rng: Random, world: World) -> str:
    """What a child knows, of one table or of all."""
    tables_told = tuple(everyday.TOLD)
    weights = [len(facts) ** skills_everyday.EVENNESS for facts in everyday.TOLD.values()]

    def one() -> str:
        table = only or rng.choices(tables_told, weights)[0]
        return rng.choice(rng.choice(everyday.TOLD[table]))

    only = rng.choices(tables_told, weights)[0] if rng.random() < 0.4 else None
    return _gather(one)


def _gather(one: Callable[[], str], gap: str = " ") -> str:
    """As many small pieces as make a document."""
    said = one()
    while len(said) + len(gap) < LONG_ENOUGH:
        said += gap + one()
    return said


# ---- numbers and letters
def _sequence(rng: Random, world: World) -> str:
    """Three of what is learned by heart in a fixed order."""
    of_few = rng.choice([key for key in categories.WHOLE if key not in ("days", "months", "planets")])
    start = rng.randint(1, 80)
    step = rng.choice((1, 1, 1, 2, 5, 10))
    upwards = range(start, start + 15 * step, step)
    downwards = range(start + 10, start - 1, -1)
    lines = [
        categories.all_of("days"),
        categories.all_of("months"),
        categories.all_of("planets"),
        categories.all_of(of_few),
        f"The alphabet is {' '.join('abcdefghijklmnopqrstuvwxyz')}.",
        f"Count with me: {', '.join(str(number) for number in upwards)}.",
        f"Count down: {', '.join(str(number) for number in downwards)}.",
    ]
    rng.shuffle(lines)
    return " ".join(lines[:3])


def _sums(rng: Random, world: World) -> str:
    def one() -> str:
        symbol, word = rng.choice((("+", "plus"), ("-", "minus"), ("*", "times")))
        pair = draw(lambda: (rng.randint(1, 20), rng.randint(1, 10)), number_key, test=False)
        x = max(pair)
        y = min(pair)
        wording = rng.choice(WORDINGS["documents"]["sums"])
        return wording.format(x=x, y=y, op=symbol, word=word, r=calculate(f"{x}{symbol}{y}"))

    return _gather(one)


def _spelling(rng: Random, world: World) -> str:
    """Words letter by letter, for "a word that starts with b": what are its tokens made of?"""
    def one() -> str:
        word = rng.choice(tables.WORDS)
        if rng.random() < 0.5:
            word = skills_letters.some_word(rng, test=False)
        return rng.choice((f"{word}: {spelled(word)}.", f"{word} is spelled {spelled(word)}."))

    gap = "\n" if rng.random() < LISTED else " "
    return _gather(one, gap)


def _echoes(rng: Random, world: World) -> str:
    """Pairs of words that have nothing to do with each other, then the same pairs in another order.

    Whoever has read the first half can foretell half of the second, by looking where a word stood before.
    """
    pairs = []
    for _ in range(rng.randint(4, 9)):
        first = some_thing(rng, tables.WORDS)
        second = some_thing(rng, tables.WORDS)
        if rng.random() < 0.3:
            first = some_name(rng)
        if rng.random() < 0.2:
            second = str(rng.randint(2, 99))
        pairs.append(f"{first} {second}")
    said = []
    for _ in range(2):
        rng.shuffle(pairs)
        said.append(", ".join(pairs) + ".")
    return rng.choice(" \n").join(said)


# ---- stories and dialogues
def _stories(rng: Random, world: World) -> str:
    """Longer stories than are ever asked about, and how things stand at the end."""
    def make() -> stories.Story:
        n_people = rng.randint(1, 3)
        n_things = rng.randint(1, 2)
        n_moves = rng.randint(2, 7)
        return stories.tell(rng, n_people, n_things, n_moves)

    told: list[str] = []
    while len("".join(told)) < 250:
        story = draw(make, lambda made: ("story", made.text), test=False)
        questions = stories.questions(story)
        line = story.text
        for question in rng.sample(questions, min(2, len(questions))):
            line += " Now " + question.answer.replace("The ", "the ", 1)
        told.append(line)
    return "\n".join(told)


def _tales(rng: Random, world: World) -> str:
    """Little stories of the kind that are told on request."""
    told: list[str] = []
    while len("".join(told)) < 250:
        messages, _ = skills_tales.story_about(rng, test=False)
        told.append(messages[-1]["content"])
    return "\n".join(told)


ASKED = (
    (skills_people.facts_seen, 5),
    (skills_people.reverse, 1.5),
    (skills_people.yes_no, 1),
    (skills_people.follow_up, 1),
    (skills_world.facts_world, 2),
    (skills_everyday.facts_everyday, 3),
    (skills_everyday.yes_no_world, 1),
    (skills_everyday.comparing, 0.5),
    (skills_lists.lists, 1.5),
    (skills_world.story, 1),
    (skills_people.choice, 1),
    (skills_reading.reading, 1.5),
    (skills_sentences.sentences, 2.5),
    (skills_recall.instructions, 1),
    (skills_tales.tales, 2),
    (skills_manners.manners, 5),
    (skills_recall.recall, 1),
    (skills_counting.counting_numbers, 1.5),
    (skills_words.copying, 1.5),
    (skills_letters.alphabet, 0.7),
    (skills_followups.follow_ups, 1),
    (skills_social.identity, 0.7),
    (skills_social.greetings, 0.7),
    (skills_social.memory, 0.7),
)
BETWEEN_PEOPLE = 12  # the first so many can also be said between two people


def _said(content: str | list[dict[str, str]]) -> str:
    """A message's text, without its calls of the calculator unless a result is all."""
    if isinstance(content, str):
        return content
    text = "".join(part["text"] for part in content if part["type"] == "text")
    return (text or content[-1]["text"]).strip()


def _dialogue(rng: Random, world: World) -> str:
    """Questions of several skills and their answers, with who speaks before each line."""
    asked: tuple = ASKED
    if rng.random() < 0.6:
        asks, answers = rng.choice((("Question", "Answer"), ("Q", "A"), ("User", "nanochat")))
    else:
        asked = ASKED[:BETWEEN_PEOPLE]
        asks, answers = rng.sample(tables.NAMES, 2)
    lines: list[str] = []
    while len("".join(lines)) < 300:
        make = weighted(rng, asked)
        messages, _ = make(rng, world, False, 1)
        for message in messages:
            speaker = asks if message["role"] == "user" else answers
            lines.append(f"{speaker}: {_said(message['content'])}")
    return "\n".join(lines)


# ---- the mixture
KINDS = (
    (_biography, 24),
    (_group, 3),
    (_animals, 6),
    (_nature, 13),
    (_sequence, 5),
    (_sums, 3),
    (_spelling, 5),
    (_echoes, 11),
    (_stories, 6),
    (_tales, 4),
    (_dialogue, 34),
)


def document(world: World, index: int, seed: int = 0) -> str:
    """The document of this number: depends on (world, seed, index) only."""
    rng = Random(mix_seed("document", seed, index))
    kind = weighted(rng, KINDS)
    return kind(rng, world)


def documents(n_documents: int, seed: int = 0) -> Iterator[str]:
    """Yield so many documents of the world; `seed` chooses which, never the world."""
    world = World()
    for index in range(n_documents):
        yield document(world, index, seed)
