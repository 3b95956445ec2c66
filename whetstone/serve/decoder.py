"""One thread that decodes the requests of all clients, in as many models as fit.

Requests to a model join its decoding between two steps (continuous batching); models take turns, a step each. Each job is told
what happens, in the decoder's thread: `Written` text, a `Finished` choice, at last an exception or None.
"""

import queue
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Generator
from copy import copy, deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from whetstone.chat import Chat
from whetstone.decode.beam_search import Beams, Scored, beam_steps
from whetstone.decode.decoding import Decoding, Piece
from whetstone.decode.engine import Engine
from whetstone.decode.sequence import Sequence as Decoded
from whetstone.records import Completion, Prompt
from whetstone.run.progress import say
from whetstone.template import set_thinking

STOPS = "the server stops"
Notes = list[list[tuple[int, float]]]  # `Sequence.likeliest`


class Written(NamedTuple):
    """New text of a choice, and the notes of the tokens since the last such event, if they are wanted."""

    index: int
    text: str
    notes: Notes


class Finished(NamedTuple):
    """A choice that is done, with the notes of all its tokens."""

    index: int
    completion: Completion
    notes: Notes


class Echo(NamedTuple):
    """The ids of a prompt that is repeated, and the notes of all but the first."""

    ids: list[int]
    notes: Notes


class Search(NamedTuple):
    """A beam search in the place of sequences."""

    prompt: Prompt
    settings: Beams
    chat: Chat


Work = list[Decoded] | Search


@dataclass(eq=False)
class Job:
    """What a request asks of a model. `prepare` makes the sequences; what it raises is told."""

    name: str  # its own, which the sequences' prompts have as their `problem_id`
    model: str  # as `load` takes it
    choices: int
    prepare: Callable[["Lane"], Work]
    tell: Callable[[Any], None]
    sequences: dict[int, Decoded] = field(default_factory=dict)  # index -> those that are being decoded
    noted: dict[int, int] = field(default_factory=dict)  # index -> tokens whose notes are told
    search: Generator[list[Scored] | None, None, None] | None = None
    count_out: Callable[[], None] = lambda: None  # set by `Decoder.submit`

    def end(self, error: Exception | None = None) -> None:
        """The last that is told. The job is counted out first, so that whoever hears of its end finds its place free."""
        self.count_out()
        self.tell(error)


class Lane:
    """A loaded model with what is decoded in it."""

    def __init__(self, engine: Engine, max_batch: int):
        self.engine = engine
        self._kept = engine.runner.weights_made()
        self._kept.__enter__()
        self.decoding: Decoding = engine.open_decoding(max_batch)
        self.jobs: dict[str, Job] = {}
        self._chats: dict[bool | None, Chat] = {None: engine.chat}

    def chat(self, thinking: bool | None) -> Chat:
        """The model's, with its template's switch for thinking set. Raises TemplateError if it has none."""
        if thinking not in self._chats:
            own = self.engine.chat
            tokenizer = deepcopy(own.tokenizer)
            set_thinking(tokenizer, thinking)
            self._chats[thinking] = Chat(tokenizer, own.stops)
        return self._chats[thinking]

    def add(self, job: Job) -> None:
        work = job.prepare(self)
        if isinstance(work, Search):
            engine = copy(self.engine)
            engine.chat = work.chat
            job.search = beam_steps(engine, [work.prompt], work.settings)
        else:
            job.sequences = {sequence.prompt.index: sequence for sequence in work}
            for sequence in work:
                self.decoding.add(sequence)
        self.jobs[job.name] = job

    def remove(self, job: Job) -> None:
        self.jobs.pop(job.name, None)
        if job.search is not None:
            job.search.close()
        for index in job.sequences:
            self.decoding.cancel(job.name, index)

    def step(self) -> None:
        if self.decoding.busy:
            completions = self.decoding.step()
            for piece in self.decoding.pieces:
                self._tell_piece(piece)
            for completion in completions:
                self._finish(self.jobs[completion.problem_id], completion)
        for job in [job for job in self.jobs.values() if job.search is not None]:
            self._search(job)

    def _tell_piece(self, piece: Piece) -> None:
        job = self.jobs[piece.problem_id]
        notes = job.sequences[piece.index].likeliest
        new = notes[job.noted.get(piece.index, 0) :]
        job.noted[piece.index] = len(notes)
        job.tell(Written(piece.index, piece.text, new))

    def _finish(self, job: Job, completion: Completion) -> None:
        sequence = job.sequences.pop(completion.index)
        job.tell(Finished(completion.index, completion, sequence.likeliest))
        if not job.sequences:
            del self.jobs[job.name]
            job.end()

    def _search(self, job: Job) -> None:
        answers = next(job.search)
        if answers is not None:
            del self.jobs[job.name]
            for scored in answers:
                job.tell(Finished(scored.completion.index, scored.completion, []))
            job.end()

    def close(self) -> None:
        self.decoding.close()
        self._kept.__exit__(None, None, None)


