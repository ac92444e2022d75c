"""Class logits that instances bring along: where they are read, and that an untrained decoder hands them on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dualview.detectors.dual_view import DualView
from dualview.detectors.presets import preset_config
from dualview.geometry.bev_grid import BevGrid
from dualview.networks.box_state import STATE_SIZE
from dualview.networks.center_head import TaskPrediction
from dualview.networks.class_evidence import FLOOR, ClassEvidence

GRID = BevGrid.centered(8.0, 1.0)


def task(heatmap: torch.Tensor) -> TaskPrediction:
    rest = [torch.zeros(len(heatmap), c, *heatmap.shape[2:]) for c in (2, 1, 3, 2, 2)]
    return TaskPrediction(heatmap, *rest)


def anchors(*places: tuple[float, float]) -> torch.Tensor:
    states = torch.zeros(1, len(places), STATE_SIZE)
    states[0, :, :2] = torch.tensor(places)
    return states


def test_classes_come_in_the_order_of_the_labels_whatever_the_tasks() -> None:
    heat = torch.arange(3.0).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    evidence = ClassEvidence.of([task(heat[:, :1]), task(heat[:, 1:])], ((2,), (0, 1)), GRID)
    assert evidence.at(anchors((0.0, 0.0)))[0, 0].tolist() == pytest.approx([1.0, 2.0, 0.0], abs=1e-5)


def test_a_cell_is_read_at_its_centre_and_between_cells_in_proportion() -> None:
    heat = torch.full((1, 1, 16, 16), FLOOR)
    heat[0, 0, 9, 4] = 3.0  # y 1.5 m, x -3.5 m
    found = ClassEvidence.of([task(heat)], ((0,),), GRID).at(
        anchors((-3.5, 1.5), (-3.0, 1.5), (-3.5, 2.5), (1.5, -3.5))
    )
    assert found[0, :, 0].tolist() == pytest.approx([3.0, (3.0 + FLOOR) / 2, FLOOR, FLOOR], abs=1e-5)


def test_off_the_map_nothing_is_likely() -> None:
    heat = torch.full((1, 2, 16, 16), 5.0)
    found = ClassEvidence.of([task(heat)], ((0, 1),), GRID).at(anchors((30.0, 0.0), (0.0, -9.0)))
    assert torch.equal(found, torch.full((1, 2, 2), FLOOR))


def test_evidence_needs_a_heatmap_of_every_class() -> None:
    config = preset_config("dualview-tiny")
    head = replace(config.center_head, tasks=((0, 1, 2),))
    with pytest.raises(
        ValueError, match=r"evidence needs a heatmap of every class: center_head\.tasks holds 3 of 10"
    ):
        replace(config, center_head=head)


def test_untrained_layers_hand_on_boxes_and_evidence() -> None:
    torch.manual_seed(0)
    detector = DualView(preset_config("dualview-tiny")).eval()
    for layer in detector.decoder.layers:
        features, embedding = torch.randn(2, 1, 5, 128).unbind()
        boxes, known = torch.randn(1, 5, STATE_SIZE), torch.randn(1, 5, 10)
        boxes[..., -1] = 0.0
        refined = layer.refinement(features, boxes, embedding, 0.5, evidence=known)
        assert torch.equal(refined.anchors, boxes)
        assert torch.equal(refined.class_logits, known)
