"""The protocols, held to the rules of the contract user by user."""

import datetime as dt
import hashlib
import json
import os
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import greysheep as gs
from greysheep.data.interactions import Interactions
from greysheep.data.splitting import (
    GATE,
    PARTS,
    PROTOCOLS,
    TEST,
    TRAIN,
    VALIDATION,
    Split,
    split,
    unseen_gate_mask,
)
from greysheep.errors import ConfigError, DataError

ROOT = Path(__file__).resolve().parents[1]
DATA = (ROOT / os.environ.get("GREYSHEEP_DATA", "../shared/data")).resolve()
SEEDS = st.integers(0, 5)


@st.composite
def logs(draw, with_times=True):
    """Small logs with users of one row up to sixty."""
    sizes = draw(st.lists(st.one_of(st.integers(1, 5), st.integers(1, 60)), min_size=1, max_size=12))
    pairs = [(u, i) for u, n in enumerate(sizes) for i in range(n)]
    times = draw(st.lists(st.integers(0, 9), min_size=len(pairs), max_size=len(pairs)))
    frame = pl.DataFrame(pairs, schema=["user_id", "item_id"], orient="row")
    return frame.with_columns(pl.Series("timestamp", times)) if with_times else frame


def counts(s):
    """[U, 4] rows of each user in each part."""
    return np.stack(
        [np.bincount(s.log.users[s.part == c], minlength=s.log.n_users) for c in range(4)], axis=1
    )


def placed(s):
    """{(user, item): part} by ids."""
    return {
        pair: int(p)
        for pair, p in zip(s.log.frame().select("user_id", "item_id").rows(), s.part, strict=True)
    }


@pytest.mark.filterwarnings("ignore:protocol 'global-time")
@pytest.mark.parametrize("protocol", PROTOCOLS)
@settings(max_examples=30, deadline=None)
@given(frame=logs(), seed=SEEDS, random=st.randoms())
def test_parts_are_disjoint_complete_repeatable_and_leave_a_train_row(protocol, frame, seed, random):
    log = Interactions.read(frame)
    s = split(log, protocol, seed)
    assert s.part.dtype == np.int8
    assert s.part.shape == (len(s.log),)
    assert set(s.part.tolist()) <= {0, 1, 2, 3}
    together = sum(s.rows(p) for p in PARTS)
    assert s.log is log or protocol == "global-time"  # which leaves out who has no row before its cut
    assert (together != s.log.matrix()).nnz == 0
    assert together.nnz == len(s.log)
    assert (counts(s)[:, TRAIN] >= 1).all()
    assert (split(log, protocol, seed).part == s.part).all()
    order = list(range(frame.height))
    random.shuffle(order)
    assert placed(split(Interactions.read(frame[order]), protocol, seed)) == placed(s)


@settings(max_examples=50, deadline=None)
@given(frame=logs(), seed=SEEDS)
def test_paper_and_strict(frame, seed):
    log = Interactions.read(frame)
    paper, strict = split(log, "paper", seed), split(log, "strict", seed)
    for code in (TRAIN, TEST):
        assert ((paper.part == code) == (strict.part == code)).all()
    assert not (paper.part == GATE).any()
    c, sizes = counts(paper), np.bincount(log.users)
    assert (c[sizes >= 3][:, [TRAIN, VALIDATION, TEST]] >= 1).all()
    assert (c[sizes == 2][:, TRAIN] == 1).all()
    dealt = counts(strict)
    assert (dealt[:, GATE] + dealt[:, VALIDATION] == c[:, VALIDATION]).all()
    assert (np.abs(dealt[:, GATE] - dealt[:, VALIDATION]) <= 1).all()


def naive_paper(log, seed):
    """Oracle: the shuffle is the library's, every move is made user by user with lists."""
    n = len(log)
    order = np.random.default_rng(seed).permutation(n).tolist()
    cut = round(0.1 * n)
    part = dict.fromkeys(order, TRAIN)
    part.update(dict.fromkeys(order[:cut], VALIDATION))
    part.update(dict.fromkeys(order[cut : cut + round(0.2 * n)], TEST))
    for user in range(log.n_users):
        mine = [row for row in order if log.users[row] == user]

        def of(code, mine=mine):
            return [row for row in mine if part[row] == code]

        if not of(TRAIN):
            donor = TEST if len(of(TEST)) >= len(of(VALIDATION)) else VALIDATION
            part[of(donor)[0]] = TRAIN
        for code in (VALIDATION, TEST):
            if not of(code) and len(of(TRAIN)) > 1:
                part[of(TRAIN)[0]] = code
        for code, donor in ((VALIDATION, TEST), (TEST, VALIDATION)):
            if not of(code) and len(of(donor)) > 1:
                part[of(donor)[0]] = code
    return [part[row] for row in range(n)]


