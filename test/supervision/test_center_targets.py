"""Targets of the centre head: a map that says just what the targets say decodes to the boxes they came from."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dualview.geometry.bev_grid import BevGrid
from dualview.networks.center_head import TaskPrediction, decode_task
from dualview.supervision.center_targets import CenterLossConfig, TaskTargets, center_losses, center_targets
from dualview.supervision.ground_truth import GroundTruth

GRID = BevGrid.centered(12.8, 0.8)
TASKS = ((0, 1), (2,))


def truth(boxes: list[list[float]], labels: list[int]) -> GroundTruth:
    return GroundTruth(torch.tensor(boxes).reshape(-1, 9), torch.tensor(labels, dtype=torch.int64))


def as_predicted(target: TaskTargets) -> TaskPrediction:
    """The maps of a network that knows the answer."""
    batch, _, rows, columns = target.heatmap.shape
    numbers = torch.zeros(batch, 10, rows * columns)
    for sample, cells in enumerate(target.cell):
        for slot, cell in enumerate(cells.tolist()):
            if target.valid[sample, slot]:
                numbers[sample, :, cell] = target.numbers[sample, slot]
    parts = numbers.view(batch, 10, rows, columns).split((2, 1, 3, 2, 2), 1)
    return TaskPrediction(target.heatmap.logit(1e-6), *parts)


def between(low: float, high: float) -> st.SearchStrategy:
    return st.floats(low, high, width=32, allow_subnormal=False)


place = between(-12.75, 12.75)
box = st.tuples(
    place, place, between(-3, 3), *[between(0.25, 12)] * 3, between(-3.125, 3.125), *[between(-20, 20)] * 2
)


@settings(max_examples=60, deadline=None)
@given(boxes=st.lists(st.tuples(box, st.sampled_from([0, 1, 2])), min_size=1, max_size=6))
def test_what_is_encoded_is_what_is_decoded(boxes: list) -> None:
    cells = {(label > 1, int((b[0] + 12.8) // 0.8), int((b[1] + 12.8) // 0.8)) for b, label in boxes}
    if len(cells) < len(boxes):
        return  # a cell of a task holds one box
    given_truth = truth([list(b) for b, _ in boxes], [label for _, label in boxes])
    targets = center_targets([given_truth], TASKS, GRID, CenterLossConfig())
    for task, target in zip(TASKS, targets, strict=True):
        wanted = {tuple(b): label for b, label in boxes if label in task}
        (found,) = decode_task(as_predicted(target), GRID, max(len(wanted), 1), 0.999)
        assert len(found.scores) == len(wanted)
        for state, label in zip(found.boxes, found.labels.tolist(), strict=True):
            near = min(wanted, key=lambda w: (state - torch.tensor(w)).abs().max())
            torch.testing.assert_close(state, torch.tensor(near), atol=1e-3, rtol=0)
            assert task[label] == wanted[near]


def test_a_box_without_volume_or_outside_costs_nothing() -> None:
    """A label of height 0 once made a loss of 1e38."""
    car, flat = [2.0, 1.0, 0.0, 4.0, 2.0, 1.5, 0.0, 0.0, 0.0], [-5.0, 1.0, 0.0, 4.0, 2.0, 0.0, 0.0, 0.0, 0.0]
    thin, far = [5.0, 1.0, 0.0, 4.0, 0.0, 1.5, 0.0, 0.0, 0.0], [20.0, 1.0, 0.0, 4.0, 2.0, 1.5, 0.0, 0.0, 0.0]
    config = CenterLossConfig()
    some = center_targets([truth([car, flat, thin, far], [0, 0, 0, 0])], TASKS, GRID, config)
    assert some[0].valid.sum() == 1 and int((some[0].heatmap == 1).sum()) == 1
    one = center_targets([truth([car], [0])], TASKS, GRID, config)
    prediction = [as_predicted(target) for target in one]
    losses, wanted = center_losses(prediction, some, config), center_losses(prediction, one, config)
    assert losses.keys() == wanted.keys()
    for name, loss in losses.items():
        assert math.isfinite(float(loss)) and float(loss) == pytest.approx(float(wanted[name]), abs=1e-6), name
