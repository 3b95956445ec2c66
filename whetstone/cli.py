"""The command line. What a command needs is imported inside it, so that `--help` answers at once."""

import io
import os
import shlex
import sys
import textwrap
from pathlib import Path
from typing import Annotated, Literal

import typer

from whetstone.prompt_options import After, Before, Examples, System, Think, ThinkAtAll
from whetstone.run.visible import guard_libraries, visible, write_line

INTERRUPTED, TERMINATED = 130, 143  # the shell's codes for Ctrl-C and SIGTERM
USER_ERROR = 2

app = typer.Typer(
    help="Whetstone sharpens a small language model into a maths reasoner.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe, for instance recipes/tiny.toml.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME.KEY=VALUE", help="Change a setting of a stage or shared table. Repeatable."),
]
ModelName = Annotated[
    str,
    typer.Option(
        "--model", "-m",
        help="A Hugging Face folder, a GGUF file, a run (its last trained model), a stage, or OWNER/NAME on the Hub (or "
        "OWNER/NAME@REVISION), which is downloaded.",
    ),
]  # fmt: skip
ChatTemplate = Annotated[
    str | None,
    typer.Option(help="For a base model without one, or instead of its own: chatml, plain, … or a .jinja file."),
]


AnswerFrom = Annotated[
    Literal["column", "boxed", "after_hashes"],
    typer.Option(help="Where the right answer is: its column as it stands, the last box in it, or what follows ####."),
]


Weights = Annotated[
    Literal["stored", "int8"],
    typer.Option(help="int8: sample with weights rounded to 8 bits, for speed on a CPU."),
]


def main() -> None:
    """A user's mistake is one `error:` line and exit status 2; `--debug`, anywhere on the line, shows the traceback."""
    # Idle OpenMP threads that spin take the cores from other processes. Torch reads this once, when it loads
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # one for every small model
    guard_libraries()
    for stream in (sys.stdout, sys.stderr):  # a character that the terminal's encoding lacks costs no result
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        app()
    except BrokenPipeError:  # `whetstone show … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        if debug:
            raise
        write_line(f"error: {error}", sys.stderr)
        sys.exit(USER_ERROR)


def _version(wanted: bool) -> None:
    if wanted:
        from whetstone import __version__

        write_line(f"whetstone {__version__}")
        raise typer.Exit


@app.callback()
def _everywhere(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    pass


@app.command()
def run(
    recipe: RecipeFile,
    first: Annotated[str | None, typer.Option("--from", metavar="STAGE", help="Begin at this stage.")] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="STAGE", help="End after this stage.")] = None,
    only: Annotated[list[str] | None, typer.Option(metavar="STAGE", help="Only this stage. Repeatable.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Redo stale stages. Old work stays until the new is complete.")
    ] = False,
    sets: Sets = None,
) -> None:
    """Run the stages of a recipe in order. Finished stages are skipped, interrupted ones continued.

    Ctrl-C and SIGTERM finish the current training step, write a checkpoint and stop (exit status 130 and 143). A second
    signal stops at once.
    """
    from whetstone.pipeline.running import run_recipe
    from whetstone.recipe import read_recipe
    from whetstone.run.processes import Terminated, terminate_as_interrupt
    from whetstone.run.secrets import redacted
    from whetstone.terminal import print_results

    checked = read_recipe(recipe, sets or ())
    try:
        with terminate_as_interrupt():
            run_recipe(checked, first, last, only or (), force)
    except KeyboardInterrupt as stop:
        command = shlex.join(["whetstone", *redacted(sys.argv[1:])])
        write_line(f"\nstopped; finished work is kept in {checked.folder}. Continue with\n    {command}", sys.stderr)
        raise typer.Exit(TERMINATED if isinstance(stop, Terminated) else INTERRUPTED) from None
    print_results(checked)


