"""Pairs that differ in the words around a number, in a word, or in the option that is chosen."""

import json
import random
from fractions import Fraction

from benchmarks._answer_grammar.values import Pair, box, boxed_first, nudged, production, truth, whole

WRAPPERS: dict[str, list[str]] = {
    "Markdown bold answers": ["**Answer:** {}", "**Answer: {}**", "__Answer__: {}", "### Final Answer\n\n{}",
    "Answer: ***{}***"],
    "box in prose, display maths": ["The value is \\boxed{{{}}}.", "Thus \\[ \\boxed{{{}}} \\]",
    "Thus the answer is \\( {} \\)."],
    "several boxes / instruction repeated": ["I put the answer in \\boxed{{}}.\n\nSo \\boxed{{{}}}",
    "\\boxed{{7}} is wrong; \\boxed{{{}}}"],
    "odd closings after the box": ["\\(\\boxed{{{}}}\\)</answer><|im_end|>", "\\boxed{{{}}}<|endoftext|>",
    "$\\boxed{{{}}}$</s>"],
    "<answer> tags": ["<think>it is 7</think><answer>{}</answer>",
    "<think>a</think><answer>7</answer> no <answer> ${}$ </answer>"],
    "no think tags / other tags": ["so \\boxed{{7}} </think> \\boxed{{{}}}"],
    "Answer: with code/latex ticks": ["Answer: `{}`", "Answer: ${}$", "```\n{}\n```", "JSON"],
    "answer phrases in other languages": [
        "Die Antwort lautet ${}$.", "La réponse est ${}$.", "La respuesta es ${}$.", "答案是 ${}$。", "答えは ${}$ です。",
        "정답은 ${}$입니다.", "Ответ: ${}$.",
    ],
    "the-answer-is phrasings": ["The answer is ${}$.", "My final answer is ${}$", "answer = {}",
    "Hence the final answer is ${}$."],
    "answer followed by a comma clause": ["The answer is ${}$, in total, so we are done.", "The answer is ${}$ — no more.",
    "#### {}"],
    "fraction after marker": ["The answer is {}"],
    "decorated boxes": [
        "\\boxed {{{}}}", "\\boxed{{\\underline{{{}}}}}", "\\boxed{{{{\\bf {}}}}}", "\\boxed{{= {}}}", "\\boxed{{${}$}}",
        "\\boxed{{\\mathbf{{{}}}}}", "\\boxed{{{}.}}", "\\boxed{{\\color{{red}}{{{}}}}}", "\\boxed{{N = {}}}",
    ],
    "number inside \\text": ["\\boxed{{\\text{{{}}}}}", "\\boxed{{\\textbf{{{}}}}}"],
    "long boxed answer": ["xxxxxxxx " * 300 + "\\boxed{{{}}}"],
    "statement after the box": ["\\boxed{{7}}\n\nCorrection: the final answer is ${}$."],
}  # fmt: skip


@production(*WRAPPERS)
def wrapped(rng: random.Random) -> Pair:
    value, equal = Fraction(rng.randint(8, 400), rng.choice((1, 1, 1, 3))), truth(rng)
    shown = value if equal else nudged(rng, value)
    plain = str(shown) if shown.denominator == 1 else f"{shown.numerator}/{shown.denominator}"
    wrapper = rng.choice(WRAPPERS[rng.choice(list(WRAPPERS))])
    text = json.dumps({"answer": plain}) if wrapper == "JSON" else wrapper.format(plain)
    return Pair(text, str(value), equal)


@production("truncated mid-derivation", "roots given where an interval is asked")
def cut_off(rng: random.Random) -> Pair:
    n = whole(rng)
    text = rng.choice(
        (
            f"so \\boxed{{{n}",
            f"We get {n} + 1 = {n + 1}, then",
            f"The answer is $\\frac{{{n}}}{{",
            f"\\boxed{{{n}}} and \\boxed{{{n + 1}",
            "The answer is",
        )
    )
    return Pair(text, str(n), False) if truth(rng) else Pair(box(f"-{n}, {n}"), f"[-{n},{n}]", False)


CHANGES = (
    "not {}", "half of {}", "the square of {}", "{} squared", "{} less than 100", "{} to 1", "{} thousand", "{} over 2",
    "at most {}",
    "{} out of 100", "between {} and 900", "wrong: {}", "{} or more", "{} to the 4", "{} tens", "{} eighths", "twice {}",
)  # fmt: skip


@production(
    "the-answer-is phrasings", "stated answer changed by a word", "prose around one number in a box", "words that multiply",
    "formulas that differ only in \\text{}",
)  # fmt: skip
def changed_by_words(rng: random.Random) -> Pair:
    n = whole(rng)
    change = rng.choice(CHANGES)
    if truth(rng):
        noun = rng.choice(("apples", "marbles", "pairs of shoes", "ways", "square units", "cubic feet", "red balls"))
        text = rng.choice((box(f"{n}\\text{{ {noun}}}"), f"The answer is {n} {noun}."))
        return Pair(text, str(n), True)
    before, _, after = change.partition("{}")
    boxed = (f"\\text{{{before}}}" if before else "") + str(n) + (f"\\text{{{after}}}" if after else "")
    return Pair(rng.choice((f"The answer is {change.format(n)}.", box(boxed))), str(n), False)


MULTIPLIERS = {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}


