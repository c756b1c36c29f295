"""Ray, where it is installed: connected once; what fails on it is said in one line of our own."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from greysheep.errors import GreysheepError, MissingExtraError, ProcessEndedError, first_line
from greysheep.system.machine import usable_cores

TRIES = 3
"""Starts of a cluster of this machine: Ray gives a busy one half a minute."""


def connect() -> Any:
    """The module `ray`, connected to the cluster that RAY_ADDRESS names, else to one of this machine's cores.

    Raises:
        MissingExtraError: Ray is not installed.
        ProcessEndedError: there is no cluster at that address, or none can be started.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a library calls nobody
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what fails is said once, by us
    try:
        ray: Any = import_module("ray")
    except ImportError as error:
        raise MissingExtraError("ray", "the engine ray") from error
    address, tries = os.environ.get("RAY_ADDRESS"), 0
    own: dict[str, Any] = {"num_cpus": usable_cores(), "include_dashboard": False}
    while not ray.is_initialized():
        tries += 1
        try:
            ray.init(
                address=address, log_to_driver=False, logging_level=logging.ERROR, **({} if address else own)
            )
        except (Exception, ray.exceptions.RayError) as error:  # it raises plain Exceptions, too
            ray.shutdown()
            if address or tries == TRIES:
                where = f"there is no Ray cluster at RAY_ADDRESS={address}"
                if not address:
                    where = "Ray cannot be started here"
                raise ProcessEndedError(f"{where}: {first_line(error)}") from None
    return ray


@contextmanager
def failures() -> Iterator[None]:
    """Turn what Ray says of a task that failed into an error of our own: that of the task, if it was one.

    Raises:
        ProcessEndedError: a task or a machine failed more often than Ray tries again.
    """
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, GreysheepError):
            cause = getattr(cause, "cause", None) or cause.__cause__
        if cause is not None:
            raise type(cause)(str(cause)) from None
        raise ProcessEndedError(f"work on Ray failed: {first_line(error)}") from None


def cores_each(jobs: int) -> int:
    """Cores of each of `jobs` tasks at a time: its share of the cluster's, and no more than a machine has."""
    ray = connect()
    share = int(ray.cluster_resources().get("CPU", 1)) // jobs
    most = max((int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]), default=1)
    return max(1, min(share, most))
