import itertools

import pytest
import torch

from dualview.supervision.ground_truth import GroundTruth
from dualview.supervision.matching import (
    MatchingConfig,
    box_cost,
    classification_cost,
    match,
    target_states,
)

CONFIG = MatchingConfig(class_dimension_weights={2: (2.0,) * 6 + (0.0, 0.0, 1.0, 1.0)})


def truth(count: int, seed: int = 0) -> GroundTruth:
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.randn(count, 9, generator=generator)
    boxes[:, :2] *= 15
    boxes[:, 3:6] = boxes[:, 3:6].abs() + 0.5
    return GroundTruth(boxes, torch.randint(0, 3, (count,), generator=generator))


def predictions(count: int = 6, batch: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(9)
    states = torch.randn(batch, count, 11, generator=generator)
    states[..., :2] *= 15
    return torch.randn(batch, count, 3, generator=generator), states


def test_no_other_assignment_is_cheaper() -> None:
    logits, states = predictions()
    boxes = truth(4)
    found = match(logits, states, [boxes], CONFIG)
    targets, weights = target_states(boxes, CONFIG)
    cost = classification_cost(logits[0], boxes.labels, CONFIG) + box_cost(
        states[0, :, :10], targets, weights, CONFIG
    )
    best = min(
        float(sum(cost[p, g] for g, p in enumerate(order))) for order in itertools.permutations(range(6), 4)
    )
    prediction, box = found.pairs[0]
    assert float(cost[prediction, box].sum()) == pytest.approx(best, abs=1e-4)
    assert sorted(box.tolist()) == list(range(4)) and found.matched.sum() == 4
    torch.testing.assert_close(found.box_target[0, prediction], targets[box])
    assert (found.class_target[0][~found.matched[0]] == 3).all()


def test_samples_without_boxes_match_nothing() -> None:
    logits, states = predictions(batch=2)
    found = match(logits, states, [truth(0), truth(2)], CONFIG)
    assert found.matched.sum(1).tolist() == [0, 2]


def test_more_boxes_than_predictions() -> None:
    logits, states = predictions(count=3)
    found = match(logits, states, [truth(5)], CONFIG)
    assert found.matched.all()


def test_a_box_of_unknown_velocity_is_matched_by_place() -> None:
    """The published code lets it fall to any prediction."""
    logits, states = predictions()
    boxes = truth(3)
    boxes.boxes[1, 7:] = float("nan")
    states[0, 4, :3] = boxes.boxes[1, :3]
    found = match(logits, states, [boxes], CONFIG)
    prediction = found.pairs[0][0][found.pairs[0][1] == 1]
    assert prediction.tolist() == [4]
    assert found.box_target.isfinite().all()
    assert not found.box_weights[0, 4, 8:].any() and found.box_weights[0, 4, :6].all()


def test_class_weights_replace_the_common_ones() -> None:
    boxes = truth(6)
    boxes.labels[:] = torch.tensor([0, 2, 1, 2, 0, 1])
    boxes.boxes[1, 7] = float("nan")
    _, weights = target_states(boxes, CONFIG)
    assert weights[0].tolist() == [1.0] * 10
    assert weights[3].tolist() == [2.0] * 6 + [0.0, 0.0, 1.0, 1.0]
    assert weights[1].tolist() == [2.0] * 6 + [0.0, 0.0, 0.0, 1.0], "an unknown number never counts"
