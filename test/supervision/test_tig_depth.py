"""TiG-BEV's depth targets and losses against loops, by hand, and at the edges."""

import itertools
import math

import pytest
import torch

from dualview.networks.lift_splat import DepthBins
from dualview.supervision.box_cells import offsets_in_boxes
from dualview.supervision.ground_truth import GroundTruth
from dualview.supervision.tig_depth import (
    InnerDepthConfig,
    absolute_depth_loss,
    expected_depth,
    inner_depth_loss,
)
from dualview.supervision.tig_targets import ObjectDepth, object_depth_of_map, object_depth_of_points

BINS = DepthBins(1.0, 13.0, 1.5)  # 8 bins


def random_target(generator, shape=(2, 2, 4, 6), objects=3):
    index = torch.randint(0, objects + 1, shape, generator=generator)
    depth = 1 + 12 * torch.rand(shape, generator=generator)
    depth[(index == 0) & (torch.rand(shape, generator=generator) < 0.5)] = 0.0
    return ObjectDepth(depth, index)


def random_case(seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 2, BINS.count, 4, 6, generator=generator, dtype=dtype).requires_grad_()
    return logits, random_target(generator)


def loop_inner_depth(logits, target, config):
    """Equation by equation, one pixel after another."""
    probability = logits.softmax(2)
    values = BINS.centers() if config.bin_centers else BINS.edges()
    total, pixels = 0.0, 0
    for b, n in itertools.product(range(logits.shape[0]), range(logits.shape[1])):
        for number in range(1, int(target.object_index.max()) + 1):
            members = []
            for y, x in itertools.product(range(logits.shape[3]), range(logits.shape[4])):
                if target.object_index[b, n, y, x] == number:
                    p = probability[b, n, :, y, x]
                    depth = sum(p[k] * float(values[k]) for k in range(len(values)))
                    members.append((depth, float(target.depth[b, n, y, x]), float(p.detach().max())))
            if not members:
                continue
            rule = {
                "smallest_error": lambda m: abs(float(m[0].detach()) - m[1]),
                "signed_error": lambda m: m[1] - float(m[0].detach()),
                "highest_confidence": lambda m: -m[2],
            }[config.reference]
            reference = min(members, key=rule)
            anchor = reference[0].detach() if config.detach_reference else reference[0]
            squares = sum(((d - anchor) - (g - reference[1])) ** 2 for d, g, _ in members)
            pixels += len(members)
            if config.reduction == "pixel_mean":
                total = total + squares
            elif float(squares) > 0:
                total = total + squares**0.5
    return config.weight * (total / pixels if config.reduction == "pixel_mean" else total)


@pytest.mark.parametrize("reference", ["smallest_error", "signed_error", "highest_confidence"])
@pytest.mark.parametrize("reduction", ["pixel_mean", "object_norm"])
@pytest.mark.parametrize("detach", [True, False])
def test_inner_depth_equals_loops(reference, reduction, detach):
    logits, target = random_case()
    config = InnerDepthConfig(0.7, reference, detach, reduction)
    loss, slow = inner_depth_loss(logits, target, BINS, config), loop_inner_depth(logits, target, config)
    assert torch.isclose(loss, slow, rtol=1e-6)
    (fast_gradient,) = torch.autograd.grad(loss, logits)
    (slow_gradient,) = torch.autograd.grad(slow, logits)
    assert torch.allclose(fast_gradient, slow_gradient, rtol=1e-5, atol=1e-8)


def test_gradients_in_float64():
    logits, target = random_case(1)
    config = InnerDepthConfig(detach_reference=False)
    assert torch.autograd.gradcheck(lambda x: inner_depth_loss(x, target, BINS, config), (logits,))
    assert torch.autograd.gradcheck(lambda x: absolute_depth_loss(x, target, BINS), (logits,))


def test_bin_values_only_move_the_expected_depth():
    logits, _ = random_case()
    centers, edges = (expected_depth(logits, BINS, choice) for choice in (True, False))
    assert torch.allclose(centers - edges, torch.full_like(edges, BINS.step / 2))


