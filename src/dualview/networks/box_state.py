"""The eleven numbers of an anchor, and how they move from one frame to the next.

Sparse4Dv3's box state: x, y, z (m, centre, working frame), ln length, ln width, ln height (ln m), sin yaw,
cos yaw, vx, vy, vz (m/s over ground, along the working frame's axes). Sine and cosine are free numbers, not
normalised anywhere inside the network.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

STATE_SIZE = 11
CENTER = slice(0, 3)
LOG_SIZE = slice(3, 6)
SIN_YAW, COS_YAW = 6, 7
HEADING = slice(6, 8)  # (sin, cos)
VELOCITY = slice(8, 11)


def encode_boxes(boxes: Tensor) -> Tensor:
    """Box states [M, 8 + D] of boxes [M, 7 + D]: (x, y, z, length, width, height, yaw, D velocity
    components)."""
    yaw = boxes[..., 6:7]
    return torch.cat([boxes[..., :3], boxes[..., 3:6].log(), yaw.sin(), yaw.cos(), boxes[..., 7:]], -1)


def decode_boxes(states: Tensor) -> Tensor:
    """Boxes [..., 10] (x, y, z, length, width, height m, yaw rad, velocity m/s) of box states [..., 11]."""
    yaw = torch.atan2(states[..., SIN_YAW], states[..., COS_YAW]).unsqueeze(-1)
    return torch.cat([states[..., CENTER], states[..., LOG_SIZE].exp(), yaw, states[..., VELOCITY]], -1)


def planar_distance(states: Tensor) -> Tensor:
    """Distance [...] (m) of the centres from the origin in the xy plane."""
    return states[..., :2].norm(dim=-1)


def project_anchors(
    anchors: Tensor, target_from_source: Tensor, elapsed: Tensor | None = None, swapped_yaw: bool = False
) -> Tensor:
    """Carry anchors into another frame and to another time (Sparse4D v2, arXiv 2305.14018, eq. 3-6).

    anchors [B, N, 8 + D] in the source frame, D = 3 velocity components (or 2, which then can't be moved in
    time). target_from_source [B, 4, 4], rigid. elapsed [B] (s): target time minus source time; the centre
    first travels with its own velocity for so long, None = it stays. Size is kept; heading and velocity turn
    with the frame. `swapped_yaw` gives the reference's result, cos yaw in the sin slot and the other way
    round. Returns anchors of the same shape, target frame.
    """
    transform = target_from_source.to(anchors.dtype)
    rotation, translation = transform[:, :3, :3], transform[:, :3, 3]
    center, velocity = anchors[..., CENTER], anchors[..., VELOCITY]
    components = velocity.shape[-1]
    if elapsed is not None:
        if components != 3:
            raise ValueError(
                f"anchors with {components} velocity components can't be moved in time; give all three"
            )
        center = center + velocity * elapsed.to(anchors.dtype).view(-1, 1, 1)
    center = rotate(rotation, center) + translation.unsqueeze(1)
    velocity = rotate(rotation[:, :components, :components], velocity)
    heading = rotate(rotation[:, :2, :2], anchors[..., [COS_YAW, SIN_YAW]])  # (cos, sin)
    if not swapped_yaw:
        heading = heading.flip(-1)
    return torch.cat([center, anchors[..., LOG_SIZE], heading, velocity], -1)


def rotate(rotation: Tensor, vectors: Tensor) -> Tensor:
    """vectors [B, N, D] turned by rotation [B, D, D], without a matrix product that autocast would round."""
    return (rotation.unsqueeze(1) * vectors.unsqueeze(-2)).sum(-1)


def spiral_anchors(count: int, max_range: float = 55.0, height: float = 0.0) -> Tensor:
    """Starting anchors [count, 11] when no clustered ones are at hand: spread evenly over a disc of
    `max_range` (m).

    Deterministic (a sunflower spiral); sizes are those of a car, heading along +x, standing still.
    """
    index = torch.arange(count, dtype=torch.float64) + 0.5
    radius, angle = max_range * (index / count).sqrt(), index * (math.pi * (3 - math.sqrt(5)))
    anchors = torch.zeros(count, STATE_SIZE, dtype=torch.float64)
    anchors[:, 0], anchors[:, 1], anchors[:, 2] = radius * angle.cos(), radius * angle.sin(), height
    anchors[:, LOG_SIZE] = torch.tensor([4.0, 1.8, 1.6], dtype=torch.float64).log()
    anchors[:, COS_YAW] = 1.0
    return anchors.float()
