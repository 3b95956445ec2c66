"""The models of an OpenAI-compatible server, by its own list (GET /models)."""

import os
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from whetstone.decode.server_generator import ServerError
from whetstone.decode.server_settings import chat_address
from whetstone.run.mistakes import first_few
from whetstone.run.secrets import from_environment, redacted

PATIENCE = 30.0  # seconds for the list


def only_model(server: str, key_variable: str) -> str:
    """The name of the server's only model. Raises ServerError if there is no list, ValueError if it holds several."""
    name, names = redacted(server), _listed(server, key_variable)
    if len(names) != 1:
        listed = f"{len(names)} models ({first_few(names, 5)})" if names else "no model"
        raise ValueError(f"{name} lists {listed}: say which one is meant, with --served NAME.")
    return names[0]


def _listed(server: str, key_variable: str) -> list[str]:
    import httpx2

    parts = urlsplit(chat_address(from_environment(server)))
    address = urlunsplit(parts._replace(path=parts.path.replace("/chat/completions", "/models")))
    key = os.environ.get(key_variable, "").strip()
    try:
        response = httpx2.get(address, headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=PATIENCE)
        rows: Any = response.json() if response.status_code == 200 else None
        return [str(row["id"]) for row in rows["data"]]
    except (httpx2.HTTPError, ValueError, TypeError, KeyError) as error:
        what = (
            type(error).__name__ if isinstance(error, httpx2.HTTPError) else f"status {response.status_code}, no list"
        )
        raise ServerError(
            f"{redacted(server)} does not list its models ({what}): is it running, and is this its address up to /v1? If it "
            "has no list, name the model with --served NAME."
        ) from error
