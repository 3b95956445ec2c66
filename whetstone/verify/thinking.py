r"""What follows the thinking of a completion: the marks of thinking that models and prompts use, in one list.

<think>…</think>             DeepSeek, Qwen and most others; prompts also ask for <reasoning>, <scratchpad>, <thought>
[THINK]…[/THINK]             Magistral
<|channel|>analysis…         gpt-oss, whose thinking ends where its final channel begins
"""

import re

NAMES = ("think", "thinking", "thought", "thoughts", "reasoning", "scratchpad", "reflection", "seed:think")
THINKING = (  # the commonest first: what it leaves is short, so that the others are looked for at once
    ("<think>", "</think>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
    *(
        (f"<{spelled}>", f"</{spelled}>")
        for name in NAMES
        for spelled in dict.fromkeys((name, name.capitalize(), name.upper()))
    ),
)
START = 200  # characters in which thinking begins
OPENED = re.compile("|".join(re.escape(opening) for opening, _ in THINKING))
SIGNS = ("think>", "</", "|>")  # every mark in angle brackets that stands further on has one of them
OTHERS = ("[/THINK]", "◁/think▷")


def after_thinking(text: str) -> str | None:
    """What follows the thinking, all of it where there is none; None if the thinking does not end.

    >>> after_thinking("[THINK]2 + 3[/THINK]5"), after_thinking("<think>2 + 3"), after_thinking("5")
    ('5', None, '5')
    """
    if not _has_marks(text):
        return text
    for opening, closing in THINKING:
        closed = text.rfind(closing)
        if text.find(opening, max(closed, 0)) >= 0:
            return None
        if closed >= 0:
            text = text[closed + len(closing) :]
    return text


def _has_marks(text: str) -> bool:
    """Can there be a mark of thinking? For long texts: searching from the end is several times as fast as `in`."""
    if "<" in text and any(text.rfind(sign) >= 0 for sign in SIGNS):
        return True
    return any(text.rfind(mark) >= 0 for mark in OTHERS) or OPENED.search(text, 0, START) is not None
