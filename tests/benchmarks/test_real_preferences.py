"""Which pairs are drawn, and what is said of two sides; nothing is trained here."""

from benchmarks.real_preferences import distinct, figures, lines
from whetstone.problems.preferences import Preference
from whetstone.records import Message
from whetstone.reward.assess import Judged


def pair(*turns, chosen="a", rejected="b"):
    roles = ("user", "assistant") * len(turns)
    return Preference(tuple(Message(r, t) for r, t in zip(roles, turns, strict=False)), chosen, rejected)


def test_a_first_question_gives_one_pair():
    """A dialogue that goes on from a question that is held out would tell of it."""
    found = distinct([pair("Hi"), pair("Hi", "Hello.", "More"), pair("Why?"), pair("Hi", chosen="c")])
    assert found == [pair("Hi"), pair("Why?")]


def test_the_sides_are_paired_and_length_is_beside_them():
    """Four pairs; ours is right in three, the peer in one, and the longer answer is the chosen one in two."""

    def judged(rewards):
        lengths = ((5, 3), (5, 3), (3, 5), (2, 5))
        return [Judged(str(i), (r, 0.0), size) for i, (r, size) in enumerate(zip(rewards, lengths, strict=True))]

    found = figures({"ours": judged((1, 1, 1, -1)), "TRL": judged((1, -1, -1, -1))}, prefer_longer=True)
    assert [found["sides"][name]["accuracy"]["mean"] for name in ("ours", "TRL")] == [0.75, 0.25]
    assert [found["differences"][name][0] for name in ("ours - TRL", "ours - length", "TRL - length")] == [
        0.5,
        0.25,
        -0.25,
    ]
    assert list(lines(found))[2].startswith("length alone  50.0 [")
