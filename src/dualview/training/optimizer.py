"""Which weights learn at which rate, and how their averages follow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from torch import Tensor, nn

from dualview.detectors.detector import Detector
from dualview.training.recipe_settings import OptimizerSettings


def parameter_groups(
    detector: Detector, settings: OptimizerSettings, others: Iterable[nn.Parameter] = ()
) -> list[dict[str, Any]]:
    """The backbone, the neck, the BEV branch and the rest (with `others`), each with its learning rate."""
    parts: list[tuple[Iterable[nn.Parameter], float]] = []
    if detector.image_backbone is not None:
        parts.append((detector.image_backbone.parameters(), settings.backbone_factor))
    neck = getattr(detector, "feature_pyramid", None)
    if neck is not None and settings.neck_factor != 1.0:  # else it is of the rest, as runs that go on expect
        parts.append((neck.parameters(), settings.neck_factor))
    if detector.bev_branch is not None:
        parts.append((detector.bev_branch.parameters(), settings.bev_factor))
    trained = [([p for p in part if p.requires_grad], factor) for part, factor in parts]
    groups: list[dict[str, Any]] = [
        {"params": part, "lr": settings.learning_rate * factor} for part, factor in trained
    ]
    grouped = {id(p) for group in groups for p in group["params"]}
    everything = chain(detector.parameters(), others)
    rest = [p for p in everything if id(p) not in grouped and p.requires_grad]
    return [*groups, {"params": rest, "lr": settings.learning_rate}]


def set_momentum(optimizer: Any, factor: float) -> None:
    """Of AdamW, in all groups: the first beta is `factor` times its default."""
    for group in optimizer.param_groups:
        group["betas"] = (factor * optimizer.defaults["betas"][0], group["betas"][1])


def growing_average(decay: float) -> Any:
    """Exponential averages whose decay grows from 0.1 while few steps were made, so that random weights are
    soon forgotten.
    """

    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        keep = min(decay, (1 + int(count)) / (10 + int(count)))
        for a, c in zip(averaged, current, strict=True):
            if a.is_floating_point():
                a.lerp_(c.to(a), 1 - keep)
            else:
                a.copy_(c)

    return update
