"""One instant's points with features, in one file."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from dualview.teachers.feature_cloud import FeatureCloud, read_file, to_half, write_tensors
from dualview.teachers.lifting import LiftedFrame


def write_lifted(path: Path, lifted: LiftedFrame, basis: Tensor | None) -> None:
    """A lifted frame in one file, features in float16; with `basis` [C, D] projected."""
    names = list(lifted.instances)
    clouds = [lifted.static, *lifted.instances.values()]
    if basis is not None:
        clouds = [cloud.projected(basis) for cloud in clouds]
    write_tensors(
        path,
        {
            "xyz": torch.cat([c.xyz for c in clouds]),
            "features": torch.cat([to_half(c.features) for c in clouds]),
            "count": torch.cat([c.count for c in clouds]),
            "lengths": torch.tensor([len(c) for c in clouds]),
            "names": torch.tensor(list("\n".join(names).encode()), dtype=torch.uint8),
        },
    )


def has_points(path: Path) -> bool:
    """Whether a lifted frame has any; reads the file's head only."""
    with safe_open(path, "pt") as file:
        return bool(file.get_slice("xyz").get_shape()[0])


def read_lifted(path: Path) -> LiftedFrame:
    """What `write_lifted` wrote."""
    tensors = read_file(path)
    lengths = tensors["lengths"].tolist()
    parts = [
        FeatureCloud(*part)
        for part in zip(*(tensors[n].split(lengths) for n in ("xyz", "features", "count")), strict=True)
    ]
    names = bytes(tensors["names"].tolist()).decode().split("\n")
    return LiftedFrame(parts[0], dict(zip(names, parts[1:], strict=False)))
