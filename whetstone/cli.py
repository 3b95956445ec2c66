"""The command line. What a command needs is imported inside it, so that `--help` answers at once."""

import os
import shlex
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from whetstone.pipeline.scores import StageResult
    from whetstone.recipe import Recipe
    from whetstone.records import Score
    from whetstone.run.room import Estimate

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
    str, typer.Option("--model", "-m", help="A Hugging Face folder or hub name, or a run (its last trained model).")
]


def main() -> None:
    """Mistakes of the user's are one `error:` line and exit status 2; `--debug`, anywhere, shows where they arose."""
    # Idle OpenMP threads that spin starve whoever shares the cores; read once, when torch loads
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # a bar for every model of a few megabytes; we have ours
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
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USER_ERROR)


def _version(wanted: bool) -> None:
    if wanted:
        from whetstone import __version__

        print(f"whetstone {__version__}")
        raise typer.Exit


@app.callback()
def _everywhere(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
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
    force: Annotated[bool, typer.Option("--force", help="Redo stale stages; their old work is thrown away.")] = False,
    sets: Sets = None,
) -> None:
    """Do every stage of a recipe in order; finished stages are skipped, interrupted ones continued.

    Ctrl-C and SIGTERM end the training step under way, write a checkpoint and stop (exit status 130 and 143); again: at once.
    """
    from whetstone.pipeline.running import run_recipe
    from whetstone.recipe import read_recipe
    from whetstone.run.processes import Terminated, terminate_as_interrupt

    checked = read_recipe(recipe, sets or ())
    try:
        with terminate_as_interrupt():
            results = run_recipe(checked, first, last, only or (), force)
    except KeyboardInterrupt as stop:
        command = shlex.join(["whetstone", *sys.argv[1:]])
        print(f"\nstopped; what is done is kept in {checked.folder}. Continue with\n    {command}", file=sys.stderr)
        raise typer.Exit(TERMINATED if isinstance(stop, Terminated) else INTERRUPTED) from None
    _print_results(checked, results)


@app.command()
def plan(recipe: RecipeFile, sets: Sets = None) -> None:
    """Say what `run` would do: which stages are done, stale (and why) or to do, and what they cost. Runs nothing."""
    from whetstone.pipeline.running import estimate
    from whetstone.pipeline.staleness import plan_recipe
    from whetstone.recipe import read_recipe
    from whetstone.run.progress import clock

    checked = read_recipe(recipe, sets or ())
    print(f"{recipe} -> {checked.folder}")
    waiting = {}
    for stage, state in plan_recipe(checked):
        reads = ", ".join(f"{name} = {source}" for name, source in stage.sources.items())
        print(f"{stage.folder_name} ({stage.kind}{f'; {reads}' if reads else ''}): {state.status}")
        for reason in state.reasons:
            print(f"    {reason}")
        if state.manifest is not None:
            wall, cpu = state.manifest["wall_seconds"], state.manifest["cpu_seconds"]
            print(f"    took {clock(wall)} ({cpu:.1f} s CPU, {_gigabytes(state.manifest['peak_memory'])} at the peak)")
        if state.status != "done":
            waiting[stage.folder_name] = estimate(checked, stage)
            for name, value in waiting[stage.folder_name].lines.items():
                print(textwrap.fill(f"{name}: {value}", 110, initial_indent=" " * 4, subsequent_indent=" " * 8))
    if any(told.memory for told in waiting.values()):
        _print_estimates(checked, waiting)


