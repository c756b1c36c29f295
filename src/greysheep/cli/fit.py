"""`greysheep fit`: a model folder from a log."""

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from greysheep.cli import options as shared
from greysheep.errors import ConfigError
from greysheep.system.files import check_folder, check_mount


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
    protocol: Annotated[str, typer.Option(help="all, strict, paper or temporal.")] = "all",
    refit: Annotated[
        bool, typer.Option("--refit", help="Train once more on all rows for the best number of epochs.")
    ] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the split and of training; 0.")] = None,
    threads: shared.Threads = None,
    device: shared.Device = None,
    history: Annotated[
        bool, typer.Option(help="Keep the log's rows in the folder; evaluate and recommend need them.")
    ] = True,
    overwrite: shared.Overwrite = False,
    options: shared.LogOptions,
) -> None:
    """Train a model on a log and save it as a folder."""
    check_folder(output, marker="manifest.json", overwrite=overwrite, inputs=[log, config])
    check_mount(output)
    from greysheep.models.config import read_settings

    options_given = {"model": model, "preset": preset, "seed": seed, "threads": threads, "device": device}
    keywords = {"model": "tall", "seed": 0, "progress": True} | read_config(config)
    keywords |= read_settings(settings or [])
    keywords |= {name: value for name, value in options_given.items() if value is not None}

    from greysheep.data.splitting import split
    from greysheep.models import parse

    named = str(keywords.pop("model"))
    recommender = parse(named, **keywords)
    if not history:
        recommender.check_without_rows()
    interactions = options.read(log)
    typer.echo(str(interactions.summary))
    recommender.fit(split(interactions, protocol=protocol, seed=recommender.options.seed), refit=refit)
    recommender.save(output, include_history=history)
    epochs = f", {recommender.epochs} epochs, best {recommender.best_epoch}" if recommender.epochs else ""
    typer.echo(f"trained {recommender.label} in {recommender.train_seconds:.1f} s{epochs}; wrote {output}")


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
