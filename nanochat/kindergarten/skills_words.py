"""
Letters and words: spelling, counting letters after spelling them out, copying, reversing.

Hyphens between letters, so that "-a" is one token whatever the word. One word in ten
of the closed list is spelled in documents only.
"""
from nanochat.kindergarten.phrases import WORDINGS, typed
from nanochat.kindergarten.skill import chat, draw, is_test
from nanochat.kindergarten.tables import COLOURS, NAMES, WORDS

NEW_WORDS = [w for w in WORDS if is_test("word", w)]  # no conversation spells these
CHAT_WORDS = [w for w in WORDS if not is_test("word", w)]
SPELL, BACKWARDS, COUNT, LENGTH, COPY, REVERSE = (
    WORDINGS["letters"][what] for what in ("spell", "backwards", "count", "length", "copy", "reverse"))


def spelled(word):
    """ "cat" -> "c-a-t" """
    return "-".join(word)


def counted(word, letter=None):
    """ "cheese", "e" -> "c-h-e1-e2-s-e3"; counts every letter if None."""
    said, n = [], 0
    for x in word:
        n += letter in (None, x)
        said.append(f"{x}{n}" if letter in (None, x) else x)
    return "-".join(said)


def told_count(word, letter):
    n = word.count(letter)
    return f"{word}: {counted(word, letter)}. The letter {letter} appears {n} time{'s' * (n != 1)}."


def told_length(word):
    return f"{word}: {counted(word)}. That is {len(word)} letters."


def _spelling(rng, word, wording):
    check = {"kind": "spell", "letters": word, "before": []}
    return chat(typed(rng, wording.format(w=word)), f"{word}: {spelled(word)}."), check


def spelling(rng, world, test, level):
    return _spelling(rng, *draw(lambda: (rng.choice(CHAT_WORDS), rng.choice(SPELL)), lambda m: ("spelling", *m), test))


def spelling_new_words(rng, world, test, level):
    return _spelling(rng, rng.choice(NEW_WORDS), rng.choice(SPELL))


def counting(rng, world, test, level):
    if rng.random() < 0.15:
        word, wording = draw(lambda: (rng.choice(CHAT_WORDS), rng.choice(LENGTH)), lambda m: ("length", *m), test, 15)
        asked, said, n = wording.format(w=word), told_length(word), len(word)
    else:
        def make():
            word = rng.choice(CHAT_WORDS)
            twice = [x for x in word if word.count(x) > 1]
            return word, (rng.choice(twice) if twice and rng.random() < 0.5 else
                          rng.choice(word) if rng.random() < 0.8 else rng.choice("abcdefghiklmnoprstuwy"))
        word, letter = draw(make, lambda m: ("counting", *m), test, percent=15)
        asked, said, n = rng.choice(COUNT).format(w=word, x=letter), told_count(word, letter), word.count(letter)
    check = {"kind": "number", "answer": str(n), "given": [str(i) for i in range(1, n)], "tool": False}
    return chat(typed(rng, asked), said), check


def copying(rng, world, test, level):
    def make():
        pool = rng.choice((WORDS, WORDS, NAMES, [str(n) for n in range(1, 100)]))
        text = " ".join(rng.choice(pool) for _ in range(rng.randint(1, 2 + level)))
        return text, rng.random() < 0.2 and " " not in text
    text, thrice = draw(make, lambda m: ("copying", m[0].lower()), test)
    if thrice:
        n = rng.randint(2, 4)
        asked, text = f"Say {text} {n} times.", " ".join([text] * n)
    else:
        asked = rng.choice(COPY).format(t=text)
    return chat(typed(rng, asked, lower=False), text), {"kind": "copy", "text": text}


def reversing(rng, world, test, level):
    if rng.random() < 0.4:
        def make():
            return rng.choice([w for w in CHAT_WORDS if len(w) <= 3 + level])
        word = draw(make, lambda m: ("backwards", m), test, percent=12)
        answer = f"{word}: {spelled(word)}. Backwards: {spelled(word[::-1])}."
        check = {"kind": "spell", "letters": word[::-1], "before": [word]}
        return chat(typed(rng, rng.choice(BACKWARDS).format(w=word)), answer), check
    pool = rng.choice((CHAT_WORDS, COLOURS, [str(n) for n in range(1, 10)]))
    items = draw(lambda: rng.sample(pool, rng.randint(2, 2 + level)), lambda m: ("reversing", *m), test)
    text, answer = " ".join(items), " ".join(reversed(items))
    return chat(typed(rng, rng.choice(REVERSE).format(t=text)), answer), {"kind": "copy", "text": answer}