@app.command()
def show(
    path: Annotated[Path, typer.Argument(metavar="FILE|FOLDER", help="Parquet folder or file, JSONL, CSV; a stage.")],
    grep: Annotated[str, typer.Option(help="Only rows in which some field holds this text.")] = "",
    where: Annotated[list[str] | None, typer.Option(metavar="FIELD=VALUE", help="Only such rows. Repeatable.")] = None,
    count: Annotated[int, typer.Option("--n", min=0, help="At most so many rows; 0: all.")] = 3,
    index: Annotated[int, typer.Option(min=0, help="Begin at this row.")] = 0,
) -> None:
    """Leaf through records; of a stage's or a run's folder, list the tables."""
    from whetstone.show import chosen, render, rows_of, tables_below

    if path.is_dir() and not any(path.glob("part-*.parquet")):
        tables = tables_below(path)
        if not tables:
            raise FileNotFoundError(f"{path} holds no tables (part-*.parquet): no stage has written one there yet.")
        for table, rows, columns in tables:
            print(f"{table}  {rows:,} rows{': ' if columns else ''}{', '.join(columns)}")
        return
    shown = 0
    for number, row in chosen(rows_of(path), grep, where or (), index, count):
        print(render(number, row, colour=sys.stdout.isatty()))
        shown += 1
    if not shown:
        print("no such row", file=sys.stderr)


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="JSONL, CSV or Parquet: predictions and answers.")],
    prediction_field: Annotated[str, typer.Option(help="The field with a completion or a bare answer.")] = "prediction",
    gold_field: Annotated[str, typer.Option(help="The field with the right answer.")] = "gold",
    policy: Annotated[str, typer.Option(help="How answers are read and compared.")] = "math",
    output: Annotated[Path | None, typer.Option(help="Write rows here instead of to stdout.")] = None,
    judge: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="A model that gives a second opinion on answers that no rule can read."),
    ] = None,
    opinions: Annotated[Path | None, typer.Option(help="Keep the judge's opinions here, JSONL.")] = None,
) -> None:
    """Add `correct` and `reason` to every row, in order. Exit status 0 even when answers are wrong."""
    from whetstone.verify.table import verify_file

    if judge is None:
        if opinions is not None:
            raise ValueError(f"--opinions {opinions}: there are none without a judge. Name one with --judge MODEL.")
        summary = verify_file(path, prediction_field, gold_field, policy, output)
    else:
        from whetstone.answer import JudgedVerifier
        from whetstone.decode.engine import load_engine

        engine = load_engine(judge)
        summary = verify_file(
            path,
            prediction_field,
            gold_field,
            policy,
            output,
            second=lambda rules: JudgedVerifier(rules, engine, opinions),
        )
    reasons = ", ".join(f"{name} {count:,}" for name, count in summary.pop("reasons").items())
    print("  ".join(f"{name} {count:,}" for name, count in summary.items()) + f"  ({reasons})", file=sys.stderr)


@app.command()
def evaluate(
    model: ModelName,
    benchmark: Annotated[str, typer.Option("--benchmark", "-b", help="A file of problems or a known name.")],
    samples: Annotated[int, typer.Option(min=1, help="Answers a problem.")] = 8,
    temperature: Annotated[float, typer.Option(min=0.0)] = 0.6,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer; longer ones count as truncated.")] = 512,
    output: Annotated[Path | None, typer.Option(help="Folder for scores and the generations behind them.")] = None,
    policy: Annotated[str | None, typer.Option(help="How answers are compared; default: as the problems say.")] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="OURS=THEIRS", help="Such as question=prompt. Repeatable."),
    ] = None,
) -> None:
    """Score a model on a problem set: mean of n samples with its 95 % interval, pass@k, majority vote."""
    from whetstone.evaluate.evaluate import evaluate_model

    mapping = {}
    for pair in columns or ():
        ours, equals, theirs = pair.partition("=")
        if not equals:
            raise ValueError(f"--column {pair}: write OURS=THEIRS, for instance --column question=prompt.")
        mapping[ours.strip()] = theirs.strip()
    _print_scores(evaluate_model(model, benchmark, samples, temperature, max_tokens, output, policy, mapping or None))


