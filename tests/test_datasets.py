"""Named data sets: where they come from, what happens when they can't, and what the simulator promises."""

import os
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greysheep.data import datasets, movielens
from greysheep.data.datasets import get, load, names, simulate
from greysheep.data.interactions import Interactions
from greysheep.errors import ConfigError, DataError
from greysheep.mainstream.scores import mainstream_scores

ROOT = Path(__file__).resolve().parents[1]
DATA = (ROOT / os.environ.get("GREYSHEEP_DATA", "../shared/data")).resolve()


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """No data folder, an empty cache, pip without an index and a publisher that has nothing."""
    monkeypatch.setenv("GREYSHEEP_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    (tmp_path / "publisher").mkdir()
    (tmp_path / "wheels").mkdir()
    monkeypatch.setattr(movielens, "PUBLISHER", (tmp_path / "publisher").as_uri())
    return tmp_path


def refused(name, **options):
    with pytest.raises(DataError) as caught:
        load(name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def publish(bare, monkeypatch, name, n_rows=3):
    """Put a small archive, in the publisher's format, where the publisher's would be."""
    monkeypatch.setitem(movielens.ROWS, name, 3)
    if name == "ml-100k":
        rows = ["196\t242\t3\t881250949", "186\t302\t3\t891717742", "196\t377\t1\t878887116"]
        movies = [
            "242|Kolya (1996)|24-Jan-1997||http://x|0|1",
            "302|L.A. Conf. (1997)|1||y|0|0",
            "377|Misérables|||z|0|0",
        ]
        files = {"u.data": rows[:n_rows], "u.item": movies}
    else:
        rows = ["1::1193::5::978300760", "1::661::3::978302109", "2::1193::3::978301968"]
        movies = [
            '661::James: the "Giant" (1996)::Musical',
            "1193::Café (1975)::Drama",
            "9::Other (1999)::Drama",
        ]
        files = {"ratings.dat": rows[:n_rows], "movies.dat": movies}
    with zipfile.ZipFile(bare / "publisher" / f"{name}.zip", "w") as archive:
        for file, lines in files.items():
            archive.writestr(f"{name}/{file}", ("\n".join(lines) + "\n").encode("latin-1"))


def test_names_and_unknown_names(bare):
    assert names() == ["ml-100k", "ml-1m", "yelp", "amazon-cds", "amazon-digital-music", "simulated"]
    assert "nearest: ml-100k" in refused("ml100k")
    assert "all: ml-100k, ml-1m" in refused("?")
    with pytest.raises(DataError, match="nearest: yelp"):
        get("yelpp", bare)


def test_a_set_that_is_not_reachable_says_what_was_tried(bare):
    message = refused("ml-100k")
    assert "pip download recbole==1.2.1 failed" in message
    assert "ml-100k.zip" in message
    assert "'simulated'" in message
    assert "pip" not in refused("ml-1m")
    assert str(bare / "data" / "yelp") in refused("yelp")
    assert "GREYSHEEP_DATA" in refused("yelp")
    assert str(bare / "else" / "amazon-cds") in refused("amazon-cds", folder=bare / "else")
    with pytest.raises(DataError, match="no public address"):
        get("yelp", bare / "out")
    assert list((bare / "cache").rglob("*.part*")) == []


def test_ml_100k_from_the_publisher(bare, monkeypatch):
    publish(bare, monkeypatch, "ml-100k")
    data = load("ml-100k")
    assert data.log.frame().rows() == [(186, 302, 891717742), (196, 242, 881250949), (196, 377, 878887116)]
    assert data.titles.rows() == [(242, "Kolya (1996)"), (302, "L.A. Conf. (1997)"), (377, "Misérables")]
    assert len(load("ml-100k", min_rating=3).log) == 2


def test_ml_1m_from_the_publisher_then_from_the_cache(bare, monkeypatch):
    publish(bare, monkeypatch, "ml-1m")
    data = load("ml-1m")
    assert data.log.frame().rows() == [(1, 661, 978302109), (1, 1193, 978300760), (2, 1193, 978301968)]
    assert data.titles["title"].to_list() == ["Other (1999)", 'James: the "Giant" (1996)', "Café (1975)"]
    (bare / "publisher" / "ml-1m.zip").unlink()
    assert len(load("ml-1m").log) == 3
    assert [p.name for p in (bare / "cache" / "greysheep").iterdir()] == ["ml-1m.zip"]


def test_a_short_or_damaged_archive_is_refused_and_not_kept(bare, monkeypatch):
    publish(bare, monkeypatch, "ml-1m", n_rows=2)
    assert "2 rows in place of 3" in refused("ml-1m")
    (bare / "publisher" / "ml-1m.zip").write_bytes(b"PK half a file")
    assert "cannot be read" in refused("ml-1m")
    publish(bare, monkeypatch, "ml-1m")
    assert len(load("ml-1m").log) == 3


def test_a_wheel_with_another_hash_is_refused(bare):
    with zipfile.ZipFile(bare / "wheels" / movielens.WHEEL, "w") as wheel:
        info = "recbole-1.2.1.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: recbole\nVersion: 1.2.1\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    assert "another SHA-256" in refused("ml-100k")
    cached = bare / "cache" / "greysheep" / movielens.WHEEL
    assert not cached.exists()
    cached.write_bytes(b"rotten")
    assert "damaged" in refused("ml-100k")
    assert not cached.exists()


def test_a_cache_that_cannot_be_written(bare):
    (bare / "cache").write_text("a file where the folder should be")
    assert "cannot be written" in refused("ml-100k")


def test_get_writes_what_load_reads(bare, monkeypatch):
    publish(bare, monkeypatch, "ml-100k")
    files = get("ml-100k", bare / "out")
    assert [f.relative_to(bare).as_posix() for f in files] == [
        "out/ml-100k/interactions.parquet",
        "out/ml-100k/items.parquet",
    ]
    assert pl.read_parquet(files[0]).columns == ["user_id", "item_id", "rating", "timestamp"]
    again = load("ml-100k", bare / "out")
    assert again.log.fingerprint() == load("ml-100k").log.fingerprint()
    assert again.titles.equals(load("ml-100k").titles)
    monkeypatch.setenv("GREYSHEEP_DATA", str(bare / "out"))
    before = files[0].read_bytes()
    assert get("ml-100k", bare / "out") == files  # onto itself
    assert files[0].read_bytes() == before
    copies = get("ml-100k", bare / "copy")
    assert copies[0].read_bytes() == before
    assert sorted(p.name for p in copies[0].parent.iterdir()) == ["interactions.parquet", "items.parquet"]


def test_get_simulated(bare):
    files = get("simulated", bare / "out")
    assert Interactions.read(files[0]).fingerprint() == simulate().log.fingerprint()
    assert pl.read_parquet(files[1]).equals(load("simulated").titles)


def test_get_into_a_place_that_is_no_folder(bare):
    (bare / "file").write_text("x")
    with pytest.raises(DataError, match="cannot be made"):
        get("simulated", bare / "file")
    (bare / "out" / "simulated" / "interactions.parquet").mkdir(parents=True)
    with pytest.raises(DataError, match="cannot be written"):
        get("simulated", bare / "out")


def test_titles_take_the_type_of_the_log(bare):
    folder = bare / "data" / "ml-1m"
    folder.mkdir(parents=True)
    ids = pl.Series([5], dtype=pl.Int32)
    pl.DataFrame({"user_id": ids, "item_id": ids}).write_parquet(folder / "interactions.parquet")
    pl.DataFrame({"item_id": [5], "title": ["Five"], "genres": ["x"]}).write_parquet(folder / "items.parquet")
    assert load("ml-1m").titles.schema == {"item_id": pl.Int32, "title": pl.String}
    (folder / "items.parquet").write_bytes(b"no")
    assert "titles" in refused("ml-1m")
    (folder / "items.parquet").unlink()
    assert load("ml-1m").titles is None


# --- the real sets


def test_ml_100k_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("GREYSHEEP_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(movielens, "PUBLISHER", tmp_path.as_uri())  # the wheel alone must do
    try:
        data = load("ml-100k")
    except DataError as error:
        pytest.skip(str(error))
    assert (len(data.log), data.log.n_users, data.log.n_items) == (100_000, 943, 1_682)
    titles = dict(data.titles.rows())
    assert titles[1] == "Toy Story (1995)"
    assert titles[267] == "unknown"
    assert titles[543] == "Misérables, Les (1995)"
    assert data.titles["item_id"].to_list() == data.log.item_ids.to_list()
    assert data.log.times.min() == 874724710
    assert len(load("ml-100k", min_rating=4).log) == 55_375


@pytest.mark.parametrize(
    ("name", "options", "sizes"),
    [
        ("ml-1m", {}, (1_000_209, 6_040, 3_706)),
        ("yelp", {}, (654_054, 33_078, 25_720)),
        ("amazon-cds", {}, (472_265, 17_052, 35_118)),
        (
            "amazon-digital-music",
            {"min_rating": 4, "min_user_items": 5, "min_item_users": 5},
            (104_431, 10_623, 8_582),
        ),
    ],
)
def test_local_sets(name, options, sizes):
    if not (DATA / name).is_dir():
        pytest.skip(f"{DATA / name} is not there; set GREYSHEEP_DATA")
    data = load(name, DATA, **options)
    assert (len(data.log), data.log.n_users, data.log.n_items) == sizes
    assert (data.titles is not None) == (name == "ml-1m")
    assert (data.log.times is not None) == name.startswith("amazon")
    if name == "ml-1m":
        assert data.titles.filter(pl.col("item_id") == 1)["title"].to_list() == ["Toy Story (1995)"]
        assert data.titles["item_id"].dtype == data.log.item_ids.dtype


# --- the simulator


def community(ids):
    return ids.str.slice(1).str.split("-").list.first().cast(pl.Int64).to_numpy()


def test_the_minority_is_niche():
    data = simulate()
    homes = community(data.log.user_ids)
    assert np.bincount(homes).tolist() == [60, 180, 180, 180]
    scores = mainstream_scores(data.log.matrix())
    assert scores[homes == 0].max() < scores[homes > 0].min()


def test_noise_is_the_share_of_rows_from_elsewhere():
    def outside(noise):
        log = simulate(n_items=2000, noise=noise).log
        return np.mean(community(log.user_ids)[log.users] != community(log.item_ids)[log.items])

    assert outside(0.0) == 0
    assert abs(outside(0.4) - 0.4 * 0.75) < 0.04  # a quarter of the even draws falls at home
    assert abs(outside(1.0) - 0.75) < 0.02


def test_first_items_are_the_popular_ones():
    log = simulate(noise=0.0).log
    counts = log.matrix().sum(axis=0).A1
    mine = counts[community(log.item_ids) == 2]
    assert mine[:10].mean() > 2 * mine[-10:].mean()


@settings(max_examples=30, deadline=None)
@given(
    n_users=st.integers(2, 40),
    n_items=st.integers(4, 30),
    n_communities=st.integers(2, 4),
    minority=st.floats(0.01, 0.99),
    share=st.floats(0, 1),
    noise=st.sampled_from([0.0, 0.1, 1.0]),
    seed=st.integers(0, 3),
)
def test_simulations(n_users, n_items, n_communities, minority, share, noise, seed):
    if n_users < n_communities:
        n_users = n_communities
    most = n_items if noise else n_items // n_communities
    rows = max(1, round(share * most))
    options = {"n_communities": n_communities, "minority": minority, "rows_per_user": rows}
    options |= {"noise": noise, "seed": seed}
    data = simulate(n_users, n_items, **options)
    log = data.log
    assert log.n_users == n_users
    assert (np.bincount(log.users) == rows).all()
    assert log.summary.duplicates_merged == 0
    assert set(community(log.user_ids)) == set(range(n_communities))
    assert data.titles.height == n_items
    assert log.encode_items(data.titles["item_id"]).max() == log.n_items - 1
    for user in range(n_users):
        assert sorted(log.times.to_numpy()[log.users == user]) == list(range(rows))
    assert simulate(n_users, n_items, **options).log.fingerprint() == log.fingerprint()
    if noise == 0:
        assert (community(log.user_ids)[log.users] == community(log.item_ids)[log.items]).all()


def test_seeds_differ():
    assert simulate(seed=1).log.fingerprint() != simulate(seed=0).log.fingerprint()


@pytest.mark.parametrize(
    "options",
    [
        {"n_communities": 1},
        {"n_users": 3},
        {"minority": 0.0},
        {"minority": 1.0},
        {"n_items": 3},
        {"noise": -0.1},
        {"noise": 1.1},
        {"rows_per_user": 0},
        {"rows_per_user": 301},
        {"rows_per_user": 76, "noise": 0.0},
    ],
)
def test_numbers_out_of_range(options):
    with pytest.raises(ConfigError):
        simulate(**options)


def test_every_name_is_described():
    assert all(datasets.ABOUT[name] for name in names())


# --- the simulator at a large size


def test_small_worlds_are_those_they_always_were():
    """Other tests, tables and golden numbers stand on them."""
    assert simulate().log.fingerprint().startswith("a81763c184bb")
    odd = simulate(n_users=9000, n_items=200, n_communities=3, seed=4).log
    assert odd.fingerprint().startswith("cf6b1c6cfbe6")


def shares(log, n_communities, items):
    """[C, I] share of each community's users that have the item."""
    homes = community(log.user_ids)
    have = log.matrix().toarray()[:, np.argsort(log.item_ids.to_numpy())]
    assert have.shape[1] == items  # all items were drawn by somebody
    return np.stack([have[homes == c].mean(axis=0) for c in range(n_communities)])


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_large_worlds_follow_the_law_of_small_ones(noise, monkeypatch):
    size = {"n_users": 12_000, "n_items": 40, "n_communities": 2, "rows_per_user": 5, "noise": noise}
    slow = simulate(**size, seed=1).log
    monkeypatch.setattr(datasets, "_ALL_PAIRS", 40 * 12_000 - 1)
    large = simulate(**size, seed=1).log
    assert large.fingerprint() != slow.fingerprint()
    assert large.fingerprint() == simulate(**size, seed=1).log.fingerprint()
    assert (np.bincount(large.users) == 5).all()  # different items: equal ones would have merged
    apart = shares(large, 2, 40) - shares(slow, 2, 40)
    smallest = 1200  # users of the minority
    assert np.abs(apart).max() < 5 * np.sqrt(0.25 * 2 / smallest)
    assert np.abs(apart[1]).max() < 5 * np.sqrt(0.25 * 2 / 10_800)
    # Pairs of items come together as often, too: drawing in rounds must not prefer any combination.
    together = [(m.T @ m).toarray() / 12_000 for m in (large.matrix(), slow.matrix())]
    assert np.abs(together[0] - together[1]).max() < 5 * np.sqrt(0.25 * 2 / 12_000)
    times = large.times.to_numpy().reshape(-1, 5)
    assert (np.sort(times, axis=1) == np.arange(5)).all()


def test_what_fits_into_rounds_is_drawn_in_rounds(monkeypatch):
    """A user who draws nearly all items would draw endlessly."""
    used = []
    rounds = datasets._draw_in_rounds
    monkeypatch.setattr(datasets, "_draw_in_rounds", lambda *given: used.append(1) or rounds(*given))
    size = {"n_users": 50, "n_items": 80, "n_communities": 2}
    simulate(**size, rows_per_user=10)
    monkeypatch.setattr(datasets, "_ALL_PAIRS", 50 * 80)
    simulate(**size, rows_per_user=10)
    assert not used
    monkeypatch.setattr(datasets, "_ALL_PAIRS", 50 * 80 - 1)
    simulate(**size, rows_per_user=11)
    assert not used
    simulate(**size, rows_per_user=10)
    assert used
