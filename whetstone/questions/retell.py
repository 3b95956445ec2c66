"""The same word problem about other people and other things: names, and what is counted, are exchanged by rule.

    Ann has 3 apples. She buys 2 more apples. How many apples does Ann have?
    Lucy has 3 kites. She buys 2 more kites. How many kites does Lucy have?

What a story is about does not change how it is solved, so the formula stays. A name is a word of NAMES, or a capitalised word
that does or has something; another of the same gender takes its place. What is counted is the noun after "how many". Units,
times, people, containers and collective nouns (KEPT) are left as they are, because the formula may depend on them.
"""

import random
import re


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


GIRLS = words(
    """
    Alice Amy Ana Andrea Angela Anna Anne Annie Ashley Ava Bella Beth Betty Bonnie Brenda Carla Carol Cathy Chloe Cindy
    Clara Daisy Dana Debby Denise Diana Donna Dora Elena Ella Ellen Emily Emma Erin Eva Faye Fiona Gina Gloria Grace Gwen
    Hannah Helen Holly Ida Irene Iris Isabel Ivy Jane Janet Jenny Jessica Jill Joan Joyce Judy Julia Julie Karen Kate
    Katie Kelly Kim Laura Lena Lily Linda Lisa Lola Lucy Maggie Maria Marie Martha Mary Maya Megan Melanie Mia Mina Molly
    Nancy Nina Nora Olivia Paige Pam Patty Paula Penny Rachel Rita Robin Rosa Rose Ruth Sally Sandra Sara Sarah Sharon
    Sofia Sophie Stella Sue Susan Tanya Tara Tina Vera Violet Wendy Zoe
    """
)
BOYS = words(
    """
    Aaron Adam Alan Albert Alex Allan Andrew Andy Ben Bill Billy Bob Bobby Brad Brian Bruce Carl Carlos Charles Charlie
    Chris Clark Colin Dan Daniel Dave David Dennis Diego Don Doug Dylan Eddie Edward Eli Eric Ethan Evan Frank Fred Gary
    George Glen Greg Harry Hank Henry Ian Isaac Jack Jacob Jake James Jason Jeff Jerry Jim Jimmy Joe Joel John Jonah Jose
    Joseph Josh Juan Justin Karl Keith Ken Kevin Kyle Larry Leo Leon Liam Logan Louis Lucas Luis Luke Marco Mark Martin
    Marvin Matt Max Michael Mike Nathan Ned Neil Nick Noah Oliver Oscar Owen Patrick Paul Pedro Pete Peter Phil Ralph Ray
    Rick Robert Ron Roy Ryan Sam Scott Sean Simon Stan Steve Ted Tim Tom Tommy Tony Tyler Victor Walter Will Zach
    """
)
NAMES = frozenset(GIRLS) | frozenset(BOYS)
THINGS = words(
    """
    acorn apple arrow badge bagel balloon banana bead bean bell berry blanket boat bolt book bottle bracelet brick brush
    bulb button cake candle candy cap card carrot chair cherry clip cloud coin comic cookie cracker crayon cupcake doll
    donut drum eraser feather flag flower fork grape hammer hat helmet jacket jar jewel key kite lamp leaf lemon lime
    lollipop magnet map marble mask medal melon mitten muffin mug mushroom nail napkin necklace notebook nut olive onion
    orange pancake peach pear pebble pen pencil pepper picture pie pillow pin pinecone pizza plant plate plum postcard
    poster potato pretzel pumpkin puzzle ribbon ring robot rock rope rose ruler sandwich scarf seashell seed shell shirt
    shoe shovel skirt sock spoon stamp star sticker stone strawberry stick sweater tile toy tomato towel tree truck tulip
    umbrella vase violin waffle walnut watermelon whistle yo-yo
    """
)
IRREGULAR = {"leaf": "leaves", "scarf": "scarves", "potato": "potatoes", "tomato": "tomatoes"}
KEPT = frozenset(
    words(
        """
    angles animals bags baskets bottles bowls boxes boys bunches bushes cartons cases centimeters cents children classes
    cm coins creatures cupfuls cups days degrees dimes does dollars dozens edges faces families feet fish flights floors
    flowers friends fruits gallons games girls glasses grams groups halves hours inches insects items jars kids kilograms
    kilometers km legs letters liters lives meters miles milliliters minutes months nickels others ounces packages packets
    packs pages pairs pennies people persons pieces pints places players points pounds quarters rooms rows seats seconds
    shelves sides slices squares stacks steps students tables teachers teams tens things times tons toys trays trips units
    vegetables vehicles vertices ways weeks wheels yards years
    """
    )
)
NO_NAME = frozenset(
    words(
        """
    A After All An And April August Building Christmas December Each Easter February For Friday From Halloween He Her His
    How I If In It January July June March May Monday Mr Mrs Ms My November October On One Saturday September She Shop
    Some Sunday Team Thanksgiving That The Their There They This Thursday To Tower Towers Tuesday Two We Wednesday What
    When Winter Year You
    """
    )
)
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
        new |= {things: plural(thing), singular(things): thing}
        new |= {
            old.capitalize(): word.capitalize() for old, word in ((things, plural(thing)), (singular(things), thing))
        }
    if not new:
        return question
    any_old = "|".join(sorted(map(re.escape, new), key=len, reverse=True))
    return re.sub(rf"\b(?:([Aa])n? )?({any_old})\b", lambda match: _with_article(match, new), question)


def _with_article(match: re.Match[str], new: dict[str, str]) -> str:
    word = new[match[2]]
    return f"{match[1]}{'n' if word[0] in 'aeiou' else ''} {word}" if match[1] else word
