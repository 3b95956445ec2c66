"""Which option of a multiple-choice question an answer names: one, or none."""

import re

from whetstone.verify.policy import Policy

WRAPPED = re.compile(r"\\(?:text(?:bf|it|rm)?|mathrm|mathbf|mbox|boxed|fbox)\s*\{([^{}]*)\}")
ALONE = re.compile(r"\(?\[?\s*([A-Za-z])\s*[)\]]?\s*[.:。．]?")
LABELLED = re.compile(r"(?:\(\s*([A-Za-z])\s*\)|([A-Za-z])\s*(?:\)|\.|:))(?:\s+|\\\s*|$)")
OTHER_LABEL = re.compile(r"\(([A-Z])\)|(?<![A-Za-z])([A-Z])(?=\)|\.(?:\s|$)|:\s)")
STANDING = re.compile(r"(?<![A-Za-z'’])([A-Z])(?![A-Za-z'’])")
NAMING = re.compile(
    r"(?:\b(?:is|be|option|choice|answer|select|choose|chose|pick|letter|答案|选|選)\b|[是为為选選择擇は：:]|\bit['’]s)\s*:?\s*(?:probably|likely|clearly|thus)?[*\s(\[]*$|^\s*(?:probably|likely|clearly|thus|therefore|hence|so|la|le|el|il|die|das|der)\s*,?\s*$",
    re.IGNORECASE,
)
REASONED = re.compile(r"\s*\(?([A-Z])\)?\s*,\s*(?:since|because|as)\b")  # D, since A is false
NOT_OTHERS = re.compile(r"[,;(]\s*(?:and\s+|but\s+)?not\s+(?:option\s+)?\(?[A-Za-z]\)?(?![A-Za-z])")  # B, not C
DENIED = re.compile(
    r"\b(?:not|wrong|incorrect|false|\w+n['’]t|cannot|neither|nor|rules? out|except|eliminate[sd]?|exclude[sd]?)\b",
    re.IGNORECASE,
)


def choice_of(text: str, policy: Policy) -> str | None:
    """The one letter that the text chooses; None for none or several.

    >>> from whetstone.verify.policy import get_policy
    >>> choice_of("(B) 12 m", get_policy("choice")), choice_of("A or B", get_policy("choice"))
    ('B', None)
    """
    for _ in range(3):
        text = WRAPPED.sub(r"\1", text)
    text = NOT_OTHERS.sub("", text)
    text = re.sub(r"^[\s$*\\`]+|[\s$*`]+$", "", text.replace("**", ""))
    if alone := ALONE.fullmatch(text):
        return _allowed(alone[1], policy)
    letter = None
    if labelled := LABELLED.match(text):
        letter = _allowed(labelled[1] or labelled[2], policy)
        rest = text[labelled.end() :]
        new_sentence = labelled[0].rstrip(" \\").endswith(".") and rest[:1].isupper()
        if letter is None or (DENIED.search(rest) and not new_sentence):
            return None
        others = {_allowed(a or b, policy) for a, b in OTHER_LABEL.findall(rest)} - {None}
        joined = re.match(r"(?:and|or|[,;/&])?\s*\(?([A-Z])\b", rest)
        return (
            letter if others <= {letter} and not (joined and len(rest) < 12 and _allowed(joined[1], policy)) else None
        )
    return _chosen_in_prose(text, policy)


def mentions_choice(text: str, policy: Policy) -> bool:
    """Is there the letter of an option in it, on its own?"""
    plain = WRAPPED.sub(r"\1", text)
    return ALONE.fullmatch(plain.strip()) is not None or any(_allowed(m[1], policy) for m in STANDING.finditer(plain))


def _chosen_in_prose(text: str, policy: Policy) -> str | None:
    """The only option that a sentence names, "it is C": "I" and the article "A" are no options."""
    if reasoned := REASONED.match(text):
        return _allowed(reasoned[1], policy)
    if DENIED.search(text):
        return None
    found = []
    for match in STANDING.finditer(text):
        after = text[match.end() :]
        pronoun = match[1] == "I" and re.match(r"\s+[a-z]", after)
        article = (
            match[1] == "A"
            and re.match(r"\s+(?!because|since|as\b|so\b|is (?:correct|right|the))[a-z]", after)
            and not NAMING.search(text[: match.start()])
        )
        if not pronoun and not article and _allowed(match[1], policy):
            found.append(match)
    if len({match[1] for match in found}) != 1:
        return None
    first = found[0]
    starts = first.start() == 0 and re.match(
        r"\s+(?:because|since|as|so|is (?:correct|right|the))\b|\s*[,;—-]", text[first.end() :]
    )
    return first[1] if starts or NAMING.search(text[: first.start()]) else None


def _allowed(letter: str, policy: Policy) -> str | None:
    return letter.upper() if letter.upper() in policy.choices else None
