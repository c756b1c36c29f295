"""Lists of another library, to be audited: the models of `implicit` on the train rows of a split.

    greysheep split LOG -o SPLIT --protocol strict
    python benchmarks/implicit_lists.py SPLIT -o als.parquet --model als
    python benchmarks/implicit_lists.py SPLIT -o bm25.parquet --model bm25
    greysheep audit LOG --split SPLIT --recs als.parquet --recs bm25.parquet --items ITEMS --html audit.html

It reads nothing but the parquet files of the parts, as any team's own recommender would.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import polars as pl
from implicit.als import AlternatingLeastSquares
from implicit.nearest_neighbours import BM25Recommender
from implicit.recommender_base import RecommenderBase
from scipy.sparse import csr_matrix


def lists_of(folder: Path, model: RecommenderBase, k: int) -> pl.DataFrame:
    """Top-k lists of everybody in the split: user_id, item_id, rank."""
    protocol = json.loads((folder / "split.json").read_text())["protocol"]
    # what a recommender may have seen; the audit counts such items of a list as misses
    seen = ("train",) if protocol == "paper" else ("train", "gate", "validation")
    parts = [folder / f"{name}.parquet" for name in seen]
    rows = pl.concat([pl.read_parquet(part) for part in parts if part.is_file()])
    users, items = rows["user_id"].unique().sort(), rows["item_id"].unique().sort()
    places = (users.search_sorted(rows["user_id"]), items.search_sorted(rows["item_id"]))
    matrix = csr_matrix((np.ones(rows.height, np.float32), places), (len(users), len(items)))
    model.fit(matrix, show_progress=False)
    found, _ = model.recommend(range(len(users)), matrix, N=k, filter_already_liked_items=True)
    return pl.DataFrame(
        {
            "user_id": users.gather(np.repeat(np.arange(len(users)), k)),
            "item_id": items.gather(found.ravel()),
            "rank": np.tile(np.arange(1, k + 1), len(users)),
        }
    )


def main(arguments: list[str] | None = None) -> None:
    """Make the lists of one model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("split", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--model", choices=["als", "bm25"], default="als")
    parser.add_argument("--k", type=int, default=20)
    options = parser.parse_args(arguments)
    begun = time.perf_counter()
    if options.model == "als":
        model = AlternatingLeastSquares(factors=64, alpha=10, iterations=15, random_state=0)
    else:
        model = BM25Recommender(K=100, K1=1.2, B=0.2)
    lists = lists_of(options.split, model, options.k)
    lists.write_parquet(options.output)
    seconds = time.perf_counter() - begun
    print(
        f"{options.model}: {lists.height:,} places for {lists['user_id'].n_unique():,} users, {seconds:.0f} s"
    )


if __name__ == "__main__":
    main()
