"""What a whole drive has seen, in bounded memory: tiles of the world and objects, the ones not in use on disk."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from dualview.teachers.feature_cloud import FeatureCloud, join, merge, read_cloud, write_cloud

TILE = 25.6  # m; edge of a tile of the static world


class CloudStore:
    """Clouds by name that grow by `add`. At most `memory_bytes` of them are kept in memory (and the one in
    use); the least recently used go to `folder` at full precision, so the limit changes no number.
    """

    def __init__(self, folder: Path, voxel: float, memory_bytes: int) -> None:
        self._folder, self._voxel, self._limit = folder, voxel, memory_bytes
        folder.mkdir(parents=True, exist_ok=True)
        self._held: OrderedDict[str, FeatureCloud] = OrderedDict()
        self._bytes = 0
        self._names: set[str] = set()

    def add(self, name: str, cloud: FeatureCloud) -> None:
        """Merge `cloud` into what is known under `name`."""
        before = self._take(name)
        after = merge(cloud if before is None else join([before, cloud]), self._voxel)
        self._held[name] = after
        self._bytes += after.nbytes
        self._names.add(name)
        while self._bytes > self._limit and len(self._held) > 1:
            oldest, spilled = self._held.popitem(last=False)
            self._bytes -= spilled.nbytes
            write_cloud(self._path(oldest), spilled, half=False)

    def finish(self) -> int:
        """Write every cloud, at full precision; returns how many there are."""
        while self._held:
            name, cloud = self._held.popitem()
            self._bytes -= cloud.nbytes
            write_cloud(self._path(name), cloud, half=False)
        return len(self._names)

    def _take(self, name: str) -> FeatureCloud | None:
        cloud = self._held.pop(name, None)
        if cloud is not None:
            self._bytes -= cloud.nbytes
            return cloud
        return read_cloud(self._path(name)) if name in self._names else None

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.safetensors"


class CloudCache:
    """Clouds read from files, of which the least recently used are forgotten."""

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[Path, int], FeatureCloud] = OrderedDict()
        self._bytes = 0

    def read(self, path: Path, memory_bytes: int) -> FeatureCloud:
        """What the file holds; at most `memory_bytes` of clouds are kept (and the one asked for)."""
        key = path, path.stat().st_mtime_ns
        cloud = self._held.pop(key, None)
        if cloud is None:
            cloud = read_cloud(path)
            self._bytes += cloud.nbytes
        self._held[key] = cloud
        while self._bytes > memory_bytes and len(self._held) > 1:
            self._bytes -= self._held.popitem(last=False)[1].nbytes
        return cloud


def tile_name(column: int, row: int) -> str:
    """Name of the tile that spans [column, column + 1) x [row, row + 1) times `TILE`, world frame."""
    return f"tile_{column}_{row}"


def instance_name(instance: str) -> str:
    """Name of an object's cloud, fit for a file."""
    return f"instance_{hashlib.sha256(instance.encode()).hexdigest()[:24]}"


def by_tile(cloud: FeatureCloud) -> Iterator[tuple[str, FeatureCloud]]:
    """A world cloud, cut into tiles."""
    tile = (cloud.xyz[:, :2] / TILE).floor().long()
    for column, row in tile.unique(dim=0).tolist():
        yield tile_name(column, row), cloud[(tile == torch.tensor([column, row])).all(1)]


def tiles_around(center: Tensor, radius: float) -> list[str]:
    """Names of all tiles that a square of +-`radius` (m) around `center` [>=2] (world, m) touches."""
    low = ((center[:2] - radius) / TILE).floor().long().tolist()
    high = ((center[:2] + radius) / TILE).floor().long().tolist()
    return [tile_name(x, y) for x in range(low[0], high[0] + 1) for y in range(low[1], high[1] + 1)]
