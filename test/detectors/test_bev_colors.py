"""Colours of BEV maps: principal components, fixed for a checkpoint."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from detector_frames import small_config, surround_frame

from dualview.detectors.bev_colors import COLORS_KEY, BevColors
from dualview.detectors.checkpoint import (
    build_detector,
    export_half,
    load_checkpoint,
    read_metadata,
    save_checkpoint,
)
from dualview.detectors.oracle import OracleConfig
from dualview.detectors.output import BevMap
from dualview.errors import WeightsError
from dualview.geometry.bev_grid import BevGrid
from dualview.ros.bev_image import BevPainter


def features(count: int = 4000, channels: int = 12) -> torch.Tensor:
    """Three strong directions among weak ones."""
    torch.manual_seed(0)
    strength = torch.tensor([9.0, 5.0, 3.0] + [0.1] * (channels - 3))
    turn = torch.linalg.qr(torch.randn(channels, channels)).Q
    return (torch.randn(count, channels) * strength) @ turn.T + 4.0


def test_the_basis_is_that_of_a_singular_value_decomposition() -> None:
    values = features()
    colors = BevColors.fit(values)
    assert colors is not None and colors.channels == 12
    centered = values - values.mean(0)
    _, singular, directions = torch.linalg.svd(centered, full_matrices=False)
    torch.testing.assert_close((colors.basis @ directions[:3].T).abs(), torch.eye(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(colors.spread, singular[:3] / len(values) ** 0.5, rtol=1e-3, atol=0)
    assert (colors.basis.gather(1, colors.basis.abs().argmax(1, keepdim=True)) > 0).all()
    again = BevColors.fit(values)
    assert again is not None and torch.equal(colors.basis, again.basis)


def test_a_cell_has_its_colour_whatever_is_around() -> None:
    """What refitted or normalised colours don't keep: the same vector, the same colour."""
    colors = BevColors.fit(features())
    assert colors is not None
    cell = torch.linspace(-3, 3, 12)
    quiet, loud = torch.zeros(12, 6, 8), 40 * torch.randn(12, 6, 8)
    quiet[:, 2, 3] = loud[:, 2, 3] = cell
    assert np.array_equal(colors.paint(quiet)[2, 3], colors.paint(loud)[2, 3])
    painter = BevPainter("any", colors)
    grid, valid = BevGrid(-4.0, -3.0, 1.0, 8, 6), torch.ones(6, 8, dtype=torch.bool)
    valid[0] = False
    picture = painter.paint(BevMap(loud, grid, valid))
    assert np.array_equal(picture[:-1], colors.paint(loud)[:0:-1])  # left is up
    assert (picture[-1].astype(float) <= 0.3 * colors.paint(loud)[0] + 1).all()  # what no camera sees is dark
    other = painter.paint(
        BevMap(torch.randn(5, 6, 8), grid, valid)
    )  # another detector's map: the drawn basis
    assert other.shape == (6, 8, 3)


