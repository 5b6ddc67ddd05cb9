"""LDCSR as SR networks: sizes, seeds, noise by place, gradients, execution on patches."""

from __future__ import annotations

import copy

import pytest
import torch

from deployment.prepare import prepare_front
from evaluation.sr_candidates import Candidate
from evaluation.sr_evaluation import gmacs
from models import build_sr
from models.conditional_sr import ConditionalSR
from models.mask_policy import GivenMask, MaskPolicy
from models.masker import Masker
from models.tiling.whole import run_tiles
from tests.extras import needs_generative
from tests.models.ldcsr.small import DECODER, WHOLE, small
from utils.errors import UserError

pytestmark = needs_generative
both = pytest.mark.parametrize("name", ["ldcsr", "ldcsr_kd"])


@both
@pytest.mark.parametrize("scale", [1, 1.7, 2.6, 4, 8, 10])
@pytest.mark.parametrize("lr_size", [(9, 14), (1, 1)])
@torch.no_grad()
def test_any_scale_and_size(name: str, scale: float, lr_size):
    size = tuple(round(scale * side) for side in lr_size)
    sr = small(name)(torch.rand(2, 3, *lr_size), size)
    assert sr.shape == (2, 3, *size) and sr.dtype == torch.float32 and sr.isfinite().all()


@both
@torch.no_grad()
def test_without_a_size_the_scale_counts(name: str):
    assert small(name, 2.6)(torch.rand(1, 3, 10, 7)).shape == (1, 3, 26, 18)


@both
@pytest.mark.parametrize("size", [(9, 20), (101, 20), (20, 9)])
def test_other_sizes_are_refused(name: str, size):
    with pytest.raises(UserError, match=r"10 LR pixels cannot become \d+: x.* is not a number from 1 to 10"):
        small(name)(torch.rand(1, 3, 10, 10), size)


@both
@pytest.mark.parametrize("scale", [0.5, 10.5, 0])
def test_other_scales_are_refused(name: str, scale):
    with pytest.raises(UserError, match="use a number from 1 to 10"):
        build_sr(name, scale)


def test_widths_that_cannot_be_built_are_explained():
    with pytest.raises(UserError, match="channels is 6, but must be a multiple of 4"):
        build_sr("ldcsr_kd", 2, DECODER | {"channels": 6})
    with pytest.raises(UserError, match="3 channels cannot be normalised"):
        build_sr("ldcsr_kd", 2, DECODER | {"encoder_channels": 3})
    with pytest.raises(UserError, match="unet_channels is 12, but must be a multiple of 8"):
        build_sr("ldcsr", 2, WHOLE | {"unet_channels": 12})


@torch.no_grad()
def test_the_seed_alone_decides_the_noise():
    network, lr = small(), torch.rand(1, 3, 8, 9)
    other = network.with_seed(1)
    assert (network.seed, other.seed) == (0, 1) and other.condition is network.condition
    assert torch.equal(network(lr), network(lr)) and torch.equal(other(lr), other(lr))
    assert (network(lr) - other(lr)).abs().max() > 1e-4
    torch.manual_seed(5)
    assert torch.equal(network(lr), other.with_seed(0)(lr))


@torch.no_grad()
def test_without_diffusion_no_noise_counts():
    network, lr = small("ldcsr_kd"), torch.rand(1, 3, 8, 9)
    assert not network.capabilities.stochastic and not hasattr(network, "seed")
    assert torch.equal(network(lr), network(lr))


@torch.no_grad()
def test_the_network_without_diffusion_decodes_the_condition():
    """It is what `ldcsr` has besides its diffusion: the same weights, and a chain that ends at the condition."""
    whole, part = small(latent_channels=3), small("ldcsr_kd", latent_channels=3)
    part.load_state_dict({key: whole.state_dict()[key] for key in part.state_dict()})
    whole.denoise = lambda noisy, condition, *rest: condition
    lr = torch.rand(1, 3, 8, 9)
    assert torch.equal(whole(lr), part(lr))


@torch.no_grad()
def test_the_latent_scale_is_taken_back():
    network, lr = small("ldcsr_kd"), torch.rand(1, 3, 8, 9)
    before = network(lr)
    network.latent_scale.fill_(2.0)
    network.condition.register_forward_hook(lambda module, inputs, output: 2 * output)
    assert torch.allclose(network(lr), before, atol=1e-6)


@pytest.mark.parametrize("scale", [4, 2, 8])
def test_a_window_has_the_noise_of_the_whole(scale: int):
    """Windows at whole latent cells; the noise of one cell depends on its place alone."""
    network = small(scale=scale)
    step = 8 // scale if scale < 8 else 1  # LR pixels of a cell
    lr, cells = torch.rand(1, 3, 8 * step, 6 * step), (2, 3)
    size = tuple(scale * side for side in lr.shape[-2:])
    window = lr[..., 2 * step : 6 * step, 3 * step :]
    origin = torch.tensor([[2 * step, 3 * step]])
    whole = network.noise(None, lr, size)
    part = network.noise(origin, window, tuple(scale * side for side in window.shape[-2:]))
    assert len(whole) == len(part) == 4
    for all_cells, own in zip(whole, part, strict=True):
        assert torch.equal(own, all_cells[..., cells[0] : cells[0] + 4, cells[1] :])
    assert not torch.equal(whole[0], whole[1])