class Decoder:
    """The thread. `load` opens a model; at most `most_models` are kept. The one that was not asked for longest goes."""

    def __init__(self, load: Callable[[str], Engine], max_batch: int, most_models: int):
        self.load, self.max_batch, self.most_models = load, max_batch, most_models
        self.stopping = False
        self.in_flight = 0  # choices that are submitted and not done
        self.lanes: OrderedDict[str, Lane] = OrderedDict()
        self._orders: queue.SimpleQueue[tuple[str, Job | None]] = queue.SimpleQueue()
        self._postponed: deque[Job] = deque()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="decoder", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def shut(self) -> None:
        """What is being decoded ends with an error, and nothing more is taken. May be called by a signal's handler."""
        self.stopping = True
        self._orders.put(("stop", None))

    def stop(self) -> None:
        """`shut`, and wait for the thread."""
        self.shut()
        self._thread.join()

    def submit(self, job: Job) -> None:
        self._count(job.choices)
        job.count_out = partial(self._count, -job.choices)
        self._orders.put(("add", job))
        if self.stopping and not self._thread.is_alive():
            self._refuse_rest()

    def cancel(self, job: Job) -> None:
        self._orders.put(("cancel", job))

    @property
    def busy(self) -> bool:
        return any(lane.jobs for lane in self.lanes.values())

    def _work(self) -> None:
        while self._obey(wait=not self.busy and not self._postponed):
            for _ in range(len(self._postponed)):
                self._add(self._postponed.popleft())
            for model, lane in list(self.lanes.items()):
                if lane.jobs:
                    self._step(model, lane)
        for lane in self.lanes.values():
            for job in list(lane.jobs.values()):
                job.end(ConnectionError(STOPS))
            lane.close()
        self._refuse_rest()

    def _refuse_rest(self) -> None:
        """Of the jobs that came too late."""
        while True:
            try:
                order, job = self._orders.get(block=False)
            except queue.Empty:
                return
            if order == "add" and job is not None:
                job.end(ConnectionError(STOPS))

    def _obey(self, wait: bool) -> bool:
        """All orders that are there; False for the one to stop."""
        while True:
            try:
                order, job = self._orders.get(block=wait)
            except queue.Empty:
                return True
            if order == "stop" or job is None:
                return False
            self._add(job) if order == "add" else self._drop(job)
            wait = False

    def _add(self, job: Job) -> None:
        try:
            lane = self._lane(job.model)
            if lane is None:
                self._postponed.append(job)
            else:
                lane.add(job)
        except Exception as error:  # of this request alone: a bad prompt, a model that cannot be read, no memory for it
            job.end(error)

    def _lane(self, model: str) -> Lane | None:
        """The model's, loaded if need be; None while all others are busy."""
        if model not in self.lanes:
            idle = [name for name, lane in self.lanes.items() if not lane.jobs]
            if len(self.lanes) >= self.most_models:
                if not idle:
                    return None
                self.lanes.pop(idle[0]).close()
            say(f"loading {model}")
            self.lanes[model] = Lane(self.load(model), self.max_batch)
        self.lanes.move_to_end(model)
        return self.lanes[model]

    def _step(self, model: str, lane: Lane) -> None:
        try:
            lane.step()
        except Exception as error:  # the model itself fails (no memory, a device that is lost): its lane is made anew
            say(f"error: {model}: {type(error).__name__}: {error}; its requests end, and it is loaded again")
            del self.lanes[model]
            for job in lane.jobs.values():
                job.end(error)
            lane.close()

    def _drop(self, job: Job) -> None:
        if job in self._postponed:
            self._postponed.remove(job)
            job.count_out()
        for lane in self.lanes.values():
            if lane.jobs.get(job.name) is job:
                lane.remove(job)
                job.count_out()

    def _count(self, choices: int) -> None:
        with self._lock:
            self.in_flight += choices
