"""Rays and foreground on the grid against loops, and where cameras put them."""

import math

import pytest
import torch
from ray_example import BOXES, EMPTY, GRID, ORIGIN, boxes, scene

from dualview.geometry.bev_grid import BevGrid
from dualview.supervision.box_cells import object_cells, usable_boxes
from dualview.supervision.ray_config import RayConfig
from dualview.supervision.ray_layout import (
    CameraView,
    RayFans,
    camera_centers,
    camera_fans,
    mean_camera_origin,
    ray_fans,
    ray_layout,
)


def loop_ray(origin, angle, grid, step):
    """Cells of one ray, sample by sample."""
    cells = []
    for k in range(1000):
        radius = k * step * grid.resolution
        x, y = origin[0] + radius * math.cos(angle), origin[1] + radius * math.sin(angle)
        column = math.floor((x - grid.x_min) / grid.resolution)
        row = math.floor((y - grid.y_min) / grid.resolution)
        cell = row * grid.columns + column
        if 0 <= column < grid.columns and 0 <= row < grid.rows and cell not in cells:
            cells.append(cell)
    return cells


@pytest.mark.parametrize("origin", [ORIGIN, (-20.0, 1.0)])  # within the grid, and outside
def test_rays_equal_loops(origin):
    layout = ray_layout(RayFans.full_circle(torch.tensor([origin, ORIGIN])), GRID, 24, 0.5)
    for i in range(24):
        expected = loop_ray(torch.tensor(origin).tolist(), 2 * math.pi * (i + 0.5) / 24, GRID, 0.5)
        assert layout.cells[0, i][layout.valid[0, i]].tolist() == expected
        assert layout.valid[0, i, : len(expected)].all()  # packed to the front


def test_the_published_size_has_a_ray_for_every_cell():
    grid = BevGrid.centered(51.2, 0.8)
    layout = ray_layout(RayFans.full_circle(torch.tensor([[0.0, 0.2]])), grid, 720, 0.5)
    hit = torch.zeros(128 * 128, dtype=torch.bool)
    hit[layout.cells[layout.valid]] = True
    assert hit.all()
    lengths = layout.valid.sum(-1)
    assert 60 <= lengths.min() and lengths.max() <= 128


def test_nearest_ray_of_a_cell():
    layout, _ = scene(EMPTY)
    centers = GRID.cell_centers().flatten(0, 1)
    for cell in range(0, len(centers), 7):
        direction = math.atan2(float(centers[cell, 1]) - ORIGIN[1], float(centers[cell, 0]) - ORIGIN[0])
        gaps = [abs(math.remainder(2 * math.pi * (i + 0.5) / 48 - direction, 2 * math.pi)) for i in range(48)]
        assert gaps[int(layout.nearest[0, cell])] <= min(gaps) + 1e-6


