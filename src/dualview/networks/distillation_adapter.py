"""Layers between a student's and a teacher's bird's-eye-view map, in training only.

They are no part of the student: they live beside it in the training module, so its checkpoint and its cost are those
of the plain network.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from dualview.geometry.bev_grid import BevGrid


class DistillationAdapters(nn.Module):
    """Student channels -> teacher channels, one adapter for each method that asks for it.

    embed: 1x1 convolution of keypoint features, for TiG-BEV's inter-channel term (arXiv 2212.13979, as
    published). imitate: two convolutions of the whole map, for RayD3D (arXiv 2603.07493, "two convolutional
    layers"; kernel sizes are this project's choice): 3x3, normalisation, ReLU, 1x1.
    """

    def __init__(
        self, student_channels: int, teacher_channels: int, embed: bool = True, imitate: bool = True
    ) -> None:
        super().__init__()
        self.embed = nn.Conv2d(student_channels, teacher_channels, 1) if embed else None
        self.imitate = (
            nn.Sequential(
                nn.Conv2d(student_channels, teacher_channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(teacher_channels),
                nn.ReLU(inplace=True),
                nn.Conv2d(teacher_channels, teacher_channels, 1),
            )
            if imitate
            else None
        )


def resample_bev(bev: Tensor, source: BevGrid, target: BevGrid) -> Tensor:
    """A BEV map [B, C, Y, X] on another grid, [B, C, Y', X'], bilinear between cell centres; itself if the grids
    agree. Raises ValueError if `target` reaches more than half a source cell beyond `source`.
    """
    if tuple(bev.shape[-2:]) != (source.rows, source.columns):
        raise ValueError(
            f"a BEV map of {tuple(bev.shape[-2:])} cells isn't on {source}: give the map's own grid"
        )
    same = (source.columns, source.rows) == (
        target.columns,
        target.rows,
    ) and source.resolution == target.resolution
    if same and (source.x_min, source.y_min) == (target.x_min, target.y_min):
        return bev
    beyond = max(
        source.x_min - target.x_min,
        source.y_min - target.y_min,
        target.x_max - source.x_max,
        target.y_max - source.y_max,
    )
    if beyond > source.resolution / 2:
        raise ValueError(
            f"the teacher's map reaches {beyond:.2f} m beyond the student's ({target} and {source}), where the student sees "
            "nothing: use a teacher with the student's range"
        )
    location = 2 * source.normalized(target.cell_centers().to(bev.device)) - 1
    location = location.to(bev).expand(len(bev), -1, -1, -1)
    return functional.grid_sample(bev, location, padding_mode="border", align_corners=False)
