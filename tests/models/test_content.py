"""Padding is not image: whatever selects, counts or averages treats a padded image as the bare one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.conditional_sr import ConditionalSR
from models.content import image_cells, image_patches
from models.execution import Execution
from models.mask_policy import BestPatches, GivenMask, MaskPolicy, gradient_energy, parse_policy
from models.masker import Masker
from models.sr_fast import ESPCN
from models.sr_quality import EDSR
from utils.gumbel import gumbel_noise, gumbel_softmax

GREY = 114 / 255
SHARES = ["random", "edge", "budget"]


@st.composite
def placed(draw, aligned: bool = False):
    """Patch, bare images (B, 3, h, w), the canvas (B, 3, H, W) that shows them on grey, content (B, 1, 4)."""
    patch, batch = draw(st.sampled_from([4, 5, 8])), draw(st.integers(1, 3))
    size = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    step = patch if aligned else 1
    top, left = (step * draw(st.integers(0, 20 // step)) for _ in size)
    whole = [start + length + draw(st.integers(0, 20)) for start, length in zip((top, left), size, strict=True)]
    seed = draw(st.integers(0, 10_000))
    bare = torch.randint(256, (batch, 3, *size), generator=torch.Generator().manual_seed(seed)).float() / 255
    if draw(st.booleans()):
        bare[:, :, : size[0] // 2] = GREY  # like padding, but image
    canvas = torch.full((batch, 3, *whole), GREY)
    canvas[:, :, top : top + size[0], left : left + size[1]] = bare
    content = torch.tensor([[[top, left, top + size[0], left + size[1]]]] * batch)
    return patch, bare, canvas, content


def grid(lr: torch.Tensor, patch: int) -> tuple[int, int, int]:
    return len(lr), -(-lr.shape[2] // patch), -(-lr.shape[3] // patch)


def logits_of(score: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.zeros_like(score), score], 1)


def part(full: torch.Tensor, bare: torch.Tensor, content: torch.Tensor, patch: int) -> torch.Tensor:
    """The patches (B, gh, gw) of the bare images, out of those of the canvas they lie on."""
    row, column = (int(start) // patch for start in content[0, 0, :2])
    _, rows, columns = grid(bare, patch)
    return full[:, row : row + rows, column : column + columns]


@given(case=placed(), cell=st.integers(1, 9))
def test_a_cell_with_any_pixel_of_the_image_is_image(case, cell):
    _, _, canvas, content = case
    top, left, bottom, right = content[0, 0].tolist()
    pixels = np.zeros(canvas.shape[-2:], bool)
    pixels[top:bottom, left:right] = True
    cells = image_cells(content, canvas.shape[-2:], cell)
    for row in range(cells.shape[1]):
        for column in range(cells.shape[2]):
            inside = pixels[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
            assert (cells[:, row, column] == inside.any()).all()


def test_rectangles_add_up_and_empty_ones_hold_nothing():
    content = torch.tensor([[[0, 0, 4, 4], [4, 4, 8, 8], [0, 8, 0, 12]]])
    assert image_cells(content, (8, 12), 4).tolist() == [[[True, False, False], [False, True, False]]]
    assert image_patches(None, (8, 8), 4) is None
    assert image_patches(torch.tensor([[[0, 0, 7, 8], [7, 7, 7, 7]]]), (8, 8), 4) is None, "every patch holds image"


@given(case=placed(aligned=True), share=st.floats(0, 1), levels=st.integers(1, 30), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=150)
def test_a_padded_image_gets_the_patches_of_the_bare_one(case, share, levels, seed):
    patch, bare, canvas, content = case
    generator = torch.Generator().manual_seed(seed)
    score = torch.randint(-levels, levels, grid(canvas, patch), generator=generator).float()
    policies = [MaskPolicy(kind, share) for kind in (*SHARES, "threshold")] + [parse_policy("learned"), BestPatches(3)]
    own = part(score, bare, content, patch)
    for policy in policies:
        expected = policy.select(bare, logits_of(own), patch)
        mask = policy.select(canvas, logits_of(score), patch, content)
        assert torch.equal(part(mask, bare, content, patch), expected), policy
        assert mask.sum() == expected.sum(), "nothing is spent on padding"


@given(case=placed(), share=st.floats(0, 1), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=100)
def test_a_share_is_one_of_the_patches_that_hold_image(case, share, seed):
    patch, _, canvas, content = case
    image = image_cells(content, canvas.shape[-2:], patch)
    logits = torch.randn(len(canvas), 2, *image.shape[1:], generator=torch.Generator().manual_seed(seed))
    for kind in SHARES:
        mask = MaskPolicy(kind, share).select(canvas, logits, patch, content)
        assert mask.sum((1, 2)).tolist() == [round(share * int(n)) for n in image.sum((1, 2))]
        assert not (mask & ~image).any()
    everything = torch.ones_like(image)
    assert torch.equal(GivenMask(everything).select(canvas, logits, patch, content), image)
    assert parse_policy("all_quality").select(canvas, None, patch, content).all()
    assert not parse_policy("all_fast").select(canvas, None, patch, content).any()


@given(case=placed(), share=st.floats(0, 1))
@settings(deadline=None, max_examples=50)
def test_content_that_fills_the_canvas_changes_nothing(case, share):
    patch, bare, _, _ = case
    content = torch.tensor([[[0, 0, *bare.shape[-2:]]]] * len(bare))
    logits = torch.randn(len(bare), 2, *grid(bare, patch)[1:])
    assert torch.equal(gradient_energy(bare, patch, content), gradient_energy(bare, patch))
    for kind in SHARES:
        policy = MaskPolicy(kind, share)
        assert torch.equal(policy.select(bare, logits, patch, content), policy.select(bare, logits, patch))


@given(case=placed())
@settings(deadline=None)
def test_only_steps_within_the_image_have_energy(case):
    patch, bare, canvas, content = case
    grey = bare.mean(1).double()
    expected = grey.diff(dim=1).square().sum((1, 2)) + grey.diff(dim=2).square().sum((1, 2))
    energy = gradient_energy(canvas, patch, content)
    assert torch.allclose(energy.double().sum((1, 2)), expected, rtol=1e-4, atol=1e-6)
    assert not energy[~image_cells(content, canvas.shape[-2:], patch)].any()


def test_edge_does_not_choose_the_rim_of_a_letterboxed_image():
    """A drawn image of dark noise in a bright field on grey bars, as the blood cells that showed the fault."""
    generator = torch.Generator().manual_seed(0)
    canvas = torch.full((4, 3, 32, 40), GREY)
    canvas[:, :, 1:31] = 0.9 + 0.02 * torch.randn(4, 3, 30, 40, generator=generator)
    canvas[:, :, 8:24, 8:32] -= 0.1 * torch.rand(4, 1, 16, 24, generator=generator).round()
    content, policy = torch.tensor([[[1, 0, 31, 40]]] * 4), parse_policy("edge=0.25")
    rim = [policy.select(canvas, None, 4, c)[:, [0, -1]].sum().item() for c in (None, content)]
    assert rim == [4 * 20, 0], "all of them, were the step to the grey an edge of the image"


def test_random_masks_follow_the_image_not_its_padding():
    images = (torch.rand(2, 3, 16, 24) * 255).round() / 255
    canvas = torch.full((2, 3, 32, 24), GREY)
    canvas[:, :, 8:24] = images
    lower = canvas.roll(8, 2)
    policy, content = parse_policy("random=0.5"), torch.tensor([[[8, 0, 24, 24]]] * 2)
    masks = [
        policy.select(lr, None, 8, c) for lr, c in ((canvas, content), (lower, content + torch.tensor([8, 0, 8, 0])))
    ]
    assert torch.equal(masks[0][:, 1:3], masks[1][:, 2:4])
    assert not torch.equal(masks[0][0], masks[0][1]), "two images, two masks"


# -------------------------------------------------------------------------------------------------------- ConditionalSR


def conditional() -> ConditionalSR:
    torch.manual_seed(0)
    front = ConditionalSR(Masker(4, bias=0.0), ESPCN(2), EDSR(2, n_blocks=1, n_feats=4), Execution(halo=1))
    with torch.no_grad():
        for parameter in front.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return front


class Milliseconds:
    """A latency predictor: so many milliseconds a patch of SR_Quality, on canvases of any size."""

    in_place = False

    def largest_share(self, milliseconds: float, height: int, width: int, batch: int) -> float:
        return min(1.0, milliseconds / (-(-height // 4) * -(-width // 4)))


def test_milliseconds_buy_patches_and_all_of_them_one_dense_run():
    front, lr, content = conditional().eval(), torch.rand(2, 3, 16, 16), torch.tensor([[[0, 0, 8, 16]], [[0, 0, 4, 8]]])
    front = front.with_execution(latency=Milliseconds())
    assert front.infer(lr, parse_policy("latency_ms=5"), content).mask.sum((1, 2, 3)).tolist() == [5, 2]
    assert front.infer(lr, parse_policy("latency_ms=5")).mask.sum((1, 2, 3)).tolist() == [5, 5]
    assert front.infer(lr, parse_policy("latency_ms=16"), content).mask.all()


@pytest.mark.parametrize("policy", ["learned", "threshold=0.4", "budget=1", "random=0.5", "edge=0.5", "latency_ms=3"])
def test_padding_is_sr_fast_and_the_masks_of_a_batch_are_those_of_its_images(policy):
    front, lr = conditional().eval(), torch.rand(3, 3, 18, 22)
    front = front.with_execution(latency=Milliseconds())
    content = torch.tensor([[[0, 0, 18, 22]], [[2, 0, 12, 9]], [[4, 4, 5, 5]]])
    output = front.infer(lr, parse_policy(policy), content)
    image = image_cells(content, (18, 22), 4)
    assert output.mask.sum() > 0 and not output.mask[:, 0].bool()[~image].any()
    expected = front.fuse(front.sr_fast(lr), front.sr_quality(lr), output.mask).clamp(0, 1)
    padding = ~image[:, None].repeat_interleave(8, 2).repeat_interleave(8, 3)[..., :36, :44].expand_as(expected)
    torch.testing.assert_close(output.sr[padding], expected[padding], atol=1e-5, rtol=0)
    singles = [front.infer(lr[i : i + 1], parse_policy(policy), content[i : i + 1]).mask for i in range(3)]
    assert torch.equal(torch.cat(singles), output.mask)


# ------------------------------------------------------------------------------------------------------------- training


def test_padding_has_no_part_in_the_statistics_of_the_masker():
    masker, bare = Masker(4), torch.rand(2, 3, 16, 24)
    image = torch.zeros(2, 6, 6, dtype=torch.bool)
    image[:, :4] = True
    canvases = [torch.cat([bare, torch.full((2, 3, 8, 24), level)], 2) for level in (0.2, 0.9)]
    inner = []
    for canvas in canvases:
        masker.norm.reset_running_stats()
        x = masker._patch_features(canvas).detach()
        logits = masker.on_image(canvas, image)
        shown = x.permute(0, 2, 3, 1)[image]
        torch.testing.assert_close(masker.norm.running_mean, 0.1 * shown.mean(0))
        torch.testing.assert_close(masker.norm.running_var, 0.9 + 0.1 * shown.var(0))
        alone = torch.nn.functional.batch_norm(x, shown.mean(0), shown.var(0, unbiased=False))
        torch.testing.assert_close(logits[:, :, :4], masker.decide(alone)[:, :, :4])
        inner.append(masker._patch_features(canvas)[:, :, :2])
    torch.testing.assert_close(*inner)  # out of sight of the padding


def test_all_image_is_the_plain_masker_bit_by_bit_and_eval_looks_at_no_statistics():
    lr, image = torch.rand(2, 3, 16, 24), torch.ones(2, 4, 6, dtype=torch.bool)
    masker = Masker(4)
    torch.testing.assert_close(masker.on_image(lr, image), masker(lr))
    image[:, 2:] = False
    assert torch.equal(masker.eval().on_image(lr, image), masker(lr))


@given(case=placed(), share=st.floats(0, 1), seed=st.integers(0, 99), drawn=st.booleans())
@settings(deadline=None)
def test_a_drawn_mask_keeps_the_share_of_image_patches_and_learns_from_them_alone(case, share, seed, drawn):
    patch, _, canvas, content = case
    image = image_cells(content, canvas.shape[-2:], patch)[:, None]
    logits = torch.randn(len(canvas), 2, *image.shape[2:], requires_grad=True)
    noise = gumbel_noise(range(len(canvas)), 0, seed, image.shape[2:])
    shares = torch.tensor([share] * len(canvas), dtype=torch.float64) if drawn else None
    mask = gumbel_softmax(logits, 1.0, noise, shares, image)
    assert not mask[~image].any()
    if drawn:
        assert mask.sum((1, 2, 3)).tolist() == [round(share * int(n)) for n in image.sum((1, 2, 3))]
    else:
        assert torch.equal(mask[image], gumbel_softmax(logits, 1.0, noise)[image])
    (mask * torch.rand_like(mask)).sum().backward()
    assert not logits.grad[(~image).expand_as(logits)].any() and logits.grad[image.expand_as(logits)].any()


def test_forward_without_padding_is_the_same_bits():
    lr, noise = torch.rand(2, 3, 16, 16), gumbel_noise(range(2), 0, 0, (4, 4))
    results = []
    for content in (None, torch.tensor([[[0, 0, 16, 16]]] * 2), torch.tensor([[[3, 2, 15, 14]]] * 2)):
        front = conditional().train()
        output = front(lr, 1.0, noise, torch.tensor([0.3, 0.6], dtype=torch.float64), content)
        output.sr.square().sum().backward()
        results.append([output.sr, output.mask, *front.state_dict().values(), *(p.grad for p in front.parameters())])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_an_image_that_left_its_canvas_keeps_nothing():
    nothing = torch.tensor([[[0, 0, 0, 0]]])
    front = conditional().train()
    output = front(torch.rand(1, 3, 8, 8), 1.0, gumbel_noise([0], 0, 0, (2, 2)), torch.tensor([1.0]).double(), nothing)
    assert output.mask.sum() == 0 and output.sr.isfinite().all()
