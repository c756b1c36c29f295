"""`greysheep compare`: models on the same splits, over seeds, with paired tests and a verdict in words."""

import shlex
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from greysheep.cli.options import (
    Groups,
    ListLengths,
    Log,
    LogOptions,
    TestedProtocol,
    output_option,
    read_lengths,
    with_log_options,
)
from greysheep.errors import ConfigError

if TYPE_CHECKING:
    from greysheep.comparison.request import CompareRequest
    from greysheep.comparison.result import Comparison


@with_log_options
def compare(
    *,
    log: Log,
    models: Annotated[
        list[str],
        typer.Option(
            metavar="MODELS",
            help="Models and variants: 'multvae,tall[gate=uniform]', with names of your own if you like: "
            "'flat=tall[gate=uniform]'; or @FILE, a YAML list of them.",
        ),
    ],
    output: Annotated[Path, output_option("Folder for runs and results; finished runs are not repeated.")],
    protocol: TestedProtocol = "strict",
    seeds: Annotated[
        str, typer.Option(help="How many (3 = 0, 1, 2) or a list (4,7); each drives split and training.")
    ] = "3",
    k: ListLengths = "20",
    groups: Groups = None,
    reference: Annotated[
        str | None, typer.Option(help="Model to compare with; the first one if not given.")
    ] = None,
    margin: Annotated[float, typer.Option(help="Relative loss that still counts as no harm.")] = 0.02,
    max_minutes: Annotated[
        float | None, typer.Option(help="Start no run later than this; those under way are finished.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, each with its share of the cores.")] = 1,
    progress: Annotated[bool, typer.Option(help="Show on stderr which runs are done.")] = True,
    options: LogOptions,
) -> None:
    """Compare models on the same splits of a log, user group by user group.

    Every run is a process of its own, and a file in the output folder: the same command goes on where an
    earlier one was interrupted. A model that fails does so alone.
    """
    output = output.expanduser()
    from greysheep.cli.ids import read_own_groups
    from greysheep.comparison.compare import run_request
    from greysheep.comparison.request import CompareRequest, read_seeds, read_texts
    from greysheep.comparison.run_folder import check_place

    check_place(output, inputs=[log, groups])
    *shorter, longest = read_lengths(k)
    request = CompareRequest(
        models=read_texts(models),
        protocol=protocol,
        seeds=read_seeds(seeds),
        k=longest,
        shorter=shorter,
        reference=reference,
        margin=margin,
        max_minutes=max_minutes,
        jobs=jobs,
    )
    interactions = options.read(log)
    typer.echo(str(interactions.summary))
    try:
        command = _command(log, request, options, seeds, groups, output)
        own = read_own_groups(groups, options, interactions)
        comparison = run_request(
            request, interactions, output, groups=own, progress=progress, command=command
        )
    except KeyboardInterrupt:
        typer.echo(f"finished runs are kept in {output}: the same command goes on", err=True)
        raise
    _finish(comparison, output)


def _finish(comparison: "Comparison", output: Path) -> None:
    """Print the comparison and write its page; exit 3 if some runs failed, an error if all did."""
    if comparison.failures and not comparison.runs:
        first = comparison.failures[0]
        what = f"{len(comparison.failures)} runs failed and none ended well; the first"
        raise ConfigError(f"{what}: {first.label}, seed {first.seed}: {first.message}")
    if comparison.runs and find_spec("matplotlib") is not None:
        from greysheep.report.pages import write_html

        write_html(comparison, output / "report.html")
    typer.echo(f"\n{comparison}\n\nwrote {', '.join(path.name for path in written(output))} to {output}")
    if comparison.failures:
        raise typer.Exit(3)


def _command(
    log: Path, request: "CompareRequest", options: LogOptions, seeds: str, groups: Path | None, output: Path
) -> str:
    """The command that repeats a comparison, with those options of the log that are not the default."""
    from greysheep.comparison.request import joined

    texts = ",".join(joined(request.models))
    command = ["greysheep", "compare", str(log), "--models", texts, "--protocol", request.protocol]
    command += [
        "--seeds",
        seeds,
        "-k",
        ",".join(map(str, (*request.shorter, request.k))),
        "--reference",
        request.reference,
    ]
    command += ["--margin", str(request.margin)]
    command += [] if groups is None else ["--groups", str(groups)]
    defaults = asdict(LogOptions())
    for name, value in asdict(options).items():
        flag = name.replace("_", "-")
        if value != defaults[name]:
            command += (
                [f"--{flag}", str(value)]
                if not isinstance(value, bool)
                else [f"--{'' if value else 'no-'}{flag}"]
            )
    return shlex.join([*command, "-o", str(output)])


def written(output: Path) -> list[Path]:
    """The results that are there."""
    names = ("results.json", "results.csv", "results.md", "report.html")
    return [output / name for name in names if (output / name).is_file()]
