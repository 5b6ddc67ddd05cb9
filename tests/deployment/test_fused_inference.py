"""Fused networks give what the networks give."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deployment.fused_inference import FusedConv, FusionError, fuse, fuse_conv_blocks
from models import build_sr
from models.detector_yolo import YoloDetector
from models.masker import Masker

NETWORKS = {
    "espcn": {},
    "fsrcnn": {"d": 8, "s": 4, "m": 2},
    "edsr": {"n_blocks": 2, "n_feats": 8},
    "srresnet": {"n_blocks": 2, "n_feats": 8},
}
pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch without oneDNN")


def random_network(name, scale=2, **args):
    torch.manual_seed(0)
    network = build_sr(name, scale, NETWORKS[name] | args).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
    return network


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_fp32_equals_the_network(name, scale):
    network = random_network(name, scale)
    fused = fuse(network, torch.float32)
    for shape in ((1, 3, 17, 23), (3, 3, 8, 8), (1, 3, 1, 5)):
        lr = torch.rand(shape)
        assert (fused(lr) - network(lr)).abs().max() <= 1e-5 * max(1, network(lr).abs().max())


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    reason="this CPU has no bf16 convolutions (AVX-512 or AVX-NE-CONVERT)",
)
def test_bf16_is_close_to_the_network(name):
    network = random_network(name)
    lr = torch.rand(1, 3, 20, 24)
    expected, got = network(lr), fuse(network, torch.bfloat16)(lr.bfloat16())
    assert got.dtype == torch.bfloat16
    assert (got.float() - expected).abs().max() <= 0.05 * expected.abs().max()


@torch.no_grad()
@pytest.mark.parametrize("tail", ["single", "staged"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_pixels_are_shuffled_as_wholes(tail, scale):
    network = random_network("edsr", scale, tail=tail)
    fused, lr = fuse(network, torch.float32), torch.rand(2, 3, 9, 14)
    assert not any(isinstance(module, nn.PixelShuffle) for module in fused.modules())
    sr = fused(lr)
    assert sr.is_contiguous(memory_format=torch.channels_last)  # as the detector wants it
    torch.testing.assert_close(sr, network(lr), rtol=1e-4, atol=1e-5)


class NormFirst(nn.Module):
    """BatchNorm before a convolution, as at the end of the masker."""

    def __init__(self, affine, bias, kernel):
        super().__init__()
        self.norm = nn.BatchNorm2d(3, affine=affine)
        self.conv = nn.Conv2d(3, 5, kernel, padding=kernel // 2, bias=bias)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)
        if affine:
            nn.init.normal_(self.norm.weight)
            nn.init.normal_(self.norm.bias)

    def forward(self, x):
        return self.conv(self.norm(x))


@torch.no_grad()
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel", [1, 3])
def test_batchnorm_goes_into_a_pointwise_convolution_after_it(affine, bias, kernel):
    torch.manual_seed(0)
    network = NormFirst(affine, bias, kernel).eval()
    fused, x = fuse(network, torch.float32), torch.rand(2, 3, 6, 7)
    assert any(isinstance(module, nn.BatchNorm2d) for module in fused.modules()) == (kernel > 1)
    assert (fused(x) - network(x)).abs().max() <= 1e-5


@torch.no_grad()
def test_a_channel_without_variance_keeps_the_epsilon_of_its_norm():
    torch.manual_seed(0)
    network = NormFirst(False, True, 1).eval()
    network.norm.running_var.copy_(torch.tensor([1e-5, 1e-4, 1.0]))
    fused, x = fuse(network, torch.float32), torch.rand(2, 3, 6, 7)
    assert (fused(x) - network(x)).abs().max() <= 1e-5 * network(x).abs().max()


BATCH = ("statistics of the batch", "norm of a convolution")


class Branched(nn.Module):
    """A convolution, norm and PixelShuffle in the relations in which they must not be taken for a pair."""

    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.kind = kind
        self.conv = nn.Conv2d(12, 12, 1, groups=2 if kind == "groups" else 1, bias=kind != "groups")
        self.other = nn.Conv2d(3, 12, 3, padding=1, stride=1)
        self.norm = nn.BatchNorm2d(12, track_running_stats=kind not in BATCH)
        self.padded = nn.Conv2d(12, 12, 1, padding=1)
        self.shuffle = nn.PixelShuffle(2)
        if self.norm.running_mean is not None:
            self.norm.running_mean.normal_()
            self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        x = self.other(x)
        if self.kind not in ("shuffle called twice", "norm of a convolution"):
            x = x.clamp(-1, 1)  # else the norm would go into the convolution before it
        if self.kind == "shuffle called twice":
            return self.shuffle(self.conv(self.shuffle(x).repeat(1, 4, 1, 1)))
        if self.kind == "convolution called twice":
            return self.conv(self.norm(x)) + self.conv(x)
        if self.kind == "norm read twice":
            y = self.norm(x)
            return self.conv(y) + y
        if self.kind == "output read twice":
            y = self.conv(x)
            return self.shuffle(y).repeat(1, 4, 1, 1) + y.repeat(1, 1, 2, 2)
        if self.kind == "groups":
            return self.shuffle(self.conv(x))
        if self.kind == "padding":
            return self.padded(self.norm(x))
        return self.conv(self.norm(x))


@torch.no_grad()
@pytest.mark.parametrize(
    "kind",
    [
        *("shuffle called twice", "convolution called twice", "norm read twice", "output read twice", "groups"),
        *("padding", "statistics of the batch", "norm of a convolution"),
    ],
)
def test_what_is_no_pair_is_not_folded(kind):
    network = Branched(kind).eval()
    fused, x = fuse(network, torch.float32), torch.rand(2, 3, 6, 7)
    torch.testing.assert_close(fused(x), network(x), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_fusing_draws_no_random_numbers():
    masker = Masker(8).eval()
    before = torch.get_rng_state()
    fuse(masker, torch.float32)
    assert torch.equal(before, torch.get_rng_state())


@torch.no_grad()
@pytest.mark.parametrize("patch", [4, 7, 8, 16])
def test_the_masker_is_fused_for_images_of_any_size(patch):
    torch.manual_seed(0)
    masker = Masker(patch).eval()
    masker.norm.running_mean.normal_()
    masker.norm.running_var.uniform_(0.5, 2)
    nn.init.normal_(masker.logits.weight)
    fused = fuse(masker, torch.float32)
    assert not any(isinstance(module, nn.BatchNorm2d | nn.Conv2d) for module in fused.modules())
    for shape in ((1, 3, 64, 80), (2, 3, 61, 33), (1, 3, 1, 5), (3, 3, 16, 16)):
        lr = torch.rand(shape)
        torch.testing.assert_close(fused(lr), masker(lr), rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("args", [{"res_scale": 0.1}, {"tail": "single"}, {"n_blocks": 1}])
def test_variants_of_edsr(args):
    network = random_network("edsr", **args)
    fused, lr = fuse(network, torch.float32), torch.rand(2, 3, 12, 9)
    assert (fused(lr) - network(lr)).abs().max() <= 1e-5


def test_every_convolution_of_edsr_is_fused_and_the_network_left_alone():
    network = random_network("edsr", tail="single")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fused = fuse(network, torch.float32)
    kinds = [type(module) for module in fused.modules()]
    assert kinds.count(FusedConv) == 1 + 2 * 2 + 1 + 1 and nn.Conv2d not in kinds and nn.ReLU not in kinds
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class Branching(nn.Module):
    """Additions that must not be fused: a branch that is used twice, broadcasting, a tensor needed later."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.relu = nn.ReLU()

    def forward(self, x):
        a = self.first(x)
        b = self.relu(a) + a
        c = self.second(b) + b
        return c + x - b * a