def look(yaw, position, pitch=0.0, focal=50.0, size=(40, 100)):
    """image_from_ego [4, 4] of a camera at `position` (m) that looks along `yaw`, `pitch` rad downwards."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    right = torch.tensor([sin, -cos, 0.0], dtype=torch.float64)
    forward = [cos * math.cos(pitch), sin * math.cos(pitch), -math.sin(pitch)]
    forward = torch.tensor(forward, dtype=torch.float64)
    down = torch.linalg.cross(forward, right)
    camera_from_ego = torch.eye(4, dtype=torch.float64)
    camera_from_ego[:3, :3] = torch.stack([right, down, forward])
    camera_from_ego[:3, 3] = -camera_from_ego[:3, :3] @ torch.tensor(position, dtype=torch.float64)
    intrinsics = torch.eye(4, dtype=torch.float64)
    intrinsics[:2, :3] = torch.tensor([[focal, 0, size[1] / 2], [0, focal, size[0] / 2]])
    return intrinsics @ camera_from_ego


PLACES = [(1.5, 0.0, 1.6), (-1.0, 0.5, 1.5), (0.0, -0.8, 1.4)]
YAWS = [0.0, 3.0, -1.2]


def view(mask=None, moved=None):
    matrix = torch.stack([look(y, p) for y, p in zip(YAWS, PLACES, strict=True)])[None]
    if moved is not None:
        matrix = matrix @ torch.linalg.inv(moved)
    return CameraView(matrix, mask, (40, 100))


def test_camera_centres_and_their_mean():
    assert torch.allclose(camera_centers(view())[0], torch.tensor(PLACES, dtype=torch.float64))
    mask = torch.tensor([[True, False, True]])
    broken = view(mask)
    broken.image_from_working[0, 1] = torch.nan
    expected = torch.tensor([[0.75, -0.4]], dtype=torch.float64)
    assert torch.allclose(mean_camera_origin(broken), expected)
    nothing = view(torch.zeros(1, 3, dtype=torch.bool))
    assert mean_camera_origin(nothing).eq(0).all()


def test_a_camera_fan_covers_its_field_of_view_in_mirrored_frames_too():
    for mirrored in (False, True):
        moved = torch.eye(4, dtype=torch.float64)
        moved[:2, :2] *= 1.05
        moved[0, 3] = 2.0
        if mirrored:
            moved[1] *= -1
        fans = camera_fans(view(moved=moved))
        half = math.atan(1.0)  # 50 px beside the axis at a focal length of 50 px
        assert torch.allclose(fans.width, torch.full((1, 3), 2 * half, dtype=torch.float64))
        for n, yaw in enumerate(YAWS):
            middle = float(fans.start[0, n]) + half
            assert abs(math.remainder(middle - (-yaw if mirrored else yaw), 2 * math.pi)) < 1e-9
            place = moved @ torch.tensor([*PLACES[n], 1.0], dtype=torch.float64)
            assert torch.allclose(fans.origin[0, n], place[:2])


def test_rays_of_a_missing_camera_have_no_cells():
    mask = torch.tensor([[True, False, True]])
    fans = ray_fans(RayConfig(origin="per_camera"), 1, view(mask), torch.device("cpu"))
    layout = ray_layout(fans, GRID, 30)
    assert layout.cells.shape[1] == 30
    assert not layout.valid[0, 10:20].any() and layout.valid[0, :10].any(-1).all()
    assert ((layout.nearest < 10) | (layout.nearest >= 20)).all()


def test_cameras_are_asked_for_when_they_are_needed():
    with pytest.raises(ValueError, match="CameraView"):
        ray_fans(RayConfig(), 1, None, torch.device("cpu"))
    fans = ray_fans(RayConfig(origin="frame"), 2, None, torch.device("cpu"))
    assert fans.origin.eq(0).all() and fans.origin.shape == (2, 1, 2)


def test_foreground_equals_loops():
    found = object_cells(BOXES, GRID)
    for row in range(GRID.rows):
        for column in range(GRID.columns):
            expected = 0
            for m, box in enumerate(BOXES.double().tolist()):
                x, y = GRID.x_min + column + 0.5 - box[0], GRID.y_min + row + 0.5 - box[1]
                along = x * math.cos(box[6]) + y * math.sin(box[6])
                across = -x * math.sin(box[6]) + y * math.cos(box[6])
                own = abs(x) <= 0.5 and abs(y) <= 0.5
                if own or (abs(along) <= box[3] / 2 and abs(across) <= box[4] / 2):
                    expected = m + 1
            assert found[row, column] == expected
    assert (found == 2).sum() == 1  # 0.3 m, between cell centres


def test_the_smaller_box_keeps_its_cells():
    pedestrian, bus = (0.6, 0.6, 0.7, 0.7, 0.0), (0.0, 0.0, 8.0, 4.0, 0.0)
    for order, number in (((pedestrian, bus), 1), ((bus, pedestrian), 2)):
        found = object_cells(boxes(*order), GRID)
        assert found[6, 8] == number and (found == 3 - number).sum() == 31


def test_boxes_outside_and_broken_ones():
    outside = boxes(
        (30.0, 0.0, 4.0, 2.0, 0.0),
        (8.5, 0.5, 3.0, 1.0, 0.0),
        (0.0, 0.0, 0.0, 1.0, 0.0),
        (math.nan, 0, 1, 1, 0),
    )
    found = object_cells(outside, GRID)
    assert found.unique().tolist() == [0, 2] and found[6, 15] == 2  # what reaches in counts
    assert usable_boxes(outside, GRID).tolist() == [False, False, False, False]
    assert usable_boxes(BOXES, GRID).all() and object_cells(EMPTY, GRID).eq(0).all()


@pytest.mark.parametrize(
    "wrong", [{"region": 2}, {"negatives": 0}, {"sigma": 0.0}, {"weighted_weight": -1.0}]
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RayConfig(**wrong)


def test_rays_that_teach_nothing_are_refused():
    with pytest.raises(ValueError, match="weight 0: turn rays off"):
        RayConfig(contrastive_weight=0.0, weighted_weight=0.0)
