"""Refinement: an instance corrects its box and says what it is and how good (Sparse4Dv3, arXiv 2311.11722,
section 3.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dualview.networks.anchor_encoder import linear_relu_norm
from dualview.networks.box_state import HEADING, STATE_SIZE, VELOCITY

CENTERNESS, YAWNESS = 0, 1  # the two quality logits
IMPOSSIBLE = -20.0  # class logit


@dataclass(frozen=True)
class Refined:
    """anchors [B, N, 11]; class_logits [B, N, classes] and quality [B, N, 2] (centerness, yawness logits),
    None where not asked."""

    anchors: Tensor
    class_logits: Tensor | None
    quality: Tensor | None

    @property
    def computed_class_logits(self) -> Tensor:
        """The class logits where they must be there. Raises ValueError if this layer was not asked for them."""
        if self.class_logits is None:
            raise ValueError(
                "this layer computed no classes; run the decoder in training mode, or read its last layer"
            )
        return self.class_logits

    def without(self, dropped: Tensor) -> Refined:
        """The same, with no class likely for the instances of `dropped` (bool [B, N])."""
        return replace(self, class_logits=self.computed_class_logits.masked_fill(dropped.unsqueeze(-1), IMPOSSIBLE))


class Scale(nn.Module):
    """A learned factor for every output number."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(count))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Refinement(nn.Module):
    """Adds a residual to every number of the box state; the velocity's residual is a displacement, divided by
    the interval.

    Boxes and quality come from feature + embedding, classes from the feature alone. refine_yaw False replaces
    sine and cosine's residual form: they are then predicted outright, as the published code does;
    normalize_yaw makes them a unit vector. The vertical velocity, which nothing supervises, is zero unless
    `free_vertical_velocity`.
    """

    def __init__(
        self,
        dims: int,
        class_count: int,
        with_quality: bool = True,
        refine_yaw: bool = True,
        normalize_yaw: bool = False,
        free_vertical_velocity: bool = False,
        class_prior: float = 0.01,
    ) -> None:
        super().__init__()
        self.refine_yaw, self.normalize_yaw = refine_yaw, normalize_yaw
        self.free_vertical_velocity = free_vertical_velocity
        self.box = nn.Sequential(
            *linear_relu_norm(2, 2, dims), nn.Linear(dims, STATE_SIZE), Scale(STATE_SIZE)
        )
        self.classes = nn.Sequential(*linear_relu_norm(1, 2, dims), nn.Linear(dims, class_count))
        self.quality = (
            nn.Sequential(*linear_relu_norm(1, 2, dims), nn.Linear(dims, 2)) if with_quality else None
        )
        nn.init.constant_(self.classes[-1].get_parameter("bias"), -math.log((1 - class_prior) / class_prior))

    def forward(
        self,
        features: Tensor,
        anchors: Tensor,
        embedding: Tensor,
        interval: Tensor | float,
        with_classes: bool = True,
        evidence: Tensor | None = None,
    ) -> Refined:
        """features, embedding [B, N, C]; interval [B] (s) since the last frame, or one number; never zero.
        evidence: class logits [B, N, classes] known from elsewhere, to which this layer's are added.
        """
        placed = features + embedding
        residual = self.box(placed).to(anchors.dtype)
        interval = torch.as_tensor(interval, dtype=anchors.dtype, device=anchors.device).reshape(-1, 1, 1)
        heading = residual[..., HEADING]
        if self.refine_yaw:
            heading = heading + anchors[..., HEADING]
        if self.normalize_yaw:
            heading = F.normalize(heading, dim=-1)
        velocity = anchors[..., VELOCITY] + residual[..., VELOCITY] / interval
        if not self.free_vertical_velocity:
            velocity = F.pad(velocity[..., :2], (0, 1))
        refined = torch.cat([anchors[..., :6] + residual[..., :6], heading, velocity], -1)
        if not with_classes:
            return Refined(refined, None, None)
        quality = None if self.quality is None else self.quality(placed)
        classes = self.classes(features)
        return Refined(refined, classes if evidence is None else classes + evidence, quality)

    def start_from_what_is_known(self) -> None:
        """Let an untrained layer change nothing: no residual of the box, no class logits of its own.

        For instances that come with a good box and class; Deformable DETR (arXiv 2010.04159, section 4.2 and its code) begins its
        two-stage variant so.
        """
        for branch in (self.box[-2], self.classes[-1]):
            nn.init.zeros_(branch.get_parameter("weight"))
            nn.init.zeros_(branch.get_parameter("bias"))
