"""
What is true outside the invented world: animals, capitals, opposites, days, planets and why the sky is blue.

The tables are typed in by hand and become one flat list of `Fact`s, which the documents tell and the conversations ask.
Simplified as for children, never false on purpose. British spelling.
"""
from typing import NamedTuple

from nanochat.kindergarten.phrases import a


class Fact(NamedTuple):
    topic: str
    told: tuple         # sentences that state it; the first is also the answer
    asked: tuple        # questions, at least two
    value: tuple        # what the answer must contain: one of these
    rivals: tuple       # other values of the same kind, which it must not contain


# name, plural, kind, legs, sound, home, food, size (to compare), young
ANIMALS = [line.split("|") for line in """
cat|cats|mammal|4|meow|in a house|fish|4|kitten
dog|dogs|mammal|4|woof|in a house|meat|5|puppy
cow|cows|mammal|4|moo|on a farm|grass|8|calf
horse|horses|mammal|4|neigh|on a farm|hay|8|foal
pig|pigs|mammal|4|oink|on a farm|roots|6|piglet
sheep|sheep|mammal|4|baa|on a farm|grass|6|lamb
duck|ducks|bird|2|quack|on a pond|plants|3|duckling
hen|hens|bird|2|cluck|on a farm|seeds|3|chick
frog|frogs|amphibian|4|croak|in a pond|flies|2|tadpole
lion|lions|mammal|4|roar|on the plains|meat|7|cub
owl|owls|bird|2|hoot|in the forest|mice|3|owlet
mouse|mice|mammal|4|squeak|in a hole|seeds|1|
bee|bees|insect|6|buzz|in a hive|nectar|0|
spider|spiders||8||in a web|insects|0|
ant|ants|insect|6||in a nest|seeds|0|
elephant|elephants|mammal|4||on the plains|leaves|9|calf
whale|whales|mammal|0||in the sea|small sea animals|10|calf
shark|sharks|fish|0||in the sea|fish|8|pup
penguin|penguins|bird|2||on the ice|fish|4|chick
monkey|monkeys|mammal|4||in the jungle|fruit|4|
bear|bears|mammal|4|growl|in the forest|berries|7|cub
rabbit|rabbits|mammal|4||in a burrow|carrots|3|
""".strip().splitlines()]
CAPITALS = dict(pair.split(":") for pair in (
    "France:Paris England:London Italy:Rome Spain:Madrid Germany:Berlin Japan:Tokyo China:Beijing Russia:Moscow "
    "Egypt:Cairo Greece:Athens Portugal:Lisbon Poland:Warsaw Sweden:Stockholm Norway:Oslo Ireland:Dublin "
    "Austria:Vienna India:Delhi Canada:Ottawa Kenya:Nairobi Peru:Lima").split())
OPPOSITES = [pair.split(":") for pair in (
    "hot:cold big:small tall:short fast:slow day:night up:down left:right happy:sad old:young good:bad hard:soft "
    "light:dark open:closed wet:dry full:empty early:late loud:quiet strong:weak rich:poor clean:dirty near:far "
    "inside:outside first:last high:low thick:thin").split()]
PLURALS = [pair.split(":") for pair in (
    "mouse:mice child:children foot:feet tooth:teeth goose:geese man:men woman:women leaf:leaves wolf:wolves "
    "knife:knives sheep:sheep fish:fish baby:babies city:cities box:boxes bus:buses potato:potatoes cat:cats "
    "tree:trees book:books").split()]
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
COLOURED = dict(pair.split(":") for pair in (
    "grass:green snow:white coal:black blood:red banana:yellow sky:blue carrot:orange leaf:green milk:white tomato:red "
    "lemon:yellow night:black strawberry:red chocolate:brown frog:green").split())
