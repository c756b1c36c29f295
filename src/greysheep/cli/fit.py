"""`greysheep fit`: a model folder from a log."""

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from greysheep.cli import options as shared
from greysheep.errors import ConfigError, ModelFolderError, warn
from greysheep.system.drafts import no_empty_folders
from greysheep.system.files import check_folder, check_mount
from greysheep.system.signals import ctrl_c_waits


@shared.with_log_options
def fit(
    *,
    log: shared.Log,
    output: Annotated[Path, shared.output_option("Model folder. It holds personal data: ids and rows.")],
    model: Annotated[
        str | None, typer.Option(help="Registry name or variant: 'tall[gate=uniform]'; tall if not given.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="The paper's settings for ml-1m, yelp or cds; the options below override."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file of settings by name, `model` and `preset` included.")
    ] = None,
    settings: Annotated[list[str] | None, shared.set_option("One setting, over --config; repeat it.")] = None,
    protocol: Annotated[
        str,
        typer.Option(help="all, strict, paper, temporal, leave-last[n=1] or global-time[test=0.2]."),
    ] = "all",
    groups: shared.Groups = None,
    refit: Annotated[
        bool, typer.Option("--refit", help="Train once more on all rows for the best number of epochs.")
    ] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the split and of training; 0.")] = None,
    threads: shared.Threads = None,
    device: shared.Device = None,
    history: Annotated[
        bool, typer.Option(help="Keep the log's rows in the folder; evaluate and recommend need them.")
    ] = True,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a training that was killed, to the same result.")
    ] = False,
    overwrite: shared.Overwrite = False,
    options: shared.LogOptions,
) -> None:
    """Train a model on a log and save it as a folder.

    Ctrl-C after the first epoch ends the training and saves the best weights so far. A training that is
    killed leaves checkpoints beside the output, in .NAME.checkpoints: the same command with --resume goes on
    from them, and without it is refused, unless --overwrite throws them away.
    """
    check_folder(output, marker="manifest.json", overwrite=overwrite, inputs=[log, config, groups])
    check_mount(output)
    output = output.expanduser()
    place = output.resolve()
    checkpoints = place.with_name(f".{place.name}.checkpoints")
    from greysheep.models.config import read_settings

    options_given = {"model": model, "preset": preset, "seed": seed, "threads": threads, "device": device}
    keywords = {"model": "tall", "seed": 0, "progress": True} | read_config(config)
    keywords |= read_settings(settings or [])
    keywords |= {name: value for name, value in options_given.items() if value is not None}

    from greysheep.cli.ids import read_own_groups
    from greysheep.data.splitting import split
    from greysheep.models import parse
    from greysheep.models.training.checkpoints import remove

    named = str(keywords.pop("model"))
    recommender = parse(named, **keywords)
    if not history:
        recommender.check_without_rows()
    if not resume:
        _make_way(checkpoints, overwrite)
    interactions = options.read(log)
    typer.echo(str(interactions.summary))
    own = read_own_groups(groups, options, interactions)
    parts = split(interactions, protocol=protocol, seed=recommender.options.seed, groups=own)
    try:
        with no_empty_folders(place.parent):  # which the checkpoints may have made
            recommender.fit(parts, refit=refit, checkpoints=checkpoints, resume=resume)
            with ctrl_c_waits(unless=recommender.interrupted) as pressed:
                recommender.save(output, include_history=history)
    except (KeyboardInterrupt, SystemExit, ModelFolderError):
        _say_what_is_left(checkpoints, "--resume")
        raise
    epochs = f", {recommender.epochs} epochs, best {recommender.best_epoch}" if recommender.epochs else ""
    typer.echo(f"trained {recommender.label} in {recommender.train_seconds:.1f} s{epochs}; wrote {output}")
    if recommender.interrupted:
        _say_what_is_left(checkpoints, "--resume --overwrite")
        raise typer.Exit(130)
    remove(checkpoints)
    if pressed:
        raise typer.Exit(130)


def _make_way(checkpoints: Path, overwrite: bool) -> None:
    """Throw away what an earlier training left, or refuse to.

    Raises:
        ConfigError: there is something, and nobody said that it may go.
    """
    from greysheep.models.training.checkpoints import remove, unfinished

    what = unfinished(checkpoints)
    if what and not overwrite:
        raise ConfigError(
            f"{checkpoints} holds {what}: add --resume to go on with it, or --overwrite to start again"
        )
    if what:
        warn(f"{what} is thrown away: {checkpoints}", 1)
        remove(checkpoints)


def _say_what_is_left(checkpoints: Path, how: str) -> None:
    """Say how to go on, where there are checkpoints."""
    from greysheep.models.training.checkpoints import unfinished

    if what := unfinished(checkpoints):
        typer.echo(f"{checkpoints} keeps {what}: the same command with {how} goes on", err=True)


def read_config(path: Path | None) -> dict[str, Any]:
    """Read a YAML file of settings.

    Raises:
        ConfigError: The file is missing, no YAML, or not a mapping of names to values.
    """
    if path is None:
        return {}
    if not path.is_file():
        raise ConfigError(f"config file {path} does not exist")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {path} is no YAML: {error}") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"config file {path} is not a mapping of settings (`name: value` lines)")
    return values
