r"""How an answer is stated in words: "the answer is …" in some languages, `#### …`, a heading, JSON; where it ends."""

import json
import re

ASKING = re.compile(  # sentences that ask for an answer give none
    r"\b(?:evaluate|(?<!we )(?<!I )find|simplify|compute|calculate|determine|express|factor|expand|solve|write|what|which|how|"
    r"who|why|given|suppose|let|consider|prove|rationalize|convert|rewrite|reduce|combine|multiply|divide|add|subtract|round|estimate|"
    r"graph|order|arrange)\b",
    re.IGNORECASE,
)
LONGEST_ANSWER = 10_000  # characters; a longer one is not an answer
LONGEST_SENTENCE = 200  # characters around a formula that is the whole answer

NEAR_THE_END = 2_000  # characters in which an answer in another language is looked for
WORD_START, WORD_END = r"(?<![^\W_])", r"(?![^\W_])"
FILLING = (
    r"(?:\s*,?\s*(?:\b(?:thus|therefore|hence|then|simply|clearly|just|indeed|obviously|now|also|of\s+course|exactly|precisely"
    r"|actually|equal\s+to|given\s+by|indeed)\b|the\s+(?:number|integer|value|fraction)(?=\s+[\d$\\(-]))\s*,?)*"
)
VERB = (
    r"(?:\b(?:is|are|was|were|equals?|becomes|(?:should|must|would|will|can\s+only|has\s+to)\s+be|seems\s+to\s+be"
    r"|(?:comes\s+out|turns\s+out|works\s+out)\s+to(?:\s+be)?)\b)"
)
STATED = re.compile(
    WORD_START
    + r"answers?"
    + WORD_END
    + r"(?:\s+(?:to|of)\s+(?:the|this|that|our)\s+(?:\w+\s+){0,2}(?:problem|question|exercise))?"
    rf"(?:\s+(?:we|I)\s+(?:seek|want|need|get|obtain))?[*_\s]*(?:,\s*(?:then|therefore|thus|of course),\s*)?"
    rf"(?:{VERB}{FILLING}\s*:?|:|=)[*_]*",
    re.IGNORECASE,
)
VALUE = (
    r"(\**(?:[-−+]?\d|[a-z]\s*=\s*[-−+]?[\d$\\]|\$|\\\(|\\\[|[-−]?\\[a-z]|[-−]?π)[^.;!?\n]*?(?:\.\d[^.;!?\n]*?)?\**)"
)
OPENING = (
    r"\s*(?:(?:Therefore|Thus|Hence|So|Finally|Consequently|In\s+conclusion|We\s+conclude\s+that|This\s+means\s+that)"
    r"\b,?\s+)"
)
SUBJECT = (
    r"[Tt]he\s+(?:\w+\s+){0,2}?(?:result"
    r"|value(?:\s+of\s+\$?[\w^+ ]{1,20}\$?)?"
    r"|total|sum|product|solutions?|number\s+of\s+\w+(?:\s+\w+){0,3}|probability|area|volume|length|perimeter)"
)
CONCLUDED = re.compile(
    rf"{OPENING}(?:(\$?[a-z]\s*=\s*[^,;!?]+?)|there\s+are\s+{VALUE}|{SUBJECT}\s+{VERB}\s+{VALUE})\s*\.?\s*"
    rf"|(?:{OPENING})?(?:(?:This|That|It|which|We|we)\s+(?:gives?|yields?|get|have|obtain)(?:\s+us)?\s+)?{VALUE}"
    r"\s+(?:is|as|to\s+be)\s+(?:the|our|my)\s+(?:final\s+|correct\s+|right\s+)?answer\s*\.?\s*"
)
CONCLUDED_ALONE = re.compile(rf"\s*{SUBJECT}\s+{VERB}\s+{VALUE}\s*\.?\s*")
DOUBTED_IN = re.compile(
    r"n['’]t\b|\b(?:not|no|never|if|or|wrong|incorrect|false|supposed|alleged|suppose|assume|than|least|most|about|approximately)\b",
    re.IGNORECASE,
)
ASKED = re.compile(r"(?:^|\n)\s*(?:find|estimate|choose|select)\s+the\s+(?:\w+\s+)?$", re.IGNORECASE)
HASHES = re.compile(r"(?m:^[ \t]*)####")
HEADING = re.compile(
    r"^[ \t]*(?:#{1,6}[ \t]*(?:\*\*)?(?:final[ \t]+)?answer:?(?:\*\*)?|\*\*(?:final[ \t]+)?answer:?\*\*:?)[ \t]*\n+",
    re.IGNORECASE | re.MULTILINE,
)
LAST_LINE = re.compile(r"\nA:(?=[^\n]+\s*\Z)")  # Q: … A: …
ELSEWHERE = re.compile(  # the same in other languages, each from its own word for "answer"
    r"(?:最终|最後|最后)?(?:答案|答)(?:应该|應該|应|就)?(?:是|为|為|[:：]|等于)+|答えは|答え[:：]|解答[:：]|答[:：]|(?:정답|답)(?:은|[:：])"
    r"|(?:Antwort|Ergebnis|Lösung)(?:\s+(?:ist|lautet|beträgt))?\s*:?|[Rr]éponse(?:\s+finale)?\s*(?:est|:)(?:\s+donc)?"
    r"|[Rr]espuesta(?:\s+(?:final|correcta))?\s*(?:es|:)|[Rr]esultado(?:\s+final)?\s*(?:es|é|:)|[Оо]твет(?:\s+равен)?\s*[:—–-]?"
    r"|[Rr]isposta(?:\s+finale)?\s*(?:è|:)|[Rr]esposta(?:\s+final)?\s*(?:é|:)|[Aa]ntwoord(?:\s+is|\s*:)|[Oo]dpowiedź(?:\s+to|\s*:)"
    r"|[Ss]oluci[oó]n(?:\s+final)?\s*(?:es|:)|[Ss]olução\s*(?:é|:)|[Ss]oluzione\s*(?:è|:)|[Ll]a\s+solution\s+est|[Rr]ésultat\s*(?:est|:)"
    r"|[Ss]var(?:et)?\s*(?:är|er|:)|Vastaus(?:\s+on|\s*:)|[Jj]awaban(?:nya)?(?:\s+akhir)?(?:nya)?(?:\s+adalah|\s*:)"
    r"|[Rr]ăspuns(?:ul)?(?:\s+este|\s*:)|[Oo]dpověď(?:\s+je|\s*:)|[Αα]πάντηση(?:\s+είναι|\s*:)|[Вв]ідповідь\s*[:—–-]?"
    r"|התשובה(?:\s+היא)?\s*:?|คำตอบ(?:คือ|\s*:)|پاسخ\s*:?|[Vv]álasz\s*:?"
    r"|[Cc]evap\s*:|[Đđ]áp\s+(?:án|số)(?:\s+là|\s*:)|الإجابة(?:\s+هي)?\s*:?|الجواب(?:\s+هو)?\s*:?|उत्तर(?:\s+है)?\s*:?"
)
MARKS_OF_OTHERS = (
    "ntwo",
    "rgebnis",
    "espuesta",
    "esultado",
    "isposta",
    "esposta",
    "evap",
    "olucion",
    "oluzione",
    "olution est",
    "svar",
    "Svar",
    "astaus",
    "awaban",
)  # in ASCII
POLITE_END = re.compile(r"\s*(?:です|である|だ|になります|입니다|이다|이에요|예요|है)\s*[。.]?\s*$")
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
CHANGED_BY_WORDS = re.compile(  # words and signs that could make another answer of the formula beside them
    r"[\d=<>+*/^\\?]|n[o'’]t\b|\b(?:no|never|neither|nor|or|and|unless|except|wrong|false|incorrect|impossible|if|half|third|"
    r"quarter|twice|thrice|double|triple|times|plus|minus|less|more|than|over|under|above|below|least|most|square[ds]?|"
    r"cube[ds]?|root|roots|power|mod|modulo|percent|factorial|negative|opposite|inverse|reciprocal|approximately|about|"
    r"one|two|three|four|five|six|seven|eight|nine|ten|dozen|hundred|thousand|million|billion)\b",
    re.IGNORECASE,
)
DELIMITED = re.compile(
    r"\s*(?:\\begin\{(?:equation|displaymath|gather)\*?\}(.+?)\\end\{(?:equation|displaymath|gather)\*?\}|\$\$(.+?)\$\$|\$([^$\n]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\])",
    re.DOTALL,
)
AFTER_DELIMITED = re.compile(
    r"\s*(?:\*\*|`)?\s*(?:[.;!。\n]|$|,?\s+(?:because|since|so|as|which|where|not|I hope)\b|です|입니다)"
)
CLAUSE = (
    r"because|since|so|as|in|that|which|where|for|after|when|with|meaning|giving|not|but|the|this|it|we|you|they|each|per|by"
    r"|on|at|thus|hence|therefore|i\.e|namely"
)
SENTENCE_END = re.compile(
    rf"[.!?;](?=\s|$|\*)|[。！？；]|\s+[—–]+\s|\s--\s|,\s+(?:{CLAUSE})\b|\s+(?:because|since|which|where|I hope)\b"
    r"|\s+(?:in total|altogether|as required|as desired)\b",
)
JSON_FENCE = re.compile(r"```(?:json)?\s*(\{[^`]*\})\s*```\Z")
FENCE = re.compile(r"\A```[a-z]*\s*\n?(.*?)\n?\s*```\Z", re.DOTALL)
KEYS = ("answer", "final_answer", "final answer", "result", "solution")
CORRECTED = re.compile(r"\b(?:it|this|that|answer)\s+should\s+(?:have\s+been|be)\b", re.IGNORECASE)
PLAIN = re.compile(r"[-+−]?\s*(?:\d|\\(?!text|boxed|fbox)|[({\[]|[A-Za-zπ]\s*(?:[=<>≤≥]|$))")
DOUBTED = re.compile(  # up to "the answer is"
    r"(?:\b(?:suppose|assum\w+|prove|show|if|whether|doubt\w*|disagree|deny|denies|nobody|nobody\s+\w+|no\s+one\s+\w+)"
    r"|\b(?:false|untrue|not\s+true|wrong|incorrect|mistake)(?:\s+to\s+\w+)?"
    r"|(?<![Ii] )(?<![Ww]e )(?<!can )\b(?:claim(?:s|ed)?|said|says?|thinks?|thought|believes?|guess(?:es|ed)?)"
    r"|n['’]t\s+(?:think|believe|say)|\b(?:not|never)\s+(?:think|believe|say))\s+(?:that\s+)?(?:the\s+|his\s+|my\s+)?(?:final\s+)?answers?\b[^.]{0,30}$"
    r"|\b(?:wrong|incorrect|false|naive|tempting|invalid|bad|expected\s+wrong)\s+answers?\b[^.]{0,30}$",
    re.IGNORECASE,
)
TAKEN_BACK = re.compile(  # after "the answer is"
    r"[^.!?\n]{0,60}?[\s,.;:()$*]{1,5}(?:(?:which|this|that|it)\s+(?:is|was|seems)\s+(?:not\s+(?:correct|right|true|valid)|wrong|incorrect|false|impossible)"
    r"|but\s+(?:I|we|he|she|they|this|that)\s+(?:disagree|doubt|is\s+(?:wrong|false|incorrect|not\s+(?:correct|right|true|valid|the)))|contradiction|(?:actually|no),?\s+(?:it|the\s+answer)\s+is\b|wait,?\s+no\b|no,?\s+wait\b|or\s+(?:maybe|perhaps|possibly|it\s+is|it's)\b)"
    r"|[^.!?\n]{0,60}\?[\s*]*(?:no|nope|wrong)\b|\s*\S{1,40}?\s*(?:ではない|ではありません|じゃない|[이가]\s*아닙니다|[이가]\s*아니다|是错|不对|不正确)",
    re.IGNORECASE,
)
WRAPPERS = (("$$", "$$"), ("\\[", "\\]"), ("\\(", "\\)"), ("$", "$"), ("**", "**"), ("`", "`"))


