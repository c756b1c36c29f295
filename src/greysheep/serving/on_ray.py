"""Parts of lists made on Ray: Ray Data gives out their numbers, and each worker writes what it is given.

Nothing of our own goes between machines: all of them see the folders of the model and of the lists.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from greysheep.errors import ConfigError
from greysheep.models.base import Model
from greysheep.models.lists import Asked
from greysheep.models.recommender import Recommender
from greysheep.system.cluster import connect, failures


class Parts(Protocol):
    """Where parts go."""

    def write(self, model: Recommender, asked: Asked, number: int) -> None:
        """Make one."""


class Maker:
    """A worker: it reads the model once, and makes the parts whose numbers it is given."""

    def __init__(self, model: str, asked: list[Any], parts: Parts):
        import ray

        from greysheep.models.registry import load

        self.model, self.parts = load(model, verify=False), parts
        self.asked: Asked = ray.get(asked[0])

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Make parts; one that was begun before its worker was killed is made again from its beginning."""
        for number in batch["item"]:
            self.parts.write(self.model, self.asked, int(number))
        return batch


def write_parts(
    model: Recommender,
    asked: Asked,
    parts: Parts,
    missing: list[int],
    workers: int | None,
    step: Callable[[], None],
) -> None:
    """Make the missing parts on the connected cluster.

    Raises:
        ConfigError: the model is no model that can be saved, as workers read it from its folder.
        MissingExtraError: Ray is not installed.
    """
    if not isinstance(model, Model):
        raise ConfigError(f"a {model.name} has no folder that Ray's workers could read: give a model")
    if not missing:
        return
    ray = connect()
    data = import_module("ray.data")
    most = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    data.DataContext.get_current().enable_progress_bars = False
    with ExitStack() as stack, failures():
        folder = model.fitted.folder
        if folder is None:
            folder = Path(stack.enter_context(TemporaryDirectory())) / "model"
            model.save(folder)
        done = data.from_items(missing, override_num_blocks=len(missing)).map_batches(
            Maker,
            fn_constructor_args=(str(folder.resolve()), [ray.put(asked)], parts),
            batch_size=1,
            compute=data.ActorPoolStrategy(min_size=1, max_size=min(most, len(missing))),
            num_cpus=1,
        )
        for _ in done.iter_rows():
            step()
