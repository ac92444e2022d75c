"""Boxes, rigid transforms, pinhole projection and BEV grids: pure functions on tensors."""

from dualview.geometry.bev_grid import BevGrid
from dualview.geometry.boxes import Boxes3D

__all__ = ["BevGrid", "Boxes3D"]
