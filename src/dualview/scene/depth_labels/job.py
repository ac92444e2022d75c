"""Depth for every image of a recording, by whatever estimates it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from dualview.errors import ImageError
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
    """Images whose map was made now, those whose map was there already, and those that can't be decoded (a sentence each)."""

    made: int
    kept: int
    broken: tuple[str, ...] = ()


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
    number of images done; those that can't be decoded get no map. Raises BagError if the recording has none of the rig's cameras.
    """
    bag.check_rig(rig)
    made = kept = 0
    waiting: list[DepthRequest] = []
    broken: list[str] = []

    def make(requests: list[DepthRequest]) -> None:
        nonlocal made
        for request, depth in zip(requests, estimator(requests) if requests else [], strict=True):
            store.write(request.camera, request.stamp_ns, depth.resized(width))
            made += 1

    def work() -> None:
        try:
            make(waiting)
        except ImageError:  # of one of them
            for request in waiting:
                try:
                    make([request])
                except ImageError as error:
                    broken.append(f"{request.camera} at {request.stamp_ns}: {error}")
        waiting.clear()
        if progress:
            progress(made + kept + len(broken))

    for request in wanted_images(bag, rig, every_s):
        if store.has(request.camera, request.stamp_ns):
            kept += 1
            continue
        waiting.append(request)
        if len(waiting) >= batch:
            work()
    work()
    return DepthCount(made, kept, tuple(broken))


def wanted_images(bag: BagReader, rig: Rig, every_s: float) -> Iterator[DepthRequest]:
    """The images of a recording, thinned out to one of each camera in `every_s` seconds."""
    cameras = {camera.image_topic: camera.name for camera in rig.cameras}
    last: dict[str, int] = {}
    for message in bag.messages(list(cameras)):
        name, image = cameras[message.topic], image_from_message(message.message)
        if name not in last or image.stamp_ns - last[name] >= round(every_s * 1e9) - 1_000_000:
            last[name] = image.stamp_ns
            yield DepthRequest(name, image.stamp_ns, image)
