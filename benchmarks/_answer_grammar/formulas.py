"""Pairs of labelled values, equations, polynomials, functions, sums and matrices."""

import random
from fractions import Fraction

import sympy

from benchmarks._answer_grammar.values import Pair, box, boxed_first, number, numbers, production, spelled, truth, whole


@production(
    "other variable, other order of labels", "several boxes / instruction repeated", "determinant is not its matrix"
)
def labelled(rng: random.Random) -> Pair:
    (a, b), way = numbers(rng, 2, 2), rng.random()
    names = rng.choice((("x", "y"), ("a", "b"), ("m", "n"), ("p", "q")))
    shown = [f"{names[0]}={a.text(rng)}", f"{names[1]}={b.text(rng)}"]
    if way >= 0.5:
        shown = [f"{names[0]}={b.text(rng)}", f"{names[1]}={a.text(rng)}"] if truth(rng) else shown[:1]
    rng.shuffle(shown)
    gold = rng.choice((f"({a.text(rng)}, {b.text(rng)})", f"{names[0]}={a.text(rng)}, {names[1]}={b.text(rng)}"))
    cases = box("\\begin{cases}" + "\\\\".join(shown) + "\\end{cases}")
    boxes = ", ".join(f"{text.split('=')[0]} = \\boxed{{{text.split('=')[1]}}}" for text in shown)
    return Pair(
        rng.choice([box(", ".join(shown)), cases, boxes] if len(shown) == 2 else [box(shown[0])]), gold, way < 0.5
    )


@production("other variable, other order of labels", "AIME: m+n=33 in the box", "decorated boxes")
def one_label(rng: random.Random) -> Pair:
    value, way = number(rng), rng.random()
    if way < 0.4:
        name = rng.choice(("x", "n", "k", "f(2)", "P(A)", "\\angle A", "AB"))
        return Pair(
            box(f"{name} = {value.text(rng)}"), rng.choice((value.text(rng), f"{name}={value.text(rng)}")), True
        )
    n = whole(rng)
    if way < 0.55:
        a = rng.randint(1, n - 1) if n > 1 else 1
        return Pair(
            box(rng.choice((f"m+n = {n}", f"p+q+r={n}", f"{a}+{n - a}={n}", f"m+n={a}+{n - a}={n}"))), str(n), True
        )
    wrong = [
        (f"x={n}", f"y={n}"),
        (f"m+n={n}", str(n + 1)),
        (f"x={n}={n + 1}", str(n + 1)),
        (f"x={n + 1}={n}", str(n + 1)),
    ]
    wrong += [(f"{n}={n}", f"{n + 1}={n + 1}"), ("1=2", f"{n}"), (f"x={n}", f"x\\ne {n}"), ("0=0", "\\log_2(8)=3")]
    return Pair(*boxed_first(rng.choice(wrong)), False)


@production("equation, solved for y", "ellipse equations", "matrices, trailing \\\\, radicals")
def line(rng: random.Random) -> Pair:
    a, b, c = (rng.choice((-7, -5, -3, -2, 2, 3, 4, 6)) for _ in range(3))
    k, equal = rng.choice((-3, -1, 1, 2, 5)), truth(rng)
    d = c if equal else c + rng.choice((1, -1)) if abs(c) != 1 else c + 1
    slope, offset = Fraction(-a, b), Fraction(-d, b)
    styles = [
        f"{k * a}x{k * b:+d}y{k * d:+d}=0",
        f"{k * a}x{k * b:+d}y={-k * d}",
        f"y={spelled(rng, slope)}x+({spelled(rng, offset)})",
    ]
    text = styles[rng.randrange(2)] if slope.denominator > 1 else rng.choice(styles)
    return Pair(box(text), f"{a}x{b:+d}y{c:+d}=0", equal)


@production("ellipse equations")
def circle(rng: random.Random) -> Pair:
    a, b, r, equal = rng.randint(-5, 5), rng.randint(-5, 5), rng.randint(1, 6), truth(rng)
    s = r if equal else r + 1
    return Pair(
        box(f"(x{-a:+d})^2+(y{-b:+d})^2={s * s}"), f"x^2+y^2{-2 * a:+d}x{-2 * b:+d}y{a * a + b * b - r * r:+d}=0", equal
    )


