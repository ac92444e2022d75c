"""RayD3D's contrastive distillation against loops, and what it must do to shifted maps."""

import math
from dataclasses import replace

import pytest
import torch
from ray_example import BOXES, CONFIG, EMPTY, GRID, boxes, random_maps, scene

from dualview.supervision.ray_contrastive import RayPairs, contrastive_loss, draw_ray_pairs


def draw(layout, objects, config=CONFIG, seed=0):
    return draw_ray_pairs(layout, objects, GRID, config, torch.Generator().manual_seed(seed))


def loop_region(bev, sample, cell, config):
    """Mean of the square around a cell, then its direction."""
    row, column = cell // GRID.columns, cell % GRID.columns
    reach = config.region // 2
    members = [
        bev[sample, :, y, x]
        for y in range(row - reach, row + reach + 1)
        for x in range(column - reach, column + reach + 1)
        if 0 <= y < GRID.rows and 0 <= x < GRID.columns
    ]
    mean = sum(members) / len(members)
    return mean / (mean**2).sum() ** 0.5 if config.normalize_regions else mean


def loop_loss(student, teacher, pairs, config):
    """Equations 2 to 4, one ray after another."""
    both, logs = [], []
    for sample, cells, valid in zip(pairs.sample, pairs.cells, pairs.valid, strict=True):
        used = [int(cell) for cell, good in zip(cells, valid, strict=True) if good]
        ours = [loop_region(student, int(sample), cell, config) for cell in used]
        theirs = [loop_region(teacher, int(sample), cell, config) for cell in used]
        tau = config.contrastive_temperature
        ratios = []
        for query, keys in [(theirs[0], ours), (ours[0], theirs)][: 2 if config.teacher_side else 1]:
            scores = [((query * key).sum() / tau).exp() for key in keys]
            ratios.append(scores[0] / (sum(scores) + config.xi))
        both.append(sum(ratios))
        logs.append(sum(r.log() for r in ratios) / len(ratios))
    if config.contrastive_log == "inner":
        return -config.contrastive_weight * sum(logs) / len(logs)
    constant = math.log(2) if config.teacher_side else 0.0
    return config.contrastive_weight * (constant - (sum(both) / len(both)).log())


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"contrastive_log": "inner", "contrastive_weight": 0.3},
        {"teacher_side": False, "region": 1},
        {"normalize_regions": False, "contrastive_temperature": 1.0, "xi": 0.5},
    ],
)
def test_loss_equals_loops(change):
    config = replace(CONFIG, **change)
    layout, objects = scene(BOXES, EMPTY, BOXES[1:])
    student, teacher = random_maps(3)
    pairs = draw(layout, objects, config)
    loss, slow = contrastive_loss(student, teacher, pairs, config), loop_loss(student, teacher, pairs, config)
    assert torch.isclose(loss, slow, rtol=1e-9)
    (fast,) = torch.autograd.grad(loss, student)
    assert torch.allclose(fast, torch.autograd.grad(slow, student)[0], atol=1e-12)


def test_pairs_lie_where_they_must():
    layout, objects = scene(BOXES, EMPTY)
    flat = objects.flatten(1)
    seen = set()
    for seed in range(30):
        pairs = draw(layout, objects, seed=seed)
        assert set(pairs.sample.tolist()) == {0}
        rays = [set(c[v].tolist()) for c, v in zip(layout.cells[0], layout.valid[0], strict=True)]
        with_object = sum(any(flat[0, cell] > 0 for cell in ray) for ray in rays)
        assert len(pairs.sample) == with_object
        for cells, valid in zip(pairs.cells, pairs.valid, strict=True):
            positive, *negatives = cells[valid].tolist()
            seen.add(positive)
            assert flat[0, positive] > 0 and 1 <= len(negatives) <= 5 == CONFIG.negatives
            assert len(set(negatives)) == len(negatives)
            assert any({positive, *negatives} <= ray for ray in rays)
            for cell in negatives:
                distance = math.dist(divmod(cell, 16), divmod(positive, 16))
                assert flat[0, cell] == 0 and distance > 1.5
    on_rays = set(layout.cells[0][layout.valid[0]].tolist())
    assert seen == on_rays & set(
        (flat[0] > 0).nonzero()[:, 0].tolist()
    )  # every object cell is drawn some time


def draw_share(config, layout, objects, ray_cells, positive):
    """How often each cell of a ray is the only negative, over many copies of that ray."""
    copies = 20000
    many = replace_layout(layout, copies)
    pairs = draw_ray_pairs(many, objects, GRID, config, torch.Generator().manual_seed(5))
    assert pairs.cells[:, 0].eq(positive).all()
    return torch.stack([(pairs.cells[:, 1] == cell).double().mean() for cell in ray_cells])


def replace_layout(layout, copies):
    return type(layout)(layout.cells.repeat(1, copies, 1), layout.valid.repeat(1, copies, 1), layout.nearest)


@pytest.mark.parametrize("kind", ["gaussian", "uniform"])
def test_negatives_have_the_wanted_distribution(kind):
    row = torch.arange(16)[None, None] + 5 * 16  # a straight ray along x
    layout = replace_layout(scene(EMPTY)[0], 1)
    layout = type(layout)(row, torch.ones_like(row, dtype=torch.bool), layout.nearest)
    objects = torch.zeros(1, 12, 16, dtype=torch.int64)
    objects[0, 5, 6] = 1
    config = replace(CONFIG, negatives=1, negative_draw=kind)
    cells = row[0, 0].tolist()
    found = draw_share(config, layout, objects, cells, 5 * 16 + 6)
    weight = torch.tensor([0.0 if abs(k - 6) <= 1.5 else 1.0 for k in range(16)], dtype=torch.float64)
    if kind == "gaussian":
        weight *= torch.tensor([math.exp(-((k - 6) ** 2) / 18) for k in range(16)], dtype=torch.float64)
    expected = weight / weight.sum()
    assert torch.allclose(found, expected, atol=0.015)  # 4 standard deviations at the most likely


