"""Corrupting images as messages carry them: decoded at full size, corrupted, encoded as before.

RoboBEV keeps its corrupted images as JPEG too. Evaluating a recording on the fly and evaluating a corrupted copy of it
therefore see the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import simplejpeg

from dualview.errors import ImageError
from dualview.scene.assembler import ClosedFrame
from dualview.scene.corruptions.corruption import Corruption
from dualview.scene.images import EncodedImage
from dualview.scene.preprocess import decode_at_least

_QUALITY = 95  # of JPEG: high, so that the corruption is what is measured
_PNG_BEGINS = b"\x89PNG"


def decode_fully(image: EncodedImage) -> np.ndarray:
    """RGB pixels uint8 [h, w, 3] at the size they were recorded. Raises ImageError if they can't be decoded."""
    if not image.compressed:
        size = (image.height, image.width)
    else:
        data = bytes(image.data)
        try:
            size = simplejpeg.decode_jpeg_header(data)[:2]
        except ValueError as error:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
            if pixels is None:
                raise ImageError(
                    f"the compressed image (format '{image.encoding}') can't be decoded"
                ) from error
            size = pixels.shape[:2]
    pixels = decode_at_least(image, size, size)
    return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB) if pixels.ndim == 2 else pixels


def corrupt_encoded(image: EncodedImage, corruption: Corruption, camera: int, cameras: int) -> EncodedImage:
    """The corrupted image, encoded as it was: JPEG or PNG, or raw (bgr8 as bgr8, every other encoding as rgb8).

    camera: its number in the rig's order. An image that can't be decoded is left as it is: it will be masked.
    """
    try:
        pixels = decode_fully(image)
    except ImageError:
        return image
    pixels = np.ascontiguousarray(corruption.image(pixels, camera, cameras, image.stamp_ns))
    if not image.compressed:
        height, width = pixels.shape[:2]
        encoding = "bgr8" if image.encoding.lower() == "bgr8" else "rgb8"
        data = np.ascontiguousarray(pixels[..., ::-1]) if encoding == "bgr8" else pixels
        return replace(
            image, data=data.reshape(-1), encoding=encoding, height=height, width=width, step=3 * width
        )
    if bytes(image.data[:4]) == _PNG_BEGINS:
        _, encoded = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
        return replace(image, data=encoded.reshape(-1))
    jpeg = simplejpeg.encode_jpeg(pixels, _QUALITY, "RGB", "420")
    return replace(image, data=np.frombuffer(jpeg, np.uint8))


CorruptImage = Callable[[EncodedImage, Corruption, int, int], EncodedImage]  # as `corrupt_encoded`


def corrupt_closed(
    closed: ClosedFrame, corruption: Corruption, corrupt_image: CorruptImage = corrupt_encoded
) -> ClosedFrame:
    """A frame that is ready to be decoded, with corrupted images. corrupt_image: what makes them."""
    count = len(closed.cameras)
    cameras = tuple(
        camera
        if camera.image is None
        else replace(camera, image=corrupt_image(camera.image, corruption, number, count))
        for number, camera in enumerate(closed.cameras)
    )
    return replace(closed, cameras=cameras)
