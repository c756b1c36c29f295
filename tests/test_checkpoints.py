"""A fit that was killed goes on to the same bits; signals end it in order."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import greysheep as gs
from contract import assert_same_state, text_of, world
from greysheep.cli import run
from greysheep.errors import ConfigError, GreysheepWarning
from greysheep.models import create
from greysheep.models.autoencoders.trainer import MixtureTrainer
from greysheep.models.training import checkpoints
from greysheep.models.training.checkpoints import Checkpoints, Stage, State
from greysheep.system.signals import ctrl_c_waits, on_sigterm, terminate

TINY = {"latent": 6, "epochs": 5, "batch_size": 24, "learning_rate": 1e-2, "progress": False}
MIXED = {**TINY, "n_experts": 2}
LOCAL = {**TINY, "n_experts": 2, "local_epochs": 4, "local_batch_size": 24}
CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "dropout, decoupled decay": ("multvae", {**TINY, "dropout": 0.5}, 5),
    "coupled decay": ("multvae", {**TINY, "l2": 0.01}, 5),
    "fixed weights": ("wl", TINY, 5),
    "learned gate": ("moe", MIXED, 5),
    "gate once per epoch": ("lmoe", {**MIXED, "gate_refresh": "epoch", "gate": "temperature"}, 5),
    "adaptive weights": ("tall", {**MIXED, "start_epoch": 3, "window": 2}, 5),
    "sparse routing": ("tall", {**MIXED, "start_epoch": 1, "active_experts": 1, "warm_up": 2}, 5),
    "global, then local models": ("loca", LOCAL, 9),
    "neighbours' experts": ("enlft", {**LOCAL, "threshold": 0.01}, 9),
    "a copy per user": ("lft", {**TINY, "steps": 2}, 5),
    "members of an ensemble": (
        "ensemble",
        {
            "members": (text_of("multvae", TINY), "ease", text_of("wl", TINY)),
            "weights": (1, 1, 1),
            "progress": False,
        },
        10,
    ),
}


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "SHARE", 1e9)


@pytest.fixture(scope="module")
def log() -> gs.Interactions:
    return world(60, 30)


def killed_after(epochs: int, monkeypatch: pytest.MonkeyPatch, fit: Any) -> None:
    """Fit, and end after so many epochs of all stages together."""
    end_of_epoch, passed = Stage.end_of_epoch, iter(range(1, 1000))

    def ending(self: Stage, *args: Any) -> None:
        end_of_epoch(self, *args)
        if next(passed) == epochs:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Stage, "end_of_epoch", ending)
        fit()


def without_times(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: row[key] for key in row if not key.endswith("_seconds")} for row in history]


def assert_same(one: Any, other: Any) -> None:
    assert_same_state(one, other)
    assert one.recommend(k=5).equals(other.recommend(k=5))
    assert without_times(one.history) == without_times(other.history)
    assert (one.best_epoch, one.gate_entropy) == (other.best_epoch, other.gate_entropy)


@pytest.mark.usefixtures("every_epoch")
@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_a_killed_fit_goes_on_to_the_same_bits(
    case: str, refit: bool, log: gs.Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, keywords, epochs = CASES[case]

    def fit(**more: Any) -> Any:
        return create(name, **keywords).fit(log, refit=refit, **more)

    whole = fit()
    moments = {1, 3, epochs - 1} if not refit else {2, epochs + 1}
    for n, moment in enumerate(sorted(moments)):
        folder = tmp_path / str(n)
        killed_after(moment, monkeypatch, lambda folder=folder: fit(checkpoints=folder))
        assert_same(whole, fit(checkpoints=folder, resume=True))


@pytest.mark.usefixtures("every_epoch")
def test_twice_killed_and_the_last_one_damaged(
    log: gs.Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "deep" / "kept"

    def fit(**more: Any) -> Any:
        return gs.TALL(**MIXED, start_epoch=1).fit(log, **more)

    killed_after(2, monkeypatch, lambda: fit(checkpoints=folder))
    killed_after(2, monkeypatch, lambda: fit(checkpoints=folder, resume=True))
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "00-000003", "00-000004"]
    tensors = folder / "00-000004" / "state.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-9] + b"\x01" + tensors.read_bytes()[-8:])
    with pytest.warns(GreysheepWarning, match="00-000004/state.safetensors has changed"):
        assert_same(fit(), fit(checkpoints=folder, resume=True))


@pytest.mark.usefixtures("every_epoch")
def test_what_is_refused(log: gs.Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keywords: dict[str, Any] = {**MIXED, "start_epoch": 1}
    killed_after(2, monkeypatch, lambda: gs.TALL(**keywords).fit(log, checkpoints=tmp_path / "c"))

    def refused(message: str, data: Any = log, **more: Any) -> None:
        with pytest.raises(ConfigError, match=message) as error:
            gs.TALL(**{**keywords, **more}).fit(data, checkpoints=tmp_path / "c", resume=True)
        assert "\n" not in str(error.value)

    refused("another log", world(61, 30))
    refused("another split", gs.split(log))
    refused("another split", seed=1)
    refused("latent is 6 there and 7 here", latent=7)
    refused("threads is 1 there and 2 here", threads=2)
    refused("precision is float32 there and float64 here", precision="float64")
    monkeypatch.setattr("greysheep.models.base.own_version", lambda: "9.9")
    refused("greysheep is .* there and 9.9 here")
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="an unfinished training up to epoch 2: resume it"):
        gs.TALL(**keywords).fit(log, checkpoints=tmp_path / "c")
    with pytest.raises(ConfigError, match="name their folder"):
        gs.TALL(**keywords).fit(log, resume=True)


def test_nothing_to_resume_is_said(log: gs.Interactions, tmp_path: Path) -> None:
    with pytest.warns(GreysheepWarning, match="nothing to resume"):
        model = gs.MultVAE(**TINY).fit(log, checkpoints=tmp_path / "none", resume=True)
    assert model.epochs == 5 and not (tmp_path / "none").exists()


@pytest.mark.usefixtures("every_epoch")
def test_a_full_disk_does_not_end_the_training(
    log: gs.Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.warns(GreysheepWarning, match="No space left on device") as caught:
        model = gs.MultVAE(**TINY).fit(log, checkpoints=tmp_path / "c")
    assert model.epochs == 5 and len(caught) == 1 and not (tmp_path / "c").exists()


def test_the_first_one_waits_until_writing_is_cheap(tmp_path: Path) -> None:
    kept = checkpoints.Checkpoints(tmp_path / "c", {})
    with kept:
        assert not kept.due(10**9)
        kept.last -= 200
        assert kept.due(10**9) and not kept.due(10**10)
        kept.cost = 5.0  # as measured
        assert not kept.due(1)


class Trained:
    """Stands for a trainer of any kind."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def state(self) -> State:
        return State({"weights": torch.ones(3)})

    def load_state(self, state: State) -> str:
        if self.error is not None:
            raise self.error
        return f"best of {len(state.facts['history'])}"


