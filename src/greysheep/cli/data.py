"""`greysheep data`: named data sets and simulated ones."""

from pathlib import Path
from typing import Annotated

import typer

from greysheep.cli.options import Seed, output_option
from greysheep.system.drafts import no_empty_folders
from greysheep.system.files import check_parent, refused, write_together

app = typer.Typer(help="Named data sets, and simulated ones.", rich_markup_mode=None)

Output = Annotated[Path, output_option("Folder; the files go into a folder of the set's name there.")]


@app.callback(invoke_without_command=True)
def _root(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("list")
def list_names() -> None:
    """Print the names that `data get` knows, and what each set is."""
    from greysheep.data.datasets import ABOUT

    width = max(map(len, ABOUT))
    for name, about in ABOUT.items():
        typer.echo(f"{name:<{width}}  {about}")


@app.command()
def get(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name of `greysheep data list`.")],
    output: Output,
) -> None:
    """Write a named data set as files: its log, and the titles of its items if it has any."""
    check_parent(output)
    from greysheep.data import datasets

    with no_empty_folders(output / name):
        for path in datasets.get(name, output):
            typer.echo(f"wrote {path}")


@app.command()
def simulate(
    *,
    output: Output,
    users: Annotated[int, typer.Option(min=2, help="Number of users.")] = 600,
    items: Annotated[int, typer.Option(min=2, help="Number of items.")] = 300,
    communities: Annotated[int, typer.Option(min=2, help="Number of communities of taste.")] = 4,
    minority: Annotated[float, typer.Option(help="Share of the users in the smallest one.")] = 0.1,
    rows_per_user: Annotated[int, typer.Option(min=1, help="Different items of each user.")] = 20,
    noise: Annotated[float, typer.Option(help="Share of rows that ignore the user's taste.")] = 0.1,
    seed: Seed = 0,
) -> None:
    """Write a simulated log with a minority taste; ids carry the community, so the truth is known."""
    check_parent(output)
    from greysheep.data import datasets

    dataset = datasets.simulate(
        users,
        items,
        n_communities=communities,
        minority=minority,
        rows_per_user=rows_per_user,
        noise=noise,
        seed=seed,
    )
    folder = output / dataset.name
    tables = {"interactions.parquet": dataset.log.frame(), "items.parquet": dataset.titles}
    frames = {folder / name: frame for name, frame in tables.items() if frame is not None}
    with refused(folder):
        write_together({path: frame.write_parquet for path, frame in frames.items()})
    for path, frame in frames.items():
        typer.echo(f"wrote {path}: {frame.height:,} rows")
