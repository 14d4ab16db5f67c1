"""
Manners and memory: greetings, thanks and goodbyes; who the model is; what the user told a few turns ago.

Many wordings on both sides, else greetings collapse to one string; many fillers, else remembering is learned as a table
of names. A test's greeting or question is a combination never seen, its name or favourite a word never told.
"""
import re

from nanochat.kindergarten import tables
from nanochat.kindergarten.phrases import typed
from nanochat.kindergarten.skill import chat, draw, fact_check

# what is said (with * only in tests), what is answered, the signs of a good answer
GREETINGS = (
    ("Hello|Hi|Hey|Hi there|Hello there|Hey there|Hello nanochat|Hi nanochat|Greetings|Hiya|Hello, nice to meet you|"
     "Hi, nice to meet you|Hello again|Hi again|Hello friend|Hi, it's me|Hello everyone|Oh hello|Nice to meet you|"
     "*Hey nanochat|*Hey again|*Hi friend|*Hello there, nanochat|*Hey there, nice to meet you|*Oh hi|*Hello, it's me",
     "Hello! How can I help you?|Hi! What would you like to know?|Hello! Nice to see you.|Hi there! How can I help?|"
     "Hello! What can I do for you?|Hi! It is nice to meet you.|Hello! Ask me something.",
     "hello|hi|hey|nice to meet you"),
    ("Good morning|Good morning nanochat|A very good morning|Good morning to you|Hello, good morning|Oh, good morning|"
     "*Good morning, friend|*Hi, good morning|*Good morning, my friend",
     "Good morning! How can I help you?|Good morning! I hope you slept well.|Good morning! What can I do for you?",
     "good morning|hello|hi"),
    ("Good evening|Good afternoon|Good day|Good evening nanochat|Good day to you|Good afternoon to you|"
     "Hi, good evening|*Good afternoon nanochat|*Good evening to you|*Hello, good evening|*Good day nanochat",
     "Hello! How can I help you?|Good day! What would you like to know?|Hello! It is nice to see you.",
     "hello|hi|good day|good evening|good afternoon|good morning"),
    ("How are you|How are you today|How are you doing|How is it going|How do you do|Are you well|"
     "How do you feel today|Hello, how are you|Hi, how are you|Are you okay|How are things|How are you nanochat|"
     "Good morning, how are you|*Hey there, how are you|*Hi nanochat, how are you|*How are you doing today|"
     "*Hello, how are you today",
     "I am fine, thank you! How are you?|I am well, thank you.|Very well, thank you! And you?|"
     "I am doing well, thanks!|I am fine, thanks for asking!",
     "fine|well"),
    ("Thank you|Thanks|Thanks a lot|Thank you very much|Thanks for your help|Many thanks|Thank you so much|"
     "Great, thanks|Thanks, that was nice|Oh, thank you|Okay, thanks|Cool, thank you|Thank you for your help|"
     "Thanks nanochat|*Thank you, nanochat|*That helps, thank you|*Great, thank you|*Thanks so much|*Oh, thanks",
     "You are welcome!|You are welcome! Ask me more.|My pleasure!|Happy to help!|Any time! I am happy to help.",
     "welcome|pleasure|happy to help|any time"),
    ("Goodbye|Bye|Bye bye|See you|See you later|See you tomorrow|I have to go now|Goodbye nanochat|Farewell|"
     "See you soon|I must go, bye|Have a nice day|Until next time|Bye for now|Okay, bye|I have to go, goodbye|"
     "Thanks, bye|*Bye nanochat|*Okay, goodbye|*Goodbye, see you later|*I must go now, bye|*Bye, see you",
     "Goodbye! Have a nice day!|Bye! See you soon.|See you later!|Goodbye! It was nice to talk.|Bye bye! Take care.",
     "goodbye|bye|see you"),
    ("Good night|Good night nanochat|I am going to bed|Sleep well|I go to sleep now|Time for bed|Okay, good night|"
     "Good night, sleep well|*Good night, friend|*Good night, I am going to bed|*Good night to you",
     "Good night! Sleep well.|Good night! Sweet dreams.|Sleep well! See you tomorrow.", "good night|sleep well"),
    ("You are great|You are clever|Well done|Good job|I like you|You are nice|That was good|Good answer|You are funny|"
     "You are so smart|Nice work|That was very good|You are very clever|That was a good answer|"
     "*You are so clever|*You are very nice|*That was nice|*You are so funny",
     "Thank you! That is kind of you.|Thank you! You are kind too.|Thanks! I am happy to hear that.",
     "thank you|thanks"),
)
IDENTITY = (
    ("Who are you|What are you|Tell me who you are|Who am I talking to|Introduce yourself|Tell me about yourself|"
     "Who is nanochat|And who are you|Are you nanochat|Can you tell me what you are|Hello, who are you|"
     "Hi, what are you|*Can you tell me who you are|*Tell me what you are|*So, who are you|*Hi, who are you|"
     "*And what are you",
     "I am nanochat, a small language model.|I am nanochat, a small language model that you can talk to.", "nanochat"),
    ("What is your name|Tell me your name|Do you have a name|What are you called|What should I call you|"
     "And what is your name|What do they call you|May I know your name|Hello, what is your name|Do you know your name|"
     "*Can you tell me your name|*Hi, what is your name|*So, what is your name|*What name do you have",
     "My name is nanochat.|I am called nanochat.", "nanochat"),
    ("Who made you|Who built you|Who created you|Who trained you|Where do you come from|How were you made|"
     "Who wrote you|Who is your maker|How did you come to be|What were you trained on|And who made you|"
     "Can you tell me who trained you|*Tell me who made you|*How were you trained|*So, who made you|"
     "*Can you tell me who made you|*And who built you",
     "I was trained from scratch by the person who ran this code.|"
     "The person who ran this code trained me from scratch.",
     "trained from scratch|trained me from scratch"),
    ("Are you a human|Are you a person|Are you real|Are you alive|Are you a robot|Am I talking to a human|"
     "Are you a machine|Do you have a body|Are you a man or a woman|Are you a computer|So, are you a human|"
     "*Are you a real person|*Are you human|*Am I talking to a person|*Are you a real human",
     "No, I am a small language model.|I am not a person. I am a small language model.", "language model"),
    ("What can you do|What do you know|How can you help me|What are you good at|What can I ask you|"
     "What can we talk about|Can I ask you something|I need help|What should I ask you|And what can you do|"
     "Tell me what I can ask you|*Can you help me|*Tell me what you can do|*So, what can you do|"
     "*What can you help me with",
     "I can talk about the people I know, do sums, spell words and tell you about animals.|"
     "Ask me about people, animals, sums or spelling.", "sums"),
    ("How big are you|How many parameters do you have|Are you a big model|Are you a large language model|"
     "Are you smart|How small are you|Are you a small model|How clever are you|So, how big are you|"
     "*And how big are you|*How smart are you|*Are you a large model|*Are you a very big model",
     "I am a very small language model, so I make mistakes.|I am very small and still learning.", "small"),
    ("How old are you|When were you born|When is your birthday|What is your age|How young are you|"
     "When were you trained|*And how old are you|*So, how old are you|*Tell me how old you are",
     "I am very young. I was trained just now.|I was trained just now, so I am very young.", "young"),
    ("Where do you live|Where are you|Where are you from|Where is your home|Which computer are you on|"
     "Where are you now|*And where do you live|*Tell me where you live|*So, where do you live",
     "I live in this computer.|I live inside this computer.", "computer"),
)
QUESTION = re.compile(r"(^|, |^and )(who|what|where|when|how|are|do|can|may|am|which|is) ", re.IGNORECASE)