Temperature = Annotated[float, typer.Option(min=0.0, help="0 is greedy.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Longest answer.")]
TopP = Annotated[float, typer.Option(help="Only the likeliest that hold this share of the mass.")]
TopK = Annotated[int, typer.Option(min=0, help="Only so many of the likeliest; 0: all.")]
MinP = Annotated[float, typer.Option(help="Only those at least so many times as likely as the likeliest.")]
BeamCount = Annotated[int, typer.Option("--beams", min=1, help="Above 1: beam search of this width.")]
Thinking = Annotated[str, typer.Option(help="show, fold (a line that counts) or hide what the model thinks.")]
ThinkMost = Annotated[int | None, typer.Option(help="End the thinking after so many tokens, and let it answer.")]
ThinkLeast = Annotated[int, typer.Option(min=0, help='Have it go on thinking ("Wait") before so many tokens.')]


@app.command()
def generate(
    model: ModelName,
    questions: Annotated[
        list[str] | None, typer.Argument(metavar="QUESTION…", help="None: a line each from stdin.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Answers a question.")] = 1,
    temperature: Temperature = 0.6,
    max_tokens: MaxTokens = 512,
    top_p: TopP = 1.0,
    top_k: TopK = 0,
    min_p: MinP = 0.0,
    beams: BeamCount = 1,
    length_penalty: Annotated[float, typer.Option(help="Of beam search: above 0 favours long answers.")] = 1.0,
    thinking: Thinking = "show",
    think_most: ThinkMost = None,
    think_least: ThinkLeast = 0,
    stop: Annotated[list[str] | None, typer.Option(help="End an answer before this text. Repeatable.")] = None,
    seed: int = 0,
) -> None:
    """Ask a model and see it think."""
    from whetstone.ask import Asking, model_folder
    from whetstone.ask import generate as answer_all
    from whetstone.records import Sampling

    asked = questions or [line.strip() for line in sys.stdin if line.strip()]
    if not asked:
        raise ValueError('There is no question: write one, whetstone generate --model M "What is 12 + 30?"')
    sampling = Sampling(temperature, max_tokens, top_k, top_p, seed, min_p, stop=tuple(stop or ()))
    asking = Asking(sampling, beams, length_penalty, think_most, think_least, thinking)

    from whetstone.decode.engine import load_engine

    try:
        answer_all(load_engine(model_folder(model)), asked, samples, asking)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


@app.command()
def chat(
    model: ModelName,
    system: Annotated[str, typer.Option(help="A system message.")] = "",
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
) -> None:
    """Talk with a model. Ctrl-C ends an answer, an empty line the chat; lines can be piped in."""
    from whetstone.ask import Asking, model_folder
    from whetstone.ask import chat as talk
    from whetstone.records import Sampling

    sampling = Sampling(temperature, max_tokens, top_k, top_p, seed, min_p)
    asking = Asking(sampling, beams, 1.0, think_most, think_least, thinking)

    from whetstone.decode.engine import load_engine

    talk(load_engine(model_folder(model)), asking, system)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, for instance runs/tiny.")],
) -> None:
    """Write a run's report again from what its stages left behind."""
    from whetstone.report.report import write_report

    if not folder.is_dir():
        raise FileNotFoundError(f"There is no run folder {folder}: make one with whetstone run RECIPE.")
    print(write_report(folder))


def _print_results(recipe: "Recipe", results: list["StageResult"]) -> None:
    from rich.console import Console
    from rich.table import Table

    from whetstone.pipeline.history import last_speeds

    # the last: the base may have fewer samples
    main = next((result.score for result in reversed(results) if result.score), None)
    scored = (f"{main.benchmark} mean@{main.samples} %", "95 %") if main else ()
    table = Table("stage")
    for heading in ("wall s", "CPU s", "peak", *scored):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        score = result.score
        table.add_row(
            result.name,
            f"{result.wall_seconds:,.1f}" if result.wall_seconds else "",
            f"{result.cpu_seconds:,.1f}" if result.cpu_seconds else "",
            _gigabytes(result.peak_memory) if result.peak_memory else "",
            *((f"{100 * score.mean:.1f}", f"{100 * score.low:.1f} … {100 * score.high:.1f}") if score else ()),
        )
    table.add_section()
    table.add_row(
        "all",
        f"{sum(r.wall_seconds for r in results):,.1f}",
        f"{sum(r.cpu_seconds for r in results):,.1f}",
        _gigabytes(max((r.peak_memory for r in results), default=0)),
    )
    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print(f"\n{recipe.folder}", highlight=False, soft_wrap=True)
    console.print(table)
    if speeds := last_speeds(recipe):
        console.print(f"machine speed: {speeds[0]} GFLOP/s before, {speeds[1]} after (fp32 512 x 512)", highlight=False)
    file = recipe.folder / "report.html"
    if file.exists():
        console.print(f"report: {file}", highlight=False, soft_wrap=True)


