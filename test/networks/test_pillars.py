"""Pillars: brute force, limits, and what empty clouds do."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from dualview.networks.pillars import PillarEncoder, PillarFeatures, VoxelGrid, Voxels, decorate, voxelize
from dualview.networks.second import SecondBackbone, SecondPyramid
from dualview.networks.voxels import VoxelEncoder

GRID = VoxelGrid((-4.0, -4.0, -2.0), (1.0, 1.0, 4.0), (8, 8, 1))


def cloud(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 5, generator=generator) * torch.tensor([10.0, 10, 5, 255, 0.5]) - torch.tensor(
        [5.0, 5, 2.5, 0, 0]
    )


def by_loop(points: torch.Tensor, grid: VoxelGrid, most_points: int, most_voxels: int) -> dict:
    """The definition: walk over the points."""
    found: dict[tuple[int, int, int], list[torch.Tensor]] = {}
    for point in points:
        place = tuple(int(((point[i] - grid.lower[i]) / grid.size[i]).floor().item()) for i in range(3))
        if any(not 0 <= place[i] < grid.counts[i] for i in range(3)):
            continue
        if place not in found:
            if len(found) >= most_voxels:
                continue
            found[place] = []
        if len(found[place]) < most_points:
            found[place].append(point)
    return found


def test_equals_the_loop_over_points() -> None:
    for most_points, most_voxels in ((3, 100), (20, 10)):
        points = cloud(200, 0)
        voxels = voxelize([points], GRID, most_points, most_voxels)
        expected = by_loop(points, GRID, most_points, most_voxels)
        assert [tuple(p[[3, 2, 1]].tolist()) for p in voxels.place] == list(expected)
        for row, inside in enumerate(expected.values()):
            assert int(voxels.count[row]) == len(inside)
            assert torch.equal(voxels.points[row, : len(inside)], torch.stack(inside))
            assert not voxels.points[row, len(inside) :].any()


def test_points_that_are_no_numbers_are_left_out() -> None:
    points = cloud(50, 1)
    bad = points.clone()
    bad[::5, 0] = float("nan")
    bad[1::5, 3] = float("inf")
    good = bad[bad.isfinite().all(1)]
    assert torch.equal(voxelize([bad], GRID, 5, 50).points, voxelize([good], GRID, 5, 50).points)


@pytest.mark.parametrize("encoder", ["pillars", "voxels"])
def test_training_sees_other_points_of_a_crowded_voxel_each_time(encoder: str) -> None:
    """In evaluation the first points count; in training any, by torch's generator alone."""
    points = torch.tensor([[0.5, 0.5, 0.1, float(i), 0.05 * i] for i in range(40)])
    if encoder == "pillars":
        network: torch.nn.Module = PillarEncoder(GRID, 5, (8,), max_points=2)
    else:
        network = VoxelEncoder(VoxelGrid((-4.0, -4.0, -2.0), (1.0, 1.0, 0.25), (8, 8, 24)), 5, (4, 4, 4, 4), max_points=2)
    module = sys.modules[type(network).__module__]
    seen: list[tuple[float, ...]] = []

    def watched(clouds, *sizes):
        found = voxelize(clouds, *sizes)
        seen.append(tuple(found.points[0, :, 3].tolist()))
        return found

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(module, "voxelize", watched)
        for seed in (0, 0, 1, 2):
            torch.manual_seed(seed)
            network.train()([points, points])
        for seed in (0, 1):
            torch.manual_seed(seed)
            network.eval()([points, points])
    assert seen[0] == seen[1] and len(set(seen[1:4])) == 3
    assert seen[4] == seen[5] == (0.0, 1.0)


def test_nothing_seen_gives_an_empty_map() -> None:
    encoder = PillarEncoder(GRID, 5, (8,))
    before = {name: value.clone() for name, value in encoder.named_buffers() if "running" in name}
    assert not encoder([torch.zeros(0, 5)]).any()
    assert all(torch.equal(value, before[name]) for name, value in encoder.named_buffers() if "running" in name)
    assert encoder([torch.zeros(0, 5), torch.full((3, 5), 100.0)]).shape == (2, 8, 8, 8)
    some = encoder([torch.zeros(0, 5), cloud(100, 2)])
    assert not some[0].any() and some[1].any()


