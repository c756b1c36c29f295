"""The commands and the code of the pages on batch lists, upkeep, export and tracking run as they stand."""

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest

import greysheep as gs
from greysheep.cli import run

DOCS = Path(__file__).parents[1] / "docs"
PAGES: dict[str, tuple[str, ...]] = {"batch": (), "upkeep": ()}
"""Pages, and the modules that what they show needs beside greysheep's own."""


def steps(page: str) -> list[str]:
    """Commands, and Python blocks, in the order of the page."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    found = re.findall(r"^    greysheep ([^#\n]+)|^```python\n(.*?)^```", text, flags=re.M | re.S)
    return [command.strip() or code for command, code in found]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for module in PAGES[page]:
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    monkeypatch.chdir(tmp_path)
    rows = gs.simulate(n_users=60, n_items=40, rows_per_user=15, seed=0).log.frame()
    rows = rows.with_columns(rows["user_id"].replace({"u0-00": "alice", "u1-06": "bob"}))
    rows.write_parquet("log.parquet")
    new = rows.filter(pl.col("user_id") == "bob").with_columns(user_id=pl.lit("new"))
    new.write_parquet("today.parquet")
    pl.DataFrame({"user_id": rows["user_id"].unique().sort().tail(2)}).write_csv("leavers.csv")
    pl.DataFrame({"user_id": ["alice", "bob"]}).write_csv("users.csv")
    todo = steps(page)
    assert todo
    names: dict[str, object] = {}
    for step in todo:
        if "\n" in step:
            exec(step, names)
        else:
            assert run(shlex.split(step)) == 0, step
