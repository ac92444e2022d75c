"""BEVFormer's weights: what counts in matching and loss, and what is kept of a detector's own settings."""

import torch

from dualview.networks.refinement import Refined
from dualview.supervision.detection_loss import DetectionLossConfig, detection_losses
from dualview.supervision.ground_truth import GroundTruth
from dualview.supervision.matching import MatchingConfig
from dualview.supervision.query_loss import query_loss

BASE = DetectionLossConfig(
    matching=MatchingConfig(class_dimension_weights={1: (2.0,) * 10}),
    class_threshold=0.05,
    reversible_classes=(0,),
)


def test_the_loss_is_the_weighted_distance() -> None:
    """One query, sure of its class and off by one in a number: a quarter of that number's weight."""
    config = query_loss(BASE)
    assert config.reversible_classes == (0,) and config.class_threshold == 0.0
    box = torch.tensor([[5.0, 1.0, 0.0, 4.0, 2.0, 1.5, 0.0, 1.0, 2.0]])
    state = GroundTruth(box, torch.tensor([0])).states()
    expected = {0: 0.25, 3: 0.25, 6: 0.25, 8: 0.05}
    for label, heading in ((0, 0.25), (1, 0.0)):
        truth = GroundTruth(box, torch.tensor([label]))
        logits = torch.full((1, 1, 2), -20.0)
        logits[0, 0, label] = 20.0
        for number, cost in (expected | {6: heading}).items():
            off = state.clone()
            off[0, number] += 1
            anchors = torch.cat([off, torch.zeros(1, 1)], 1)[None]
            losses, _ = detection_losses([Refined(anchors, logits, None)], [truth], config)
            assert abs(float(losses["layer0/box"]) - cost) < 1e-5, (label, number)
            assert float(losses["layer0/class"]) < 1e-5 and set(losses) == {"layer0/box", "layer0/class"}


def test_velocity_does_not_decide_who_answers() -> None:
    """The query at the box's place gets it although the other one knows its velocity."""
    config = query_loss(BASE)
    truth = GroundTruth(torch.tensor([[5.0, 1.0, 0.0, 4.0, 2.0, 1.5, 0.0, 9.0, 9.0]]), torch.tensor([0]))
    there = torch.cat([truth.states(), torch.zeros(1, 1)], 1)
    near, fast = there.clone(), there.clone()
    near[0, 8:10] = 0.0
    fast[0, 0] += 3.0
    layer = Refined(torch.cat([fast, near])[None], torch.zeros(1, 2, 2), None)
    _, (found,) = detection_losses([layer], [truth], config)
    assert found.matched[0].tolist() == [False, True]