def _print_estimates(recipe: "Recipe", estimates: dict[str, "Estimate"]) -> None:
    """What is to do in numbers, stage by stage and in all; a mark stands before bounds and guesses."""
    from rich.console import Console
    from rich.table import Table

    from whetstone.learner.cost import ASSUMED_BANDWIDTH, ASSUMED_MFU, bytes_as_text, clock, count_as_text

    table = Table("to do")
    for heading in ("tokens", "steps", "memory", "disk", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    marks = {"at most ": "≤ ", "about ": "~ ", "": ""}
    for name, told in estimates.items():
        mark = marks[told.bound]
        table.add_row(
            name,
            "" if told.tokens is None else mark + count_as_text(told.tokens),
            "" if told.steps is None else marks[told.steps_bound] + count_as_text(told.steps),
            "" if told.memory is None else bytes_as_text(told.memory),
            "" if told.disk is None else bytes_as_text(told.disk),
            "" if told.seconds is None else mark + clock(told.seconds),
        )
    all_told = estimates.values()
    seconds = sum(told.seconds or 0 for told in all_told)
    table.add_section()
    table.add_row(
        "all",
        count_as_text(sum(told.tokens or 0 for told in all_told)),
        count_as_text(sum(told.steps or 0 for told in all_told)),
        bytes_as_text(max(told.memory or 0 for told in all_told)),
        bytes_as_text(sum(told.disk or 0 for told in all_told)),
        clock(seconds) if seconds else "",
    )
    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print(table)
    told = ["Memory is that of each device at the peak, disk what models and checkpoints take."]
    if recipe.parallel.accelerator:
        told.append(
            f"Time is that of {recipe.parallel.processes} x {recipe.parallel.accelerator}, assuming that training reaches "
            f"{ASSUMED_MFU:.0%} of their peak and sampling {ASSUMED_BANDWIDTH:.0%} of the bandwidth of one; a teacher's "
            "answers and the scores after each stage are not in it."
        )
    else:
        told.append('[parallel] accelerator = "H200", for instance, adds the time.')
    if any(told.tokens is None for told in all_told if told.memory):
        told.append("A number that is missing follows from data that is not there yet.")
    console.print(" ".join(told), highlight=False, markup=False)


def _print_scores(scores: list["Score"]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("problem set")
    for heading in ("problems", "mean@n %", "95 %", "n", "pass@k %", "majority %", "truncated %", "tokens", "temp."):
        table.add_column(heading, justify="right", no_wrap=True)
    for score in scores:
        table.add_row(
            score.benchmark,
            f"{score.problems}",
            f"{100 * score.mean:.1f}",
            f"{100 * score.low:.1f} … {100 * score.high:.1f}",
            f"{score.samples}",
            "  ".join(f"@{k} {100 * value:.1f}" for k, value in score.pass_at_k.items()),
            f"{100 * score.majority:.1f}",
            f"{100 * score.truncated:.1f}",
            f"{score.mean_tokens:.0f}",
            f"{score.temperature:g}",
        )
    Console(width=None if sys.stdout.isatty() else 130).print(table)


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.2f} GB"


if __name__ == "__main__":
    main()
