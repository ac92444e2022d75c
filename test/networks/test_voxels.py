"""Sparse convolutions: their plain form against loops and dense convolution, and spconv against the plain form."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from dualview.errors import ConfigError
from dualview.networks import voxels as module
from dualview.networks.pillars import VoxelGrid
from dualview.networks.voxels import SparseConvolution, SparseMap, VoxelEncoder

GRID = VoxelGrid((-8.0, -8.0, -2.0), (1.0, 1.0, 1 / 6), (16, 16, 24))
SIZE = (5, 6, 7)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "spconv_is_installed", lambda: False)


def some_voxels(count: int = 12, channels: int = 3) -> SparseMap:
    generator = torch.Generator().manual_seed(0)
    flat = torch.randperm(2 * 5 * 6 * 7, generator=generator)[:count].sort().values
    place = torch.stack([flat // 210, flat // 42 % 5, flat // 7 % 6, flat % 7], 1)
    return SparseMap(torch.randn(count, channels, generator=generator), place, SIZE, 2)


def by_loop(layer: SparseConvolution, voxels: SparseMap) -> dict[tuple, torch.Tensor]:
    """The definition: every active input adds to every output that it reaches."""
    reached: dict[tuple, torch.Tensor] = {}
    for feature, place in zip(voxels.features, voxels.place.tolist(), strict=True):
        for kz in range(layer.kernel[0]):
            for ky in range(layer.kernel[1]):
                for kx in range(layer.kernel[2]):
                    out = [place[0]]
                    for axis, k in enumerate((kz, ky, kx)):
                        position = place[1 + axis] + layer.padding[axis] - k
                        edge = (SIZE[axis] + 2 * layer.padding[axis] - layer.kernel[axis]) // layer.stride[
                            axis
                        ] + 1
                        if position % layer.stride[axis] or not 0 <= position // layer.stride[axis] < edge:
                            break
                        out.append(position // layer.stride[axis])
                    else:
                        value = layer.weight[:, kz, ky, kx] @ feature
                        reached[tuple(out)] = reached.get(tuple(out), 0) + value
    if layer.submanifold:
        wanted = {tuple(p) for p in voxels.place.tolist()}
        return {place: value for place, value in reached.items() if place in wanted}
    return reached


@pytest.mark.parametrize(
    "options",
    [
        {"submanifold": True}, {"stride": (2, 2, 2)}, {"stride": (2, 2, 2), "padding": (0, 1, 1)},
        {"kernel": (3, 1, 1), "stride": (2, 1, 1), "padding": (0, 0, 0)},
    ],
)  # fmt: skip
def test_equals_the_loop(options: dict) -> None:
    layer, voxels = SparseConvolution(3, 4, **options), some_voxels()
    found, expected = layer(voxels), by_loop(layer, voxels)
    assert {tuple(p) for p in found.place.tolist()} == set(expected)
    for place, value in zip(found.place.tolist(), found.features, strict=True):
        assert torch.allclose(value, expected[tuple(place)], atol=1e-5)


def cloud(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(count, 5, generator=generator) - 0.5) * torch.tensor([16.0, 16, 4, 200, 1])


def test_encoder(plain: None) -> None:
    encoder = VoxelEncoder(GRID, 5, (4, 4, 4, 4))
    clouds = [cloud(150, 1), cloud(150, 2)]
    out = encoder(clouds)
    assert out.shape == (2, encoder.out_channels, 2, 2)
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())
    encoder.eval()
    with torch.no_grad():
        # Samples don't mix, and nothing seen is an empty map.
        assert torch.allclose(encoder(clouds)[1:], encoder(clouds[1:]), atol=1e-5)
        assert not encoder([torch.zeros(0, 5)]).any()


def test_a_single_voxel_and_none_can_be_learned_from(plain: None) -> None:
    encoder = VoxelEncoder(GRID, 5, (4, 4, 4, 4))
    encoder([cloud(1, 1), torch.zeros(0, 5)]).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())
    assert all(value.isfinite().all() for value in encoder.buffers())
    assert not encoder([torch.zeros(0, 5)]).any()


def test_a_car_lights_its_cells(plain: None) -> None:
    """Strided convolutions look one voxel to each side: what lies in the first voxel of a cell lights that cell alone, the rest of
    the cell the next one too.
    """
    encoder = VoxelEncoder(GRID, 5, (4, 4, 4, 4)).eval()
    with torch.no_grad():
        for x, columns in ((-7.5, [0]), (-4.5, [0, 1]), (0.5, [1]), (5.5, [1])):
            lit = encoder([torch.tensor([[x, 0.5, 0.1, 9.0, 0.0]])])[0].abs().sum(0)
            assert lit.nonzero().tolist() == [[1, column] for column in columns]


def _see_nothing_in_one_of_two_processes(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    encoder = nn.SyncBatchNorm.convert_sync_batchnorm(VoxelEncoder(GRID, 5, (4, 4, 4, 4)))
    found = encoder([torch.zeros(0, 5) if rank else cloud(150, 1)])
    found.square().sum().backward()
    torch.save({"lit": bool(found.any()), "graded": [p.grad is not None for p in encoder.parameters()]}, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_no_process_waits_for_one_that_sees_nothing(plain: None, tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_see_nothing_in_one_of_two_processes, (str(tmp_path),), nprocs=2)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    assert [f["lit"] for f in found] == [True, False] and all(all(f["graded"]) for f in found)


def test_too_large_for_the_plain_form_is_said() -> None:
    voxels = SparseMap(torch.zeros(1, 16), torch.zeros(1, 4, dtype=torch.int64), (41, 1024, 1024), 1)
    with pytest.raises(ConfigError, match="install spconv"):
        voxels.dense()


def test_spconv_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("spconv", reason="spconv isn't installed: pip install spconv")
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    quick = VoxelEncoder(GRID, 5, (4, 8, 8, 8)).to(device)
    slow = copy.deepcopy(quick)
    clouds = [cloud(150, 1).to(device), cloud(150, 2).to(device)]
    with torch.set_grad_enabled(device == "cuda"):  # spconv has no gradients on a CPU
        first = quick(clouds)
        monkeypatch.setattr(module, "spconv_is_installed", lambda: False)
        second = slow(clouds)
    assert torch.allclose(first, second, atol=1e-4) and first.abs().max() > 0.1
    assert list(quick.state_dict()) == list(slow.state_dict())
    if device == "cuda":
        weights = torch.rand_like(first)
        (first * weights).sum().backward()
        (second * weights).sum().backward()
        for one, other in zip(quick.parameters(), slow.parameters(), strict=True):
            assert torch.allclose(one.grad, other.grad, atol=1e-3)
