"""What a decoder is made of: sizes, which views it reads, and the order of its parts."""

from __future__ import annotations

from dataclasses import dataclass, field

from dualview.networks.anchor_encoder import AnchorEncoderConfig
from dualview.networks.instance_memory import MemorySettings
from dualview.networks.keypoints import FIXED_KEYPOINTS
from dualview.networks.reference_quirks import ReferenceQuirks


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of the instance decoder; the defaults are Sparse4Dv3's with DualViewDistill's two views.

    num_anchors: instances a frame (N); num_temporal: how many of them are remembered (M). anchor_range (m): the disc
    over which untrained anchors are spread.
    num_single_frame_layers: layers before the remembered instances join. perspective_residual "cat" gives the
    feed-forward block (aggregated, features), twice as wide (released Sparse4Dv3 weights), "add" their sum.
    camera_count: needed only without camera_embedding. id_threshold: class probability at which an instance
    gets a track id (None: at once, as published). duplicate_distance (m): in evaluation an instance goes if a more
    confident one of its class stands so near to its box (see `find_better`; None: the queries settle that alone, as
    published, which needs long training). Intervals in s.
    """

    class_count: int = 10
    embed_dims: int = 256
    num_groups: int = 8
    num_levels: int = 4
    num_anchors: int = 900
    num_temporal: int = 600
    anchor_range: float = 55.0
    num_layers: int = 6
    num_single_frame_layers: int = 1
    feedforward_dims: int = 1024
    attention_heads: int = 8
    decouple_attention: bool = True
    anchor_encoder: AnchorEncoderConfig = field(default_factory=AnchorEncoderConfig)
    fixed_keypoints: tuple[tuple[float, float, float], ...] = FIXED_KEYPOINTS
    learned_keypoints: int = 6
    use_perspective: bool = True
    use_bev: bool = True
    perspective_residual: str = "cat"
    camera_embedding: bool = True
    camera_count: int | None = None
    bev_validity_mask: bool = True
    refine_yaw: bool = True
    normalize_yaw: bool = False
    with_quality: bool = True
    attention_dropout: float = 0.1
    feedforward_dropout: float = 0.1
    point_dropout: float = 0.15
    default_interval: float = 0.5
    max_interval: float = 2.0
    confidence_decay: float = 0.6
    id_threshold: float | None = 0.25
    duplicate_distance: float | None = None
    quirks: ReferenceQuirks = field(default_factory=ReferenceQuirks)

    def __post_init__(self) -> None:
        if not (self.use_perspective or self.use_bev):
            raise ValueError("a decoder must read something: set use_perspective, use_bev, or both")
        if not 0 < self.num_temporal < self.num_anchors:
            raise ValueError(
                f"num_temporal {self.num_temporal} must lie between 1 and num_anchors - 1 = "
                f"{self.num_anchors - 1}"
            )
        if self.anchor_range <= 0:
            raise ValueError(f"anchor_range {self.anchor_range:g} must be above zero")
        if not 1 <= self.num_single_frame_layers <= self.num_layers:
            raise ValueError(
                f"num_single_frame_layers {self.num_single_frame_layers} must lie between 1 and "
                f"num_layers = {self.num_layers}"
            )
        if self.anchor_encoder.output_dims != self.embed_dims:
            raise ValueError(
                f"the anchor encoder gives {self.anchor_encoder.output_dims} channels, the decoder has "
                f"{self.embed_dims}; make anchor_encoder.dims add up"
            )

    @property
    def memory(self) -> MemorySettings:
        """How instances are remembered."""
        return MemorySettings(
            num_temporal=self.num_temporal,
            default_interval=self.default_interval,
            max_interval=self.max_interval,
            confidence_decay=self.confidence_decay,
            id_threshold=self.id_threshold,
            swapped_yaw=self.quirks.swapped_yaw,
            stale_history=self.quirks.stale_history,
        )

    @property
    def feedforward_input_dims(self) -> int:
        """Width that reaches the feed-forward block."""
        doubled = self.use_perspective and self.perspective_residual == "cat"
        return self.embed_dims * 2 if doubled else self.embed_dims

    def operations(self, layer: int) -> tuple[str, ...]:
        """The parts of one layer, in order, by their published names.

        The first layer needs no attention: its features are all alike. The norm after the BEV aggregation
        stands only where a perspective aggregation follows; the feed-forward block has its own at its door.
        """
        attention: tuple[str, ...] = ("gnn", "norm") if layer > 0 else ()
        if layer >= self.num_single_frame_layers:
            attention = ("temp_gnn", *attention)
        views: tuple[str, ...] = ()
        if self.use_bev:
            views = ("deformable_bev", "norm") if self.use_perspective else ("deformable_bev",)
        if self.use_perspective:
            views = (*views, "deformable")
        return (*attention, *views, "ffn", "norm", "refine")

    @property
    def operation_order(self) -> tuple[str, ...]:
        """All parts of all layers, as a published `operation_order` lists them."""
        return tuple(operation for layer in range(self.num_layers) for operation in self.operations(layer))
