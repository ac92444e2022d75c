"""What a BEVFormer is made of, and the faults of its published code by name."""

from __future__ import annotations

from dataclasses import dataclass, field

from dualview.geometry.bev_grid import BevGrid


@dataclass(frozen=True)
class BevFormerQuirks:
    """Where the published code differs from ours; all off by default.

    rotation_center: (column, row) in cells from the grid's lower corner about which the previous map is
    turned, whatever the grid (the published code turns about (100, 100), a cell far outside its smaller
    grids); None turns it about the vehicle. nearest_rotation: the turned map takes the nearest cell instead of
    blending four. world_motion: the motion vector holds the vehicle's heading and displacement along the
    axes of the world, so that the same drive on a map turned by 90 degrees looks different; ours is relative
    to the vehicle.
    """

    rotation_center: tuple[float, float] | None = None
    nearest_rotation: bool = False
    world_motion: bool = False

    @staticmethod
    def reference_compatible() -> BevFormerQuirks:
        """Everything as the published code does it."""
        return BevFormerQuirks((100.0, 100.0), True, True)


@dataclass(frozen=True)
class BevFormerConfig:
    """Sizes of BEVFormer's transformer (Li et al. 2022, arXiv 2203.17270); the defaults are BEVFormer-tiny's.

    grid: of the BEV queries, in the working frame; its z range holds the pillars and the box centres. heights: points
    of a pillar. camera_points: sampled for a query in each camera and level, a multiple of `heights`;
    bev_points: in each BEV map. camera_count: how many cameras have a learned embedding; None: none has, so
    that any number of cameras is served in any order. max_interval: s; a longer gap forgets the previous map.
    """

    class_count: int = 10
    embed_dims: int = 256
    grid: BevGrid = field(default_factory=lambda: BevGrid.centered(51.2, 2.048))
    heads: int = 8
    encoder_layers: int = 3
    decoder_layers: int = 6
    feedforward_dims: int = 512
    num_levels: int = 1
    heights: int = 4
    camera_points: int = 8
    bev_points: int = 4
    num_queries: int = 900
    camera_count: int | None = 6
    dropout: float = 0.1
    max_interval: float = 2.0
    quirks: BevFormerQuirks = field(default_factory=BevFormerQuirks)

    def __post_init__(self) -> None:
        if self.embed_dims % (2 * self.heads):
            raise ValueError(
                f"embed_dims {self.embed_dims} must be a multiple of twice the {self.heads} heads: choose another"
            )
        if self.camera_points % self.heights:
            raise ValueError(
                f"camera_points {self.camera_points} must be a multiple of the {self.heights} heights: every height "
                "gets as many points"
            )
        if self.encoder_layers < 1 or self.decoder_layers < 1 or self.num_levels < 1:
            raise ValueError("encoder_layers, decoder_layers and num_levels must be at least 1")
        if self.camera_count is not None and self.camera_count < 1:
            raise ValueError(
                "camera_count must be at least 1, or null for a detector without camera embeddings"
            )