@production(
    "plain (program-style) formulas",
    "reference with a variable after a space",
    "h(a+b)/2",
    "constants inside fractions",
)
def polynomial(rng: random.Random) -> Pair:
    x = sympy.Symbol(rng.choice("xnt"))
    roots = [rng.randint(-6, 6) for _ in range(rng.choice((2, 2, 3)))]
    lead, equal = rng.choice((1, 1, 2, -3)), truth(rng)
    expanded = sympy.expand(lead * sympy.prod([x - root for root in roots]))
    shown = expanded if equal else sympy.expand(expanded + rng.choice((1, x, -x, 2)))
    factored = "".join(f"({x}{-root:+d})" for root in roots)
    lead_text = {1: "", -1: "-"}.get(lead, str(lead))
    styles = [sympy.latex(shown), str(shown), str(shown).replace("**", "^").replace("*", " ")]
    if equal:
        styles += [lead_text + factored, sympy.latex(sympy.horner(shown))]
    return Pair(box(rng.choice(styles)), sympy.latex(expanded), equal)


IDENTITIES = [  # equal, and different, with x and y for letters, a and b for numbers
    ("sin(2{x})", "2\\sin {x}\\cos {x}", True), ("\\cos^2 {x}+\\sin^2 {x}", "1", True), ("\\sec^2({x})",
    "\\tan^2 {x}+1", True),
    ("-sin({x})", "\\sin(-{x})", True), ("exp({a}{x})", "e^{{{a}{x}}}", True), ("{a}*exp({b})", "{a}e^{{{b}}}", True),
    ("ln({ab})", "\\ln {a}+\\ln {b}", True), ("{a}ln({b})", "ln({b}^{a})", True), ("\\frac{{\\ln {b}}}{{\\ln {a}}}",
    "\\log_{{{a}}} {b}", True),
    ("\\operatorname{{sin}}({x})", "\\sin {x}", True), ("\\mathrm{{ln}}\\,{a}", "\\ln {a}", True), ("sqrt({x}^2)",
    "|{x}|", True),
    ("\\frac{{{x}+{a}}}{{{b}}}", "\\frac{{{x}}}{{{b}}}+\\frac{{{a}}}{{{b}}}", True), ("\\ln({x}^2)", "2\\ln|{x}|", True),
    ("\\sqrt[3]{{{x}}}", "{x}^{{1/3}}", True), ("({x}+{a})!", "({x}+{a})({x}+{a}-1)!", True), ("\\max({a},{b})", "{b}", True),
    ("\\sin 2{x}", "2\\sin {x}", False), ("ln({a})+ln({b})", "ln({a}+{b})", False), ("cos(0)", "0", False), ("{a}exp({x})",
    "exp({a}{x})", False),
    ("\\arctan(1)/{a}", "arctan(1/{a})", False), ("\\log_{{{a}}} {x}", "\\log_{{{b}}} {x}", False), ("f({x}+{a})",
    "f({x})+f({a})", False),
    ("{x}", "|{x}|", False), ("f''({x})={a}", "f'({x})={a}", False), ("\\sqrt{{{x}+{a}}}",
    "\\sqrt{{{x}}}+\\sqrt{{{a}}}", False),
    ("tan({x})/{a}", "\\tan({x}/{a})", False), ("{a}{x}-{b}", "{a} {x}-{b} m", False), ("{a}^{{{x}}}", "{x}^{a}", False),
    ("√{aa}", "{a}", True), ("√{aa}", "{last}", False), ("{b}√{aa}", "{b}0", False), ("sqrt({aa})", "{a}", True),
    ("\\tanh({big})", "1", False), ("\\sin(10^{{-{big}}})", "10^{{-{big}}}", False), ("\\sqrt{{10^{{{big2}}}+1}}",
    "10^{{{big}}}", False),
    ("e^{{i\\pi}}", "-1", True), ("2\\sin 18^\\circ", "\\frac{{\\sqrt5-1}}{{2}}", True), ("\\binom{{{b}}}{{2}}",
    "{choose}", True),
    ("\\sqrt{{{nest}+2\\sqrt{{{ab}}}}}", "\\sqrt{{{a}}}+\\sqrt{{{b}}}", True), ("{a}+{b}i", "{b}i+{a}", True), ("{a}+{b}i",
    "{a}-{b}i", False),
]  # fmt: skip


