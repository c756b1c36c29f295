"""The page of a comparison: what it says, held to the comparison's own tables, and what it survives."""

import math
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import greysheep as gs
from greysheep.comparison.record import Failure
from greysheep.comparison.result import Comparison
from greysheep.errors import ConfigError, MissingExtraError
from greysheep.evaluation.numbers import DASH, p_value
from greysheep.evaluation.report import Report
from greysheep.mainstream.groups import GROUPS
from greysheep.report import pages as report
from greysheep.report.headline import lead
from greysheep.report.palette import Style
from greysheep.report.scatter import Point, front
from greysheep.report.training import by_group, peak
from greysheep.report.view import View, short_names
from test_report import Page

LABELS = ["popular", "ease", "multvae", "tall", "tall[gate=uniform,weighting=none]"]
SECTIONS = [
    "How well each group is served",
    "Against multvae",
    "What quality costs",
    "Do niche users peak later?",
    "Whom training listens to",
    "What the gate decides",
    "The same users, grouped otherwise",
]


def compared(runs: list[Report], **more: object) -> Comparison:
    values: dict[str, object] = {
        "runs": runs,
        "failures": [],
        "seeds": [0, 1, 2],
        "protocol": "strict",
        "k": 10,
        "reference": "multvae",
        "margin": 0.02,
        "facts": {"Log": "simulated: 4 < 5 rows", "Command": "greysheep compare LOG"},
    }
    return Comparison(**{**values, **more})


@pytest.fixture(scope="module")
def runs() -> list[Report]:
    """Real runs of five labels over three seeds, on a log so small that they take a second each."""
    log = gs.simulate(n_users=80, n_items=50, rows_per_user=14, seed=1).log
    made = {}
    for seed in range(3):
        split = gs.split(log, protocol="strict", seed=seed)
        for label in LABELS:
            own: dict[str, object] = {"seed": seed, "progress": False, "threads": 1}
            if label.startswith(("multvae", "tall")):
                own |= {"latent": 8, "epochs": 4, "batch_size": 32, "learning_rate": 0.02}
            if label.startswith("tall"):
                own |= {"n_experts": 3, "start_epoch": 2}
            model = gs.models.parse(label, **own).fit(split)
            found = gs.evaluate(model, k=10, draws=20)
            made[label, seed] = replace(found, peak_memory_bytes=(100 + seed) * 2**20)
    return [made[label, seed] for label in LABELS for seed in range(3)]


@pytest.fixture(scope="module")
def comparison(runs: list[Report]) -> Comparison:
    return compared(runs)


@pytest.fixture(scope="module")
def full(comparison: Comparison) -> str:
    return report.html(comparison, title="five models")


def row_of(frame: pl.DataFrame, **where: str) -> dict[str, object]:
    found = frame.filter(*[pl.col(name) == value for name, value in where.items()])
    assert found.height == 1, (where, found.height)
    return found.to_dicts()[0]


def fake(label: str, seed: int, base: Report, low: float = 0.0, **more: object) -> Report:
    """Another label's run made of a real one: `low` is added to what each user gets."""
    users = base.per_user.with_columns((pl.col("ndcg@10") + low).clip(0, 1))
    values = {"label": label, "model": label.partition("[")[0], "seed": seed, "per_user": users}
    return replace(base, **{**values, **more})


# The page as a whole


def test_page_holds_every_section(full: str):
    assert Page(full).headings == [*SECTIONS, "How it was made"]


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


def test_charts_are_described_and_follow_the_theme(full: str):
    page = Page(full)
    charts = [attrs for tag, attrs in page.elements if tag == "svg" and attrs.get("class") == "chart"]
    # Means, differences; cost of low and of all; 3 x learning, 1 x weights, 1 x gates of 3 experts.
    assert len(charts) == 9 == full.count("<figure>")
    assert all(chart["role"] == "img" and len(chart["aria-label"] or "") > 40 for chart in charts)
    drawings = "".join(re.findall(r"<svg.*?</svg>", full, flags=re.S))
    assert not re.search(r"#[0-9a-f]{6}", drawings)  # no colour that one theme alone could read
    assert "font-family" not in drawings and "<style" not in drawings
    assert set(re.findall(r"var\(--(\w+)\)", full)) <= set(re.findall(r"--(\w+):", full))


