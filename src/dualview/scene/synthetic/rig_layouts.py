"""Where the cameras and the LiDAR of a synthetic vehicle sit. Add a layout by adding data to `LAYOUTS`.

Figures of the `nuscenes` layout are a typical nuScenes vehicle's, those of `pandaset` a PandaSet vehicle's, rounded; both with square
pixels. Intrinsics are for the native image size and count from the image's upper left corner.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dualview.errors import ConfigError


@dataclass(frozen=True)
class CameraLayout:
    """One camera: native picture size (px), focal length and principal point (px), place (m) and direction (degrees) on the vehicle."""

    name: str
    width: int
    height: int
    focal: float
    principal: tuple[float, float]
    position: tuple[float, float, float]
    yaw: float  # to the left of straight ahead
    pitch: float = 0.0  # positive looks down
    roll: float = 0.0
    exposure_ms: float = 0.0  # after the instant of the set

    def ego_from_camera(self, raised: float = 0.0, extra_pitch: float = 0.0) -> np.ndarray:
        """Transform [4, 4] from the optical frame (z forward, x right, y down), mounting raised (m) and tilted down (degrees)."""
        yaw, pitch, roll = np.radians([self.yaw, self.pitch + extra_pitch, self.roll])
        cy, sy, cp, sp, cr, sr = (
            np.cos(yaw),
            np.sin(yaw),
            np.cos(pitch),
            np.sin(pitch),
            np.cos(roll),
            np.sin(roll),
        )
        turn = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1.0]]) @ np.array(
            [[cp, 0, sp], [0, 1.0, 0], [-sp, 0, cp]]
        )
        turn = turn @ np.array([[1.0, 0, 0], [0, cr, -sr], [0, sr, cr]])
        optical = np.array(
            [[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]]
        )  # columns: where x right, y down, z forward point to
        transform = np.eye(4)
        transform[:3, :3] = turn @ optical
        transform[:3, 3] = np.asarray(self.position) + [0, 0, raised]
        return transform


@dataclass(frozen=True)
class LidarLayout:
    """A spinning LiDAR: place (m), turn of its frame (degrees; nuScenes' x points right), beam elevations (degrees), columns a turn."""

    name: str
    position: tuple[float, float, float]
    yaw: float
    elevations: tuple[float, ...]
    columns: int = 1024
    range: float = 75.0  # m
    range_noise: float = 0.015  # m, standard deviation

    def ego_from_lidar(self) -> np.ndarray:
        transform = np.eye(4)
        c, s = np.cos(np.radians(self.yaw)), np.sin(np.radians(self.yaw))
        transform[:2, :2] = [[c, -s], [s, c]]
        transform[:3, 3] = self.position
        return transform


@dataclass(frozen=True)
class RigLayout:
    """A vehicle's sensors. `rig`: the rig file whose topics and frames the bag uses. `image_size`: default (height, width)."""

    name: str
    rig: str
    cameras: tuple[CameraLayout, ...]
    lidar: LidarLayout
    image_size: tuple[int, int]


_HDL32 = tuple(float(e) for e in np.round(np.linspace(-30.67, 10.67, 32), 3))
_PANDAR64 = tuple(
    round(float(e), 3) for e in (*np.linspace(-25, -7, 8), *np.linspace(-6, 2, 48), *np.linspace(3, 15, 8))
)
_WAYMO64 = tuple(round(float(e), 3) for e in np.linspace(-17.6, 2.4, 64))

NUSCENES = RigLayout(
    "nuscenes", "synthetic",
    (
        CameraLayout("cam_front", 1600, 900, 1266.4, (816.3, 491.5), (1.70, 0.016, 1.51), 0.3, 0.3, 0.0, 0.0),
        CameraLayout("cam_front_right", 1600, 900, 1260.8, (808.0, 495.3), (1.55, -0.493, 1.50), -56.5, 0.5, 0.0, 7.9),
        CameraLayout("cam_front_left", 1600, 900, 1272.6, (826.6, 479.8), (1.52, 0.495, 1.51), 55.5, 0.4, 0.0, -7.6),
        CameraLayout("cam_back", 1600, 900, 809.2, (829.2, 481.8), (0.03, 0.003, 1.58), 180.1, -0.1, 0.0, 25.0),
        CameraLayout("cam_back_left", 1600, 900, 1256.7, (792.1, 492.8), (1.04, 0.485, 1.59), 108.4, 0.4, 0.0, 35.0),
        CameraLayout("cam_back_right", 1600, 900, 1259.5, (807.3, 501.2), (1.01, -0.481, 1.56), -110.1, 0.6, 0.0, 15.4),
    ),
    LidarLayout("lidar_top", (0.94, 0.0, 1.84), -90.0, _HDL32), (450, 800),
)  # fmt: skip

PANDASET = RigLayout(
    "pandaset", "pandaset",
    (
        CameraLayout("front_camera", 1920, 1080, 1970.0, (970.0, 483.3), (1.90, 0.0, 1.80), 0.0, 0.2, 0.0, 50.0),
        CameraLayout("front_left_camera", 1920, 1080, 929.9, (972.2, 508.0), (1.75, 0.55, 1.60), 42.0, 0.0, 0.0, 39.0),
        CameraLayout("front_right_camera", 1920, 1080, 930.0, (965.1, 463.4), (1.75, -0.55, 1.60), -42.0, 0.0, 0.0, 61.0),
        CameraLayout("left_camera", 1920, 1080, 930.3, (991.7, 541.6), (0.95, 0.70, 1.60), 88.0, 0.0, 0.0, 19.0),
        CameraLayout("right_camera", 1920, 1080, 922.5, (945.1, 517.6), (0.95, -0.70, 1.60), -90.0, 0.0, 0.0, 81.0),
        CameraLayout("back_camera", 1920, 1080, 934.0, (896.5, 507.4), (0.10, 0.0, 1.65), 180.0, 0.0, 0.0, 0.0),
    ),
    LidarLayout("pandar64", (0.95, 0.0, 2.05), -90.0, _PANDAR64, 900, 100.0), (450, 800),
)  # fmt: skip

# Five cameras and nothing behind, as on Waymo's vehicles. Waymo's front pictures have 1280 rows and its side pictures 886; here all have
# 1080, so that one size serves a whole rig. The fields of view (50 degrees) and the 45 degrees between cameras are Waymo's.
WAYMO = RigLayout(
    "waymo", "waymo",
    (
        CameraLayout("front", 1920, 1080, 2060.0, (950.0, 540.0), (1.54, -0.02, 2.12), 0.0, 0.0, 0.0, 0.0),
        CameraLayout("front_left", 1920, 1080, 2060.0, (960.0, 535.0), (1.49, 0.09, 2.12), 45.0, 0.0, 0.0, -10.0),
        CameraLayout("front_right", 1920, 1080, 2060.0, (966.0, 538.0), (1.49, -0.09, 2.12), -45.0, 0.0, 0.0, 10.0),
        CameraLayout("side_left", 1920, 1080, 2055.0, (958.0, 500.0), (1.43, 0.11, 2.12), 90.0, 0.0, 0.0, -20.0),
        CameraLayout("side_right", 1920, 1080, 2055.0, (962.0, 502.0), (1.43, -0.11, 2.12), -90.0, 0.0, 0.0, 20.0),
    ),
    LidarLayout("lidar_top", (1.43, 0.0, 2.18), 0.0, _WAYMO64), (450, 800),
)  # fmt: skip

LAYOUTS = {layout.name: layout for layout in (NUSCENES, PANDASET, WAYMO)}


def find_layout(name: str) -> RigLayout:
    """The layout of that name. Raises ConfigError with the names that there are."""
    if name not in LAYOUTS:
        raise ConfigError(f"no vehicle layout is called '{name}'; choose one of {', '.join(sorted(LAYOUTS))}")
    return LAYOUTS[name]
