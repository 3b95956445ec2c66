"""A run of a recipe: `staleness.py` says what is to do, `running.py` does it, `scores.py` scores what was trained.

`checks.py` looks for what would keep a stage from running, `outputs.py` for output that was changed after it was made.
`history.py` writes run.json, with what `machine.py` knows of this machine.
"""
