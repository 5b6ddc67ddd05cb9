"""Controllable Multi-Scale Rendering: levels, the share that is rendered, and tables."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from models import build_sr
from models.lmf import LMF, LTEDecoder, SwinIREncoder
from models.lmf.cmsr import (
    BIN_STEP,
    build_table,
    levels,
    render_level,
    render_multiscale,
    rendered_share,
)
from models.lmf.queries import relative_cell

INF = float("inf")
PUBLISHED = {6: {1: 0.12, 2: 0.15, 4: 0.215, 6: 1}, 18: {1: 0.12, 2: 0.15, 4: 0.215, 6: 1, 18: 1}}  # LM-LTE's


def network_with_range(name="lm_lte"):
    """A small network whose modulation strength differs from pixel to pixel."""
    torch.manual_seed(0)
    network = build_sr(name, 6, {"n_blocks": 1, "n_feats": 8}).eval().double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def strengths(network, lr, size):
    return network.encode(lr, relative_cell(size, lr.shape[-2:], lr)).strength()


def picture(batch=1, height=12, width=10):
    """Flat on the left, noise on the right."""
    lr = torch.full((batch, 3, height, width), 0.5, dtype=torch.double)
    lr[..., width // 2 :] = torch.rand(batch, 3, height, width - width // 2, dtype=torch.double)
    return lr


def test_levels_follow_the_table_of_the_next_larger_scale():
    assert levels(PUBLISHED, 5) == [(1, -INF, 0.12), (2, 0.12, 0.15), (4, 0.15, 0.215), (None, 0.215, INF)]
    assert levels(PUBLISHED, 6) == levels(PUBLISHED, 5)
    assert levels(PUBLISHED, 12)[-1] == (6, 0.215, INF)  # 6 renders everything else; the target is not needed
    assert levels(PUBLISHED, 25)[-2:] == [(6, 0.215, 1), (18, 1, INF)]  # beyond the last table
    assert levels({6: {6: 1}}, 6) == [(None, -INF, INF)]
    apart = {6: {1: 0.1, 6: 1}, 12: {1: 0.2, 3: 0.4, 12: 1}}
    assert levels(apart, 8) == [(1, -INF, 0.2), (3, 0.2, 0.4), (None, 0.4, INF)]
    with pytest.raises(ValueError, match="at least one table"):
        levels({}, 6)


@pytest.mark.parametrize("name", ["lm_liif", "lm_lte", "lm_ciaosr", "lm_hybrid"])
def test_thresholds_that_no_pixel_reaches_give_the_full_rendering(name):
    network, lr = network_with_range(name), picture(2)
    output = render_multiscale(network, lr, (60, 50), {6: {1: 0.0, 2: 0.0, 6: 1}})
    assert output.rendered_share == 1
    assert (output.sr - network(lr, (60, 50))).abs().max() < 1e-12


def test_the_coarsest_level_alone_gives_the_enlarged_image():
    network, lr = network_with_range(), picture()
    output = render_multiscale(network, lr, None, {6: {2: 1.0}})
    latent = network.encode(lr, relative_cell((72, 60), (12, 10), lr))
    coarse = torch.zeros(1, 3, 24, 20, dtype=torch.double)
    assert render_level(network, latent, coarse, (12, 10), -INF, INF) == 24 * 20
    assert torch.equal(output.sr, F.interpolate(coarse, (72, 60), mode="bilinear"))
    assert output.rendered_share == pytest.approx(4 / 36)


def test_each_pixel_is_rendered_at_its_level():
    network, lr = network_with_range(), picture()
    strength = strengths(network, lr, (72, 60))[0]
    threshold = strength.median().item()
    output = render_multiscale(network, lr, (72, 60), {6: {1: threshold, 6: 1}})
    strong = strength.repeat_interleave(6, 0).repeat_interleave(6, 1) >= threshold
    full = network(lr, (72, 60))
    assert (output.sr - full)[0, :, strong].abs().max() < 1e-12
    assert (output.sr - full)[0, :, ~strong].abs().max() > 1e-6
    expected = (strength <= threshold).sum() + 36 * (strength >= threshold).sum()
    assert output.rendered_share == pytest.approx(expected.item() / (72 * 60))
    assert 0.4 < output.rendered_share < 0.7


def test_a_batch_gives_what_its_images_give_and_levels_may_be_empty():
    network, lr = network_with_range(), torch.cat((picture(), torch.full((1, 3, 12, 10), 0.3, dtype=torch.double)))
    tables = {8: {1: strengths(network, lr, (80, 70)).median().item(), 1.5: 0.9, 3: 0.95, 8: 1}}
    output = render_multiscale(network, lr, (80, 70), tables)
    singles = [render_multiscale(network, image, (80, 70), tables) for image in lr.split(1)]
    assert (output.sr - torch.cat([single.sr for single in singles])).abs().max() < 1e-12
    assert output.rendered_share == pytest.approx(sum(single.rendered_share for single in singles) / 2)


@pytest.mark.parametrize("size", [None, (60, 51), (100, 55)])
def test_the_share_is_known_without_rendering(size):
    network, lr = network_with_range(), torch.cat((picture(), torch.rand(1, 3, 12, 10, dtype=torch.double)))
    middle = strengths(network, lr, (72, 60)).median().item()
    tables = {6: {1: 0.9 * middle, 2: middle, 3: 1.1 * middle, 6: 1}}
    share = rendered_share(network, lr, size, tables)
    assert share == render_multiscale(network, lr, size, tables).rendered_share and 0 < share < 1


def test_the_share_behind_an_encoder_that_pads():
    encoder = SwinIREncoder(12, (2,), 2, 8)
    network = LMF(encoder, LTEDecoder(8), 6).eval().double()
    lr = torch.rand(1, 3, 11, 9, dtype=torch.double)
    tables = {6: {1: strengths(network, lr, (66, 54)).median().item(), 6: 1}}
    assert rendered_share(network, lr, None, tables) == render_multiscale(network, lr, None, tables).rendered_share


@pytest.mark.parametrize("table", [{1: 0.0, 6: 1}, {1: 1.0}])
def test_rendering_leaves_its_input_alone(table):
    network, lr = network_with_range(), picture()
    before = lr.clone()
    render_multiscale(network, lr, None, {6: table})
    assert torch.equal(lr, before)


def test_rendering_is_multi_scale_in_evaluation_beyond_x4_only():
    network, lr = network_with_range(), picture()
    assert not network.tables_for((12, 10), (60, 50)) and network.rendered_share(lr, (60, 50)) == 1
    plain, network = network, network.with_tables({6: {1: 1.0}})
    assert plain.cmsr is None and plain.tail is network.tail
    assert network.tables_for((12, 10), (60, 50)) and not network.tables_for((12, 10), (60, 40))
    assert network.rendered_share(lr, (60, 50)) == rendered_share(network, lr, (60, 50), network.cmsr) < 1
    assert network.rendered_share(lr, (48, 40)) == 1
    full = [copy_without_tables(network)(lr, size) for size in ((48, 40), (60, 50))]
    assert torch.equal(network(lr, (48, 40)), full[0])
    assert (network(lr, (60, 50)) - full[1]).abs().max() > 1e-6
    assert torch.equal(network(lr, (60, 50)), render_multiscale(network, lr, (60, 50), network.cmsr).sr)
    assert torch.equal(network.train()(lr, (60, 50)), full[1])


def copy_without_tables(network):
    twin = build_sr("lm_lte", 6, {"n_blocks": 1, "n_feats": 8}).eval().double()
    twin.load_state_dict(network.state_dict())
    return twin


def bin_errors(network, lr, s, scale):
    """{bin of the strength: mean squared error of rendering at s and enlarging}, only of bins that have pixels."""
    height, width = (int(s * side) for side in lr.shape[-2:])
    size = tuple(scale * side for side in lr.shape[-2:])
    full, latent = network(lr, size), network.encode(lr, relative_cell(size, lr.shape[-2:], lr))
    coarse = torch.zeros(1, 3, height, width, dtype=torch.double)
    render_level(network, latent, coarse, lr.shape[-2:], -INF, INF)
    error = (2 * (F.interpolate(coarse, size, mode="bilinear") - full)).square().mean(1)[0]
    strength = F.interpolate(latent.strength()[None], size, mode="nearest-exact")[0, 0]
    bins = {k: error[(strength - k * BIN_STEP).abs() <= 0.001] for k in range(101)}
    return {k: values.mean().item() for k, values in bins.items() if len(values)}


def test_a_table_keeps_its_promise():
    """Up to its threshold every bin of every image is within the tolerance; the next one fails in some image."""
    network, images = network_with_range(), picture(3, 16, 16)
    tolerance = 3e-9
    with torch.no_grad():
        table = build_table(network, [images[:2], images[2:]], 6, tolerance=tolerance)
        assert list(table) == sorted(table) and list(table.values()) == sorted(table.values())
        assert table[6] == 1 and len(table) > 1
        s, threshold = next(iter(table.items()))
        errors = [bin_errors(network, image, s, 6) for image in images.split(1)]
    last = round(threshold / BIN_STEP)
    assert all(error <= tolerance for image in errors for k, error in image.items() if k <= last)
    beyond = [min((k for k, error in image.items() if error > tolerance), default=101) for image in errors]
    assert last < min(beyond) < 101
    binding = errors[beyond.index(min(beyond))]  # nothing lies between the threshold and the bin that failed
    assert not [k for k in binding if last < k < min(beyond)]


def test_a_looser_tolerance_renders_less():
    network, lr = network_with_range(), picture(2)
    hopeless, strict, loose = (build_table(network, [lr], 6, tolerance=t) for t in (0.0, 3e-9, 1e-2))
    assert hopeless == {6: 1.0}
    shares = [render_multiscale(network, lr, None, {6: table}).rendered_share for table in (hopeless, strict, loose)]
    assert shares[0] == 1 and shares[0] > shares[1] > shares[2]


def test_a_failing_bin_ends_a_candidate_and_the_next_goes_on_from_there():
    """Strength and error made to order: s = 1 is good up to 0.1, s = 2 up to 0.2, and no image is stronger than 0.3."""

    class Latent:
        def __init__(self, lr):
            self.lr = lr

        def strength(self):
            return self.lr[:, 0]

    class Made(torch.nn.Module):
        max_queries, scale = 10_000, 4

        def encode(self, lr, cell):
            return Latent(lr)

        def render_raster(self, latent, rows, columns, cell):
            strength = latent.lr[:, :1][..., rows.nearest()[:, None], columns.nearest()].expand(-1, 3, -1, -1)
            limit = {6: 0.1, 12: 0.2}.get(len(rows), 1.0)  # an image of 6 rows at s = 1, 2 and 4
            return torch.where(strength > limit + 1e-6, 1.0, 0.0).double()

    def image(values):
        return torch.tensor(values, dtype=torch.double)[None, None, :, None].expand(1, 3, 6, 4)

    network = Made()
    # Rows of one strength each, a bin apart: bilinear enlargement only mixes 0 with 0 and 1 with 1 below the limits.
    rising = image([0.05, 0.05, 0.1, 0.1, 0.3, 0.3])
    table = build_table(network, [rising], 4, candidates=(1, 2), tolerance=0.2)
    assert table[4] == 1.0 and table[1] == pytest.approx(0.1)
    weak = image([0.02] * 6)  # nothing fails here: it must not lower the threshold of the other image
    assert build_table(network, [weak, rising], 4, candidates=(1, 2), tolerance=0.2)[1] == pytest.approx(0.1)
    assert build_table(network, [weak], 4, candidates=(1, 2), tolerance=0.2) == {1: pytest.approx(0.02), 4: 1.0}
    assert round(0.1 / BIN_STEP) == 20


def test_a_table_needs_an_image():
    with pytest.raises(ValueError, match="no image"):
        build_table(network_with_range(), [], 4)