@torch.no_grad()
def test_tensors_that_are_needed_later_survive():
    torch.manual_seed(0)
    network = Branching().eval()
    network.scale = 1
    lr = torch.rand(1, 3, 11, 13)
    fused = fuse(network, torch.float32)
    kept = lr.clone()
    assert (fused(lr) - network(lr)).abs().max() <= 1e-6 and torch.equal(lr, kept)


@pytest.mark.parametrize("reason", ["training", "fp16", "control flow"])
def test_what_cannot_be_fused_says_why(reason):
    network, dtype = random_network("edsr"), torch.float32
    if reason == "training":
        network.train()
    elif reason == "fp16":
        dtype = torch.float16
    else:
        network = build_sr("bicubic", 2)
    with pytest.raises(FusionError, match={"training": "training mode", "fp16": "float16"}.get(reason, "Trace")):
        fuse(network.eval() if reason == "control flow" else network, dtype)


@torch.no_grad()
@pytest.mark.parametrize("model", ["yolo11n.yaml", "yolov8n.yaml", "yolov5nu.yaml"])
@pytest.mark.parametrize("dtype", [None, torch.float32])
def test_detector_blocks_give_the_same_scores(model, dtype):
    torch.manual_seed(0)
    detector = YoloDetector(model, ["a", "b"]).eval()
    image = torch.rand(1, 3, 64, 96)
    expected = detector.raw(image, one2one=False)["scores"]
    fuse_conv_blocks(detector.net, dtype)
    assert (detector.raw(image, one2one=False)["scores"] - expected).abs().max() <= 1e-4
    assert not any(isinstance(module, nn.BatchNorm2d) for module in detector.modules())
