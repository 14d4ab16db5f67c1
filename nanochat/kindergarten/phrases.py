"""
How the people's facts are said and asked: the wordings, the answers, and the noise of a hurried typist.

STATEMENTS are read in documents, QUESTIONS are asked in conversations and ANSWERS given there; a statement that equals
an answer is told twice as often as the others, since it is from these that answers about people who are only read about
must come. PARAPHRASES are questions in wordings that no training conversation uses.

In the wordings {n} is the name, {he} {his} {him} the pronouns; an attribute's value stands under the attribute's name
and {a_job}, {a_species} carry their article.
"""
# each at least five ways; the first is the answer's
STATEMENTS = {
    "town": ("{n} lives in {town}.", "{n} has a house in {town}.", "{n}'s home is in {town}.",
             "{town} is the town where {n} lives.", "You can visit {n} in {town}.",
             "The town of {town} is {n}'s home."),
    "job": ("{n} is {a_job}.", "{n} is {a_job} from {town}.", "{n} works as {a_job}.", "{n}'s job is to be {a_job}.",
            "The {job} of {town} is {n}.", "Every day {n} goes to work as {a_job}.", "As {a_job}, {n} works hard."),
    "species": ("{n} has {a_species} called {pet}.", "{n} has {a_species}.", "{n} has a pet {species}.",
                "{n}'s pet is {a_species}.", "The animal at {n}'s home is {a_species}.",
                "{n} takes good care of {his} {species}.", "The pet of {n} is {a_species}."),
    "pet": ("{n}'s {species} is called {pet}.", "{pet} is {n}'s {species}.", "{n} has {a_species}. It is called {pet}.",
            "The {species} {pet} belongs to {n}.", "{n} loves {his} {species} {pet}.",
            "The name of {n}'s {species} is {pet}."),
    "food": ("{n}'s favourite food is {food}.", "{n} likes to eat {food}.", "The food {n} likes best is {food}.",
             "{n} loves {food}.", "For dinner, {n} always wants {food}.", "{n} eats {food} every day."),
    "colour": ("{n}'s favourite colour is {colour}.", "The colour {n} likes best is {colour}.",
               "{n} likes {colour} things.", "{n} always wears {colour} clothes.", "{n} painted {his} door {colour}.",
               "Of all colours, {n} likes {colour} best."),
    "hobby": ("{n}'s hobby is {hobby}.", "{n} enjoys {hobby}.", "In {his} free time, {n} likes {hobby}.",
              "On Sundays {n} goes {hobby}.", "The hobby of {n} is {hobby}.", "{n} is very good at {hobby}."),
    "friend": ("{n}'s best friend is {friend}.", "{n} and {friend} are best friends.", "{friend} is {n}'s best friend.",
               "{n} is best friends with {friend}.", "The best friend of {n} is {friend}.",
               "{n} trusts {his} best friend {friend}."),
}
GOES = {"swimming", "dancing", "fishing", "running", "climbing", "skating", "sailing", "cycling", "hiking"}

ANSWERS = {**{attribute: told[0] for attribute, told in STATEMENTS.items()}, "who": "{n} is {a_job} from {town}."}
TOLD = {attribute: [w for w in wordings for _ in range(1 + (w in ANSWERS.values()))]
        for attribute, wordings in STATEMENTS.items()}

