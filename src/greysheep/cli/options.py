"""Options that several commands share, each written once."""

import inspect
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from greysheep.data.columns import ITEM, USER
from greysheep.errors import ConfigError
from greysheep.system.checks import list_lengths

if TYPE_CHECKING:
    from greysheep.data.formats import TextFormat
    from greysheep.data.interactions import Interactions

Log = Annotated[
    Path,
    typer.Argument(
        metavar="LOG", help="Log: .parquet, .csv, .tsv (also .gz, .zst) or a folder of parquet parts."
    ),
]
ModelFolder = Annotated[Path, typer.Argument(metavar="MODEL_DIR", help="Folder written by `greysheep fit`.")]
Verify = Annotated[
    bool,
    typer.Option("--verify/--no-verify", help="Check the SHA-256 of the model's files before they are read."),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output folder if it exists.")]
ListLength = Annotated[int, typer.Option("--k", "-k", min=1, help="Length of the lists.")]
ListLengths = Annotated[
    str,
    typer.Option(
        "--k",
        "-k",
        metavar="N[,N...]",
        help="Length of the lists, or several: 5,10,20; the tables show the longest.",
    ),
]
Items = Annotated[
    Path | None, typer.Option(help="File of item_id and genres (A|B) or vector: for the diversity of lists.")
]
Groups = Annotated[
    Path | None,
    typer.Option(help="Groups of your own: a file of user_id and group, in place of the five by taste."),
]
TestedProtocol = Annotated[
    str, typer.Option(help="strict, paper, temporal, leave-last[n=1] or global-time[test=0.2].")
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; one per core if not given.")]
Engine = Annotated[
    str, typer.Option(help="Where the work is done: local, or ray (the machines of a Ray cluster).")
]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes on Ray; one a core if not given.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")]


def read_lengths(text: str) -> list[int]:
    """Read `--k`: one length of lists, or several with commas.

    >>> read_lengths("20"), read_lengths("5,20,10")
    ([20], [5, 10, 20])

    Raises:
        ConfigError: one of them is no whole number from 1 up.
    """
    try:
        return list_lengths([int(part) for part in text.split(",") if part.strip()])
    except (ValueError, ConfigError):
        raise ConfigError(
            f"--k {text}: give the length of the lists, from 1 up, or several: 5,10,20"
        ) from None


def output_option(help: str) -> Any:
    """The option that says where a command writes."""
    return typer.Option("--output", "-o", help=help)


def set_option(help: str) -> Any:
    """The option for single settings."""
    return typer.Option("--set", metavar="KEY=VALUE", help=help)


@dataclass(frozen=True)
class LogOptions:
    """How to read a log: which columns, and what to leave out."""

    user_col: Annotated[str, typer.Option(help="Column of user ids.")] = USER
    item_col: Annotated[str, typer.Option(help="Column of item ids.")] = ITEM
    time_col: Annotated[
        str | None, typer.Option(help="Column of times; `timestamp` if there is one; none: no times.")
    ] = None
    weight_col: Annotated[
        str | None, typer.Option(help="Column of weights; `weight` if there is one; none: no weights.")
    ] = None
    rating_col: Annotated[
        str | None, typer.Option(help="Column that --min-rating reads; `rating` if there is one.")
    ] = None
    min_rating: Annotated[float | None, typer.Option(help="Drop rows rated lower, before all else.")] = None
    min_user_items: Annotated[int, typer.Option(min=0, help="Drop users with fewer items; repeated.")] = 0
    min_item_users: Annotated[int, typer.Option(min=0, help="Drop items with fewer users; repeated.")] = 0
    missing_ids: Annotated[
        str, typer.Option(help="Rows whose id is missing, or NA and the like: refuse, drop or keep.")
    ] = "refuse"
    format: Annotated[
        str | None,
        typer.Option(help="movielens, amazon-2014, amazon-2018, amazon-2023 or book-crossing: their files."),
    ] = None
    separator: Annotated[str | None, typer.Option(help="Text between two fields, such as ';' or '::'.")] = (
        None
    )
    header: Annotated[bool, typer.Option(help="Whether the first line names the columns.")] = True
    columns: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Names of the columns of a file without header.")
    ] = None
    encoding: Annotated[str, typer.Option(help="Encoding of text, such as latin-1.")] = "utf-8"
    skip_lines: Annotated[int, typer.Option(min=0, help="Lines before the header that are no rows.")] = 0
    quotes: Annotated[bool, typer.Option(help="Whether double quotes enclose fields or are letters.")] = True
    strip: Annotated[bool, typer.Option("--strip", help="Take away blanks around names and ids.")] = False
    decimal_comma: Annotated[bool, typer.Option("--decimal-comma", help="1,5 is one and a half.")] = False

    def text(self) -> "TextFormat":
        """How text files are laid out."""
        from greysheep.data.formats import TextFormat

        return TextFormat(**{part.name: getattr(self, part.name) for part in fields(TextFormat)})

    def read(self, log: Path) -> "Interactions":
        """Read the log with these options."""
        from greysheep.data.interactions import Interactions

        return Interactions.read(log, **asdict(self))


def with_log_options(command: Callable[..., None]) -> Callable[..., None]:
    """Turn the parameter `options` of a command, a LogOptions, into one command-line option per field.

    Typer reads a function's signature: it gets one with the fields in place of `options`.
    """
    signature = inspect.signature(command, eval_str=True)
    parameters = [parameter for name, parameter in signature.parameters.items() if name != "options"]
    parameters += [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type
        )
        for field in fields(LogOptions)
    ]

    @wraps(command)
    def flat(**values: Any) -> None:
        options = LogOptions(**{field.name: values.pop(field.name) for field in fields(LogOptions)})
        command(**values, options=options)

    vars(flat)["__signature__"] = signature.replace(parameters=parameters)
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return flat