MASS = {"grass", "snow", "coal", "blood", "milk", "chocolate"}      # said without an article
PLANETS = "Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune".split()
ORDINALS = "first second third fourth fifth sixth seventh eighth".split()
UNITS = (("days", "a week", 7), ("months", "a year", 12), ("hours", "a day", 24), ("minutes", "an hour", 60),
         ("seconds", "a minute", 60), ("letters", "the alphabet", 26), ("sides", "a triangle", 3),
         ("sides", "a square", 4), ("wheels", "a car", 4), ("wheels", "a bicycle", 2), ("fingers", "one hand", 5),
         ("planets", "the solar system", 8), ("seasons", "a year", 4), ("days", "a year", 365))
JOBS = {"baker": "bakes bread", "farmer": "grows food", "doctor": "helps sick people", "teacher": "teaches children",
        "nurse": "cares for sick people", "painter": "paints pictures", "builder": "builds houses",
        "singer": "sings songs", "pilot": "flies planes", "gardener": "looks after gardens", "driver": "drives a bus",
        "tailor": "makes clothes", "writer": "writes books", "dentist": "looks after teeth"}
THINGS = {"clock": "shows the time", "key": "opens a lock", "umbrella": "keeps you dry in the rain",
          "boat": "floats on water", "map": "shows where places are", "lamp": "gives light", "knife": "cuts things",
          "bed": "is for sleeping", "oven": "bakes bread and cakes", "bridge": "crosses a river",
          "library": "is a place full of books", "school": "is a place to learn", "fridge": "keeps food cold",
          "bicycle": "has two wheels and pedals", "kite": "flies in the wind",
          "telescope": "makes far things look near"}
# question, answer, the words that make it right; further wordings after the question
SCIENCE = (
    (("Why is the sky blue?", "What makes the sky blue?", "Why does the sky look blue?", "How come the sky is blue?"),
     "The sky is blue because air scatters blue light the most.", ("scatters",)),
    (("Why does it rain?", "Where does rain come from?", "What makes it rain?", "How does rain form?"),
     "It rains when clouds are full of water drops.", ("clouds",)),
    (("Why is it dark at night?", "Why is the night dark?", "What makes it dark at night?"),
     "It is dark at night because our side of the Earth turns away from the sun.", ("turns away", "away from the sun")),
    (("Why is the sun hot?", "What makes the sun hot?", "Why does the sun shine?"),
     "The sun is a star that burns very hot and gives us light.", ("star",)),
    (("What is the moon?", "What do you know about the moon?", "Tell me about the moon."),
     "The moon is a ball of rock that goes round the Earth.", ("rock",)),
    (("Why do we have winter?", "What makes the seasons?", "Why do we have seasons?"),
     "We have seasons because the Earth is tilted.", ("tilted",)),
    (("What is ice?", "What is ice made of?", "How is ice made?"),
     "Ice is frozen water.", ("frozen water",)),
    (("What is snow?", "What is snow made of?", "How does snow form?"),
     "Snow is made of tiny crystals of ice.", ("ice",)),
    (("What is steam?", "What happens when water boils?", "What does boiling water turn into?"),
     "When water boils, it turns into steam.", ("water boils",)),
    (("What do plants need to grow?", "What does a plant need?", "How do plants grow?"),
     "Plants need water, air and light to grow.", ("light",)),
    (("Why do we sleep?", "Why do people sleep?", "Why do I need sleep?"),
     "We sleep so that our body can rest.", ("rest",)),
    (("Why do we eat?", "Why do people eat?", "Why do I need food?"),
     "We eat because food gives us energy.", ("energy",)),
    (("How do fish breathe?", "How can fish breathe under water?", "What do fish breathe with?"),
     "Fish breathe under water with gills.", ("gills",)),
    (("How do birds fly?", "Why can birds fly?", "What do birds fly with?"),
     "Birds fly by beating their wings.", ("wings",)),
    (("What is a rainbow?", "How does a rainbow form?", "What makes a rainbow?"),
     "A rainbow forms when the sun shines through rain.", ("rain",)),
    (("Where does milk come from?", "Who gives us milk?", "Which animal gives us milk?"),
     "Milk comes from cows.", ("cows",)),
    (("Where does honey come from?", "Who makes honey?", "Which animal makes honey?"),
     "Honey is made by bees.", ("bees",)),
    (("Where does bread come from?", "What is bread made of?", "How is bread made?"),
     "Bread is made of flour and water.", ("flour",)),
    (("Why do things fall down?", "What makes things fall?", "What is gravity?"),
     "Gravity pulls things down to the ground.", ("gravity",)),
    (("Why is the sea salty?", "What makes the sea salty?", "Why does the sea taste of salt?"),
     "The sea is salty because rivers carry salt into it.", ("rivers",)),
    (("What do we see with?", "What are eyes for?", "Which part of the body do we see with?"),
     "We see with our eyes.", ("eyes",)),
    (("What do we hear with?", "What are ears for?", "Which part of the body do we hear with?"),
     "We hear with our ears.", ("ears",)),
    (("What is thunder?", "What makes thunder?", "Where does thunder come from?"),
     "Thunder is the sound of lightning.", ("lightning",)),
    (("What is paper made of?", "Where does paper come from?", "How is paper made?"),
     "Paper is made of wood from trees.", ("wood",)),
)


