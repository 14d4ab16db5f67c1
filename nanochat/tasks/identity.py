"""
Who the assistant is, and how it greets and thanks: small talk for a model of any size. Training only.

The wordings are the kindergarten's (talk.txt, manners.txt) without those of its tests, so kg_identity grades
this, too. Intents whose answers are true of a small world only are left out, or have others in "wide".
"""
from random import Random

from nanochat.common import mix_seed
from nanochat.kindergarten import tables
from nanochat.kindergarten.skill import chat, is_test
from nanochat.kindergarten.skills_manners import ASKED_IN_TESTS, INTENTS, chatted, plain
from nanochat.kindergarten.wording import compose
from nanochat.tasks.base import Task

ITSELF = ("who", "name", "maker", "other bots", "human", "abilities", "size", "age", "home", "favourites",
          "danger", "secrets")
MANNERS = ("hello", "morning", "evening", "how are you", "user is fine", "user is sad", "thanks", "bye",
           "night", "praise", "blame", "sorry", "help", "test", "weather", "time", "news", "private",
           "languages", "birthday", "bad", "crisis")
TALK = tables.titled("talk.txt", "identity")
WIDE = tables.titled("talk.txt", "wide")  # answers


class Identity(Task):
    name = "identity"
    kind = "conversations"
    n = 6000

    def __init__(self, split: str = "train") -> None:
        self.split = split

    def conversation(self, number: int) -> dict:
        """One to three exchanges, two in three of them about the assistant itself."""
        rng = Random(mix_seed(self.name, self.split, number))
        turns: list = []
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            turns += _exchange(rng, rng.choice(ITSELF if rng.random() < 0.67 else MANNERS))
        return self.persona.speaks({"messages": chat(*turns)})


def _exchange(rng: Random, intent: str) -> list[str]:
    """What the user says, in a wording that no test has, and the answer."""
    wordings = INTENTS[intent]["said"] + TALK.get(intent, {}).get("said", [])
    while True:
        filled: dict[str, str] = {}
        wording = compose(rng, rng.choice(wordings), filled)
        said = chatted(rng, wording[0].lower() + wording[1:])
        if not _is_tested(wording) and not _is_tested(said):
            break
    answer = rng.choice(WIDE.get(intent, INTENTS[intent])["answer"])
    return [said, compose(rng, answer, filled)]


def _is_tested(said: str) -> bool:
    return plain(said) in ASKED_IN_TESTS or is_test("manners", plain(said))
