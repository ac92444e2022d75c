"""DualView: cameras in, tracked boxes and a bird's-eye-view map out.

    images --> backbone --> pyramid --+------------------------------+--> perspective features
                                      |                              |
                                      +--> depth --> lift-splat --> BEV encoder --> BEV map
                                                                     |          |
    remembered instances --> decoder: attend, look at the BEV map, look at the images, refine
                                      --> boxes, track ids, and what to remember

The network of DualViewDistill (arXiv 2510.10287): Sparse4Dv3's decoder (arXiv 2311.11722) with a BEV branch
beside the images. By configuration it is also Sparse4D (no BEV branch), a BEV-only detector (the decoder
doesn't read the images) and the oracle (the BEV map is made of LiDAR or label maps).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dualview.detectors.box_decoding import decode_instances
from dualview.detectors.config import DetectorConfig
from dualview.detectors.detector import Detector, StepClock, cells_seen, seen_by_cameras
from dualview.detectors.greedy_tracker import Tracked, Tracks, track
from dualview.detectors.inputs import DetectorInputs, image_colors, inputs_from_frames
from dualview.detectors.oracle import with_oracle_inputs
from dualview.detectors.output import BevMap, DetectorOutput, StepTimes
from dualview.detectors.prediction import Prediction
from dualview.detectors.state import DetectorState, TrackAges
from dualview.geometry.boxes import Boxes3D
from dualview.geometry.rigid import invert_rigid
from dualview.networks.bev_aggregation import BevView
from dualview.networks.bev_branch import BevBranch, BevInstant, BevPrediction
from dualview.networks.center_head import CenterHead, TaskPrediction, propose_anchors
from dualview.networks.class_evidence import ClassEvidence
from dualview.networks.decoder import Decoder, DecoderOutput
from dualview.networks.denoising_queries import DenoisingQueries
from dualview.networks.dense_depth import DenseDepth
from dualview.networks.depth_net import camera_vector
from dualview.networks.dual_memory import DualMemory
from dualview.networks.feature_pyramid import FeaturePyramid
from dualview.networks.image_backbone import ImageBackbone, backbone_maps
from dualview.networks.instance_memory import InstanceMemory
from dualview.networks.lift_splat import plan_lift
from dualview.networks.oracle_branch import OracleBranch
from dualview.networks.perspective_aggregation import CameraViews
from dualview.ops.bev_pool import BevPoolPlan
from dualview.scene.frame import SurroundFrame

__all__ = ["DualView", "Prediction"]


class DualView(Detector):
    """The detector that `config` describes. `anchors` [N, 11]: where its anchors start (an even spiral if not
    given).
    """

    takes_queries = True
    takes_known_features = True

    def __init__(self, config: DetectorConfig, anchors: Tensor | None = None) -> None:
        super().__init__(config)
        channels = config.decoder.embed_dims
        self.image_backbone = ImageBackbone(
            config.backbone.name, config.backbone.strides, config.backbone.widths, config.backbone.recompute
        )
        self.feature_pyramid = FeaturePyramid(
            self.image_backbone.channels, channels, blocks=config.neck_blocks
        )
        self.dense_depth = (
            DenseDepth(channels, config.dense_depth_levels) if config.dense_depth_levels else None
        )
        self.bev_branch = None
        if config.bev is not None and config.oracle is not None:
            reads = config.oracle
            layers = 0 if reads.lidar is None else reads.height_layers
            self.bev_branch = OracleBranch(config.bev, channels, layers, reads.map_channels)
        elif config.bev is not None:
            self.bev_branch = BevBranch(config.bev, channels, channels)
        self.decoder = Decoder(config.decoder, anchors)
        self.center_head = None if config.center_head is None else CenterHead(config.center_head, channels)
        if config.center_head is not None and config.center_head.evidence:
            self.decoder.start_from_what_is_known()

    # The network, on batches: what training calls.

    def forward(
        self,
        inputs: DetectorInputs,
        memory: InstanceMemory,
        denoising: DenoisingQueries | None = None,
        plan: BevPoolPlan | None = None,
        with_instances: bool = True,
    ) -> Prediction:
        """One instant of a batch; `memory` is what the last instant's prediction holds.

        denoising: training queries. plan: from `bev_plan`, if the caller knows that geometry and masks
        haven't changed. with_instances: False lets the decoder rest, for training what lies before it.
        """
        features = self.encode_images(inputs.images, inputs.image_features)
        bev = self.encode_bev(features, inputs, plan, memory)
        center = self.find_centers(bev)
        decoder = self.decode(features, bev, inputs, memory, denoising, center) if with_instances else None
        depth = []
        if self.training and self.dense_depth is not None:
            depth = self.dense_depth(features, inputs.focal_length)
        return Prediction(decoder, bev, depth, center, image_features=features if self.training else [])

    def encode_images(self, images: Tensor, known: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Normalised images [B, N, 3, H, W] -> pyramid maps [B, N, C, h_i, w_i], fine to coarse. known: what the backbone
        says of them, if that is known already.
        """
        maps = self.feature_pyramid(backbone_maps(self.image_backbone, images, known))
        return [level.unflatten(0, images.shape[:2]) for level in maps]

    def bev_plan(self, inputs: DetectorInputs) -> BevPoolPlan:
        """Where the lift's frustum points fall; the same as long as projection matrices and masks are."""
        bev, size = self.config.bev, inputs.image_size
        feature_size = size[0] // bev.image_stride, size[1] // bev.image_stride
        return plan_lift(bev, inputs.image_from_working, inputs.camera_mask, size, feature_size)

    def encode_bev(
        self,
        features: list[Tensor],
        inputs: DetectorInputs,
        plan: BevPoolPlan | None = None,
        memory: InstanceMemory | None = None,
    ) -> BevPrediction | None:
        """The BEV map of pyramid maps, with what `memory` holds of earlier maps; None without a BEV branch."""
        if self.bev_branch is None:
            return None
        if self.config.oracle is not None:
            return self.bev_branch(inputs.points, inputs.label_map)
        level = self.config.backbone.strides.index(self.config.bev.image_stride)
        vector = camera_vector(
            inputs.intrinsics, inputs.working_from_camera, inputs.image_augmentation, inputs.bev_augmentation
        )
        plan, instant = self.bev_plan(inputs) if plan is None else plan, None
        if self.bev_branch.needs_instant:
            colors = None
            if self.config.bev.depth_field is not None:
                colors = image_colors(inputs.images) if inputs.colors is None else inputs.colors
            instant = BevInstant(
                inputs.image_size, colors, inputs.image_from_working, inputs.camera_mask, inputs.stamps,
                inputs.world_from_working, DualMemory.history_of(memory),
            )  # fmt: skip
        return self.bev_branch(features[level], vector, plan, instant)

    def find_centers(self, bev: BevPrediction | None) -> list[TaskPrediction]:
        """The centre head's tasks; empty without a head, and in evaluation if the decoder takes nothing from it."""
        if self.center_head is None or bev is None:
            return []
        head = self.config.center_head
        if not self.training and not head.proposals and not head.evidence:
            return []
        return self.center_head(bev.features)

    def decode(
        self,
        features: list[Tensor],
        bev: BevPrediction | None,
        inputs: DetectorInputs,
        memory: InstanceMemory,
        denoising: DenoisingQueries | None = None,
        center: list[TaskPrediction] | None = None,
    ) -> DecoderOutput:
        """Boxes, classes and the next memory. center: from `find_centers`, where instances may start and what they may be."""
        views = bev_view = proposals = evidence = None
        if center and self.config.center_head.proposals:
            proposals = propose_anchors(center, self.config.bev.grid, self.config.center_head.proposals)
        if center and self.config.center_head.evidence:
            evidence = ClassEvidence.of(center, self.config.center_head.tasks, self.config.bev.grid)
        if self.config.decoder.use_perspective:
            projection = inputs.image_from_working.float()
            views = CameraViews(features, projection, inputs.image_size, inputs.camera_mask)
        if bev is not None:
            bev_view = BevView(bev.features, self.config.bev.grid)
        return self.decoder(
            views, bev_view, inputs.stamps, inputs.world_from_working, memory, denoising, proposals, evidence
        )

    # The detector, frame by frame: what the node, replay and evaluation call.

    def initial_memory(self) -> InstanceMemory:
        """Nothing remembered."""
        return InstanceMemory()

    def initial_state(self, next_track_id: int = 0) -> DetectorState:
        """The state before the first frame, and after any break in time; new ids count from
        `next_track_id`.
        """
        tracks = None if self.config.tracking is None else Tracks(next_track_id)
        return DetectorState(self.decoder.initial_memory(next_track_id), tracks=tracks)

    @torch.inference_mode()
    def step(
        self, frame: SurroundFrame, state: DetectorState, with_bev_map: bool = True
    ) -> tuple[DetectorOutput, DetectorState]:
        """One frame of one vehicle, on the detector's device: (what is seen, the state for the next frame).

        with_bev_map: False leaves the map on its device and `output.bev` None, for callers that only want the tracks.

        Raises ConfigError, with a sentence, for a frame that this detector can't serve: no cameras, images of
        another size, numbers that aren't finite. Raises ValueError in training mode, whose batch statistics
        would mix frames.
        """
        if self.training:
            raise ValueError("step() needs evaluation mode: call detector.eval() first")
        clock = StepClock(self.device)
        inputs = inputs_from_frames(
            [frame], self.config.image_size, self.config.working_from_ego_matrix, self.device
        )
        if self.config.oracle is not None:
            inputs = with_oracle_inputs(inputs, frame, self.config.oracle)
        clock.tick("inputs")
        with self.mixed():
            features = self.encode_images(inputs.images)
            clock.tick("image_encoder")
            bev = self.encode_bev(features, inputs, memory=state.memory)
            clock.tick("bev")
            decoder = self.decode(features, bev, inputs, state.memory, center=self.find_centers(bev))
            clock.tick("decoder")
        found, ages, followed = self._tracks(decoder, state, frame)
        working = found.boxes.transformed(self.config.working_from_ego_matrix)  # where the projections start
        seen = seen_by_cameras(
            working.center, inputs.image_from_working[0].cpu(), inputs.camera_mask[0].cpu(), frame.image_size
        )
        bev_map = self._bev_map(bev, inputs) if bev is not None and with_bev_map else None
        clock.tick("output")
        output = DetectorOutput(found.boxes, found.age, seen.sum(0), bev_map, StepTimes(**clock.seconds))
        memory = DualMemory.joined(decoder.memory, None if bev is None else bev.history)
        return output, DetectorState(memory, ages, followed)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.decoder.initial_anchors.device

    def _tracks(
        self, decoder: DecoderOutput, state: DetectorState, frame: SurroundFrame
    ) -> tuple[Tracked, TrackAges, Tracks | None]:
        """What is reported of a batch of one, and what the next state takes along: ages of ids, tracks."""
        boxes, config = self._boxes(decoder), self.config
        if config.tracking is not None and state.tracks is not None:
            pose: Tensor = frame.world_from_ego_anchor
            found, tracks = track(state.tracks, boxes, pose, frame.stamp_ns, config.class_names, config.tracking)
            return found, state.ages, tracks
        boxes = boxes[boxes.track_id >= 0]
        remembered = decoder.memory.instances.track_ids[0].cpu()
        ages = TrackAges(remembered, state.ages.of(remembered))
        return Tracked(boxes, state.ages.of(boxes.track_id)), ages, None

    def _boxes(self, decoder: DecoderOutput) -> Boxes3D:
        """Boxes of a batch of one, with the ids of their instances: ego frame, best score first, on the CPU."""
        (decoded,) = decode_instances(
            decoder.class_logits, decoder.anchors, decoder.quality, decoder.track_ids,
            self.config.max_tracks, self.config.track_threshold,
        )  # fmt: skip
        ids = decoder.track_ids[0, decoded.query]
        kept = decoded.boxes.isfinite().all(-1)
        boxes = decoded.boxes[kept].cpu()
        working = Boxes3D(
            center=boxes[:, :3], size=boxes[:, 3:6], yaw=boxes[:, 6], velocity=boxes[:, 7:10],
            label=decoded.labels[kept].cpu(), score=decoded.scores[kept].cpu(), track_id=ids[kept].cpu(),
        )  # fmt: skip
        found = working.transformed(invert_rigid(self.config.working_from_ego_matrix))
        found.velocity[:, 2] = 0.0  # never supervised, hence meaningless
        return found

    def _bev_map(self, bev: BevPrediction, inputs: DetectorInputs) -> BevMap:
        """The first sample's map, on the CPU, and which of its cells some camera sees."""
        grid = self.config.bev.grid
        valid = cells_seen(grid, inputs, self.config.bev.depth_bins.stop)
        return BevMap(bev.features[0].float().cpu(), grid, valid)
