"""The ground's depth at each feature pixel, from the projection alone."""

import math

import pytest
import torch

from dualview.networks.ground_depth import ground_features, inverse_ground_depth


def camera(height: float, pitch: float, focal: float = 100.0) -> torch.Tensor:
    """image_from_working of a camera that looks along x, tilted down by `pitch` rad, `height` m above the ground."""
    down, up = math.sin(pitch), math.cos(pitch)
    camera_from_working = torch.eye(4, dtype=torch.float64)
    camera_from_working[:3, :3] = torch.tensor([[0, -1, 0], [-down, 0, -up], [up, 0, -down]], dtype=torch.float64)
    position = torch.tensor([1.0, 0.0, height], dtype=torch.float64)
    camera_from_working[:3, 3] = -camera_from_working[:3, :3] @ position
    intrinsics = torch.eye(4, dtype=torch.float64)
    intrinsics[:3, :3] = torch.tensor([[focal, 0, 64], [0, focal, 32], [0, 0, 1]], dtype=torch.float64)
    return intrinsics @ camera_from_working


@pytest.mark.parametrize("pitch", [0.0, 0.2, -0.1])
def test_points_of_the_ground_have_its_depth(pitch):
    matrix, size = camera(1.6, pitch), (8, 16)
    inverse = inverse_ground_depth(matrix.float(), (64, 128), size)
    for row, column in ((7, 3), (6, 12), (5, 8)):
        u, v = (column + 0.5) * 8, (row + 0.5) * 8
        depth = 1 / float(inverse[row, column])
        point = torch.linalg.inv(matrix) @ torch.tensor([u * depth, v * depth, depth, 1.0], dtype=torch.float64)
        assert float(point[2]) == pytest.approx(0.0, abs=1e-4)
        projected = matrix @ point
        assert projected[:2] / projected[2] == pytest.approx(torch.tensor([u, v], dtype=torch.float64), abs=1e-3)


def test_the_sky_is_negative_and_the_horizon_nothing():
    inverse = inverse_ground_depth(camera(1.6, 0.0).float(), (64, 128), (64, 1))[:, 0]
    assert bool((inverse[:32] < 0).all()) and bool((inverse[32:] > 0).all())
    assert bool((inverse.diff() > 0).all())  # linear in the row


def test_turning_or_scaling_the_birds_eye_view_changes_nothing():
    """BEV augmentation turns and scales the working frame; what a camera sees stays as deep as it was."""
    matrix = camera(1.6, 0.1)
    turn = torch.eye(4, dtype=torch.float64)
    turn[:2, :2] = 1.05 * torch.tensor([[math.cos(0.4), -math.sin(0.4)], [math.sin(0.4), math.cos(0.4)]])
    turn[2, 2] = 1.05
    augmented = matrix @ torch.linalg.inv(turn)
    plain = ground_features(matrix.float(), (64, 128), (8, 16), 16)
    assert ground_features(augmented.float(), (64, 128), (8, 16), 16) == pytest.approx(plain, abs=1e-4)


def test_shapes_ranges_and_cameras_in_the_ground():
    matrices = torch.stack([camera(1.6, 0.0), camera(-3.0, 0.0)]).float().expand(2, 2, 4, 4)
    features = ground_features(matrices, (64, 128), (8, 16), 12)
    assert features.shape == (2, 2, 12, 8, 16)
    assert bool(features.isfinite().all()) and float(features.abs().max()) <= 1.0
