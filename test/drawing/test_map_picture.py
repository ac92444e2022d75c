"""Strips of label maps: what lies where, and what the colours say."""

from __future__ import annotations

import numpy as np
import torch

from dualview.drawing.map_picture import MapView, cosine_error, label_colors, map_picture
from dualview.drawing.palette import PANEL
from dualview.scene.frame import SurroundFrame

HEADER, GAP, SIDE = 26, 4, 160


def frame() -> SurroundFrame:
    """One camera that looks ahead."""
    ahead = torch.tensor([[0.0, 0, 1, 1], [-1, 0, 0, 0], [0, -1, 0, 1], [0, 0, 0, 1]])[None]
    return SurroundFrame(
        0, torch.full((1, 3, 40, 60), 200, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64), torch.eye(3)[None], ahead,
        torch.eye(4, dtype=torch.float64)[None], torch.eye(4, dtype=torch.float64), torch.ones(1, dtype=torch.bool),
    )  # fmt: skip


def panel(picture: np.ndarray, index: int) -> np.ndarray:
    x = 60 + GAP + index * (SIDE + GAP)
    return picture[HEADER : HEADER + SIDE, x : x + SIDE]


def test_left_is_left_and_forward_is_up_and_the_same_is_black() -> None:
    torch.manual_seed(0)
    label = torch.randn(6, 8, 8)
    known = torch.zeros(8, 8, dtype=torch.bool)
    known[6:, 5:] = True  # far to the left, ahead
    colors = label_colors(label.flatten(1).T)
    assert colors is not None
    predicted = 3 * label  # lengths don't matter
    picture = map_picture(
        MapView(frame(), label, known, predicted, torch.ones(8, 8, dtype=torch.bool)), colors
    )
    assert picture.shape == (HEADER + SIDE, 60 + GAP + 3 * (SIDE + GAP), 3)
    assert (picture[HEADER : HEADER + 40, :60] == 200).all()
    shown, found, error = (panel(picture, i) for i in range(3))
    grey = (shown == np.array(PANEL)).all(-1)
    cell = SIDE // 8
    assert not grey[: 3 * cell, : 2 * cell].any() and grey[3 * cell :].all() and grey[:, 2 * cell :].all()
    assert np.array_equal(shown[~grey], found[~grey])
    assert not (found == np.array(PANEL)).all(-1).any()  # predicted everywhere
    assert error[~grey].max() < 10 and (error[grey] == np.array(PANEL)).all()
    alone = map_picture(MapView(frame(), label, known), colors)
    assert alone.shape[1] == 60 + GAP + SIDE + GAP
    assert np.array_equal(panel(alone, 0), shown)


def test_the_error_is_the_cosine_distance() -> None:
    label = torch.zeros(2, 1, 3)
    label[0] = 2.0
    predicted = torch.tensor([[[5.0, 0.0, -1.0]], [[0.0, 4.0, 0.0]]])
    torch.testing.assert_close(cosine_error(predicted, label), torch.tensor([[0.0, 1.0, 2.0]]))
    assert label_colors(torch.ones(9, 4)) is None
