"""benchmarks/speed.py compares like with like, and its command runs."""

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix, identity, vstack
from torch import Tensor

import greysheep as gs
from greysheep.errors import ProcessEndedError
from greysheep.models.training.objective import Objective
from greysheep.nn.sparse_rows import SparseRows

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the benchmarks are not in this copy")
TOLERANCE = 1e-8
SIZES = {"n_experts": 3, "latent": 4, "batch_size": 64, "noise": 0.0, "dropout": 0.0}
FAST = {
    "learning_rate": 0.02,
    "start_epoch": 2,
}  # so that losses and adaptive weights move within a few epochs
METHODS = {
    "default": {"anneal_epochs": 4},
    "authors": {"l2": 1e-2, "kl_reduction": "sum", "anneal_steps": 30, "beta": 0.2,
                "signal_scale": "sum", "alpha": 0.02},
    "mean": {"signal_scale": "mean", "alpha": 0.01, "weight_decay": 0.05},
}  # fmt: skip


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmark's modules, by name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return lambda name: importlib.import_module(f"speed_parts.{name}")


def weights(net: Any, n_items: int) -> dict[str, Tensor]:
    """All weights, however the bank stores them: its answers to single items and single latents."""
    n_experts, latent = SIZES["n_experts"], SIZES["latent"]
    ones = vstack([identity(n_items), csr_matrix((1, n_items))]).tocsr()
    with torch.no_grad():
        h = torch.cat(net.bank.encode(SparseRows.from_csr(ones)), dim=2)  # [K, I + 1, 2D]
        each = torch.eye(n_experts, dtype=h.dtype).repeat_interleave(latent + 1, dim=0)
        z = torch.cat([torch.eye(latent, dtype=h.dtype), torch.zeros(1, latent, dtype=h.dtype)])
        logits = net.bank.mix(z.repeat(n_experts, 1).expand(n_experts, -1, -1), each)
    logits = logits.view(n_experts, latent + 1, n_items)
    return {
        "encoder": h[:, :-1] - h[:, -1:],
        "encoder_bias": h[:, -1].clone(),
        "decoder": logits[:, :-1] - logits[:, -1:],
        "decoder_bias": logits[:, -1].clone(),
    }


def of_loop(program: Any) -> list[dict[str, Tensor]]:
    """The loop's parameters, expert by expert, shaped as above."""
    return [
        {
            "encoder": expert.encoder.weight.T if expert.dense else expert.encoder.weight,
            "encoder_bias": expert.encoder.bias if expert.dense else expert.encoder_bias,
            "decoder": expert.decoder.weight.T,
            "decoder_bias": expert.decoder.bias,
        }
        for expert in program.experts
    ]


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "sparse"])
@pytest.mark.parametrize("method", METHODS)
def test_the_loop_is_the_same_mathematics(parts: Any, dense: bool, method: str):
    """Twelve epochs of one batch: losses, adaptive weights, all parameters and NDCG agree."""
    log = gs.datasets.simulate(n_users=50, n_items=40, rows_per_user=9, seed=2).log
    split = gs.split(log, protocol="strict", seed=0)
    held_out = split.gate_rows()
    assert (np.diff(held_out.indptr) == 0).any(), "some users without gate rows are wanted"
    model = gs.TALL(precision="float64", device="cpu", progress=False, **SIZES, **FAST, **METHODS[method])
    trainer: Any = model._trainer(split, Objective.parse("mean-ndcg"))
    looped = parts("looped")
    program = looped.LoopedTALL(trainer.train, held_out, model.config, dense=dense, dtype=torch.float64)
    start = weights(trainer.net, log.n_items)
    with torch.no_grad():
        for k, own in enumerate(of_loop(program)):
            for name, parameter in own.items():
                parameter.copy_(start[name][k])

    uneven = 0
    for epoch in range(1, 13):
        row = trainer.train_epoch(epoch, lambda share: None)
        program.begin_epoch(epoch)
        loss = program.train_batch(program.users)
        assert loss == pytest.approx(row["loss"], rel=TOLERANCE), f"epoch {epoch}"
        uneven += int(np.nanstd(row["weight"]) > 0.1)
    assert uneven >= 8, "adaptive weights were hardly at work"

    final = weights(trainer.net, log.n_items)
    for k, own in enumerate(of_loop(program)):
        for name, parameter in own.items():
            worst = float((parameter.detach() - final[name][k]).abs().max())
            assert worst < TOLERANCE, f"{name} of expert {k}: {worst:.1e}"
            assert float((final[name][k] - start[name][k]).abs().max()) > 1e-3, f"{name} was never trained"


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "sparse"])
def test_the_loop_validates_the_same(parts: Any, dense: bool):
    split = gs.split(gs.datasets.simulate(n_users=50, n_items=40, seed=1).log, protocol="paper", seed=0)
    model = gs.TALL(precision="float64", device="cpu", progress=False, **SIZES)
    trainer: Any = model._trainer(split, Objective.parse("mean-ndcg"))
    looped = parts("looped")
    program = looped.LoopedTALL(
        trainer.train, split.gate_rows(), model.config, dense=dense, dtype=torch.float64
    )
    start = weights(trainer.net, split.log.n_items)
    with torch.no_grad():
        for k, own in enumerate(of_loop(program)):
            for name, parameter in own.items():
                parameter.copy_(start[name][k])
    expected = trainer.validate()
    for name, values in program.validate_batch(program.users).items():
        np.testing.assert_allclose(values, expected[name][program.users], atol=TOLERANCE, err_msg=name)
        assert values.max() > 0