def test_absolute_depth_by_hand():
    logits = torch.zeros(1, 1, 8, 1, 2)
    logits[0, 0, 2, 0, 0] = 2.0
    target = ObjectDepth(torch.tensor([[[[4.2, 0.0]]]]), torch.zeros(1, 1, 1, 2, dtype=torch.int64))
    expected = 100 * (7 * math.log(2) - math.log(1 / (1 + math.exp(-2)))) / 16  # 16 elements, half unknown
    assert math.isclose(absolute_depth_loss(logits, target, BINS).item(), expected, rel_tol=1e-6)


def test_depth_beyond_the_bins_is_unknown():
    logits, _ = random_case()
    far = ObjectDepth(torch.full((2, 2, 4, 6), 13.0), torch.zeros(2, 2, 4, 6, dtype=torch.int64))
    assert absolute_depth_loss(logits, far, BINS).item() == 0.0


def test_no_foreground_is_zero_with_gradient_even_beside_nan():
    logits = torch.full((1, 2, 8, 3, 3), torch.nan, requires_grad=True)
    empty = ObjectDepth(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3, dtype=torch.int64))
    loss = inner_depth_loss(logits, empty, BINS, InnerDepthConfig()) + absolute_depth_loss(
        logits, empty, BINS
    )
    loss.backward()
    assert loss.item() == 0.0 and logits.grad.eq(0).all()


def test_an_object_of_one_pixel_adds_nothing():
    logits, _ = random_case()
    index = torch.zeros(2, 2, 4, 6, dtype=torch.int64)
    index[0, 1, 2, 3] = 4
    target = ObjectDepth(torch.full((2, 2, 4, 6), 5.0), index)
    for reduction in ("pixel_mean", "object_norm"):
        loss = inner_depth_loss(logits, target, BINS, InnerDepthConfig(reduction=reduction))
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.item() == 0.0 and gradient.eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype):
    logits, target = random_case(2, torch.float32)
    half = logits.detach().to(dtype).requires_grad_()
    full = half.detach().float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = inner_depth_loss(half, target, BINS, InnerDepthConfig())
    loss.backward()
    exact = inner_depth_loss(full, target, BINS, InnerDepthConfig())
    assert loss.dtype == torch.float32 and torch.isclose(loss, exact) and half.grad.isfinite().all()


def test_wrong_bins_are_refused():
    logits, target = random_case()
    with pytest.raises(ValueError, match="lift's own bins"):
        inner_depth_loss(logits, target, DepthBins(1.0, 60.0, 1.0), InnerDepthConfig())


def test_points_equal_loops():
    generator = torch.Generator().manual_seed(3)
    points = torch.rand(2, 3, 50, 3, generator=generator) * torch.tensor([90.0, 60.0, 16.0]) - 5
    points[..., :2] = points[..., :2].mul(2).round() / 2  # halves occur
    in_box = torch.rand(2, 4, 50, generator=generator) < 0.3
    target = object_depth_of_points(points, in_box, (4, 6), 16, BINS)
    depth, index = torch.zeros(2, 3, 4, 6), torch.zeros(2, 3, 4, 6, dtype=torch.int64)
    for b, n, p in itertools.product(range(2), range(3), range(50)):
        u, v, z = points[b, n, p].tolist()
        x, y = round(u / 16), round(v / 16)  # Python rounds halves to even
        if (
            0 <= x < 6
            and 0 <= y < 4
            and 1.0 <= z < 13.0
            and (depth[b, n, y, x] == 0 or z < depth[b, n, y, x])
        ):
            depth[b, n, y, x] = z
            index[b, n, y, x] = max((k + 1 for k in range(4) if in_box[b, k, p]), default=0)
    assert torch.equal(target.depth, depth) and torch.equal(target.object_index, index)
    assert (index > 0).any() and (depth == 0).any()


@pytest.mark.parametrize("shape", [(2, 4, 0), (2, 3, 4, 0), (2, 0, 0)])
def test_an_empty_cloud_is_an_empty_map(shape):
    target = object_depth_of_points(torch.zeros(2, 3, 0, 3), torch.zeros(shape, dtype=torch.bool), (4, 6), 16, BINS)
    assert target.depth.shape == target.object_index.shape == (2, 3, 4, 6)
    assert not target.depth.any() and not target.object_index.any()


