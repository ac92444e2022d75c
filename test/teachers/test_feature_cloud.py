"""Merging, the store that spills, and the basis."""

import os
from pathlib import Path

import pytest
import torch

from dualview.errors import BagError, ConfigError
from dualview.teachers import cloud_store
from dualview.teachers.cloud_store import CloudCache, CloudStore, by_tile, tile_name, tiles_around
from dualview.teachers.feature_basis import BasisFit, FeatureBasis
from dualview.teachers.feature_cloud import FeatureCloud, join, merge, read_cloud, write_cloud


def random_cloud(seed: int, count: int = 300, offset: float = 0.0) -> FeatureCloud:
    random = torch.Generator().manual_seed(seed)
    xyz = torch.rand(count, 3, generator=random, dtype=torch.float64) * 3 + offset
    return FeatureCloud(
        xyz, torch.randn(count, 6, generator=random), torch.randint(1, 4, (count,), generator=random).float()
    )


def test_merge_is_the_weighted_mean() -> None:
    merged = merge(
        FeatureCloud(
            torch.tensor([[0.1, 0.1, 0.1], [0.3, 0.1, 0.1], [-0.1, 0.1, 0.1]], dtype=torch.float64),
            torch.tensor([[1.0], [5.0], [7.0]]),
            torch.tensor([3.0, 1.0, 1.0]),
        ),
        0.5,
    )
    torch.testing.assert_close(
        merged.xyz, torch.tensor([[-0.1, 0.1, 0.1], [0.15, 0.1, 0.1]], dtype=torch.float64)
    )
    assert merged.features.tolist() == [[7.0], [2.0]] and merged.count.tolist() == [1.0, 4.0]


@pytest.mark.parametrize("offset", [0.0, -1.5, 5_000_000.0])  # the last as in UTM coordinates
def test_merging_in_steps_is_merging_at_once(offset: float) -> None:
    clouds = [random_cloud(seed, offset=offset) for seed in range(4)]
    at_once, steps = merge(join(clouds), 0.4), merge(clouds[0], 0.4)
    for cloud in clouds[1:]:
        steps = merge(join([steps, cloud]), 0.4)
    torch.testing.assert_close(steps.count, at_once.count)
    torch.testing.assert_close(steps.xyz, at_once.xyz)
    torch.testing.assert_close(steps.features, at_once.features, rtol=1e-4, atol=1e-5)


def test_broken_coordinates_are_named() -> None:
    far = FeatureCloud(
        torch.tensor([[0.0, 0, 0], [1e15, 1e15, 1e15]], dtype=torch.float64), torch.zeros(2, 1), torch.ones(2)
    )
    with pytest.raises(ValueError, match="too far apart"):
        merge(far, 0.2)


def test_the_store_is_the_same_whatever_its_memory(tmp_path: Path) -> None:
    contents = []
    for memory in (10**9, 1):
        folder = tmp_path / str(memory)
        store = CloudStore(folder, 0.4, memory)
        for seed in range(6):
            store.add(f"part{seed % 3}", random_cloud(seed))
        assert (len(list(folder.glob("*.safetensors"))) > 0) == (memory == 1)  # spilled
        assert store.finish() == 3
        contents.append({p.name: p.read_bytes() for p in sorted(folder.iterdir())})
    assert contents[0] == contents[1] and len(contents[0]) == 3
    kept, direct = (
        read_cloud(tmp_path / "1/part1.safetensors"),
        merge(join([random_cloud(1), random_cloud(4)]), 0.4),
    )
    torch.testing.assert_close(kept.xyz, direct.xyz)
    torch.testing.assert_close(kept.features, direct.features)


def test_the_cache_keeps_no_more_than_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / f"{seed}.safetensors" for seed in range(3)]
    for seed, path in enumerate(paths):
        write_cloud(path, random_cloud(seed), half=False)
    size, reads = read_cloud(paths[0]).nbytes, []
    monkeypatch.setattr(cloud_store, "read_cloud", lambda path: reads.append(path.stem) or read_cloud(path))
    cache = CloudCache()
    for index in (0, 1, 0, 2, 0, 1):  # two fit: 1 has to go for 2, and is read again
        torch.testing.assert_close(cache.read(paths[index], 2 * size).xyz, random_cloud(index).xyz)
    assert reads == ["0", "1", "2", "1"]
    cache.read(paths[1], 1)
    cache.read(paths[2], 1)
    assert reads[4:] == ["2"]  # the one asked for stays, whatever its size
    write_cloud(paths[2], random_cloud(7), half=False)
    os.utime(paths[2], ns=(1, 1))
    torch.testing.assert_close(cache.read(paths[2], 2 * size).xyz, random_cloud(7).xyz)  # it was written anew


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(BagError, match=r"x\.safetensors can't be read"):
        read_cloud(tmp_path / "x.safetensors")


def test_tiles_hold_every_point_once() -> None:
    cloud = random_cloud(0, 400)
    spread = FeatureCloud((cloud.xyz - 1.5) * 60, cloud.features, cloud.count)
    parts = dict(by_tile(spread))
    assert sum(len(p) for p in parts.values()) == 400 and len(parts) > 20
    center = torch.tensor([3.0, -20.0, 0.0])
    names = tiles_around(center, 30.0)
    near = ((spread.xyz[:, :2] - center[:2]).abs() <= 30.0).all(1)
    found = torch.cat([parts[n].xyz for n in names if n in parts])
    assert {tuple(p) for p in spread.xyz[near].tolist()} <= {tuple(p) for p in found.tolist()}
    assert tile_name(-2, 0) in names and tile_name(5, 5) not in names


def test_basis_keeps_inner_products_of_what_lies_in_it(tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    plane = torch.linalg.qr(torch.randn(8, 3, generator=random))[0]
    features = (torch.randn(200, 3, generator=random) + torch.tensor([5.0, 0, 0])) @ plane.T
    fit = BasisFit(8)
    for part in features.split(64):
        fit.add(part)
    basis = fit.basis(3)
    torch.testing.assert_close(basis.matrix.T @ basis.matrix, torch.eye(3), atol=1e-5, rtol=0)
    reduced = features @ basis.matrix
    torch.testing.assert_close(reduced @ reduced.T, features @ features.T, atol=1e-3, rtol=1e-4)
    assert (
        basis.kept[-1] > 0.9999 and basis.kept[0] > 0.8
    )  # the mean isn't taken out: it is the first direction
    basis.save(tmp_path / "basis.safetensors")
    assert torch.equal(FeatureBasis.load(tmp_path / "basis.safetensors").matrix, basis.matrix)
    with pytest.raises(ConfigError, match="8 channels"):
        fit.basis(9)
