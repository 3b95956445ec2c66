"""A question and its answer as one statement, by a few rules of English grammar: for MetaMath's self-verification."""

import re

UNKNOWN = re.compile(r"(?<![A-Za-z])x(?![A-Za-z])", re.IGNORECASE)  # the masked number
SENTENCE_END = re.compile(r"(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\blbs)(?<!\boz)[.!?][\"']?\s+")
CLAUSE = re.compile(
    r"(?:^|(?<=, )|(?<=,))(?=(?:how m(?:any|uch)|what(?:'s| is| was| are| were)|find|compute|calculate)\b)", re.I
)
IS = re.compile(r"what(?P<verb>'s| is| was| are| were) (?P<noun>.+)", re.I)
FIND = re.compile(r"(?:find|compute|calculate) (?P<noun>.+)", re.I)
AUXILIARY = "is|are|was|were|do|does|did|has|have|had|will|would|can|could|should|must"
HOW_MANY = re.compile(rf"how many (?P<thing>.*?) ?\b(?P<verb>{AUXILIARY})\b ?(?P<rest>.*)", re.I)
HOW_MUCH = re.compile(rf"how much (?P<thing>.*?) ?\b(?P<verb>{AUXILIARY})\b ?(?P<rest>.*)", re.I)
NAME = r"[A-Z][\w'’.]*(?: [A-Z][\w'’.]*)*"
NOUN = r"(?:[Tt]he|[Hh]is|[Hh]er|[Tt]heir|[Ee]ach|[Aa]n?|[Ee]very|[Mm]y|[Oo]ur) [a-z]+"
_noun_phrase = rf"(?:he|she|they|it|we|you|I|everyone|each of them|{NAME}|{NOUN})"
SUBJECT = re.compile(rf"(?P<subject>{_noun_phrase}(?:,? and {_noun_phrase})*)(?: (?P<verbs>.+))?$")
VERB = re.compile(
    r"(?:have|has|had|be|need|make|get|earn|pay|spend|buy|sell|eat|read|save|use|take|give|collect|cost|weigh|walk|run|drive|travel|"
    r"receive|owe|sleep|work|drink|produce|lose|win|score|grow|catch|bake|pick|plant|spent|want|go|do|visit|charge|cover|contain|hold|"
    r"bring|carry|watch|play|learn|write|draw|lay|swim|jump|ride|fill|serve|donate|share|order|finish)\b"
)
PLURAL = re.compile(r"(?:they|we|you|I)$| and ")


def as_statement(question: str, answer: str) -> str | None:
    """The text with its question and the answer as one statement, or None if no rule fits.

    >>> as_statement("Tom had x pens. If he buys 2 more, how many pens will he have?", "9")
    'Tom had x pens. If he buys 2 more, the number of pens that he will have is 9.'
    """
    text = question.strip().rstrip("?.! ")
    ends = [match.end() for match in SENTENCE_END.finditer(text)]
    before, last = (text[: ends[-1]], text[ends[-1] :]) if ends else ("", text)
    starts = [match.start() for match in CLAUSE.finditer(last)]
    if not starts or "?" in text:
        return None
    condition, clause = last[: starts[-1]], last[starts[-1] :]
    stated = _state(clause, answer)
    if stated is None:
        return None
    if not condition:
        stated = stated[0].upper() + stated[1:] if not UNKNOWN.match(stated) else stated
    return f"{before}{condition}{stated}."


def _state(clause: str, answer: str) -> str | None:
    if match := IS.fullmatch(clause):
        verb = "is" if match["verb"] == "'s" else match["verb"].strip()
        return f"{match['noun']} {verb} {answer}"
    if match := FIND.fullmatch(clause):
        return f"{match['noun']} is {answer}"
    if re.search(r"\b(?:than|or)\b", clause):
        return None
    many = HOW_MANY.fullmatch(clause)
    match = many or HOW_MUCH.fullmatch(clause)
    if not match:
        return None
    thing, verb, rest = match["thing"], match["verb"].lower(), match["rest"].strip()
    if not many and thing.endswith("er"):
        return None  # "how much longer"
    if verb in ("is", "are", "was", "were") and many:
        if rest.startswith("there") and thing:
            return f"there {verb} {answer} {thing}{rest[5:]}"
        if not rest or not SUBJECT.match(rest):
            return f"{answer} {thing} {verb} {rest}".rstrip()
    subject = SUBJECT.match(rest)
    if not subject or (not subject["verbs"] and verb not in ("has", "have", "had")):
        return None
    if re.fullmatch(NOUN, subject["subject"]) and not VERB.match(subject["verbs"] or "have"):
        return None  # "the art club collects": without a dictionary, "the art" would be who does it
    thing = re.sub(r"^more\b", "additional", thing)
    amount = "the number" if many else "the amount"
    if thing:
        amount += f" {thing}" if thing.startswith("of ") else f" of {thing}"
    return f"{amount} that {subject['subject']} {_conjugated(verb, subject['subject'], subject['verbs'] or '')} is {answer}"


def _conjugated(auxiliary: str, subject: str, verbs: str) -> str:
    """The verb of a statement: "does … have" is "has", "will … have" is "will have"."""
    first, _, rest = verbs.partition(" ")
    rest = f" {rest}" if rest else ""
    if auxiliary == "do":
        return verbs
    if auxiliary == "does" and not PLURAL.search(subject) and first.isalpha():
        if first in ("have", "go", "do"):
            return {"have": "has", "go": "goes", "do": "does"}[first] + rest
        if first.endswith(("s", "sh", "ch", "x", "z")):
            return f"{first}es{rest}"
        return (f"{first[:-1]}ies" if re.search("[^aeiou]y$", first) else f"{first}s") + rest
    if auxiliary in ("did", "does") and first == "have":
        return ("had" if auxiliary == "did" else "have") + rest
    return f"{auxiliary} {verbs}".rstrip()
