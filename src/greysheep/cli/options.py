"""Options that several commands share, each written once."""

import inspect
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from greysheep.data.columns import ITEM, USER

if TYPE_CHECKING:
    from greysheep.data.interactions import Interactions

Log = Annotated[
    Path, typer.Argument(metavar="LOG", help="Log: .parquet, .csv, .tsv or a folder of parquet parts.")
]
ModelFolder = Annotated[Path, typer.Argument(metavar="MODEL_DIR", help="Folder written by `greysheep fit`.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output folder if it exists.")]


@dataclass(frozen=True)
class LogOptions:
    """How to read a log: which columns, and what to leave out."""

    user_col: Annotated[str, typer.Option(help="Column of user ids.")] = USER
    item_col: Annotated[str, typer.Option(help="Column of item ids.")] = ITEM
    time_col: Annotated[
        str | None, typer.Option(help="Column of times: numbers, dates; `timestamp` if there is one.")
    ] = None
    weight_col: Annotated[str | None, typer.Option(help="Column of weights; `weight` if there is one.")] = (
        None
    )
    rating_col: Annotated[
        str | None, typer.Option(help="Column that --min-rating reads; `rating` if there is one.")
    ] = None
    min_rating: Annotated[float | None, typer.Option(help="Drop rows rated lower, before all else.")] = None
    min_user_items: Annotated[int, typer.Option(min=0, help="Drop users with fewer items; repeated.")] = 0
    min_item_users: Annotated[int, typer.Option(min=0, help="Drop items with fewer users; repeated.")] = 0

    def read(self, log: Path) -> "Interactions":
        """Read the log with these options."""
        from greysheep.data.interactions import Interactions

        return Interactions.read(log, **asdict(self))


def expand(command: Callable[..., None]) -> Callable[..., None]:
    """Turn a parameter annotated with an option dataclass into one command-line option per field.

    Typer reads a function's signature; this gives it the flat one, and gives the function its dataclass back.
    """
    signature = inspect.signature(command, eval_str=True)
    groups = {
        name: parameter.annotation
        for name, parameter in signature.parameters.items()
        if isinstance(parameter.annotation, type) and is_dataclass(parameter.annotation)
    }

    @wraps(command)
    def flat(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for parameter in signature.parameters.values()
        for name, annotation, default in (
            [(field.name, field.type, field.default) for field in fields(groups[parameter.name])]
            if parameter.name in groups
            else [(parameter.name, parameter.annotation, parameter.default)]
        )
    ]
    vars(flat)["__signature__"] = signature.replace(parameters=parameters)
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters} | {
        "return": None
    }
    return flat
