"""ConditionalSR: fusion, gradients, conditional execution, determinism."""

from __future__ import annotations

import pytest
import torch

from models import build_sr
from models.conditional_sr import ConditionalSR
from models.execution import Execution
from models.mask_policy import GivenMask, parse_policy
from models.masker import Masker
from utils.gumbel import gumbel_noise

POLICIES = ["learned", "threshold=0.5", "budget=0.3", "all_fast", "all_quality", "random=0.2", "edge=0.1"]


def random_system(scale=2, patch=4, halo=None, fast="espcn", quality="edsr", bias=0.0):
    torch.manual_seed(0)
    sr_quality = build_sr(quality, scale, {"n_blocks": 1, "n_feats": 4})
    system = ConditionalSR(Masker(patch, bias=bias), build_sr(fast, scale), sr_quality, Execution(halo))
    with torch.no_grad():
        for parameter in system.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return system


def test_fuse_takes_each_patch_from_its_network():
    system = random_system(scale=2, patch=4)
    fast, quality = torch.zeros(1, 3, 14, 18), torch.ones(1, 3, 14, 18)
    mask = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])[None, None]
    fused = system.fuse(fast, quality, mask)
    for y in range(14):
        for x in range(18):
            assert (fused[0, :, y, x] == mask[0, 0, y // 8, x // 8]).all()


def test_forward_is_dense_clamped_and_shaped():
    output = random_system(scale=3, patch=5)(2 * torch.rand(2, 3, 23, 31), tau=1.0, noise=torch.randn(2, 2, 5, 7))
    assert output.sr.shape == (2, 3, 69, 93)
    assert output.mask.shape == output.probability.shape == (2, 1, 5, 7)
    assert output.sr.min() >= 0 and output.sr.max() <= 1
    assert set(output.mask.unique().tolist()) == {0.0, 1.0}


def test_gradient_of_the_image_reaches_masker_and_both_networks():
    system = random_system().train()
    lr = torch.rand(2, 3, 24, 24, requires_grad=True)
    noise = gumbel_noise(range(2), 0, 0, system.masker.grid(24, 24))
    output = system(lr, 1.0, noise)
    assert 0 < output.mask.mean() < 1
    logits = []
    system.masker.logits.register_forward_hook(lambda module, inputs, result: logits.append(result))
    system(lr, 1.0, noise).sr.square().sum().backward()
    (gradient,) = torch.autograd.grad(system(lr, 1.0, noise).sr.square().sum(), logits[-1])
    assert (gradient.abs() > 0).float().mean() > 0.9  # of kept and of dropped patches
    assert lr.grad.abs().sum() > 0
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in system.parameters())


@pytest.mark.parametrize("text", POLICIES)
@pytest.mark.parametrize("quality", ["edsr", "srresnet"])
def test_a_full_halo_equals_dense_fusion(text, quality):
    system = random_system(scale=4, patch=8, quality=quality).eval()
    lr = torch.rand(2, 3, 61, 75)
    output = system.infer(lr, parse_policy(text))
    expected = system.fuse(system.sr_fast(lr), system.sr_quality(lr), output.mask).clamp(0, 1)
    assert output.mask.shape == (2, 1, 8, 10)
    assert (output.sr - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("halo", [0, 1, 2])
def test_a_patch_sees_its_halo_and_no_more(halo):
    system, lr = random_system(halo=halo).eval(), torch.rand(1, 3, 12, 12)  # 3 x 3 patches
    mask = torch.zeros(1, 3, 3, dtype=torch.bool)
    mask[0, 1, 1] = True
    window = slice(4 - halo, 8 + halo)
    with torch.no_grad():
        expected, part = system.sr_fast(lr), system.sr_quality(lr[..., window, window])
        expected[..., 8:16, 8:16] = part[..., 2 * halo : 2 * halo + 8, 2 * halo : 2 * halo + 8]
    found, exact = (front.infer(lr, GivenMask(mask)).sr for front in (system, system.with_execution(halo=None)))
    assert (found - expected.clamp(0, 1)).abs().max() <= 1e-5
    assert (found - exact).abs().max() > 1e-4, "a small halo shows"


def test_learned_policy_equals_forward_in_eval():
    system = random_system().eval()
    lr = torch.rand(2, 3, 30, 30)
    dense, conditional = system(lr), system.infer(lr, parse_policy("learned"))
    assert 0 < dense.mask.mean() < 1
    assert torch.equal(dense.mask, conditional.mask) and torch.equal(dense.probability, conditional.probability)
    assert (dense.sr - conditional.sr).abs().max() <= 1e-5


@pytest.mark.parametrize("halo", [None, 1])
@pytest.mark.parametrize("text", POLICIES)
def test_inference_is_repeatable_and_a_batch_gives_what_its_images_give(text, halo):
    system, policy, lr = random_system(halo=halo).eval(), parse_policy(text), torch.rand(3, 3, 29, 35)
    output = system.infer(lr, policy)
    assert torch.equal(system.infer(lr, policy).sr, output.sr)
    singles = [system.infer(image[None], policy) for image in lr]
    assert torch.equal(torch.cat([single.mask for single in singles]), output.mask)
    assert torch.allclose(torch.cat([single.sr for single in singles]), output.sr, rtol=0, atol=1e-6)


def test_no_noise_in_eval():
    system, lr = random_system().eval(), torch.rand(1, 3, 24, 24)
    quiet, noisy = system(lr, 5.0), system(lr, 5.0, 100 * torch.randn(1, 2, 6, 6))
    assert torch.equal(quiet.mask, noisy.mask) and torch.equal(quiet.sr, noisy.sr)


def test_a_fresh_masker_keeps_everything():
    system = ConditionalSR(Masker(8), build_sr("bicubic", 2), build_sr("edsr", 2, {"n_blocks": 1, "n_feats": 4}))
    system.eval()
    assert system.infer(torch.rand(1, 3, 32, 32), parse_policy("learned")).mask.mean() == 1


def test_the_masker_runs_only_when_it_is_asked():
    system = random_system().eval()
    system.masker.forward = None
    for text in ("all_fast", "all_quality", "random=0.5", "edge=0.5"):
        assert system.infer(torch.rand(1, 3, 16, 16), parse_policy(text)).probability is None
    with pytest.raises(TypeError):
        system.infer(torch.rand(1, 3, 16, 16), parse_policy("learned"))


def test_infer_records_no_gradient_and_leaves_the_mode():
    system, lr = random_system().eval(), torch.rand(1, 3, 16, 16)
    before = lr.clone()
    output = system.infer(lr, parse_policy("budget=0.5"))
    assert not output.sr.requires_grad
    assert not any(module.training for module in system.modules())
    assert torch.equal(lr, before)


def test_batch_norm_in_training_mode_is_refused():
    system = random_system(quality="srresnet")
    with pytest.raises(RuntimeError, match=r"eval\(\)"):
        system.infer(torch.rand(1, 3, 16, 16), parse_policy("learned"))


def test_different_scales_are_refused():
    with pytest.raises(ValueError, match="sr_fast is x2 but sr_quality is x4"):
        ConditionalSR(Masker(8), build_sr("bicubic", 2), build_sr("espcn", 4))


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (160, 7)])
@pytest.mark.parametrize("halo", [None, 2])
def test_unusual_sizes(size, halo):
    system = random_system(patch=8, halo=halo, fast="bicubic").eval()
    for text in POLICIES:
        assert system.infer(torch.rand(1, 3, *size), parse_policy(text)).sr.shape == (1, 3, 2 * size[0], 2 * size[1])