def test_a_block_is_what_was_asked_for(parts: Any):
    worker, settings = parts("worker"), parts("settings")
    cell = settings.Cell("simulated", 2, 4)
    library, facts = worker.build("greysheep", cell, "cpu")
    assert set(facts) == {"torch", "greysheep"}
    assert library.train(128) == 128 and library.train(10_000) == library.n_users == 600
    for n_users, measured in ((100, 100), (10_000, 600)):
        library.prepare(n_users)
        assert library.validate(n_users) == measured
        found = library.validators[n_users].validate()["ndcg@20"]
        assert (~np.isnan(found)).sum() == measured
    loop, _ = worker.build("loop-sparse", cell, "cpu")
    assert loop.train(128) == loop.validate(128) == 128


def test_stages_add_up_and_leave_no_trace(parts: Any):
    worker, settings, stages = parts("worker"), parts("settings"), parts("stages")
    library, _ = worker.build("greysheep", settings.Cell("simulated", 2, 4), "cpu")
    plain = torch.optim.Adam.step, torch.Tensor.backward, type(library.trainer).__dict__.copy()
    begun = worker.time.perf_counter()
    with stages.Stages() as found:
        library.train(600)
    whole = worker.time.perf_counter() - begun
    assert plain == (torch.optim.Adam.step, torch.Tensor.backward, dict(type(library.trainer).__dict__))
    assert 0.3 * whole < sum(found.seconds.values()) <= whole
    assert all(seconds >= 0 for seconds in found.seconds.values()) and len(found.seconds) > 4


def test_memory_decides_who_runs_beside_whom(parts: Any):
    measure, settings = parts("measure"), parts("settings")
    yelp, cell = settings.Shape(33_078, 25_720, 457_000, 256), settings.Cell("yelp", 100)
    need = {name: settings.needed_bytes(name, cell, yelp) for name in settings.PROGRAMS}
    assert 15e9 < need["greysheep"] < 18e9 < 20e9 < need["loop-sparse"] < need["loop-dense"] < 25e9
    programs = list(settings.PROGRAMS)
    assert measure.packed(programs, cell, yelp, 30e9) == [[name] for name in programs]
    assert measure.packed(programs, settings.Cell("yelp", 10), yelp, 20e9) == [programs]


