"""Training of Latent Modulated Functions: L1 at drawn pixels."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from models import build_sr
from training.tasks.lmf_queries import QueryTask


def network():
    torch.manual_seed(0)
    return build_sr("lm_lte", 4, {"n_blocks": 1, "n_feats": 8})


def batch(sizes, indices=(3, 8), epoch=2):
    hr = [torch.rand(3, *size) for size in sizes]
    same = len(set(sizes)) == 1
    return SimpleNamespace(
        lr=torch.rand(len(sizes), 3, 6, 6), hr=torch.stack(hr) if same else hr, indices=list(indices), epoch=epoch
    )


def test_all_pixels_drawn_give_the_l1_of_the_image():
    net, pair = network(), batch([(15, 15)] * 2)
    losses = QueryTask(net, queries=225).losses(pair)
    assert losses["total"].item() == pytest.approx(F.l1_loss(net(pair.lr, (15, 15)), pair.hr).item(), abs=1e-6)
    assert losses["l1"].item() == losses["total"].item() and not losses["l1"].requires_grad


def test_every_pair_has_its_own_scale():
    net, pair = network(), batch([(6, 6), (24, 13)])
    total = QueryTask(net, queries=36)(pair, None)["total"]
    total.backward()
    assert all(p.grad is not None for p in net.parameters())
    singles = []
    for i, index in enumerate((3, 8)):
        one = SimpleNamespace(lr=pair.lr[i : i + 1], hr=[pair.hr[i]], indices=[index], epoch=2)
        singles.append(QueryTask(net, queries=36).losses(one)["total"].item())
    assert total.item() == pytest.approx(sum(singles) / 2, abs=1e-6)


def test_draws_are_a_function_of_seed_epoch_and_index():
    objective = QueryTask(network(), queries=50, seed=4)
    drawn = objective.draw(3, 2, 200)
    assert drawn.unique().numel() == 50 and drawn.min() >= 0 and drawn.max() < 200
    assert torch.equal(drawn, objective.draw(3, 2, 200))
    for other in (objective.draw(4, 2, 200), objective.draw(3, 1, 200), QueryTask(network(), 50).draw(3, 2, 200)):
        assert not torch.equal(drawn, other)


def test_too_small_a_patch_is_explained():
    with pytest.raises(ValueError, match="36 pixels, but 2304 queries"):
        QueryTask(network()).losses(batch([(6, 6)] * 2))


@pytest.mark.parametrize("name", ["lm_lte", "lm_ciaosr"])
def test_training_sharpens_an_edge_that_interpolation_blurs(name):
    torch.manual_seed(0)
    hr = (torch.arange(24)[:, None] > torch.arange(24)).float().expand(2, 3, 24, 24)
    pair = SimpleNamespace(lr=F.avg_pool2d(hr, 4), hr=hr, indices=[0, 1], epoch=0)
    bilinear = F.l1_loss(F.interpolate(pair.lr, (24, 24), mode="bilinear"), hr).item()
    objective = QueryTask(build_sr(name, 4, {"n_blocks": 1, "n_feats": 16}), queries=576)
    optimizer = torch.optim.Adam(objective.parameters(), 1e-3)
    curve = []
    for pair.epoch in range(80):
        loss = objective(pair, None)["total"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    assert curve[0] > bilinear > 0.09
    assert sum(curve[-5:]) / 5 < 0.9 * bilinear
