"""BEVFormer: BEV queries look at the cameras and at the last frame's map, object queries look at the BEV map.

    images --> backbone --> pyramid --------------------+
                                                        v
    BEV queries + ego motion --> [look back, look at the cameras, think] x 3 --> BEV map --> remembered
                                      ^                                             |
    the previous BEV map, turned -----+                                             v
                                    object queries --> [attend, look at the BEV map, refine] x 6 --> boxes --> tracker

Li et al. 2022 (arXiv 2203.17270). The previous map is a value in the state; identities come from the greedy
tracker, since object queries know nothing of the last frame.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from dualview.detectors.bevformer_config import BevFormerDetectorConfig
from dualview.detectors.bevformer_decoding import decode_queries
from dualview.detectors.detector import Detector, StepClock, cells_seen, seen_by_cameras
from dualview.detectors.greedy_tracker import Tracked, Tracks, track
from dualview.detectors.inputs import DetectorInputs, inputs_from_frames
from dualview.detectors.output import BevMap, DetectorOutput, StepTimes
from dualview.detectors.prediction import Prediction
from dualview.detectors.quarter_turn import bev_map_in_ego
from dualview.detectors.state import SlotMemory
from dualview.errors import ConfigError
from dualview.geometry.boxes import Boxes3D
from dualview.geometry.rigid import invert_rigid
from dualview.networks.bev_branch import BevPrediction
from dualview.networks.bevformer_decoder import BevFormerDecoder
from dualview.networks.bevformer_encoder import BevFormerEncoder
from dualview.networks.bevformer_memory import BevMemory, RememberedMap, motion_vector, recall_bev
from dualview.networks.decoder import DecoderOutput
from dualview.networks.denoising_queries import DenoisingQueries
from dualview.networks.feature_pyramid import FeaturePyramid
from dualview.networks.image_backbone import ImageBackbone
from dualview.networks.instance_memory import InstanceMemory
from dualview.ops.bev_pool import BevPoolPlan
from dualview.scene.frame import SurroundFrame


@dataclass(frozen=True)
class BevFormerState:
    """The last frame's BEV map, and the tracks."""

    memory: BevMemory = field(default_factory=BevMemory)
    tracks: Tracks = field(default_factory=Tracks)

    @property
    def next_track_id(self) -> int:
        """The first id that was never given; pass it to `initial_state` after a reset so that no id is used
        twice.
        """
        return self.tracks.next_track_id