def test_page_is_the_same_every_time(comparison: Comparison, full: str):
    assert report.html(comparison, title="five models") == full


def test_title_names_the_log_unless_given(runs: list[Report]):
    text = report.html(compared(runs[:1]))
    assert "<title>greysheep compare, simulated: 4 &lt; 5 rows</title>" in text
    bare = compared(runs[:1], facts={})
    assert "<title>greysheep compare</title>" in report.html(bare)


def test_page_escapes_everything(runs: list[Report]):
    evil = "<script>alert('&')</script>"
    others = [fake(evil, run.seed, run, config={"n_experts": 3, "x": evil}) for run in runs[9:12]]
    others += [fake(f"tall[{evil}={evil}]", run.seed, run) for run in runs[9:12]]
    failures = [Failure(evil, 7, evil)]
    text = report.html(
        compared([*others, *runs[6:9]], reference=evil, failures=failures, facts={evil: evil}, protocol=evil),
        title=evil,
    )
    assert "<script" not in text
    assert Page(text).text.count(evil) > 10


def test_dollars_in_labels_are_no_formula(runs: list[Report]):
    others = [fake("a$x^2$b", run.seed, run) for run in runs[6:9]]
    assert "a$x^2$b" in report.html(compared([*runs[6:9], *others]))


def test_page_needs_matplotlib(comparison: Comparison, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install greysheep\[report\]"):
        report.html(comparison)


# The tables


def test_main_table_says_what_the_summary_says(full: str, comparison: Comparison):
    head, *rows = Page(full).tables[0]
    columns = [*GROUPS, "overall"]
    for cell, group in zip(head[1:7], columns, strict=True):
        row = row_of(comparison.summary, label="ease", grouping="mainstream", group=group)
        users, train, test = row["n_users"], row["mean_train_rows"], row["mean_test_rows"]
        name = "mean" if group == "overall" else group
        assert cell.split() == [name, f"{users}", "users", f"{train:.0f}", "train", f"{test:.1f}", "test"]
    assert [row[0].split()[0] for row in rows] == [label.partition("[")[0] for label in LABELS]
    assert "gate=uniform" in rows[4][0] and "reference" in rows[2][0]
    source = full.split("</table>")[0].split("<tr>")[2:]
    for label, row, html in zip(LABELS, rows, source, strict=True):
        cells = html.split("<td>")[1:]
        means = []
        for cell, written, group in zip(row[1:7], cells, columns, strict=False):
            found = row_of(comparison.summary, label=label, grouping="mainstream", group=group)
            means.append(found["mean"])
            assert cell.split()[0] == f"{found['mean']:.4f}"
            assert cell.endswith(f"± {found['sd']:.4f} ")
            top = max(
                row_of(comparison.summary, label=other, grouping="mainstream", group=group)["mean"]
                for other in LABELS
            )
            assert ('class="best"' in written) == (found["mean"] == top)
            if label == "multvae":
                assert "▲" not in cell and "▼" not in cell
                continue
            test = row_of(comparison.tests, label=label, group=group)
            mark = ("▲" if test["difference"] > 0 else "▼") if test["p_holm"] < 0.05 else None
            assert ("▲" in cell, "▼" in cell) == (mark == "▲", mark == "▼")
        gap, seconds, memory = row[7:]
        assert gap.strip() == f"{max(means[:5]) - min(means[:5]):.4f}"
        spent = np.mean([run.train_seconds for run in comparison.runs if run.label == label])
        assert seconds.strip() == "<0.01" if spent < 0.01 else float(seconds) == pytest.approx(spent, rel=0.2)
        assert memory.strip() == "102"
    assert "▼" in "".join(rows[0])  # popular is worse: the marks are not just absent


def test_differences_say_what_the_tests_say(full: str, comparison: Comparison):
    table = next(table for table in Page(full).tables if table[0][1].strip() == "overall")
    labels = [label for label in LABELS if label != "multvae"]
    verdicts = set()
    for label, row in zip(labels, table[1:], strict=True):
        for group, cell in zip(("overall", *GROUPS), row[1:], strict=True):
            test = row_of(comparison.tests, label=label, group=group)
            assert float(cell.split()[0].replace("\N{MINUS SIGN}", "-")) == pytest.approx(
                test["difference"], abs=5.1e-5
            )
            assert p_value(test["p_holm"]) in cell and str(test["verdict"]) in cell
            spread = 100 * test["difference_sd"] / test["reference_mean"]
            assert f"± {spread:.1f} %" in cell
            verdicts.add(test["verdict"])
    assert len(verdicts) > 1


def test_each_verdict_stands_beside_its_model(full: str, comparison: Comparison):
    told = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", full.split('<dl class="verdicts">')[1], flags=re.S)
    text = {re.sub("<[^>]+>", "", name): words.replace("&nbsp;", " ") for name, words in told}
    assert list(comparison.verdicts) == [label for label in LABELS if label != "multvae"]
    for label, words in comparison.verdicts.items():
        name, _, rest = label.partition("[")
        assert text[name + rest.rstrip("]").replace(",", ", ")] == words


def test_other_groupings_are_folded_tables(full: str, comparison: Comparison):
    inner = full.split("The same users, grouped otherwise")[1].split("</section>")[0]
    assert re.findall(r"<details><summary>(.*?)</summary>", inner) == ["By activity"]
    (table,) = Page(inner.split("</h2>")[1]).tables
    assert [cell.split()[0] for cell in table[0][1:]] == ["fewest", "few", "medium", "many", "most"]
    for label, row in zip(LABELS, table[1:], strict=True):
        for cell, name in zip(row[1:], table[0][1:], strict=True):
            group = name.split()[0]
            found = row_of(comparison.summary, label=label, grouping="activity", group=group)
            assert cell.split()[0] == f"{found['mean']:.4f}"


def test_density_and_distribution_have_their_tables(runs: list[Report]):
    more = [
        replace(
            run, per_user=run.per_user.with_columns(density=pl.col("group"), distribution=pl.col("group"))
        )
        for run in runs[:3]
    ]
    text = report.html(compared(more))
    assert re.findall(r"<summary>(By \w+)", text) == ["By activity", "By density", "By distribution"]


def test_cost_table_counts_runs_and_means(full: str, comparison: Comparison):
    table = next(table for table in Page(full).tables if table[0][1].strip() == "runs")
    for label, row in zip(LABELS, table[1:], strict=True):
        mine = [run for run in comparison.runs if run.label == label]
        assert row[1].strip() == "3"
        assert row[3].strip() == (f"{np.mean([run.epochs for run in mine]):.0f}" if mine[0].epochs else DASH)
        gates = [run.gate_entropy for run in mine if run.gate_entropy is not None]
        assert row[6].strip() == (f"{np.mean(gates):.4f}" if gates else DASH)


def test_peaks_count_every_run(full: str, comparison: Comparison):
    table = next(table for table in Page(full).tables if table[0][-1].strip() == "niche peaks later")
    later = 0
    for label, row in zip(LABELS[2:], table[1:], strict=True):
        series = [by_group(run.history, "ndcg@10") for run in comparison.runs if run.label == label]
        mine = sum(peak(one["low"]) > peak(one["high"]) for one in series)
        assert row[-1].strip() == f"{mine} of 3 runs"
        later += mine
        for group, cell in zip(GROUPS, row[1:], strict=False):
            assert float(cell.split()[0]) == np.median([peak(one[group]) for one in series])
    assert f"In {later} of 9 runs low peaks after high." in Page(full).text


def test_gate_table_stands_beside_log_k(full: str, comparison: Comparison):
    table = next(table for table in Page(full).tables if "log K" in table[0][3])
    assert [row[0].split()[0] for row in table[1:]] == ["tall", "tall"]
    for label, row in zip(LABELS[3:], table[1:], strict=True):
        ends = [run.history[-1]["gate_entropy"] for run in comparison.runs if run.label == label]
        assert row[1:4] == ["3 ", f"{np.mean(ends):.4f} ", f"{math.log(3):.4f} "]
    assert table[2][4].startswith("flat")
    assert "log 3 = 1.099" in full


def test_a_sharp_gate_is_not_called_flat(runs: list[Report]):
    history = [{**row, "gate_entropy": 0.4} for row in runs[9].history]
    text = report.html(compared([*runs[6:9], *(replace(r, history=history) for r in runs[9:12])]))
    assert "some experts count more" in text and "flat: all" not in text


# Words


def test_headline_names_the_best_its_cost_and_whether_it_is_real(comparison: Comparison):
    view, niche = View.of(comparison), {}
    for label in LABELS:
        values = [run.by_group.filter(pl.col("group") == "low")["ndcg@10"][0] for run in view.runs[label]]
        niche[label] = float(np.mean(values))
    best = max(niche, key=niche.__getitem__)
    said = report.headline(comparison)
    assert f"{niche[best]:.3f}" in said and best in said
    told = best if best != "multvae" else sorted(niche, key=niche.__getitem__)[-2]
    assert comparison.verdicts[told] in said
    p = row_of(comparison.tests, label=told, group="low")["p_holm"]
    assert f"({p_value(p)} after Holm" in said and ("may be chance" in said) == (p >= 0.05)


def test_headline_of_a_better_model_and_of_a_better_reference(runs: list[Report]):
    spent = {"train_seconds": 90.0}
    better = [fake("new", run.seed, run, 0.2, **spent) for run in runs[6:9]]
    said = report.headline(compared([*runs[6:9], *better]))
    assert said.startswith("new serves the most niche fifth of users (low) best: NDCG@10 0.")
    assert " after 90 s of training. Against multvae: lifts low by " in said
    assert re.search(r"\(p (< )?\.0\d+ after Holm\)\.$", said)
    said = report.headline(compared([*runs[6:9], *better], reference="new"))
    assert said.startswith(
        "No model serves the most niche fifth of users (low) better than the reference, new"
    )
    assert ". Next comes multvae with 0." in said and "harms low" in said


def test_headline_without_a_reference_or_a_second_model_or_a_run(runs: list[Report]):
    lost = compared(runs[:6], failures=[Failure("multvae", 0, "out of memory")])
    said = report.headline(lost)
    assert said.endswith("The reference, multvae, did not finish, so no difference was tested.")
    assert "Not complete: 1 run failed, 2 runs not started;" in " ".join(lead(View.of(lost)))
    alone = report.headline(compared(runs[6:9]))
    assert alone.startswith("With multvae, the most niche fifth of users (low) gets NDCG@10 0.")
    none = compared([], failures=[Failure("tall", seed, "no memory") for seed in range(3)])
    assert report.headline(none) == "No run finished: 3 failures, listed below."
    assert Page(report.html(none)).headings == ["Runs without a result", "How it was made"]


def test_lead_names_what_comes_close_for_less(runs: list[Report]):
    slow = [fake("slow", run.seed, run, 0.3, train_seconds=100.0) for run in runs[6:9]]
    near = [fake("near", run.seed, run, 0.299, train_seconds=2.0) for run in runs[6:9]]
    late = [fake("late", run.seed, run, 0.299, train_seconds=60.0) for run in runs[6:9]]
    said = lead(View.of(compared([*runs[6:9], *slow, *near, *late])))
    assert any(re.match(r"near comes within 0\.\d % of slow for low after 2\.0 s\.", text) for text in said)
    said = lead(View.of(compared([*runs[6:9], *slow, *late])))
    assert not any("comes within" in text for text in said)


def test_models_with_fewer_seeds_are_ranked_on_the_seeds_they_share(runs: list[Report]):
    def low(run: Report) -> float:
        return float(run.by_group.filter(pl.col("group") == "low")["ndcg@10"][0])

    best = max(runs[6:9], key=low)  # on its split, a model a little worse than the reference looks better
    partial = fake("partial", best.seed, best, -0.01)
    found = compared([*runs[:3], *runs[6:9], partial])
    means = found.summary.filter(pl.col("grouping") == "mainstream", pl.col("group") == "low")
    assert means.sort("mean")["label"].to_list()[-1] == "partial"
    page = report.html(found)
    assert "better than the reference, multvae" in page and "Next comes partial" in page
    assert "1 of 3 seeds" in page and "cannot be ranked" in page
    rows = page.split("</table>")[0].split("<tr>")[2:]
    assert ['class="best"' in row for row in rows] == [False, True, False]
    lost = compared([*runs[:3], partial], failures=[Failure("multvae", 0, "x")])
    assert report.headline(lost).endswith("too: no model can be ranked.")


def test_how_it_was_made(full: str):
    text = Page(full).text
    for part in (
        "simulated: 4 < 5 rows",
        "greysheep compare LOG",
        "strict: 70 % train",
        "0, 1, 2; a seed drives both",
        "15 finished",
        "2,000 draws",
        "Holm over all 24 tests",
        "They do not compare methods",
        '"n_experts": 3',
        "activity may explain it",
    ):
        assert part in text, part


def test_failures_and_missing_runs_are_listed(runs: list[Report]):
    failures = [Failure("tall[latent=9999]", 1, "killed: out of memory (OUT/runs/x.log)")]
    labels = [*LABELS, "tall[latent=9999]"]
    page = Page(report.html(compared(runs[:3], failures=failures, labels=labels[:1] + labels[5:])))
    table = next(table for table in page.tables if table[0][-1].strip() == "what happened")
    assert [[" ".join(cell.split()) for cell in row] for row in table[1:]] == [
        ["tall latent=9999", "1", "killed: out of memory (OUT/runs/x.log)"],
        ["tall latent=9999", "0, 2", "not started"],
    ]
    assert "Runs without a result" not in Page(report.html(compared(runs[:3]))).headings


def test_a_report_and_a_comparison_of_its_run_say_the_same(runs: list[Report]):
    alone, both = View.of(runs[9]), View.of(compared(runs[9:10], seeds=[0], reference="tall"))
    for group in GROUPS:
        for what in ("mean", "n_users", "mean_train_rows"):
            one, other = (view.means["tall", "mainstream", group][what] for view in (alone, both))
            assert one == pytest.approx(other, rel=1e-12), (group, what)
    assert alone.mean("tall", "overall") == pytest.approx(both.mean("tall", "overall"), rel=1e-12)
    two = View.of([runs[6], runs[9]]), View.of(compared([runs[6], runs[9]], seeds=[0]))
    for group in ("overall", *GROUPS):
        one, other = (view.tests["tall", group] for view in two)
        for what in ("difference", "ratio", "reference_mean", "p_holm", "verdict"):
            assert one[what] == pytest.approx(other[what]), (group, what)


def test_a_comparison_keeps_its_reference(comparison: Comparison):
    assert report.html(comparison, title="five models", reference="multvae")
    with pytest.raises(ConfigError, match="this comparison's reference is 'multvae', not 'ease'"):
        report.html(comparison, reference="ease")


# What a page survives


def test_one_model_one_seed(runs: list[Report]):
    text = report.html(compared(runs[9:10], seeds=[0], reference="tall"))
    page = Page(text)
    assert "±" not in text.split("How it was made")[0].split("</p>", 3)[3]
    assert page.headings == [*SECTIONS[:1], *SECTIONS[2:], "How it was made"]
    assert "One seed says nothing" in page.text and "nan" not in page.text
    assert 'class="best"' not in text and "▲" not in text


def test_models_without_history_or_time(runs: list[Report]):
    bare = [replace(run, history=[], train_seconds=0.0, peak_memory_bytes=0) for run in runs[:9]]
    page = Page(report.html(compared(bare)))
    assert not {*SECTIONS[3:6]} & set(page.headings)
    assert "No time of training is known of popular, ease, multvae." in page.text


def test_groups_without_users_and_values_that_are_none(runs: list[Report]):
    def without(run: Report) -> Report:
        low = pl.col("group") == "low"
        users = run.per_user.with_columns(
            n_test=pl.when(low).then(0).otherwise("n_test"),
            **{"ndcg@10": pl.when(low).then(None).otherwise("ndcg@10")},
        )
        history = [
            {**row, "gate_entropy": None, "by_group": {"low": {"ndcg@10": None, "weight": math.nan}}}
            for row in run.history
        ]
        return replace(run, per_user=users, history=history, gate_entropy=math.nan)

    page = Page(report.html(compared([without(run) for run in runs])))
    assert "Nothing can be said about the most niche fifth of users (low)" in page.text
    assert "nan" not in page.text.lower() and "None" not in page.text.split("How it was made")[0]
    assert page.headings[:2] == SECTIONS[:2]
    assert page.tables[0][1][1].strip() == DASH


def test_fifteen_models_with_long_labels(runs: list[Report]):
    long = [
        fake(
            f"tall[gate=temperature,temperature=0.{n},weighting=loss-change,start_epoch={n},latent=50]",
            run.seed,
            run,
            0.01 * (n % 7) - 0.02,
            train_seconds=2.0 + n,
        )
        for n in range(1, 13)
        for run in runs[9:10]
    ]
    text = report.html(compared([*runs[:9:3], *long], seeds=[0]))
    page = Page(text)
    assert max(Counter(page.attributes("id")).values()) == 1
    assert "7 more learning curves" in page.text and "9 more" not in page.text
    assert len(page.tables[0]) == 16


# Charts


def report_of_equals(runs: list[Report]) -> str:
    return report.html(compared([*runs[6:9], *(fake("twin", run.seed, run) for run in runs[6:9])]))


def test_a_model_far_below_is_named_at_the_edge(runs: list[Report]):
    poor = [fake("poor", run.seed, run, -0.3) for run in runs[6:9]]
    text = report.html(compared([*runs[6:9], *poor]))
    assert re.search(r"far below: 0\.\d{3}<", text) and "far below" not in report_of_equals(runs)
    chart = text.split('aria-label="Relative difference')[1].split("</svg>")[0]
    assert len(re.findall(r">\N{MINUS SIGN}\d\d %<", chart)) >= 5


def test_the_legend_of_a_cost_chart_names_each_point(full: str, comparison: Comparison):
    charts = full.split("What quality costs")[1].split("</section>")[0].split("<figure>")[1:]
    for group, chart in zip(("low", "overall"), charts, strict=True):
        named = re.findall(r"<li>(.*?)</li>", chart, flags=re.S)
        for label, item in zip(LABELS, named, strict=True):
            mean = row_of(comparison.summary, label=label, grouping="mainstream", group=group)["mean"]
            assert short_names(LABELS)[label] in item and item.endswith(f": {mean:.3f}</small></span>")
            assert 'class="key"' in item


def test_prose_and_charts_say_only_what_tells_labels_apart(runs: list[Report]):
    variant = "tall[gate=uniform,weighting=none,alpha=0.5]"
    more = [fake(variant, run.seed, run) for run in runs[12:15]]
    only = [fake("multvae[latent=8]", run.seed, run) for run in runs[6:9]]
    made = compared([*only, *runs[12:15], *more], reference="multvae[latent=8]")
    text = report.html(made)
    page = Page(text)
    assert "Against multvae" in page.headings and "alpha=0.5" in page.tables[0][3][0]
    assert "latent=8" in page.tables[0][1][0]
    assert "gate=uniform" not in "".join(re.findall(r"<svg.*?</svg>", text, flags=re.S))
    assert "<b>tall[alpha=0.5]</b>" in text and "<b>tall</b>" in text
    assert variant in page.text  # with its settings, at the end


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text("ab[]=,", min_size=1, max_size=9), min_size=1, max_size=6, unique=True))
def test_short_names_are_different_where_labels_are(labels: list[str]):
    assert len(set(short_names(labels).values())) == len(labels)


POINTS = st.tuples(st.sampled_from([0.5, 1, 2, 4]), st.sampled_from([0.1, 0.2, 0.3]))


@settings(max_examples=50, deadline=None)
@given(st.lists(POINTS, min_size=1, max_size=8))
def test_front_is_what_nothing_beats(values: list[tuple[float, float]]):
    points = [Point(str(n), *value, Style(0, "o")) for n, value in enumerate(values)]
    kept = [(point.seconds, point.mean) for point in front(points)]
    beaten = [
        any(s <= second and m >= mean and (s, m) != (second, mean) for s, m in values)
        for second, mean in values
    ]
    assert kept == sorted({value for value, lost in zip(values, beaten, strict=True) if not lost})
