"""
SpellingBee: how often a letter stands in a word, spelled out first and then counted by the tool; and plain spelling.

Words are embedded (common English ones, every fifth kept out of training), so nothing is downloaded. A tokenizer hides
the letters from the model: writing them one by one makes them tokens, and counting is then left to the tool.
"""
import random
import re

from nanochat.chat_format import reply_text
from nanochat.common import mix_seed
from nanochat.tasks.base import Task, exchange

WORDS = """
able about above accept accident account across action active actor address adventure afternoon again against age ago
agree airplane airport album alley almost alone along already although always amazing among amount ancient anger animal
ankle answer apartment apple apricot april apron area argue army around arrive arrow artist asleep attack attic august
aunt autumn avenue avocado awake award baby bacon badge bakery balance balcony balloon bamboo banana bandage banner barn
barrel baseball basket bathroom battery battle beach beautiful become bedroom beetle before begin behind believe bell
belong below bench beside better between beyond bicycle birthday biscuit bitter blanket blossom blueberry board boat
body book border borrow bottle bottom boulder bounce bracelet branch brave bread breakfast breathe bridge bright
broccoli brother bubble bucket buffalo builder building bumblebee burger business butter butterfly button cabbage cabin
cactus calendar camera campfire candle candy captain caravan cardboard careful carpenter carpet carriage carrot cartoon
castle caterpillar cattle celebrate celery center century cereal certain chair chalk champion change chapter character
cheerful cheese cherry chicken children chimney chocolate christmas cinema cinnamon circle circus citizen classroom
clever climate clothes cloud coconut coffee collar collect college color comfort common community compare compass
complete computer concert consider continue cookie copper corner correct cottage cotton counter country courage cousin
cover cradle crayon creature cricket crocodile crossing crowd cucumber cupboard curious curtain cushion customer dancer
danger daughter december decide delicious dentist desert dessert detective diamond dictionary difference different
difficult dinner dinosaur direction discover distance doctor dolphin donkey dragon drawer dream driver during eagle
early earth eastern easy editor education effort eight electric elephant elevator eleven embarrass emerald empty energy
engine enjoy enough envelope evening example excellent excited exercise expensive explain explore eyebrow fabric factory
family famous farmer fashion father favorite feather february festival fifteen finger finish fireplace flamingo flavor
flower follow football forest forever forget fortune forward fountain fourteen freedom friday friend frozen funny
furniture future gallery garage garden garlic gather gentle giant ginger giraffe glasses goodbye gorilla grammar
grandfather grape grass grateful greenhouse grocery guitar hammer hamster handle happen happiness harbor harvest
headache health heavy hedgehog helicopter hello helpful history holiday honest honey horizon hospital hotel however
hundred hungry hurricane husband iceberg idea imagine important impossible improve insect inside instead instrument
interesting invent invite island january jelly jewel journey juice jungle kangaroo ketchup kettle keyboard kitchen
kitten knowledge ladder ladybug language lantern laptop laughter lavender leather lemon leopard lesson letter lettuce
library lightning listen little lobster machine magazine magic magnet mailbox mango marble market marmalade mathematics
meadow measure medicine melody memory message middle midnight million mineral minute mirror mississippi modern moment
monday money monkey monster morning mosquito mother motorcycle mountain muffin museum mushroom music mustard mystery
napkin nature necessary necklace needle neighbor nervous never newspaper nickel nineteen noodle normal northern notebook
nothing november number nurse ocean october octopus office onion orange orchard orchestra original ostrich outside oven
oxygen oyster paddle painter palace pancake panda paper parachute paragraph parrot party passenger pasta patient pattern
peaceful peanut pebble pelican pencil penguin people pepper perfect perhaps person piano picnic picture pigeon pillow
pineapple planet plastic playground pleasure pocket poetry police polite popcorn popular possible postcard potato powder
practice prepare present president pretty princess prison probably problem professor promise protect pumpkin puppet
puppy purple puzzle quarter question quickly quiet rabbit raccoon radio rainbow raspberry rather recipe record
refrigerator remember repeat restaurant reward ribbon river robot rocket rooster rubber sailor salad salmon sandwich
satellite saturday sausage scarecrow scarf school science scissors secret sentence separate september seven several
shadow shampoo shelter shoulder silence silver simple sister sixteen skeleton slipper smooth snowman soccer soldier
someone spaghetti sparrow special spider spinach spoon spring squirrel stadium station statue stomach strange strawberry
street student subject success sudden sugar suitcase summer sunday sunflower sunshine surprise sweater swimming system
teacher teapot telephone television temperature tennis terrible theater thirteen thousand thunder thursday ticket tiger
together tomato tomorrow tonight toothbrush tornado tortoise tower tractor traffic train travel treasure triangle
trouble trumpet tuesday tunnel turkey turtle twelve twenty umbrella uncle under uniform universe useful vacation valley
vanilla vegetable velvet village vinegar violin visitor volcano voyage waffle wagon waiter walnut water watermelon
weather wednesday weekend welcome western whale wheel whisper whistle window winter wizard woman wonderful worker
wrinkle writer yellow yesterday yogurt young zebra zipper
""".split()
COUNT_QUESTIONS = ("How many {letter} are in the word {word}?", "How many times does {letter} appear in {word}?",
                   "Count the letter {letter} in {word}.", "how many {letter}'s are there in {word}",
                   "In the word '{word}', how many '{letter}' are there?", "Number of {letter} in \"{word}\"?")
SPELL_QUESTIONS = ("Spell the word: {word}", "How do you spell {word}?", "Spell {word} letter by letter.",
                   "Please spell '{word}'.", "what are the letters of {word}")


def words(split):
    """The words of a split: every fifth is for testing, the rest for training."""
    return [word for i, word in enumerate(WORDS) if (i % 5 == 4) == (split != "train")]


def spelled(word):
    return ", ".join(word)


class SpellingBee(Task):
    name, max_new_tokens = "spellingbee", 160

    def __init__(self, split="test", n=None):
        self.split, self.words, self.n = split, words(split), n or (256 if split != "train" else 8000)

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if not 0 <= i < self.n:
            raise IndexError(i)
        rng = random.Random(mix_seed(self.name, self.split, i))
        word = rng.choice(self.words)
        return self.ask(rng, word, rng.choice(word) if rng.random() < 0.9 else rng.choice("abcdefghijklmnopqrstuvwxyz"))

    def ask(self, rng, word, letter):
        """The conversation about `letter` in `word`; its answer is what the tool says, which code has verified."""
        count = str(word.count(letter))
        text = f"{word} is spelled {spelled(word)}. I count the {letter}: "
        answer = [{"type": "text", "text": text}, {"type": "python", "text": f"'{word}'.count('{letter}')"},
                  {"type": "python_output", "text": count}, {"type": "text", "text": f"{count}\n#### {count}"}]
        return exchange(rng.choice(COUNT_QUESTIONS).format(word=word, letter=letter), answer)

    def answer(self, conversation, parts):
        found = re.findall(r"####\s*(\d+)", reply_text(parts))
        return found[-1] if found else ""


class SimpleSpelling(SpellingBee):
    name, max_new_tokens = "simplespelling", 96

    def ask(self, rng, word, letter):
        return exchange(rng.choice(SPELL_QUESTIONS).format(word=word), spelled(word))

    def answer(self, conversation, parts):
        return reply_text(parts).strip().lower().removesuffix(".")