def statement_end(tail: str) -> int:
    """Where the last "the answer is" ends, -1 without one. Searched for by its letters first: that is much faster."""
    end = -1
    for letters in ("nswer", "NSWER"):
        at = tail.find(letters)
        while at >= 0:
            found = STATED.match(tail, at - 1) if at else None
            found = None if found and ASKED.search(tail[max(0, at - 40) : at - 1]) else found
            heading = HEADING.match(tail, tail.rfind("\n", 0, at) + 1)
            end = max(end, found.end() if found else -1, heading.end() if heading else -1)
            at = tail.find(letters, at + len(letters))
    for sign, pattern in (("####", HASHES), ("\nA:", LAST_LINE)):
        if sign in tail:
            end = max([end, *(found.end() for found in pattern.finditer(tail))])
    start = max(0, len(tail) - NEAR_THE_END)
    near = tail[start:]
    if not near.isascii() or any(map(near.__contains__, MARKS_OF_OTHERS)):
        found = [match for match in ELSEWHERE.finditer(near) if match.end() > match.start() + 1]
        end = max([end, *(start + match.end() for match in found)])
    return end


def concluded(text: str) -> str | None:
    """What the last line concludes without the word "answer": "Therefore, x = 64", "This gives 64 as the answer"."""
    line = text.rstrip().rpartition("\n")[2][-LONGEST_SENTENCE:]
    found = CONCLUDED.fullmatch(line) or (CONCLUDED_ALONE.fullmatch(line) if text.strip() == line.strip() else None)
    if found is None or DOUBTED_IN.search(line):
        return None
    said = next(group for group in found.groups() if group is not None).strip(" *")
    return inside(formula) if (formula := DELIMITED.fullmatch(said)) else said


