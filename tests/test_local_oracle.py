"""The local models' tensors, held to plain float64 loops."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

import greysheep as gs
import oracle
from greysheep.data.splitting import TRAIN, VALIDATION
from greysheep.models import create
from greysheep.models.local.neighbours import Jaccard, greedy_cover, nearest
from greysheep.models.local.trainer import LocalTrainer
from greysheep.models.training.objective import Objective
from greysheep.nn.bank import ExpertBank
from greysheep.nn.local_experts import ExpertGradient, angular_distance, epanechnikov, fine_tuned
from greysheep.nn.sparse_rows import SparseRows

seeds = st.integers(0, 2**31)


def small_split(n_users: int, n_items: int, seed: int = 0) -> gs.Split:
    random = np.random.default_rng(seed)
    pairs = [
        {"user_id": u, "item_id": int(i)}
        for u in range(n_users)
        for i in random.choice(n_items, random.integers(3, n_items // 2 + 2), replace=False)
    ]
    return gs.split(gs.Interactions.read(pl.DataFrame(pairs)), protocol="strict", seed=seed)


def random_rows(random: np.random.Generator, n_rows: int, n_items: int, least: int = 0) -> csr_matrix:
    dense = np.zeros((n_rows, n_items), np.float32)
    for row in dense:
        row[random.choice(n_items, random.integers(least, n_items), replace=False)] = 1
    return csr_matrix(dense)


# ---- who is near whom


@settings(max_examples=50, deadline=None)
@given(seed=seeds)
def test_distance_and_kernel(seed: int) -> None:
    random = np.random.default_rng(seed)
    a, b = random.normal(size=(3, 4)), random.normal(size=(5, 4))
    found = angular_distance(torch.from_numpy(a), torch.from_numpy(b))
    for i, j in itertools.product(range(3), range(5)):
        cosine = sum(a[i] * b[j]) / math.sqrt(sum(a[i] ** 2)) / math.sqrt(sum(b[j] ** 2))
        distance = min(1.0, 2 / math.pi * math.acos(max(-1.0, min(1.0, cosine))))
        assert found[i, j].item() == pytest.approx(distance, abs=1e-9)
        for bandwidth in (0.5, 0.8, 1.0):
            weight = 0.75 * (1 - distance**2) if distance < bandwidth else 0.0
            assert epanechnikov(found, bandwidth)[i, j].item() == pytest.approx(weight, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(seed=seeds)
def test_jaccard_and_nearest(seed: int) -> None:
    random = np.random.default_rng(seed)
    a, b = random_rows(random, 4, 6), random_rows(random, 9, 6)
    found = Jaccard(b)(a)
    for i, j in itertools.product(range(4), range(9)):
        left, right = set(a[i].indices), set(b[j].indices)
        assert found[i, j] == (len(left & right) / len(left | right) if left | right else 0)
    for line in found:
        order = sorted((j for j in range(9) if line[j] > 0.2), key=lambda j: (-line[j], j))
        assert nearest(line, 0.2, 3).tolist() == order[:3]


def cover_slowly(n_anchors: int, covers: np.ndarray) -> list[int]:
    n_users, chosen = len(covers), []
    left = set(range(n_users))
    fresh = True
    while len(chosen) < min(n_anchors, n_users):
        gains = {u: sum(v in left for v in range(n_users) if covers[u, v]) for u in range(n_users)}
        best = min((u for u in gains if u not in chosen), key=lambda u: (-gains[u], u))
        if gains[best] == 0 and not fresh:
            left, fresh = set(range(n_users)), True
            continue
        chosen.append(best)
        left -= {v for v in range(n_users) if covers[best, v]}
        fresh = False
    return chosen


@settings(max_examples=50, deadline=None)
@given(seed=seeds, n_users=st.integers(1, 12), n_anchors=st.integers(1, 14), density=st.floats(0, 0.6))
def test_greedy_cover(seed: int, n_users: int, n_anchors: int, density: float) -> None:
    covers = np.random.default_rng(seed).random((n_users, n_users)) < density
    found = greedy_cover(n_anchors, n_users, lambda users: covers[users], chunk=5)
    assert found.tolist() == cover_slowly(n_anchors, covers)
    assert len(set(found.tolist())) == len(found) == min(n_anchors, n_users)


# ---- one expert's gradient


def bank_of(experts: oracle.Experts) -> ExpertBank:
    bank = ExpertBank(experts.n_experts, experts.n_items, experts.latent).double()
    bank.load_state_dict(experts.stacked())
    return bank


@settings(max_examples=20, deadline=None)
@given(seed=seeds, beta=st.floats(0, 2), equal=st.booleans(), sums=st.booleans())
def test_gradient_by_hand(seed: int, beta: float, equal: bool, sums: bool) -> None:
    random = np.random.default_rng(seed)
    experts, rows = oracle.Experts(7, 2, 3, seed=seed % 1000), random_rows(random, 5, 7)
    weight = np.ones(5) if equal else random.random(5) * (random.random(5) < 0.8) + 1e-3
    eps, x = torch.from_numpy(random.normal(size=(5, 3))), torch.from_numpy(rows.toarray()).double()
    losses = [experts.expert(1, x[u], eps[u], 0.3) for u in range(5)]
    ce = sum(weight[u] * oracle.cross_entropy(losses[u][0], x[u]) for u in range(5)) / weight.sum()
    kl = (5 if sums else 1) * sum(weight[u] * losses[u][1] for u in range(5)) / weight.sum()
    (ce + beta * kl).backward()
    got, gradients = ExpertGradient(bank_of(experts), 0.3, sums_kl=sums)(
        1, SparseRows.from_csr(rows), torch.from_numpy(weight), eps, beta
    )
    assert got[0].item() == pytest.approx(ce.item(), abs=1e-9)
    assert got[1].item() == pytest.approx(kl.item(), abs=1e-9)
    for (name, value), mine in zip(experts.gradients().items(), gradients, strict=True):
        np.testing.assert_allclose(mine, value[1], atol=1e-9, err_msg=name)
    if equal:  # MultVAE's loss
        out = experts.forward(x, torch.zeros_like(x), eps=torch.stack([eps, eps]), noise=0.3)
        alike = out.kl[1].sum() if sums else out.kl[1].mean()
        assert kl.item() == pytest.approx(alike.item())


# ---- fine-tuning without a copy


@settings(max_examples=20, deadline=None)
@given(seed=seeds, rate=st.floats(0.1, 20), damping=st.floats(0.1, 5))
def test_fine_tuning_is_that_of_a_copy(seed: int, rate: float, damping: float) -> None:
    random = np.random.default_rng(seed)
    n_items, latent = 6, 3
    rows, weight = random_rows(random, 4, n_items, least=1), random.random(4) + 0.01
    own, z = torch.from_numpy(random.normal(size=latent)), torch.from_numpy(random.normal(size=(4, latent)))
    w, b = (
        torch.from_numpy(random.normal(size=(latent, n_items))),
        torch.from_numpy(random.normal(size=n_items)),
    )
    copies = fine_tuned(own, z, SparseRows.from_csr(rows), torch.from_numpy(weight), (w, b), rate, damping)
    before = w.clone()
    w_copy, b_copy = copy.deepcopy(w).requires_grad_(), copy.deepcopy(b).requires_grad_()
    x = torch.from_numpy(rows.toarray()).double()
    speed: list[float] = []
    for _ in range(4):
        np.testing.assert_allclose(next(copies), (own @ w_copy + b_copy).detach(), atol=1e-8)
        loss = torch.zeros((), dtype=torch.float64)
        for v in range(4):
            loss = loss + weight[v] * oracle.cross_entropy(z[v] @ w_copy + b_copy, x[v]) / x[v].sum()
        grad_w, grad_b = torch.autograd.grad(loss / weight.sum(), [w_copy, b_copy])
        if not speed:
            for i in range(n_items):
                share = sum(
                    weight[v] / weight.sum() * float(torch.softmax(z[v] @ w + b, 0)[i]) for v in range(4)
                )
                speed.append(rate * math.sqrt((1 + damping) / (n_items * share + damping)))
        with torch.no_grad():
            for i in range(n_items):
                w_copy[:, i] -= speed[i] * grad_w[:, i]
                b_copy[i] -= speed[i] * grad_b[i]
    assert torch.equal(w, before)


def test_nobody_near_leaves_the_global_model() -> None:
    own, w, b = torch.ones(2), torch.ones(2, 3), torch.zeros(3)
    nobody = SparseRows.from_csr(csr_matrix((0, 3)))
    copies = fine_tuned(own, torch.empty(0, 2), nobody, torch.empty(0), (w, b), 5.0, 1.0)
    for _ in range(3):
        assert next(copies).tolist() == [2.0, 2.0, 2.0]


# ---- whole models

TINY: dict[str, Any] = {
    "latent": 3, "epochs": 3, "batch_size": 8, "learning_rate": 0.02, "noise": 0.2, "dropout": 0.0,
    "precision": "float64", "device": "cpu", "progress": False, "seed": 3,
}  # fmt: skip
SUMMED: dict[str, Any] = {"l2": 0.05, "beta": 0.2, "anneal_steps": 5, "kl_reduction": "sum"}
OWN: dict[str, Any] = {"weight_decay": 0.2, "beta": 0.8, "anneal_epochs": 6.0, "kl_reduction": "mean"}
"""The authors' regularisation, in steps and sums, and ours, in epochs and means."""
LOCAL: dict[str, Any] = {**TINY, "n_experts": 3, "local_batch_size": 7, "local_learning_rate": 0.03}


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("name", ["loca", "enlft"])
@pytest.mark.parametrize("how", [SUMMED, OWN], ids=["summed", "own"])
def test_local_training_agrees_step_by_step(how: dict[str, Any], name: str, warm: bool) -> None:
    split = small_split(20, 12)
    near = {"threshold": 0.3, "n_neighbours": 6} if name == "enlft" else {"train_bandwidth": 0.9}
    model: Any = create(name, warm_start=warm, **LOCAL, **how, **near)
    trainer = model._trainer(split, Objective.parse("mean-ndcg"))
    assert isinstance(trainer, LocalTrainer)
    first, n_items = trainer.first, split.log.n_items
    bank, experts = model.bank, oracle.Experts(n_items, 3, 3)
    if warm:
        assert all(torch.equal(p[k], p[0]) for p in bank.parameters() for k in range(bank.n_experts))
    origin = [p.detach()[0].clone() for p in bank.parameters()]
    with torch.no_grad():
        for k in range(3):
            experts.encoders[k].weight.copy_(bank.encoder_weight[first + k].T)
            experts.encoders[k].bias.copy_(bank.encoder_bias[first + k])
            experts.decoders[k].weight.copy_(bank.decoder_weight[first + k].T)
            experts.decoders[k].bias.copy_(bank.decoder_bias[first + k])
    x = torch.from_numpy(split.rows("train", "gate").toarray()).double()
    weights = trainer.weights.astype(np.float64)
    assert (weights > 0).sum(1).min() >= 2 and (weights == 0).any()
    order, random = np.random.default_rng(3), torch.Generator().manual_seed(3)
    adams = [
        torch.optim.Adam([*e.parameters(), *d.parameters()], lr=0.03, weight_decay=how.get("l2", 0.0))
        for e, d in zip(experts.encoders, experts.decoders, strict=True)
    ]
    summed = how["kl_reduction"] == "sum"
    for epoch in (1, 2):
        trainer.train_epoch(epoch, lambda share: None)
        for k in range(3):
            users = order.permutation(np.flatnonzero(weights[k]))
            n_batches = -(-len(users) // 7)
            # the KL weight goes on from the global model's: its steps (3 an epoch), or its epochs
            step = model.global_epochs * (3 if summed else n_batches) + (epoch - 1) * n_batches
            for batch in (users[i : i + 7] for i in range(0, len(users), 7)):
                eps = torch.randn((len(batch), 3), generator=random, dtype=torch.float64)
                w = weights[k, batch]
                each = [experts.expert(k, x[u], eps[i], 0.2) for i, u in enumerate(batch)]
                if summed:
                    beta = oracle.authors_kl_weight(step, 0.2, 5)
                else:
                    beta = oracle.kl_weight(step, n_batches, 0.8, 6.0)
                ce = sum(w[i] * oracle.cross_entropy(each[i][0], x[u]) for i, u in enumerate(batch)) / w.sum()
                kl = (
                    sum(w[i] * each[i][1] for i in range(len(batch)))
                    / w.sum()
                    * (len(batch) if summed else 1)
                )
                adams[k].zero_grad()
                (ce + beta * kl).backward()
                with torch.no_grad():
                    for parameter in (*experts.encoders[k].parameters(), *experts.decoders[k].parameters()):
                        parameter *= 1 - how.get("weight_decay", 0.0) / n_batches
                adams[k].step()
                step += 1
    for key, value in experts.stacked().items():
        np.testing.assert_allclose(getattr(bank, key).detach()[first:], value, atol=1e-7, err_msg=key)
    if first:  # the global model itself is not trained further
        for tensor, before in zip(bank.parameters(), origin, strict=True):
            assert torch.equal(tensor.detach()[0], before)


def mu_of(bank: ExpertBank, x: np.ndarray) -> np.ndarray:
    weight = bank.encoder_weight.detach()[0].numpy()
    h = x / max(1.0, math.sqrt(x.sum())) @ weight + bank.encoder_bias.detach()[0].numpy()
    return h[: bank.latent]


def test_gates_and_scores_of_loca() -> None:
    """0.3 of the global model, 0.7 of the kernel mean of those near; all of it where nobody is near."""
    split = small_split(20, 12)
    model = gs.models.LOCA(**{**LOCAL, "n_experts": 2}, bandwidth=0.45, global_weight=0.3, local_epochs=2)
    model.fit(split)
    rows, bank = split.rows("train", "gate").toarray().astype(np.float64), model.bank
    mus = np.array([mu_of(bank, x) for x in rows])
    expected = np.zeros((20, 3))
    for u in range(20):
        kernel = []
        for anchor in model.anchors.numpy():
            cosine = mus[u] @ anchor / math.sqrt(mus[u] @ mus[u]) / math.sqrt(anchor @ anchor)
            distance = min(1.0, 2 / math.pi * math.acos(max(-1.0, min(1.0, cosine))))
            kernel.append(0.75 * (1 - distance**2) if distance < 0.45 else 0.0)
        expected[u, 0] = 0.3 if sum(kernel) else 1.0
        expected[u, 1:] = [0.7 * k / sum(kernel) if sum(kernel) else 0.0 for k in kernel]
    covered = expected[:, 0] == 0.3
    assert covered.any() and not covered.all()
    np.testing.assert_allclose(model.user_state, expected, atol=1e-9)
    entropies = [-sum(weight * math.log(weight) for weight in row if weight) for row in expected.tolist()]
    assert model.gate_entropy == pytest.approx(sum(entropies) / 20, abs=1e-9)
    given = csr_matrix(rows[:6].astype(np.float32))
    logits = np.zeros((6, 12))
    for u, k in itertools.product(range(6), range(3)):
        x = rows[u] / max(1.0, math.sqrt(rows[u].sum()))
        h = x @ bank.encoder_weight.detach()[k].numpy() + bank.encoder_bias.detach()[k].numpy()
        own = h[:3] @ bank.decoder_weight.detach()[k].numpy() + bank.decoder_bias.detach()[k].numpy()
        logits[u] += expected[u, k] * own
    np.testing.assert_allclose(model._scores(given, model.user_state[:6]), logits, atol=1e-9)


def test_gates_of_enlft() -> None:
    split = small_split(20, 12)
    model = gs.models.EnLFT(**LOCAL, threshold=0.2, local_epochs=1).fit(split)
    rows = split.rows("train", "gate")
    sets = [set(rows[u].indices) for u in range(20)]
    for u in range(20):
        near = [len(sets[u] & sets[a]) / len(sets[u] | sets[a]) for a in model.anchors]
        np.testing.assert_allclose(model.user_state[u], [s / sum(near) for s in near], rtol=1e-5)
    alone = csr_matrix((1, 12), dtype=np.float32)
    np.testing.assert_allclose(model._user_state(alone, alone), 1 / 3, rtol=1e-6)


def test_steps_of_lft_follow_validation_rows() -> None:
    """Her own gain counts n_u times, everybody's `shrinkage` times; all copies by loops."""
    split = small_split(30, 16, seed=1)
    more = (split.log.users % 3)[:, None] > np.arange(2)  # a third of the users have one row, two, or three
    for n in range(2):
        for user in np.unique(split.log.users[more[:, n]]):
            rows = np.flatnonzero((split.log.users == user) & (split.part == TRAIN))
            split.part[rows[: len(rows) > 2]] = VALIDATION
    settings = {
        "steps": 4,
        "threshold": 0.1,
        "n_neighbours": 5,
        "power": 2.0,
        "shrinkage": 6.0,
        "damping": 0.5,
    }
    model = gs.models.LFT(**TINY, **settings, fine_tuning_rate=6.0).fit(split)
    train, truth = split.rows("train", "gate"), split.rows("validation")
    sets, bank = [set(train[u].indices) for u in range(30)], model.bank
    mus = torch.from_numpy(np.array([mu_of(bank, x) for x in train.toarray()]))
    decoder = (bank.decoder_weight.detach()[0], bank.decoder_bias.detach()[0])
    value, final = np.full((30, 5), np.nan), []
    for u in range(30):
        near = [(-len(sets[u] & sets[v]) / len(sets[u] | sets[v]), v) for v in range(30)]
        near = sorted((s, v) for s, v in near if s < -0.1)[:5]
        assert near[0][0] == -1.0  # herself, or a user with the same rows and an earlier id
        users = [v for _, v in near]
        weight = torch.tensor([s**2 for s, _ in near], dtype=torch.float64)
        copies = fine_tuned(mus[u], mus[users], SparseRows.from_csr(train[users]), weight, decoder, 6.0, 0.5)
        scores = [next(copies).numpy().copy() for _ in range(5)]
        final.append(scores)
        held = set(truth[u].indices)
        for t in range(5 if held else 0):
            order = sorted(set(range(16)) - sets[u], key=lambda i: (-scores[t][i], i))
            found = []
            for cut in (1, 5, 10, 20):
                gain = sum(1 / math.log2(r + 2) for r, i in enumerate(order[:cut]) if i in held)
                found.append(gain / sum(1 / math.log2(r + 2) for r in range(min(cut, len(held)))))
            value[u, t] = np.mean(found)
    curve = np.nanmean(value, 0)
    np.testing.assert_allclose(model.curve, curve, atol=1e-9)
    n_rows = np.diff(truth.indptr)
    assert {1, 2, 3} <= set(n_rows.tolist())
    own = np.nan_to_num(value)
    chosen, alike = (np.argmax(np.round(n * own + 6.0 * curve, 9), 1) for n in (n_rows[:, None], 1.0))
    assert (chosen != alike).any()  # her number of rows counts
    for u in range(30):
        expected = int(chosen[u])
        assert model.user_state[u].tolist() == [float(t == expected) for t in range(5)]
        got = model._scores(train[[u]], model.user_state[[u]])[0]
        np.testing.assert_allclose(got, final[u][expected], atol=1e-7)
    assert len(set(model.chosen.tolist())) > 1
    assert np.argmax(model._user_state(train[:1], train[:1])) == np.argmax(curve)
