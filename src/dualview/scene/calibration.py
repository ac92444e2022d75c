"""The calibration of one camera, checked once at the border."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from dualview.errors import CalibrationError
from dualview.geometry.camera_models import DISTORTION_MODELS, canonical_model


@dataclass(frozen=True)
class CameraCalibration:
    """What `sensor_msgs/CameraInfo` says of a camera.

    width, height: px of the image as recorded. intrinsics [3, 3] float64 px, in ROS' convention (pixel centres are whole
    numbers). distortion_model: a name from ROS, '' for a rectified image; distortion [D] float64 in OpenCV's order.
    rectified_intrinsics [3, 3]: the pinhole camera that the image is undistorted to (the left of ROS' P); `intrinsics` where None.

    Raises CalibrationError, naming what is wrong, for sizes or focal lengths that are not positive, for numbers that are not
    finite, for an unknown distortion model, and for a number of coefficients that the model can't have.
    """

    width: int
    height: int
    intrinsics: np.ndarray
    distortion_model: str = ""
    distortion: np.ndarray = field(default_factory=lambda: np.zeros(0))
    rectified_intrinsics: np.ndarray | None = None

    def __post_init__(self) -> None:
        intrinsics = np.asarray(self.intrinsics, dtype=np.float64).reshape(3, 3)
        distortion = np.asarray(self.distortion, dtype=np.float64).ravel()
        if self.width <= 0 or self.height <= 0:
            raise CalibrationError(
                f"camera_info has image size {self.width}x{self.height}: set width and height in its publisher"
            )
        if not (np.isfinite(intrinsics).all() and np.isfinite(distortion).all()):
            raise CalibrationError("camera_info holds numbers that are not finite (NaN or infinity): recalibrate the camera")
        if intrinsics[0, 0] <= 0 or intrinsics[1, 1] <= 0:
            raise CalibrationError(
                f"camera_info has focal lengths {intrinsics[0, 0]:g}, {intrinsics[1, 1]:g} px: "
                "it is uncalibrated; put a calibration into the camera driver or into the rig file"
            )
        if abs(intrinsics[2] - [0.0, 0.0, 1.0]).max() > 1e-9:
            raise CalibrationError(f"the last row of K must be 0 0 1, it is {intrinsics[2].tolist()}")
        model = canonical_model(self.distortion_model)
        if not distortion.any():
            model, distortion = "", np.zeros(0)  # a rectified image, whatever the model is called
        elif model not in DISTORTION_MODELS:
            raise CalibrationError(
                f"distortion model '{self.distortion_model}' is not known; known are "
                f"{', '.join(sorted(DISTORTION_MODELS))}: rectify the images or use one of these"
            )
        elif len(distortion) not in DISTORTION_MODELS[model]:
            raise CalibrationError(
                f"distortion model '{model}' has {' or '.join(map(str, DISTORTION_MODELS[model]))} coefficients, "
                f"camera_info gives {len(distortion)}"
            )
        for name, value in (("intrinsics", intrinsics), ("distortion", distortion), ("distortion_model", model)):
            object.__setattr__(self, name, value)

    @property
    def is_rectified(self) -> bool:
        """True if pixels follow the pinhole model without undistortion."""
        return self.distortion_model == ""

    @property
    def pinhole_intrinsics(self) -> np.ndarray:
        """Intrinsics [3, 3] float64 of the undistorted image at the recorded size, pixel centres on whole numbers."""
        if self.is_rectified or self.rectified_intrinsics is None:
            return self.intrinsics
        return self.rectified_intrinsics

    def same_as(self, other: CameraCalibration) -> bool:
        """Equal in every number (dataclass equality doesn't work on arrays)."""
        return (
            (self.width, self.height, self.distortion_model) == (other.width, other.height, other.distortion_model)
            and np.array_equal(self.intrinsics, other.intrinsics)
            and np.array_equal(self.distortion, other.distortion)
            and np.array_equal(self.pinhole_intrinsics, other.pinhole_intrinsics)
        )