def said_after(rest: str, whole_line: bool = False) -> tuple[str | None, str]:
    """What follows "the answer is": a delimited formula, else the rest of the sentence (or of the line)."""
    rest = rest.lstrip(" \t*_:=：").removeprefix("}").lstrip()
    formula = DELIMITED.match(rest)
    if formula and AFTER_DELIMITED.match(rest, formula.end()):
        content = inside(formula)
        if content:
            return content, "stated"
    line = rest.split("\n", 1)[0]
    end = None if whole_line else sentence_end(line)
    answer = (line if end is None else line[:end]).strip().strip("*_").strip()
    answer = POLITE_END.sub("", answer)
    if not answer or len(answer) > LONGEST_ANSWER:
        return None, "no answer: statement cut off"
    return answer, "stated"


def sentence_end(line: str) -> int | None:
    """Where the answer ends and a remark or the next sentence begins."""
    found = SENTENCE_END.search(line)
    return found.start() if found and line[: found.start()].strip(" *_") else None


def answer_after(rest: str) -> str | None:
    """The last answer that is plainly stated behind a box: "Final answer: 7", "it should be 6"."""
    end = statement_end(rest) if "nswer" in rest or "NSWER" in rest or "####" in rest else -1
    if "should" in rest:
        end = max([end, *(found.end() for found in CORRECTED.finditer(rest))])
    if end < 0 or denied(rest[:end], rest[end:]):
        return None
    said = said_after(rest[end:])[0]
    return said if said and PLAIN.match(said) and len(said) <= LONGEST_SENTENCE else None