def epoch_of(state: State | None) -> int | None:
    return None if state is None else len(state.facts["history"])


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Checkpoints of a fit that took 100 seconds: of epochs 1 to 3 of a stage, 1 to 4 of the next."""
    with Checkpoints(tmp_path / "c", {"settings": {"latent": 6}}) as kept:
        kept.begun -= 100
        for number, epochs in enumerate((3, 4)):
            for epoch in range(1, epochs + 1):
                facts = {"history": [{}] * epoch, "best_epoch": epoch - 1}
                kept.write(number, epoch, State({"weights": torch.ones(3)}, facts))
        assert kept.cost is not None and kept.cost < 50
    return tmp_path / "c"


def test_the_last_two_of_a_stage_and_the_last_of_those_before_are_kept(written: Path) -> None:
    names = ["00-000003", "01-000003", "01-000004"]
    assert [path.name for path in checkpoints.found(written)] == names
    assert checkpoints.unfinished(written) == "an unfinished training up to epoch 4"
    (written / ".01-000005.0000.tmp").mkdir()  # of a process that was killed
    with Checkpoints(written, {"settings": {"latent": 6}}, resume=True) as kept:
        assert not (written / ".01-000005.0000.tmp").exists()
        assert [epoch_of(kept.read(stage)) for stage in (0, 1, 2)] == [3, 4, None]
        (written / names[2] / "state.json").write_text("{}")
        with pytest.warns(GreysheepWarning, match=r"01-000004/state.json .* passed over"):
            assert epoch_of(kept.read(1)) == 3
    assert sorted(path.name for path in written.iterdir()) == [".lock", *names]
    with Checkpoints(written.parent / "d", {}) as kept:
        assert kept.read(0) is None


def test_a_damaged_one_does_not_hide_that_the_next_is_of_another_fit(written: Path) -> None:
    (written / "00-000003" / "manifest.json").write_text("{}")
    other = Checkpoints(written, {"settings": {"latent": 7}}, resume=True)
    with pytest.raises(ConfigError, match=r"01-000003 cannot be resumed.* latent is 6 there and 7 here"):
        other.__enter__()


def test_a_stage_is_taken_up_where_it_was(written: Path) -> None:
    with Checkpoints(written, {"settings": {"latent": 6}}, resume=True) as kept:
        kept.last -= 100
        with kept.stage() as stage:
            assert stage.begin(Trained()) == ([{}] * 3, 2, "best of 3")
        assert 100 <= kept.seconds_before < 150
        assert time.monotonic() - kept.last < 50  # the next one is not due at once
        with kept.stage() as stage:
            for error in (KeyError("w"), ValueError("w"), RuntimeError("w\nx"), TypeError("w")):
                with pytest.raises(ConfigError, match=r"another version of the model: .?w"):
                    stage.begin(Trained(error))
        kept.begun -= 60
        kept.write(1, 5, State({"weights": torch.ones(3)}, {"history": []}))
    with Checkpoints(written, {"settings": {"latent": 6}}, resume=True) as kept:
        assert kept.read(1) is not None and 160 <= kept.seconds_before < 200


def test_sigterm_waits_for_an_epoch_that_no_checkpoint_holds(tmp_path: Path) -> None:
    with Checkpoints(tmp_path / "c", {}) as kept:
        with pytest.raises(SystemExit):
            kept._asked()  # between two stages
        with kept.stage() as stage:
            assert stage.begin(Trained()) == ([], 0, None)
            assert kept.unwritten  # the first epoch, too, is trained to the end
            kept.write(0, 1, Trained().state())
            with pytest.raises(SystemExit):
                kept._asked()
            kept.last = time.monotonic()
            stage.end_of_epoch(Trained(), [{}, {}], 1)  # writing is not due yet
            kept._asked()
            assert kept.ending
            with pytest.raises(SystemExit):
                kept._asked()
            with pytest.raises(SystemExit):
                stage.end_of_epoch(Trained(), [{}, {}, {}], 1)
            assert not kept.unwritten and checkpoints.found(tmp_path / "c")[-1].name == "00-000003"
            kept.ending = False
        with pytest.raises(SystemExit), kept.stage():
            kept._asked()  # in its last epoch


def test_a_checkpoint_that_cannot_be_written_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with Checkpoints(tmp_path / "c", {}) as kept, kept.stage():
        with pytest.warns(GreysheepWarning, match="No space left"):
            kept.write(0, 1, Trained().state())
        kept.last -= 10**6
        assert kept.unwritten and not kept.due(1)


def test_a_fit_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(Killed), Checkpoints(tmp_path / "deep" / "c", {}):
        raise Killed
    assert list(tmp_path.iterdir()) == []


# Signals


@pytest.fixture
def handlers() -> Iterator[None]:
    """Those of a program that sets none itself; what was there before comes back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0)