@torch.no_grad()
def test_images_of_a_batch_have_their_own_origins():
    network = small()
    lr = torch.rand(1, 3, 8, 8)
    origins = torch.tensor([[0, 0], [64, 32]])
    batch = network(lr.expand(2, -1, -1, -1), origin=origins)
    for image, origin in zip(batch, origins, strict=True):
        assert torch.allclose(image[None], network(lr, origin=origin[None]), atol=1e-5)
    assert (batch[0] - batch[1]).abs().max() > 1e-4


def test_fractional_scales_are_told_as_they_are_and_whole_ones_where_weights_expect_it():
    told = []
    for compat in (False, True):
        network = small(weight_compat=compat)
        network.unet.register_forward_hook(lambda module, inputs, output: told.append(inputs[3:]))
        with torch.no_grad():
            network(torch.rand(1, 3, 10, 10), (26, 26))
    assert set(told[:4]) == {(2.6, 26)} and set(told[4:]) == {(2.0, 26)}


def test_gradients_reach_everything_that_an_image_depends_on():
    network = small()
    lr = torch.rand(1, 3, 6, 7, requires_grad=True)
    network(lr).square().sum().backward()
    silent = {name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert {name for name in silent if not name.startswith("autoencoder.encoder.")} == {"autoencoder.decoder.unused"}
    assert lr.grad.abs().min() > 0


def test_inference_knows_no_hr_image():
    network = small()
    network.autoencoder.encoder = None
    with torch.no_grad():
        assert network(torch.rand(1, 3, 6, 7)).shape == (1, 3, 24, 28)
    with pytest.raises(UserError, match="build it with oracle: true"):
        network.reconstruct(torch.rand(1, 3, 24, 28), torch.rand(1, 3, 6, 7))


@torch.no_grad()
def test_the_oracle_sees_the_hr_image():
    network, lr = small(), torch.rand(1, 3, 8, 8)
    hr, other = torch.rand(2, 1, 3, 21, 30)
    assert network.reconstruct(hr, lr).shape == hr.shape
    assert (network.reconstruct(hr, lr) - network.reconstruct(other, lr)).abs().max() > 1e-5


@both
@torch.no_grad()
def test_saved_weights_give_the_same_image(name: str, tmp_path):
    network, lr = small(name), torch.rand(1, 3, 8, 9)
    network.latent_scale.fill_(1.5)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    twin = build_sr(network.spec["name"], 4, network.spec["args"]).eval()
    twin.load_state_dict(torch.load(tmp_path / "weights.pth", weights_only=True))
    assert torch.equal(twin(lr), network(lr)) and torch.equal(copy.deepcopy(network)(lr), network(lr))


@both
@torch.no_grad()
def test_bfloat16_autocast_stays_close_to_float32(name: str):
    torch.manual_seed(0)
    network = build_sr(name, 2, WHOLE if name == "ldcsr" else DECODER).eval()
    torch.nn.init.normal_(network.tail[-1].weight, 0, 0.02)
    lr = torch.rand(1, 3, 12, 10)
    with torch.autocast("cpu", torch.bfloat16):
        low = network(lr)
    assert low.dtype == torch.float32 and (low - network(lr)).abs().max() < 0.03


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_as_sr_quality_in_every_precision(name: str, dtype):
    system = ConditionalSR(Masker(16), build_sr("bicubic", 2), small(name, 2)).eval()
    prepared = prepare_front(system, torch.device("cpu"), dtype)
    lr, mask = torch.rand(1, 3, 37, 20), torch.tensor([[[True, False], [False, False], [False, True]]])
    sr = prepared.infer(lr, GivenMask(mask)).sr
    assert sr.dtype == dtype and (sr.float() - system.infer(lr, GivenMask(mask)).sr).abs().max() < 0.1


@both
@torch.no_grad()
def test_tiles_of_a_fading_network_cover_the_image(name: str):
    network, lr = small(name, 2.5), torch.rand(1, 3, 40, 36)
    sr = run_tiles(network, lr, (100, 90), 20)
    assert sr.shape == (1, 3, 100, 90) and sr.isfinite().all()


@both
@torch.no_grad()
def test_a_mask_chooses_patches_and_not_what_is_in_them(name: str):
    """The centre of a patch is the same whatever else is selected."""
    system = ConditionalSR(Masker(16), build_sr("bicubic", 2), small(name, 2)).eval()
    lr = torch.rand(1, 3, 64, 64)
    full = system.infer(lr, MaskPolicy("all_quality"))
    part = system.infer(lr, MaskPolicy("budget", 0.3))
    assert 0 < part.mask.float().mean() < 1
    margin = 2 * system.sr_quality.capabilities.blend
    for row, column in part.mask.flatten(0, -3)[0].nonzero().tolist():
        rows, columns = (slice(32 * k + margin, 32 * (k + 1) - margin) for k in (row, column))
        assert torch.allclose(part.sr[..., rows, columns], full.sr[..., rows, columns], atol=1e-5)


@both
def test_work_is_counted_on_shapes_alone(name: str):
    assert gmacs(Candidate("x", name, small(name)), 2.6) > 0
