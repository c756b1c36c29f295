"""The loop, early stopping, objectives, progress and refit."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import greysheep as gs
from contract import assert_same_state, world
from greysheep.data.splitting import TRAIN, VALIDATION, Split
from greysheep.errors import ConfigError, GreysheepWarning
from greysheep.mainstream.groups import GROUPS as FIVE
from greysheep.mainstream.groups import UserGroups
from greysheep.models.autoencoders.trainer import MixtureTrainer
from greysheep.models.training.loop import Outcome, run
from greysheep.models.training.objective import Objective
from greysheep.models.training.progress import Progress

GROUPS = UserGroups(FIVE, np.array([0, 0, 1, 2, 3, 4], dtype=np.int8), "mainstream")


class FakeTrainer:
    """Validation NDCG of each epoch is given; the weights are the number of the epoch."""

    def __init__(self, values: list[Any], stop_at: int | None = None, diverge_at: int | None = None):
        self.values, self.stop_at, self.diverge_at = values, stop_at, diverge_at
        self.weights = 0

    def train_epoch(self, epoch: int, tick: Any) -> dict[str, Any]:
        if epoch == self.stop_at:
            raise KeyboardInterrupt
        self.weights = epoch
        tick(1.0)
        return {"loss": np.nan if epoch == self.diverge_at else 1.0, "weight": np.arange(6.0)}

    def validate(self) -> dict[str, np.ndarray]:
        value = self.values[self.weights - 1]
        return {"ndcg@20": np.broadcast_to(np.asarray(value, float), 6).copy()}

    def snapshot(self) -> int:
        return self.weights

    def restore(self, snapshot: int) -> None:
        self.weights = snapshot


def go(trainer: FakeTrainer, patience: int = 2, start_epoch: int = 0, objective: str = "ndcg@20") -> Outcome:
    return run(
        trainer,
        epochs=len(trainer.values),
        patience=patience,
        start_epoch=start_epoch,
        objective=Objective.parse(objective),
        groups=GROUPS,
        progress=Progress("fake", len(trainer.values), False),
    )


def test_stops_after_patience_with_the_best_weights() -> None:
    trainer = FakeTrainer([0.1, 0.3, 0.2, 0.2, 0.9])
    outcome = go(trainer)
    assert (len(outcome.history), outcome.best_epoch, trainer.weights) == (4, 2, 2)


def test_patience_counts_from_the_start_epoch() -> None:
    trainer = FakeTrainer([0.3, 0.2, 0.2, 0.2, 0.2, 0.9, 0.1, 0.1, 0.1])
    outcome = go(trainer, patience=2, start_epoch=5)
    assert (len(outcome.history), outcome.best_epoch) == (8, 6)
    assert len(go(FakeTrainer([0.3] + [0.2] * 8), patience=2, start_epoch=5).history) == 7


def test_worst_group_can_be_the_objective() -> None:
    lifted = [0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    rich = [0.0, 0.2, 0.9, 0.9, 0.9, 0.9]
    assert go(FakeTrainer([rich, lifted]), objective="ndcg@20:worst").best_epoch == 2
    assert go(FakeTrainer([rich, lifted]), objective="ndcg@20").best_epoch == 1
    assert go(FakeTrainer([rich, lifted]), objective="ndcg@20:low").best_epoch == 2


def test_history_has_means_by_group() -> None:
    row = go(FakeTrainer([[0.0, 0.2, 0.3, 0.4, np.nan, 0.6]])).history[0]
    assert row["ndcg@20"] == pytest.approx(0.3)
    assert row["by_group"]["low"] == pytest.approx({"ndcg@20": 0.1, "weight": 0.5})
    assert row["by_group"]["med-high"]["ndcg@20"] is None
    assert {"epoch", "loss", "objective", "gate_entropy", "train_seconds", "validation_seconds"} <= set(row)


def test_ctrl_c_keeps_the_best_weights() -> None:
    trainer = FakeTrainer([0.3, 0.2, 0.9], stop_at=3)
    outcome = go(trainer)
    assert outcome.interrupted and outcome.best_epoch == 1 and trainer.weights == 1
    with pytest.raises(KeyboardInterrupt):
        go(FakeTrainer([0.3], stop_at=1))


def test_divergence_is_said_and_the_best_weights_kept() -> None:
    trainer = FakeTrainer([0.3, 0.2, 0.9], diverge_at=2)
    with pytest.warns(GreysheepWarning, match="diverged in epoch 2"):
        outcome = go(trainer)
    assert trainer.weights == 1 and outcome.best_epoch == 1
    with pytest.raises(ConfigError, match="diverged in epoch 1"):
        go(FakeTrainer([0.3], diverge_at=1))


@pytest.mark.parametrize("text", ["ndcg", "ndcg@0", "ndcg@x", "sharpe@5", "mean-ndcg:lowest", "eval('1')"])
def test_bad_objectives(text: str) -> None:
    with pytest.raises(ConfigError, match="objective"):
        Objective.parse(text)


def test_mean_ndcg_is_the_mean_of_four() -> None:
    objective = Objective.parse("mean-ndcg")
    values = {f"ndcg@{n}": np.array([float(n), np.nan]) for n in (1, 5, 10, 20)}
    assert objective.value(values, GROUPS) == 9.0


def test_lines_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    log = world(24)
    gs.MultVAE(latent=4, epochs=2, progress=True).fit(log)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[1].startswith("multvae: epoch 2 · loss ") and "low" in lines[1]
    gs.MultVAE(latent=4, epochs=2, progress=False).fit(log)
    assert capsys.readouterr().err == ""


def test_refit_trains_on_validation_rows_for_the_best_number_of_epochs() -> None:
    log = world(48)
    keywords = {"latent": 8, "epochs": 12, "batch_size": 16, "learning_rate": 1e-2, "progress": False}
    model = gs.MultVAE(**keywords).fit(log, refit=True)
    everything = Split(log, np.full(len(log), TRAIN, np.int8), "all", 0)
    with pytest.warns(GreysheepWarning, match="no user has a validation row"):
        plain = gs.MultVAE(**{**keywords, "epochs": model.best_epoch}).fit(everything)
    assert_same_state(model, plain)
    assert not (model.split.part == VALIDATION).any() and len(model.history) == model.epochs
    with pytest.raises(ConfigError, match="protocol 'all'"):
        gs.MultVAE(**keywords).fit(gs.split(log), refit=True)


def test_weights_of_a_log_are_said_to_be_unused() -> None:
    frame = world(24).frame().with_columns(weight=pl.lit(2.0))
    with pytest.warns(GreysheepWarning, match="multvae is binary"):
        gs.MultVAE(latent=4, epochs=1, progress=False).fit(gs.Interactions.read(frame))


def test_a_log_too_small_to_validate() -> None:
    log = gs.Interactions.read(pl.DataFrame({"user_id": [1, 2, 3], "item_id": ["a", "b", "c"]}))
    with pytest.warns(GreysheepWarning, match="no user has a validation row"):
        model = gs.TALL(n_experts=2, latent=4, epochs=3, start_epoch=1, progress=False).fit(log)
    assert model.epochs == model.best_epoch == 3
    np.testing.assert_allclose(model.gates, 0.5)
    assert model.recommend([1], k=5)["item_id"].to_list() != []


def test_training_log_of_tall() -> None:
    log = world(48)
    model = gs.TALL(n_experts=2, latent=8, epochs=4, start_epoch=2, batch_size=16, progress=False).fit(log)
    assert [row["epoch"] for row in model.history] == [1, 2, 3, 4]
    means = [[g["weight"] for g in row["by_group"].values()] for row in model.history]
    assert means[0] == means[1] == [1.0] * 5 and means[3] != [1.0] * 5
    assert all(0 < row["gate_entropy"] <= np.log(2) + 1e-6 for row in model.history)
    assert model.gate_entropy == pytest.approx(np.log(2), abs=0.01)


def test_presets_and_devices() -> None:
    assert gs.TALL(preset="yelp").config.alpha == 0.6
    assert gs.TALL(preset="yelp", alpha=0.5).config.alpha == 0.5
    with pytest.raises(ConfigError, match="no preset 'netflix'"):
        gs.TALL(preset="netflix")
    with pytest.raises(ConfigError, match="device 'abacus'"):
        gs.MultVAE(epochs=1, device="abacus", progress=False).fit(world(24))
    with pytest.raises(ConfigError, match="n_experts=0 is not possible"):
        gs.TALL(n_experts=0)


def test_an_interrupted_refit_keeps_the_first_run(monkeypatch: pytest.MonkeyPatch) -> None:
    log = world(48)
    keywords = {"latent": 8, "epochs": 6, "batch_size": 16, "learning_rate": 1e-2, "progress": False}
    plain = gs.MultVAE(**keywords).fit(log)
    passes, original = iter(range(100)), MixtureTrainer.train_epoch

    def stopping(self: MixtureTrainer, epoch: int, tick: Any) -> dict[str, Any]:
        if next(passes) == plain.epochs + 1:  # the second epoch of the refit
            raise KeyboardInterrupt
        return original(self, epoch, tick)

    monkeypatch.setattr(MixtureTrainer, "train_epoch", stopping)
    with pytest.warns(GreysheepWarning, match="refit of multvae was interrupted"):
        model = gs.MultVAE(**keywords).fit(log, refit=True)
    assert model.interrupted and (model.split.part == VALIDATION).any()
    assert_same_state(model, plain)


def test_an_objective_nobody_can_be_measured_on_is_refused() -> None:
    crowd = [(f"u{u}", f"i{i}") for u in range(40) for i in range(u % 7, u % 7 + 10)]
    loners = [(f"x{u}", f"only{u}") for u in range(10)]  # one row each: low, and nothing to validate on
    log = gs.Interactions.read(pl.DataFrame(crowd + loners, schema=["user_id", "item_id"], orient="row"))
    keywords: dict[str, Any] = {"latent": 4, "epochs": 2, "progress": False}
    with pytest.raises(ConfigError, match="no user of that group"):
        gs.MultVAE(objective="ndcg@20:low", **keywords).fit(gs.split(log))
    model = gs.MultVAE(objective="ndcg@20:worst", **keywords).fit(gs.split(log))
    assert model.history[0]["by_group"]["low"]["ndcg@20"] is None


def test_weights_broken_by_the_last_step_are_a_divergence() -> None:
    model = gs.MultVAE(latent=4, epochs=2, batch_size=96, progress=False)
    model.config = model.config.model_copy(update={"learning_rate": 1e38})  # beyond what may be asked for
    with pytest.raises(ConfigError, match="diverged in epoch 1"):
        model.fit(world())
    with pytest.raises(ConfigError, match="learning_rate=inf"):
        gs.MultVAE(learning_rate=float("inf"))


def test_wl_weighs_users_by_how_mainstream_they_are() -> None:
    split = gs.split(world(24))
    rows = [set(row.indices.tolist()) for row in split.rows("train")]
    scores = [
        sum(len(mine & theirs) / len(mine | theirs) for v, theirs in enumerate(rows) if v != u)
        / (len(rows) - 1)
        for u, mine in enumerate(rows)
    ]
    expected = [((max(scores) - s) / (max(scores) - min(scores))) ** 1.2 for s in scores]
    expected = [w * len(expected) / sum(expected) for w in expected]
    np.testing.assert_allclose(gs.WL()._user_weights(split), expected, rtol=1e-5, atol=1e-9)


def test_a_user_of_weight_zero_leaves_no_gradient() -> None:
    private = pl.DataFrame({"user_id": ["003"] * 9, "item_id": [f"own{i}" for i in range(9)]})
    log = gs.Interactions.read(pl.concat([world(24).frame(), private]))
    split = gs.split(log, protocol="all")
    model = gs.WL(latent=4, beta=0.0, weight_decay=0.0, progress=False)
    model._user_weights = lambda split: np.arange(24) != 3  # type: ignore[method-assign]
    trainer = model._trainer(split, None)
    assert trainer.user_weights[3] == 0 and trainer.user_weights.sum() == 23
    trainer._train_batch(torch.arange(24), trainer.user_weights)
    gradient = model.net.bank.encoder_weight.grad
    own = [item for item in split.rows("train")[3].indices if log.item_ids[int(item)].startswith("own")]
    assert gradient is not None and own and not gradient[0, own].any()
    assert gradient[0].any()


def test_gates_refreshed_once_an_epoch_are_those_of_the_last_validation() -> None:
    split = gs.split(world(48), protocol="strict")
    model = gs.TALL(n_experts=3, latent=8, start_epoch=0, progress=False)
    trainer = model._trainer(split, Objective.parse("mean-ndcg"))
    assert trainer.gates is None  # the first epoch computes them with every batch
    trainer.train_epoch(1, lambda share: None)
    trainer.validate()
    expected = model._user_state(trainer.train, trainer.held_out)
    assert trainer.gates is not None
    np.testing.assert_allclose(trainer.gates.numpy(), expected, rtol=1e-5)
    before = trainer.gates.clone()
    trainer.net.mixture = None  # type: ignore[assignment,method-assign]  # nothing computes a gate any more
    trainer.train_epoch(2, lambda share: None)
    assert bool((trainer.gates == before).all())
    assert np.ptp(expected) > 0  # so that the comparison says something


def test_a_gate_is_kept_only_where_nothing_flows_through_it() -> None:
    split = gs.split(world(24), protocol="strict")
    kept = {"default": {}, "batch": {"gate_refresh": "batch"}, "gradient": {"gate_gradient": True},
            "authors": {"variant": "authors"}, "routed": {"active_experts": 2}}  # fmt: skip
    for name, keywords in kept.items():
        model = gs.LMoE(n_experts=3, latent=4, progress=False, **keywords)
        trainer = model._trainer(split, Objective.parse("mean-ndcg"))
        trainer.train_epoch(1, lambda share: None)
        trainer.validate()
        assert (trainer.gates is not None) == (name == "default"), name
    for through in ({"gate_gradient": True}, {"variant": "authors"}):
        with pytest.raises(ConfigError, match="no gradient flows"):
            gs.LMoE(gate_refresh="epoch", **through)


def test_fixed_weights_leave_no_rows_to_a_gate() -> None:
    fixed = {"weighting": "mainstream"}
    assert not gs.LMoE(**fixed).uses_gate_rows and not gs.TALL(**fixed).uses_gate_rows
    for model in (gs.LMoE(), gs.LMoE(**fixed, gate="loss"), gs.TALL(**fixed, variant="authors")):
        assert model.uses_gate_rows and model.settings.gate == "loss"
    assert gs.LMoE(**fixed).settings.gate == "uniform"


def test_a_small_log_has_ten_steps_an_epoch() -> None:
    config = gs.MultVAE().config
    for n_users, batch in ((3, 1), (48, 4), (604, 60), (6040, 512), (500_000, 512)):
        assert config.users_a_step(n_users) == batch
    assert gs.MultVAE(batch_size=7).config.users_a_step(6040) == 7


def test_the_authors_settings_fill_what_is_not_given() -> None:
    own = gs.TALL(variant="authors", alpha=0.5).config
    assert (own.l2, own.dropout, own.batch_size, own.kl_reduction) == (1e-3, 0.0, 512, "sum")
    assert (own.signal_scale, own.start_epoch, own.alpha) == ("sum", 40, 0.5)
    assert gs.MultVAE(variant="authors").config.kl_reduction == "mean"  # their script of MultVAE
    preset = gs.MultVAE(preset="yelp").config
    assert (preset.kl_reduction, preset.beta, preset.anneal_steps) == ("sum", 0.2, 200_000)
    assert (preset.batch_size, preset.l2) == (256, 1e-4)
