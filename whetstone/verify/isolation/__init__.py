"""Isolation of untrusted programs: `host.py` is the sandbox process, `inside.py` runs in its children, `kernel.py` has
the Linux calls of both."""
