"""`whetstone evaluate`: the score of a model on problem sets."""

from pathlib import Path
from typing import Annotated

import typer

from whetstone.commands.options import AnswerFrom, ChatTemplate, ModelName, Weights
from whetstone.commands.prompt_options import After, Before, Examples, System, Think


def evaluate(
    model: ModelName,
    benchmark: Annotated[str, typer.Option("--benchmark", "-b", help="A file of problems or a known name.")],
    samples: Annotated[int, typer.Option(min=1, help="Answers per problem.")] = 8,
    temperature: Annotated[float, typer.Option(min=0.0)] = 0.6,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer; longer ones count as truncated.")] = 512,
    output: Annotated[Path | None, typer.Option(help="Folder for scores and the generations behind them.")] = None,
    policy: Annotated[str | None, typer.Option(help="How answers are compared; default: as the problems say.")] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="OURS=THEIRS", help="A column by another name: question=prompt. Repeatable."),
    ] = None,
    answer_from: AnswerFrom = "column",
    system: System = None,
    before: Before = None,
    after: After = None,
    examples: Examples = None,
    thinking: Think = None,
    chat_template: ChatTemplate = None,
    weights: Weights = "stored",
) -> None:
    """Score a model on a problem set: mean of n samples with its 95 % interval, pass@k, majority vote."""
    from whetstone.evaluate.evaluate import evaluate_model
    from whetstone.problems.columns import read_mapping
    from whetstone.run.prompt_settings import prompt_given
    from whetstone.terminal import print_scores

    mapping = read_mapping(columns or ())
    prompt = prompt_given(system, before, after, examples, thinking)
    scores = evaluate_model(
        model, benchmark, samples, temperature, max_tokens, output, policy, mapping,
        answer_from=answer_from, prompt=prompt, chat_template=chat_template, weights=weights,
    )  # fmt: skip
    print_scores(scores)
