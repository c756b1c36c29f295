"""`greysheep compile`: one vector per user and per item in place of a mixture of experts."""

from pathlib import Path
from typing import Annotated

import typer

from greysheep.cli.options import ModelFolder, Verify, output_option
from greysheep.system.files import check_mount, check_parent


def compile(
    model: ModelFolder,
    output: Annotated[
        Path | None, output_option("Folder for users.parquet and items.parquet: id and vector.")
    ] = None,
    rank: Annotated[
        int | None, typer.Option(min=1, help="Vector length; the smallest that loses little if not given.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Share of its validation NDCG that any group may lose.")
    ] = 0.005,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the singular vectors.")] = 0,
    verify: Verify = True,
) -> None:
    """Compile a mixture of experts into one vector per user and one per item, for any vector index.

    A user's score for an item is the inner product. Prints what each group loses on validation rows.
    Without --output the index is kept in the model's folder, where `greysheep serve` finds it.
    """
    if output is not None:
        check_parent(output, inputs=[model])
        check_mount(output)
    from greysheep.cli.tables import show
    from greysheep.models import load
    from greysheep.models.autoencoders.index import check_index_folder, compile_index
    from greysheep.models.autoencoders.kept_index import keep_index

    if output is not None:
        check_index_folder(output.expanduser())
    index = compile_index(load(model, verify=verify), rank=rank, tolerance=tolerance, seed=seed)
    if output is None:
        keep_index(index, model.expanduser())
    else:
        index.export(output)
    show(index.quality)
    typer.echo(
        f"wrote {len(index.user_vectors):,} users' and {len(index.item_vectors):,} items' vectors of length "
        f"{index.length} to {output or model}; the folder holds personal data"
    )