def forward_camera(batch, cameras):
    """Camera looking along x of the frame, 2 m above it, focal length 20 px, centre (24, 16)."""
    camera_from_ego = torch.tensor([[0.0, -1, 0, 0], [0, 0, -1, 2], [1, 0, 0, 0], [0, 0, 0, 1]])
    intrinsics = torch.eye(4)
    intrinsics[:2, :3] = torch.tensor([[20.0, 0, 24], [0, 20, 16]])
    return (intrinsics @ camera_from_ego).double().expand(batch, cameras, 4, 4)


def test_returns_of_a_depth_map_find_their_box():
    depth = torch.zeros(2, 1, 32, 48)
    depth[0, 0, 16, 24], depth[0, 0, 17, 25], depth[0, 0, 2, 2] = 8.0, 7.0, 5.0
    depth[1, 0, 16, 24] = 30.0  # beyond the bins
    box = torch.tensor([[7.5, 0.0, 2.0, 2.0, 2.0, 2.0, 0.3, 0.0, 0.0]])
    truths = [GroundTruth(box, torch.zeros(1, dtype=torch.int64))] * 2
    target = object_depth_of_map(depth, forward_camera(2, 1), truths, 8, BINS)
    assert target.depth.shape == (2, 1, 4, 6)
    assert target.depth[0, 0, 2, 3] == 7.0 and target.object_index[0, 0, 2, 3] == 1  # the nearer one
    assert target.depth[0, 0, 0, 0] == 5.0 and target.object_index[0, 0, 0, 0] == 0
    assert target.depth[1].eq(0).all() and target.object_index.sum() == 1


def test_a_depth_map_without_boxes_has_depth_only():
    none = GroundTruth(torch.zeros(0, 9), torch.zeros(0, dtype=torch.int64))
    target = object_depth_of_map(torch.full((1, 1, 8, 8), 4.0), forward_camera(1, 1), [none], 4, BINS)
    assert target.depth.eq(4).all() and target.object_index.eq(0).all()


def test_rounded_pixels_of_a_depth_map_are_the_published_ones():
    """From the map and from its points, each in the middle of its pixel: the same depth and the same objects."""
    generator = torch.Generator().manual_seed(4)
    hit = torch.rand(1, 2, 32, 48, generator=generator) < 0.05
    depth = torch.where(hit, 5 + 7 * torch.rand(1, 2, 32, 48, generator=generator), 0.0)
    camera = forward_camera(1, 2)
    boxes = torch.tensor([[8.0, 1.0, 2.0, 6.0, 5.0, 4.0, 0.4, 0.0, 0.0], [8.0, -4.0, 2.0, 6.0, 4.0, 5.0, 0.0, 0.0, 0.0]])
    truth = GroundTruth(boxes, torch.zeros(2, dtype=torch.int64))
    rounded = object_depth_of_map(depth, camera, [truth], 8, BINS, "round")
    floored = object_depth_of_map(depth, camera, [truth], 8, BINS)
    assert not torch.equal(rounded.depth, floored.depth)
    for n in range(2):
        row, column = depth[0, n].nonzero().unbind(1)
        z = depth[0, n, row, column]
        image_points = torch.stack([column + 0.5, row + 0.5, z], 1)
        rays = torch.cat([image_points[:, :2].double() * z[:, None], z[:, None].double()], 1)
        points = torch.linalg.solve(camera[0, n, :3, :3].double(), (rays - camera[0, n, :3, 3]).T).T
        member = (offsets_in_boxes(points, boxes.double()).abs() <= boxes[:, None, 3:6].double() / 2).all(-1)
        one = object_depth_of_points(image_points[None, None], member[None], (4, 6), 8, BINS)
        assert torch.equal(one.depth[0, 0], rounded.depth[0, n])
        assert torch.equal(one.object_index[0, 0], rounded.object_index[0, n])
    assert rounded.object_index.amax() == 2 and rounded.object_index.eq(0).any()
