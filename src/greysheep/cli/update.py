"""`greysheep update`: new rows into a model folder, or people out of it, without training."""

from pathlib import Path
from typing import Annotated

import typer

from greysheep.cli.options import LogOptions, ModelFolder, Overwrite, Verify, output_option, with_log_options
from greysheep.errors import ConfigError
from greysheep.system.files import check_folder, check_mount


@with_log_options
def update(
    *,
    model: ModelFolder,
    add: Annotated[
        Path | None, typer.Option(metavar="LOG", help="Log of rows to add; LOG options apply.")
    ] = None,
    forget: Annotated[
        Path | None,
        typer.Option(metavar="USERS", help="File of user ids to take out: .parquet, .csv, .tsv or .txt."),
    ] = None,
    output: Annotated[Path, output_option("New model folder; the old one stays as it is.")],
    overwrite: Overwrite = False,
    verify: Verify = True,
    options: LogOptions,
) -> None:
    """Put new rows, users and items into a model, or take people out of it, without training.

    Closed forms are solved again. Other models keep their weights: people with new rows get the lists that
    `recommend --history` would give them, and new items wait for the next fit. Says what could not be learned
    and what the weights still hold of those who are forgotten.
    """
    if add is None and forget is None:
        raise ConfigError("update has nothing to do: give --add LOG, --forget USERS or both")
    check_folder(output, marker="manifest.json", overwrite=overwrite, inputs=[model, add, forget])
    check_mount(output)
    from greysheep.cli.ids import read_additions, read_ids
    from greysheep.models import load
    from greysheep.models.upkeep import update as updated

    before = load(model, verify=verify)
    rows = None if add is None else read_additions(add, options, before.log)
    people = None
    if forget is not None:
        people = read_ids(forget, options.user_col, before.log.user_ids.dtype)
    after = updated(before, add=rows, forget=people)
    after.save(output)
    typer.echo(f"{after.upkeep}\nwrote {output}; it holds personal data")