QUESTIONS = {
    "town": ("Where does {n} live?", "What town does {n} live in?", "Where is {n}'s home?", "Where is {n} from?",
             "Which town does {n} live in?", "Tell me where {n} lives.", "Do you know where {n} lives?"),
    "job": ("What is {n}'s job?", "What does {n} do for a living?", "What does {n} work as?", "What work does {n} do?",
            "Tell me {n}'s job.", "What job does {n} have?", "Do you know what {n}'s job is?"),
    "species": ("What pet does {n} have?", "What animal does {n} have?", "What is {n}'s pet?",
                "Which pet does {n} have?", "Tell me about {n}'s pet.", "What kind of pet does {n} have?",
                "Does {n} have a pet?"),
    "pet": ("What is {n}'s {species} called?", "What is the name of {n}'s {species}?",
            "What is {n}'s {species}'s name?", "Tell me the name of {n}'s {species}.",
            "What name does {n}'s {species} have?", "Do you know the name of {n}'s {species}?"),
    "food": ("What is {n}'s favourite food?", "What does {n} like to eat?", "What food does {n} like?",
             "Which food does {n} like best?", "What does {n} love to eat?", "Tell me {n}'s favourite food."),
    "colour": ("What is {n}'s favourite colour?", "Which colour does {n} like best?", "What colour does {n} like?",
               "What colour does {n} like most?", "Tell me {n}'s favourite colour.",
               "Which colour is {n}'s favourite?"),
    "hobby": ("What is {n}'s hobby?", "What does {n} do for fun?", "What does {n} like to do?",
              "What hobby does {n} have?", "What does {n} enjoy?", "Tell me {n}'s hobby.",
              "What does {n} do in {his} free time?"),
    "friend": ("Who is {n}'s best friend?", "What is the name of {n}'s best friend?", "Who is {n} best friends with?",
               "Tell me who {n}'s best friend is.", "Who is the best friend of {n}?", "Do you know {n}'s best friend?"),
    "who": ("Who is {n}?", "Tell me about {n}.", "Do you know {n}?", "What do you know about {n}?",
            "Can you tell me who {n} is?"),
}
PARAPHRASES = {
    "town": ("In which town does {n} live?", "Which town is {n}'s home?", "Where can I visit {n}?"),
    "job": ("What is the job of {n}?", "Which job does {n} have?", "What kind of work does {n} do?"),
    "species": ("What kind of animal does {n} have?", "Which animal is {n}'s pet?", "Tell me what pet {n} has."),
    "pet": ("Which name does {n}'s {species} have?", "Tell me what {n}'s {species} is called."),
    "food": ("What is the favourite food of {n}?", "Which food does {n} love?", "What food is {n}'s favourite?"),
    "colour": ("What is the favourite colour of {n}?", "Which colour does {n} love?",
               "What colour is {n}'s favourite?"),
    "hobby": ("What is the hobby of {n}?", "Which hobby does {n} have?", "What does {n} do on Sundays?"),
    "friend": ("Which person is {n}'s best friend?", "Tell me the name of {n}'s best friend."),
    "who": ("What can you tell me about {n}?", "Could you tell me about {n}?"),
}
# the second turn, after a first question has named the person
PRONOUN_QUESTIONS = {
    "town": ("Where does {he} live?", "And where does {he} live?", "Which town does {he} live in?"),
    "job": ("What is {his} job?", "And what is {his} job?", "What does {he} do for a living?"),
    "species": ("What pet does {he} have?", "And what pet does {he} have?", "Does {he} have a pet?"),
    "pet": ("What is {his} {species} called?", "And what is {his} {species} called?"),
    "food": ("What is {his} favourite food?", "And what does {he} like to eat?", "What does {he} like to eat?"),
    "colour": ("What is {his} favourite colour?", "What colour does {he} like?"),
    "hobby": ("What is {his} hobby?", "And what is {his} hobby?", "What does {he} do for fun?"),
    "friend": ("Who is {his} best friend?", "And who is {his} best friend?"),
}
# yes or no: the question, and what is said after "Yes," or "No,"; {x} is the value asked about
IS_IT = {
    "town": ("Does {n} live in {x}?", "Is {n} from {x}?"),
    "job": ("Is {n} {a_x}?", "Does {n} work as {a_x}?"),
    "species": ("Does {n} have {a_x}?", "Is {n}'s pet {a_x}?"),
    "food": ("Is {n}'s favourite food {x}?", "Does {n} like {x} best?"),
    "colour": ("Is {n}'s favourite colour {x}?",),
    "hobby": ("Is {n}'s hobby {x}?", "Is {x} {n}'s hobby?"),
    "friend": ("Is {x} {n}'s best friend?", "Is {n}'s best friend {x}?"),
}


def a(noun):
    """The noun with its article: "a cat", "an owl"."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def fill(wording, person, **more):
    """The wording with the person's facts in it."""
    p = person
    return wording.format(n=p.name, he=p.he, his=p.his, town=p.town, job=p.job, a_job=a(p.job), species=p.species,
                          a_species=a(p.species), pet=p.pet, food=p.food, colour=p.colour, hobby=p.hobby,
                          friend=p.friend, **more)


def state(rng, person, attribute):
    """One of the ways to tell the person's fact by name; the answers' wordings twice as often as the others."""
    wording = rng.choice(TOLD[attribute])
    if "goes {hobby}" in wording and person.hobby not in GOES:
        wording = ANSWERS["hobby"]
    return fill(wording, person)


def with_pronoun(sentence, person):
    """The sentence with the name at its front turned into a pronoun; unchanged when it starts otherwise."""
    if sentence.startswith(person.name + "'s "):
        return person.his.capitalize() + sentence[len(person.name) + 2:]
    if sentence.startswith(person.name + " ") and not sentence.startswith(person.name + " and "):
        return person.he.capitalize() + sentence[len(person.name):]
    return sentence


SHORTER = (("What is ", ("What's ", "what's ", "whats ")), ("Who is ", ("Who's ", "who's ", "whos ")),
           ("Where is ", ("Where's ", "where's ")))


def typed(rng, text, lower=True):
    """The text as a hurried user may type it: polite, contracted, without capitals or the question mark.

    With `lower` off, only the first letter may lose its capital, never a name.
    """
    draw, asks = rng.random(), text.endswith("?")
    uncapped = text if text.startswith("I ") else text[0].lower() + text[1:]
    if draw < 0.5:
        return text
    if draw < 0.56:
        return rng.choice(("Please tell me: ", "Hi! ", "I have a question. ")) + text if asks else "Hey, " + uncapped
    if draw < 0.66 and asks:
        return text[:-1]
    for full, short in SHORTER:
        if draw < 0.8 and text.startswith(full):
            return rng.choice(short) + text[len(full):]
    if draw < 0.92 or not lower:
        return uncapped
    return text.lower() if draw < 0.96 else text.lower().rstrip("?.")
