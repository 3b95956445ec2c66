"""Whetstone sharpens a small language model into a maths reasoner (Phi-4-Mini-Reasoning, arXiv 2504.21233)."""

import sys

if sys.platform == "win32":
    raise ImportError(
        "Whetstone does not run on Windows: it forks processes and locks files as Linux and macOS do. Install it in WSL 2 "
        "(wsl --install), where it runs as on Linux."
    )

__version__ = "0.1.0"