def _casual(rng, text):
    """The text with an ending, and in a quarter of the cases without capitals."""
    text += rng.choice(("?", "?", "?", "") if QUESTION.search(text) else ("!", ".", "", "!"))
    return text if rng.random() < 0.7 else text.lower() if rng.random() < 0.5 else text[0].lower() + text[1:]


def _polite(table):
    """The maker for a table of (wordings, replies, signs)."""
    rows = [[column.split("|") for column in row] for row in table]
    rows = [([[w for w in said if not w.startswith("*")], [w[1:] for w in said if w.startswith("*")]], replies, signs)
            for said, replies, signs in rows]

    def make(rng, world, test, level):
        said, replies, signs = rng.choice(rows)
        check = {"kind": "any", "signs": signs, "rivals": ["don't know"]}
        return chat(_casual(rng, rng.choice(said[test])), rng.choice(replies)), check
    return make


greetings = _polite(GREETINGS)
identity = _polite(IDENTITY)

# how it is told, how it is asked, how it is answered; the values; {x} is what to remember
TELL = {
    "name": (("My name is {x}.", "I am {x}.", "I'm {x}.", "Hi, I am {x}.", "Hello! My name is {x}.", "Call me {x}.",
              "Hi, my name is {x}.", "You can call me {x}."),
             ("What is my name?", "Do you know my name?", "Who am I?", "Do you remember my name?", "What am I called?"),
             "Your name is {x}.",
             ("Nice to meet you, {x}!", "Hello {x}!", "Hi {x}, nice to meet you!", "Hello {x}! How can I help?"),
             tables.NAMES),
    "food": (("My favourite food is {x}.", "I like {x}.", "I love to eat {x}.", "I like to eat {x}.", "I love {x}."),
             ("What is my favourite food?", "What do I like to eat?", "What food do I like?",
              "Do you know my favourite food?"), "Your favourite food is {x}.",
             ("I will remember that you like {x}.", "That sounds tasty!", "Oh, {x}! Good to know."),
             tables.MEALS + tables.FOODS),
    "colour": (("My favourite colour is {x}.", "I like the colour {x}.", "I love the colour {x}.",
                "The colour I like is {x}."),
               ("What is my favourite colour?", "What colour do I like?", "Which colour do I like?"),
               "Your favourite colour is {x}.",
               ("I will remember that you like {x}.", "Good to know!", "That is a nice colour."),
               tables.SHADES + tables.COLOURS),
    "hobby": (("My hobby is {x}.", "I enjoy {x}.", "In my free time I like {x}.", "What I like most is {x}."),
              ("What is my hobby?", "What do I do for fun?", "Do you know my hobby?", "What do I enjoy?"),
              "Your hobby is {x}.", ("That sounds like fun!", "Oh, {x}! Good to know.", "I will remember that."),
              tables.PASTIMES + tables.HOBBIES),
    "city": (("I live in {x}.", "I am from {x}.", "I come from {x}.", "My home is in {x}."),
             ("Where do I live?", "Where am I from?", "Do you know where I live?", "What is my city?"),
             "You live in {x}.", ("I hope it is nice in {x}.", "Good to know!", "That must be a nice place."),
             tables.CITIES),
    "dog": (("My dog is called {x}.", "I have a dog called {x}.", "The name of my dog is {x}."),
            ("What is my dog called?", "What is the name of my dog?", "Do you know my dog's name?"),
            "Your dog is called {x}.", ("What a nice name!", "{x} is a nice name for a dog.", "I like dogs!"),
            tables.NAMES),
}
NOT_TOLD = {"name": "You have not told me your name.", "food": "You have not told me your favourite food.",
            "colour": "You have not told me your favourite colour.", "hobby": "You have not told me your hobby.",
            "city": "You have not told me where you live.", "dog": "You have not told me about your dog."}