def _others(values, *own):
    return tuple(v for v in dict.fromkeys(values) if v and v not in own)


def _animal_facts(name, plural, kind, legs, sound, home, food, _, young):
    kinds, legs_, sounds, homes, young_ = ([row[k] for row in ANIMALS] for k in (2, 3, 4, 5, 8))
    one, cap, many = a(name), a(name).capitalize(), plural.capitalize()
    count = "no legs" if legs == "0" else f"{legs} legs"
    yield Fact("animals", (f"{cap} has {count}.", f"{many} have {count}."),
               (f"How many legs does {one} have?", f"How many legs do {plural} have?",
                f"What number of legs does {one} have?"), (count.removesuffix(" legs"),), _others(legs_, legs))
    yield Fact("animals", (f"{cap} lives {home}.", f"{many} live {home}."),
               (f"Where does {one} live?", f"Where do {plural} live?", f"What is the home of {one}?"), (home,),
               _others(homes, home))
    yield Fact("animals", (f"{cap} eats {food}.", f"{many} like to eat {food}."),
               (f"What does {one} eat?", f"What do {plural} eat?", f"What food does {one} eat?"), (food,), ())
    if kind:
        yield Fact("animals", (f"{cap} is {a(kind)}.", f"{many} are {kind if kind == 'fish' else kind + 's'}."),
                   (f"What kind of animal is {one}?", f"What is {one}?", f"What are {plural}?"), (kind, kind + "s"),
                   _others(kinds, kind))
    if sound:
        yield Fact("animals", (f"{cap} says {sound}.", f"The sound of {one} is {sound}."),
                   (f"What does {one} say?", f"What sound does {one} make?", f"What do {plural} say?"), (sound,),
                   _others(sounds, sound))
    if young:
        yield Fact("animals", (f"A young {name} is called {a(young)}.", f"A baby {name} is {a(young)}."),
                   (f"What is a young {name} called?", f"What is a baby {name} called?",
                    f"What do we call a young {name}?"), (young,), _others(young_, young))


