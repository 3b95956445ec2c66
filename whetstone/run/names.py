"""Names in a recipe that become names of folders: the run's, a stage's, a problem set's. They are checked here only."""

import re
from typing import Annotated, TypeAlias

from pydantic import AfterValidator

from whetstone.run.control import MARK

LONGEST = 120  # bytes: file systems allow 255, and a name gets a number, a process id and an ending
FITTING = re.compile(r"\w([\w .,+=@()%-]*[\w+=@)%-])?")
# By Windows, and by the files that stand beside the folders
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?|(manifest|started|scores|outputs)\.json", re.IGNORECASE)


def require_name(name: str) -> str:
    """The name, if any file system takes it as the name of one folder. Raises ValueError."""
    if not FITTING.fullmatch(name):
        raise ValueError(
            "it becomes a folder's name, so it begins with a letter or a digit, goes on with letters, digits, spaces and "
            "_ - . , + = @ % ( ), and ends with neither a space nor a full stop. Choose another name"
        )
    if RESERVED.fullmatch(name):
        raise ValueError("this name is reserved, by Windows or for a file of the run. Choose another name")
    if len(name.encode()) > LONGEST:
        raise ValueError(f"it becomes a folder's name and has more than {LONGEST} bytes. Choose a shorter name")
    return name


def fitting_name(text: str) -> str:
    """A name for what is called `text`, such as the file of a problem set: what no folder's name holds becomes `_`.

    >>> fitting_name("my set!"), fitting_name("aime_2024"), fitting_name(".")
    ('my set_', 'aime_2024', '_')
    >>> fitting_name("problems_of_the_second_round_2024") == fitting_name("problems_of_the_second_round_2025")
    False
    """
    name = re.sub(r"[^\w .,+=@()%-]", "_", text).encode()[: LONGEST - 1].decode(errors="ignore")
    return name if FITTING.fullmatch(name) and not RESERVED.fullmatch(name) else f"_{name.strip(' .,-@%')}"


def require_stage_name(name: object) -> None:
    """Raises ValueError for what cannot name a stage: commands and references write it without quotes."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ValueError("it becomes a folder's name, so only letters, digits, `_`, `-` and `.` will do")
    if MARK in name:
        raise ValueError(f'"{MARK}" is in the names of the stages that [controls] adds. Choose another name')
    require_name(name)


# A name, or "" for the default
Name: TypeAlias = Annotated[str, AfterValidator(lambda name: require_name(name) if name else name)]
