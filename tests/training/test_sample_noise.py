"""training/sample_noise.py: every sample has its own numbers, whatever batch it is in."""

from __future__ import annotations

import torch

from training.sample_noise import sample_noise

CPU = torch.device("cpu")


def test_a_sample_has_the_same_noise_in_every_batch():
    both = sample_noise([(0, 3), (1, 7)], 5, 2, (4, 6), CPU)
    assert torch.equal(both[1:], sample_noise([(1, 7)], 5, 2, (4, 6), CPU))


def test_other_keys_seeds_and_streams_have_other_noise():
    ways = [([(0, 3)], 5, 2), ([(1, 3)], 5, 2), ([(0, 4)], 5, 2), ([(0, 3)], 6, 2), ([(0, 3)], 5, 3)]
    drawn = [sample_noise(*way, (64,), CPU) for way in ways]
    assert all((a - b).abs().max() > 0.1 for n, a in enumerate(drawn) for b in drawn[:n])


def test_it_is_standard_normal():
    noise = sample_noise([(0, index) for index in range(16)], 0, 1, (1000,), CPU)
    assert abs(noise.mean()) < 0.03 and abs(noise.std() - 1) < 0.03
