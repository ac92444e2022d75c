import dataclasses

import torch

from dualview.networks.decoder import DenoisingOutput
from dualview.networks.denoising_queries import fit_groups
from dualview.supervision.denoising import (
    BACKGROUND,
    PADDING,
    DenoisingConfig,
    DenoisingDraws,
    DenoisingMemory,
    make_denoising,
    remember_denoising,
    temporal_targets,
)
from dualview.supervision.ground_truth import GroundTruth
from dualview.supervision.matching import MatchingConfig

CONFIG, MATCHING = DenoisingConfig(groups=4, temporal_groups=2), MatchingConfig()


def truth(ids: list[int], offset: float = 0.0) -> GroundTruth:
    """Boxes 30 m apart, so that noise can't swap them; box i lies at 30 * id."""
    boxes = torch.zeros(len(ids), 9)
    boxes[:, 0] = torch.tensor(ids) * 30.0 + offset
    boxes[:, 3:6] = 2.0
    return GroundTruth(boxes, torch.tensor(ids) % 3, torch.tensor(ids))


def quiet(groups: int, batch: int, most: int) -> DenoisingDraws:
    """Mild noise zero, strong noise one and a half scales up."""
    half = torch.full((groups, batch, most, 10), 0.5)
    return DenoisingDraws(half, half, torch.ones_like(half))


def test_quiet_noise_gives_the_boxes_back() -> None:
    queries, targets = make_denoising([truth([0, 2])], CONFIG, MATCHING, draws=quiet(4, 1, 2))
    anchors = queries.anchors.unflatten(1, (4, 4))  # 2 mild, 2 strong copies in each group
    torch.testing.assert_close(anchors[0, :, :2, :10], truth([0, 2]).states().expand(4, -1, -1))
    assert not queries.anchors[..., 10].any()
    assert targets.class_target.unflatten(1, (4, 4))[0].tolist() == [[0, 2, BACKGROUND, BACKGROUND]] * 4
    assert targets.track_ids.unflatten(1, (4, 4))[0].tolist() == [[0, 2, -1, -1]] * 4
    assert targets.valid.all()


def test_strong_copies_are_further_away_than_mild_ones() -> None:
    queries, _ = make_denoising([truth([0, 1, 2])], CONFIG, MATCHING)
    offset = (queries.anchors[..., :10].unflatten(1, (4, 2, 3)) - truth([0, 1, 2]).states()).abs()
    scale = torch.tensor(CONFIG.noise_scale)
    assert (offset[:, :, 0] <= scale + 1e-5).all()
    assert (offset[:, :, 1] >= scale - 1e-5).all() and (offset[:, :, 1] <= 2 * scale + 1e-5).all()


def test_padding_is_not_learned() -> None:
    _, targets = make_denoising([truth([0, 1, 2]), truth([1])], CONFIG, MATCHING, draws=quiet(4, 2, 3))
    valid = targets.valid.unflatten(1, (4, 6))
    assert valid[0].all()
    assert valid[1].sum(-1).tolist() == [2] * 4, "one box: its mild and its strong copy"
    assert (targets.class_target[1][~targets.valid[1]] < 0).all()


def test_nothing_to_learn_without_boxes() -> None:
    assert make_denoising([truth([]), truth([])], CONFIG, MATCHING) is None
    assert make_denoising([truth([1])], dataclasses.replace(CONFIG, groups=0), MATCHING) is None


def test_only_the_first_boxes_are_used() -> None:
    queries, _ = make_denoising([truth(list(range(9)))], dataclasses.replace(CONFIG, max_boxes=3), MATCHING)
    assert queries.anchors.shape[1] == 4 * 2 * 3


def test_unknown_velocity_makes_no_nan_anchor() -> None:
    boxes = truth([0, 1])
    boxes.boxes[0, 7:] = float("nan")
    queries, targets = make_denoising([boxes], CONFIG, MATCHING)
    assert queries.anchors.isfinite().all()
    assert targets.box_target.isnan().any(), "the loss must know that there is nothing to reach"


def remembered(ids: list[int]) -> DenoisingMemory:
    queries, targets = make_denoising([truth(ids)], CONFIG, MATCHING, draws=quiet(4, 1, len(ids)))
    output = DenoisingOutput((), torch.ones(1, queries.anchors.shape[1], 8), queries.anchors)
    return remember_denoising(output, targets, CONFIG, torch.tensor([3, 0, 2, 1]))


def test_remembered_groups_are_the_drawn_ones() -> None:
    memory = remembered([0, 2])
    assert memory.anchors.shape == (1, 2, 4, 11) and memory.features.shape == (1, 2, 4, 8)
    assert memory.track_ids[0].tolist() == [[0, 2, -1, -1]] * 2


def test_targets_follow_the_track_and_vanished_objects_become_background() -> None:
    memory = remembered([0, 2])
    now = truth([2, 5], offset=1.5)
    queries, targets = make_denoising([now], CONFIG, MATCHING, memory, quiet(4, 1, 2))
    assert queries.history_anchors is memory.anchors
    later = temporal_targets(targets, memory, torch.tensor([True]))
    classes = later.class_target.unflatten(1, (4, 4))[0]
    boxes = later.box_target.unflatten(1, (4, 4))[0]
    assert classes[0].tolist() == [PADDING, 2, BACKGROUND, BACKGROUND]
    assert boxes[0, 1, 0] == 61.5 and not boxes[0, 0].any()
    assert classes[2].tolist() == targets.class_target.unflatten(1, (4, 4))[0, 2].tolist()
    unchanged = temporal_targets(targets, memory, torch.tensor([False]))
    assert torch.equal(unchanged.class_target, targets.class_target)
    assert torch.equal(unchanged.box_target, targets.box_target)


def test_remembered_groups_fit_the_current_size() -> None:
    """More boxes now: padded with what is not learned; fewer: cut."""
    memory = remembered([0, 2])
    for ids in ([2, 5, 7], [2]):
        _, targets = make_denoising([truth(ids)], CONFIG, MATCHING, memory, quiet(4, 1, len(ids)))
        later = temporal_targets(targets, memory, torch.tensor([True]))
        size = 2 * len(ids)
        valid = later.valid.unflatten(1, (4, size))[0, 0]
        assert valid.tolist() == [True] * min(4, size) + [False] * (size - min(4, size))
    padded = fit_groups(memory.features, 6)
    assert padded.shape == (1, 2, 6, 8) and not padded[:, :, 4:].any() and padded[:, :, :4].all()


def test_objects_without_identity_are_not_followed() -> None:
    anonymous = dataclasses.replace(truth([0, 2]), track_ids=None)
    queries, targets = make_denoising([anonymous], CONFIG, MATCHING, remembered([0, 2]))
    assert queries.history_anchors is None and targets.track_ids is None
    output = DenoisingOutput((), torch.ones(1, 16, 8), queries.anchors)
    assert remember_denoising(output, targets, CONFIG) is None
