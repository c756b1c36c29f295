"""`greysheep tune`: the settings that serve a log best, found on validation rows."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from greysheep.cli import options as shared
from greysheep.system.drafts import no_empty_folders
from greysheep.system.files import check_folder, refused, write_together

if TYPE_CHECKING:
    from greysheep.tuning.tune import Tuning

STUDY = "study.journal"


@shared.with_log_options
def tune(
    *,
    log: shared.Log,
    output: Annotated[Path, shared.output_option("Folder; one with an earlier search goes on with it.")],
    model: Annotated[
        str, typer.Option(help="A registry name, or a variant: 'tall[gate=uniform]'; what it names is fixed.")
    ] = "tall",
    minutes: Annotated[
        float | None, typer.Option(help="Time of this call; 20 if neither this nor --trials is given.")
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Trials in all, with those of earlier calls.")] = None,
    objective: Annotated[str, typer.Option(help="Validation NDCG to raise: mean, worst, no-harm.")] = "mean",
    reference: Annotated[
        str | None, typer.Option(help="For no-harm: the model that no group may fall below.")
    ] = None,
    margin: Annotated[float, typer.Option(help="For no-harm: the relative loss still allowed.")] = 0.02,
    groups: shared.Groups = None,
    settings: Annotated[list[str] | None, shared.set_option("One setting, kept fixed; repeat it.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="The most epochs of a trial.")] = None,
    protocol: shared.TestedProtocol = "strict",
    seed: shared.Seed = 0,
    threads: shared.Threads = None,
    device: shared.Device = None,
    options: shared.LogOptions,
) -> None:
    """Search the settings of a model on validation rows; test rows are never read.

    Writes study.journal, best.yaml (for `fit --config`), trials.csv and, with the extra `report`, trials.svg.
    Ctrl-C keeps what is finished; the same command goes on from there.
    """
    output = output.expanduser()
    check_folder(output, marker=STUDY, overwrite=True, inputs=[log, groups])
    from greysheep.cli.ids import read_own_groups
    from greysheep.models.config import read_settings
    from greysheep.tuning.plan import TuneRequest
    from greysheep.tuning.tune import run_request

    machine = {"threads": threads, "device": device}
    fixed = read_settings(settings or []) | {
        key: value for key, value in machine.items() if value is not None
    }
    request = TuneRequest(
        model=model,
        protocol=protocol,
        seed=seed,
        objective=objective,
        trials=trials,
        minutes=20 if trials is None and minutes is None else minutes,
        reference=reference,
        margin=margin,
        fixed=read_settings(settings or []) | fixed,
        epochs=epochs,
    )
    interactions = options.read(log)
    typer.echo(str(interactions.summary))
    with no_empty_folders(output):
        output.mkdir(parents=True, exist_ok=True)
        own = read_own_groups(groups, options, interactions)
        tuning = run_request(request, interactions, output / STUDY, groups=own, progress=True)
    _write(tuning, output)
    if tuning.interrupted:
        typer.echo("the same command goes on from here")
        raise typer.Exit(130)


def _write(tuning: "Tuning", output: Path) -> None:
    """Write the files and print the best trials."""
    import polars as pl

    from greysheep.cli.tables import show
    from greysheep.errors import MissingExtraError
    from greysheep.report.tuning import write_picture

    with refused(output):
        write_together({
            output / "best.yaml": tuning.to_yaml(),
            output / "trials.csv": tuning.trials.write_csv(quote_style="non_numeric"),
        })  # fmt: skip
    with suppress(MissingExtraError):  # the picture is a by-product
        write_picture(tuning, output / "trials.svg")
    best = tuning.top().drop("value", "message", "best_epoch")
    searched = best.columns[best.columns.index("seconds") + 1 :]
    texts = [pl.Series(name, [_short(value) for value in best[name]], pl.String) for name in searched]
    show(best.with_columns(texts))
    typer.echo(str(tuning))
    typer.echo(f"wrote {output}; train it: greysheep fit LOG -o MODEL_DIR --config {output / 'best.yaml'}")


def _short(value: object) -> str | None:
    """A setting in full: 1e-05, not the 0.0000 that a table makes of it."""
    if value is None:
        return None
    return f"{value:g}" if isinstance(value, float) else str(value)
