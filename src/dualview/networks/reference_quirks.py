"""The known faults of the published Sparse4Dv3 code, each behind a name, all off by default.

Weights that were trained with a fault need it at inference too; `ReferenceQuirks.reference_compatible()`
switches on what the published code does on its official GPU path.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReferenceQuirks:
    """Switches that reproduce the reference's behaviour where ours differs."""

    swapped_yaw: bool = False
    """Moving an anchor to the next frame writes cos yaw into the sin slot and sin yaw into the cos slot."""

    random_fixed_keypoints: bool = False
    """The seven "fixed" keypoints start as Xavier noise (the published training overwrites them). Published
    weights bring their values along in any case; this only changes a fresh initialisation."""

    free_vertical_velocity: bool = False
    """The vertical velocity, which no data set annotates and no loss reaches, is whatever the network happens
    to say, and moves anchors up and down between frames. Ours is zero."""

    stale_history: bool = False
    """A sample whose time gap is too long keeps its old instances as keys of temporal attention and as a
    floor of its new confidences. Ours treats such a sample as a fresh start."""

    border_rule: str = "grid_sample"
    """What a point in an image's outermost half pixel contributes: "grid_sample" blends with zero padding, as
    in the published PyTorch path; "strict_inside" drops points that are not strictly inside, as in its CUDA
    op (the official path)."""

    misaligned_class_scores: bool = False
    """Decoding leaves the class scores in the order before the re-sort by quality, so they don't belong to
    their boxes."""

    attached_centerness_target: bool = False
    """The centerness target exp(-distance) passes gradient into the boxes."""

    unmatchable_nan_boxes: bool = False
    """A ground-truth box with an unknown (NaN) velocity costs 1e8 everywhere, so which prediction takes it is
    a coin toss."""

    def __post_init__(self) -> None:
        if self.border_rule not in ("grid_sample", "strict_inside"):
            raise ValueError(
                f'border_rule must be "grid_sample" or "strict_inside", got "{self.border_rule}"'
            )

    @staticmethod
    def reference_compatible(border_rule: str = "strict_inside") -> ReferenceQuirks:
        """Everything as the published code does it; `border_rule` "grid_sample" for its pure PyTorch path."""
        return ReferenceQuirks(
            swapped_yaw=True,
            random_fixed_keypoints=True,
            free_vertical_velocity=True,
            stale_history=True,
            border_rule=border_rule,
            misaligned_class_scores=True,
            attached_centerness_target=True,
            unmatchable_nan_boxes=True,
        )
