"""Compiled kernels are tested before they are used. If they do not work, torch does the same more slowly."""

import importlib
from types import ModuleType
from typing import Any

from whetstone.run.progress import say


def working_kernels(module: str, use: str, device: Any, *shape: Any) -> ModuleType | None:
    """The module of that name if its `wrong(device, *shape)` finds nothing wrong; None on a CPU or if it does.

    `use` names what is slower without it, in the line that says what is wrong.
    """
    if device.type != "cuda":
        return None
    try:
        kernels = importlib.import_module(module)
        reason = kernels.wrong(device, *shape)
    except Exception as error:  # no Triton, no compiler, an unknown device
        reason = f"{type(error).__name__}: {error}"
    if reason:
        say(f"{use}, which is slower: {reason}")
        return None
    return kernels
