"""`greysheep evaluate` and `greysheep recommend`: what a saved model, or another library's list, is worth."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from greysheep.cli.options import (
    Engine,
    Groups,
    Items,
    ListLength,
    ListLengths,
    LogOptions,
    ModelFolder,
    Verify,
    Workers,
    output_option,
    read_lengths,
    with_log_options,
)
from greysheep.cli.outputs import TABLES, check_reports, write_table
from greysheep.data.columns import USER
from greysheep.errors import ConfigError, warn
from greysheep.system.files import check_file, check_folder

if TYPE_CHECKING:
    from greysheep.data.splitting import Split
    from greysheep.models import Model


@with_log_options
def evaluate(
    *,
    model: Annotated[
        Path | None, typer.Argument(metavar="MODEL_DIR", help="Folder written by `greysheep fit`.")
    ] = None,
    test: Annotated[Path | None, typer.Option(help="Log of test rows, instead of the split's own.")] = None,
    recs: Annotated[
        Path | None, typer.Option(help="Any library's lists: user_id, item_id, rank or score. With --split.")
    ] = None,
    split: Annotated[Path | None, typer.Option(help="Folder written by `greysheep split`.")] = None,
    k: ListLengths = "20",
    groups: Groups = None,
    beyond: Annotated[
        bool, typer.Option("--beyond", help="Also coverage, Gini, popularity, novelty and, of models, AUC.")
    ] = False,
    items: Items = None,
    json: Annotated[str | None, typer.Option(metavar="FILE|-", help="Write every number; - prints.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a self-contained page.")] = None,
    verify: Verify = True,
    options: LogOptions,
) -> None:
    """Measure a model, or another library's lists, user group by user group."""
    if (model is None) == (recs is None) or (recs is None) != (split is None):
        raise ConfigError("evaluate takes either MODEL_DIR, or --recs FILE with --split DIR")
    lengths = read_lengths(k)
    json_file = check_reports(json, html, [model, test, recs, split, groups, items])
    from greysheep.cli.ids import has_features, read_items, read_log, read_own_groups, titles_of
    from greysheep.evaluation.beyond_text import beyond_table
    from greysheep.evaluation.evaluate import evaluate as measure

    judged, parts = _judged(model, recs, split, options, verify)
    known = read_items(items, options, parts.log)
    report = measure(
        judged,
        parts,
        k=lengths,
        test=read_log(test, options, parts.log),
        groups=read_own_groups(groups, options, parts.log),
        beyond=beyond,
        items=known if has_features(known) else None,
    )
    text = "\n".join([str(report), "", *beyond_table(report)]).rstrip()
    typer.echo(report.to_json() if json == "-" else text)
    if json_file is not None:
        report.to_json(json_file)
    if html is not None:
        from greysheep.report.pages import niche_examples, write_html

        titles = None if known is None else titles_of(known)
        shown = [judged] if titles is not None and model is not None and test is None else []
        write_html(report, html, examples=niche_examples(shown, titles=titles) if shown else [])


def _judged(
    model: Path | None, recs: Path | None, split: Path | None, options: LogOptions, verify: bool
) -> tuple[Any, "Split"]:
    """The model, or the frame of lists, and the split it is measured on."""
    if model is not None:
        from greysheep.models import load

        recommender = load(model, verify=verify)
        return recommender, recommender.split
    from greysheep.cli.ids import read_lists
    from greysheep.data.splitting import Split

    assert recs is not None and split is not None
    parts = Split.read(split)
    return read_lists(recs, options, parts.log), parts