@app.command()
def plan(recipe: RecipeFile, sets: Sets = None) -> None:
    """Say what `run` would do: which stages are done, stale (and why) or to do, and what they cost. Runs nothing."""
    from whetstone.learner.cost import bytes_as_text
    from whetstone.pipeline import base
    from whetstone.pipeline.ahead import warnings
    from whetstone.pipeline.checks import check_stages
    from whetstone.pipeline.running import estimate, made_by_others
    from whetstone.pipeline.staleness import plan_recipe
    from whetstone.recipe import read_recipe
    from whetstone.run.progress import clock
    from whetstone.terminal import print_estimates

    checked = read_recipe(recipe, sets or ())
    write_line("\n".join([f"{recipe} -> {checked.folder}", *checked.warnings()]))
    estimates = {}
    planned = plan_recipe(checked)
    if line := base.described(checked):
        write_line(line)
    if note := made_by_others(planned):
        write_line(note)
    for stage, state in planned:
        sources = ", ".join(f"{name} = {source}" for name, source in stage.sources.items())
        of = f"; control of {stage.control.of}" if stage.control else ""
        write_line(f"{stage.folder_name} ({stage.kind}{of}{f'; {sources}' if sources else ''}): {state.status}")
        for reason in state.reasons:
            write_line(f"    {reason}")
        if state.manifest is not None:
            wall, cpu = state.manifest["wall_seconds"], state.manifest["cpu_seconds"]
            write_line(
                f"    took {clock(wall)} ({cpu:.1f} s CPU, {bytes_as_text(state.manifest['peak_memory'])} at the peak)"
            )
        if state.status != "done":
            for warning in warnings(checked, stage):
                _write_indented(f"warning: {warning}")
            estimates[stage.folder_name] = estimate(checked, stage)
            for name, value in estimates[stage.folder_name].lines.items():
                _write_indented(f"{name}: {value}")
    if any(estimate.memory for estimate in estimates.values()):
        print_estimates(checked, estimates)
    check_stages(checked, [stage for stage, state in planned if state.status != "done"])


