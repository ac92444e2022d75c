import math

import pytest
import torch

from dualview.networks.refinement import Refined
from dualview.supervision.detection_loss import (
    DetectionLossConfig,
    detection_losses,
    focal_loss,
    gaussian_focal_loss,
    layer_losses,
)
from dualview.supervision.ground_truth import GroundTruth
from dualview.supervision.matching import match

CONFIG = DetectionLossConfig(reversible_classes=(1,))
BOXES = torch.tensor(
    [[5.0, 2.0, 1.0, 4.0, 2.0, 1.5, 0.3, 1.0, -1.0], [-8.0, 6.0, 0.5, 1.0, 0.5, 1.0, -2.0, 0.0, 0.5]]
)
TRUTH = GroundTruth(BOXES, torch.tensor([0, 1]))


def perfect(count: int = 5) -> Refined:
    """Predictions of which the first two are the boxes."""
    anchors = torch.full((1, count, 11), 40.0)
    anchors[0, :2, :10] = TRUTH.states()
    logits = torch.full((1, count, 3), -20.0)
    logits[0, 0, 0] = logits[0, 1, 1] = 20.0
    quality = torch.full((1, count, 2), 20.0)
    return Refined(anchors, logits, quality)


def losses(layer: Refined, config: DetectionLossConfig = CONFIG) -> dict[str, torch.Tensor]:
    return layer_losses(layer, match(layer.class_logits, layer.anchors, [TRUTH], config.matching), config)


def test_perfect_predictions_cost_nothing() -> None:
    for name, value in losses(perfect()).items():
        assert value < 1e-5, name


def test_box_loss_is_the_weighted_distance_over_the_boxes() -> None:
    layer = perfect()
    layer.anchors[0, 0, 0] += 3.0
    layer.anchors[0, 0, 9] += 2.0  # vy
    layer.anchors[0, :, 10] = 99.0  # vertical velocity is nobody's business
    assert losses(layer)["box"].item() == pytest.approx(0.25 * (2 * 3.0 + 1 * 2.0) / 2, rel=1e-5)


def test_reversible_class_may_point_backwards() -> None:
    for index, costs in ((1, False), (0, True)):
        layer = perfect()
        layer.anchors[0, index, 6:8] *= -1
        terms = losses(layer)
        assert (terms["box"] > 0.1) == costs
        assert (terms["yawness"] > 1.0) == costs, "quality calls it right, the heading is wrong"


def test_unsure_predictions_learn_no_box_but_still_divide() -> None:
    layer = perfect()
    layer.class_logits[0, 0] = math.log(0.04 / 0.96)
    layer.anchors[0, :2, 0] += 1.0
    terms = losses(layer)
    assert terms["box"].item() == pytest.approx(0.25 * 2 * 1.0 / 2, rel=1e-5), "one of two counts, two divide"


def test_centerness_target_passes_gradient_only_if_asked() -> None:
    for attached in (False, True):
        layer = perfect()
        anchors = layer.anchors.clone()
        anchors[0, 0, 0] += 1.0
        anchors.requires_grad_()
        config = DetectionLossConfig(attached_centerness_target=attached)
        terms = losses(Refined(anchors, layer.class_logits, layer.quality), config)
        expected = torch.nn.functional.softplus(torch.tensor(20.0)) - 20 * math.exp(-1.0)
        assert terms["centerness"].item() == pytest.approx(float(expected) / 2, rel=1e-4)
        assert terms["centerness"].requires_grad == attached
        if attached:
            assert torch.autograd.grad(terms["centerness"], anchors)[0][0, 0, 0] != 0


def test_unknown_velocity_has_no_loss() -> None:
    boxes = BOXES.clone()
    boxes[0, 7:] = float("nan")
    truth = GroundTruth(boxes, TRUTH.labels)
    layer = perfect()
    layer.anchors[0, 0, 8:10] = 50.0
    found = match(layer.class_logits, layer.anchors, [truth], CONFIG.matching)
    terms = layer_losses(layer, found, CONFIG)
    assert all(value.isfinite() for value in terms.values()) and terms["box"] < 1e-5


def test_without_any_box_only_the_background_is_learned() -> None:
    layer = perfect()
    empty = GroundTruth(torch.zeros(0, 9), torch.zeros(0, dtype=torch.int64))
    terms, _ = detection_losses([layer, layer], [empty], CONFIG)
    assert terms["layer0/class"] > 1.0
    assert all(terms[f"layer{i}/{name}"] == 0 for i in (0, 1) for name in ("box", "centerness", "yawness"))


def test_focal_losses_are_their_formulas() -> None:
    logits = torch.tensor([[0.3, -1.2]])
    p = logits.sigmoid()[0]
    expected = -0.25 * (1 - p[0]) ** 2 * p[0].log() - 0.75 * p[1] ** 2 * (1 - p[1]).log()
    assert focal_loss(logits, torch.tensor([0]), 0.25, 2.0).item() == pytest.approx(expected.item(), rel=1e-5)
    background = -(0.75 * p**2 * (1 - p).log()).sum()
    assert focal_loss(logits, torch.tensor([2]), 0.25, 2.0).item() == pytest.approx(
        background.item(), rel=1e-5
    )
    value = gaussian_focal_loss(torch.tensor([0.7, 0.4]), torch.tensor([1.0, 0.0])).item()
    assert value == pytest.approx(-math.log(0.7) * 0.09 - math.log(0.6) * 0.16, rel=1e-5)
