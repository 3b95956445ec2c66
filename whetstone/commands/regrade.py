"""`whetstone regrade`: saved generations graded again."""

from typing import Annotated

import typer

from whetstone.commands.evaluate_options import Output, Policy


def regrade(
    saved: Annotated[
        str,
        typer.Argument(
            help="A run, a stage, a folder of `evaluate --output`, or samples that lm-eval (--log_samples), lighteval or "
            "evalchemy saved."
        ),
    ],
    policy: Policy = None,
    output: Output = None,
) -> None:
    """Grade saved generations again, without sampling, and say how the verdicts differ from those that were saved."""
    from whetstone.evaluate.regrade import regrade as grade_again
    from whetstone.evaluate.saved import read_saved
    from whetstone.terminal import print_regraded

    print_regraded(grade_again(read_saved(saved), policy, output))