class BevFormer(Detector):
    """The detector that `config` describes."""

    image_backbone: ImageBackbone

    def __init__(self, config: BevFormerDetectorConfig) -> None:
        super().__init__(config)
        backbone = config.backbone
        self.image_backbone = ImageBackbone(
            backbone.name, backbone.strides, backbone.widths, backbone.recompute
        )
        self.feature_pyramid = FeaturePyramid(self.image_backbone.channels, config.network.embed_dims)
        self.bev_branch = None
        self.encoder = BevFormerEncoder(config.network)
        self.decoder = BevFormerDecoder(config.network)

    # The network, on batches: what training calls.

    def initial_memory(self) -> BevMemory:
        """Nothing remembered."""
        return BevMemory()

    def forward(
        self,
        inputs: DetectorInputs,
        memory: SlotMemory,
        denoising: DenoisingQueries | None = None,
        plan: BevPoolPlan | None = None,
        with_instances: bool = True,
    ) -> Prediction:
        """One instant of a batch; `memory` is `initial_memory()` or what the last instant's prediction holds.

        with_instances: False lets the decoder rest. No gradient flows into the previous frame.
        """
        bev = self.encode_bev(self.encode_images(inputs.images), inputs, memory)
        decoder = self.decode(bev) if with_instances else None
        return Prediction(decoder, BevPrediction(bev, None), remembered=self.remember(bev, inputs))

    def encode_images(self, images: Tensor) -> list[Tensor]:
        """Normalised images [B, N, 3, H, W] -> pyramid maps [B, N, C, h_i, w_i] of the padded images."""
        height, width = self.config.padded_size
        flat = images.flatten(0, 1)
        flat = F.pad(flat, (0, width - flat.shape[-1], 0, height - flat.shape[-2]))
        maps = self.feature_pyramid(self.image_backbone(flat.contiguous(memory_format=torch.channels_last)))
        return [level.unflatten(0, images.shape[:2]) for level in maps]

    def encode_bev(self, features: list[Tensor], inputs: DetectorInputs, memory: SlotMemory) -> Tensor:
        """The BEV map [B, C, Y, X] of the config's grid, working frame."""
        network = self.config.network
        known = memory if isinstance(memory, BevMemory) else BevMemory()
        moment = (inputs.stamps, inputs.world_from_working)
        motion = motion_vector(
            known, *moment, self.config.working_from_ego_matrix, network.max_interval, network.quirks
        )
        previous = recall_bev(known, *moment, network.grid, network.max_interval, network.quirks)
        return self.encoder(
            features,
            inputs.image_from_working,
            inputs.camera_mask,
            self.config.padded_size,
            motion,
            previous,
        )

    def decode(self, bev: Tensor) -> DecoderOutput:
        """Boxes and classes, of all layers in training."""
        found = self.decoder(bev, all_classes=self.training)
        batch, queries = found.features.shape[:2]
        nobody = torch.full((batch, queries), -1, dtype=torch.int64, device=bev.device)
        never = torch.zeros(batch, dtype=torch.bool, device=bev.device)
        return DecoderOutput(tuple(found.layers), found.features, nobody, never, InstanceMemory())

    def remember(self, bev: Tensor, inputs: DetectorInputs) -> BevMemory:
        """What the next frame starts from."""
        return BevMemory(
            RememberedMap(bev.detach(), inputs.stamps.double(), inputs.world_from_working.double())
        )

    # The detector, frame by frame: what the node, replay and evaluation call.

    def initial_state(self, next_track_id: int = 0) -> BevFormerState:
        """The state before the first frame, and after any break in time; new ids count from
        `next_track_id`.
        """
        return BevFormerState(tracks=Tracks(next_track_id))

    @torch.inference_mode()
    def step(
        self, frame: SurroundFrame, state: BevFormerState, with_bev_map: bool = True
    ) -> tuple[DetectorOutput, BevFormerState]:
        """One frame of one vehicle: see `Detector.step`."""
        if self.training:
            raise ValueError("step() needs evaluation mode: call detector.eval() first")
        config, clock = self.config, StepClock(self.device)
        self._check_cameras(frame)
        inputs = inputs_from_frames([frame], config.image_size, config.working_from_ego_matrix, self.device)
        clock.tick("inputs")
        with self.mixed():
            features = self.encode_images(inputs.images)
            clock.tick("image_encoder")
            bev = self.encode_bev(features, inputs, state.memory)
            clock.tick("bev")
            decoded = self.decode(bev)
        tracked, tracks = self._tracks(decoded, frame, state.tracks)
        clock.tick("decoder")
        working = tracked.boxes.transformed(config.working_from_ego_matrix)  # where the projections start
        seen = seen_by_cameras(
            working.center, inputs.image_from_working[0].cpu(), inputs.camera_mask[0].cpu(), frame.image_size
        )
        bev_map = self._bev_map(bev, inputs) if with_bev_map else None
        clock.tick("output")
        output = DetectorOutput(tracked.boxes, tracked.age, seen.sum(0), bev_map, StepTimes(**clock.seconds))
        return output, BevFormerState(self.remember(bev, inputs), tracks)

    def _check_cameras(self, frame: SurroundFrame) -> None:
        most = self.config.network.camera_count
        if most is not None and len(frame.images) > most:
            raise ConfigError(
                f"the frame has {len(frame.images)} cameras, {self.config.name} learned {most}: leave cameras out of the rig "
                "file, or train a detector with network.camera_count null"
            )
        learned = [name.lower() for name in self.config.camera_names]
        given = [name.lower() for name in frame.camera_names or ()]
        if most is not None and given != learned[: len(given)] and set(given) <= set(learned):
            raise ConfigError(
                f"{self.config.name} tells its cameras apart by their order, which is {', '.join(self.config.camera_names)}: list those of "
                "the rig file so, without a gap"
            )

    def _tracks(self, decoder: DecoderOutput, frame: SurroundFrame, tracks: Tracks) -> tuple[Tracked, Tracks]:
        """Reported boxes of a batch of one with their ids: ego frame, best score first, on the CPU."""
        config = self.config
        (found,) = decode_queries(
            decoder.class_logits,
            decoder.anchors,
            config.max_tracks,
            config.track_threshold,
            config.center_range,
        )
        boxes, count = found.boxes.cpu(), len(found.boxes)
        working = Boxes3D(
            center=boxes[:, :3], size=boxes[:, 3:6], yaw=boxes[:, 6], velocity=boxes[:, 7:10],
            label=found.labels.cpu(), score=found.scores.cpu(), track_id=torch.full((count,), -1),
        )  # fmt: skip
        ego = working.transformed(invert_rigid(config.working_from_ego_matrix))
        pose = frame.world_from_ego_anchor
        return track(tracks, ego, pose, frame.stamp_ns, config.class_names, config.tracking)

    def _bev_map(self, bev: Tensor, inputs: DetectorInputs) -> BevMap:
        """The first sample's map, on the CPU, in the ego frame, and which of its cells some camera sees."""
        working, grid = self.config.working_from_ego_matrix, self.config.network.grid
        return bev_map_in_ego(bev[0].float().cpu(), grid, cells_seen(grid, inputs), working)
