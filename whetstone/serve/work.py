"""A request -> what its model decodes. All of it runs in the decoder's thread, as it needs the loaded model."""

from collections.abc import Callable
from dataclasses import replace

from whetstone.chat import Chat
from whetstone.decode.beam_search import Beams
from whetstone.decode.budget_forcing import BudgetForcing
from whetstone.decode.decoding import likeliest
from whetstone.decode.sampling import draws
from whetstone.decode.sequence import Sequence
from whetstone.prompting import Prompting
from whetstone.records import Message, Prompt, Sampling
from whetstone.serve.decoder import Echo, Lane, Notes, Search, Work
from whetstone.serve.requests import BadRequest, ChatRequest, Request, TextRequest
from whetstone.template import TemplateError, no_switch

DEFAULT_TOKENS = 16  # of a completion without max_tokens, OpenAI's number


def chat_work(request: ChatRequest, name: str, seed: int, trained: Callable[[], Prompting]) -> Callable[[Lane], Work]:
    """`trained` reads the prompt that the model was trained with."""

    def prepare(lane: Lane) -> Work:
        turns = request.turns()
        if request.as_trained:
            turns = as_trained(turns, trained())
        chat = _chat(request, lane)
        ids = chat.prompt_ids(turns)
        most = request.max_completion_tokens or request.max_tokens
        sampling = _sampling(request.model_copy(update={"max_tokens": most}), lane, ids)
        if request.beams > 1:
            beams = Beams(request.beams, sampling.max_tokens, best=request.n)
            return Search(Prompt(name, 0, turns), beams, chat)
        control = None
        if request.think_most is not None or request.think_least:
            control = BudgetForcing(chat, request.think_most, request.think_least)
        prompts = [Prompt(name, index, turns) for index in range(request.n)]
        return [_sequence(request, prompt, ids, sampling, seed, control, chat) for prompt in prompts]

    return prepare


def text_work(request: TextRequest, name: str, seed: int, echoes: list[Echo]) -> Callable[[Lane], Work]:
    """The choices of each prompt follow one another. `echoes` is filled if the prompts are to be repeated."""

    def prepare(lane: Lane) -> Work:
        work = []
        for number, given in enumerate(request.prompts()):
            ids = lane.engine.chat.tokenizer(given)["input_ids"] if isinstance(given, str) else given
            if not all(0 <= i < lane.engine.chat.size for i in ids):
                raise BadRequest(f"prompt holds an id outside 0 to {lane.engine.chat.size - 1}, the model's.", "prompt")
            if not ids:
                raise BadRequest("prompt is empty: it has at least one token.", "prompt")
            sampling = _sampling(request, lane, ids)
            if request.echo:
                noted = prompt_notes(lane, ids, request.logprobs) if request.logprobs is not None else []
                echoes.append(Echo(ids, noted))
            if request.max_tokens is None:
                sampling = replace(sampling, max_tokens=min(DEFAULT_TOKENS, sampling.max_tokens))
            for index in range(number * request.n, (number + 1) * request.n):
                work.append(_sequence(request, Prompt(name, index, ()), list(ids), sampling, seed, None))
        return work

    return prepare


def prompt_notes(lane: Lane, ids: list[int], alternatives: int) -> Notes:
    """Like those of sampled tokens, for the tokens of a prompt but the first, which follows nothing."""
    notes: Notes = []
    for block in lane.engine.runner.prompt_logits(ids):
        for row, token in zip(block, ids[len(notes) + 1 :], strict=False):
            notes.append(likeliest(row, token, alternatives))
    return notes


def as_trained(turns: tuple[Message, ...], prompting: Prompting) -> tuple[Message, ...]:
    """What the client says as the model was asked in training: before the conversation, and around each turn of the user."""
    said = [turn for turn in turns if turn.role == "system"]
    asked = [turn for turn in turns if turn.role != "system"]
    start = prompting.messages("", "\n\n".join(turn.content for turn in said))[:-1]
    around = [
        replace(turn, content=prompting.messages(turn.content)[-1].content) if turn.role == "user" else turn
        for turn in asked
    ]
    return (*start, *around)


def _chat(request: ChatRequest, lane: Lane) -> Chat:
    """Raises BadRequest if the template has no switch for thinking."""
    thinking = request.thinking
    try:
        return lane.chat(thinking)
    except TemplateError as error:
        why = no_switch("this model", bool(thinking)).partition(": ")[2]
        raise BadRequest(f"chat_template_kwargs: {why}", "chat_template_kwargs") from error


def own_sampling(lane: Lane) -> Sampling:
    """What the model's generation_config.json says, and OpenAI's defaults for the rest."""
    config = lane.engine.model.generation_config
    greedy = config.do_sample is False and config.temperature is None
    temperature = 0.0 if greedy else config.temperature
    return Sampling(
        temperature=1.0 if temperature is None else float(temperature),
        top_p=float(config.top_p or 1.0),
        top_k=int(config.top_k or 0),
    )


def _sampling(request: Request, lane: Lane, ids: list[int]) -> Sampling:
    """Raises BadRequest if the model, or the cache, has no room for the prompt and what is wanted."""
    context = lane.engine.model.config.max_position_embeddings
    most = min(context, lane.decoding.room)
    limit = (
        f"model's context of {context}" if most == context else f"cache of {most} tokens (start it with more: --cache)"
    )
    room = most - len(ids)
    if room < (request.max_tokens or 1):
        wanted = f" and max_tokens = {request.max_tokens}" if request.max_tokens else ""
        why = f"a prompt of {len(ids)} tokens{wanted} exceed the {limit}: shorten the prompt, or lower max_tokens."
        raise BadRequest(why, "messages", "context_length_exceeded")
    size = lane.engine.chat.size
    for name, named in (("stop_token_ids", request.stop_token_ids), ("logit_bias", dict(request.biases))):
        if unknown := [i for i in named if not 0 <= i < size]:
            raise BadRequest(f"{name} names {unknown[0]}, which is no id of the model: they are 0 to {size - 1}.", name)
    return request.sampling(own_sampling(lane), room)


def _sequence(
    request: Request,
    prompt: Prompt,
    ids: list[int],
    sampling: Sampling,
    seed: int,
    control: BudgetForcing | None,
    chat: Chat | None = None,
) -> Sequence:
    stream = draws(seed, "", prompt.index)
    steered = control(prompt) if control else None
    return Sequence(prompt, ids, sampling, stream, steered, alternatives=request.alternatives, chat=chat)
