"""bf16 by AMX, with portable code in its place: bit for bit what the vectors of AVX-512 give, whatever is selected."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import deployment.native.build as native_build
import deployment.native_execution as native_execution
from deployment.native_execution import NativeNetwork
from models import build_sr
from tests.deployment.portable_kernel import AMX, LIBRARY, compile_portable


@pytest.fixture(scope="module")
def libraries(portable_library: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of vectors, and of AMX."""
    return portable_library, compile_portable(tmp_path_factory.mktemp("amx") / "block_sparse.so", *LIBRARY, *AMX)


@pytest.fixture(scope="module")
def networks_of(libraries):
    """(feature maps, scale) -> the same network by either."""
    made = {}

    def build(maps: int, scale: int, dtype: torch.dtype = torch.bfloat16) -> list[NativeNetwork]:
        if (maps, scale, dtype) not in made:
            torch.manual_seed(0)
            network = build_sr("edsr", scale, {"n_blocks": 2, "n_feats": maps, "tail": "single"}).eval()
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter.add_(0.05 * torch.randn_like(parameter))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(native_execution, "cpu_flags", lambda: native_build.NEEDED | {"avx512_bf16"})
                found = []
                for library in libraries:
                    patch.setattr(native_execution, "find_library", lambda library=library: library)
                    found.append(NativeNetwork(network, dtype))
            made[maps, scale, dtype] = found
        return made[maps, scale, dtype]

    return build


@pytest.mark.parametrize(("maps", "scale"), [(16, 2), (32, 3), (48, 4), (64, 4), (80, 2)])
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.tuples(st.integers(1, 2), st.integers(1, 9), st.integers(1, 40)),
    patch=st.integers(1, 17),
    halo=st.sampled_from([0, 1, 2, None]),
    seed=st.integers(0, 1000),
)
def test_amx_gives_the_bits_of_avx512(networks_of, maps, scale, size, patch, halo, seed):
    """Runs of 1 to 40 pixels: whole registers, parts of one, several of nearly the same length."""
    batch, height, width = size
    generator = torch.Generator().manual_seed(seed)
    lr = torch.rand(batch, 3, height, width, generator=generator)
    mask = torch.rand(batch, -(-height // patch), -(-width // patch), generator=generator) < 0.6
    background = torch.rand(batch, 3, scale * height, scale * width, generator=generator)
    vectors, amx = (
        network.run(lr, mask, patch, halo, background.clone()) for network in networks_of(maps, scale)
    )
    assert torch.equal(vectors, amx)


def products_of(network: NativeNetwork, library: Path) -> int:
    """How often AMX multiplied in a call of a library in which it is emulated."""
    count = ctypes.CDLL(library).count_tile_products
    count.restype, before = ctypes.c_int64, count()
    network(torch.rand(1, 3, 5, 37, generator=torch.Generator().manual_seed(0)))
    return count() - before


def test_bf16_takes_amx_and_fp32_does_not(networks_of, libraries):
    """Were AMX not taken, equal bits would say nothing."""
    assert products_of(networks_of(16, 2)[1], libraries[1]) > 100
    assert products_of(networks_of(16, 2, torch.float32)[1], libraries[1]) == 0
