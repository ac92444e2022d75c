"""Response distillation between centre heads against loops."""

from dataclasses import fields, replace

import pytest
import torch

from dualview.networks.center_head import REGRESSIONS, TaskPrediction
from dualview.supervision.response_distillation import ResponseConfig, response_loss


def random_tasks(seed, classes=(1, 2), batch=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    sizes = {"offset": 2, "height": 1, "log_size": 3, "heading": 2, "velocity": 2}
    return [
        TaskPrediction(
            **{
                name: torch.randn(batch, channels, 3, 4, generator=generator, dtype=dtype).requires_grad_()
                for name, channels in {"heatmap": count, **sizes}.items()
            }
        )
        for count in classes
    ]


def loop_loss(student, teacher, config):
    total = 0.0
    for ours, theirs in zip(student, teacher, strict=True):
        target, found = theirs.heatmap.sigmoid(), ours.heatmap.sigmoid()
        batch, classes, rows, columns = target.shape
        for b in range(batch):
            for c in range(classes):
                for y in range(rows):
                    for x in range(columns):
                        value = (config.floor + target[b, c, y, x]) * (target - found)[b, c, y, x].abs()
                        total = total + value / target.numel()
        for name in REGRESSIONS:
            cells = [
                (getattr(ours, name) - getattr(theirs, name))[b, :, y, x].abs().mean()
                for b in range(batch) for y in range(rows) for x in range(columns)
                if target[b, :, y, x].max() > config.threshold
            ]  # fmt: skip
            total = total + (sum(cells) / len(cells) if cells else 0.0)
    return config.weight * total / (len(student) * 6)


@pytest.mark.parametrize(
    "config", [ResponseConfig(), ResponseConfig(0.5, 0.3, 0.6), ResponseConfig(threshold=0.999)]
)
def test_loss_equals_loops(config):
    student, teacher = random_tasks(0), random_tasks(1)
    loss = response_loss(student, teacher, config)
    assert torch.isclose(loss, loop_loss(student, teacher, config), rtol=1e-9)
    loss.backward()
    for ours, theirs in zip(student, teacher, strict=True):
        for field in fields(TaskPrediction):
            assert getattr(ours, field.name).grad is not None and getattr(theirs, field.name).grad is None


def test_gradients_in_float64():
    teacher = random_tasks(1, (2,), 1)
    student = random_tasks(0, (2,), 1)[0]
    names = [field.name for field in fields(TaskPrediction)]
    assert torch.autograd.gradcheck(
        lambda *values: response_loss([TaskPrediction(*values)], teacher, ResponseConfig(threshold=0.5)),
        tuple(getattr(student, name) for name in names),
    )


def test_a_teacher_that_sees_nothing_teaches_only_its_heatmap():
    student, teacher = random_tasks(0), random_tasks(1)
    blind = [replace(task, heatmap=torch.full_like(task.heatmap, -20.0)) for task in teacher]
    loss = response_loss(student, blind, ResponseConfig())
    loss.backward()
    assert loss > 0 and all(task.offset.grad.eq(0).all() for task in student)


def test_equal_heads_have_no_loss():
    student = random_tasks(0)
    assert response_loss(student, student, ResponseConfig()).item() == 0.0


def test_half_precision_is_widened():
    student, teacher = random_tasks(0, dtype=torch.float32), random_tasks(1, dtype=torch.float32)
    half = [
        TaskPrediction(**{f.name: getattr(t, f.name).detach().half() for f in fields(t)}) for t in student
    ]
    loss = response_loss(half, teacher, ResponseConfig())
    assert loss.dtype == torch.float32
    assert torch.isclose(loss, response_loss(student, teacher, ResponseConfig()), rtol=1e-2)


def test_heads_of_other_tasks_are_refused():
    with pytest.raises(ValueError, match="same tasks"):
        response_loss(random_tasks(0), random_tasks(1, (3,)), ResponseConfig())
    with pytest.raises(ValueError, match="same tasks"):
        response_loss([], [], ResponseConfig())
