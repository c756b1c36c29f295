"""What a report says, as text, as a page and as a picture."""

import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import greysheep as gs
from greysheep.errors import ConfigError, MissingExtraError
from greysheep.evaluation.numbers import p_value
from greysheep.evaluation.report import Report, text_table
from greysheep.mainstream.groups import ACTIVITY, GROUPS
from greysheep.metrics.statistics import holm
from greysheep.report import pages as report
from greysheep.report.dots import axis_of
from greysheep.report.lines import spread
from greysheep.report.palette import CHROME, GROUP_COLOURS, MODELS, styles
from greysheep.report.training import by_group, peak

VOID = {"meta", "link", "br"}
TOP = (0.1, 0.2, 0.3, 0.4, 0.5)


def frame(names: tuple[str, ...], means: tuple[float | None, ...], k: int = 20) -> pl.DataFrame:
    def near(step: float) -> list[float | None]:
        return [None if mean is None else mean + step for mean in means]

    columns = {f"ndcg@{k}": means, f"ndcg@{k}_low": near(-0.02), f"ndcg@{k}_high": near(0.02)}
    rows = {
        "group": names,
        "n_users": [1000 + n for n in range(5)],
        "mean_train_rows": [8.0, 16, 32, 64, 128],
    }
    return pl.DataFrame({**rows, **columns}, strict=False)


def make(
    label: str = "tall",
    means: tuple[float | None, ...] = TOP,
    *,
    users: bool = True,
    epochs: int = 0,
    k: int = 20,
    **more: object,
) -> Report:
    """A report with given group means; its 20 users a group spread around them in a fixed way."""
    known = [mean for mean in means if mean is not None] or [math.nan]
    mean = float(np.mean(known))
    noise = np.linspace(-0.05, 0.05, 20)
    per_user = pl.DataFrame(
        {
            "user_id": range(100),
            "group": np.repeat(GROUPS, 20),
            "n_test": [2] * 100,
            f"ndcg@{k}": np.concatenate([(m or 0.0) + noise for m in means]),
        }
    )
    values: dict[str, object] = {
        "model": label.split("[")[0],
        "label": label,
        "config": {"n_experts": 4},
        "protocol": "strict",
        "seed": 0,
        "k": k,
        "overall": {
            "n_users": 5010,
            f"ndcg@{k}": {"mean": mean, "ci_low": mean - 0.01, "ci_high": mean + 0.01},
        },
        "by_group": frame(GROUPS, means, k),
        "by_activity": frame(ACTIVITY, means, k),
        "per_user": per_user if users else pl.DataFrame(),
        "train_seconds": 12.34,
        "history": history(epochs),
        "epochs": epochs,
        "best_epoch": epochs // 2,
    }
    return Report(**{**values, **more})


def history(epochs: int) -> list[dict[str, object]]:
    """Group g peaks in epoch 9 - 2g; weights leave 1 in epoch 4; the gate is nearly flat."""
    rows = []
    for epoch in range(1, epochs + 1):
        groups = {
            name: {
                "ndcg@20": 0.3 - 0.01 * abs(epoch - (9 - 2 * g)),
                "weight": 1.0 + max(0, epoch - 3) * 0.1 * (2 - g),
            }
            for g, name in enumerate(GROUPS)
        }
        rows.append({"epoch": epoch, "by_group": groups, "gate_entropy": math.log(4) - 0.0001 * epoch})
    return rows


