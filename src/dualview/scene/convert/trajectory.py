"""The vehicle's path through the world, at any time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from dualview.errors import BagError
from dualview.geometry.rigid import interpolate_rigid


@dataclass(frozen=True)
class Trajectory:
    """Poses world_from_ego [T, 4, 4] float64 (m) at rising stamps [T] int64 (ns).

    Raises BagError if there are fewer than one pose or stamps don't rise.
    """

    stamps_ns: np.ndarray
    poses: np.ndarray
    max_extrapolation_ns: int = 150_000_000
    max_hole_ns: int = 1_000_000_000

    def __post_init__(self) -> None:
        if len(self.stamps_ns) == 0 or len(self.stamps_ns) != len(self.poses):
            raise BagError(
                f"{len(self.poses)} ego poses for {len(self.stamps_ns)} stamps: the source's pose table is "
                "incomplete"
            )
        if (np.diff(self.stamps_ns) <= 0).any():
            raise BagError("the stamps of the ego poses don't rise: the source's pose table is damaged")

    def pose_at(self, stamp_ns: int) -> np.ndarray | None:
        """world_from_ego [4, 4] at a time: linear in position and slerp in rotation between the two poses
        around it.

        Up to `max_extrapolation_ns` outside the trajectory the motion of the first or last interval goes on;
        farther away, or in a hole between poses longer than `max_hole_ns`, the answer is None. A single pose
        stands for its own stamp only.
        """
        if len(self.stamps_ns) == 1:
            return self.poses[0].copy() if stamp_ns == self.stamps_ns[0] else None
        outside = max(int(self.stamps_ns[0]) - stamp_ns, stamp_ns - int(self.stamps_ns[-1]))
        if outside > self.max_extrapolation_ns:
            return None
        after = int(np.clip(np.searchsorted(self.stamps_ns, stamp_ns), 1, len(self.stamps_ns) - 1))
        start, end = int(self.stamps_ns[after - 1]), int(self.stamps_ns[after])
        if stamp_ns == start or stamp_ns == end:
            return self.poses[after - 1 if stamp_ns == start else after].copy()
        if end - start > self.max_hole_ns:
            return None
        fraction = (stamp_ns - start) / (end - start)
        if 0.0 <= fraction <= 1.0:
            return interpolate_rigid(self.poses[after - 1], self.poses[after], fraction)
        before, behind = self.poses[after - 1], self.poses[after]
        turn = Rotation.from_matrix(before[:3, :3].T @ behind[:3, :3]).as_rotvec()
        pose = np.eye(4)
        pose[:3, :3] = before[:3, :3] @ Rotation.from_rotvec(fraction * turn).as_matrix()
        pose[:3, 3] = (1.0 - fraction) * before[:3, 3] + fraction * behind[:3, 3]
        return pose

    def twist_at(self, stamp_ns: int, half_window_ns: int = 100_000_000) -> tuple[np.ndarray, np.ndarray]:
        """Linear [3] (m/s) and angular [3] (rad/s) velocity along the ego axes, by differences over a short
        window.

        Zero where fewer than two poses are known around the time.
        """
        poses = [
            (t, self.pose_at(t)) for t in (stamp_ns - half_window_ns, stamp_ns, stamp_ns + half_window_ns)
        ]
        known = [(t, pose) for t, pose in poses if pose is not None]
        if len(known) < 2:
            return np.zeros(3), np.zeros(3)
        (t0, first), (t1, last) = known[0], known[-1]
        here = poses[1][1] if poses[1][1] is not None else first
        seconds = (t1 - t0) / 1e9
        linear = here[:3, :3].T @ (last[:3, 3] - first[:3, 3]) / seconds
        angular = Rotation.from_matrix(first[:3, :3].T @ last[:3, :3]).as_rotvec() / seconds
        return linear, angular