@production(
    "plain function names on both sides", "absolute values, roots, integer exponents", "unicode root of two digits",
    "symbol case and real identities", "root with round brackets", "plain (program-style) formulas",
)  # fmt: skip
def identity(rng: random.Random) -> Pair:
    a = rng.randint(4, 9)
    b = a + rng.randint(1, 9)
    big = rng.randint(50, 300)
    values = {
        "x": rng.choice("xty"),
        "a": a,
        "b": b,
        "ab": a * b,
        "aa": a * a,
        "big": big,
        "big2": 2 * big,
        "nest": a + b,
    }
    values |= {"last": str(a * a)[-1], "choose": b * (b - 1) // 2}
    first, second, equal = rng.choice(IDENTITIES)
    if first == "√{aa}" and not equal and values["last"] == str(a):
        second = "1"
    texts = first.format(**values), second.format(**values)
    texts = texts[::-1] if truth(rng) and "√" not in first else texts
    return Pair(box(texts[0]), texts[1], equal)


@production("decimals of integrals, sums", "unevaluated or malformed answer to an integer")
def sums(rng: random.Random) -> Pair:
    n, equal = rng.randint(3, 12), truth(rng)
    value = sum(Fraction(1, k) for k in range(1, n + 1))
    gold = f"\\sum_{{k=1}}^{{{n}}} \\frac{{1}}{{k}}"
    if equal:
        return Pair(box(f"\\frac{{{value.numerator}}}{{{value.denominator}}}"), gold, True)
    rounded = f"{float(value):.12f}" if 10**9 % value.denominator else f"{float(value) + 1e-12:.12f}"
    wrong = [(rounded, gold), (f"\\int_0^{n} x^x\\,dx", str(n)), ("x_{}", str(n)), (f"{n}...{n + 1}", str(n))]
    return Pair(*boxed_first(rng.choice(wrong)), False)


@production("roots given where an interval is asked", "root with round brackets")
def surd(rng: random.Random) -> Pair:
    n, k, equal = rng.choice((2, 3, 5, 6, 7, 10, 11)), rng.randint(2, 9), truth(rng)
    shown = k if equal else k + 1
    styles = (
        f"{shown}\\sqrt({n})",
        f"{shown}√{n}",
        f"\\sqrt{{{shown * shown * n}}}",
        f"{shown}*sqrt({n})",
        f"\\frac{{{shown * n}}}{{\\sqrt{{{n}}}}}",
    )
    return Pair(box(rng.choice(styles)), f"{k}\\sqrt{{{n}}}", equal)


@production(
    "matrices, trailing \\\\, radicals", "determinant is not its matrix", "reference against itself, odd references"
)
def matrix(rng: random.Random) -> Pair:
    rows = [[rng.randint(-9, 9) for _ in range(2)] for _ in range(2)]
    k, way = rng.choice((2, 3)), rng.random()

    def written(entries: list[list], kind: str = "pmatrix") -> str:
        body = "\\\\".join("&".join(map(str, row)) for row in entries)
        return f"\\begin{{{kind}}}{body}\\end{{{kind}}}"

    gold = written([[k * e for e in row] for row in rows])
    if way < 0.25:
        return Pair(box(f"{k}{written(rows)}"), gold, True)
    if way < 0.5:
        return Pair(box(written([[f"\\frac{{{2 * k * e}}}{{2}}" for e in row] for row in rows], "bmatrix")), gold, True)
    determinant = rows[0][0] * rows[1][1] - rows[0][1] * rows[1][0]
    if way < 0.6 and determinant:
        inverse = sympy.Matrix(rows).inv()
        return Pair(box(f"{written(rows)}^{{-1}}"), written(inverse.tolist()), True)
    if way < 0.7:
        return Pair(box(str(determinant)), written(rows), False)
    transposed = [list(column) for column in zip(*rows, strict=True)]
    if way < 0.85 and transposed != rows:
        return Pair(box(written(transposed)), written(rows), False)
    rows[rng.randrange(2)][0] += 1
    return Pair(box(written([[k * e for e in row] for row in rows])), gold, False)
