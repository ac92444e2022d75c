"""Keypoints: where on its box an instance looks (Sparse4D, arXiv 2211.10581, section 3.3; seven fixed, six
learned)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dualview.networks.box_state import CENTER, COS_YAW, LOG_SIZE, SIN_YAW, VELOCITY

FIXED_KEYPOINTS: tuple[tuple[float, float, float], ...] = (
    (0.0, 0.0, 0.0),
    (0.45, 0.0, 0.0), (-0.45, 0.0, 0.0),
    (0.0, 0.45, 0.0), (0.0, -0.45, 0.0),
    (0.0, 0.0, 0.45), (0.0, 0.0, -0.45),
)  # fmt: skip
"""Fractions of (length, width, height) from the centre: the centre itself and nearly the middle of each
face."""


class KeypointGenerator(nn.Module):
    """anchors [B, N, 11], features [B, N, C] -> keypoints [B, N, K, 3] (m, the anchors' frame), fixed ones
    first.

    A keypoint is R(yaw) (offset * size) + centre; learned offsets are sigmoid(Linear(feature)) - 0.5, inside
    the box. R is built from the state's raw sine and cosine.
    """

    fixed_offsets: Tensor

    def __init__(
        self,
        dims: int,
        fixed: tuple[tuple[float, float, float], ...] = FIXED_KEYPOINTS,
        learned_count: int = 6,
        random_fixed: bool = False,
    ) -> None:
        super().__init__()
        offsets = torch.tensor(fixed, dtype=torch.float32).reshape(-1, 3)
        if random_fixed:  # what the published initialisation makes of them
            nn.init.xavier_uniform_(offsets)
        # A buffer: stored with the weights, never trained, out of the reach of initialisers that walk over
        # parameters.
        self.register_buffer("fixed_offsets", offsets)
        self.count = len(fixed) + learned_count
        self.learned_offsets = nn.Linear(dims, learned_count * 3) if learned_count else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier weights and zero bias for the learned offsets."""
        if self.learned_offsets is not None:
            nn.init.xavier_uniform_(self.learned_offsets.weight)
            nn.init.zeros_(self.learned_offsets.bias)

    def forward(self, anchors: Tensor, features: Tensor | None = None) -> Tensor:
        """Without `features` only the fixed keypoints are given."""
        offsets = self.fixed_offsets.to(anchors.dtype).expand(*anchors.shape[:2], -1, -1)
        if self.learned_offsets is not None and features is not None:
            learned = self.learned_offsets(features).to(anchors.dtype).sigmoid() - 0.5
            offsets = torch.cat([offsets, learned.unflatten(-1, (-1, 3))], -2)
        x, y, z = (offsets * anchors[..., None, LOG_SIZE].exp()).unbind(-1)
        sin, cos = anchors[..., SIN_YAW, None], anchors[..., COS_YAW, None]
        return torch.stack([x * cos - y * sin, x * sin + y * cos, z], -1) + anchors[..., None, CENTER]


def project_keypoints(
    keypoints: Tensor, anchors: Tensor, target_from_source: Tensor, elapsed: Tensor
) -> Tensor:
    """Keypoints [B, N, K, 3] of anchors [B, N, 11], moved with the anchors' velocity and into another frame.

    target_from_source [B, 4, 4]; elapsed [B] (s), target time minus source time (Sparse4D, eq. 4).
    """
    moved = keypoints + anchors[..., None, VELOCITY] * elapsed.to(keypoints.dtype).view(-1, 1, 1, 1)
    transform = target_from_source.to(keypoints.dtype)[:, None, None]
    return (transform[..., :3, :3] * moved.unsqueeze(-2)).sum(-1) + transform[..., :3, 3]
