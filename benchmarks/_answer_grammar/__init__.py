r"""Pairs of an answer and a reference whose truth is known by construction: equal in another notation, or changed by a step.

Nothing here knows the verifier. A number is a Fraction, or p + q sqrt(n) with n square-free, or a multiple of pi, so that two
are equal exactly if their parts are; a polynomial is its coefficients; a compound is its parts. Each production makes one pair
and names the kinds of the shared cases that it stands for. Compounds hold numbers or compounds of numbers: two deep.
"""

from benchmarks._answer_grammar import compounds, formulas, numbers, words
from benchmarks._answer_grammar.values import PRODUCTIONS, Pair, Production, pairs

__all__ = ["PRODUCTIONS", "Pair", "Production", "compounds", "formulas", "numbers", "pairs", "words"]