def in_a_thread(act: Any) -> list[Any]:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(act()))
    thread.start()
    thread.join()
    return found


@pytest.mark.usefixtures("handlers")
def test_the_first_ctrl_c_waits_and_the_second_does_not() -> None:
    with ctrl_c_waits() as pressed:
        send(signal.SIGINT)
        assert pressed
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt), ctrl_c_waits():
        send(signal.SIGINT)
        send(signal.SIGINT)
        pytest.fail("the second one was held back")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt), ctrl_c_waits(unless=True) as pressed:
        send(signal.SIGINT)
    assert not pressed
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a process that nohup started
    with ctrl_c_waits() as pressed:
        send(signal.SIGINT)
        send(signal.SIGINT)
    assert not pressed


@pytest.mark.usefixtures("handlers")
def test_sigterm_is_left_to_a_program_that_has_a_handler_of_its_own() -> None:
    heard: list[str] = []
    for before in (signal.SIG_DFL, terminate):
        signal.signal(signal.SIGTERM, before)
        with on_sigterm(lambda: heard.append("ours")):
            send(signal.SIGTERM)
        assert heard.pop() == "ours" and signal.getsignal(signal.SIGTERM) == before
    for own in (signal.SIG_IGN, lambda *_: heard.append("theirs")):
        signal.signal(signal.SIGTERM, own)
        with on_sigterm(lambda: heard.append("ours")):
            send(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == own
    assert heard == ["theirs"]
    with pytest.raises(SystemExit) as ended:
        terminate()
    assert ended.value.code == 143


@pytest.mark.usefixtures("handlers")
def test_no_other_thread_sets_a_handler() -> None:
    def work() -> tuple[Any, Any]:
        with ctrl_c_waits(), on_sigterm(terminate):
            return signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    assert in_a_thread(work) == [(signal.default_int_handler, signal.SIG_DFL)]


# The command


@pytest.fixture
def desk(log: gs.Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    log.frame().write_parquet("log.parquet")
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield tmp_path
    signal.signal(signal.SIGINT, before)


def fit(*more: str) -> int:
    settings = ("latent=6", "epochs=6", "batch_size=24", "learning_rate=0.01")
    line = ["fit", "log.parquet", "-o", "model", "--model", "multvae"]
    return run([*line, *(word for one in settings for word in ("--set", one)), *more])


def signalled(number: int, epoch: int, monkeypatch: pytest.MonkeyPatch, times: int = 1) -> Any:
    """Send this process a signal in an epoch; returns the patch, to be undone."""
    train_epoch = MixtureTrainer.train_epoch

    def sending(self: MixtureTrainer, now: int, tick: Any) -> dict[str, Any]:
        losses = train_epoch(self, now, tick)
        if now == epoch:
            for _ in range(times):
                os.kill(os.getpid(), number)
            time.sleep(0)
        return losses

    monkeypatch.setattr(MixtureTrainer, "train_epoch", sending)


def left() -> list[str]:
    return sorted(path.name for path in Path().iterdir() if path.name != "log.parquet")


@pytest.mark.usefixtures("desk")
def test_sigterm_keeps_a_checkpoint_and_resume_goes_on(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        signalled(signal.SIGTERM, 3, patch)
        assert fit() == 143
    assert left() == [".model.checkpoints"]
    assert "up to epoch 3: the same command with --resume goes on" in capfd.readouterr().err
    assert fit() == 2
    assert "add --resume to go on with it, or --overwrite" in capfd.readouterr().err
    assert fit("--resume") == 0
    assert "multvae: goes on after epoch 3" in capfd.readouterr().err and left() == ["model"]
    first = pl.read_parquet("model/users.parquet"), Path("model/model.safetensors").read_bytes()
    assert fit("--resume", "--overwrite") == 0
    assert "nothing to resume" in capfd.readouterr().err
    assert first[0].equals(pl.read_parquet("model/users.parquet"))
    assert first[1] == Path("model/model.safetensors").read_bytes()


@pytest.mark.usefixtures("desk")
def test_a_second_sigterm_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    signalled(signal.SIGTERM, 1, monkeypatch, times=2)
    assert fit() == 143 and left() == []


@pytest.mark.usefixtures("desk")
def test_overwrite_throws_an_unfinished_training_away(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        signalled(signal.SIGTERM, 2, patch)
        assert fit() == 143
    assert fit("--overwrite") == 0 and left() == ["model"]
    assert "up to epoch 2 is thrown away" in capfd.readouterr().err


@pytest.mark.usefixtures("desk")
def test_ctrl_c(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    with monkeypatch.context() as patch:
        signalled(signal.SIGINT, 1, patch)
        assert fit() == 130 and left() == []
    with monkeypatch.context() as patch:
        signalled(signal.SIGINT, 3, patch)
        assert fit() == 130
    assert left() == ["model"] and gs.load("model").epochs == 2
    assert capfd.readouterr().err.splitlines()[-1] == "interrupted"


@pytest.mark.usefixtures("desk")
def test_ctrl_c_while_a_trained_model_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    save = gs.MultVAE.save

    def pressing(times: int) -> Any:
        def saving(self: Any, *args: Any, **more: Any) -> Path:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)
            return save(self, *args, **more)

        return saving

    monkeypatch.setattr(gs.MultVAE, "save", pressing(2))
    assert fit() == 130 and left() == []
    monkeypatch.setattr(gs.MultVAE, "save", pressing(1))
    assert fit() == 130 and gs.load("model").epochs == 6


def test_ctrl_c_in_the_global_model_or_an_early_part_leaves_no_model(
    log: gs.Interactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopping(self: MixtureTrainer, epoch: int, tick: Any) -> dict[str, Any]:
        if epoch == 2:
            raise KeyboardInterrupt
        return train_epoch(self, epoch, tick)

    train_epoch = MixtureTrainer.train_epoch
    monkeypatch.setattr(MixtureTrainer, "train_epoch", stopping)
    small: dict[str, Any] = {"latent": 6, "epochs": 3}
    for name, keywords in (
        ("loca", {**small, "n_experts": 2}),
        ("ensemble", {"members": (text_of("multvae", small), "ease")}),
    ):
        with pytest.raises(KeyboardInterrupt), pytest.warns(GreysheepWarning, match="interrupted"):
            create(name, **keywords, progress=False).fit(log)
    with pytest.warns(GreysheepWarning, match="interrupted"):
        members = ("ease", text_of("multvae", small))
        ensemble = create("ensemble", members=members, weights=(1, 1), progress=False).fit(log)
        lft = create("lft", **small, steps=2, progress=False).fit(log)
    assert ensemble.interrupted and lft.interrupted


def test_the_generators_of_users_and_noise_are_part_of_the_state(log: gs.Interactions) -> None:
    trainer = gs.MultVAE(**TINY)._trainer(gs.split(log), None)
    trainer.train_epoch(1, lambda share: None)
    state = trainer.state()
    other = gs.MultVAE(**TINY)._trainer(gs.split(log), None)
    other.load_state(state)
    np.testing.assert_array_equal(trainer.order.permutation(9), other.order.permutation(9))
    assert (trainer.random.get_state() == other.random.get_state()).all()
