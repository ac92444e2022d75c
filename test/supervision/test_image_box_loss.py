"""The 2D loss against loops and exhaustive matching, and its rules for what is background."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from dualview.geometry.box_projection import project_boxes, surface_depth
from dualview.networks.box_state import encode_boxes
from dualview.networks.refinement import Refined
from dualview.supervision.image_box_loss import ImageLayer, image_box_losses
from dualview.supervision.image_box_matching import ImageBoxConfig, ImageBoxTruth

SIZE = (128, 352)
CLASSES = 3
OPTICAL = torch.tensor([[0.0, -1, 0, 0], [0, 0, -1, 1.5], [1, 0, 0, 0], [0, 0, 0, 1]])
CONFIG = ImageBoxConfig()


def cameras(*yaws: float) -> torch.Tensor:
    """Projections [1, V, 4, 4] of cameras that look `yaw` to the left."""
    out = []
    for yaw in yaws:
        intrinsics, turn = torch.eye(4), torch.eye(4)
        intrinsics[0, 0] = intrinsics[1, 1] = 280.0
        intrinsics[0, 2], intrinsics[1, 2] = 176.0, 60.0
        c, s = math.cos(yaw), math.sin(yaw)
        turn[:2, :2] = torch.tensor([[c, s], [-s, c]])
        out.append(intrinsics @ OPTICAL @ turn)
    return torch.stack(out).unsqueeze(0)


def truth_of(
    boxes: torch.Tensor, labels: list[int], matrix: torch.Tensor, **changes: object
) -> ImageBoxTruth:
    """The rectangles of 3D boxes [n, 7] as labels, as if someone had drawn them perfectly."""
    projected = project_boxes(boxes, matrix, SIZE)
    kept = projected.valid
    truth = ImageBoxTruth(projected.rectangles[kept], torch.tensor(labels)[kept], projected.depth[kept])
    return replace(truth, **changes)


def some_boxes(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    random = torch.rand(count, 7, generator=generator)
    low = torch.tensor([10.0, -6, 0.4, 1, 0.6, 1.2, -3])
    high = torch.tensor([45.0, 6, 1.2, 8, 2.6, 3, 3])
    return low + random * (high - low)


def logits_of(labels: list[int], sure: float = 6.0) -> torch.Tensor:
    logits = torch.full((1, len(labels), CLASSES), -sure)
    for i, label in enumerate(labels):
        if label < CLASSES:
            logits[0, i, label] = sure
    return logits


def iou_terms(a: list[float], b: list[float]) -> float:
    """GIoU by hand."""
    w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    area = [(r[2] - r[0]) * (r[3] - r[1]) for r in (a, b)]
    union = area[0] + area[1] - w * h
    around = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return w * h / union - (around - union) / around


def numbers(rectangle: list[float], depth: float) -> list[float]:
    x0, y0, x1, y1 = rectangle
    return [
        (x0 + x1) / 2 / SIZE[0],
        (y0 + y1) / 2 / SIZE[0],
        (x1 - x0) / SIZE[0],
        (y1 - y0) / SIZE[0],
        depth / 61.2,
    ]


def focal(logit: float, positive: bool) -> float:
    p = 1 / (1 + math.exp(-logit))
    return -0.25 * (1 - p) ** 2 * math.log(p) if positive else -0.75 * p**2 * math.log(1 - p)


@pytest.mark.parametrize("seed", range(4))
def test_against_loops_and_all_permutations(seed: int) -> None:
    """Two cameras that overlap, five queries, labels of other boxes; every assignment is tried."""
    generator = torch.Generator().manual_seed(seed)
    predicted = some_boxes(5, seed)
    real = some_boxes(3, seed + 100)
    matrices = cameras(0.15, -0.15)
    truths = [truth_of(real, [0, 2, 1], matrices[0, v]) for v in range(2)]
    truths[0].depth[0] = math.nan  # one depth isn't known
    logits = torch.randn(1, 5, CLASSES, generator=generator)
    losses, (matches,) = image_box_losses(
        [ImageLayer(predicted[None], logits)], matrices, SIZE, [truths], CONFIG
    )

    box = giou = 0.0
    pair_count = 0
    cheapest: dict[int, tuple[float, int]] = {}
    seen_by_any: set[int] = set()
    for v, truth in enumerate(truths):
        projected = project_boxes(predicted, matrices[0, v], SIZE)
        valid = projected.valid.nonzero().flatten().tolist()
        eligible = CONFIG.visibility.large_enough(projected, SIZE[1]).nonzero().flatten().tolist()
        seen_by_any |= set(eligible)
        n = len(truth.labels)

        def terms(
            q: int, t: int, truth: ImageBoxTruth = truth, projected=projected
        ) -> tuple[float, float, float]:
            a, b = projected.rectangles[q].tolist(), truth.rectangles[t].tolist()
            known = not math.isnan(float(truth.depth[t]))
            ours = numbers(a, float(projected.depth[q]) if known else 0.0)
            theirs = numbers(b, float(truth.depth[t]) if known else 0.0)
            label = int(truth.labels[t])
            classes = focal(float(logits[0, q, label]), True) - focal(float(logits[0, q, label]), False)
            return classes, sum(abs(x - y) for x, y in zip(ours, theirs, strict=True)), 1 - iou_terms(a, b)

        def cost(q: int, t: int) -> float:
            c, r, g = terms(q, t)
            return 2 * c + 0.75 * r + 0.25 * g

        size = min(n, len(valid))
        options = [
            list(zip(queries, labels, strict=True))
            for labels in itertools.combinations(range(n), size)
            for queries in itertools.permutations(valid, size)
        ]
        best = min(options, key=lambda pairs: sum(cost(q, t) for q, t in pairs))
        found = matches.pairs[0][v]
        assert sorted(zip(found.query.tolist(), found.label.tolist(), strict=True)) == sorted(best)
        for q, t in best:
            _, r, g = terms(q, t)
            box, giou, pair_count = box + r, giou + g, pair_count + 1
            if q not in cheapest or cost(q, t) < cheapest[q][0]:
                cheapest[q] = (cost(q, t), int(truth.labels[t]))
    assert pair_count >= 3
    classes = 0.0
    for q in range(5):
        if q in cheapest or q in seen_by_any:
            label = cheapest.get(q, (0.0, CLASSES))[1]
            classes += sum(focal(float(logits[0, q, c]), c == label) for c in range(CLASSES))
    assert math.isclose(losses["image0/class"], 2 * classes / max(len(cheapest), 1), rel_tol=1e-4)
    assert math.isclose(losses["image0/box"], 0.75 * box / pair_count, rel_tol=1e-4, abs_tol=1e-6)
    assert math.isclose(losses["image0/giou"], 0.25 * giou / pair_count, rel_tol=1e-4, abs_tol=1e-6)


def test_perfect_boxes_leave_only_the_focal_loss() -> None:
    real = some_boxes(4, 3)
    matrices = cameras(0.0)
    layers = [ImageLayer(real[None], logits_of([0, 1, 2, 0]))] * 2
    losses, _ = image_box_losses(layers, matrices, SIZE, [[truth_of(real, [0, 1, 2, 0], matrices[0, 0])]])
    assert set(losses) == {f"image{i}/{n}" for i in range(2) for n in ("class", "box", "giou")}
    for i in range(2):
        assert losses[f"image{i}/box"] < 1e-5 and losses[f"image{i}/giou"] < 1e-5
        assert 0 < losses[f"image{i}/class"] < 1e-3


def test_a_metre_of_depth_costs_its_share() -> None:
    """Label depth moved by 1 m: the L1 term grows by 0.75 / 61.2, as in logarithms by 0.75 ln(21 / 20)."""
    real = torch.tensor([[20.0, 0, 1, 4, 2, 1.6, 0.3]])
    truth = truth_of(real, [0], cameras(0.0)[0, 0])
    farther = replace(truth, depth=truth.depth + 1.0)
    layer = [ImageLayer(real[None], logits_of([0]))]
    losses, _ = image_box_losses(layer, cameras(0.0), SIZE, [[farther]])
    assert math.isclose(losses["image0/box"], 0.75 / 61.2, rel_tol=1e-4)
    log = ImageBoxConfig(depth_scale=None)
    losses, _ = image_box_losses(layer, cameras(0.0), SIZE, [[farther]], log)
    assert math.isclose(losses["image0/box"], 0.75 * math.log(21 / 20), rel_tol=1e-3)
    losses, _ = image_box_losses(layer, cameras(0.0), SIZE, [[farther]], ImageBoxConfig(depth_weight=0.0))
    assert losses["image0/box"] < 1e-5


def test_depth_maps_are_compared_with_surfaces() -> None:
    """Labels whose depth is that of the side one sees: a perfect box costs nothing, and half a length if its centre is compared."""
    real = torch.tensor([[20.0, 0, 1, 4, 2, 1.6, 0.0]])
    matrices = cameras(0.0)
    truth = truth_of(real, [0], matrices[0, 0], depth=surface_depth(real, matrices[0, 0]))
    assert math.isclose(float(truth.depth), 18.0, rel_tol=1e-5)
    layer = [ImageLayer(real[None], logits_of([0]))]
    losses, _ = image_box_losses(layer, matrices, SIZE, [[truth]], ImageBoxConfig(depth_of="surface"))
    assert losses["image0/box"] < 1e-5
    losses, _ = image_box_losses(layer, matrices, SIZE, [[truth]])
    assert math.isclose(losses["image0/box"], 0.75 * 2.0 / 61.2, rel_tol=1e-3)


def test_boxes_are_where_they_were_at_the_exposure() -> None:
    """An image taken 40 ms after the instant of the boxes, of a car at 15 m/s: it is 0.6 m farther on."""
    real = torch.tensor([[20.0, 2.0, 1, 4, 2, 1.6, 1.57, 0.0, 15.0, 0.0]])
    moved = real + torch.tensor([[0.0, 0.6, 0, 0, 0, 0, 0, 0, 0, 0]])
    matrices = cameras(0.0, 0.1)
    late = truth_of(moved, [0], matrices[0, 0], delay=0.04)
    other = truth_of(real, [0], matrices[0, 1])
    boxes = real[None].requires_grad_()
    losses, _ = image_box_losses([ImageLayer(boxes, logits_of([0]))], matrices, SIZE, [[late, other]])
    assert losses["image0/box"] < 1e-4 and losses["image0/giou"] < 1e-4
    (gradient,) = torch.autograd.grad(losses["image0/box"] + losses["image0/giou"], boxes)
    assert (gradient[..., 7:] == 0).all(), "velocity isn't learned from it"
    stale = [[replace(late, delay=0.0), other]]
    losses, _ = image_box_losses([ImageLayer(boxes, logits_of([0]))], matrices, SIZE, stale)
    assert losses["image0/giou"] > 0.01


def test_a_label_may_be_taken_more_than_once() -> None:
    """Where the 3D matching lets several instances answer for an object, they aren't background in 2D either."""
    real = torch.tensor([[20.0, 0, 1, 4, 2, 1.6, 0.3], [30.0, -3, 1, 4, 2, 1.6, 0.0]])
    twins = torch.cat([real, real[:1] + 0.1])
    matrices = cameras(0.0)
    truth = truth_of(real, [0, 1], matrices[0, 0])
    layers = [ImageLayer(twins[None], logits_of([0, 1, 0]))] * 2
    _, (many, once) = image_box_losses(layers, matrices, SIZE, [[truth]], repeats=(4,))
    assert once.class_target.tolist() == [[0, 1, CLASSES]]
    assert many.class_target.tolist() == [[0, 1, CLASSES]], "three instances are too few for two each"
    layers = [ImageLayer(torch.cat([twins, real[1:]])[None], logits_of([0, 1, 0, 1]))] * 2
    _, (many, once) = image_box_losses(layers, matrices, SIZE, [[truth]], repeats=(4,))
    assert many.class_target.tolist() == [[0, 1, 0, 1]] and int(once.matched.sum()) == 2


