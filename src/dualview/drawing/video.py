"""Pictures in a row: a video that browsers play, or a strip."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from PIL import Image

from dualview.drawing.palette import BACKGROUND
from dualview.errors import DualViewError


class VideoWriter:
    """Writes pictures uint8 [H, W, 3] (H, W even) as H.264 in mp4; use it with `with`.

    The file appears under its name only when it is complete. Raises DualViewError if the first picture's size is odd.
    """

    def __init__(self, path: str | Path, frames_per_second: float = 10.0) -> None:
        self.path = Path(path)
        self.count = 0
        self._partial = self.path.with_name(f".{self.path.name}.partial.mp4")
        self._rate = Fraction(frames_per_second).limit_denominator(1000)
        self._container = av.open(str(self._partial), "w", options={"movflags": "+faststart"})
        self._stream: av.VideoStream | None = None

    def add(self, picture: np.ndarray) -> None:
        """Append a picture; all must have the size of the first."""
        if self._stream is None:
            height, width = picture.shape[:2]
            if height % 2 or width % 2:
                raise DualViewError(
                    f"a video needs even sizes, got {width}x{height}: pad the picture by a pixel"
                )
            options = {"crf": "21", "preset": "veryfast", "threads": "2"}
            self._stream = self._container.add_stream("libx264", rate=self._rate, options=options)
            self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        self.count += 1

    def close(self) -> None:
        """Finish the file; without pictures there is none."""
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))
        self._container.close()
        if self.count:
            self._partial.replace(self.path)
        else:
            self._partial.unlink(missing_ok=True)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._container.close()
            self._partial.unlink(missing_ok=True)


def strip(pictures: list[np.ndarray], gap: int = 6) -> np.ndarray:
    """Pictures uint8 [H, W, 3] one below the other with `gap` px between them."""
    if not pictures:
        raise ValueError("a strip needs at least one picture")
    width = max(p.shape[1] for p in pictures)
    height = sum(p.shape[0] for p in pictures) + gap * (len(pictures) - 1)
    whole = np.full((height, width, 3), BACKGROUND, np.uint8)
    y = 0
    for picture in pictures:
        whole[y : y + picture.shape[0], : picture.shape[1]] = picture
        y += picture.shape[0] + gap
    return whole


def write_picture(path: str | Path, picture: np.ndarray) -> None:
    """Write uint8 [H, W, 3] as PNG or JPEG, by the file's suffix."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