def _word_facts():
    for x, y in OPPOSITES:
        for one, other in ((x, y), (y, x)):
            yield Fact("opposites", (f"The opposite of {one} is {other}.",
                                     f"{one.capitalize()} is the opposite of {other}."),
                       (f"What is the opposite of {one}?", f"What is the opposite of the word {one}?",
                        f"Which word is the opposite of {one}?", f"Tell me the opposite of {one}."), (other,), ())
    for one, many in PLURALS:
        yield Fact("plurals", (f"The plural of {one} is {many}.", f"One {one}, two {many}."),
                   (f"What is the plural of {one}?", f"What is the plural of the word {one}?",
                    f"How do you say more than one {one}?", f"One {one}, two what?"), (many,), ())
    for job, does in JOBS.items():
        one = a(job)
        yield Fact("jobs", (f"{one.capitalize()} {does}.", f"What is {one}? {one.capitalize()} {does}."),
                   (f"What does {one} do?", f"What is {one}?", f"What is the work of {one}?"), (does,), ())
    for thing, does in THINGS.items():
        one = a(thing)
        second = f"What is {one} for?" if does.startswith("is ") else f"What does {one} do?"
        yield Fact("things", (f"{one.capitalize()} {does}.", f"What is {one}? {one.capitalize()} {does}."),
                   (f"What is {one}?", second, f"Tell me what {one} is."), (does,), ())


def _calendar_facts():
    for names, one in ((DAYS, "day"), (MONTHS, "month")):
        for i, name in enumerate(names):
            after, before = names[(i + 1) % len(names)], names[i - 1]
            yield Fact("calendar", (f"{after} comes after {name}.", f"The {one} after {name} is {after}."),
                       (f"What {one} comes after {name}?", f"Which {one} is after {name}?",
                        f"Which {one} follows {name}?"), (after,), _others(names, after, name))
            yield Fact("calendar", (f"{before} comes before {name}.", f"The {one} before {name} is {before}."),
                       (f"What {one} comes before {name}?", f"Which {one} is before {name}?",
                        f"Which {one} comes just before {name}?"), (before,), _others(names, before, name))
    for what, whole, n in UNITS:
        yield Fact("calendar", (f"{whole.capitalize()} has {n} {what}.", f"There are {n} {what} in {whole}."),
                   (f"How many {what} does {whole} have?", f"How many {what} are in {whole}?",
                    f"How many {what} are there in {whole}?"), (str(n),), ())


def _place_facts():
    for country, capital in CAPITALS.items():
        yield Fact("capitals", (f"The capital of {country} is {capital}.", f"{capital} is the capital of {country}."),
                   (f"What is the capital of {country}?", f"Which city is the capital of {country}?",
                    f"Tell me the capital of {country}.", f"What is {country}'s capital?"), (capital,),
                   _others(CAPITALS.values(), capital))
    for planet, nth in zip(PLANETS, ORDINALS):
        yield Fact("planets", (f"The {nth} planet from the sun is {planet}.",
                               f"{planet} is the {nth} planet from the sun."),
                   (f"Which planet is {nth} from the sun?", f"What is the {nth} planet from the sun?",
                    f"What is the {nth} planet?"), (planet,), _others(PLANETS, planet))
    for planet, what in (("Jupiter", "biggest"), ("Mercury", "smallest"), ("Mars", "red")):
        yield Fact("planets", (f"The {what} planet is {planet}.", f"{planet} is the {what} planet."),
                   (f"Which planet is the {what} planet?", f"What is the {what} planet?",
                    f"What is the {what} planet called?"), (planet,), _others(PLANETS, planet))
    for thing, colour in COLOURED.items():
        one = thing if thing in MASS else f"the {thing}" if thing in ("sky", "night") else a(thing)
        yield Fact("colours", (f"{one.capitalize()} is {colour}.", f"The colour of {one} is {colour}."),
                   (f"What colour is {one}?", f"What is the colour of {one}?", f"Which colour is {one}?"), (colour,),
                   _others(COLOURED.values(), colour))


ANIMAL_FACTS = {row[0]: list(_animal_facts(*row)) for row in ANIMALS}
FACTS = [*(fact for facts in ANIMAL_FACTS.values() for fact in facts),
         *_word_facts(), *_calendar_facts(), *_place_facts(),
         *(Fact("science", (answer,), asked, words, ()) for asked, answer, words in SCIENCE)]
TOPICS = {topic: [f for f in FACTS if f.topic == topic] for topic in dict.fromkeys(f.topic for f in FACTS)}
SIZES = {row[0]: int(row[7]) for row in ANIMALS}
