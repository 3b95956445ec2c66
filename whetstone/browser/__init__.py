"""What pages in a browser are made of, for the report and the server: one offline file each, without a request.

`uPlot.iife.min.js` and `uPlot.min.css` are uPlot 1.6.32 (charts), `temml.min.js` is Temml 0.13.5 (TeX to MathML); their
licences (MIT) lie beside them. The rest is ours.
"""

import base64
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

from whetstone.run.visible import visible

HERE = Path(__file__).parent
LIBRARIES = ("uPlot.iife.min.js", "temml.min.js", "text.js")


def asset(name: str) -> str:
    """The text of a file of this folder."""
    return (HERE / name).read_text(encoding="utf-8")


def packed(value: Any) -> str:
    """JSON as gzip in base64, which no text in it can break out of. `unpacked(element)` in text.js is the inverse."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(errors="replace"), 6, mtime=0)).decode()


def shown(value: Any) -> Any:
    """A JSON value without characters that steer what is displayed."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible(key): shown(item) for key, item in value.items()}
    return [shown(item) for item in value] if isinstance(value, list | tuple) else value


def policy(scripts: list[str]) -> str:
    """A Content-Security-Policy under which a page runs these inline scripts, no other, and loads nothing."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts
    )
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src {hashes}; base-uri 'none'; form-action 'none'"
