"""The main job on a small real data set: read, split, train four models, see who is badly served."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from greysheep.cli.options import Seed, output_option
from greysheep.errors import ConfigError, DataError, MissingExtraError
from greysheep.system.files import check_file

if TYPE_CHECKING:
    from greysheep.data.datasets import Dataset
    from greysheep.evaluation.report import Report
    from greysheep.models.base import Model

K = 20
EPOCHS = 40
STEPS = 8
REFERENCE = "multvae"


def demo(
    *,
    output: Annotated[Path, output_option("Page to write.")] = Path("report.html"),
    data: Annotated[str, typer.Option(help="A name of `greysheep data list`.")] = "ml-100k",
    seed: Seed = 0,
    epochs: Annotated[int | None, typer.Option(min=1, help="The most epochs; 40 if not given.")] = None,
) -> None:
    """Run the main job on a small real data set and write report.html."""
    check_file(output, suffixes=(".html", ".htm"))
    run_demo(output, dataset=data, seed=seed, epochs=epochs, echo=typer.echo)


def run_demo(
    output: Path | str,
    *,
    dataset: str = "ml-100k",
    seed: int = 0,
    epochs: int | None = None,
    echo: Callable[[str], object] = print,
) -> list[Report]:
    """Train and compare four models under protocol `strict`, print a table by group, write a page.

    Args:
        output: HTML file to write, or a folder for report.html.
        dataset: A name `datasets.load` knows; where it is not reachable, simulated data take its place.
        seed: Of the split and of every model.
        epochs: The most epochs of the two iterative models; 40, about half a minute, if not given.
        echo: Takes one line or table of progress at a time.

    Returns:
        The reports of popular, ease-weighted, multvae and tall, in this order.

    Raises:
        MissingExtraError: matplotlib is not installed; found out before the work begins.
        ConfigError: The output cannot be written, or a number is out of range.
        DataError: There is no data set of this name.
    """
    from greysheep.data import splitting
    from greysheep.evaluation.evaluate import evaluate
    from greysheep.evaluation.report import text_table
    from greysheep.report.pages import headline

    target = _target(Path(output).expanduser())
    if find_spec("matplotlib") is None:
        raise MissingExtraError("report", "the demo's page")
    progress = _Progress(echo)
    progress(f"reading {dataset}")
    data = _load(dataset, echo)
    echo(str(data.log.summary))
    progress(f"splitting each user's rows, protocol strict, seed {seed}")
    split = splitting.split(data.log, protocol="strict", seed=seed)
    parts = [f"{row['part']} {row['rows']:,}" for row in split.summary().iter_rows(named=True)]
    echo(f"{', '.join(parts)} rows")
    models = _models(seed, EPOCHS if epochs is None else epochs)
    for model in models:
        most = getattr(model.config, "epochs", 0)
        progress(f"training {model.label}" + (f", at most {most} epochs" if most else ""))
        model.fit(split)
    progress(f"ranking all items for every user, NDCG@{K} on her test rows")
    reports = [evaluate(model, split, k=K) for model in models]
    progress(f"writing {target}")
    _write(target, data, models, reports)
    echo(f"\nNDCG@{K} of the test rows by mainstream group, most niche users first\n{text_table(reports)}\n")
    echo(headline(reports))
    echo(f"Done in {progress.seconds():.0f} s; open {target}")
    return reports


class _Progress:
    """Numbers the steps and says how long it took so far."""

    def __init__(self, echo: Callable[[str], object]):
        self.echo, self.step, self.begun = echo, 0, time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self.begun

    def __call__(self, text: str) -> None:
        self.step += 1
        self.echo(f"[{self.step}/{STEPS}, {self.seconds():3.0f} s] {text}")


def _target(output: Path) -> Path:
    """The file to write, refused before the work rather than after it."""
    target = output / "report.html" if output.is_dir() else output
    if target.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(
            f"output {target} ends in {target.suffix or 'nothing'!r}: name an .html file or a folder"
        )
    place = next(parent for parent in target.absolute().parents if parent.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise ConfigError(f"output {target} cannot be written: no permission to write in {place}")
    return target


def _load(dataset: str, echo: Callable[[str], object]) -> Dataset:
    from greysheep.data import datasets

    try:
        return datasets.load(dataset)
    except DataError as error:
        if dataset not in datasets.names():
            raise
        echo(f"{dataset} is not reachable: {error}")
        echo("Going on with simulated users, a tenth of them a minority in taste.")
        return datasets.simulate()


def _models(seed: int, epochs: int) -> list[Model]:
    """The four models. Batch and gap fit a log of a thousand users; they were set on validation rows.

    One thread each: on matrices this small a second one costs more than it brings.
    """
    from greysheep.models import TALL, MultVAE, Popular, WeightedEASE

    shared: dict[str, Any] = {"epochs": epochs, "batch_size": 64, "seed": seed, "threads": 1}
    return [
        Popular(seed=seed),
        WeightedEASE(seed=seed, threads=1),
        MultVAE(**shared),
        TALL(n_experts=10, start_epoch=min(15, epochs // 2), **shared),
    ]


def _write(target: Path, data: Dataset, models: list[Model], reports: list[Report]) -> None:
    from greysheep.report.pages import niche_examples, write_html

    shown = [model for model in models if model.name != "popular"]
    log = data.log
    rows = f"{len(log):,} rows, {log.n_users:,} users, {log.n_items:,} items"
    write_html(
        reports,
        target,
        examples=niche_examples(shown, titles=data.titles),
        title=f"greysheep demo: {data.name}, protocol strict, seed {reports[0].seed}",
        reference=REFERENCE,
        facts={"Data": f"{data.name}: {rows}; every row counts as chosen; no filter"},
    )
