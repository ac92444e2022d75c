"""The previous BEV map, carried into the current frame (BEVFormer, arXiv 2203.17270, section 3.4).

A value, not a module: a frame's map with its time and pose. The next frame turns it to its own axes about the
vehicle; the rest of the motion becomes a shift of the points at which temporal self-attention reads it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from dualview.geometry.bev_grid import BevGrid
from dualview.geometry.rigid import invert_rigid, wrap_angle, yaw_of
from dualview.networks.bevformer_config import BevFormerQuirks

MOTION_SIZE = 18
_LONG_AGO = -1e6  # s; further back than any history may reach
_GRAVITY = 9.81  # m/s^2: what an accelerometer at rest shows upwards


@dataclass(frozen=True)
class RememberedMap:
    """A frame's map, detached: features [B, C, Y, X], stamps [B] float64 s, world_from_working [B, 4, 4]
    float64.
    """

    features: Tensor
    stamps: Tensor
    world_from_working: Tensor


@dataclass(frozen=True)
class BevMemory:
    """What the encoder knows before a frame; None: nothing."""

    map: RememberedMap | None = None

    def restarted(self, slots: Tensor) -> BevMemory:
        """The memory with nothing remembered in `slots` (bool [B]); not even a NaN of them is left."""
        if self.map is None or not bool(slots.any()):
            return self
        identity = torch.eye(4, dtype=torch.float64, device=slots.device)
        return BevMemory(
            replace(
                self.map,
                features=torch.where(slots.view(-1, 1, 1, 1), 0, self.map.features),
                stamps=torch.where(slots, _LONG_AGO, self.map.stamps),
                world_from_working=torch.where(slots.view(-1, 1, 1), identity, self.map.world_from_working),
            )
        )

    def broken(self) -> Tensor | None:
        """bool [B]: slots whose map isn't finite. None without memory."""
        return None if self.map is None else ~self.map.features.isfinite().flatten(1).all(1)


@dataclass(frozen=True)
class PreviousBev:
    """The memory seen from the current frame.

    tokens [B, Q, C]: the map turned to the current axes, cells row by row. shift [B, 2] (x, y): how far the vehicle has
    come along the current axes, in fractions of the grid's extent; what lies at a place now lay `shift`
    further in the turned map. valid bool [B]: the gap is short enough.
    """

    tokens: Tensor
    shift: Tensor
    valid: Tensor


def previous_from_current(memory: BevMemory, world_from_working: Tensor) -> Tensor:
    """[B, 4, 4] float64: current working frame -> the remembered one. Raises ValueError without memory or if
    the batch isn't the remembered one.
    """
    if memory.map is None:
        raise ValueError("nothing is remembered: there is no previous frame")
    if len(world_from_working) != len(memory.map.stamps):
        raise ValueError(
            f"the memory holds {len(memory.map.stamps)} samples but the frame has {len(world_from_working)}; "
            "start with an empty memory when the batch changes"
        )
    return invert_rigid(memory.map.world_from_working) @ world_from_working.double()


def recall_bev(
    memory: BevMemory,
    stamps: Tensor,
    world_from_working: Tensor,
    grid: BevGrid,
    max_interval: float,
    quirks: BevFormerQuirks,
) -> PreviousBev | None:
    """The previous map for a frame at `stamps` [B] (float64 s) and `world_from_working` [B, 4, 4] (float64);
    None if nothing is remembered.

    Raises ValueError if the batch isn't the remembered one.
    """
    if memory.map is None:
        return None
    motion = previous_from_current(memory, world_from_working)
    valid = (stamps.double() - memory.map.stamps).abs() <= max_interval
    motion = torch.where(valid[:, None, None], motion, torch.eye(4, dtype=motion.dtype, device=motion.device))
    traveled = (motion[:, :2, :2].mT @ motion[:, :2, 3:]).squeeze(-1)  # along the current axes
    extent = traveled.new_tensor([grid.columns, grid.rows]) * grid.resolution
    turned = turn_map(memory.map.features, yaw_of(motion), grid, quirks)
    tokens = torch.where(valid[:, None, None], turned.flatten(2).transpose(1, 2), 0)
    return PreviousBev(tokens, (traveled / extent).float(), valid)


