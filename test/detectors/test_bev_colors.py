"""Colours of BEV maps: principal components, fixed for a checkpoint."""

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
    other = painter.paint(BevMap(torch.randn(5, 6, 8), grid, valid))  # another detector's map: the drawn basis
    assert other.shape == (6, 8, 3)


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
