"""`whetstone evaluate`: the score of a model on problem sets."""

from whetstone.commands.evaluate_options import (
    Batch,
    Benchmarks,
    ColumnNames,
    Device,
    Dtype,
    KeyVariable,
    Launch,
    Limit,
    Output,
    Policy,
    Processes,
    ProtocolName,
    Samples,
    ScoreMaxTokens,
    ScoreTemperature,
    ScoreTopK,
    ScoreTopP,
    Seed,
    Served,
)
from whetstone.commands.options import AnswerFrom, ChatTemplate, ModelName, Weights
from whetstone.commands.prompt_options import After, Before, Examples, System, Think


def evaluate(
    model: ModelName,
    benchmarks: Benchmarks = None,
    protocol: ProtocolName = None,
    samples: Samples = None,
    temperature: ScoreTemperature = None,
    top_p: ScoreTopP = None,
    top_k: ScoreTopK = None,
    max_tokens: ScoreMaxTokens = None,
    limit: Limit = 0,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    batch: Batch = 0,
    processes: Processes = 1,
    launch: Launch = "",
    served: Served = "",
    key_variable: KeyVariable = "OPENAI_API_KEY",
    output: Output = None,
    policy: Policy = None,
    columns: ColumnNames = None,
    answer_from: AnswerFrom = "column",
    system: System = None,
    before: Before = None,
    after: After = None,
    examples: Examples = None,
    thinking: Think = None,
    chat_template: ChatTemplate = None,
    weights: Weights = "stored",
) -> None:
    """Score a model on problem sets: mean of n samples with its 95 % interval, pass@k, majority vote. Published scores on the
    same sets are printed beside, with how their protocols differ.

    MODEL may be the address of an OpenAI-compatible server, as http://127.0.0.1:8000/v1.
    """
    import shlex

    from whetstone.evaluate.any_model import ModelOptions
    from whetstone.evaluation import Sets, score_and_print
    from whetstone.run.prompt_settings import prompt_given

    prompt = prompt_given(system, before, after, examples, thinking)
    how = ModelOptions(
        model, prompt, chat_template, device, "" if dtype == "auto" else dtype, batch, weights, served, key_variable,
        processes, tuple(shlex.split(launch)),
    )  # fmt: skip
    given = {"samples": samples, "temperature": temperature, "top_p": top_p, "top_k": top_k, "max_tokens": max_tokens}
    sets = Sets(benchmarks or (), protocol, given | {"problems": limit or None}, policy, columns or (), answer_from)
    score_and_print(how, sets, seed, output)
