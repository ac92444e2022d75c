"""How clearly a LiDAR teacher's map shows objects: the mean size of its features, |F| over channels, in the cells of labelled boxes and
beside them.

    python tools/teacher_contrast.py centerpoint-coarse --recipe centerpoint_coarse --bags DRIVES [--frames 10]

RayD3D weighs cells by how far teacher and student disagree there, and TiG-BEV compares what lies in a box: both need a teacher whose
objects stand out, by two to three times, say. "seen": cells without an object that hold a LiDAR point.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from dualview.errors import DualViewError
from dualview.geometry.bev_grid import BevGrid
from dualview.supervision.box_cells import object_cells
from dualview.training.clips import FrameRequest
from dualview.training.data_module import prepare_drives
from dualview.training.lidar_teacher import load_lidar_teacher
from dualview.training.recipe import load_recipe
from dualview.training.samples import FrameDataset


def seen_cells(cloud: Tensor, grid: BevGrid) -> Tensor:
    """bool [Y, X]: cells above or below which a point of `cloud` [P, >=2] (m) lies."""
    place = ((cloud[:, :2] - cloud.new_tensor([grid.x_min, grid.y_min])) / grid.resolution).floor().long()
    inside = ((place >= 0) & (place < torch.tensor([grid.columns, grid.rows]))).all(1)
    seen = torch.zeros(grid.rows, grid.columns, dtype=torch.bool)
    seen[place[inside, 1], place[inside, 0]] = True
    return seen


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", help="checkpoint of a LiDAR detector, by path or by its name in models/")
    parser.add_argument("--recipe", default="centerpoint_coarse", help="whose data section and image size are taken")
    parser.add_argument("--bags", nargs="+", required=True)
    parser.add_argument("--frames", type=int, default=10, help="of each drive (default 10)")
    arguments = parser.parse_args(given)
    if arguments.frames < 1:
        parser.error(f"--frames {arguments.frames}: one frame at least")
    teacher = load_lidar_teacher(arguments.teacher)
    recipe = load_recipe(arguments.recipe, {"data.train": arguments.bags, "augmentation.bev": None})
    drives = prepare_drives(recipe, recipe.detector_config(), print, with_sweeps=True)
    data = FrameDataset(drives, recipe.augmentation, recipe.data, teacher.config.working_from_ego_matrix, teacher.config.sweeps)
    found: dict[str, list[Tensor]] = defaultdict(list)
    for number, drive in enumerate(drives):
        labelled = drive.labelled.nonzero()[0]
        for frame in labelled[:: max(len(labelled) // arguments.frames, 1)][: arguments.frames].tolist():
            sample = data[FrameRequest(number, frame, (0, 0, 0), 0)]
            assert sample.inputs.points is not None
            (cloud,) = sample.inputs.points
            outputs = teacher.outputs([cloud], with_center=False)
            truth = sample.truth.joined(sample.beyond)  # the map's corners are past the range
            size, cells = outputs.bev[0].abs().mean(0), object_cells(truth.boxes, outputs.grid)
            seen = seen_cells(cloud, outputs.grid)
            found["no object"].append(size[cells == 0])
            found["no object, seen"].append(size[(cells == 0) & seen])
            found["any object"].append(size[cells > 0])
            for label, name in enumerate(teacher.config.class_names):
                mine = (truth.labels == label).nonzero()[:, 0] + 1
                found[name].append(size[torch.isin(cells, mine.to(cells))])
    joined = {name: torch.cat(parts) for name, parts in found.items()}
    empty, seen_empty = joined["no object"].mean(), joined["no object, seen"].mean()
    print("| cells | how many | mean size | beside no object | beside no object, seen |\n|---|---|---|---|---|")
    for name, sizes in joined.items():
        if len(sizes):
            mean = sizes.mean()
            print(f"| {name} | {len(sizes)} | {mean:.4g} | {mean / empty:.2f} | {mean / seen_empty:.2f} |")
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except DualViewError as error:
        raise SystemExit(f"error: {error}") from None