class Page(HTMLParser):
    """Checks that elements close in order; collects ids, references, text, attributes and headings."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.headings: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag == "h2":
            self.headings.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data + " "
        if "h2" in self.open:
            self.headings[-1] += data

    def attributes(self, name: str) -> list[str]:
        return [value for _, attrs in self.elements if (value := attrs.get(name)) is not None]


def four() -> list[Report]:
    return [
        make("popular", (0.06, 0.09, 0.12, 0.2, 0.34)),
        make("ease-weighted", (0.166, 0.21, 0.26, 0.32, 0.424)),
        make("multvae", epochs=12, config={}),
        make("tall", (0.16, 0.2, 0.3, 0.4, 0.5), epochs=12, gate_entropy=1.38),
    ]


# The text table


def test_text_table_is_this_text():
    reports = [
        make("popular", (0.0628, 0.0928, 0.1275, 0.2054, 0.3444)),
        make("ease-weighted", train_seconds=0.0),
    ]
    assert text_table(reports).splitlines() == [
        "model            low med-low medium med-high  high   mean    gap ratio  seconds",
        "popular        .0628   .0928  .1275    .2054 .3444  .1666  .2816   .18     12.3",
        "ease-weighted  .1000   .2000  .3000    .4000 .5000  .3000  .4000   .20        -",
    ]


def test_text_table_of_groups_without_users_and_perfect_ones():
    table = text_table([make("a", (None, 0.5, 1.0, 1.0, 1.0))])
    assert table.splitlines()[1].split() == [
        "a",
        "-",
        ".5000",
        "1.0000",
        "1.0000",
        "1.0000",
        ".8750",
        ".5000",
        ".50",
        "12.3",
    ]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(*[st.floats(0, 1)] * 5), min_size=1, max_size=4))
def test_text_table_is_plain_and_aligned(means: list[tuple[float, ...]]):
    lines = text_table([make(f"m{n}", each) for n, each in enumerate(means)]).splitlines()
    assert len({len(line) for line in lines}) == 1 and len(lines[0]) <= 80
    assert all(line.isascii() and line.isprintable() for line in lines)
    ends = [match.end() for match in re.finditer(r"\S+", lines[0])][1:]
    for line, values in zip(lines[1:], means, strict=True):
        assert [match.end() for match in re.finditer(r"\S+", line)][1:] == ends
        shown = [float(cell) for cell in line.split()[1:6]]
        assert shown == pytest.approx(values, abs=5.1e-5)


def test_reports_that_cannot_share_a_table():
    for use in (text_table, report.headline, report.html):
        with pytest.raises(ConfigError, match="no report to show"):
            use([])
        with pytest.raises(ConfigError, match=r"different k \(10, 20\)"):
            use([make(), make(k=10)])


def test_str_of_a_report_is_its_table():
    assert str(make()) == text_table([make()])


def test_reports_that_share_a_label_are_told_apart():
    reports = [make(), make(seed=1), make(seed=1), make("ease")]
    names = [line.split("  ")[0] for line in text_table(reports).splitlines()[1:]]
    assert names == ["tall, seed 0", "tall, seed 1", "tall, seed 1 (2)", "ease"]


# The headline


def test_headline_of_one_report():
    assert report.headline([make()]) == (
        "With tall, the most niche fifth of users (low) gets NDCG@20 0.100, 80 % less than the 0.500 of the "
        "most mainstream fifth of users (high)."
    )


def test_headline_speaks_of_the_model_whose_worst_group_fares_best():
    assert report.headline(four()) == (
        "The most niche fifth of users (low) is served worst by all 4 models: even ease-weighted, best for "
        "them, gives NDCG@20 0.166, 61 % less than the 0.424 of the most mainstream fifth of users (high)."
    )


def test_headline_counts_the_models_that_agree():
    odd = make("odd", (0.2, 0.05, 0.3, 0.3, 0.4))
    assert "(low) is served worst by 1 of 2 models: even tall, best" in report.headline([odd, make()])


def test_headline_admits_overlapping_intervals():
    assert report.headline([make(means=(0.3, 0.31, 0.32, 0.33, 0.335))]).endswith(
        ", though the 95 % intervals overlap."
    )
    assert "overlap" not in report.headline([make()])


def test_headline_when_nobody_is_worse_off_or_nothing_is_known():
    assert (
        report.headline([make(means=(0.3,) * 5)])
        == "With tall, every group of users gets the same NDCG@20, 0.300."
    )
    assert report.headline([make(means=(None, None, 0.2, None, None))]).startswith(
        "No groups can be compared"
    )


# The page


@pytest.fixture(scope="module")
def full() -> str:
    examples = [
        report.Example(
            user, 0.01, ["Fargo (1996)", "Nikita"], 9, {"tall": [("Brazil & <co>", True), ("Dune", False)]}
        )
        for user in ("alice", 7, 8, 9)
    ]
    return report.html(
        four(), examples=examples, title="Log A", reference="multvae", facts={"Log": "5 rows < 6"}
    )


def test_page_holds_every_section(full: str):
    page = Page(full)
    assert page.headings == [
        "How well each group is served",
        "Against multvae",
        "Do niche users peak later?",
        "Whom training listens to",
        "What training cost",
        "The most niche users, one by one",
        "How it was made",
    ]
    assert report.headline(four()).replace(" ", "") in re.sub(r"\s", "", page.text)


def test_page_leaves_out_what_is_not_known():
    bare = make("recommendations", users=False, by_activity=pl.DataFrame(), train_seconds=0.0, config={})
    page = Page(report.html([bare, make("ease", users=False, train_seconds=0.0)]))
    assert page.headings == ["How well each group is served", "How it was made"]
    assert Page(report.html([bare])).text.count("quintile of activity") == 0


def test_page_of_a_report_read_from_json():
    page = Page(report.html([Report.from_dict(make(epochs=5).to_dict()), make("ease")]))
    assert page.headings == ["How well each group is served", "What training cost", "How it was made"]


def test_page_asks_the_network_for_nothing(full: str):
    assert not re.search(r"https?:|//[a-z]|@import|<script|<iframe|<object|xmlns", full)
    page = Page(full)
    assert page.attributes("src") == []
    assert all(link.startswith("#") or link == "data:," for link in page.attributes("href"))
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", full))
    assert "default-src 'none'" in page.attributes("content")[0]


def test_page_has_ids_once_and_each_reference_leads_somewhere(full: str):
    page = Page(full)
    ids = Counter(page.attributes("id"))
    assert ids and max(ids.values()) == 1
    wanted = {link[1:] for link in page.attributes("href") if link.startswith("#")}
    wanted |= {link[1:] for link in re.findall(r"url\(([^)]*)\)", full)}
    assert wanted == set(ids)


def test_page_charts_are_described_and_follow_the_theme(full: str):
    page = Page(full)
    charts = [attrs for tag, attrs in page.elements if tag == "svg" and attrs.get("class") == "chart"]
    assert len(charts) == 7 == full.count("<figure>")  # by group, activity; two of learning, weights; gate
    assert all(chart["role"] == "img" and len(chart["aria-label"] or "") > 40 for chart in charts)
    assert "low: popular 0.060, ease-weighted 0.166, multvae 0.100, tall 0.160." in str(
        charts[0]["aria-label"]
    )
    drawings = "".join(re.findall(r"<svg.*?</svg>", full, flags=re.S))
    assert not re.search(r"#[0-9a-f]{6}", drawings)  # no colour that one theme alone could read
    assert "font-family" not in drawings and "<style" not in drawings
    named = set(re.findall(r"var\(--(\w+)\)", full))
    assert named <= set(re.findall(r"--(\w+):", full))


def test_page_escapes_everything():
    evil = "<script>alert('&')</script>"
    other = make(evil, epochs=12, config={"x": evil})
    example = report.Example(evil, 0.1, [evil], 1, {evil: [(evil, True)]})
    text = report.html(
        [make(epochs=12), other], examples=[example], title=evil, facts={evil: evil}, reference=evil
    )
    assert "<script" not in text
    assert Page(text).text.count(evil) > 10


def test_dollars_in_labels_are_no_formula():
    assert "a$x^2$b" in report.html([make("a$x^2$b", epochs=12)])


def test_page_is_the_same_every_time(full: str):
    assert report.html(four()) == report.html(four())


def test_page_table_by_group(full: str):
    head, *rows = Page(full).tables[0]
    assert head[1].split() == ["low", "1,000", "users", "8", "rows"]
    assert [row[0].strip() for row in rows] == ["popular", "ease-weighted", "multvae", "tall"]
    assert rows[1][1].split() == ["0.1660", "0.146–0.186"]  # noqa: RUF001 - an en dash between bounds
    assert [cell.strip() for cell in rows[3][-3:]] == ["0.3400", "0.32", "12.3"]
    best = re.findall(r'<span class="best">([\d.]+)</span>', full.split("</table>")[0])
    # by rows: ease-weighted, multvae, tall
    assert best == ["0.1660", "0.2100", "0.3000", "0.4000", "0.5000", "0.3000", "0.4000", "0.5000", "0.3120"]


def test_paired_table_is_adjusted_over_all_its_cells(full: str):
    found = [one.versus(four()[2]) for one in four() if one.label != "multvae"]
    adjusted = holm(np.concatenate([each["p_value"].to_numpy() for each in found]))
    table = next(table for table in Page(full).tables if table[0][1].strip() == "overall")
    cells = [cell for row in table[1:] for cell in row[1:]]
    assert len(cells) == len(adjusted) == 18
    for cell, p, verdict in zip(cells, adjusted, (v for each in found for v in each["verdict"]), strict=True):
        assert p_value(p) in cell
        assert {"no harm": "✓ no harm", "harm": "✗ harm", "undecided": "? undecided, "}[verdict] in cell
    assert {"✗ harm", "✓ no harm"} <= {
        sign for cell in cells for sign in re.findall("[✓✗] [a-z ]*[a-z]", cell)
    }
    assert cells[0].split()[:2] == ["\N{MINUS SIGN}0.1380", "\N{MINUS SIGN}46.0"]


def test_only_reports_on_the_same_test_rows_are_compared():
    elsewhere = make("ease")
    elsewhere.per_user.replace_column(2, pl.Series("n_test", [3] * 100))
    page = Page(report.html([make(), elsewhere, make("wl", users=False)]))
    assert "Against tall" not in page.headings
    assert "Against tall" in Page(report.html([make(), elsewhere, make("ials")])).headings


def test_unknown_reference_is_refused():
    with pytest.raises(ConfigError, match="reference 'easy' is none of the reports: tall"):
        report.html([make()], reference="easy")


def test_peaks_by_group(full: str):
    page = Page(full)
    table = next(
        table for table in page.tables if table[0][-1].strip() == "epoch kept" and len(table[0]) == 7
    )
    assert [[cell.strip() for cell in row] for row in table[1:]] == [
        ["multvae", "9", "7", "5", "3", "1", "6"],
        ["tall", "9", "7", "5", "3", "1", "6"],
    ]
    assert "tall: yes (low in epoch 9, high in 1, of 12)." in page.text
    assert "low, 9" in page.text and "kept: 6" in page.text


def test_the_history_of_a_report_is_what_is_drawn():
    page = Page(report.html([make(epochs=12, history=history(5))]))
    assert "tall: yes (low in epoch 5, high in 1, of 5)." in page.text
    assert "Do niche users peak later?" not in Page(report.html([make(epochs=12, history=[])])).headings


def test_lists_of_ten_show_the_validation_that_training_followed():
    assert "validation NDCG@20" in Page(report.html([make(epochs=12, k=10)])).text


def test_flat_gate_is_called_flat(full: str):
    assert f"tall ends at {math.log(4) - 0.0012:.4f} of {math.log(4):.4f}: flat" in Page(full).text
    sharp = [{**row, "gate_entropy": 0.5} for row in history(5)]
    assert "some experts count more" in Page(report.html([make(history=sharp)])).text


def test_weights_that_never_leave_one_are_not_drawn():
    flat = [{**row, "gate_entropy": None} for row in history(3)]  # they leave 1 in epoch 4
    assert "Whom training listens to" not in Page(report.html([make(history=flat)])).headings


def test_history_with_gaps_is_drawn():
    rows = history(6)
    rows[-1]["by_group"]["low"] = {"ndcg@20": math.nan, "weight": None}
    rows[0]["by_group"]["high"]["ndcg@20"] = math.nan
    page = Page(report.html([make(history=rows)]))
    assert "nan" not in page.text and "low, 5" in page.text


def test_many_models_with_long_names():
    reports = [
        make(f"tall[gate=uniform,n_experts={n}]", epochs=4, config={"n_experts": n}) for n in range(1, 14)
    ]
    page = Page(report.html(reports))
    assert max(Counter(page.attributes("id")).values()) == 1


def test_examples_open_with_three_users(full: str):
    page = Page(full)
    assert "and 7 more" in page.text and "Brazil & <co> (hit)" in page.text
    assert full.index("User 8") < full.index("1 more user") < full.index("User 9")


def test_page_tells_how_it_was_made(full: str):
    text = Page(full).text
    for part in (
        "5 rows < 6",
        "strict: 70 % train",
        "5,010 users",
        "2,000 draws",
        '"n_experts": 4',
        gs.__version__,
    ):
        assert part in text, part
    assert "mean Jaccard" in text and "activity may explain it" in text


# Parts of the page


def test_history_by_group_skips_what_no_epoch_has():
    assert by_group([], "weight") == {}
    assert by_group([{"by_group": {"low": {"a": 1}, "high": {"a": None}}}], "a") == {"low": [1.0]}
    assert peak([math.nan, 2.0, 1.0]) == 2


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 200), min_size=1, max_size=8))
def test_labels_are_spread_in_order(places: list[float]):
    moved = spread(places, 14, 200)
    order = sorted(range(len(places)), key=lambda n: places[n])
    steps = np.diff([moved[n] for n in order])
    assert (steps >= 14 - 1e-6).all() and max(moved) <= 200 + 1e-6
    if (np.diff(sorted(places)) >= 14).all():
        assert moved == pytest.approx(places)


def test_axis_starts_at_zero_unless_that_wastes_a_third_of_it():
    low, high = axis_of([0.08, 0.12, math.nan, 0.48, 0.52])
    assert low == 0 and 0.52 < high < 0.56
    low, high = axis_of([0.38, 0.42, math.nan, 0.48, 0.52])
    assert 0.36 < low < 0.38 and 0.52 < high < 0.54


# Colours


def rgb(colour: str) -> np.ndarray:
    value = np.array([int(colour[n : n + 2], 16) for n in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(value: np.ndarray) -> np.ndarray:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(np.clip(to_xyz @ np.clip(value, 0, 1) / [0.9505, 1, 1.089], 0.008856, None))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


# Machado, Oliveira, Fernandes 2009, severity 1: protan, deutan, tritan.
BLINDNESS = [
    np.eye(3),
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
]


@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize("palette", [MODELS, GROUP_COLOURS])
def test_colours_can_be_told_apart(palette: tuple[tuple[str, str], ...], theme: int):
    colours = [rgb(both[theme]) for both in palette]
    paper = float(rgb(CHROME["paper"][theme]) @ [0.2126, 0.7152, 0.0722])
    for colour in colours:
        light, dark = sorted([paper, float(colour @ [0.2126, 0.7152, 0.0722])], reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 2.95
    for eye in BLINDNESS:
        seen = [lab(np.asarray(eye) @ colour) for colour in colours]
        nearest = min(np.linalg.norm(a - b) for n, a in enumerate(seen) for b in seen[:n])
        assert nearest >= 9


def test_a_model_keeps_its_colour_whatever_stands_beside_it():
    alone = styles([("tall", "tall")])["tall"]
    assert styles([("x", "x"), ("ease", "ease"), ("tall", "tall")])["tall"] == alone
    many = styles([(f"m{n}", f"m{n}") for n in range(20)])
    assert len(set(many.values())) == 20


# Files


def test_pictures(tmp_path: Path):
    svg = report.chart_by_group(four(), tmp_path / "img" / "by_group.svg")
    root = ET.fromstring(svg.read_text())
    assert root.tag.endswith("svg") and not list(root.iter("{http://www.w3.org/2000/svg}text"))
    again = report.chart_by_group(four(), tmp_path / "again.svg")
    assert svg.read_bytes() == again.read_bytes()
    png = report.chart_by_group(four(), str(tmp_path / "by_group.PNG"))
    assert png.read_bytes().startswith(b"\x89PNG")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["again.svg", "by_group.PNG", "img"]
    with pytest.raises(ConfigError, match=r"ends in '.pdf': use .svg or .png"):
        report.chart_by_group(four(), tmp_path / "a.pdf")


def test_a_page_that_cannot_be_finished_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = tmp_path / "report.html"
    target.write_text("old")

    def full_disk(self: Path, data: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(ConfigError, match="No space"):
        gs.write_html(make(), target)
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"] and target.read_text() == "old"


def test_matplotlib_is_asked_for_only_when_something_is_drawn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    code = "import sys, greysheep.report.pages; print({'matplotlib', 'torch'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert text_table([make()])
    for draw in (lambda: report.html([make()]), lambda: report.chart_by_group([make()], tmp_path / "a.svg")):
        with pytest.raises(MissingExtraError, match=r"pip install greysheep\[report\]"):
            draw()


# Examples, from real models


@pytest.fixture(scope="module")
def small() -> tuple[gs.Split, pl.DataFrame]:
    data = gs.simulate(n_users=60, n_items=40, rows_per_user=12, seed=1)
    assert data.titles is not None
    return gs.split(data.log, protocol="strict", seed=0), data.titles


def test_examples_are_the_most_niche_users(small: tuple[gs.Split, pl.DataFrame]):
    split, titles = small
    models = [gs.Popular().fit(split), gs.EASE().fit(split)]
    made = report.niche_examples(models, titles=titles, users=4, shown=3, k=5)
    scores = gs.mainstream_scores(split.rows("train"))
    order = sorted(range(60), key=lambda u: (scores[u], split.log.user_ids[u]))
    assert [example.user for example in made] == [split.log.user_ids[u] for u in order[:4]]
    name = dict(titles.iter_rows())
    ids = split.log.item_ids
    times = split.log.times
    assert times is not None
    for example, user in zip(made, order, strict=False):
        mine = [n for n in range(len(split.log)) if split.log.users[n] == user]
        given = [n for n in mine if split.part[n] != 3]
        latest = sorted(given, key=lambda n: -times[n])
        assert example.seen == [name[ids[int(split.log.items[n])]] for n in latest[:3]]
        assert example.n_seen == len(given)
        hidden = {name[ids[int(split.log.items[n])]] for n in mine if split.part[n] == 3}
        for model in models:
            ranked = model.rank(np.array([user]), k=5, stage="test")[0]
            expected = [name[ids[int(item)]] for item in ranked]
            assert [title for title, _ in example.lists[model.label]] == expected
            assert [hit for _, hit in example.lists[model.label]] == [title in hidden for title in expected]


def test_examples_without_titles_and_of_other_splits(small: tuple[gs.Split, pl.DataFrame]):
    split, titles = small
    model = gs.Popular().fit(split)
    (example,) = report.niche_examples([model], titles=titles.head(0), users=1)
    assert example == report.niche_examples([model], users=1)[0]
    assert set(example.seen) <= set(split.log.item_ids)
    other = gs.Popular().fit(gs.split(split.log, protocol="strict", seed=1))
    with pytest.raises(ConfigError, match="different splits"):
        report.niche_examples([model, other])
    with pytest.raises(ConfigError, match="no model"):
        report.niche_examples([])


def test_page_of_real_models(small: tuple[gs.Split, pl.DataFrame], tmp_path: Path):
    split, titles = small
    settings = {"latent": 8, "epochs": 4, "progress": False, "threads": 1}
    models = [gs.Popular(), gs.MultVAE(**settings), gs.TALL(n_experts=3, start_epoch=2, **settings)]
    reports = [gs.evaluate(model.fit(split), k=10, draws=50) for model in models]
    text = report.html(reports, examples=report.niche_examples(models, titles=titles))
    assert len(Page(text).headings) == 7
    written = gs.write_html(reports[2], tmp_path / "report.html")
    assert "Do niche users peak later?" in Page(written.read_text(encoding="utf-8")).headings
