"""`greysheep demo` and `greysheep doctor`: what it does, and what it runs on."""

from pathlib import Path
from typing import Annotated

import typer

from greysheep.cli.options import Seed
from greysheep.system.files import check_file


def demo(
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Page to write.")] = Path("report.html"),
    data: Annotated[str, typer.Option(help="A name of `greysheep data list`.")] = "ml-100k",
    seed: Seed = 0,
    epochs: Annotated[int | None, typer.Option(min=1, help="The most epochs; 40 if not given.")] = None,
) -> None:
    """Run the main job on a small real data set and write report.html."""
    check_file(output, suffixes=(".html", ".htm"))
    from greysheep.cli.demo import run_demo

    run_demo(output, dataset=data, seed=seed, epochs=epochs, echo=typer.echo)


def doctor() -> None:
    """Print what greysheep runs on, and the exact fix for whatever is set wrong."""
    from greysheep.cli.doctor import facts

    for fact in facts():
        typer.echo(str(fact))