@pytest.mark.parametrize("fast", ["bicubic", "espcn"])
def test_bfloat16_autocast(fast):
    system, lr, policy = random_system(fast=fast, halo=2).eval(), torch.rand(2, 3, 33, 33), parse_policy("edge=0.2")
    with torch.autocast("cpu", torch.bfloat16):
        low = system.infer(lr, policy)
    assert torch.equal(low.mask, system.infer(lr, policy).mask)
    assert (low.sr.float() - system.infer(lr, policy).sr).abs().max() < 0.05


def test_saved_weights_give_the_same_image(tmp_path):
    system, lr = random_system().eval(), torch.rand(1, 3, 20, 20)
    torch.save(system.state_dict(), tmp_path / "system.pth")
    twin = random_system(bias=1.0).eval()
    twin.load_state_dict(torch.load(tmp_path / "system.pth", weights_only=True))
    assert torch.equal(system.infer(lr, parse_policy("learned")).sr, twin.infer(lr, parse_policy("learned")).sr)


@pytest.mark.parametrize("frozen", ["masker", "sr_quality", "nothing"])
def test_what_is_frozen_keeps_its_statistics_in_training(frozen):
    """BatchNorm of a network that learns nothing must not drift with the batches; the front end itself draws masks."""
    system = random_system(quality="srresnet")
    if frozen != "nothing":
        system.networks[frozen].requires_grad_(False)
    system.train()
    before = {name: value.clone() for name, value in system.named_buffers() if name.endswith("running_mean")}
    system(torch.rand(2, 3, 16, 16), 1.0, gumbel_noise(range(2), 0, 0, system.masker.grid(16, 16)))
    moved = {name for name, value in system.named_buffers() if name in before and not torch.equal(value, before[name])}
    assert moved == {name for name in before if not name.startswith(frozen)} and system.training
    assert {name.split(".")[0] for name in before} == {"masker", "sr_quality"}
