"""Calibrations that can't be used are refused with the reason."""

import numpy as np
import pytest

from dualview.errors import CalibrationError
from dualview.scene.calibration import CameraCalibration

K = np.array([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]])


def with_value(row: int, column: int, value: float) -> np.ndarray:
    matrix = K.copy()
    matrix[row, column] = value
    return matrix


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, 480, K), "image size 0x480"),
        ((640, 480, with_value(0, 0, float("nan"))), "not finite"),
        ((640, 480, with_value(0, 0, 0.0)), "uncalibrated"),
        ((640, 480, with_value(2, 2, 2.0)), "last row"),
        ((640, 480, K, "fov", np.array([0.9])), "'fov' is not known; known are equidistant, plumb_bob, rational"),
        ((640, 480, K, "plumb_bob", np.array([0.1, 0.2])), "has 4 or 5 coefficients, camera_info gives 2"),
    ],
)
def test_unusable_calibrations_say_why(arguments: tuple, words: str) -> None:
    with pytest.raises(CalibrationError, match=words):
        CameraCalibration(*arguments)


def test_zero_distortion_is_a_rectified_image_whatever_the_model() -> None:
    assert CameraCalibration(640, 480, K, "plumb_bob", np.zeros(5)).is_rectified
    assert CameraCalibration(640, 480, K, "some_vendor_model", np.zeros(0)).is_rectified
    assert not CameraCalibration(640, 480, K, "plumb_bob", np.array([0.1, 0, 0, 0, 0])).is_rectified
    assert CameraCalibration(640, 480, K, "fisheye", np.array([0.1, 0, 0, 0])).distortion_model == "equidistant"
