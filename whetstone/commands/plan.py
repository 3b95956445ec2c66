"""`whetstone plan`: what `run` would do, and what it costs."""

import textwrap

from whetstone.commands.options import RecipeFile, Sets
from whetstone.run.visible import write_line


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
    from whetstone.shipped_recipes import recipe_file
    from whetstone.terminal import print_estimates

    checked = read_recipe(recipe_file(recipe), sets or ())
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