def turn_map(features: Tensor, angle: Tensor, grid: BevGrid, quirks: BevFormerQuirks) -> Tensor:
    """Maps [B, C, Y, X] seen by a vehicle that has turned by `angle` [B] (rad, counter-clockwise); zero where
    there was no map.
    """
    if quirks.rotation_center is None:
        center = (-grid.x_min / grid.resolution, -grid.y_min / grid.resolution)
    else:
        center = quirks.rotation_center
    device, dtype = features.device, torch.float32
    column = torch.arange(grid.columns, device=device, dtype=dtype) + (0.5 - center[0])
    row = torch.arange(grid.rows, device=device, dtype=dtype) + (0.5 - center[1])
    cos, sin = angle.cos().to(dtype).view(-1, 1, 1), angle.sin().to(dtype).view(-1, 1, 1)
    x = cos * column - sin * row[:, None] + center[0]  # [B, Y, X], cells from the lower corner
    y = sin * column + cos * row[:, None] + center[1]
    locations = torch.stack([2 * x / grid.columns - 1, 2 * y / grid.rows - 1], -1)
    mode = "nearest" if quirks.nearest_rotation else "bilinear"
    return F.grid_sample(features.to(dtype), locations, mode, align_corners=False).to(features.dtype)


def motion_vector(
    memory: BevMemory,
    stamps: Tensor,
    world_from_working: Tensor,
    working_from_ego: Tensor,
    max_interval: float,
    quirks: BevFormerQuirks,
) -> Tensor:
    """What the vehicle did since the remembered frame, [B, 18] float32, laid out as nuScenes' CAN bus pose.

    0:3 displacement (m), 3:7 rotation as a quaternion (w, x, y, z), 7:10 acceleration (m/s^2), 10:13 rate of
    rotation (rad/s), 13:16 velocity (m/s) along the vehicle's axes, 16 heading (rad), 17 change of heading
    (degrees). Velocity and rates are those of the poses, there is no CAN bus. By default everything is
    relative, like the map: displacement along the current working frame's axes, the rotation since the last
    frame, no acceleration, heading 0. `world_motion` gives the published meaning: the ego frame's displacement
    and rotation in the world, gravity as the acceleration, heading in the world in 0..2 pi. Displacement and
    changes are zero without a valid memory.
    """
    batch, device = len(stamps), stamps.device
    motion = torch.eye(4, dtype=torch.float64, device=device).repeat(batch, 1, 1)  # previous from current
    working_from_moving = working_from_ego.to(device).double() if quirks.world_motion else motion[0]
    world_from_moving = world_from_working.double() @ working_from_moving
    elapsed = torch.zeros(batch, dtype=torch.float64, device=device)
    if memory.map is not None:
        working_motion = previous_from_current(memory, world_from_working)
        moved = invert_rigid(working_from_moving) @ working_motion @ working_from_moving
        gap = stamps.double() - memory.map.stamps
        valid = gap.abs() <= max_interval
        motion = torch.where(valid[:, None, None], moved, motion)
        elapsed = torch.where(valid, gap, 0.0)
    per_second = torch.where(elapsed.abs() > 1e-3, 1 / elapsed, 0.0).unsqueeze(1)
    displacement = (motion[:, :3, :3].mT @ motion[:, :3, 3:]).squeeze(-1)  # along the current axes
    change = yaw_of(motion)
    vector = torch.zeros(batch, MOTION_SIZE, dtype=torch.float64, device=device)
    vector[:, 0:3] = displacement
    vector[:, 3:7] = quaternion(motion)
    vector[:, 12] = change * per_second[:, 0]
    vector[:, 13:16] = displacement * per_second
    vector[:, 17] = wrap_angle(change) * (180 / math.pi)
    if quirks.world_motion:
        vector[:, 0:3] = (world_from_moving[:, :3, :3] @ displacement.unsqueeze(-1)).squeeze(-1)
        vector[:, 3:7] = quaternion(world_from_moving)
        vector[:, 9] = _GRAVITY
        vector[:, 16] = torch.remainder(yaw_of(world_from_moving), 2 * math.pi)
    return vector.float()


def quaternion(transform: Tensor) -> Tensor:
    """Rotation of rigid transforms [B, 4, 4] as unit quaternions [B, 4] (w, x, y, z), w >= 0."""
    r = transform[:, :3, :3]
    a, b, c = r[:, 0, 0], r[:, 1, 1], r[:, 2, 2]
    squares = torch.stack([1 + a + b + c, 1 + a - b - c, 1 - a + b - c, 1 - a - b + c], -1)
    sizes = squares.clamp(min=0).sqrt() / 2
    signs = torch.stack(
        [torch.ones_like(a), r[:, 2, 1] - r[:, 1, 2], r[:, 0, 2] - r[:, 2, 0], r[:, 1, 0] - r[:, 0, 1]], -1
    )
    return torch.copysign(sizes, signs)