@with_log_options
def recommend(
    *,
    model: ModelFolder,
    users: Annotated[
        Path | None, typer.Option(help="File of user ids: .parquet, .csv, .tsv, or .txt with one per line.")
    ] = None,
    user: Annotated[list[str] | None, typer.Option(metavar="ID", help="One user; repeat it.")] = None,
    history: Annotated[
        Path | None, typer.Option(help="Log of people to recommend to, known or not; LOG options apply.")
    ] = None,
    k: ListLength = 20,
    exclude_seen: Annotated[bool, typer.Option(help="Leave out what the user already has.")] = True,
    candidates: Annotated[
        Path | None,
        typer.Option(
            help="File of the only item ids to choose from; with a column of users, of each user's."
        ),
    ] = None,
    exclude_items: Annotated[Path | None, typer.Option(help="File of item ids never to recommend.")] = None,
    on_unknown: Annotated[str, typer.Option(help="Unknown users: raise, skip or popular.")] = "raise",
    output: Annotated[
        Path | None,
        output_option("File: .parquet, .csv or .tsv; or a folder (DIR/) of parquet parts; else a table."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Throw away other lists that the folder of parts holds.")
    ] = False,
    items: Annotated[
        Path | None, typer.Option(help="File of item_id and title, which then stands beside each item.")
    ] = None,
    engine: Engine = "local",
    workers: Workers = None,
    verify: Verify = True,
    options: LogOptions,
) -> None:
    """Recommend items to users of a saved model; to all of them if none are named.

    A folder of parts takes any number of users in little memory; a run that was killed goes on there.
    """
    if users is not None and user:
        raise ConfigError("--users and --user both name users: give one of them")
    folder = output if output is not None and (not output.suffix or output.is_dir()) else None
    if folder is None and (engine != "local" or overwrite):
        raise ConfigError("--engine and --overwrite are for a folder of parts: name one, -o DIR/")
    if folder is not None and items is not None:
        raise ConfigError("--items puts titles into one file or a table: a folder of parts holds ids alone")
    if folder is not None:
        check_folder(
            folder,
            marker="_request.json",
            overwrite=True,
            inputs=[model, users, history, candidates, exclude_items],
        )
    elif output is not None:
        check_file(output, suffixes=TABLES, inputs=[model, users, history, candidates, exclude_items, items])
    from greysheep.cli.ids import read_candidates, read_exclusions, read_people, read_titles, titled
    from greysheep.models import load

    recommender = load(model, verify=verify)
    chosen = None if candidates is None else read_candidates(candidates, options, recommender.log)
    excluded = None if exclude_items is None else read_exclusions(exclude_items, options, recommender.log)
    titles = read_titles(items, options, recommender.log)
    wanted, people, chosen = read_people(recommender, user, users, history, options, chosen)
    how: dict[str, Any] = {"k": k, "exclude_seen": exclude_seen, "candidates": chosen}
    how |= {"exclude_items": excluded, "history": people, "on_unknown": on_unknown}
    if folder is not None:
        _write_parts(recommender, folder, wanted, how, overwrite, engine, workers)
        return
    frame = recommender.recommend(wanted, **how)
    requested = (people or recommender.log).user_ids if wanted is None else wanted.unique()
    _say_without(len(requested) - frame[USER].n_unique(), len(requested), on_unknown)
    frame = frame if titles is None else titled(frame, titles)
    if output is not None:
        write_table(frame, output)
        typer.echo(f"wrote {frame.height:,} rows for {frame[USER].n_unique():,} users to {output}")
        return
    from greysheep.cli.tables import show

    show(frame, most=200)


def _say_without(without: int, asked: int, on_unknown: str) -> None:
    if without:
        why = "they are unknown, or " if on_unknown == "skip" else ""
        warn(f"{without} of {asked} users get no list: {why}no item is left for them", 3)


def _write_parts(
    model: "Model",
    folder: Path,
    wanted: Any,
    how: dict[str, Any],
    overwrite: bool,
    engine: str,
    workers: int | None,
) -> None:
    """Write lists to a folder of parts, or go on with it."""
    from greysheep.serving.batch import write_lists

    try:
        done = write_lists(
            model, folder, wanted, **how, overwrite=overwrite, engine=engine, workers=workers, progress=True
        )
    except (KeyboardInterrupt, SystemExit):
        typer.echo(f"the parts that are done are kept in {folder}: the same command goes on", err=True)
        raise
    _say_without(done.asked - done.users, done.asked, how["on_unknown"])
    what = f"{done.rows:,} rows for {done.users:,} users in {done.parts} parts"
    if done.found == done.parts:
        typer.echo(f"{folder} holds them already: {what}")
        return
    before = f", {done.found} of them there before" if done.found else ""
    typer.echo(f"wrote {what}{before} to {folder}")
