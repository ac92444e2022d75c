"""Lenses: from a ray in the camera frame to the pixel where the distorted image shows it.

The models and the order of their coefficients are those of ROS' `sensor_msgs/distortion_models` and of OpenCV:
`plumb_bob` (k1, k2, p1, p2[, k3]), `rational_polynomial` (k1, k2, p1, p2, k3, k4, k5, k6 [, s1..s4 [, tau_x, tau_y]]) and
`equidistant` (k1..k4; Kannala & Brandt 2006, OpenCV's fisheye).
"""

from __future__ import annotations

import cv2
import numpy as np

DISTORTION_MODELS: dict[str, tuple[int, ...]] = {
    "plumb_bob": (4, 5),
    "rational_polynomial": (8, 12, 14),
    "equidistant": (4,),
}
_ALIASES = {"fisheye": "equidistant", "kannala_brandt4": "equidistant", "radtan": "plumb_bob", "none": "", "pinhole": ""}


def canonical_model(name: str) -> str:
    """ROS' name of a distortion model, whatever spelling a driver uses; unknown names come back as they are."""
    name = name.strip().lower()
    return _ALIASES.get(name, name)


def distort_rays(rays: np.ndarray, model: str, distortion: np.ndarray) -> np.ndarray:
    """Normalised image coordinates [P, 2] where the lens shows the directions `rays` [P, 2] (x/z, y/z)."""
    if model == "":
        return rays
    points = np.concatenate([rays, np.ones((len(rays), 1))], 1).astype(np.float64)
    identity = np.eye(3)
    if model == "equidistant":
        return cv2.fisheye.distortPoints(rays[:, None].astype(np.float64), identity, distortion)[:, 0]
    zero = np.zeros(3)
    return cv2.projectPoints(points[:, None], zero, zero, identity, distortion)[0][:, 0]


def undistortion_map(
    source_intrinsics: np.ndarray,
    model: str,
    distortion: np.ndarray,
    target_intrinsics: np.ndarray,
    target_size: tuple[int, int],
) -> np.ndarray:
    """For each pixel of a pinhole target image, where to read the distorted source image.

    source_intrinsics, target_intrinsics [3, 3]: px, pixel centres on whole numbers (OpenCV's convention). target_size: (height,
    width). Returns float32 [height, width, 2] (u, v) as `cv2.remap` takes it.
    """
    height, width = target_size
    u, v = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    pixels = np.stack([u.ravel(), v.ravel(), np.ones(height * width)])
    rays = (np.linalg.inv(target_intrinsics) @ pixels)[:2].T
    distorted = distort_rays(rays, model, distortion)
    # A polynomial lens model turns back on itself far outside the field that it was fitted to, and would show the same scene
    # twice. Rays past the turning point are sent outside the image.
    if model in ("plumb_bob", "rational_polynomial"):
        distorted[np.linalg.norm(rays, axis=1) > _turning_radius(model, distortion)] = 1e6
    u = source_intrinsics[0, 0] * distorted[:, 0] + source_intrinsics[0, 1] * distorted[:, 1] + source_intrinsics[0, 2]
    v = source_intrinsics[1, 1] * distorted[:, 1] + source_intrinsics[1, 2]
    return np.stack([u, v], -1).reshape(height, width, 2).astype(np.float32)


def largest_ray(model: str, distortion: np.ndarray) -> float:
    """Largest |ray| (x/z, y/z) that a lens model describes: beyond it, polynomials turn back; a fisheye sees up to 89 degrees."""
    if model == "equidistant":
        return float(np.tan(np.radians(89.0)))
    return _turning_radius(model, distortion) if model else float("inf")


def _turning_radius(model: str, distortion: np.ndarray) -> float:
    """Smallest |ray| at which the radial distortion r -> r * factor(r) stops growing; infinity if it never does."""
    radius = np.linspace(0.0, 10.0, 4001)
    rays = np.stack([radius, np.zeros_like(radius)], 1)
    radial = distortion.copy()
    radial[2:4] = 0.0  # the tangential part is small and not radial
    radial[8:] = 0.0
    shown = distort_rays(rays, model, radial)[:, 0]
    falling = np.flatnonzero(np.diff(shown) <= 0)
    return float(radius[falling[0]]) if len(falling) else float("inf")