def test_shuffled_rays_give_the_same_loss():
    layout, objects = scene(BOXES, BOXES[:2])
    student, teacher = random_maps(2)
    pairs = draw(layout, objects)
    order = torch.randperm(len(pairs.sample), generator=torch.Generator().manual_seed(1))
    shuffled = RayPairs(pairs.sample[order], pairs.cells[order], pairs.valid[order])
    for log in ("outer", "inner"):
        config = replace(CONFIG, contrastive_log=log)
        losses = [contrastive_loss(student, teacher, p, config) for p in (pairs, shuffled)]
        assert torch.isclose(*losses, rtol=1e-12)


def test_rays_in_another_order_give_the_same_loss():
    """From the layout on: with objects of one cell and every negative taken, nothing is left to chance."""
    small = boxes((4.2, 1.3, 0.3, 0.3, 0.4), (-4.6, -3.4, 0.3, 0.3, 1.0))
    layout, objects = scene(small)
    order = torch.randperm(CONFIG.ray_count, generator=torch.Generator().manual_seed(1))
    turned = replace(layout, cells=layout.cells[:, order], valid=layout.valid[:, order])
    student, teacher = random_maps(1)
    config = replace(CONFIG, negatives=GRID.columns + GRID.rows)
    one, other = (draw(chosen, objects, config, seed) for seed, chosen in enumerate((layout, turned)))
    assert len(one.sample) > 2 and not torch.equal(one.cells, other.cells)
    assert torch.isclose(contrastive_loss(student, teacher, one, config), contrastive_loss(student, teacher, other, config), rtol=1e-12)


def bright_object(column):
    """A map [1, 6, Y, X] that says "object" along one direction of features at (row 5, column), "ground" elsewhere."""
    bev = torch.zeros(1, 6, 12, 16, dtype=torch.float64)
    bev[:, 0] = 1.0
    bev[:, :, 5, column] = torch.tensor([0.0, 5.0, 0, 0, 0, 0], dtype=torch.float64)
    return bev


def test_a_student_that_is_a_cell_too_far_has_the_higher_loss():
    pairs = RayPairs(
        torch.tensor([0]), torch.tensor([[86, 88, 90, 84, 82, 92]]), torch.ones(1, 6, dtype=torch.bool)
    )  # the object at column 6 of row 5, negatives on the same row
    teacher = bright_object(6)
    losses = [contrastive_loss(bright_object(6 + k), teacher, pairs, CONFIG).item() for k in (0, 1, 2)]
    assert losses[0] < losses[1] < losses[2]
    assert losses[0] >= -1e-6  # the added log 2 makes 0 the best
    alone = replace(CONFIG, teacher_side=False)  # -log of the student's own ratio r_S
    ratios = [math.exp(-contrastive_loss(bright_object(6 + k), teacher, pairs, alone).item()) for k in (0, 1, 2)]
    assert 1.0 >= ratios[0] > ratios[1] > ratios[2]


def test_the_teacher_gets_no_gradient():
    layout, objects = scene(BOXES)
    student, teacher = random_maps(1)
    contrastive_loss(student, teacher, draw(layout, objects), CONFIG).backward()
    assert teacher.grad is None and student.grad.ne(0).any()


@pytest.mark.parametrize("log", ["outer", "inner"])
def test_gradients_in_float64(log):
    layout, objects = scene(BOXES)
    student, teacher = random_maps(1, channels=3)
    config = replace(CONFIG, contrastive_log=log, contrastive_temperature=0.3)
    pairs = draw(layout, objects, config)
    assert torch.autograd.gradcheck(
        lambda x: contrastive_loss(x, teacher, pairs, config), (student,), fast_mode=True
    )


def test_no_objects_is_zero_with_gradient():
    outside = boxes((40.0, 0.0, 4.0, 2.0, 0.0))
    layout, objects = scene(EMPTY, outside)
    student, teacher = random_maps(2)
    loss = contrastive_loss(student, teacher, draw(layout, objects), CONFIG)
    loss.backward()
    assert loss.item() == 0.0 and student.grad.eq(0).all()


def test_a_map_full_of_one_object_has_no_negatives():
    layout, objects = scene(boxes((0.0, 0.0, 40.0, 40.0, 0.0)))
    assert objects.eq(1).all() and len(draw(layout, objects).sample) == 0


def test_seeded_draws_repeat():
    layout, objects = scene(BOXES)
    first, second, other = (draw(layout, objects, seed=s) for s in (3, 3, 4))
    assert torch.equal(first.cells, second.cells) and not torch.equal(first.cells, other.cells)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype):
    layout, objects = scene(BOXES)
    student, teacher = (1000 * m.detach() for m in random_maps(1, dtype=torch.float32))
    student[..., 3:5, 3:5] = 0  # no direction at all
    half = student.to(dtype).requires_grad_()
    pairs = draw(layout, objects)
    with torch.autocast("cpu", torch.bfloat16):
        loss = contrastive_loss(half, teacher.to(dtype), pairs, CONFIG)
    exact = contrastive_loss(half.detach().float(), teacher.to(dtype).float(), pairs, CONFIG)
    loss.backward()
    assert loss.dtype == torch.float32 and torch.isclose(loss, exact) and half.grad.isfinite().all()
