"""Which traces may be taught: right, complete, of bounded length, without loops.

The paper keeps what the verifier finds correct and labels repetitive patterns (Phi-4-Mini-Reasoning, data synthesis).
"""

from whetstone.chat import CLOSE, OPEN, with_opening
from whetstone.corpus.label import repetition
from whetstone.records import NO_REFERENCE, Trace


def reason_to_drop(trace: Trace, max_repetition: float, max_characters: int, unverified: bool = False) -> str:
    """Why a trace may not be taught; "" if it may. With `unverified`, a trace without a reference answer may be."""
    right = trace.correct or (unverified and trace.reason == NO_REFERENCE)
    if trace.correct is None and not right:
        return f"undecided: {trace.reason}"
    return malformed(trace.text, max_repetition, max_characters) or ("" if right else f"wrong: {trace.reason}")


def malformed(text: str, max_repetition: float, max_characters: int) -> str:
    """What is wrong with a text's form, "" if nothing is. `max_characters` 0: any length."""
    if not text.strip():
        return "empty"
    if max_characters and len(text) > max_characters:
        return f"longer than {max_characters} characters"
    text = with_opening(text)
    if text.count(OPEN) != text.count(CLOSE):
        return "thinking never closes"
    if repetition(text) > max_repetition:
        return "repetitive"
    return ""
