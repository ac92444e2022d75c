"""Augmentation: one draw a clip, so that what is remembered from frame to frame stays true.

`image.py` changes pixels and intrinsics together, `bev.py` boxes, velocities, poses and projections together,
`photometric.py` and `grid_mask.py` pixels only.
"""
