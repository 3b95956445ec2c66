"""Equal numbers in any spelling are equal; different integers never are; exact arithmetic keeps its laws."""

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from whetstone.verify import extract, get_policy, verify
from whetstone.verify.equal import judge
from whetstone.verify.exact import Algebra, Scalar, equal_scalars, rational, symbol

MATH = get_policy("math")
INTEGERS = st.integers(-(10**12), 10**12)
FRACTIONS = st.fractions(min_value=-1000, max_value=1000, max_denominator=500)


@st.composite
def spelled(draw, value: Fraction) -> str:
    """One of many ways to write a rational number."""
    scale = draw(st.integers(1, 9))
    upper, lower = value.numerator * scale, value.denominator * scale
    ways = [
        rf"\frac{{{upper}}}{{{lower}}}",
        f"{upper}/{lower}",
        rf"\dfrac{{{upper}}}{{{lower}}}",
        rf"({upper})\div {lower}",
    ]
    if value.denominator == 1:
        ways += [str(value.numerator), f"{value.numerator}.0", f"{value.numerator:,}", rf"\${value.numerator}"]
    elif value > 0 and value > 1:
        whole, rest = divmod(value.numerator, value.denominator)
        ways += [rf"{whole}\frac{{{rest}}}{{{value.denominator}}}", f"{whole} {rest}/{value.denominator}"]
    if 1000 % value.denominator == 0:
        ways.append(f"{float(value):.3f}")
    spelling = draw(st.sampled_from(ways))
    return draw(
        st.sampled_from([spelling, f"${spelling}$", rf"x = {spelling}", rf"\text{{{spelling}}}", f" {spelling}. "])
    )


@given(st.data(), FRACTIONS)
@settings(deadline=None, max_examples=100)
def test_equal_rationals_in_different_spellings_are_equal(data, value):
    first, second = data.draw(spelled(value)), data.draw(spelled(value))
    assert judge(first, second, MATH).correct is True


@given(st.data(), FRACTIONS, FRACTIONS)
@settings(deadline=None, max_examples=100)
def test_different_rationals_are_different_in_any_spelling(data, a, b):
    if a != b:
        assert judge(data.draw(spelled(a)), data.draw(spelled(b)), MATH).correct is False


@given(INTEGERS, INTEGERS)
@settings(deadline=None)
def test_different_integers_are_never_equal(a, b):
    assert verify(rf"\boxed{{{a}}}", str(b)).correct is (a == b)


@given(st.text(max_size=200), st.text(max_size=50))
@settings(deadline=None, max_examples=150)
def test_no_text_raises(text, gold):
    answer = extract(text, MATH).answer
    if answer is not None:
        assert "not judged" not in judge(answer, gold, MATH).reason


@given(st.text(alphabet="0123456789.+-*/^_(){}[],=<>|!% \\xy$&", max_size=40))
@settings(deadline=None, max_examples=100)
def test_no_formula_raises(text):
    assert "not judged" not in judge(text, "5", MATH).reason
    assert "not judged" not in judge(text, "x < 2 = y", MATH).reason


@given(st.lists(FRACTIONS, min_size=1, max_size=5), st.randoms())
@settings(deadline=None)
def test_sets_have_no_order_and_tuples_do(values, random):
    shuffled = values[:]
    random.shuffle(shuffled)
    first, second = (",".join(map(str, v)) for v in (values, shuffled))
    assert judge(rf"\{{{first}\}}", rf"\{{{second}\}}", MATH).correct is True
    if len(values) > 1:
        assert judge(f"({first})", f"({second})", MATH).correct is (values == shuffled)


@given(st.lists(st.tuples(FRACTIONS, FRACTIONS, st.integers(1, 50)), min_size=3, max_size=3))
@settings(deadline=None)
def test_sums_of_roots_keep_the_laws_of_arithmetic(parts):
    algebra = Algebra()

    def linear(constant: Fraction, slope: Fraction, radicand: int) -> Scalar:
        x = algebra.multiply(rational(slope), symbol("x"))
        return algebra.add(rational(constant), algebra.multiply(x, algebra.root(rational(radicand), 2)))

    a, b, c = (linear(*part) for part in parts)
    left = algebra.multiply(a, algebra.add(b, c))
    right = algebra.add(algebra.multiply(a, b), algebra.multiply(a, c))
    assert equal_scalars(left, right) is True
    assert equal_scalars(left, algebra.add(right, rational(Fraction(1, 10**30)))) is False
    if b.num:
        assert equal_scalars(algebra.multiply(algebra.divide(a, b), b), a) is True
