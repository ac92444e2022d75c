"""What makes a detector: the few things that node, replay, evaluation, drawing and training ask of one.

Each detector is a network (`forward`, on batches) and a walker through time (`step`, frame by frame); its
settings say what it needs and what it can be taught. Whatever keeps to this runs everywhere.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from dualview.detectors.bev_colors import BevColors
from dualview.detectors.inputs import DetectorInputs
from dualview.detectors.output import DetectorOutput
from dualview.detectors.prediction import Prediction
from dualview.detectors.state import SlotMemory
from dualview.geometry.bev_grid import BevGrid
from dualview.networks.center_head import CenterHeadConfig
from dualview.networks.decoder_config import DecoderConfig
from dualview.networks.denoising_queries import DenoisingQueries
from dualview.networks.lift_splat import DepthBins
from dualview.ops.bev_pool import BevPoolPlan
from dualview.scene.frame import SurroundFrame
from dualview.scene.sweeps import LidarInput

# m above the ego origin: a BEV cell counts as seen if some camera sees it at one of these heights.
_SEEN_HEIGHTS = (-1.0, 0.0, 1.0, 2.0)


class Settings(Protocol):
    """A detector's configuration, as others read it; a frozen dataclass that travels beside the weights.

    decoder, center_head, bev_grid, lift: what there is to teach (None: the detector has no such part; `lift` is
    None too where the depth of the lift shall not be supervised). lidar: the sweeps it takes, None for cameras
    only. camera_map: the BEV map that it makes of images, None where there is none. score_keys: the fields, by
    dotted path, that together are "the score at which a track is reported".
    """

    score_keys: ClassVar[tuple[str, ...]]

    @property
    def name(self) -> str: ...
    @property
    def image_size(self) -> tuple[int, int]: ...
    @property
    def class_names(self) -> tuple[str, ...]: ...
    @property
    def track_threshold(self) -> float: ...
    @property
    def image_backbone_name(self) -> str | None: ...
    @property
    def pyramid_strides(self) -> tuple[int, ...]: ...
    @property
    def decoder(self) -> DecoderConfig | None: ...
    @property
    def center_head(self) -> CenterHeadConfig | None: ...
    @property
    def bev_grid(self) -> BevGrid | None: ...
    @property
    def lift(self) -> LiftSettings | None: ...
    @property
    def lidar(self) -> LidarInput | None: ...
    @property
    def camera_map(self) -> CameraMap | None: ...
    @property
    def working_from_ego_matrix(self) -> Tensor: ...
    def to_json(self) -> str: ...


class LiftSettings(Protocol):
    """Where depth is predicted for the lift: stride of the image map, and the bins."""

    @property
    def image_stride(self) -> int: ...
    @property
    def depth_bins(self) -> DepthBins: ...


@dataclass(frozen=True)
class CameraMap:
    """A BEV map that a detector makes of images: grid and channels, and the lift behind it, whether or not its depth is
    supervised (None: nothing is lifted).
    """

    grid: BevGrid
    channels: int
    lift: LiftSettings | None


class State(Protocol):
    """What a detector carries from one frame to the next: a value."""

    @property
    def next_track_id(self) -> int: ...


class Detector(nn.Module):
    """Base of all detectors. image_backbone, bev_branch: None where there is none; they may have learning rates of
    their own, and their batch norms are folded for inference.
    """

    image_backbone: Any  # ImageBackbone | None
    bev_branch: Any  # nn.Module | None
    takes_queries = False  # whether `forward` makes use of denoising queries
    takes_known_features = False  # whether `forward` makes use of `DetectorInputs.image_features`

    def __init__(self, config: Settings) -> None:
        super().__init__()
        self.config: Any = config
        self.weights_description = "untrained"
        self.bev_colors: BevColors | None = None  # of pictures of the BEV map, None if the checkpoint names none
        self.folded = False  # batch norms are folded away: for inference only
        self.precision: Literal["fp32", "bf16"] = "fp32"  # of the network in `step`

    @abstractmethod
    def forward(
        self,
        inputs: DetectorInputs,
        memory: Any,
        denoising: DenoisingQueries | None = None,
        plan: BevPoolPlan | None = None,
        with_instances: bool = True,
    ) -> Prediction:
        """One instant of a batch; `memory` is `initial_memory()` or what the last instant's prediction holds.

        denoising, with_instances: for detectors with a decoder (see `DualView.forward`); others pay no heed.
        """

    def initial_memory(self) -> SlotMemory:
        """What `forward` starts from when nothing is remembered."""
        return None

    @abstractmethod
    def initial_state(self, next_track_id: int = 0) -> Any:
        """The state before the first frame, and after any break in time; new ids count from
        `next_track_id`.
        """

    @abstractmethod
    def step(self, frame: SurroundFrame, state: Any, with_bev_map: bool = True) -> tuple[DetectorOutput, Any]:
        """One frame of one vehicle, on the detector's device: (what is seen, the state for the next frame).

        with_bev_map: False leaves the map on its device and `output.bev` None, for callers that only want the tracks.

        Raises ConfigError, with a sentence, for a frame that this detector can't serve. Raises ValueError in
        training mode, whose batch statistics would mix frames.
        """

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def mixed(self) -> torch.autocast:
        """Around the network in `step`, and around nothing else: geometry needs float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def train(self, mode: bool = True) -> Detector:
        """Training or evaluation mode. Raises ValueError for training a detector that was folded for
        inference.
        """
        if mode and self.folded:
            raise ValueError(
                "a detector from dualview.load is for inference, its batch norms are folded away: train one from "
                "load_checkpoint or build_detector"
            )
        return super().train(mode)


