"""Is this answer the reference answer? Exactly, by type, and without floating point.

Short numbers are compared at once; others are read (`reading.py`) and compared by what they are (`compare.py`). Only what
our own reader does not read (sums, integrals, limits) is asked of computer algebra, and only about single formulas: what it
says about structure is never taken.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from whetstone.records import Verdict
from whetstone.verify import moments
from whetstone.verify.answers.cursor import RELATIONS
from whetstone.verify.answers.forms import Chain, Expression, Value
from whetstone.verify.answers.marks import clean, peeled
from whetstone.verify.answers.reading import read
from whetstone.verify.answers.tokens import lex
from whetstone.verify.answers.units import measure
from whetstone.verify.choice import ALONE, choice_of
from whetstone.verify.compare import Ask, Undecided, ask_nobody, compare
from whetstone.verify.exact import TooLarge, Unreadable, as_rational
from whetstone.verify.extract import extract, last_box, reference_sentence
from whetstone.verify.policy import Policy, get_policy
from whetstone.verify.relations import stated

__all__ = ["Ask", "NotRead", "Undecided", "ask_nobody", "judge", "reference"]

SHORT_INTEGER = re.compile(r"[+-]?\d{1,18}")
REFERENCE = get_policy("math_thinking")
SHORT_FRACTION = re.compile(
    r"(?P<sign>-?)(?:(?P<whole>\d{0,18})\.(?P<places>\d{1,18})|(?P<upper>\d{1,18})(?:/(?P<lower>\d{1,18}))?"
    r"|\\[dt]?frac\{(?P<top>-?\d{1,18})\}\{(?P<bottom>\d{1,18})\})"
)
SHORT_THOUSANDS = re.compile(r"-?[1-9]\d{0,2}(?:,\d{3}){1,5}")
SHORT_UNIT = re.compile(r"(-?[\d.,/]*\d)\s*\\text\{ ?([A-Za-z]{2,})\}")
DECIMAL_COMMA = re.compile(r"(-?\d+),(\d\d|\d{4,})")
OPTION = re.compile(r"(?:\\(?:text|mathrm|textbf)\s*\{\s*)?\(?([A-J])\)?\s*\}?")
LABELLED = re.compile(r"\(?(?P<letter>[A-J])[.):]\s+\S.*", re.DOTALL)  # the letter and the value of an option: (A) 3
NAMED_POINT = re.compile(r"\s*[A-Z]\s*(?:\\left)?\([^()=]*,[^()=]*\)")
YES_OR_NO = re.compile(r"(?:\\text\s*\{\s*)?(?:yes|no|true|false)\.?\s*\}?", re.IGNORECASE)
YES_BEFORE = re.compile(  # Yes, it converges.
    r"\s*(?:\\text\s*\{\s*)?(yes|no|true|false)\s*[,.;:!—]\s+(?!.*\b(?:yes|no|true|false|wrong|but|wait)\b)",
    re.IGNORECASE,
)
COUNTED = re.compile(r"([CP])\((\d{1,4}),\s*(\d{1,4})\)")  # combinations and permutations
INTEGRATED = re.compile(r"\+\s*[cC]\Z")  # with a constant of integration, which is no letter of the question
BOLD_NAME = re.compile(r"\\(?:mathbf|boldsymbol|bm|Bbb)\s*\{?\s*([RQZNC])(?![A-Za-z])\s*\}?")
PARAMETER = re.compile(r"(?<![A-Za-z\\])[abAB](?![A-Za-z])")
LAST_OF_EQUALS = re.compile(r"(?:[^=<>,;]+=){2,}([^=<>,;]+)")
CALLED = re.compile(r"(?:[fghFGOo]'*\(|[A-Za-z]\(\d+\))")
BARE_LETTER = re.compile(r"([A-Za-z])(?!'*\()(?![A-Za-z]*\()")
UNEVALUATED = ("\\sum", "\\prod", "\\int", "\\iint", "\\oint", "\\lim")
DIGITS = re.compile(r"\d")
LONGEST_KEPT = 500  # characters of a reference whose reading is kept: what is read takes far more memory than the text


class NotRead(Exception):
    """Computer algebra could not read the answer."""


def judge(answer: str, gold: str, policy: Policy, ask: Ask = ask_nobody) -> Verdict:
    """The verdict on an extracted answer. `ask` decides leaves that exact arithmetic cannot.

    >>> from whetstone.verify.policy import get_policy
    >>> judge("0.5", r"\\frac{1}{2}", get_policy("math")).correct
    True
    """
    if not gold or gold.isspace():
        return Verdict(None, "reference answer is empty", answer)
    if policy.kind == "math" and (answer == gold or answer.strip() == gold.strip()):
        return Verdict(True, "equal", answer)
    gold = reference(gold)
    if policy.kind == "choice":
        return _judge_choice(answer, gold, policy)
    if policy.kind == "word":
        return _verdict(_words(answer) == _words(gold), answer)
    if SHORT_INTEGER.fullmatch(answer) and SHORT_INTEGER.fullmatch(gold):
        if policy.low is not None and not policy.low <= int(gold) <= (policy.high or policy.low):
            return Verdict(None, f"reference answer is not within {policy.low} to {policy.high}", answer)
        return _verdict(int(answer) == int(gold), answer)
    try:
        if policy.kind == "integer":
            return _judge_integer(answer, gold, policy)
        return _judge_math(answer, gold, policy, ask)
    except Undecided as undecided:
        return Verdict(None, str(undecided), answer)
    except NotRead:
        return Verdict(False, "unreadable answer", answer)
    except (TooLarge, Unreadable) as problem:
        return Verdict(None, f"not decided: {problem}", answer)
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        # the text is untrusted: a slip of ours on it is never a right answer, and its kind is kept
        return Verdict(None, f"not judged: {type(error).__name__}", answer)


def reference(gold: str) -> str:
    """The reference answer in a reference solution: its last box, what follows `####`, else all of it."""
    if "\\boxed" in gold or "\n" in gold.strip() or "####" in gold:
        found = extract(gold, REFERENCE)
        return found.answer or last_box(gold) or gold
    if "nswer is" in gold and (found := extract(gold, REFERENCE)).how == "stated":
        return found.answer
    return reference_sentence(gold) if "$" in gold else gold


def _verdict(equal: bool, answer: str) -> Verdict:
    return Verdict(True, "equal", answer) if equal else Verdict(False, "different", answer)


def _words(text: str) -> str:
    unwrapped = re.sub(r"\\(?:text|mathrm|textbf|mbox)\s*\{([^{}]*)\}", r"\1", text.replace("$", ""))
    return " ".join(re.sub(r"^[\W_]+|[\W_]+$", "", unwrapped).casefold().split())


def _judge_choice(answer: str, gold: str, policy: Policy) -> Verdict:
    wanted, given = choice_of(gold, policy), choice_of(answer, policy)
    if wanted is None:
        return Verdict(None, f"reference answer is none of the letters {policy.choices}", answer)
    return Verdict(False, "not a choice", answer) if given is None else _verdict(given == wanted, answer)


def _judge_integer(answer: str, gold: str, policy: Policy) -> Verdict:
    wanted = _whole_number(gold, True)
    if wanted is None:
        return Verdict(None, "reference answer is not an integer", answer)
    if policy.low is not None and not policy.low <= wanted <= (policy.high or policy.low):
        return Verdict(None, f"reference answer is not within {policy.low} to {policy.high}", answer)
    given = _whole_number(answer, False)
    if given is None:
        return Verdict(False, "not an integer", answer)
    return _verdict(given == wanted, answer)


def _whole_number(text: str, gold: bool) -> int | None:
    try:
        value = read(peeled(text), gold=True)[0]
    except (TooLarge, Unreadable, RecursionError):
        return None
    value = stated(value, gold) if isinstance(value, Chain) else value
    number = as_rational(value.value) if isinstance(value, Expression) else None
    return int(number) if number is not None and number.denominator == 1 else None


# short numbers


@lru_cache(maxsize=1024)
def _is_unit(word: str) -> bool:
    return measure([word]) is not None


def same_short_numbers(answer: str, gold: str) -> bool | None:
    """The verdict on two numbers in the commonest spellings; None for anything else."""
    wanted = _short_number(gold)
    if wanted is None:
        return None
    if answer.endswith("}") and (unit := SHORT_UNIT.fullmatch(answer)) and _is_unit(unit[2]):
        answer = unit[1]
    given = _short_number(answer)
    return None if given is None else wanted[0] * given[1] == given[0] * wanted[1]


def _short_number(text: str) -> tuple[int, int] | None:
    """Numerator and denominator of `7`, `-0.25`, `1,234`, `3/4` and `\\frac{3}{4}`, read without the parser."""
    if "," in text and SHORT_THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    found = SHORT_FRACTION.fullmatch(text)
    if found is None:
        return None
    sign, whole, places, upper, lower, top, bottom = found.groups()
    if places is not None:
        above, below = int((whole or "") + places), 10 ** len(places)
    else:
        above, below = int(upper or top), int(lower or bottom or 1)
        if below == 0:
            return None
    return (-above if sign else above), below


# mathematics


def _read_gold(gold: str, percent: str, products: frozenset[str]) -> tuple[Value, ...] | TooLarge | Unreadable:
    if len(gold) > LONGEST_KEPT:
        return _read(gold, percent, True, products)
    return _read_short_gold(gold, percent, products)


@lru_cache(maxsize=4096)
def _read_short_gold(gold: str, percent: str, products: frozenset[str]) -> tuple[Value, ...] | TooLarge | Unreadable:
    return _read(gold, percent, True, products)


def _read(text: str, percent: str, gold: bool, products: frozenset[str]) -> tuple[Value, ...] | TooLarge | Unreadable:
    try:
        return tuple(read(text, percent, gold, products))
    except RecursionError:
        return TooLarge("nested too deeply")
    except (TooLarge, Unreadable) as problem:
        return problem.with_traceback(None)


def _judge_math(answer: str, gold: str, policy: Policy, ask: Ask) -> Verdict:
    if "\\mathbb" in gold:
        answer = BOLD_NAME.sub(r"\\mathbb{\1}", answer)
    answer, gold = peeled(answer), peeled(gold)
    if NAMED_POINT.fullmatch(answer) and gold.lstrip("\\left")[:1] == "(":
        answer = answer.lstrip()[1:]  # P(2, 3)
    if (counted := COUNTED.fullmatch(answer.strip())) and gold.strip()[:1] not in ("C", "P", "("):
        whole, part = counted[2], counted[3]
        answer = rf"\binom{{{whole}}}{{{part}}}" + (f"*{part}!" if counted[1] == "P" else "")
    if INTEGRATED.search(answer) and INTEGRATED.search(gold) and not PARAMETER.search(gold):
        answer = answer[:-1] + gold[-1]
    same = same_short_numbers(answer, gold)
    if same is not None:
        return _verdict(same, answer)
    if _is_decimal_comma(answer, gold) or _is_option(answer, gold):
        return Verdict(True, "equal", answer)
    if YES_OR_NO.fullmatch(gold) and (said := YES_BEFORE.match(answer)):
        return _verdict(_words(said[1]) == _words(gold), answer)
    moment = moments.same(gold, answer)
    if moment is not None:
        return _verdict(moment, answer)
    products = _products(answer, gold) if CALLED.search(answer) or CALLED.search(gold) else frozenset()
    golds = _read_gold(gold, policy.percent, products)
    if isinstance(golds, Unreadable) and (last := LAST_OF_EQUALS.fullmatch(gold.strip(" $"))):
        golds = _read_gold(last[1], policy.percent, products)  # the reference holds, so all its sides are one value
    answers = _read(answer, policy.percent, False, products)
    if isinstance(golds, TooLarge | Unreadable) or isinstance(answers, TooLarge | Unreadable):
        return _judge_unread(answer, gold, golds, answers, ask)
    return _compare_readings(answer, gold, golds, answers, ask)


def _compare_readings(answer: str, gold: str, golds: Sequence[Value], answers: Sequence[Value], ask: Ask) -> Verdict:
    problem: Undecided | NotRead | None = None
    for index, (reading, answered) in enumerate([(g, a) for g in golds for a in answers]):
        try:
            if compare(reading, answered, ask if index == 0 else ask_nobody):
                return Verdict(True, "equal", answer)
        except (Undecided, NotRead) as found:
            problem = problem or found
    if _same_tokens(answer, gold):
        return Verdict(True, "equal", answer)
    if problem is not None:
        raise problem
    return Verdict(False, "different", answer)


def _is_decimal_comma(answer: str, gold: str) -> bool:
    """1000,99 for 1000.99; three digits after a comma are thousands, and a reference with a comma is a list."""
    found = DECIMAL_COMMA.fullmatch(answer.strip(" $"))
    return found is not None and gold.strip(" $") == f"{found[1]}.{found[2]}"


def _is_option(answer: str, gold: str) -> bool:
    r"""An option of a list, `(E)` or `\text{E}`: the answer is its letter, in either case, or a choice that begins with it."""
    if (labelled := LABELLED.fullmatch(gold.strip())) is not None:
        alone = OPTION.fullmatch(answer.strip(" $")) or ALONE.fullmatch(answer.strip(" $"))
        return alone is not None and choice_of(answer, get_policy("choice")) == labelled["letter"]
    option = OPTION.fullmatch(gold.strip())
    named = re.search(r"[(){}.:]|(?i:^(?:option|choice)\s)", answer)
    if option is None or (gold.strip() == option[1] and not named):
        return False
    return choice_of(answer.strip(), get_policy("choice")) == option[1]


def _products(answer: str, gold: str) -> frozenset[str]:
    """Letters such as h that stand somewhere without a bracket: there they are factors, so h(a+b) is a product."""
    return frozenset(BARE_LETTER.findall(answer) + BARE_LETTER.findall(gold))


def _same_tokens(answer: str, gold: str) -> bool:
    """The same text but for spaces, styles and delimiters."""
    if answer.isascii() and gold.isascii() and DIGITS.findall(answer) != DIGITS.findall(gold):
        return False
    try:
        return lex(clean(answer)).texts == lex(clean(gold)).texts != []
    except (TooLarge, Unreadable):
        return False


def _judge_unread(
    answer: str,
    gold: str,
    golds: tuple[Value, ...] | TooLarge | Unreadable,
    answers: tuple[Value, ...] | TooLarge | Unreadable,
    ask: Ask,
) -> Verdict:
    """One of the two is beyond our own reader: the same text, or computer algebra's word on two single formulas."""
    if _same_tokens(answer, gold):
        return Verdict(True, "equal", answer)
    if isinstance(golds, TooLarge):
        raise Undecided(f"reference answer too large to evaluate: {golds}")
    if isinstance(answers, TooLarge):
        return Verdict(False, f"too large to evaluate: {answers}", answer)
    wanted, given = clean(gold), clean(answer)
    if not given:
        return Verdict(False, "unreadable answer", answer)
    for text, side in ((wanted, golds), (given, answers)):
        if not isinstance(side, Unreadable) and not isinstance(side[0], Expression):
            return Verdict(False, "different", answer)
        if isinstance(side, Unreadable) and not _is_single(text):
            if side is answers:
                return Verdict(False, "unreadable answer", answer)
            return Verdict(False, "different", answer)
    return _verdict(ask(wanted, given), answer)


def _is_single(text: str) -> bool:
    """Is it one formula that only computer algebra evaluates: no list, no words, no relation outside its brackets?"""
    if not any(name in text for name in UNEVALUATED) or "\x02" in text:
        return False
    depth = 0
    for token in re.findall(r"\\[A-Za-z]+|\\.|.", text, re.DOTALL):
        depth += (token in ("(", "[", "{", "\\{")) - (token in (")", "]", "}", "\\}"))
        if depth == 0 and (token in (",", ";") or (token in RELATIONS and token != "\\to")):
            return False
    return True
