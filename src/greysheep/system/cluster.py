"""Ray, where it is installed: connected once; what fails on it is said in one line of our own."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from greysheep.errors import GreysheepError, MissingExtraError, ProcessEndedError, first_line
from greysheep.system.machine import usable_cores


def connect() -> Any:
    """The module `ray`, connected to the cluster that RAY_ADDRESS names, else to one of this machine's cores.

    Raises:
        MissingExtraError: Ray is not installed.
        ProcessEndedError: there is no cluster at that address, or none can be started.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a library calls nobody
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")  # a busy machine takes its time
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("ray", "the engine ray") from error
    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS")
        try:
            ray.init(
                address=address,
                num_cpus=None if address else usable_cores(),
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (Exception, ray.exceptions.RayError) as error:  # it raises plain Exceptions, too
            where = f"no Ray cluster at RAY_ADDRESS={address}" if address else "Ray cannot be started here"
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