def background_of(
    boxes: torch.Tensor, labels: list[int], matrices: torch.Tensor, truths: list, **changes: object
) -> torch.Tensor:
    config = replace(CONFIG, **changes)
    _, (matches,) = image_box_losses(
        [ImageLayer(boxes[None], logits_of(labels))], matrices, SIZE, [truths], config
    )
    return matches


def empty_truth(**changes: object) -> ImageBoxTruth:
    return replace(
        ImageBoxTruth(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0)), **changes
    )


def test_one_object_in_two_cameras_is_one_positive() -> None:
    box = torch.tensor([[18.0, 0.0, 1, 4, 2, 1.6, 0.3]])
    matrices = cameras(0.3, -0.3)
    left = truth_of(box, [1], matrices[0, 0])
    assert len(left.labels) == 1
    # matched by one camera, unmatched in the other: it is not background there
    matches = background_of(box, [1], matrices, [left, empty_truth()])
    assert matches.class_target.tolist() == [[1]] and matches.class_weights.tolist() == [[[1.0, 1.0, 1.0]]]
    # matched as two classes: the cheaper match (the class that the query believes in) wins
    right = truth_of(box, [2], matrices[0, 1])
    assert background_of(box, [2], matrices, [left, right]).class_target.tolist() == [[2]]
    assert background_of(box, [1], matrices, [left, right]).class_target.tolist() == [[1]]
    both, _ = image_box_losses([ImageLayer(box[None], logits_of([1]))], matrices, SIZE, [[left, left]])
    assert both["image0/class"] < 1e-3


