"""`greysheep serve`: lists over HTTP, and a page to look at them."""

from pathlib import Path
from typing import Annotated

import typer

from greysheep.cli.options import ModelFolder, Verify
from greysheep.errors import MissingExtraError


def serve(
    model: ModelFolder,
    host: Annotated[str, typer.Option(help="Address to listen on; the loopback unless told.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    items: Annotated[
        Path | None, typer.Option(help="Table of titles: item_id and title (.parquet, .csv or .tsv).")
    ] = None,
    baseline: Annotated[
        list[Path] | None, typer.Option(metavar="MODEL_DIR", help="A model shown beside it; repeat it.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes that share the weights.")] = 1,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A host name that is answered, too; repeat it.")
    ] = None,
    max_k: Annotated[int, typer.Option(min=1, max=100_000, help="Longest list.")] = 500,
    max_users: Annotated[int, typer.Option(min=1, max=1_000_000, help="Most users of one call.")] = 1000,
    max_history: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Most rows of a history, or candidates.")
    ] = 5000,
    max_body: Annotated[int, typer.Option(min=1024, max=1 << 30, help="Most bytes of a request.")] = 1 << 20,
    verify: Verify = True,
) -> None:
    """Serve a model's lists over HTTP, and a page at / to look at them; Ctrl-C ends it.

    The folder is watched: when another model takes its place, it is served without a request lost. A key in
    the environment variable GREYSHEEP_API_KEY is asked of every client. See docs/serving.md.
    """
    from greysheep.serving.settings import ServeSettings

    try:
        from greysheep.serving.run import Job
        from greysheep.serving.run import serve as run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "greysheep":
            raise
        raise MissingExtraError("serve", f"serve ({error.name})") from error
    settings = ServeSettings(
        host=host,
        port=port,
        workers=workers,
        allowed_hosts=tuple(allow_host or ()),
        max_k=max_k,
        max_users=max_users,
        max_history=max_history,
        max_body=max_body,
        verify=verify,
    )
    places = [place.expanduser() for place in baseline or ()]
    run(Job(model.expanduser(), places, items, settings), typer.echo)