@settings(max_examples=50, deadline=None)
@given(frame=logs(with_times=False), seed=SEEDS)
def test_paper_is_what_a_loop_would_do(frame, seed):
    log = Interactions.read(frame)
    assert split(log, "paper", seed).part.tolist() == naive_paper(log, seed)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_paper_for_many_users_of_few_rows(n):
    """Every way in which a few rows can fall turns up among 400 users."""
    frame = pl.DataFrame({"user_id": np.repeat(np.arange(400), n), "item_id": np.tile(np.arange(n), 400)})
    log = Interactions.read(frame)
    assert split(log, "paper").part.tolist() == naive_paper(log, 0)


def test_paper_shares_of_a_larger_log():
    frame = pl.DataFrame({"user_id": np.repeat(np.arange(50), 200), "item_id": np.tile(np.arange(200), 50)})
    s = split(Interactions.read(frame), "paper")
    assert s.summary()["rows"].to_list() == [7000, 0, 1000, 2000]
    assert (split(s.log, "paper", 1).part != s.part).any()


def test_the_coin_of_strict_is_fair_and_seeded():
    """Of users with one validation row, about half give it to the gate, others with another seed."""
    frame = pl.DataFrame({"user_id": np.repeat(np.arange(600), 3), "item_id": np.tile(np.arange(3), 600)})
    log = Interactions.read(frame)
    gates = [counts(split(log, "strict", seed))[:, GATE] > 0 for seed in (0, 1)]
    assert all(230 < g.sum() < 370 for g in gates)
    assert (gates[0] != gates[1]).sum() > 200


def quota(share, n):
    return max(1, round(share * n))


@settings(max_examples=50, deadline=None)
@given(frame=logs(), seed=SEEDS)
def test_quotas_of_all(frame, seed):
    log = Interactions.read(frame)
    s = split(log, "all", seed)
    for n, (train, gate, validation, test) in zip(
        np.bincount(log.users).tolist(), counts(s).tolist(), strict=True
    ):
        assert test == 0
        assert 2 * train >= n
        if n >= 4:
            assert gate == validation == quota(0.05, n)
        else:
            assert gate + validation == n // 2


@settings(max_examples=50, deadline=None)
@given(frame=logs(), seed=SEEDS)
def test_temporal_follows_time(frame, seed):
    log = Interactions.read(frame)
    s = split(log, "temporal", seed)
    times = log.times.to_numpy()
    for user in range(log.n_users):
        mine = log.users == user
        n = int(mine.sum())
        sizes = [int((s.part[mine] == c).sum()) for c in range(4)]
        if n < 4:
            assert sizes == [n, 0, 0, 0]
            continue
        held = quota(0.05, n)
        assert sizes == [n - 2 * held - quota(0.2, n), held, held, quota(0.2, n)]
        for earlier in range(3):
            assert times[mine & (s.part == earlier)].max() <= times[mine & (s.part == earlier + 1)].min()


def test_temporal_orders_equal_times_by_seed():
    frame = pl.DataFrame({"user_id": [1] * 50, "item_id": range(50), "timestamp": [3] * 50})
    log = Interactions.read(frame)
    assert (split(log, "temporal", 0).part != split(log, "temporal", 1).part).any()


@pytest.mark.parametrize(
    "times",
    [
        pl.Series([dt.date(2020, 1, d) for d in range(1, 11)]),
        pl.Series([dt.datetime(2020, 1, 1, h) for h in range(10)]),
        pl.Series([x / 10 - 0.5 for x in range(10)]),
        pl.Series(range(10), dtype=pl.UInt8),
    ],
    ids=lambda s: str(s.dtype),
)
def test_temporal_takes_any_kind_of_time(times):
    frame = pl.DataFrame({"user_id": [1] * 10, "item_id": range(10), "timestamp": times})
    assert split(Interactions.read(frame), "temporal").part.tolist() == [0] * 6 + [1, 2, 3, 3]


