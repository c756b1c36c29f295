"""implicit's side; one BLAS thread, as it asks for (OPENBLAS_NUM_THREADS=1 is set for it)."""

from __future__ import annotations

from typing import Any

import numpy as np
from phase import Case, main


def unfitted(case: Case) -> Any:
    """An iALS with the settings of all sides."""
    from implicit.cpu.als import AlternatingLeastSquares

    given = {"num_threads": case.settings["threads"], "dtype": np.float32, "random_state": 0}
    return AlternatingLeastSquares(**case.settings["ials"], **given)


def everybody(case: Case, model: Any, rows: Any) -> Any:
    """Item codes [U, k]."""
    return model.recommend(np.arange(rows.shape[0]), rows, N=case.settings["k"])[0]


def figure(case: Case, items: Any, users: Any, lists: Any, n: int | None = None) -> dict[str, Any]:
    """NDCG of lists of item codes."""
    return case.ndcg(dict(zip(users[:n].tolist(), items[lists[:n]].tolist(), strict=True)))


def ials_fit(case: Case) -> dict[str, Any]:
    """Factors from a matrix in memory."""
    (rows, users, items), model = case.matrix(), unfitted(case)
    with case.timed():
        model.fit(rows, show_progress=False)
    return figure(case, items, users, everybody(case, model, rows), len(case.some_users()))


def ials_lists(case: Case) -> dict[str, Any]:
    """Everybody's lists from factors in memory."""
    (rows, users, items), model = case.matrix(), unfitted(case)
    model.fit(rows, show_progress=False)
    with case.timed():
        lists = everybody(case, model, rows)
    return figure(case, items, users, lists)


def ials_program(case: Case) -> None:
    """Read the log file, number the ids, fit, keep the factors and the ids."""
    import pyarrow.parquet as pq
    from scipy.sparse import csr_matrix

    table = pq.read_table(case.work / "parts" / "train.parquet")
    users, user = np.unique(table["user_id"].to_numpy(), return_inverse=True)
    items, item = np.unique(table["item_id"].to_numpy(), return_inverse=True)
    rows = csr_matrix((np.ones(len(user), np.float32), (user, item)), shape=(len(users), len(items)))
    model = unfitted(case)
    model.fit(rows, show_progress=False)
    model.save(case.scratch / "model.npz")
    np.savez(case.scratch / "ids.npz", users=users, items=items)


def ials_command(case: Case) -> dict[str, Any]:
    """From a log file to a file of factors, by a script."""
    from implicit.cpu.als import AlternatingLeastSquares

    case.run_here(ials_program)
    model, (rows, users, items) = AlternatingLeastSquares.load(case.scratch / "model.npz"), case.matrix()
    return figure(case, items, users, everybody(case, model, rows), len(case.some_users()))


if __name__ == "__main__":
    main(globals())
