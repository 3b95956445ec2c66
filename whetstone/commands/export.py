"""`whetstone export`: a trained model as a folder to publish."""

from pathlib import Path
from typing import Annotated

import typer

from whetstone.run.visible import write_line


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, for instance runs/tiny.")],
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="The new folder.")],
    stage: Annotated[str, typer.Option(help="The model of this stage; default: the last one trained.")] = "",
    gguf: Annotated[
        list[str] | None, typer.Option(metavar="TYPE", help="A GGUF file too: F32, F16, BF16 or Q8_0. Repeatable.")
    ] = None,
    converter: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where llama.cpp's convert_hf_to_gguf.py is.")
    ] = None,
    licence: Annotated[
        str, typer.Option("--licence", "--license", help="Of the model, for its card: apache-2.0, mit, …")
    ] = "",
    push: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Upload the folder to the Hugging Face Hub.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="With --push: a new repository is public.")] = False,
) -> None:
    """Write a trained model with its card, scores, data card and settings into a new folder. An adapter is merged."""
    from whetstone.export.export import export as write
    from whetstone.export.gguf import known
    from whetstone.model_hub import hub_name
    from whetstone.pipeline.staleness import refuse_links

    if not run.is_dir():
        raise FileNotFoundError(f"There is no run folder {run}: make one with whetstone run RECIPE.")
    if push is not None and hub_name(push) is None:
        raise ValueError(f"--push {push}: a repository on the Hub is named OWNER/NAME.")
    refuse_links(run)
    write_line(str(write(run, to, stage, [known(kind) for kind in gguf or ()], converter, licence, push or "")))
    if push is not None:
        from whetstone.export.hub import push as upload

        write_line(upload(to, push, private=not public))
