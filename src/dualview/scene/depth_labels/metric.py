"""Relative inverse depth q -> metres: 1 / z = a q + b, solved for each image.

DPT and its kin (arXiv 2103.13413) say inverse depth only up to scale and shift. What fixes them, in the order of "2D supervised
fine-tuning" as we read it (the paper doesn't say): LiDAR points (option A), the confident boxes of the current detector (B, which needs
cameras only and inherits that detector's errors), the road of a camera whose height is known (C).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

MAX_DEPTH = 200.0  # m; what the fit puts farther away, or behind the camera, isn't known
_INLIER = 0.15  # relative error of depth
_DRAWS = 300


@dataclass(frozen=True)
class InverseFit:
    """a, b of 1 / z = a q + b (1/m); points it was solved from, the share of them within 15 % of depth, and the median relative error of
    those; `window`: made with the points of images up to a second away, since the image's own were too few."""

    a: float
    b: float
    points: int
    inliers: float
    error: float
    window: bool = False

    def metres(self, q: np.ndarray) -> np.ndarray:
        """Depth in m, float32, NaN where q is not known or the result isn't within 200 m."""
        with np.errstate(invalid="ignore", divide="ignore"):
            inverse = self.a * q + self.b
            return np.where(inverse > 1 / MAX_DEPTH, 1 / inverse, np.nan).astype(np.float32)


def fit_inverse(q: np.ndarray, z: np.ndarray, min_points: int = 4, seed: int = 0) -> InverseFit | None:
    """The a > 0 and b that explain depths z [P] (m) of relative inverse depths q [P], None if the points can't tell.

    RANSAC over pairs of points, then least squares of the relative error z (a q + b) - 1 over the inliers. The points can't tell if there
    are fewer than `min_points`, if less than half of them agree, or if all are equally far away (within a factor of 1.3).
    """
    good = np.isfinite(q) & np.isfinite(z) & (z > 0.5) & (z < MAX_DEPTH)
    q, z = np.asarray(q, np.float64)[good], np.asarray(z, np.float64)[good]
    if len(q) < min_points or z.max() < 1.3 * z.min():
        return None
    first, second = _pairs(len(q), np.random.default_rng(seed))
    step = q[first] - q[second]
    usable = np.abs(step) > 1e-9 * max(float(np.abs(q).max()), 1e-9)
    first, second, step = first[usable], second[usable], step[usable]
    a = (1 / z[first] - 1 / z[second]) / step
    b = 1 / z[first] - a * q[first]
    a, b = a[a > 0], b[a > 0]
    if len(a) == 0:
        return None
    agree = np.abs(z * (a[:, None] * q + b[:, None]) - 1) < _INLIER  # [draws, P]
    kept = agree[agree.sum(1).argmax()]
    for _ in range(3):
        if kept.sum() < min_points:
            return None
        rows = np.stack([z * q, z], 1)[kept]
        (a_best, b_best), *_ = np.linalg.lstsq(rows, np.ones(len(rows)), rcond=None)
        error = np.abs(z * (a_best * q + b_best) - 1)
        kept = error < _INLIER
    near, far = z[kept].min(initial=np.inf), z[kept].max(initial=0.0)
    if a_best <= 0 or kept.sum() < min_points or kept.mean() < 0.5 or far < 1.3 * near:
        return None
    return InverseFit(float(a_best), float(b_best), len(q), float(kept.mean()), float(np.median(error[kept])))


def _pairs(count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Indices of pairs: all of them if they are few, else drawn."""
    if count * (count - 1) // 2 <= _DRAWS:
        first, second = np.triu_indices(count, 1)
        return first, second
    return random.integers(0, count, _DRAWS), random.integers(0, count, _DRAWS)


def fit_images(
    samples: Mapping[int, tuple[np.ndarray, np.ndarray]], min_points: int = 4, window_s: float = 1.0
) -> dict[int, InverseFit]:
    """Fits of one camera's images: samples: stamp (ns) -> (q [P], z [P]).

    An image whose own points can't tell is fitted with those of its neighbours within `window_s`, in which scale and shift change little;
    if they can't tell either, it gets none, and its depth stays unknown.
    """
    stamps = np.array(sorted(samples), np.int64)
    fits: dict[int, InverseFit] = {}
    for stamp in stamps.tolist():
        fit = fit_inverse(*samples[stamp], min_points)
        if fit is None:
            near = stamps[np.abs(stamps - stamp) <= round(window_s * 1e9)].tolist()
            pooled = fit_inverse(
                np.concatenate([samples[s][0] for s in near]),
                np.concatenate([samples[s][1] for s in near]),
                2 * min_points,
            )
            fit = None if pooled is None else InverseFit(**{**vars(pooled), "window": True})
        if fit is not None:
            fits[stamp] = fit
    return fits
