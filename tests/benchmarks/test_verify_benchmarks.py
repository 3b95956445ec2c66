"""The verifier's benchmarks on a handful of made-up answers, and their readers on the real files where those are."""

import csv
import os
from itertools import count, islice

import pytest

from benchmarks import _as_sympy, _labelled, _measure, verify_agreement, verify_vs_math_verify
from benchmarks._labelled import Labelled, bare, plainly, whole
from whetstone.verify import MathVerifier

MADE_UP = [
    bare("made up", "1/2", "0.5", True),
    bare("made up", "3", "4", False),
    bare("made up", "0.33", "1/3", True),  # labelled by someone who rounds
    bare("made up", "0.33", "1/3", True),
    whole("whole", r"so it is $\boxed{7}$.", "7", True),
    bare("no labels", "7", "8", None),
]


@pytest.fixture(scope="module")
def verifier():
    with MathVerifier(deadline=20) as shared:
        yield shared


def test_agreement_counts_each_kind_of_disagreement(verifier):
    groups = verify_agreement.agreement(MADE_UP, verifier)
    ours = groups["made up"].ours
    assert (ours.answers, ours.agree, ours.wrong_accepts, ours.wrong_refusals) == (4, 2, 0, 2)
    assert groups["whole"].peer.agree == 1
    printed = "\n".join(verify_agreement.printed(groups.values()))
    assert "| made up | 4 | 50.00 / " in printed
    assert "| no labels | 1 | mean 0.00 / mean 0.00 |  |  | 0 / 0 |" in printed


def test_a_judgement_written_by_hand_is_kept(verifier, tmp_path):
    table = tmp_path / "table.tsv"
    found = verify_agreement.agreement(MADE_UP, verifier, ask_peer=False)["made up"].disagreements
    verify_agreement.write_table(verify_agreement.merged(found, table), table)
    table.write_text(table.read_text().replace("undecided\t\n", "undecided\tours: 0.33 is not 1/3\n"))
    verify_agreement.write_table(verify_agreement.merged(found, table), table)
    (row,) = csv.DictReader(table.open(), delimiter="\t")
    assert row["times"] == "2" and row["judgement"] == "ours: 0.33 is not 1/3"


def test_answers_to_other_problems_are_counted_and_listed(verifier):
    pairs = [(r"\boxed{3}", "4"), (r"\boxed{0.5}", "1/2"), (r"\boxed{x}", "y")]
    counts, accepted = verify_agreement.false_accepts(pairs, verifier, every=2)
    assert counts["pairs"] == 3 and counts["accepted"] == 1 and counts["peer_pairs"] == 2
    assert [row["reference"] for row in accepted if row["set"] == "crossed"] == ["1/2"]


def test_formulas_are_compared_with_what_a_test_expects():
    rows = [
        {"latex": r"\frac{a + b}{c}", "expected_sympy": "_Mul(a + b, _Pow(c, -1))"},
        {"latex": r"\sqrt[3]{\sin x} + \log_{2} y", "expected_sympy": "root(sin(x), 3) + _log(y, 2)"},
        {"latex": r"\int x dx", "expected_sympy": "Integral(x, x)"},
        {"latex": "2x", "expected_sympy": "3 * x"},
        {"latex": "x", "expected_sympy": "__import__('os').getcwd()"},
    ]
    counts, otherwise = verify_agreement.formulas(rows)
    assert counts["formulas"] == 4 and counts["reader"] == 2 and counts["otherwise"] == 1
    assert counts["with computer algebra"] == 3
    assert [row["answer"] for row in otherwise] == ["2x"]
    assert sum("set aside" in kind for kind in counts) == 1


@pytest.mark.parametrize(
    ("latex", "written"),
    [
        (r"\frac{\sqrt{2}}{1+x}", "sqrt(2) / (1 + x)"),
        (r"\frac{1}{1+\sin\frac{1}{1+x}}", "1 / (1 + sin(1 / (1 + x)))"),
        ("(1, 2]", "Interval(1, 2, left_open=True)"),
        (r"\{1, 2\} \cup [3, 4]", "Union(FiniteSet(1, 2), Interval(3, 4))"),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "Matrix([[1, 2], [3, 4]])"),
        (r"x \le y", "LessThan(x, y)"),
    ],
)
def test_what_is_read_becomes_sympy(latex, written):
    assert _as_sympy.one_value(_as_sympy.read_as_sympy(latex), _as_sympy.expected(written))


def test_references_that_differ_in_style_only_are_one():
    assert plainly(r"20\text{ miles}") == plainly(r"20^\circ") == plainly("20.0") == 20
    assert plainly(r"\dfrac{1}{2}") == plainly(r"\frac 12")
    assert plainly(r"\frac{1}{2}") != plainly(r"\frac{1}{3}")


@pytest.mark.parametrize("kind", [verify_vs_math_verify.integers, verify_vs_math_verify.fractions])
def test_made_up_answers_are_labelled_rightly_and_never_repeat(verifier, kind):
    rows = list(islice(kind(count(11)), 200))
    assert len({(row.text, row.gold) for row in rows}) == len(rows)
    assert all(verifier.check(row.text, row.gold).correct is row.label for row in rows)


def test_long_completions_end_in_their_answer(verifier):
    rows = list(islice(verify_vs_math_verify.long_completions("We add $x = 3$. " * 10_000, count(1)), 4))
    assert all(len(row.text) > 50_000 for row in rows)
    assert [verifier.check(row.text, row.gold).correct for row in rows] == [True, False, True, False]


def test_a_comparison_has_the_fields_that_are_promised(verifier):
    graders = verify_vs_math_verify.Graders(verifier)
    cases = [
        verify_vs_math_verify.short_case("short integers", verify_vs_math_verify.integers, graders, (50, 5)),
        verify_vs_math_verify.mixed_case("labelled sets", [row for row in MADE_UP if row.label], graders, 2),
    ]
    result = _measure.compare("made_up", cases, 2, ["math-verify"])
    assert set(result["cases"][0]) >= {"case", "ours", "peer", "unit", "ratio", "low", "high"}
    assert result["ratio"] == min(case["ratio"] for case in result["cases"])
    assert set(result) >= {"name", "cases", "ratio", "repeats", "versions", "hardware", "machine_speed"}
    assert graders.accuracy()["short integers"]["ours"] == 1


def test_cpu_seconds_include_those_of_workers_alive():
    before = _measure.own_cpu()
    with MathVerifier() as fresh:
        fresh.check(r"\sum_{k=1}^{4} k", "10")
        assert _measure.own_cpu() - before > 0.1  # importing sympy alone takes more


@pytest.mark.skipif(not os.environ.get("WHETSTONE_DATA"), reason="WHETSTONE_DATA is not set: no public data files")
def test_the_labelled_sets_are_read():
    folder = _labelled.data()
    for each in _labelled.SETS:
        try:
            rows = list(islice(each(folder), 3))
        except FileNotFoundError as missing:
            pytest.skip(f"{missing.filename} is not in WHETSTONE_DATA")
        assert all(isinstance(row, Labelled) and isinstance(row.gold, str) and row.text for row in rows)
