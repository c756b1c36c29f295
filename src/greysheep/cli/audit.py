"""`greysheep audit`: whom lists that other recommenders made serve badly; nothing is trained."""

import json as jsons
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from greysheep.cli.options import (
    Groups,
    Items,
    ListLengths,
    Log,
    LogOptions,
    read_lengths,
    with_log_options,
)
from greysheep.cli.outputs import check_reports
from greysheep.errors import ConfigError
from greysheep.system.files import write_text


@with_log_options
def audit(
    *,
    log: Log,
    recs: Annotated[
        list[Path], typer.Option(help="Lists: user_id, item_id, rank or score; repeat it to compare files.")
    ],
    test: Annotated[Path | None, typer.Option(help="Log of what people chose afterwards.")] = None,
    split: Annotated[
        Path | None, typer.Option(help="Folder of `greysheep split` that the lists were made for.")
    ] = None,
    k: ListLengths = "20",
    groups: Groups = None,
    items: Items = None,
    margin: Annotated[float, typer.Option(help="Relative loss that still counts as no harm.")] = 0.02,
    json: Annotated[str | None, typer.Option(metavar="FILE|-", help="Write every number; - prints.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a self-contained page.")] = None,
    options: LogOptions,
) -> None:
    """Say whom the recommender you have serves badly, from its lists and what people chose afterwards.

    LOG is what it had seen; --test is a later log, --split a split made for it. With several files of lists,
    each is compared with the first in paired tests.
    """
    if (test is None) == (split is None):
        why = "give one of them" if test else "without either there is nothing that a list could have hit"
        raise ConfigError(
            f"audit takes what people chose after LOG as --test LATER_LOG or --split DIR: {why}"
        )
    lengths = read_lengths(k)
    json_file = check_reports(json, html, [log, *recs, test, split, groups, items])
    from greysheep.cli.ids import read_items, read_lists, read_log, read_own_groups
    from greysheep.comparison.audit import audit as judge
    from greysheep.data.splitting import Split

    seen = options.read(log)
    if json != "-":
        typer.echo(str(seen.summary))
    parts = None if split is None else Split.read(split)
    known = seen if parts is None else parts.log
    found = judge(
        seen,
        {label: read_lists(path, options, known) for label, path in labelled(recs).items()},
        test=read_log(test, options, known),
        split=parts,
        k=lengths,
        groups=read_own_groups(groups, options, known),
        items=read_items(items, options, known),
        margin=margin,
        command=_command(log, recs, {"test": test, "split": split, "k": k, "groups": groups, "items": items}),
    )
    numbers = jsons.dumps(found.to_dict(), indent=2, allow_nan=False) + "\n"
    typer.echo(numbers if json == "-" else f"\n{found}")
    if json_file is not None:
        write_text(json_file, numbers)
    if html is not None:
        from greysheep.report.pages import write_html

        write_html(found, html)


def _command(log: Path, recs: Sequence[Path], options: Mapping[str, object]) -> str:
    """The command, for whoever wants to repeat it."""
    words = ["greysheep", "audit", str(log)]
    for path in recs:
        words += ["--recs", str(path)]
    for name, value in options.items():
        words += [] if value is None else [f"--{name}", str(value)]
    return shlex.join(words)


def labelled(files: Sequence[Path]) -> dict[str, Path]:
    """A name for each file of lists: that of the file, with its folder where several share it.

    >>> list(labelled([Path("a/lists.csv"), Path("b/lists.csv"), Path("new.parquet")]))
    ['a/lists.csv', 'b/lists.csv', 'new']

    Raises:
        ConfigError: a file is named twice.
    """
    stems = Counter(path.stem for path in files)
    named = {path.stem if stems[path.stem] == 1 else str(path): path for path in files}
    if len(named) < len(files):
        twice = next(str(path) for path in files if files.count(path) > 1)
        raise ConfigError(f"--recs names {twice} twice: give each file once")
    return named