def memory(rng, world, test, level):
    """Told something, then zero to two other turns, then asked for it; at level 2 two things may be told."""
    if not test and rng.random() < 0.06:
        return _not_told(rng)
    kinds = rng.sample(tuple(TELL), 2) if level == 2 and rng.random() < 0.35 else [_kind(rng)]
    turns, values = [], {}
    for kind in kinds:
        said, _, _, replies, fillers = TELL[kind]
        value = draw(lambda: rng.choice(fillers), lambda m: ("memory", m.lower()), test, percent=15)
        values[kind] = value
        turns += [typed(rng, rng.choice(said).format(x=value), lower=False), rng.choice(replies).format(x=value)]
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2)) if level == 2 else rng.choice((0, 0, 1))):
        between, _ = rng.choice((greetings, identity))(rng, world, False, level)
        turns += [m["content"] for m in between]
    kind = rng.choice(kinds)
    turns += [typed(rng, rng.choice(TELL[kind][1])), TELL[kind][2].format(x=values[kind])]
    return chat(*turns), fact_check(values[kind], rivals=[v for k, v in values.items() if k != kind])


def _kind(rng):
    return "name" if rng.random() < 0.4 else rng.choice(tuple(TELL))


def _not_told(rng):
    kind = rng.choice(tuple(TELL))
    check = {"kind": "any", "signs": ["not told me"], "rivals": []}
    return chat(typed(rng, rng.choice(TELL[kind][1])), NOT_TOLD[kind]), check