def with_score_threshold(config: Settings, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides in which "score_threshold" became the fields of `config` that it stands for."""
    changes = {key: value for key, value in overrides.items() if key != "score_threshold"}
    if overrides.get("score_threshold") is not None:
        changes |= dict.fromkeys(config.score_keys, float(overrides["score_threshold"]))
    return changes


def seen_by_cameras(
    points: Tensor,
    image_from_points: Tensor,
    camera_mask: Tensor,
    image_size: tuple[int, int],
    max_depth: float = float("inf"),
) -> Tensor:
    """Which of N cameras' images hold which points: bool [N, P].

    points [P, 3] m; image_from_points [N, 4, 4]; camera_mask bool [N]; image_size (height, width) px; points
    further than `max_depth` (m) along the optical axis don't count.
    """
    matrix = image_from_points.to(points.dtype)
    projected = points @ matrix[:, :3, :3].mT + matrix[:, None, :3, 3]  # [N, P, 3]
    depth = projected[..., 2]
    u, v = projected[..., 0] / depth, projected[..., 1] / depth
    inside = (u >= 0) & (u < image_size[1]) & (v >= 0) & (v < image_size[0])
    return inside & (depth > 0.1) & (depth < max_depth) & camera_mask.unsqueeze(-1)


def cells_seen(grid: BevGrid, inputs: DetectorInputs, max_depth: float = float("inf")) -> Tensor:
    """bool [Y, X]: cells of the map that some camera of the first sample sees within `max_depth` (m)."""
    cells = grid.cell_centers().view(-1, 1, 2).expand(-1, len(_SEEN_HEIGHTS), -1)
    heights = torch.tensor(_SEEN_HEIGHTS).view(1, -1, 1).expand(cells.shape[0], -1, -1)
    points = torch.cat([cells, heights], -1).flatten(0, 1)
    seen = seen_by_cameras(
        points, inputs.image_from_working[0].cpu(), inputs.camera_mask[0].cpu(), inputs.image_size, max_depth
    )
    return seen.any(0).view(grid.rows, grid.columns, len(_SEEN_HEIGHTS)).any(-1)


class StepClock:
    """Seconds between ticks; on a GPU a tick waits for the work that was queued."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self._wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
        self._last = time.perf_counter()

    def tick(self, part: str) -> None:
        """What happened since the last tick was `part`."""
        self._wait()
        now = time.perf_counter()
        self.seconds[part] = now - self._last
        self._last = now