@production("words that multiply")
def multiplied(rng: random.Random) -> Pair:
    n, equal, word = whole(rng, 2, 30), truth(rng), rng.choice(list(MULTIPLIERS))
    gold = n * MULTIPLIERS[word] if equal else rng.choice((n, n * MULTIPLIERS[word] * 10))
    return Pair(rng.choice((box(f"{n}\\text{{ {word}}}"), f"{n} {word}")), str(gold), equal)


WORDS = (
    "even", "odd", "increasing", "decreasing", "Monday", "Tuesday", "convergent", "not convergent", "always true",
    "never true", "profit",
    "loss", "no solution", "parabola", "ellipse", "Navin", "isosceles", "rational", "irrational",
)  # fmt: skip


@production("text answers", "reference against itself, odd references", "MATH-500 format list")
def words(rng: random.Random) -> Pair:
    (a, b), equal = rng.sample(WORDS, 2), truth(rng)
    shown = a if equal else b
    text = rng.choice((f"\\text{{{shown}}}", f"\\textbf{{{shown}}}", shown.capitalize(), f"\\text{{{shown.upper()}}}"))
    return Pair(box(text), f"\\text{{{a}}}", equal)


@production("words and relations beside formulas", "formulas that differ only in \\text{}", "IMO-AnswerBench answers")
def statements(rng: random.Random) -> Pair:
    n, (a, b) = whole(rng), rng.sample(("even", "odd", "prime", "composite", "positive", "irrational"), 2)
    value = f"({n},{n + 3})"
    same = [
        (f"n\\text{{ is {a}}}", f"n \\text{{ is {a}}}"), (f"\\text{{{a} }}n", f"n\\text{{ {a}}}"),
        (f"\\text{{increasing on }}{value}",) * 2,
        (f"f(x)={n}x \\text{{ for any constant }} c", f"f(x)={n}x"), (f"n\\equiv {n % 7} \\pmod 7",
        f"n\\equiv {n % 7 + 7}\\pmod{{7}}"),
        ("p \\lor q", "p\\lor q"), (f"x=2k \\text{{ ({a})}}",) * 2,
    ]  # fmt: skip
    wrong = [
        (f"n\\text{{ is {a}}}", f"n \\text{{ is {b}}}"), (f"\\text{{{a} }}n", f"\\text{{{b} }}n"), ("\\text{A wins}",
        "\\text{B wins}"),
        (f"\\text{{increasing on }}{value}", f"\\text{{increasing on }}({n},{n + 4})"), (f"\\text{{Day }}{n}",
        f"\\text{{Week }}{n}"),
        (f"n\\equiv {n % 7} \\pmod 7", f"n\\equiv {n % 7}\\pmod{{5}}"), ("p \\lor q", "p \\land q"), ("A\\setminus B",
        "B\\setminus A"),
        ("\\neg p", "p"), ("\\mathbb{Q}", "\\mathbb{R}"), ("\\overline{AB}", "\\overline{AC}"), (f"\\angle A={n}",
        f"\\angle B={n}"),
        (f"\\{{x\\in\\mathbb{{Z}}\\mid x>{n}\\}}", f"\\{{x\\in\\mathbb{{R}}\\mid x>{n}\\}}"), (f"\\text{{{a}}}, {n}",
        f"\\text{{{b}}}, {n}"),
        (f"x=2k \\text{{ ({a})}}", f"x=2k \\text{{ ({b})}}"), (f"{n}\\text{{ left}}", f"{n}\\text{{ right}}"), (f"{n}",
        f"n={n}k"),
    ]  # fmt: skip
    equal = truth(rng)
    return Pair(*boxed_first(rng.choice(same if equal else wrong)), equal)


@production(
    "choice: boxed formula then Answer: D", "choice: letter in prose", "choice: no choice made",
    "several letters, first one credited",
)  # fmt: skip
def choice(rng: random.Random) -> Pair:
    right, other = rng.sample("ABCDEFG", 2)
    good = [
        "\\boxed{{{}}}", "The answer is ({}).", "Answer: {}", "The correct option is {}.", "\\boxed{{\\text{{({})}}}}",
        "It is 5.\n\nAnswer: {}",
        "The energy is \\boxed{{5}}.\n\nAnswer: {}", "The answer is {} because it fits.", "答案：{}", "\\boxed{{{}. 12 m}}",
        "The answer is **({})**.",
    ]  # fmt: skip
    none = [
        f"\\boxed{{{right}, {other}}}", f"The answer is {right}/{other}", f"\\boxed{{({right})({other})}}",
        f"Answer: ({right}) and ({other})",
        f"\\boxed{{{right}}} or \\boxed{{{other}}}", f"The answer is ({right}) is wrong",
        f"Answer: {right}. no. {other}. yes", "Answer: none",
        f"\\boxed{{\\text{{({right}) or ({other})}}}}", f"Answer: rules out {right}, leaving {other}",
    ]  # fmt: skip
    if truth(rng):
        return Pair(rng.choice(good).format(right), right, True, "choice")
    wrong = [text.format(other) for text in good] + none
    return Pair(rng.choice(wrong), right, False, "choice")


@production("choice text under math")
def choice_in_math(rng: random.Random) -> Pair:
    right, other = rng.sample("ABCDE", 2)
    equal = truth(rng)
    shown = right if equal else other
    texts = [
        box(shown),
        box(f"\\text{{({shown})}}"),
        f"The answer is ({shown}).",
        f"Answer: {shown}",
        box(f"({shown})"),
    ]
    texts += [] if equal else [box(f"{right}, {other}")]
    return Pair(rng.choice(texts), rng.choice((f"\\text{{({right})}}", right, f"({right})")), equal)
