r"""A question as comparable tokens: words, numbers, signs. Questions that differ only in spelling have the same tokens.

LaTeX mark-up and delimiters, brackets of groups, marks of super- and subscripts, fraction bars, case, spacing, Unicode
forms and punctuation are ignored; `\dfrac12`, `\frac{1}{2}` and `1/2` are the same, and so are `\le`, `\leq` and `≤`.
"""

import re
import unicodedata

# Groups of spellings of one token, which becomes the first of its group
_GROUPS = """
binom dbinom tbinom choose; mod pmod bmod; degrees circ degree; * times cdot cdotp ast; ÷ div; ± pm; √ sqrt; ∞ infty;
≤ le leq leqslant; ≥ ge geq geqslant; ≠ ne neq; ≡ equiv; ≈ approx; → to rightarrow longrightarrow; ∑ sum; ∏ prod; ∫ int;
… ldots dots cdots dotsc dotsb vdots; ∈ in; ∪ cup; ∩ cap; ∠ angle measuredangle; △ triangle; ⊥ perp; ∥ parallel;
| vert lvert rvert mid; ⌊ lfloor; ⌋ rfloor; ⌈ lceil; ⌉ rceil;
α alpha; β beta; γ gamma; δ delta; ε epsilon varepsilon; θ theta; λ lambda; μ mu; π pi; σ sigma; φ phi varphi; ω omega
"""
_COMMANDS = {other: group.split()[0] for group in _GROUPS.split(";") for other in group.split()[1:]}
_SIGNS = {other: line[0] for line in ("*×·∗⋅", "-−–—", "≤⩽", "≥⩾", "△∆", "φϕ", "εϵ") for other in line[1:]} | {
    "°": "degrees",
    "degree": "degrees",
    "...": "…",
}
_TYPESETTING = """
left right bigl bigr big bigg biggl biggr displaystyle textstyle limits nolimits mathrm mathbf mathit mathbb mathcal mathsf
boldsymbol text textbf textit textrm mbox hbox operatorname quad qquad hspace vspace phantom nonumber frac dfrac tfrac cfrac
"""
_SILENT = frozenset(_TYPESETTING.split())
_PUNCTUATION = frozenset(".,;:?!'\"`’‘“”$^_~&{}/⁄")

_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s*\{[a-z]+\*?\}(?:\{[clr|@!\s]*\})?")
_ESCAPED = re.compile(r"\\(?:[,;:!> ()\[\]{}%$#&_\n]|\\)")
_SHORT_FRACTION = re.compile(r"(\\[dtc]?frac)\s*(\d)\s*(\d)(?!\d)")
_THOUSANDS = re.compile(r"(?<=\d)(?:,|\{,\}|,?\\[,!])(?=\d{3}(?!\d))")
_TOKEN = re.compile(r"\\[a-z]+|[^\W\d_]+|\d+(?:\.\d+)?|\.\.\.|[^\w\s]")


def tokens(question: str) -> list[str]:
    r"""The comparable tokens of a question.

    >>> tokens(r"What is $\dfrac12$ of 1,200?")
    ['what', 'is', '1', '2', 'of', '1200']
    >>> tokens(r"$x^{2} \leq 3\cdot y$") == tokens(r"\(x² ≤ 3 × y\)")
    True
    """
    text = _THOUSANDS.sub("", question)
    text = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).lower()
    if "\\" in text:
        text = _SHORT_FRACTION.sub(r"\1 \2 \3 ", text)
        text = _ESCAPED.sub(_escaped, _ENVIRONMENT.sub(" ", text))
    return [token for token in map(_spelled, _TOKEN.findall(text)) if token]


def _escaped(match: re.Match[str]) -> str:
    return match[0][1] if match[0][1] in "%#" else " "


def _spelled(token: str) -> str:
    """The token's one spelling, "" if it is ignored."""
    if token[0] == "\\" and len(token) > 1:
        token = token[1:]
        return "" if token in _SILENT else _COMMANDS.get(token, token)
    return "" if token in _PUNCTUATION else _SIGNS.get(token, token)