def _write_indented(text: str) -> None:
    write_line(textwrap.fill(text, 110, initial_indent=" " * 4, subsequent_indent=" " * 8))


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, for an editor that completes and checks TOML (see docs/recipes.md)."""
    import json

    from whetstone.schema import recipe_schema

    write_line(json.dumps(recipe_schema(), indent=2, ensure_ascii=False))


@app.command()
def show(
    path: Annotated[
        Path,
        typer.Argument(metavar="FILE|FOLDER", help="A table (docs/your_data.md), or the folder of a stage or run."),
    ],
    grep: Annotated[str, typer.Option(help="Only rows with a field that contains this text.")] = "",
    where: Annotated[
        list[str] | None, typer.Option(metavar="FIELD=VALUE", help="Only rows whose field has this value. Repeatable.")
    ] = None,
    count: Annotated[int, typer.Option("--n", min=0, help="Rows to show, at most; 0: all.")] = 3,
    index: Annotated[int, typer.Option(min=0, help="Begin at this row.")] = 0,
) -> None:
    """Show the rows of a table, or list the tables in the folder of a stage or run."""
    from whetstone.show import chosen, render, rows_of, tables_below

    if path.is_dir() and not any(path.glob("part-*.parquet")):
        tables = tables_below(path)
        for table, rows, columns in tables:
            line = f"{table}  {rows:,} rows{': ' if columns else ''}{', '.join(columns)}"
            write_line(visible(line, one_line=True))
        if tables:
            return
    shown = 0
    for number, row in chosen(rows_of(path), grep, where or (), index, count):
        sys.stdout.write(render(number, row, colour=sys.stdout.isatty()) + "\n")
        shown += 1
    if not shown:
        write_line("no row matches", sys.stderr)


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Predictions and answers (docs/your_data.md).")],
    prediction_field: Annotated[str, typer.Option(help="The field with a completion or a bare answer.")] = "prediction",
    gold_field: Annotated[str, typer.Option(help="The field with the right answer.")] = "gold",
    answer_from: AnswerFrom = "column",
    policy: Annotated[str, typer.Option(help="How answers are read and compared.")] = "math",
    output: Annotated[Path | None, typer.Option(help="Write rows here instead of to stdout.")] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="A model, as in `generate`: a second opinion on answers that no rule can read."
        ),
    ] = None,
    opinions: Annotated[Path | None, typer.Option(help="Keep the judge's opinions here, JSONL.")] = None,
) -> None:
    """Add `correct` and `reason` to every row, in order. Exit status 0 even when answers are wrong."""
    from whetstone.verify.table import verify_file

    second = {}
    if judge is not None:
        from whetstone.decode.engine import load_engine
        from whetstone.judge import JudgedVerifier

        engine = load_engine(judge)
        second = {"second": lambda rules: JudgedVerifier(rules, engine, opinions)}
    elif opinions is not None:
        raise ValueError(f"--opinions {opinions}: only a judge gives opinions. Name one with --judge MODEL.")
    summary = verify_file(path, prediction_field, gold_field, policy, output, answer_from=answer_from, **second)
    reasons = ", ".join(f"{name} {count:,}" for name, count in summary.pop("reasons").items())
    write_line("  ".join(f"{name} {count:,}" for name, count in summary.items()) + f"  ({reasons})", sys.stderr)


@app.command()
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


Temperature = Annotated[float, typer.Option(min=0.0, help="0 is greedy.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Longest answer.")]
TopP = Annotated[float, typer.Option(help="Sample from the likeliest tokens that hold this share of the mass.")]
TopK = Annotated[int, typer.Option(min=0, help="Sample from this many of the likeliest tokens; 0: from all.")]
MinP = Annotated[float, typer.Option(help="Sample from tokens at least this many times as likely as the likeliest.")]
BeamCount = Annotated[int, typer.Option("--beams", min=1, help="Width of beam search; 1: sampling.")]
Thinking = Annotated[str, typer.Option(help="show the model's thinking, fold it into one line, or hide it.")]
ThinkMost = Annotated[int | None, typer.Option(help="End the thinking after this many tokens, and answer.")]
ThinkLeast = Annotated[int, typer.Option(min=0, help='Continue the thinking ("Wait") until this many tokens.')]


@app.command()
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


@app.command()
def chat(
    model: ModelName,
    system: System = None,
    before: Before = None,
    after: After = None,
    examples: Examples = None,
    think: ThinkAtAll = None,
    temperature: Temperature = 0.6,
    max_tokens: MaxTokens = 512,
    top_p: TopP = 1.0,
    top_k: TopK = 0,
    min_p: MinP = 0.0,
    beams: BeamCount = 1,
    thinking: Thinking = "fold",
    think_most: ThinkMost = None,
    think_least: ThinkLeast = 0,
    seed: int = 0,
    chat_template: ChatTemplate = None,
    weights: Weights = "stored",
) -> None:
    """Talk with a model. Ctrl-C ends an answer, an empty line ends the chat. Lines can be piped in."""
    from whetstone.ask import Asking
    from whetstone.ask import chat as talk
    from whetstone.prompting import BARE, say_prompt
    from whetstone.records import Sampling
    from whetstone.run.prompt_settings import prompt_given

    sampling = Sampling(temperature, max_tokens, top_k, top_p, seed, min_p)
    asked = say_prompt(prompt_given(system, before, after, examples, think), model, unknown=BARE)
    asking = Asking(sampling, beams, 1.0, think_most, think_least, thinking, asked)

    from whetstone.decode.engine import load_engine
    from whetstone.model_template import open_model

    talk(load_engine(open_model(model, chat_template), thinking=asked.thinking, int8=weights == "int8"), asking)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, for instance runs/tiny.")],
    beside: Annotated[Path | None, typer.Option(metavar="RUN", help="Another run, on the same page.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write the page here instead of into the run's folder.")] = None,
) -> None:
    """Write the report of a run again, from the files of its stages; or of two runs, on one page."""
    from whetstone.pipeline.staleness import refuse_links
    from whetstone.report.report import write_report

    for run_folder in filter(None, (folder, beside)):
        if not run_folder.is_dir():
            raise FileNotFoundError(f"There is no run folder {run_folder}: make one with whetstone run RECIPE.")
        refuse_links(run_folder)
    write_line(str(write_report(folder, beside, output)))


if __name__ == "__main__":
    main()