def test_places_keep_their_colours_while_the_vehicle_drives_and_turns() -> None:
    """A still world, seen in the ego frame of each moment, painted as the node does."""
    grid = BevGrid(-32.0, -32.0, 1.0, 64, 64)
    directions = torch.linspace(0, 3, 12, dtype=torch.float64)
    waves = 0.15 * torch.stack([directions.cos(), directions.sin()], 1)

    def world(xy: torch.Tensor) -> torch.Tensor:
        return (xy @ waves.T + directions).sin()

    centers = grid.cell_centers().double()
    places = 20 + 26 * torch.rand(200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    painter, pictures = None, []
    for seconds in range(6):
        yaw = torch.tensor(0.3 * seconds, dtype=torch.float64)
        turn = torch.stack([yaw.cos(), -yaw.sin(), yaw.sin(), yaw.cos()]).view(2, 2)
        ego = torch.tensor([32.0 + 2.3 * seconds, 33.0], dtype=torch.float64)
        features = world(centers @ turn.T + ego).permute(2, 0, 1).float()
        painter = painter or BevPainter("any", BevColors.fit(features.flatten(1).T))
        valid = torch.ones(64, 64, dtype=torch.bool)
        picture = torch.from_numpy(painter.paint(BevMap(features, grid, valid))).flip(0)
        column, row = ((places - ego) @ turn + 32).floor().long().unbind(1)
        pictures.append(picture[row, column].float())
    colors = torch.stack(pictures)
    assert float(colors.std(1).mean()) > 30  # places differ,
    assert float((colors - colors[0]).abs().mean()) < 8  # and each stays as it is, but for the cells' edges
    assert float((colors[-1] - colors[0]).abs().mean()) < 8  # nothing drifts


def test_a_detectors_map_keeps_its_colours_in_the_world(tmp_path) -> None:
    """A still world of label maps goes by in steps of two cells; the checkpoint's colours are those of its first frame."""
    config = small_config(oracle=OracleConfig(lidar=None, map_channels=6))
    detector = build_detector(config, seed=1).eval()
    random = torch.Generator().manual_seed(0)
    world = torch.nn.functional.avg_pool2d(torch.randn(1, 6, 26, 40, generator=random), 3, 1)[0].half()
    inner = slice(6, 18)  # what the edges of the map don't reach

    def step(columns: int) -> torch.Tensor:
        seen = surround_frame(config, seconds=0.2 * columns)
        frame = replace(seen, label_map=world[:, :, columns : columns + 24])
        return detector.step(frame, detector.initial_state())[0].bev.features

    detector.bev_colors = BevColors.fit(step(0)[:, inner, inner].flatten(1).T)
    save_checkpoint(detector, tmp_path / "a.safetensors")
    detector = load_checkpoint(tmp_path / "a.safetensors").eval()
    first = detector.bev_colors.paint(step(0)).astype(float)
    for columns in (2, 4, 6):
        later = detector.bev_colors.paint(step(columns)).astype(float)[inner, 6 : 18 - columns]
        same_place = np.abs(later - first[inner, 6 + columns : 18]).mean()
        same_cell = np.abs(later - first[inner, 6 : 18 - columns]).mean()
        assert same_place < 5 < 40 < same_cell


def test_few_channels_and_nothing_to_see() -> None:
    two = BevColors.fit(torch.randn(50, 2))
    assert two is not None and two.basis.shape == (3, 2) and not two.basis[2].any()
    assert two.paint(torch.randn(2, 4, 4)).shape == (4, 4, 3)
    assert BevColors.fit(torch.ones(50, 8)) is None
    assert BevColors.fit(torch.full((50, 8), torch.nan)) is None
    assert BevColors.fit(torch.zeros(0, 8)) is None


def test_they_travel_beside_the_weights(tmp_path) -> None:
    detector = build_detector(small_config(), seed=2).eval()
    path, half = tmp_path / "a.safetensors", tmp_path / "half.safetensors"
    save_checkpoint(detector, path)
    assert COLORS_KEY not in read_metadata(path) and load_checkpoint(path).bev_colors is None
    frame = surround_frame(detector.config)
    bev = detector.step(frame, detector.initial_state())[0].bev
    detector.bev_colors = BevColors.fit(bev.features.flatten(1).T)
    save_checkpoint(detector, path)
    export_half(path, half)
    for file in (path, half):
        loaded = load_checkpoint(file).bev_colors
        assert loaded is not None
        assert np.array_equal(loaded.paint(bev.features), detector.bev_colors.paint(bev.features))
    other = BevColors.fit(features(channels=32))
    export_half(path, half, other)
    assert torch.allclose(load_checkpoint(half).bev_colors.basis, other.basis)


def test_damaged_colours_are_named() -> None:
    for text in ("", "[1]", '{"mean": [1, 2], "basis": [[1, 0]], "spread": [1]}', '{"mean": "x"}'):
        with pytest.raises(WeightsError, match="colours of the BEV map"):
            BevColors.from_json(text)
