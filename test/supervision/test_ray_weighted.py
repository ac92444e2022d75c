"""RayD3D's weighted distillation against loops, and what its weights must be."""

import math
from dataclasses import replace

import pytest
import torch
from ray_example import BOXES, CONFIG, EMPTY, GRID, boxes, random_maps, scene

from dualview.supervision.ray_layout import RayLayout
from dualview.supervision.ray_weighted import ray_discrepancy, ray_weights, weighted_loss

WARM = replace(CONFIG, activation_temperature=0.5)


def loop_discrepancy(student, teacher, layout, config):
    """Equations 5 and 6, ray by ray: A as nested lists [B][R]."""
    result = []
    for b in range(len(student)):
        activations = [bev[b].abs().mean(0).flatten() for bev in (teacher, student)]
        shares = [(a / config.activation_temperature).softmax(0) for a in activations]
        rays = []
        for cells, valid in zip(layout.cells[b], layout.valid[b], strict=True):
            used = cells[valid]
            if not len(used):
                rays.append(torch.zeros(()))
                continue
            p, q = (share[used] / (share[used].sum() if config.renormalize else 1.0) for share in shares)

            def kl(a, c):
                return sum(
                    a[k] * ((a[k] + config.epsilon) / (c[k] + config.epsilon)).log() for k in range(len(a))
                )

            if config.measure == "kl":
                rays.append(kl(p, q).clamp(min=0))
            elif config.measure == "js":
                rays.append((kl(p, (p + q) / 2) + kl(q, (p + q) / 2)) / 2)
            else:
                rays.append(1 - (p * q).sum() / (p.norm() * q.norm()))
        result.append(rays)
    return result


def loop_weights(discrepancy, layout, objects, config):
    """Equation 7 and the rules for objects, cell by cell."""
    weights = torch.zeros(objects.shape, dtype=torch.float64)
    for b in range(len(objects)):
        through = {cell: [] for cell in range(objects[b].numel())}
        for r, (cells, valid) in enumerate(zip(layout.cells[b], layout.valid[b], strict=True)):
            for cell in cells[valid].tolist():
                through[cell].append(float(discrepancy[b][r]))
        nearest = layout.nearest[b].tolist()
        mean = {c: sum(a) / len(a) if a else float(discrepancy[b][nearest[c]]) for c, a in through.items()}
        owner = objects[b].flatten().tolist()
        best = {}
        for cell, number in enumerate(owner):
            best[number] = max([best.get(number, 0.0), *(through[cell] or [mean[cell]])])
        for cell, number in enumerate(owner):
            weights[b].view(-1)[cell] = best[number] if number else config.background * mean[cell]
    return weights


CHANGES = [{}, {"measure": "js"}, {"measure": "cosine"}, {"renormalize": False}, {"background": 0.0}]


@pytest.mark.parametrize("change", CHANGES)
def test_discrepancy_weights_and_loss_equal_loops(change):
    config = replace(WARM, **change)
    layout, objects = scene(BOXES, EMPTY)
    student, teacher = random_maps(2)
    found = ray_discrepancy(student, teacher, layout, config)
    slow = loop_discrepancy(student.detach(), teacher.detach(), layout, config)
    assert torch.allclose(found, torch.stack([torch.stack(rays) for rays in slow]), atol=1e-10)
    weights = ray_weights(found, layout, objects, config)
    expected = loop_weights(slow, layout, objects, config)
    assert torch.allclose(weights, expected, atol=1e-10)
    loss = weighted_loss(student, teacher, layout, objects, config)
    total = sum(
        expected[b, y, x] * (teacher[b, :, y, x] - student[b, :, y, x]).detach().abs().mean()
        for b in range(2) for y in range(GRID.rows) for x in range(GRID.columns)
    )  # fmt: skip
    assert math.isclose(loss.item(), float(total) / objects.numel(), rel_tol=1e-9)


