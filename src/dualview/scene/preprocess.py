"""From encoded images to network pixels: decode, undistort, resize, once.

JPEGs are decoded at the smallest DCT scale that is still at least as large as the network needs, so that a 1600x900 image for a
352-wide network costs a sixteenth of the pixels. A lens that distorts is undone by one table per camera that reads the decoded image
at the network's pixels. Geometry: scale so that the image covers the network's size, keep the middle of the width
and the bottom of the height (the top is sky), as Sparse4D and BEVDet do in testing. An upright image (Argoverse 2's front
camera, 1550x2048) under a landscape network keeps the middle of the height: its bottom half ends at the horizon, above
which all that is far away rises.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import cv2
import numpy as np
import simplejpeg
import torch

from dualview.errors import ImageError
from dualview.geometry.camera_models import undistortion_map
from dualview.scene.assembler import CameraInput, ClosedFrame
from dualview.scene.calibration import CameraCalibration
from dualview.scene.frame import SurroundFrame
from dualview.scene.images import EncodedImage, decode_raw

_HALF_PIXEL = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])  # centre convention -> edge convention
_JPEG_BEGINS = b"\xff\xd8"


@dataclass(frozen=True)
class ImageMapping:
    """How a recorded image becomes network pixels: scaled to `resized` (height, width), then cut at `top`, `left`."""

    resized: tuple[int, int]
    top: int
    left: int

    @staticmethod
    def covering(source: tuple[int, int], target: tuple[int, int]) -> ImageMapping:
        """The mapping of a (height, width) source that covers a (height, width) target; the middle of the width and the bottom of the
        height are kept, of an upright image for a target that isn't the middle of both."""
        scale = max(target[0] / source[0], target[1] / source[1])
        height, width = max(round(source[0] * scale), target[0]), max(round(source[1] * scale), target[1])
        upright = source[0] > source[1] and target[0] <= target[1]
        spare = height - target[0]
        return ImageMapping((height, width), spare // 2 if upright else spare, (width - target[1]) // 2)

    def intrinsics(self, calibration: CameraCalibration) -> np.ndarray:
        """Intrinsics [3, 3] float64 of the network image, edge convention (see `SurroundFrame`)."""
        scale = np.diag([self.resized[1] / calibration.width, self.resized[0] / calibration.height, 1.0])
        cut = np.array([[1.0, 0.0, -self.left], [0.0, 1.0, -self.top], [0.0, 0.0, 1.0]])
        return cut @ scale @ _HALF_PIXEL @ calibration.pinhole_intrinsics


@dataclass
class _Camera:
    """What is worked out once per camera and calibration."""

    calibration: CameraCalibration
    mapping: ImageMapping
    intrinsics: np.ndarray
    tables: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)  # by decoded size