def naive_leave_last(log, seed, n):
    """Oracle: user by user with lists; equal times in the library's shuffled order."""
    shuffled = np.random.default_rng(seed).permutation(len(log))
    part = [TRAIN] * len(log)
    for user in range(log.n_users):
        mine = [row for row in range(len(log)) if log.users[row] == user]
        mine.sort(key=lambda row: (log.times[row], shuffled[row]))
        if len(mine) <= n:
            continue
        held = quota(0.05, len(mine))
        for code, size in ((TEST, n), (VALIDATION, held), (GATE, held)):
            for _ in range(min(size, len(mine) - 1)):
                part[mine.pop()] = code
    return part


@pytest.mark.parametrize("n", [1, 3])
@settings(max_examples=30, deadline=None)
@given(frame=logs(), seed=SEEDS)
def test_leave_last_is_what_a_loop_would_do(n, frame, seed):
    log = Interactions.read(frame)
    s = split(log, f"leave-last[n={n}]", seed)
    assert s.part.tolist() == naive_leave_last(log, seed, n)


@pytest.mark.filterwarnings("ignore:protocol 'global-time")
@settings(max_examples=50, deadline=None)
@given(frame=logs(), seed=SEEDS, share=st.sampled_from([0.05, 0.2, 0.5, 0.97]))
def test_global_time_has_one_cut_for_everybody(frame, seed, share):
    log = Interactions.read(frame)
    s = split(log, f"global-time[test={share}]", seed)
    times, test = s.log.times.to_numpy(), s.part == TEST
    if log.times.n_unique() == 1:
        assert not test.any() and s.log is log
        return
    cut = times[~test].max()
    early = frame.filter(pl.col("timestamp") <= cut)
    assert test.tolist() == (times > cut).tolist()
    # no other cut comes closer to the share
    later = [(frame["timestamp"] > other).mean() for other in frame["timestamp"].unique()]
    assert abs((frame["timestamp"] > cut).mean() - share) <= min(abs(one - share) for one in later if one > 0)
    assert sorted(s.log.user_ids) == sorted(early["user_id"].unique())
    kept = frame.filter(pl.col("user_id").is_in(s.log.user_ids.implode()))
    assert (
        s.log.frame()
        .sort("user_id", "item_id")
        .equals(Interactions.read(kept).frame().sort("user_id", "item_id"))
    )
    for user in range(s.log.n_users):
        mine = s.log.users == user
        assert times[mine & (s.part == TRAIN)].min() == times[mine].min()
    bounds = [times[s.part == code] for code in (GATE, VALIDATION, TEST) if (s.part == code).any()]
    for earlier, later in pairwise(bounds):
        assert earlier.max() < later.min()


def test_global_time_counts_whom_it_leaves_out():
    rows = {"user_id": ["old"] * 4 + ["new"] * 2, "item_id": [1, 2, 3, 4, 8, 9], "timestamp": range(6)}
    with pytest.warns(gs.GreysheepWarning, match="leaves out 1 of 2 users, who have no row .* 2 rows"):
        s = split(pl.DataFrame(rows), "global-time[test=0.5]")
    assert (s.log.user_ids.to_list(), s.log.item_ids.to_list()) == (["old"], [1, 2, 3, 4])
    assert s.part.tolist() == [TRAIN, TRAIN, GATE, TEST]
    same = pl.DataFrame(rows | {"timestamp": [7] * 6})
    with pytest.raises(DataError, match="'global-time' left no test rows: no user has rows before and after"):
        gs.evaluate(gs.Popular().fit(split(same, "global-time")))
    with pytest.raises(
        DataError, match="left no test rows: no user has more than 4 rows, and only one with 10"
    ):
        gs.evaluate(gs.Popular().fit(split(same, "leave-last[n=9]")))


def test_protocols_with_a_setting(tmp_path, ten):
    assert split(ten, "leave-last[n=1]").protocol == split(ten, "leave-last").protocol == "leave-last"
    s = split(ten, " leave-last[ n = 3 ]".strip())
    assert s.protocol == "leave-last[n=3]" and s.summary()["rows"].to_list() == [5, 1, 1, 3]
    s.write(tmp_path)
    assert Split.read(tmp_path).protocol == "leave-last[n=3]"
    gs.Popular().fit(s).save(tmp_path / "model")
    assert gs.load(tmp_path / "model").split.protocol == "leave-last[n=3]"
    for wrong, why in {
        "leave-last[n=0]": "leave-last: n=0 is not a whole number of at least 1",
        "leave-last[n=1.5]": "n='1.5' is not a whole number",
        "leave-last[last=3]": "leave-last has one setting, n",
        "global-time[test=1]": "global-time: test=1.0 is not a number .* below 1",
        "global-time[test=0]": "test=0.0 is not a number",
        "global-time[test=nan]": "test=nan is not a number",
        "strict[n=1]": "strict has no settings",
        "leave-last[n=1": "there is no protocol",
        7: "there is no protocol 7",
    }.items():
        with pytest.raises(ConfigError, match=why):
            split(ten, wrong)