def few_rays():
    """Only every sixth ray: most cells, and the small object, lie between rays."""
    layout, objects = scene(BOXES, BOXES[1:2])
    cells, valid = layout.cells[:, ::6], layout.valid[:, ::6]
    return RayLayout(cells, valid, layout.nearest // 6), objects


def test_cells_and_objects_between_rays():
    layout, objects = few_rays()
    student, teacher = random_maps(2)
    found = ray_discrepancy(student, teacher, layout, WARM).detach()
    covered = torch.zeros(2, 192, dtype=torch.bool)
    covered.scatter_(1, layout.cells.flatten(1), True)
    assert not covered[1][objects[1].flatten() == 1].any()
    weights = ray_weights(found, layout, objects, WARM)
    assert torch.allclose(weights, loop_weights(found, layout, objects, WARM), atol=1e-10)
    assert weights[1][objects[1] == 1] > 0


def test_equal_maps_have_no_discrepancy_and_no_loss():
    layout, objects = scene(BOXES, EMPTY)
    student, _ = random_maps(2)
    for change in CHANGES:
        config = replace(CONFIG, **change)
        assert ray_discrepancy(student, student, layout, config).abs().max() < 1e-12
        assert weighted_loss(student, student.detach(), layout, objects, config).item() == 0.0


def test_an_object_a_cell_too_far_is_a_discrepancy_on_its_rays_only():
    layout, _ = scene(BOXES)
    teacher = torch.full((1, 6, 12, 16), 0.1, dtype=torch.float64)
    student = teacher.clone()
    teacher[..., 5, 12], student[..., 5, 13] = 2.0, 2.0  # outwards along x
    found = ray_discrepancy(student, teacher, layout, CONFIG)[0]
    changed = ((layout.cells[0] == 5 * 16 + 12) | (layout.cells[0] == 5 * 16 + 13)) & layout.valid[0]
    assert (found[changed.any(-1)] > 0.1).all() and found[~changed.any(-1)].abs().max() < 1e-9


def test_weights_are_constant_inside_every_box():
    layout, objects = scene(BOXES, BOXES[:2])
    student, teacher = random_maps(2)
    weights = ray_weights(ray_discrepancy(student, teacher, layout, WARM), layout, objects, WARM)
    for b in range(2):
        for number in range(1, int(objects[b].max()) + 1):
            inside = weights[b][objects[b] == number]
            assert len(inside) and inside.min() == inside.max() > 0


def test_the_teacher_gets_no_gradient_and_weights_none():
    layout, objects = scene(BOXES)
    student, teacher = random_maps(1)
    weighted_loss(student, teacher, layout, objects, WARM).backward()
    weights = ray_weights(ray_discrepancy(student, teacher, layout, WARM), layout, objects, WARM).detach()
    expected = weights.unsqueeze(1) * (student - teacher).sign() / student[0].numel()
    assert teacher.grad is None and torch.allclose(student.grad, expected.detach(), atol=1e-14)


@pytest.mark.parametrize("change", [{}, {"detach_weight": False}, {"standardize": True}])
def test_gradients_in_float64(change):
    layout, objects = scene(BOXES)
    student, teacher = random_maps(1, channels=3)
    config = replace(WARM, **change)
    weights = ray_weights(ray_discrepancy(student, teacher, layout, config), layout, objects, config).detach()
    if "detach_weight" in change:
        assert torch.autograd.gradcheck(
            lambda x: weighted_loss(x, teacher, layout, objects, config), (student,), fast_mode=True
        )
        return
    # A detached weight is no function that a numerical gradient could see: hold it still by hand.
    (gradient,) = torch.autograd.grad(weighted_loss(student, teacher, layout, objects, config), student)
    if "standardize" in change:
        assert (
            gradient.isfinite().all() and gradient.sum((0, 2, 3)).abs().max() < 1e-12
        )  # shifts don't matter
        return
    still = torch.autograd.functional.jacobian(
        lambda x: (weights * (x - teacher.detach()).abs().mean(1)).mean(), student
    )
    assert torch.allclose(gradient, still, atol=1e-14)


def test_channel_sum_is_channels_times_the_mean():
    layout, objects = scene(BOXES)
    student, teacher = random_maps(1)
    mean, total = (
        weighted_loss(student, teacher, layout, objects, replace(WARM, channel_reduction=r))
        for r in ("mean", "sum")
    )
    assert torch.isclose(6 * mean, total)


def test_standardized_maps_have_no_scale():
    layout, objects = scene(BOXES)
    student, teacher = random_maps(1)
    config = replace(WARM, standardize=True)
    losses = [weighted_loss(s, teacher, layout, objects, config) for s in (student, 50 * student + 3)]
    assert torch.isclose(*losses, rtol=1e-6) and losses[0] > 0


def test_without_objects_the_background_still_teaches():
    layout, objects = scene(EMPTY, boxes((40.0, 0.0, 4.0, 2.0, 0.0)))
    student, teacher = random_maps(2)
    loss = weighted_loss(student, teacher, layout, objects, WARM)
    loss.backward()
    assert loss > 0 and student.grad.ne(0).any()
    silent = weighted_loss(student, teacher, layout, objects, replace(WARM, background=0.0))
    assert silent.item() == 0.0 and silent.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype):
    layout, objects = scene(BOXES)
    student, teacher = (1000 * m.detach() for m in random_maps(1, dtype=torch.float32))
    half = student.to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = weighted_loss(half, teacher.to(dtype), layout, objects, CONFIG)
    exact = weighted_loss(half.detach().float(), teacher.to(dtype).float(), layout, objects, CONFIG)
    loss.backward()
    assert loss.dtype == torch.float32 and torch.isclose(loss, exact)
    assert loss.isfinite() and half.grad.isfinite().all()
