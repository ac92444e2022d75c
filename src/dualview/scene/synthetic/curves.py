"""Cubic Hermite curves on an even grid, evaluated in plain floats: what poses are read from thousands of times a second."""

from __future__ import annotations

import numpy as np


class EvenCurve:
    """A curve through `values` [K] with `slopes` [K] at start, start + step, ...; beyond its ends it goes on straight."""

    def __init__(self, start: float, step: float, values: np.ndarray, slopes: np.ndarray) -> None:
        self.start, self.step = float(start), float(step)
        self.values, self.slopes = [float(v) for v in values], [float(s) for s in slopes]

    def __call__(self, at: float) -> float:
        """Value at a parameter."""
        return self.both(at)[0]

    def slope(self, at: float) -> float:
        """First derivative at a parameter."""
        return self.both(at)[1]

    def both(self, at: float) -> tuple[float, float]:
        """Value and first derivative at a parameter."""
        place = (at - self.start) / self.step
        last = len(self.values) - 1
        if place <= 0.0:
            return self.values[0] + (at - self.start) * self.slopes[0], self.slopes[0]
        if place >= last:
            return self.values[-1] + (at - self.start - last * self.step) * self.slopes[-1], self.slopes[-1]
        k = int(place)
        t = place - k
        a, b = self.values[k], self.values[k + 1]
        m, n = self.slopes[k] * self.step, self.slopes[k + 1] * self.step
        cubic, square = 2 * a - 2 * b + m + n, -3 * a + 3 * b - 2 * m - n
        value = ((cubic * t + square) * t + m) * t + a
        return value, ((3 * cubic * t + 2 * square) * t + m) / self.step
