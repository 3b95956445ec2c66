"""`whetstone generate`: answers to questions."""

import sys
from typing import Annotated

import typer

from whetstone.commands.exit_status import INTERRUPTED
from whetstone.commands.options import ChatTemplate, MaxTokens, MinP, ModelName, Temperature, TopK, TopP, Weights
from whetstone.commands.prompt_options import After, Before, Examples, System, ThinkAtAll
from whetstone.commands.thinking_options import BeamCount, Thinking, ThinkLeast, ThinkMost
from whetstone.run.visible import write_line


def generate(
    model: ModelName,
    questions: Annotated[
        list[str] | None, typer.Argument(metavar="QUESTION…", help="Without any, one per line of stdin.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Answers per question.")] = 1,
    temperature: Temperature = 0.6,
    max_tokens: MaxTokens = 512,
    top_p: TopP = 1.0,
    top_k: TopK = 0,
    min_p: MinP = 0.0,
    beams: BeamCount = 1,
    length_penalty: Annotated[float, typer.Option(help="For beam search; above 0 favours long answers.")] = 1.0,
    thinking: Thinking = "show",
    think_most: ThinkMost = None,
    think_least: ThinkLeast = 0,
    system: System = None,
    before: Before = None,
    after: After = None,
    examples: Examples = None,
    think: ThinkAtAll = None,
    stop: Annotated[list[str] | None, typer.Option(help="End an answer before this text. Repeatable.")] = None,
    seed: int = 0,
    chat_template: ChatTemplate = None,
    weights: Weights = "stored",
) -> None:
    """Ask a model, and see it think."""
    from whetstone.ask import Asking
    from whetstone.ask import generate as answer_all
    from whetstone.prompting import BARE, say_prompt
    from whetstone.records import Sampling
    from whetstone.run.prompt_settings import prompt_given

    prompts = questions or [line.strip() for line in sys.stdin if line.strip()]
    if not prompts or not all(question.strip() for question in prompts):
        raise ValueError('There is no question. Write one: whetstone generate --model M "What is 12+30-7?"')
    sampling = Sampling(temperature, max_tokens, top_k, top_p, seed, min_p, stop=tuple(stop or ()))
    asked = say_prompt(prompt_given(system, before, after, examples, think), model, unknown=BARE)
    asking = Asking(sampling, beams, length_penalty, think_most, think_least, thinking, asked)

    from whetstone.decode.engine import load_engine
    from whetstone.model_template import open_model

    try:
        engine = load_engine(open_model(model, chat_template), thinking=asked.thinking, int8=weights == "int8")
        answer_all(engine, prompts, samples, asking)
    except KeyboardInterrupt:
        write_line(stream=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
