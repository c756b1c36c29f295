"""Commands that need no model: how mainstream each user is, and a split written to files."""

from pathlib import Path
from typing import Annotated

import typer

from greysheep.cli.options import Log, LogOptions, Overwrite, Seed, output_option, with_log_options
from greysheep.cli.outputs import TABLES, write_table
from greysheep.data.columns import GROUP, SCORE, USER
from greysheep.system.files import check_file, check_folder, check_mount


@with_log_options
def mainstream(
    *,
    log: Log,
    output: Annotated[Path, output_option("File for user_id, score, group: .parquet, .csv or .tsv.")],
    sample: Annotated[
        int | None, typer.Option(min=1, help="Compare each user with N others only; large logs always do.")
    ] = None,
    seed: Seed = 0,
    options: LogOptions,
) -> None:
    """Say who is niche in a log, before any training: each user's mainstream score and group."""
    check_file(output, suffixes=TABLES, inputs=[log])
    import polars as pl

    from greysheep.cli.tables import show
    from greysheep.mainstream.groups import GROUPS, Mainstream

    interactions = options.read(log)
    typer.echo(str(interactions.summary))
    rows = interactions.matrix()
    known = Mainstream.fit(rows, interactions.user_ids, sample=sample, seed=seed)
    groups = pl.Series(GROUP, GROUPS).gather(known.groups)
    scores = pl.DataFrame({USER: interactions.user_ids, SCORE: known.scores, GROUP: groups})
    write_table(scores, output)
    counts = scores.with_columns(rows=pl.Series(rows.getnnz(axis=1)))
    by_group = counts.group_by(GROUP).agg(
        users=pl.len(),
        lowest=pl.col(SCORE).min(),
        highest=pl.col(SCORE).max(),
        rows_a_user=pl.col("rows").mean(),
    )
    show(by_group.sort(pl.col(GROUP).replace_strict(GROUPS, list(range(len(GROUPS))))))
    if sample is not None:
        typer.echo(known.describe())
    typer.echo(f"wrote {scores.height:,} users to {output}")


@with_log_options
def split(
    *,
    log: Log,
    output: Annotated[Path, output_option("Folder for the parts.")],
    protocol: Annotated[
        str,
        typer.Option(help="all, strict, paper, temporal, leave-last[n=1] or global-time[test=0.2]."),
    ] = "strict",
    seed: Seed = 0,
    overwrite: Overwrite = False,
    options: LogOptions,
) -> None:
    """Write the parts of a split to files, so that any other library can train on the same rows."""
    check_folder(output, marker="split.json", overwrite=overwrite, inputs=[log])
    check_mount(output)
    from greysheep.cli.tables import show
    from greysheep.data.splitting import split as cut

    interactions = options.read(log)
    typer.echo(str(interactions.summary))
    parts = cut(interactions, protocol=protocol, seed=seed)
    parts.write(output)
    show(parts.summary())
    typer.echo(f"wrote the parts to {output}")
