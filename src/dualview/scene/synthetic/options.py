"""What a synthetic drive is asked to be."""

from __future__ import annotations

from dataclasses import dataclass

from dualview.errors import ConfigError


@dataclass(frozen=True)
class Quality:
    """How carefully pictures are drawn: size of the shadow map (0 = no shadows) and samples for smooth edges."""

    shadow_map: int
    samples: int


QUALITIES = {"draft": Quality(0, 0), "standard": Quality(2048, 0), "fine": Quality(2048, 4)}


@dataclass(frozen=True)
class DriveOptions:
    """One drive. Rates in Hz (`lidar_rate` 0 = no LiDAR, `annotation_rate` 0 = no labels); `image_size` (height, width) or the rig's
    default;    `cameras`: names to record, all if empty. Raises ConfigError for values that make no drive."""

    seed: int = 0
    seconds: float = 10.0
    rig: str = "nuscenes"
    domain: str = "default"
    image_size: tuple[int, int] | None = None
    camera_rate: float = 10.0
    annotation_rate: float = 10.0
    lidar_rate: float = 10.0
    quality: str = "standard"
    jpeg_quality: int = 92
    cameras: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"the seed must be 0 or more, not {self.seed}")
        if not 0.0 < self.seconds <= 600.0:
            raise ConfigError(f"a drive lasts more than 0 and at most 600 seconds, not {self.seconds:g}")
        if not 0.5 <= self.camera_rate <= 60.0:
            raise ConfigError(f"the camera rate must be 0.5 to 60 Hz, not {self.camera_rate:g}")
        if not 0.0 <= self.annotation_rate <= self.camera_rate:
            raise ConfigError(
                f"labels are made at camera instants: the annotation rate must be 0 to {self.camera_rate:g} Hz, "
                f"not {self.annotation_rate:g}"
            )
        if not 0.0 <= self.lidar_rate <= 30.0:
            raise ConfigError(f"the LiDAR rate must be 0 (none) to 30 Hz, not {self.lidar_rate:g}")
        if self.quality not in QUALITIES:
            raise ConfigError(f"there is no quality '{self.quality}'; choose one of {', '.join(QUALITIES)}")
        if not 30 <= self.jpeg_quality <= 100:
            raise ConfigError(f"the JPEG quality must be 30 to 100, not {self.jpeg_quality}")
        if self.image_size is not None and not (
            64 <= self.image_size[0] <= 2160 and 64 <= self.image_size[1] <= 3840
        ):
            raise ConfigError(
                f"the image size must be 64x64 to 3840x2160, not {self.image_size[1]}x{self.image_size[0]}"
            )
