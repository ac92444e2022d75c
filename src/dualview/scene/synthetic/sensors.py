"""The cameras of a drive: a layout's cameras at the recorded size, mounted as the domain wants."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dualview.errors import ConfigError
from dualview.scene.calibration import CameraCalibration
from dualview.scene.synthetic.domains import Domain
from dualview.scene.synthetic.options import DriveOptions
from dualview.scene.synthetic.rig_layouts import CameraLayout, find_layout


@dataclass(frozen=True)
class Calibrated:
    """A camera of the rig as it is recorded: picture size, intrinsics (px from the corner), mounting and exposure offset."""

    layout: CameraLayout
    height: int
    width: int
    intrinsics: np.ndarray
    ego_from_camera: np.ndarray

    def calibration(self) -> CameraCalibration:
        """As camera_info says it: ROS counts pixels from the first one's centre."""
        matrix = self.intrinsics.copy()
        matrix[:2, 2] -= 0.5
        return CameraCalibration(self.width, self.height, matrix)


def calibrated_cameras(options: DriveOptions, domain: Domain) -> list[Calibrated]:
    """The rig's cameras at the wanted size, as the domain mounts them. Raises ConfigError for unknown camera names."""
    layout = find_layout(options.rig)
    names = [c.name for c in layout.cameras]
    unknown = sorted(set(options.cameras) - set(names))
    if unknown:
        raise ConfigError(
            f"layout '{layout.name}' has no camera {', '.join(unknown)}; it has {', '.join(names)}"
        )
    height, width = options.image_size or layout.image_size
    cameras = []
    for camera in layout.cameras:
        if options.cameras and camera.name not in options.cameras:
            continue
        # Other proportions than the camera's own cut the picture at the top and bottom (or sides), around the same optical axis.
        scale = max(width / camera.width, height / camera.height)
        focal = camera.focal * scale * domain.focal_factor
        center = (
            (camera.principal[0] - camera.width / 2) * scale + width / 2,
            (camera.principal[1] - camera.height / 2) * scale + height / 2,
        )
        intrinsics = np.array([[focal, 0, center[0]], [0, focal, center[1]], [0, 0, 1.0]])
        cameras.append(
            Calibrated(
                camera,
                height,
                width,
                intrinsics,
                camera.ego_from_camera(domain.camera_raise, domain.camera_pitch),
            )
        )
    return cameras