def test_mistakes():
    log = Interactions.read(pl.DataFrame({"user_id": [1], "item_id": [1]}))
    with pytest.raises(DataError, match="needs times"):
        split(log, "temporal")
    with pytest.raises(ConfigError, match="choose one of all, paper, strict, temporal"):
        split(log, "random")
    for seed in (-1, "a", 1.5):
        with pytest.raises(ConfigError, match=f"seed={seed!r} is not a whole number"):
            split(log, "all", seed)
    assert split(log, "all", np.int64(1)).seed == 1
    with pytest.raises(ConfigError, match="stage"):
        split(log, "all").input_rows("train")


@pytest.fixture
def ten():
    """One user with ten weighted rows in order of time."""
    frame = pl.DataFrame({"user_id": ["u"] * 10, "item_id": range(10), "timestamp": range(10)})
    return Interactions.read(frame.with_columns(weight=pl.col("item_id") + 0.5))


def test_rows_that_models_see(ten):
    def items(matrix):
        return matrix.indices.tolist()

    s = split(ten, "temporal")
    assert items(s.train_rows(gated=True)) == [0, 1, 2, 3, 4, 5]
    assert items(s.train_rows(gated=False)) == [0, 1, 2, 3, 4, 5, 6]
    assert items(s.gate_rows()) == [6]
    assert items(s.rows("test")) == [8, 9]
    assert items(s.input_rows("validation")) == [0, 1, 2, 3, 4, 5, 6]
    assert items(s.input_rows("test")) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert items(s.input_rows("serving")) == list(range(10))
    assert s.rows("test", weighted=True).data.tolist() == [8.5, 9.5]
    assert s.train_rows(gated=True, weighted=True).data[0] == 0.5
    assert s.input_rows("test", weighted=True).data[7] == 7.5
    assert s.rows("test").shape == (1, 10)
    with pytest.raises(ConfigError, match="tests"):
        s.rows("tests")

    s = Split(ten, s.part, "strict", 0)
    assert items(s.train_rows(gated=False)) == [0, 1, 2, 3, 4, 5, 6]

    part = np.where(s.part == GATE, VALIDATION, s.part)
    s = Split(ten, part, "paper", 0)
    assert items(s.gate_rows()) == [6, 7]
    for matrix in (
        s.train_rows(gated=True),
        s.train_rows(gated=False),
        s.input_rows("validation"),
        s.input_rows("test"),
    ):
        assert items(matrix) == [0, 1, 2, 3, 4, 5]
    assert items(s.input_rows("serving")) == list(range(10))


def test_summary(ten):
    assert split(ten, "temporal").summary().rows() == [
        ("train", 6, 1, 6), ("gate", 1, 1, 1), ("validation", 1, 1, 1), ("test", 2, 1, 2),
    ]  # fmt: skip


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_written_and_read_again(tmp_path, protocol):
    frame = pl.DataFrame(
        {"user_id": ["01"] * 20 + ["1"] * 9, "item_id": pl.Series([*range(20), *range(9)], dtype=pl.UInt8)}
    )
    frame = frame.with_columns(
        weight=pl.lit(1.5), timestamp=pl.Series([dt.date(2020, 1, 1 + d % 5) for d in range(29)])
    )
    s = split(Interactions.read(frame), protocol, 3)
    split(s.log, "strict").write(tmp_path)  # stale files of another protocol must not survive
    files = s.write(tmp_path)
    used = [name for code, name in enumerate(PARTS) if (s.part == code).any()]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [*(f"{u}.parquet" for u in used), "split.json"]
    )
    assert sorted(files) == sorted(tmp_path.iterdir())
    again = Split.read(tmp_path)
    assert (again.protocol, again.seed) == (protocol, 3)
    assert placed(again) == placed(s)
    assert (again.part == s.part).all()
    assert again.log.fingerprint() == s.log.fingerprint()
    assert again.log.item_ids.dtype == pl.UInt8
    assert Interactions.read(tmp_path / "train.parquet").frame().columns == s.log.frame().columns