def test_what_is_not_background() -> None:
    box = torch.tensor([[18.0, 0.0, 1, 4, 2, 1.6, 0.3]])
    matrices = cameras(0.0)
    whole = torch.tensor([[0.0, 0, 352, 128]])

    def weights(truth: ImageBoxTruth | None, boxes: torch.Tensor = box, **changes: object) -> list[float]:
        return background_of(boxes, [0], matrices, [truth], **changes).class_weights[0, 0].tolist()

    assert weights(empty_truth()) == [1.0, 1.0, 1.0]
    assert weights(None) == [0.0, 0.0, 0.0], "an image without labels says nothing"
    assert weights(empty_truth(ignored=whole)) == [0.0, 0.0, 0.0]
    assert weights(empty_truth(ignored=torch.tensor([[0.0, 0, 50, 50]]))) == [1.0, 1.0, 1.0]
    assert weights(empty_truth(labelled_classes=torch.tensor([True, False, True]))) == [1.0, 0.0, 1.0]
    assert weights(empty_truth(), background_weight=0.25) == [0.25, 0.25, 0.25]
    behind = box - torch.tensor([40.0, 0, 0, 0, 0, 0, 0])
    assert weights(empty_truth(), behind) == [0.0, 0.0, 0.0], "no camera sees it"
    sliver = torch.tensor([[20.0, 14.2, 1, 4, 2, 1.6, 0.0]])
    projected = project_boxes(sliver, matrices[0, 0], SIZE)
    assert projected.valid[0] and not CONFIG.visibility.large_enough(projected, SIZE[1])[0]
    assert weights(empty_truth(), sliver) == [0.0, 0.0, 0.0], "mostly outside: nobody would have labelled it"


