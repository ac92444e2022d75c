"""A corruption at work: what it does to which camera at which instant.

Everything random is drawn from (seed, corruption, camera, stamp of the image), not from a generator that runs along:
any image can be corrupted on its own, in any order, and a recording, a replay and a training clip get the same pixels.
What lasts is drawn without the stamp:

| corruption | lasts for the whole run | new in every image |
|---|---|---|
| camera crash | which cameras are black | |
| frame lost | | whether the image is black |
| motion blur | | direction: a vehicle shakes |
| low light | | noise |
| fog | each camera's fog, which drifts slowly across the view | |
| snow | the direction in which it falls | flakes: they are gone in a tenth of a second |

RoboBEV draws fog and the direction of snow anew for every image; over a sequence that flickers as no weather does.
The severities share their draws: a camera that is black at "easy" is black at "hard" too.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from dualview.scene.corruptions import catalogue, pixels
from dualview.scene.corruptions.catalogue import CORRUPTIONS, REFERENCE_CAMERAS, SEVERITIES
from dualview.scene.corruptions.fields import plasma, snow_layer
from dualview.scene.frame import SurroundFrame

_FOG_SECONDS = 20  # in which fog drifts by one width of the image
_FOGGY_DRIVES = 4  # whose fog is kept at a time: more slots of a training batch are seldom in it at once


@dataclass(frozen=True)
class Corruption:
    """One corruption of a whole recording. name: of `CORRUPTIONS`; severity: of `SEVERITIES`; seed: not negative.

    Raises ValueError naming what there is.
    """

    name: str
    severity: str
    seed: int = 0

    def __post_init__(self) -> None:
        for what, value, known in (
            ("corruption", self.name, CORRUPTIONS),
            ("severity", self.severity, SEVERITIES),
        ):
            if value not in known:
                raise ValueError(f"there is no {what} '{value}': choose one of {', '.join(known)}")
        if self.seed < 0:
            raise ValueError(f"the seed of a corruption must not be negative, got {self.seed}")

    @property
    def level(self) -> int:
        """0, 1, 2: index into the tables of the catalogue."""
        return SEVERITIES.index(self.severity)

    def is_black(self, camera: int, cameras: int, stamp_ns: int) -> bool:
        """Whether camera number `camera` of `cameras` shows nothing in its image of `stamp_ns`."""
        if self.name == "camera_crash":
            return camera in self._crashed(cameras)
        if self.name == "frame_lost":
            return self._random(camera, stamp_ns).random() < catalogue.LOST_SHARE[self.level]
        return False

    def image(self, image: np.ndarray, camera: int, cameras: int, stamp_ns: int) -> np.ndarray:
        """uint8 [H, W, 3] RGB -> the corrupted image, of the same size; the argument isn't changed.

        camera: its number in the rig's order; cameras: how many the rig has; stamp_ns: the image's own stamp.
        """
        if self.name in ("camera_crash", "frame_lost"):
            black = self.is_black(camera, cameras, stamp_ns)
            return pixels.black_out(image) if black else image.copy()
        if self.name == "color_quant":
            return pixels.quantize_colors(image, catalogue.COLOR_BITS[self.level])
        if self.name == "brightness":
            return pixels.brighten(image, catalogue.BRIGHTNESS[self.level])
        random = self._random(camera, stamp_ns)
        if self.name == "motion_blur":
            angle = math.radians(random.uniform(-45, 45))
            return pixels.blur_by_motion(image, catalogue.MOTION_BLUR[self.level], angle)
        if self.name == "low_light":
            return pixels.darken(image, catalogue.LOW_LIGHT[self.level], random)
        if self.name == "fog":
            thickness = self._fog(image.shape[:2], camera, stamp_ns)
            return pixels.add_fog(image, catalogue.FOG[self.level].amount, thickness)
        snow = catalogue.SNOW[self.level]
        angle = math.radians(self._random().uniform(-135, -45))
        return pixels.add_snow(image, snow.mix, snow_layer(image.shape[:2], snow, angle, random))

    def frame(self, frame: SurroundFrame) -> SurroundFrame:
        """The frame with corrupted images; masks, poses and calibration stay, and so do the images of masked cameras."""
        count = len(frame.images)
        images = frame.images.clone()
        for camera in range(count):
            if frame.camera_mask[camera]:
                given = np.ascontiguousarray(frame.images[camera].permute(1, 2, 0).numpy())
                made = self.image(given, camera, count, int(frame.camera_stamps_ns[camera]))
                images[camera] = torch.from_numpy(np.ascontiguousarray(made.transpose(2, 0, 1)))
        return replace(frame, images=images)

    def _random(self, *keys: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, CORRUPTIONS.index(self.name), *keys])

    def _crashed(self, cameras: int) -> set[int]:
        """Drawn with replacement, as in the benchmark. A rig of other than six cameras loses the same share of draws, one at
        least.
        """
        draws = [max(math.floor(n * cameras / REFERENCE_CAMERAS + 0.5), 1) for n in catalogue.CRASHED_CAMERAS]
        return set(self._random().integers(cameras, size=draws[-1])[: draws[self.level]].tolist())

    def _fog(self, image_size: tuple[int, ...], camera: int, stamp_ns: int) -> np.ndarray:
        """This camera's fog at an instant: [height, width] float32 in 0..1."""
        height, width = image_size
        size = 1 << (max(height, width) - 1).bit_length()
        decay = catalogue.FOG[self.level].decay
        fields = _fog_fields(self.seed, size, decay)
        if camera not in fields:
            fields[camera] = _fog_field(self.seed, camera, size, decay)
        field = fields[camera]
        drift = stamp_ns * width // (_FOG_SECONDS * 10**9) % size
        return np.roll(field[:height], drift, axis=1)[:, :width]


@functools.lru_cache(maxsize=_FOGGY_DRIVES)
def _fog_fields(seed: int, size: int, decay: float) -> dict[int, np.ndarray]:
    """The fields of one fog by camera, filled as they are made. Kept because every frame needs them again, and for all cameras
    together, since those come in turn: a cache of fields that doesn't hold all of them never has the next one.
    """
    return {}


def _fog_field(seed: int, camera: int, size: int, decay: float) -> np.ndarray:
    """One camera's field [size, size], the same whenever it is made."""
    field = plasma(size, decay, np.random.default_rng([seed, CORRUPTIONS.index("fog"), camera]))
    field.setflags(write=False)
    return field