def test_two_layers_and_gradient() -> None:
    features = PillarFeatures(5, (8, 6), GRID)
    voxels = voxelize([cloud(60, 3)], GRID, 4, 100)
    out = features(voxels)
    assert out.shape == (len(voxels.count), 6)
    out.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in features.parameters())


def with_empty_slots(features: PillarFeatures, voxels: Voxels) -> torch.Tensor:
    """The definition: every slot of the table, filled or not, is a row of its own."""
    rows = decorate(voxels, features.grid) * voxels.filled.unsqueeze(-1)
    for layer in features.layers:
        hidden = layer["norm"](layer["linear"](rows).transpose(1, 2)).transpose(1, 2).relu()
        highest = hidden.amax(1, keepdim=True)
        rows = torch.cat([hidden, highest.expand_as(hidden)], -1)
    return highest.squeeze(1)


@pytest.mark.parametrize("channels", [(6,), (8, 6), (8, 8, 6)])
def test_equals_a_table_with_all_empty_slots(channels: tuple[int, ...]) -> None:
    """Output, gradients and learned statistics, in training and afterwards; some pillars are full."""
    torch.manual_seed(0)
    features = PillarFeatures(5, channels, GRID).double()
    for layer in features.layers:  # so that an empty slot isn't zero behind the norm, and some are the highest
        torch.nn.init.normal_(layer["norm"].bias)
    by_table = copy.deepcopy(features)
    voxels = voxelize([cloud(150, 3).double(), cloud(150, 4).double()], GRID, 4, 100)
    assert 0 < (voxels.count == 4).sum() < len(voxels.count)
    for training in (True, False):
        found, expected = features.train(training)(voxels), with_empty_slots(by_table.train(training), voxels)
        torch.testing.assert_close(found, expected)
        weights = torch.rand_like(expected)
        for network, output in ((features, found), (by_table, expected)):
            network.zero_grad()
            (output * weights).sum().backward()
        for ours, theirs in zip(features.parameters(), by_table.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad)
        for ours, theirs in zip(features.buffers(), by_table.buffers(), strict=True):
            torch.testing.assert_close(ours, theirs)


def _learn_in_one_of_two_processes(rank: int, folder: str, second: int) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    features = nn.SyncBatchNorm.convert_sync_batchnorm(torch.load(f"{folder}/features.pt", weights_only=False))
    found = features(voxelize([cloud(second if rank else 80, rank).double()], GRID, 4, 100))
    found.square().sum().backward()
    gradients = [p.grad for p in features.parameters()]
    for gradient in gradients:
        torch.distributed.all_reduce(gradient)
    torch.save([*gradients, *features.buffers()], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("second", [140, 0], ids=["both see points", "one sees none"])
def test_synchronised_norms_learn_what_one_process_learns_of_all(second: int, tmp_path: Path) -> None:
    """As on several GPUs, where Lightning makes the norms so; none waits for ever for one that sees nothing."""
    torch.manual_seed(0)
    features = PillarFeatures(5, (8, 6), GRID).double()
    torch.save(features, tmp_path / "features.pt")
    features(voxelize([cloud(80, 0).double(), cloud(second, 1).double()], GRID, 4, 100)).square().sum().backward()
    torch.multiprocessing.spawn(_learn_in_one_of_two_processes, (str(tmp_path), second), nprocs=2)
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt")
        for ours, one in zip(found, [*(p.grad for p in features.parameters()), *features.buffers()], strict=True):
            torch.testing.assert_close(ours, one)


def test_a_car_lights_its_cell() -> None:
    """x = 3.2 m, y = -1.5 m lies in column 7, row 2."""
    point = torch.tensor([[3.2, -1.5, 0.0, 9.0, 0.0]])
    encoder = PillarEncoder(GRID, 5, (8,)).eval()
    assert encoder([point])[0].abs().sum(0).nonzero().tolist() == [[2, 7]]


def test_pyramid_brings_all_maps_to_one_size() -> None:
    maps = SecondBackbone(4, (6, 8, 10), (1, 0, 1))(torch.rand(1, 4, 32, 32))
    assert [tuple(m.shape[1:]) for m in maps] == [(6, 16, 16), (8, 8, 8), (10, 4, 4)]
    assert SecondPyramid((6, 8, 10), (3, 4, 5))(maps).shape == (1, 12, 8, 8)
