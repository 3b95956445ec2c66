"""Compiled kernels that are tried out before they are used: where they do not work, torch alone is slower, and right."""

import importlib
from types import ModuleType
from typing import Any

from whetstone.run.progress import say


def working_kernels(module: str, use: str, device: Any, *shape: Any) -> ModuleType | None:
    """The module of that name, if its `wrong(device, *shape)` finds nothing wrong on a GPU; None elsewhere, and where it is
    said aloud what is wrong with it for that `use`."""
    if device.type != "cuda":
        return None
    try:
        kernels = importlib.import_module(module)
        reason = kernels.wrong(device, *shape)
    except Exception as error:  # no Triton, no compiler, a device that it does not know
        reason = f"{type(error).__name__}: {error}"
    if reason:
        say(f"{use}, which is slower: {reason}")
        return None
    return kernels
