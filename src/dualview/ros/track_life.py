"""How sure we are, over time, that a track is a real object: the filter behind `existence_probability`."""

from __future__ import annotations

import math
from dataclasses import dataclass

_FORGET = 0.01  # below this a vanished track isn't remembered


@dataclass
class _Life:
    probability: float
    stamp_ns: int


class ExistenceFilter:
    """A first-order low-pass filter of each track's score; a frame without the track counts as a score of 0.

    time_constant in seconds of sensor time. It depends on stamps and scores alone, so a replay gives the same numbers. Bounded: a track
    that isn't seen is forgotten after a few time constants.
    """

    def __init__(self) -> None:
        self._lives: dict[int, _Life] = {}

    def update(
        self, stamp_ns: int, track_ids: list[int], scores: list[float], time_constant: float
    ) -> list[float]:
        """Probabilities, 0..1, of the tracks of this frame; a new track begins with its score."""
        result = []
        for track_id, score in zip(track_ids, scores, strict=True):
            life = self._lives.get(track_id)
            if life is None:
                life = self._lives[track_id] = _Life(score, stamp_ns)
            else:
                kept = math.exp(-max(stamp_ns - life.stamp_ns, 0) / 1e9 / time_constant)
                life.probability, life.stamp_ns = kept * life.probability + (1 - kept) * score, stamp_ns
            result.append(min(max(life.probability, 0.0), 1.0))
        seen = set(track_ids)
        for track_id in [i for i in self._lives if i not in seen]:
            life = self._lives[track_id]
            life.probability *= math.exp(-max(stamp_ns - life.stamp_ns, 0) / 1e9 / time_constant)
            life.stamp_ns = stamp_ns
            if life.probability < _FORGET:
                del self._lives[track_id]
        return result

    def clear(self) -> None:
        """Forget all tracks: after a reset no old id comes back."""
        self._lives.clear()

    def __len__(self) -> int:
        return len(self._lives)
