"""`greysheep export`: a vector a user and an item, for any vector index."""

from pathlib import Path
from typing import Annotated

import typer

from greysheep.cli.options import ModelFolder, Overwrite, Seed, Verify, output_option
from greysheep.system.files import check_folder, check_mount


def export(
    model: ModelFolder,
    output: Annotated[Path, output_option("Folder for users.parquet and items.parquet: id and vector.")],
    rank: Annotated[int, typer.Option(min=1, help="Length of the vectors.")] = 128,
    format: Annotated[str, typer.Option(help="parquet, or npy: vectors apart from the ids.")] = "parquet",
    seed: Seed = 0,
    overwrite: Overwrite = False,
    verify: Verify = True,
) -> None:
    """Write any model as a vector a user and an item: her score is nearly the inner product.

    Says how many of users' 20 best items the vectors find, too; a larger rank finds more.
    """
    check_folder(output, marker="manifest.json", overwrite=overwrite, inputs=[model])
    check_mount(output)
    from greysheep.models import load
    from greysheep.serving.export import FORMATS, vectors_of
    from greysheep.system.checks import one_of

    one_of("format", format, FORMATS)
    vectors = vectors_of(load(model, verify=verify), rank=rank, seed=seed)
    vectors.write(output, format=format, overwrite=overwrite)
    sizes = (
        f"{len(vectors.users):,} users' and {len(vectors.items):,} items' vectors of length {vectors.rank}"
    )
    found = f"they find {vectors.agreement:.1%} of users' 20 best items"
    typer.echo(f"wrote {sizes} to {output}: {found}; the folder holds personal data")