def test_split_folders_of_any_name(tmp_path, monkeypatch, ten):
    monkeypatch.setenv("HOME", str(tmp_path))
    split(ten).write("~/run[1]")
    assert (tmp_path / "run[1]" / "split.json").is_file()
    assert placed(Split.read("~/run[1]")) == placed(split(ten))


def test_a_broken_split_folder(tmp_path, ten):
    def message():
        with pytest.raises(DataError) as caught:
            Split.read(tmp_path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no split.json" in message()
    files = split(ten, "temporal").write(tmp_path)
    facts = json.loads((tmp_path / "split.json").read_text())
    test, train = tmp_path / "test.parquet", tmp_path / "train.parquet"
    assert len(files) == 5
    rows = pl.read_parquet(test)
    rows[:1].write_parquet(test)
    assert "not those that were written" in message()
    pl.concat([rows, rows]).write_parquet(test)
    assert "not those that were written" in message()
    rows.drop("weight").write_parquet(test)
    assert "cannot be read" in message()
    test.write_bytes(b"?")
    assert "cannot be read" in message()
    train.rename(test)
    assert "train.parquet is missing" in message()
    for wrong in ("{", "[]", json.dumps(facts | {"format": 9})):
        (tmp_path / "split.json").write_text(wrong)
        assert "split.json cannot be read" in message()


def naive_gate(users, items, times):
    """Oracle: sort each user's rows by latest time, then by hash of the id's text."""
    mask = [False] * len(users)
    for user in set(users):
        mine = [r for r, u in enumerate(users) if u == user]
        if len(mine) < 2:
            continue

        def key(row):
            digest = hashlib.blake2b(str(items[row]).encode(), digest_size=7).digest()
            return (-times[row] if times else 0, digest)

        for row in sorted(mine, key=key)[: (len(mine) + 7) // 8]:
            mask[row] = True
    return mask


@settings(max_examples=50, deadline=None)
@given(frame=logs(), text=st.booleans(), timed=st.booleans(), random=st.randoms())
def test_gate_rows_of_unseen_users(frame, text, timed, random):
    def mask(rows):
        items = rows["item_id"].cast(pl.String) if text else rows["item_id"]
        return unseen_gate_mask(rows["user_id"].to_numpy(), items, rows["timestamp"] if timed else None)

    got = mask(frame)
    times = frame["timestamp"].to_list() if timed else None
    assert got.tolist() == naive_gate(frame["user_id"].to_list(), frame["item_id"].to_list(), times)
    order = list(range(frame.height))
    random.shuffle(order)
    assert (mask(frame[order]) == got[order]).all()


def test_gate_rows_of_nobody():
    assert unseen_gate_mask(np.array([], dtype=np.int64), pl.Series([], dtype=pl.Int64), None).tolist() == []


def test_the_hash_is_the_same_in_every_process():
    assert np.flatnonzero(
        unseen_gate_mask(np.zeros(9, dtype=np.int64), pl.Series(range(9)), None)
    ).tolist() == [1, 3]


@pytest.mark.parametrize("protocol", ["all", "paper", "strict"])
def test_ml_1m_is_split_in_a_second(protocol):
    path = DATA / "ml-1m" / "interactions.parquet"
    if not path.exists():
        pytest.skip(f"{path} is not there; set GREYSHEEP_DATA")
    log = Interactions.read(path)
    seconds = []
    for _ in range(3):
        start = time.process_time()  # a busy machine must not fail the test
        s = split(log, protocol)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 1.0
    if protocol == "paper":
        _, gate, validation, test = s.summary()["rows"].to_list()
        assert gate == 0
        assert abs(validation - 100_021) < 500
        assert abs(test - 200_042) < 500


def test_why_there_are_no_test_rows(tmp_path):
    def model(rows, protocol):
        frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
        return gs.Popular().fit(split(frame, protocol))

    lone = [("a", 1, 1), ("b", 2, 2), ("c", 1, 3), ("d", 3, 4), ("e", 1, 5), ("f", 2, 6)]
    with pytest.raises(DataError, match="'strict' left no test rows: every user has one row"):
        gs.evaluate(model(lone, "strict"))
    with pytest.raises(DataError, match=r"nothing can be compared: .*every user has one row"):
        gs.compare(pl.DataFrame(lone, schema=["user_id", "item_id", "timestamp"], orient="row"), ["popular"],
                   out=tmp_path / "out")  # fmt: skip
    three = [("a", item, item) for item in range(3)]
    with pytest.raises(DataError, match="'temporal' left no test rows: no user has more than 3 rows"):
        gs.evaluate(model(three, "temporal"))
