"""`greysheep report`: the page of a trained model again."""

from pathlib import Path
from typing import Annotated

import typer

from greysheep.cli.options import ListLength, LogOptions, ModelFolder, Track, Verify, with_log_options
from greysheep.system.files import check_file


@with_log_options
def report(
    *,
    model: ModelFolder,
    html: Annotated[Path, typer.Option(help="The page.")] = Path("report.html"),
    test: Annotated[Path | None, typer.Option(help="Log of test rows, instead of the split's own.")] = None,
    k: ListLength = 20,
    track: Track = False,
    verify: Verify = True,
    options: LogOptions,
) -> None:
    """Make the HTML page of a trained model again: who is served how well, and how it was trained."""
    check_file(html, suffixes=(".html", ".htm"), inputs=[model, test])
    from greysheep.cli.ids import read_log
    from greysheep.evaluation.evaluate import evaluate
    from greysheep.models import load
    from greysheep.report.pages import write_html

    if track:
        from greysheep.report.tracking import need_mlflow

        need_mlflow()
    trained = load(model, verify=verify)
    measured = evaluate(trained, k=k, test=read_log(test, options, trained.log))
    write_html(measured, html)
    typer.echo(f"wrote {html}")
    if track:
        from greysheep.report import tracking

        typer.echo(f"MLflow: run {tracking.track(trained, measured, folder=model)}")
