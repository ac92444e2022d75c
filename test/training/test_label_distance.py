"""How far the objects of rectangles are: by their depth, or by the usual height of their class."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dualview.geometry.box_projection import project_boxes
from dualview.training.label_distance import label_distance

INTRINSICS = torch.tensor([[400.0, 0, 320], [0, 400, 112], [0, 0, 1]], dtype=torch.float64)
SIZE = (224, 640)


def distance(rectangles: torch.Tensor, height: float, depth: float = torch.nan) -> torch.Tensor:
    count = len(rectangles)
    return label_distance(
        rectangles, torch.full((count,), height), torch.full((count,), depth), INTRINSICS, SIZE[0]
    )


@settings(deadline=None)
@given(
    st.floats(12.0, 120.0), st.floats(-0.6, 0.6), st.floats(1.0, 3.0), st.floats(-3.1, 3.1), st.floats(1.2, 3.0)
)
def test_a_box_of_the_usual_height_is_where_it_is(
    far: float, bearing: float, length: float, yaw: float, height: float
) -> None:
    """Camera 1.6 m above the road, looking along x; a box stands on the road. Its near edge is taller than its middle, and of a low box the
    far edge is seen over the near one, so it seems nearer, by one or two times half its diagonal."""
    camera_from_working = torch.tensor([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]).double()
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = INTRINSICS
    ahead, left = far, far * bearing
    box = torch.tensor([[ahead, left, height / 2 - 1.6, length, length, height, yaw]], dtype=torch.float64)
    seen = project_boxes(box, matrix @ camera_from_working, SIZE)
    assert seen.valid.all()
    true = (ahead**2 + left**2) ** 0.5
    half = length / 2**0.5
    assert true - 2.5 * half <= distance(seen.rectangles, height).item() <= true + half
    by_depth = distance(seen.rectangles, height, ahead).item()
    assert abs(by_depth - true) < half


def test_what_cannot_be_told() -> None:
    cut = torch.tensor([[300.0, 0, 340, 40], [300.0, 150, 340, 224]])
    assert distance(cut, 1.7).isnan().all(), "the border cuts them: their height says nothing"
    assert distance(cut, 1.7, 30.0).isfinite().all(), "their depth does"
    inside = torch.tensor([[310.0, 100, 330, 117]])
    assert distance(inside, torch.nan).isnan().all()
    assert distance(inside, 1.7).item() == pytest.approx(40.0)