def denied(before: str, after: str) -> bool:
    """Do the words around "the answer is" deny or doubt it, or make it somebody else's?"""
    sentence = re.split(r"[.!?\n]", before[-LONGEST_SENTENCE:])[-1]
    return DOUBTED.search(sentence) is not None or TAKEN_BACK.match(after[:LONGEST_SENTENCE]) is not None


def inside(formula: re.Match[str]) -> str:
    return next(group for group in formula.groups() if group is not None).strip()[:LONGEST_ANSWER]


def unwrapped(answer: str) -> str:
    """A text without a code fence, JSON, delimiters or emphasis around all of it."""
    if answer.endswith("```") and (fenced := FENCE.match(answer) or JSON_FENCE.search(answer)):
        answer = fenced[1].strip()
    if answer[:1] == "{" and '"' in answer and (said := said_in_json(answer)) is not None:
        answer = said
    if answer[:1] not in ("$", "\\", "*", "`"):
        return answer
    for opening, closing in WRAPPERS:
        content = answer[len(opening) : len(answer) - len(closing)]
        if answer.startswith(opening) and answer.endswith(closing) and len(answer) > len(opening) + len(closing):
            return content.strip() if opening not in content else answer
    return answer


def said_in_json(text: str) -> str | None:
    """The answer of `{"answer": …}`, "" if such an object has none; None for what is no object."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    values = [value for key, value in found.items() if key.lower() in KEYS]
    if len(values) != 1 or isinstance(values[0], bool | dict | type(None)):
        return ""
    value = values[0]
    return value if isinstance(value, str) else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def only_formula(text: str) -> str | None:
    """The formula of a short text of words with one formula in it: there is nothing to choose between."""
    if not any(sign in text for sign in ("$", "\\(", "\\[")) or len(text) > LONGEST_ANSWER:
        return None
    found = FORMULA.search(text)
    if found is None:
        return None
    words = text[: found.start()] + " " + text[found.end() :]
    if len(words) > LONGEST_SENTENCE or "$" in words or CHANGED_BY_WORDS.search(words) or ASKING.search(words):
        return None
    return inside(found) if re.search(r"[^\W\d_]", words) else None
