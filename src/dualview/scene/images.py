"""Images as they come out of a topic, and the raw encodings of ROS."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import cv2
import numpy as np

from dualview.errors import ImageError


@dataclass(frozen=True)
class EncodedImage:
    """One image message, not yet decoded.

    encoding: for compressed images the message's `format`; for raw ones its `encoding`. data: the payload as any bytes-like object.
    height, width, step: of raw images (px, px, bytes a row); 0 for compressed ones.
    """

    stamp_ns: int
    data: bytes | bytearray | memoryview | np.ndarray | array[int]
    encoding: str
    compressed: bool
    frame_id: str = ""
    height: int = 0
    width: int = 0
    step: int = 0


# encoding -> (channels, what cv2 does to get RGB; None = it is RGB already)
_TO_RGB: dict[str, tuple[int, int | None]] = {
    "rgb8": (3, None),
    "8uc3": (3, cv2.COLOR_BGR2RGB),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
    "8uc1": (1, cv2.COLOR_GRAY2RGB),
    "bayer_rggb8": (1, cv2.COLOR_BayerRGGB2RGB),
    "bayer_bggr8": (1, cv2.COLOR_BayerBGGR2RGB),
    "bayer_gbrg8": (1, cv2.COLOR_BayerGBRG2RGB),
    "bayer_grbg8": (1, cv2.COLOR_BayerGRBG2RGB),
    "yuv422": (2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (2, cv2.COLOR_YUV2RGB_YUYV),
    "yuyv": (2, cv2.COLOR_YUV2RGB_YUYV),
}


def decode_raw(image: EncodedImage) -> np.ndarray:
    """RGB pixels uint8 [height, width, 3] of a raw image; may be a view of the message's memory.

    Raises ImageError for an encoding that isn't known and for a payload that is shorter than it says.
    """
    if image.encoding.lower() not in _TO_RGB:
        raise ImageError(f"image encoding '{image.encoding}' is not known; known are {', '.join(sorted(_TO_RGB))}")
    channels, conversion = _TO_RGB[image.encoding.lower()]
    row = image.width * channels
    step = image.step or row
    data = np.frombuffer(image.data, np.uint8)
    if step < row or len(data) < image.height * step:
        raise ImageError(
            f"a raw {image.width}x{image.height} '{image.encoding}' image needs {image.height * max(step, row)} bytes, "
            f"the message has {len(data)} (step {image.step}): the publisher's height, width or step is wrong"
        )
    pixels = data[: image.height * step].reshape(image.height, step)[:, :row]
    if channels > 1:
        pixels = pixels.reshape(image.height, image.width, channels)
    return pixels if conversion is None else cv2.cvtColor(np.ascontiguousarray(pixels), conversion)
