"""Depth for every image of a recording, by whatever estimates it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from dualview.scene.bag_reader import BagReader
from dualview.scene.corruptions.encoded import decode_fully
from dualview.scene.depth_labels.depth_map import DepthMap
from dualview.scene.depth_labels.store import DepthSource, DepthStore
from dualview.scene.images import EncodedImage
from dualview.scene.messages import image_from_message
from dualview.scene.rig import Rig


@dataclass(frozen=True)
class DepthRequest:
    """One image whose depth is wanted."""

    camera: str
    stamp_ns: int
    image: EncodedImage

    @cached_property
    def pixels(self) -> np.ndarray:
        """RGB uint8 [H, W, 3], decoded when first asked for. Raises ImageError."""
        return np.ascontiguousarray(decode_fully(self.image))


class DepthEstimator(Protocol):
    """Anything that knows the depth of images."""

    def source(self, width: int) -> DepthSource:
        """What it is, for maps that are stored with `width` columns."""

    def __call__(self, requests: Sequence[DepthRequest]) -> list[DepthMap]:
        """A map for each image."""


@dataclass(frozen=True)
class DepthCount:
    """Images whose map was made now, and those whose map was there already."""

    made: int
    kept: int


def label_depth(
    bag: BagReader,
    rig: Rig,
    store: DepthStore,
    estimator: DepthEstimator,
    width: int,
    every_s: float = 0.0,
    batch: int = 1,
    progress: Callable[[int], None] | None = None,
) -> DepthCount:
    """Make the maps that aren't there yet. every_s: at most one image of each camera in so many seconds (0 = all). `progress` is told the
    number of images done. Raises BagError if the recording has none of the rig's cameras, ImageError for an image that can't be decoded.
    """
    bag.check_rig(rig)
    made = kept = 0
    waiting: list[DepthRequest] = []

    def work() -> None:
        nonlocal made
        for request, depth in zip(waiting, estimator(waiting) if waiting else [], strict=True):
            store.write(request.camera, request.stamp_ns, depth.resized(width))
            made += 1
        waiting.clear()
        if progress:
            progress(made + kept)

    for request in wanted_images(bag, rig, every_s):
        if store.has(request.camera, request.stamp_ns):
            kept += 1
            continue
        waiting.append(request)
        if len(waiting) >= batch:
            work()
    work()
    return DepthCount(made, kept)


def wanted_images(bag: BagReader, rig: Rig, every_s: float) -> Iterator[DepthRequest]:
    """The images of a recording, thinned out to one of each camera in `every_s` seconds."""
    cameras = {camera.image_topic: camera.name for camera in rig.cameras}
    last: dict[str, int] = {}
    for message in bag.messages(list(cameras)):
        name, image = cameras[message.topic], image_from_message(message.message)
        if name not in last or image.stamp_ns - last[name] >= round(every_s * 1e9) - 1_000_000:
            last[name] = image.stamp_ns
            yield DepthRequest(name, image.stamp_ns, image)
