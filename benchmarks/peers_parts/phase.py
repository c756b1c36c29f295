"""What the scripts beside this file share: a clock, the memory, the inputs, and one figure.

They run in the environments of other libraries, where nothing but NumPy and SciPy is sure to be there; those
two are imported late, so that a process that only starts and watches another one stays small.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SOME_USERS = 300
"""Whose lists say whether a model that was only fitted is the same one."""


@dataclass
class Case:
    """One measurement: where its inputs are, where it may write, and what it found."""

    work: Path
    """Made once for all by `by_greysheep.py prepare`."""
    scratch: Path
    settings: dict[str, Any]
    given: list[str]
    """The script, the case and its arguments, to run another function of the same script."""
    seconds: float = 0.0
    peak: int = 0
    log: list[str] = field(default_factory=list)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Add the seconds of what is done inside, and this process's peak."""
        begun = time.perf_counter()
        yield
        self.found(time.perf_counter() - begun)

    def found(self, seconds: float) -> None:
        """Add seconds that a library measured, and this process's peak."""
        self.seconds += seconds
        self.peak = max(self.peak, own_peak())

    def run(self, *command: str) -> None:
        """A whole process, from before its start to its end."""
        begun = time.perf_counter()
        process = subprocess.Popen(  # nosec B603  # no shell; interpreters and programs named here
            command, stdout=subprocess.DEVNULL, stderr=sys.stderr
        )
        _, status, usage = os.wait4(process.pid, 0)
        self.seconds += time.perf_counter() - begun
        self.peak = max(self.peak, usage.ru_maxrss * 1024)
        if status:
            raise SystemExit(1)  # what it said is the end of the log

    def run_here(self, function: Callable[[Case], None]) -> None:
        """A function of the same script as a program of its own."""
        script, _, *rest = self.given
        self.run(sys.executable, script, function.__name__, *rest)

    def ids(self, part: str) -> tuple[Any, Any]:
        """User ids and item ids of the rows of a part: `train`, `validation` or `test`."""
        import numpy as np

        with np.load(self.work / "rows.npz") as rows:
            return rows[f"{part}_user"], rows[f"{part}_item"]

    def codes(self, part: str = "train") -> tuple[Any, Any, Any, Any]:
        """Codes of users and items of a part's rows, and the ids of the train rows' users and items."""
        import numpy as np

        users, items = map(np.unique, self.ids("train"))
        theirs, its = self.ids(part)
        known = np.isin(theirs, users) & np.isin(its, items)
        return np.searchsorted(users, theirs[known]), np.searchsorted(items, its[known]), users, items

    def matrix(self, dtype: str = "float32") -> tuple[Any, Any, Any]:
        """Train rows [U, I], user ids, item ids."""
        import numpy as np
        from scipy.sparse import csr_matrix

        user, item, users, items = self.codes()
        rows = csr_matrix((np.ones(len(user), dtype), (user, item)), shape=(len(users), len(items)))
        return rows, users, items

    def some_users(self) -> Any:
        """The first users' ids."""
        import numpy as np

        return np.unique(self.ids("train")[0])[:SOME_USERS]

    def ndcg_of_frame(self, users: Any, items: Any) -> dict[str, float]:
        """NDCG of lists in one long frame: each user's rows together, the best first."""
        lists: dict[Any, list[Any]] = {}
        for user, item in zip(list(users), list(items), strict=True):
            lists.setdefault(user, []).append(item)
        return self.ndcg(lists)

    def ndcg(self, lists: Mapping[Any, Sequence[Any]]) -> dict[str, float]:
        """Mean NDCG at k over the users of these lists who have test rows; the ideal list is cut at k."""
        import numpy as np

        k, held = int(self.settings["k"]), dict[Any, set[Any]]()
        for user, item in zip(*map(np.ndarray.tolist, self.ids("test")), strict=True):
            held.setdefault(user, set()).add(item)
        gains = 1 / np.log2(np.arange(2, k + 2))
        values = [
            sum(gains[place] for place, item in enumerate(list(items)[:k]) if item in held[user])
            / gains[: len(held[user])].sum()
            for user, items in lists.items() if user in held
        ]  # fmt: skip
        return {f"ndcg@{k}": float(np.mean(values)), "users": len(values)}


def own_peak() -> int:
    """Most memory this process ever had, in bytes; not what the one that started it had (as ru_maxrss)."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def top(scores: Any, seen: Any, items: Any, k: int) -> Any:
    """Item ids [n, k] of the largest scores [n, I] outside the seen rows [n, I]; for the figure only."""
    import numpy as np

    scores = np.array(scores, dtype=np.float64)
    scores[seen.nonzero()] = -np.inf
    return items[np.argsort(-scores, axis=1, kind="stable")[:, :k]]


def main(functions: Mapping[str, Any]) -> None:
    """`script.py CASE WORK SCRATCH SETTINGS`: do a case; print seconds, peak and figure as a line of JSON.

    A function that returns nothing is a program of its own, which a case runs; it prints nothing here.
    """
    name, work, scratch, settings = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints goes to the log
    case = Case(Path(work), Path(scratch), json.loads(settings), sys.argv)
    figure = functions[name](case)
    if figure is not None:
        answer = {"seconds": case.seconds, "peak": case.peak, "figure": figure}
        print(json.dumps(answer), file=answers, flush=True)
