"""The pieces of label making that other processes run: cameras of every shape are seen whole."""

import numpy as np
import simplejpeg
import torch
from label_world import START

from dualview.scene.assembler import CameraInput, ClosedFrame
from dualview.scene.calibration import CameraCalibration
from dualview.scene.images import EncodedImage
from dualview.scene.recorded import LidarSweep
from dualview.teachers.label_jobs import whole_views
from dualview.teachers.lifting import LiftSettings, lift_frame

FORWARD = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])


def camera(name: str, height: int, width: int) -> CameraInput:
    """A camera that looks ahead, 90 degrees along its longer side; its image is red on the left, blue on the right."""
    focal = max(height, width) / 2
    intrinsics = np.array([[focal, 0, width / 2 - 0.5], [0, focal, height / 2 - 0.5], [0, 0, 1]])
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, : width // 2, 0] = picture[:, width // 2 :, 2] = 255
    data = simplejpeg.encode_jpeg(picture, 95, "RGB", "444")
    calibration = CameraCalibration(
        height=height, width=width, intrinsics=intrinsics, distortion_model="", distortion=np.zeros(0)
    )
    return CameraInput(name, EncodedImage(START, data, "jpeg", True), calibration, FORWARD, np.eye(4))


def test_every_camera_keeps_its_own_proportions() -> None:
    """The first camera is upright; the wide one behind it still sees to 44 degrees on both sides."""
    closed = ClosedFrame(START, (camera("upright", 128, 96), camera("wide", 96, 160)), np.eye(4), {})
    frames, masked = whole_views(closed, 80, 16)
    assert not masked
    assert [f.image_size for f in frames] == [(80, 64), (48, 80)]
    assert [f.camera_names for f in frames] == [("upright",), ("wide",)] and all(
        f.camera_mask.all() for f in frames
    )
    torch.testing.assert_close(frames[1].intrinsics[0], torch.tensor([[40.0, 0, 40], [0, 40, 24], [0, 0, 1]]))
    sides = np.array([[20.0, 19.2, 0.0, 1.0], [20.0, -19.2, 0.0, 1.0]], np.float32)  # left, right
    sweep = LidarSweep("/lidar", START, sides, np.zeros(3))
    lifted = lift_frame(frames, [sweep], None, lambda f, c: f.images[c].float(), 3, LiftSettings(voxel=1e-3))
    assert lifted.static.count.tolist() == [1.0, 1.0]  # the upright camera doesn't see so far to the side
    red, _, blue = lifted.static.features[lifted.static.xyz[:, 1].argsort()].T  # right, left
    assert red[0] < 60 < 200 < blue[0] and blue[1] < 60 < 200 < red[1]