class ImagePreprocessor:
    """Turns the images that a `ClosedFrame` chose into a `SurroundFrame` of one size.

    image_size: (height, width) of the network's input, px. workers: threads that decode; 1 stays in the caller's thread.
    """

    def __init__(self, image_size: tuple[int, int], workers: int = 1) -> None:
        self.image_size = image_size
        self._cameras: dict[str, _Camera] = {}
        self._pool = ThreadPoolExecutor(workers, "decode") if workers > 1 else None

    def build(self, closed: ClosedFrame) -> tuple[SurroundFrame, dict[str, str]]:
        """The frame, and the cameras that it had to mask with the reason for each (those of `closed` included)."""
        count = len(closed.cameras)
        problems = dict(closed.problems)
        images = np.zeros((count, 3, *self.image_size), np.uint8)
        mask = np.zeros(count, bool)
        intrinsics = np.tile(np.eye(3), (count, 1, 1))
        map_images = self._pool.map if self._pool else map
        usable = [i for i, camera in enumerate(closed.cameras) if camera.image is not None]
        prepared = map_images(lambda i: self._prepare(closed.cameras[i]), usable)
        for i, result in zip(usable, prepared, strict=True):
            if isinstance(result, ImageError):
                problems[closed.cameras[i].name] = str(result)
            else:
                pixels, camera = result
                images[i], intrinsics[i], mask[i] = pixels.transpose(2, 0, 1), camera.intrinsics, True
        stamps = [c.image.stamp_ns if m and c.image else closed.stamp_ns for c, m in zip(closed.cameras, mask, strict=True)]
        frame = SurroundFrame(
            stamp_ns=closed.stamp_ns,
            images=torch.from_numpy(images),
            camera_stamps_ns=torch.tensor(stamps, dtype=torch.int64),
            intrinsics=torch.from_numpy(intrinsics).float(),
            ego_from_camera=torch.from_numpy(np.stack([c.ego_from_camera for c in closed.cameras])).float(),
            world_from_ego=torch.from_numpy(np.stack([c.world_from_ego for c in closed.cameras])),
            world_from_ego_anchor=torch.from_numpy(closed.world_from_ego),
            camera_mask=torch.from_numpy(mask),
            camera_names=tuple(c.name for c in closed.cameras),
            points=None if closed.points is None else torch.from_numpy(closed.points),
            label_map=None if closed.label_map is None else torch.from_numpy(closed.label_map),
        )
        return frame, problems

    def _prepare(self, given: CameraInput) -> tuple[np.ndarray, _Camera] | ImageError:
        name, image, calibration = given.name, given.image, given.calibration
        assert image is not None and calibration is not None  # the assembler gives both or neither
        camera = self._cameras.get(name)
        if camera is None or not camera.calibration.same_as(calibration):
            mapping = ImageMapping.covering((calibration.height, calibration.width), self.image_size)
            camera = self._cameras[name] = _Camera(calibration, mapping, mapping.intrinsics(calibration))
        try:
            return self._pixels(image, camera), camera
        except ImageError as error:
            return error

    def _pixels(self, image: EncodedImage, camera: _Camera) -> np.ndarray:
        """uint8 [H, W, 3] RGB at network size."""
        mapping, calibration = camera.mapping, camera.calibration
        decoded = decode_at_least(image, mapping.resized, (calibration.height, calibration.width))
        height, width = self.image_size
        if calibration.is_rectified:
            if decoded.shape[:2] != mapping.resized:
                decoded = cv2.resize(decoded, mapping.resized[::-1], interpolation=cv2.INTER_AREA)
            return decoded[mapping.top : mapping.top + height, mapping.left : mapping.left + width]
        if decoded.shape[0] >= 2 * mapping.resized[0]:  # a table alone would skip pixels
            decoded = cv2.resize(decoded, mapping.resized[::-1], interpolation=cv2.INTER_AREA)
        size = decoded.shape[:2]
        if size not in camera.tables:
            scale = np.diag([size[1] / calibration.width, size[0] / calibration.height, 1.0])
            to_centres = np.linalg.inv(_HALF_PIXEL)
            table = undistortion_map(
                to_centres @ scale @ _HALF_PIXEL @ calibration.intrinsics,
                calibration.distortion_model, calibration.distortion,
                to_centres @ camera.intrinsics, self.image_size,
            )  # fmt: skip
            camera.tables[size] = (np.ascontiguousarray(table[..., 0]), np.ascontiguousarray(table[..., 1]))
        u, v = camera.tables[size]
        return cv2.remap(decoded, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def decode_at_least(image: EncodedImage, needed: tuple[int, int], expected: tuple[int, int]) -> np.ndarray:
    """RGB pixels uint8 [h, w, 3] of an image, at the smallest scale that is cheap and >= `needed` (height, width).

    Raises ImageError if the bytes are broken, the encoding is unknown, or the recorded size isn't `expected`.
    """
    if not image.compressed:
        _check_size((image.height, image.width), expected)
        return decode_raw(image)
    if bytes(image.data[:2]) == _JPEG_BEGINS:
        try:
            height, width, *_ = simplejpeg.decode_jpeg_header(image.data)
            _check_size((height, width), expected)
            eighths = _dct_eighths((height, width), needed)
            smallest = (height * eighths // 8, width * eighths // 8)
            return simplejpeg.decode_jpeg(image.data, "RGB", True, True, *smallest, 1)
        except ValueError as error:
            raise ImageError(f"the JPEG is broken ({error}): check the camera driver and the link") from error
    try:
        pixels = cv2.imdecode(np.frombuffer(image.data, np.uint8), cv2.IMREAD_COLOR) if len(image.data) else None
    except cv2.error:
        pixels = None
    if pixels is None:
        why = "can't be decoded: JPEG and PNG are understood" if len(image.data) else "is empty: check the camera driver"
        raise ImageError(f"the compressed image (format '{image.encoding}') {why}")
    _check_size(pixels.shape[:2], expected)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _dct_eighths(size: tuple[int, int], needed: tuple[int, int]) -> int:
    """The smallest DCT scale n/8 that covers `needed` and gives whole pixels.

    A scale that doesn't divide the size leaves a part of a pixel at the edge, and the image would no longer be the whole view.
    """
    return next(
        (n for n in range(1, 8) if all(s * n % 8 == 0 and s * n // 8 >= m for s, m in zip(size, needed, strict=True))), 8
    )


def _check_size(size: tuple[int, int], expected: tuple[int, int]) -> None:
    if tuple(size) != tuple(expected):
        raise ImageError(
            f"the image is {size[1]}x{size[0]} but its camera_info says {expected[1]}x{expected[0]}: "
            "the camera_info belongs to another image size"
        )
