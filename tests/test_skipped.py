"""A skipped test is named, with its reason and what would run it."""

from collections import Counter

from tests.skipped import remedy, summary


def test_tests_of_one_reason_share_a_line_with_what_runs_them():
    skipped = Counter(
        {("there is no GPU", "test_a.py"): 2, ("there is no GPU", "test_b.py"): 1, ("no x", "test_c.py"): 1}
    )
    assert summary(skipped) == [
        "    3  there is no GPU (test_a.py, test_b.py)\n       run them by: make test, on a machine with an NVIDIA GPU",
        "    1  no x (test_c.py)\n       run them by: another machine",
    ]


def test_what_needs_a_peer_or_public_data_says_the_command():
    assert remedy("TRL is not installed here") == "make test-peers"
    assert remedy("gsm8k is not in WHETSTONE_DATA").startswith("WHETSTONE_DATA=FOLDER make test")
