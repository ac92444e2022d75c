"""Boxes between keyframes: see `dualview.scene.keyframes`, where label makers find them too."""

from dualview.scene.keyframes import Keyframes, interpolate_annotations

__all__ = ["Keyframes", "interpolate_annotations"]
