"""The last lines of a test run: what was skipped, why, and what would run it."""

from collections import Counter
from pathlib import Path

import pytest

# A word of the reason -> what runs such tests. A reason that needs no remedy here says it itself.
REMEDIES = {
    "TRL": "make test-peers",
    "GPU": "make test, on a machine with an NVIDIA GPU",
    "WHETSTONE_DATA": "WHETSTONE_DATA=FOLDER make test (docs/data.md lists the files)",
    "WHETSTONE_CASES": "WHETSTONE_CASES=FOLDER make test",
    "Triton": "pip install triton, then make test (it comes with PyTorch's CUDA builds)",
    "real model": "make real, then make test-real",
    "extra": "install it, then make test",
}


def remedy(reason: str) -> str:
    return next((remedy for word, remedy in REMEDIES.items() if word in reason), "another machine")


def summary(skipped: "Counter[tuple[str, str]]") -> list[str]:
    """Lines of (tests, file, reason, remedy), by reason."""
    by_reason: dict[str, Counter[str]] = {}
    for (reason, file), count in skipped.items():
        by_reason.setdefault(reason, Counter())[file] += count
    return [
        f"{sum(files.values()):5}  {reason} ({', '.join(sorted(files))})\n       run them by: {remedy(reason)}"
        for reason, files in sorted(by_reason.items(), key=lambda item: -sum(item[1].values()))
    ]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = Counter(
        (str(report.longrepr[2]).removeprefix("Skipped: "), Path(report.longrepr[0]).name)
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple)
    )
    if skipped:
        terminalreporter.section(f"{sum(skipped.values())} skipped")
        terminalreporter.write_line("\n".join(summary(skipped)))