def test_the_command_measures_keeps_and_writes_the_page(
    parts: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    measure, speed = parts("measure"), importlib.import_module("speed")
    kept, docs = tmp_path / "kept", tmp_path / "docs"
    small = ["--logs", "simulated", "--experts", "2", "--latent", "4", "--threads", "1", "--blocks", "2"]
    command = [sys.executable, str(BENCHMARKS / "speed.py"), "--kept", str(kept), *small]
    done = subprocess.run([*command, "--what", "loop-sparse"], check=True, stdout=subprocess.PIPE, text=True)
    assert "bare products" in done.stdout and "loop, sparse input" in done.stdout
    (file,) = kept.glob("simulated-*.json")
    first = file.stat().st_mtime_ns

    speed.main(["--kept", str(kept), *small, "--what", "loop-sparse,loop-dense", "--max-memory", "0.1"])
    assert file.stat().st_mtime_ns == first, "a kept result was measured again"
    assert "skipped: needs about" in capsys.readouterr().out
    records = sorted(measure.all_kept(kept), key=speed.place_in_table)
    assert [r["program"] for r in records] == ["loop-sparse", "loop-dense"]
    assert len(records[0]["blocks"]["train"]) == len(records[0]["bare"]["validate"]) == 2
    assert records[0]["peak"] > 1e8

    speed.main(["--kept", str(kept), "--page", "--docs", str(docs)])
    page = (docs / "performance.md").read_text()
    assert "skipped" in page and "| simulated | 2 | loop, sparse input |" in page
    for picture in sorted((docs / "img").iterdir()):
        assert f"img/{picture.name}" in page and picture.read_text().startswith("<?xml")


def test_code_that_changed_is_measured_anew(parts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    measure, settings = parts("measure"), parts("settings")
    cell, setup = settings.Cell("simulated", 2, 4), settings.Setup(threads=1)
    file = measure.place(tmp_path, "greysheep", cell, setup)
    record = {
        **measure.facts_of("greysheep", cell, setup),
        "blocks": {"train": [2.0, 3.0], "validate": [1.0, 1.5]},
        "bare": {"train": [1.0, 1.0], "validate": [0.5, 0.5]},
        "peak": 10, "bare_peak": 5, "together": True, "run": 1,
    }  # fmt: skip
    kept = measure.keep(file, record)
    assert {key: kept[key] for key in record} == record
    assert parts("tables").times_bare(kept, "both") == 2.5 * 1.5 / 1.5
    assert measure.known(tmp_path, "greysheep", cell, setup) == kept
    assert measure.known(tmp_path, "greysheep", cell, settings.Setup(threads=1, blocks=6)) is None
    monkeypatch.setattr(measure, "fingerprint", lambda program: "of other code")
    assert measure.known(tmp_path, "greysheep", cell, setup) is None
    assert measure.all_kept(tmp_path) == []


def test_a_program_that_ends_is_left_out_and_its_log_stays(
    parts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    measure, settings = parts("measure"), parts("settings")
    monkeypatch.setattr(measure, "COMMAND", [sys.executable, "-c", "raise SystemExit('no room left')"])
    cell, setup = settings.Cell("simulated", 2, 4), settings.Setup(threads=1)
    workers = [measure.Worker(name, cell, setup, tmp_path) for name in ("loop-sparse", settings.BARE)]
    sizes = (("train",), settings.Shape(600, 300, 9000, 64), setup, True)
    workers[0].attempt(workers[0].warm_up, *sizes)
    assert "no room left" in workers[0].error
    with pytest.raises(ProcessEndedError, match="no room left"):
        workers[1].attempt(workers[1].warm_up, *sizes)
    for worker in workers:
        worker.end()
    assert (tmp_path / "loop-sparse.log").exists()


@pytest.mark.parametrize(
    "words", [["--logs", "ml-2m"], ["--what", "speed"], ["--experts", "0"]], ids=lambda words: words[0]
)
def test_wrong_words_end_in_one_line(words: list[str]):
    command = [sys.executable, str(BENCHMARKS / "speed.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "error" in done.stderr.splitlines()[-1]
