"""The same word problem about other people and other things: names, and what is counted, are exchanged by rule.

    Ann has 3 apples. She buys 2 more apples. How many apples does Ann have?
    Lucy has 3 kites. She buys 2 more kites. How many kites does Lucy have?

What a story is about does not change how it is solved, so the formula stays. A name is a word of NAMES, or a capitalised word
that does or has something; another of the same gender takes its place. What is counted is the noun after "how many". Units,
times, people, containers and collective nouns (KEPT) are left as they are, because the formula may depend on them.
"""

import random
import re
import tomllib
from importlib.resources import files

WORDS = tomllib.loads(files(__package__).joinpath("words.toml").read_text(encoding="utf-8"))
GIRLS, BOYS, THINGS = (tuple(WORDS[name].split()) for name in ("girls", "boys", "things"))
NAMES = frozenset(GIRLS + BOYS)
KEPT, NO_NAME = (frozenset(WORDS[name].split()) for name in ("kept", "no_name"))
IRREGULAR = {"leaf": "leaves", "scarf": "scarves", "potato": "potatoes", "tomato": "tomatoes"}
DOES = (
    "has|had|have|is|was|bought|buys|gave|gives|got|gets|found|finds|wants|wanted|needs|needed|made|makes|sold|sells|picked|"
    "picks|ate|eats|read|reads|saved|saves|spent|spends|collected|collects|took|takes|put|puts|used|uses|earned|earns"
)
CAPITAL = r"\b[A-Z][a-z]+\b"
DOER = re.compile(rf"({CAPITAL})(?= (?:{DOES})\b)|(?<=does )({CAPITAL})|(?<=did )({CAPITAL})|({CAPITAL})(?='s )")
COUNTED = re.compile(
    r"\bhow many (?:(?:more|fewer|of the|of|other|total|extra) )*(?:[a-z]+ )??([a-z]{3,}s)\b", re.IGNORECASE
)


def plural(thing: str) -> str:
    """
    >>> plural("berry"), plural("brush"), plural("leaf")
    ('berries', 'brushes', 'leaves')
    """
    if thing in IRREGULAR:
        return IRREGULAR[thing]
    if thing[-1] == "y" and thing[-2] not in "aeiou-":
        return thing[:-1] + "ies"
    return thing + ("es" if thing.endswith(("s", "x", "ch", "sh")) else "s")


def singular(things: str) -> str:
    """
    >>> singular("berries"), singular("brushes"), singular("cookies")
    ('berry', 'brush', 'cookie')
    """
    if things in ONE_OF:
        return ONE_OF[things]
    if things.endswith("ies") and len(things) > 4:
        return things[:-3] + "y"
    return things[:-2] if things.endswith(("ses", "xes", "ches", "shes")) else things[:-1]


ONE_OF = {plural(thing): thing for thing in THINGS}


def people(question: str) -> list[str]:
    """The names of a story in the order of their first mention.

    >>> people("On Monday Zadie has 3 pens. Tom gave her 2. How many does Zadie have?")
    ['Zadie', 'Tom']
    """
    doing = {name for groups in DOER.findall(question) for name in groups if name}
    words = re.findall(CAPITAL, question)
    return [word for word in dict.fromkeys(words) if word in NAMES or (word in doing and word not in NO_NAME)]


def counted(question: str) -> str | None:
    """The plural noun after "how many", if the story has it before and the formula cannot depend on its meaning.

    >>> counted("Of 9 apples 4 are red. How many apples are not?"), counted("It took 3 days and 2. How many days?")
    ('apples', None)
    """
    match = COUNTED.search(question)
    if not match or match[1].lower() in KEPT or match[1].endswith("ss"):
        return None
    things = match[1].lower()
    occurrences = re.findall(rf"\b(?:{things}|{re.escape(singular(things))})\b", question, re.IGNORECASE)
    return things if len(occurrences) > 1 else None


def retell(question: str, rng: random.Random) -> str:
    """The question about other people and things; unchanged if it names neither."""
    new: dict[str, str] = {}
    her = re.search(r"\b(?:she|her|hers)\b", question, re.IGNORECASE)
    his = re.search(r"\b(?:he|his|him)\b", question, re.IGNORECASE)
    for name in (names := people(question)):
        girl = name in GIRLS or (name not in BOYS and (bool(her) if bool(her) != bool(his) else rng.random() < 0.5))
        free = [other for other in (GIRLS if girl else BOYS) if other not in names and other not in new.values()]
        new[name] = rng.choice(free)
    things = counted(question)
    if things:
        free = [thing for thing in THINGS if not re.search(rf"\b{thing}", question, re.IGNORECASE)]
        thing = rng.choice(free)
        exchanged = {things: plural(thing), singular(things): thing}
        new |= exchanged | {old.capitalize(): word.capitalize() for old, word in exchanged.items()}
    if not new:
        return question
    any_old = "|".join(sorted(map(re.escape, new), key=len, reverse=True))
    return re.sub(rf"\b(?:([Aa])n? )?({any_old})\b", lambda match: _with_article(match, new), question)


def _with_article(match: re.Match[str], new: dict[str, str]) -> str:
    word = new[match[2]]
    return f"{match[1]}{'n' if word[0] in 'aeiou' else ''} {word}" if match[1] else word
