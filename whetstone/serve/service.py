"""What a server serves: the decoder, the names of its models, and its limits."""

from collections.abc import Callable
from dataclasses import dataclass

from whetstone.run.mistakes import first_few, suggestion
from whetstone.serve.decoder import STOPS, Decoder
from whetstone.serve.requests import BadRequest


@dataclass(frozen=True)
class Service:
    """What the application serves. `models()`: name -> the model's folder, the default first."""

    decoder: Decoder
    models: Callable[[], dict[str, str]]
    queue: int  # choices that may wait besides those that are decoded
    key: str = ""  # "": none is asked for
    local: bool = True  # reached by the names of this machine alone
    runs: tuple[str, ...] = ()
    page: bool = False

    def find(self, name: str) -> tuple[str, str]:
        """(name, folder) of the model that a request names. Raises BadRequest."""
        models = self.models()
        if not models:
            raise BadRequest("no stage of the run has a finished model yet.", "model", "model_not_found", 404)
        chosen = name or next(iter(models))
        if chosen not in models:
            known = f"There are {first_few(list(models), 20)}."
            why = f"there is no model {name[:100]!r}{suggestion(name, models)} {known}"
            raise BadRequest(why, "model", "model_not_found", 404)
        return chosen, models[chosen]

    def admit(self, choices: int) -> None:
        """Raises BadRequest if too many wait, or if the server stops."""
        if self.decoder.stopping:
            raise BadRequest(STOPS, status=503)
        most = self.decoder.max_batch + self.queue
        if choices > most:
            raise BadRequest(f"{choices} choices are more than this server takes at once, {most}.", "n")
        if self.decoder.in_flight + choices > most:
            busy = f"{self.decoder.in_flight} choices are decoded or wait, and the limit is {most}"
            raise BadRequest(f"the server is busy: {busy}. Try again later.", None, "queue_full", 429)
