"""A run of a recipe: `staleness.py` says what is to do, `running.py` does it, `scores.py` scores what was trained.

`history.py` writes run.json, with what `machine.py` knows of this machine.
"""
