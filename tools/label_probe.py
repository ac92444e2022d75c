"""How much label maps know: a linear probe of each cell, does an object of a class stand there?

    python tools/label_probe.py LABEL_MAPS --train DRIVES --test DRIVES [--class car] [--rig RIG] [--frames 4]

Fits a logistic regression to the labelled cells of the training drives and prints its average precision on those of the test drives: by
the maps' features (directions only, as distillation compares them), by what the present LiDAR sweep says of a cell (the LiDAR oracle's
heights), and by both. Maps of frames alone (`--no-accumulation`) are fair here: those gathered over the drive have seen every side of
an object. Of two teachers the one with the better probe has more to teach, before anything is trained.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from dualview.errors import ConfigError
from dualview.geometry.rigid import invert_rigid, transform_points
from dualview.networks.oracle_branch import height_statistics
from dualview.scene.assembler import ClosedFrame
from dualview.scene.bag_reader import BagReader
from dualview.scene.keyframes import Keyframes
from dualview.scene.offline import iterate_frames
from dualview.scene.recorded import LidarSweeps, read_transforms
from dualview.scene.rig import Rig, load_rig
from dualview.teachers.label_store import LabelMaps
from dualview.training.bag_index import find_recordings

_LAYERS = 16  # of the heights, as the LiDAR oracle has them


def cells_of(
    maps: LabelMaps, recordings: Sequence[Path], rig: Rig, class_name: str, frames: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Features [K, C] of length 1, heights [K, S] and whether an object of the class is there (float [K]) of the labelled cells
    of about `frames` frames of each recording.
    """
    centers = maps.grid.cell_centers().view(-1, 2).double()
    found = []
    for path in recordings:
        stamps = maps.stamps(path).tolist()
        chosen = set(stamps[:: max(len(stamps) // frames, 1)])
        with BagReader(path) as bag:
            keyframes = Keyframes(bag.annotations(rig))
            sweeps = LidarSweeps(bag, rig, read_transforms(bag))
            for frame in iterate_frames(bag, rig):
                if not isinstance(frame, ClosedFrame) or frame.stamp_ns not in chosen:
                    continue
                labels, label = keyframes.at(frame.stamp_ns), maps.sparse(path, frame.stamp_ns)
                if labels is None or label is None:
                    continue
                ego_from_world = invert_rigid(torch.from_numpy(frame.world_from_ego))
                clouds = [torch.from_numpy(s.points).double() + torch.tensor([*s.origin, 0.0]) for s in sweeps.near(frame.stamp_ns)]
                cloud = torch.cat([torch.zeros(0, 4).double(), *clouds])
                cloud[:, :3] = transform_points(ego_from_world, cloud[:, :3])
                heights = height_statistics(cloud.float(), maps.grid, _LAYERS).flatten(1).T
                of_class = torch.tensor([labels.class_names[i] == class_name for i in labels.boxes.label.tolist()], dtype=torch.bool)
                boxes = labels.boxes[of_class]
                inside = torch.zeros(len(centers), dtype=torch.bool)
                ground = transform_points(invert_rigid(ego_from_world), torch.cat([centers, torch.zeros(len(centers), 1)], 1))
                for i, z in enumerate(boxes.center[:, 2].tolist()):  # at each box's own height: a cell reaches over all
                    ground[:, 2] = z
                    inside |= boxes[i : i + 1].contains(ground)[0]
                unit = functional.normalize(label.features.float(), dim=1)
                found.append((unit, heights[label.cells], inside[label.cells].float()))
    if not found:
        raise ConfigError(f"{maps.directory} has no label map of a labelled frame of {recordings[0]} …: name the drives it was made of")
    features, heights, truth = (torch.cat(part) for part in zip(*found, strict=True))
    return features, heights, truth


def average_precision(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> float:
    """Area under precision over recall on `test` of the logistic regression of `train`; each is inputs [K, C], truth [K]."""
    mean, deviation = train[0].mean(0), train[0].std(0) + 1e-6
    weight = torch.zeros(train[0].shape[1] + 1, requires_grad=True)

    def score(inputs: Tensor) -> Tensor:
        return (inputs - mean) / deviation @ weight[1:] + weight[0]

    optimizer = torch.optim.LBFGS([weight], max_iter=100)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.binary_cross_entropy_with_logits(score(train[0]), train[1]) + 1e-4 * weight[1:].square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    truth = test[1][score(test[0]).detach().argsort(descending=True)]
    precision = truth.cumsum(0) / torch.arange(1, len(truth) + 1)
    return float((precision * truth).sum() / truth.sum())


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("label_maps")
    parser.add_argument("--train", nargs="+", required=True)
    parser.add_argument("--test", nargs="+", required=True)
    parser.add_argument("--class", dest="class_name", default="car")
    parser.add_argument("--rig", default="synthetic")
    parser.add_argument("--frames", type=int, default=4, help="of each drive (default 4)")
    arguments = parser.parse_args(given)
    maps, rig = LabelMaps(Path(arguments.label_maps)), load_rig(arguments.rig)
    train, test = (
        cells_of(maps, find_recordings(bags), rig, arguments.class_name, arguments.frames) for bags in (arguments.train, arguments.test)
    )
    print(f"{len(train[2])} and {len(test[2])} cells, {float(test[2].mean()):.3f} of the latter with a {arguments.class_name}")
    kinds = {"features": [0], "heights": [1], "both": [0, 1]}
    for name, kind in kinds.items():
        inputs = [torch.cat([cells[i] for i in kind], 1) for cells in (train, test)]
        print(f"{name}: average precision {average_precision((inputs[0], train[2]), (inputs[1], test[2])):.3f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
