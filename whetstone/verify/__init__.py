r"""Is a text's answer right? Exact, bounded in time and memory, safe from any thread.

    from whetstone.verify import MathVerifier, verify

    verify(r"… so \boxed{\frac{1}{2}}", "0.5")            # Verdict(correct=True, reason="equal", answer=r"\frac{1}{2}")

    with MathVerifier(workers=2, deadline=2.0) as verifier:
        for verdict in verifier.check_many((text, gold, "math") for …):    # in order, in constant memory
            …
        verdict = await verifier.check_async(text, gold)                   # in an event loop

A verdict's `correct` is None if neither equal nor different was shown (a timeout, a crash, an unreadable reference). Such an
answer is wrong in a score and counted beside it; only RL leaves it out, so that it is not rewarded either way. How an answer
is found is in `extract.py`, what counts as equal in `policy.py` and `compare.py`. Our own reader and exact arithmetic decide
in this process; only sums, integrals and limits are asked of processes that are killed at the deadline.
"""

from whetstone.verify.extract import extract, last_box
from whetstone.verify.policy import POLICIES, Policy, get_policy
from whetstone.verify.verifier import MathVerifier, verify

__all__ = ["POLICIES", "MathVerifier", "Policy", "extract", "get_policy", "last_box", "verify"]
