"""Instances that say the same as a better one: who stays, and whose id goes on."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dualview.networks.box_state import STATE_SIZE
from dualview.networks.box_suppression import group_by_distance, suppress_by_distance
from dualview.networks.duplicates import find_better, inherit_ids
from dualview.networks.refinement import Refined


def refined(places: list[tuple[float, float]], labels: list[int], scores: list[float]) -> Refined:
    """Boxes of 4 x 2 m."""
    anchors = torch.zeros(1, len(places), STATE_SIZE)
    anchors[0, :, :2] = torch.tensor(places)
    anchors[0, :, 3:5] = torch.tensor((4.0, 2.0)).log()
    logits = torch.full((1, len(places), 3), -9.0)
    logits[0, torch.arange(len(labels)), torch.tensor(labels)] = torch.tensor(scores).logit()
    return Refined(anchors, logits, None)


def test_the_more_confident_of_two_near_ones_of_a_class_speaks() -> None:
    # the third is of another class, the fourth too far
    boxes = refined([(0, 0), (1.5, 0), (0, 1.0), (0, 2.5)], [0, 0, 1, 0], [0.4, 0.9, 0.8, 0.3])
    assert find_better(boxes, distance=0.6).tolist() == [[1, 1, 2, 3]]
    assert find_better(boxes, distance=0.4).tolist() == [[0, 1, 2, 3]]


def test_the_shorter_side_of_the_smaller_box_counts() -> None:
    boxes = refined([(0, 0), (1.5, 0)], [0, 0], [0.9, 0.5])
    small = boxes.anchors.clone()
    small[0, 1, 3:5] = torch.tensor([0.6, 3.0]).log()
    assert find_better(replace(boxes, anchors=small), 0.9).tolist() == [[0, 1]]


def test_unlikely_instances_are_left_alone() -> None:
    assert find_better(refined([(0, 0), (0, 0)], [0, 0], [0.9, 0.005]), 1.0).tolist() == [[0, 1]]


def test_an_id_goes_to_the_one_that_speaks_and_to_nobody_else() -> None:
    ids = torch.tensor([[7, 8, -1, 9, -1]])
    better = torch.tensor([[2, 2, 2, 3, 3]])  # 0 and 1 gave way to 2, which is new; 4 to 3, which has an id
    confidence = torch.tensor([[0.3, 0.5, 0.9, 0.8, 0.2]])
    assert inherit_ids(ids, better, confidence).tolist() == [[-1, -1, 8, 9, -1]]
    assert inherit_ids(ids, torch.arange(5)[None], confidence).tolist() == ids.tolist()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 12), st.integers(0, 2**31))
def test_groups_agree_with_suppression(count: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    centers, scores = torch.rand(count, 2, generator=random) * 6, torch.rand(count, generator=random)
    radius = torch.full((count,), 4.0)
    groups = group_by_distance(centers, scores, radius, torch.zeros(count))
    kept = suppress_by_distance(centers, scores, 4.0, count)
    assert sorted(kept.tolist()) == [i for i in range(count) if groups[i] == i]
    for box, speaker in enumerate(groups.tolist()):
        assert groups[speaker] == speaker and scores[speaker] >= scores[box]
        assert (centers[box] - centers[speaker]).norm() <= 2.0 + 1e-6


def test_two_classes_in_one_task_keep_to_the_smaller_radius() -> None:
    centers, scores = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.9, 0.0]]), torch.tensor([0.9, 0.8, 0.7])
    truck_cone_truck = torch.tensor([12.0, 0.175, 12.0])
    assert suppress_by_distance(centers, scores, truck_cone_truck, 10).tolist() == [0, 1]
