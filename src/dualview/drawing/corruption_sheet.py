"""One frame under every corruption at every severity, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from dualview.drawing.palette import BACKGROUND
from dualview.drawing.text import TextLayer
from dualview.errors import BagError
from dualview.scene.assembler import AssemblerSettings, ClosedFrame
from dualview.scene.bag_reader import BagReader
from dualview.scene.corruptions.catalogue import CORRUPTIONS, SEVERITIES, TITLES
from dualview.scene.corruptions.corruption import Corruption
from dualview.scene.corruptions.encoded import decode_fully
from dualview.scene.offline import iterate_frames
from dualview.scene.rig import Rig

_GAP, _HEAD, _SIDE = 6, 26, 104
_ALL_CAMERAS = ("camera_crash", "frame_lost")  # one camera alone wouldn't show what happens


def frame_images(path: str | Path, rig: Rig, seconds: float = 0.0) -> dict[str, tuple[int, np.ndarray]]:
    """Camera -> (stamp, RGB pixels uint8 [h, w, 3] at the recorded size) of the first frame `seconds` after the first image.

    Only frames with all of the rig's cameras count. Raises BagError if there is none.
    """
    with BagReader(path) as bag:
        first = None
        for closed in iterate_frames(bag, rig, AssemblerSettings.for_rig(rig)):
            first = closed.stamp_ns if first is None else first
            if not isinstance(closed, ClosedFrame) or closed.stamp_ns < first + seconds * 1e9:
                continue
            images = {c.name: c.image for c in closed.cameras if c.image is not None}
            if len(images) == len(rig.cameras):
                return {name: (image.stamp_ns, decode_fully(image)) for name, image in images.items()}
    raise BagError(f"{path} has no frame with all cameras of rig '{rig.name}' from {seconds:g} s on")


def corruption_sheet(
    images: Mapping[str, tuple[int, np.ndarray]], camera: str, seed: int = 0, width: int = 400
) -> np.ndarray:
    """A picture uint8 [H, W, 3]: a row for each corruption, a column for each severity, after one for the clean frame.

    images: camera -> (stamp, pixels uint8 [h, w, 3]) in the rig's order. camera: the one that is shown; where whole cameras
    fail, all are shown. width: of a cell, px.
    """
    order, number = list(images), list(images).index(camera)
    height = round(width * images[camera][1].shape[0] / images[camera][1].shape[1])
    rows, columns = len(CORRUPTIONS), 1 + len(SEVERITIES)
    sheet = np.full(
        (_HEAD + rows * (height + _GAP), _SIDE + columns * (width + _GAP), 3), BACKGROUND, np.uint8
    )
    words = TextLayer()
    for column, title in enumerate(("clean", *SEVERITIES)):
        words.add((_SIDE + column * (width + _GAP) + width / 2, _HEAD - 8), title, 14, anchor="ms")
    for row, name in enumerate(CORRUPTIONS):
        top = _HEAD + row * (height + _GAP)
        for line, word in enumerate(TITLES[name].split(" ")):
            words.add((_SIDE - 8, top + height / 2 + 16 * line), word, 13, anchor="rs")
        for column in range(columns):
            corruption = Corruption(name, SEVERITIES[column - 1], seed) if column else None
            shown = {order[number]: images[camera]} if name not in _ALL_CAMERAS else images
            cells = [
                pixels
                if corruption is None
                else corruption.image(pixels, order.index(who), len(order), stamp)
                for who, (stamp, pixels) in shown.items()
            ]
            left = _SIDE + column * (width + _GAP)
            sheet[top : top + height, left : left + width] = _tiled(cells, (height, width))
    return words.draw(sheet)


def _tiled(cells: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Pictures in at most three columns, fitted into uint8 [height, width, 3]."""
    height, width = size
    across = min(len(cells), 3)
    down = -(-len(cells) // across)
    gap = 0 if len(cells) == 1 else 2
    whole = np.full((height, width, 3), BACKGROUND, np.uint8)
    for index, cell in enumerate(cells):
        w = (width - gap * (across - 1)) // across
        h = min((height - gap * (down - 1)) // down, round(w * cell.shape[0] / cell.shape[1]))
        w = min(w, round(h * cell.shape[1] / cell.shape[0]))
        x, y = (index % across) * (width + gap) // across, (height - down * h - gap * (down - 1)) // 2
        y += (index // across) * (h + gap)
        whole[y : y + h, x : x + w] = cv2.resize(cell, (w, h), interpolation=cv2.INTER_AREA)
    if len(cells) > 1:  # black images must be told from the paper
        whole[(whole == BACKGROUND).all(-1)] = (96, 104, 112)
    return whole