def test_only_the_best_candidates_are_matched() -> None:
    boxes = some_boxes(6, 5)
    matrices = cameras(0.0)
    truth = truth_of(boxes, [0] * 6, matrices[0, 0])
    logits = torch.linspace(-3, 2, 6).view(1, 6, 1).expand(1, 6, CLASSES).contiguous()
    config = replace(CONFIG, max_candidates=2)
    _, (matches,) = image_box_losses([ImageLayer(boxes[None], logits)], matrices, SIZE, [[truth]], config)
    seen = project_boxes(boxes, matrices[0, 0], SIZE).valid.nonzero().flatten().tolist()
    assert matches.pairs[0][0].query.tolist() == seen[-2:]


def test_gradients_reach_boxes_and_nothing_breaks_on_wild_anchors() -> None:
    """Sparse4D's own layers, with boxes through the cameras, behind them and absurdly large."""
    generator = torch.Generator().manual_seed(7)
    anchors = torch.randn(2, 60, 11, generator=generator) * torch.tensor(
        [15.0, 15, 2] + [1.5] * 3 + [1.0] * 5
    )
    anchors[0, :3, 3:6] = 200.0  # exp overflows
    anchors.requires_grad_()
    logits = torch.randn(2, 60, CLASSES, generator=generator).requires_grad_()
    matrices = cameras(0.0, 2.0).expand(2, 2, 4, 4)
    real = some_boxes(4, 9)
    sample = [truth_of(real, [0, 1, 2, 0], matrices[0, 0]), None]
    layer = ImageLayer.of_refined(Refined(anchors, logits, None))
    losses, matches = image_box_losses(
        [layer, layer], matrices, SIZE, [sample, [empty_truth(), empty_truth()]]
    )
    total = torch.stack(list(losses.values())).sum()
    assert total.isfinite() and matches[0].matched.sum() == len(sample[0].labels)
    total.backward()
    assert anchors.grad.isfinite().all() and logits.grad.isfinite().all()
    matched = matches[0].matched
    assert (anchors.grad[matched][:, :8].abs().sum(-1) > 0).all()
    assert (anchors.grad[..., 8:] == 0).all(), "velocity isn't supervised"
    assert (anchors.grad[~matched] == 0).all()


