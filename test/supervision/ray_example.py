"""A small scene for the ray tests: a grid, an origin off its middle, three boxes, random maps."""

import torch

from dualview.geometry.bev_grid import BevGrid
from dualview.supervision.box_cells import object_cells
from dualview.supervision.ray_config import RayConfig
from dualview.supervision.ray_layout import RayFans, ray_layout

GRID = BevGrid(-8.0, -6.0, 1.0, 16, 12)
ORIGIN = (0.7, -0.3)
CONFIG = RayConfig(ray_count=48, origin="frame", sigma=3.0)


def boxes(*rows):
    """Boxes [n, 9] of (x, y, length, width, yaw) in m and rad."""
    return torch.tensor(
        [[x, y, 0.0, length, width, 1.5, yaw, 0.0, 0.0] for x, y, length, width, yaw in rows]
    ).view(-1, 9)


BOXES = boxes((4.2, 1.3, 4.0, 2.0, 0.4), (-4.6, -3.4, 0.3, 0.3, 1.0), (-2.4, 4.4, 2.4, 1.2, -0.8))
EMPTY = boxes()


def scene(*all_boxes):
    """(layout, objects) of a batch with these boxes."""
    origin = torch.tensor([ORIGIN]).expand(len(all_boxes), 2)
    layout = ray_layout(RayFans.full_circle(origin), GRID, CONFIG.ray_count, CONFIG.ray_step)
    return layout, torch.stack([object_cells(b, GRID) for b in all_boxes])


def random_maps(batch, channels=6, seed=0, dtype=torch.float64):
    """(student, teacher), both waiting for gradients."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(2, batch, channels, GRID.rows, GRID.columns, generator=generator, dtype=dtype)
    return maps[0].clone().requires_grad_(), maps[1].clone().requires_grad_()
