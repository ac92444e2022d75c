"""How fast this machine is, and so how fast the drive may be played."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import dualview
from dualview.detectors.session import TrackingSession
from dualview.errors import BagError, ImageError
from dualview.evaluation.run import threshold_overrides
from dualview.scene.assembler import ClosedFrame
from dualview.scene.bag_reader import BagReader
from dualview.scene.offline import iterate_frames
from dualview.scene.rig import Rig

_WARM_UP, _SAMPLES = 2, 6
_LONG_S = 90.0
_SAFETY = (
    2.4  # player, recorder and DDS share the machine: a frame then takes nearly twice as long on two cores
)
_OVERHEAD_MS = 15.0
_SHOWN_WITHOUT_TRAINING = 15  # boxes a frame, so that there is something to see


@dataclass(frozen=True)
class Pace:
    """What was measured on the recording's first frames, and what follows from it.

    frame_ms: decoding and network; period_ms: between the recording's frames; rate:
    seconds of the recording a second. frames: what the recording holds; dropped: those that no player could help (no transform, …).
    score_threshold: what the node is to be told, None for the checkpoint's own.
    """

    frame_ms: float
    period_ms: float
    rate: float
    frames: int
    dropped: Mapping[str, int]
    score_threshold: float | None
    weights: str
    untrained: bool

    def sentence(self) -> str:
        """The measurement for a reader."""
        return (
            f"a frame takes {self.frame_ms:.0f} ms here, the recording has one every {self.period_ms:.0f} ms: "
            f"playing at rate {self.rate:.2f}"
        )


def measure_pace(
    bag: Path,
    rig: Rig,
    weights: str,
    device: str,
    rate: float | None = None,
    score_threshold: float | None = None,
) -> Pace:
    """Run the detector on the first frames in this process, with nothing else of ours going on.

    Where that would make playing long, up to three times as many frames are measured and the quietest stretch counts: other programs
    come and go. Frames that the node then can't follow are dropped and counted.

    rate, score_threshold: use these instead of what the measurement suggests. Raises BagError if the recording gives no frame at all.
    """
    session = _session(weights, device, score_threshold)
    untrained = session.detector.weights_description.startswith("untrained")
    if untrained and score_threshold is None:  # nothing passes the usual thresholds
        session = _session(weights, device, 0.0)
    times: list[float] = []
    stamps: list[int] = []
    scores: list[np.ndarray] = []
    dropped = Counter[str]()
    with BagReader(bag) as reader:
        for closed in iterate_frames(reader, rig):
            if not isinstance(closed, ClosedFrame):
                dropped[closed.kind] += 1
                continue
            stamps.append(closed.stamp_ns)
            period_ms = (stamps[-1] - stamps[0]) / 1e6 / max(len(stamps) - 1, 1) or 100.0
            if _wants_more(times, period_ms, reader.duration):
                try:
                    processed = session.process(closed)
                except ImageError:
                    continue
                times.append(1e3 * (processed.preprocess_seconds + processed.network_seconds))
                scores.append(np.sort(processed.output.tracks.score.numpy())[::-1])
    if not times:
        why = (
            ", ".join(f"{count} × {kind}" for kind, count in dropped.items())
            or "no images of the anchor camera"
        )
        raise BagError(
            f"{bag} gives no frame with rig '{rig.name}' ({why}): check the rig, its camera_info and tf"
        )
    period_ms = float(np.median(np.diff(stamps))) / 1e6 if len(stamps) > 1 else 100.0
    return Pace(
        frame_ms=_frame_time(times),
        period_ms=period_ms,
        rate=rate or _possible_rate(times, period_ms),
        frames=len(stamps),
        dropped=dict(dropped),
        score_threshold=_threshold(scores) if untrained and score_threshold is None else score_threshold,
        weights=session.detector.weights_description,
        untrained=untrained,
    )


def _frame_time(times: list[float]) -> float:
    """ms a frame: the median of the quietest run of samples, and a fifth more."""
    measured = times[_WARM_UP:] or times
    runs = [measured[i : i + _SAMPLES] for i in range(0, max(len(measured) - _SAMPLES + 1, 1), _SAMPLES)]
    return 1.2 * min(float(np.median(run)) for run in runs)


def _possible_rate(times: list[float], period_ms: float) -> float:
    return float(np.clip(period_ms / (_SAFETY * _frame_time(times) + _OVERHEAD_MS), 0.01, 1.0))


def _wants_more(times: list[float], period_ms: float, duration: float) -> bool:
    """True while a run of samples isn't full, or playing would take long and there is hope that it needn't."""
    done = len(times) - _WARM_UP
    if done < _SAMPLES or done % _SAMPLES:
        return True
    return done < 3 * _SAMPLES and duration / _possible_rate(times, period_ms) > _LONG_S


def _session(weights: str, device: str, score_threshold: float | None) -> TrackingSession:
    return TrackingSession(
        dualview.load(weights, device, overrides=threshold_overrides(score_threshold), precision="auto")  # as the node
    )


def _threshold(scores: list[np.ndarray]) -> float:
    """A threshold of class probability that some boxes pass. (A box's score is that times its centerness, about one half.)"""
    usual = [float(s[min(_SHOWN_WITHOUT_TRAINING, len(s)) - 1]) for s in scores if len(s)]
    return round(min(2 * float(np.median(usual)), 0.95), 4) if usual else 0.0