def test_descent_moves_a_box_onto_its_label() -> None:
    """Thirty steps on one wrong box lower all terms and its distance: the signs are right."""
    real = torch.tensor([[20.0, 1.0, 0.9, 4.4, 1.9, 1.6, 0.4]])
    start = torch.tensor([[22.5, 2.2, 1.3, 3.5, 1.5, 2.0, 0.4]])
    state = encode_boxes(torch.cat([start, torch.zeros(1, 3)], 1))[None].requires_grad_()
    logits = torch.zeros(1, 1, CLASSES, requires_grad=True)
    truth = truth_of(real, [1], cameras(0.0)[0, 0])
    optimizer = torch.optim.Adam([state, logits], lr=0.05)
    values = []
    for _ in range(60):
        optimizer.zero_grad()
        layer = ImageLayer.of_refined(Refined(state, logits, None))
        losses, _ = image_box_losses([layer], cameras(0.0), SIZE, [[truth]])
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        optimizer.step()
        values.append({k: v.item() for k, v in losses.items()})
    assert all(values[-1][k] < 0.5 * values[0][k] for k in values[0])
    assert (state[0, 0, :2] - real[0, :2]).norm() < 0.5 * (start[0, :2] - real[0, :2]).norm()


def test_truths_must_fit_the_cameras() -> None:
    layer = [ImageLayer(some_boxes(2, 0)[None], torch.zeros(1, 2, CLASSES))]
    with pytest.raises(ValueError, match="one entry"):
        image_box_losses(layer, cameras(0.0, 1.0), SIZE, [[empty_truth()]])
    with pytest.raises(ValueError, match="need rectangles"):
        ImageBoxTruth(torch.zeros(2, 4), torch.zeros(1, dtype=torch.int64), torch.zeros(1))
