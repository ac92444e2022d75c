"""What the node knows of its own health, and the sentences that `/diagnostics` says about it.

No ROS here: values in, reports out. Times are seconds of "live time" (`LiveTime`): ROS time while it runs, wall time when it
stands still, so that a slow replay is not taken for a silent camera and a stopped one still is.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

_MAX_REASONS = 30  # different reasons that are counted apart, per counter
_RECENT = 5.0  # s of live time over which drops and rates are judged
BUSY, TOO_FEW = "network busy", "too few cameras"  # kinds of drops
STAGES = ("age_at_arrival", "assemble", "preprocess", "network", "publish", "total")


class Level(IntEnum):
    """`diagnostic_msgs/DiagnosticStatus` levels."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


@dataclass(frozen=True)
class Report:
    """One status: what it is about, how bad, a sentence, and figures."""

    name: str
    level: Level
    message: str
    values: dict[str, str] = field(default_factory=dict)

    @property
    def signature(self) -> tuple[str, Level, str]:
        """Equal for reports that say the same but for numbers."""
        return self.name, self.level, kind_of(self.message)


def kind_of(sentence: str) -> str:
    """A sentence without its numbers, so that reasons can be counted and compared."""
    return re.sub(r"-?\d+(\.\d+)?", "#", sentence)


class LiveTime:
    """Seconds that go with ROS time, or with wall time while ROS time has stood still for `stall` seconds."""

    def __init__(self, stall: float = 0.5) -> None:
        self.now = 0.0
        self._stall = stall
        self._wall: float | None = None
        self._ros_ns = 0
        self._still = 0.0

    def tick(self, wall: float, ros_ns: int) -> float:
        """Advance to a reading of both clocks (s, ns); leaps of ROS time count as nothing."""
        if self._wall is None:
            self._wall, self._ros_ns = wall, ros_ns
            return self.now
        wall_step, ros_step = max(wall - self._wall, 0.0), (ros_ns - self._ros_ns) / 1e9
        self._wall, self._ros_ns = wall, ros_ns
        if ros_step != 0.0:
            self._still = 0.0
            self.now += min(max(ros_step, 0.0), 10 * wall_step + 0.1)
        else:
            self._still += wall_step
            if self._still > self._stall:
                self.now += wall_step
        return self.now


@dataclass
class CameraHealth:
    """One camera as the node saw it: counts since start, and why its last image wasn't used (None: it was)."""

    name: str
    image_topic: str
    received: int = 0
    lost: int = 0  # messages that DDS says were lost
    last_arrival: float | None = None  # live time
    problem: str | None = None
    reasons: Counter[str] = field(default_factory=Counter)
    qos_problem: str | None = None
    topic_problem: str | None = None  # why nothing may arrive at all

    def masked(self, reason: str) -> None:
        """The camera was left out of a frame for `reason`."""
        self.problem = reason
        kind = kind_of(reason)
        if kind in self.reasons or len(self.reasons) < _MAX_REASONS:
            self.reasons[kind] += 1


class LatencyWindow:
    """The last frames' stage times (ms), bounded."""

    def __init__(self, frames: int = 100) -> None:
        self._stages: dict[str, deque[float]] = {name: deque(maxlen=frames) for name in STAGES}

    def add(self, stages: dict[str, float]) -> None:
        """One frame's times, ms by stage; NaN where unknown."""
        for name, value in stages.items():
            self._stages[name].append(value)

    def percentile(self, stage: str, percent: float) -> float:
        """NaN before the first frame."""
        values = np.asarray(self._stages[stage], dtype=np.float64)
        values = values[np.isfinite(values)]
        return float(np.percentile(values, percent)) if len(values) else float("nan")

    def __len__(self) -> int:
        return len(self._stages["total"])


class NodeHealth:
    """Collects what happens and turns it into reports. One thread at a time: the node guards it with a lock."""

    def __init__(
        self, cameras: dict[str, str], camera_timeout: float, max_processing_ms: float, max_delay_ms: float
    ) -> None:
        """cameras: name -> image topic."""
        self.cameras = {name: CameraHealth(name, topic) for name, topic in cameras.items()}
        self.camera_timeout = camera_timeout
        self.max_processing_ms, self.max_delay_ms = max_processing_ms, max_delay_ms
        self.latency = LatencyWindow()
        self.frames = Counter(closed=0, published=0)
        self.drops: Counter[str] = Counter()
        self.resets = 0
        self.last_reset = ""
        self._reset_at: float | None = None
        self.clock_problem: str | None = None
        self.input_counts: Mapping[str, int] = {}  # what the assembler counts
        self._last_drop: tuple[float, str, str] | None = None  # live time, kind, detail
        self._last_published: float | None = None
        self._started: float | None = None
        self._slow_since: float | None = None
        self._slow_last = 0.0
        self._last_processing = 0.0

    # ---- what happens ---------------------------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """The node became active."""
        self._started = now

    def image(self, camera: str, now: float) -> None:
        """An image arrived."""
        health = self.cameras[camera]
        health.received += 1
        health.last_arrival = now

    def dropped(self, kind: str, detail: str, now: float) -> None:
        """A frame was dropped; `kind` is one of few words."""
        self.drops[kind] += 1
        self._last_drop = (now, kind, detail)

    def masked(self, problems: dict[str, str]) -> None:
        """A frame closed: cameras in `problems` were left out, the others took part."""
        for name, health in self.cameras.items():
            if name in problems:
                health.masked(problems[name])
            else:
                health.problem = None

    def reset(self, reason: str, now: float) -> None:
        """The tracks' memory was emptied."""
        self.resets += 1
        self.last_reset = reason
        self._reset_at = now

    def published(self, stages: dict[str, float], now: float) -> None:
        """A frame went out; `stages` in ms."""
        self.frames["published"] += 1
        self._last_published = now
        self.latency.add(stages)
        self._last_processing = sum(stages[name] for name in ("preprocess", "network", "publish"))
        if self._last_processing > self.max_processing_ms:
            self._slow_since = now if self._slow_since is None else self._slow_since
            self._slow_last = now
        else:
            self._slow_since = None

    # ---- what is said ---------------------------------------------------------------------------------------------------

    def reports(self, now: float) -> list[Report]:
        """Frames, latency, and each camera."""
        return [self._frames(now), self._latency(), *(self._camera(c, now) for c in self.cameras.values())]

    def _frames(self, now: float) -> Report:
        values = {
            "frames closed": str(self.frames["closed"]),
            "frames published": str(self.frames["published"]),
        }
        values |= {f"dropped: {kind}": str(count) for kind, count in sorted(self.drops.items())}
        values |= {
            kind: str(count) for kind, count in sorted(self.input_counts.items()) if kind.startswith("image")
        }
        values |= {"resets": str(self.resets)} | ({"last reset": self.last_reset} if self.last_reset else {})
        if self._last_drop:
            values["last drop"] = f"{self._last_drop[1]}: {self._last_drop[2]}"
        silent = [c.name for c in self.cameras.values() if self._silence(c, now) > self.camera_timeout]
        unpublished = now - max(self._last_published or 0.0, self._started or 0.0)
        recent_drop = self._last_drop is not None and now - self._last_drop[0] < _RECENT
        gap = max(2 * self.camera_timeout, 1.0)
        if len(silent) == len(self.cameras):
            if not any(c.received for c in self.cameras.values()):
                topics = ", ".join(c.image_topic for c in self.cameras.values())
                return Report("frames", Level.WARN if unpublished < _RECENT else Level.ERROR,
                              f"waiting for the first image on {topics}", values)  # fmt: skip
            return Report(
                "frames",
                Level.ERROR,
                f"nothing is published: no image from any camera for {self._least(now):.1f} s",
                values,
            )
        starved = (
            self._last_drop is not None
            and self._last_drop[1] == TOO_FEW
            and self._last_drop[0] > (self._last_published or 0.0)
        )
        if self._last_drop and (
            starved or (unpublished > gap and recent_drop and self._last_drop[1] != BUSY)
        ):
            return Report(
                "frames",
                Level.ERROR,
                f"nothing is published: {self._last_drop[1]}: {self._last_drop[2]}",
                values,
            )
        if self._started is not None and unpublished > gap:
            return Report("frames", Level.ERROR, f"nothing was published for {unpublished:.1f} s", values)
        if recent_drop and self._last_drop:
            return Report(
                "frames",
                Level.WARN,
                f"frames are dropped: {self._last_drop[1]}: {self._last_drop[2]}",
                values,
            )
        if self._reset_at is not None and now - self._reset_at < _RECENT:
            return Report("frames", Level.WARN, f"the tracks' memory was reset: {self.last_reset}", values)
        if self.clock_problem:
            return Report("frames", Level.WARN, self.clock_problem, values)
        return Report("frames", Level.OK, "frames are published", values)

    def _latency(self) -> Report:
        values = {
            f"{stage} p{percent} ms": f"{self.latency.percentile(stage, percent):.1f}"
            for stage in STAGES for percent in (50, 95)
        }  # fmt: skip
        if not len(self.latency):
            return Report("latency", Level.OK, "no frame yet", {})
        if self._slow_since is None:
            return Report("latency", Level.OK, "processing is in time", values)
        slow = f"processing takes {self._last_processing:.0f} ms, at most {self.max_processing_ms:.0f} ms is allowed"
        lasting = (self._slow_last - self._slow_since) * 1e3 > self.max_delay_ms
        advice = ": use a smaller network, a GPU, or min_interval"
        return Report("latency", Level.ERROR if lasting else Level.WARN, slow + advice, values)

    def _camera(self, camera: CameraHealth, now: float) -> Report:
        values = {
            "topic": camera.image_topic,
            "images": str(camera.received),
            "lost by the middleware": str(camera.lost),
        }
        values |= {f"masked: {reason}": str(count) for reason, count in camera.reasons.items()}
        silence = self._silence(camera, now)
        name = f"camera {camera.name}"
        if camera.received == 0:
            message = f"no image received yet on {camera.image_topic}"
            reason = camera.qos_problem or camera.topic_problem
            return Report(name, Level.WARN, f"{message}: {reason}" if reason else message, values)
        if silence > self.camera_timeout:
            return Report(name, Level.WARN, f"silent for {silence:.1f} s", values)
        if camera.problem is not None:
            return Report(name, Level.WARN, f"masked: {camera.problem}", values)
        return Report(name, Level.OK, "in use", values)

    def _silence(self, camera: CameraHealth, now: float) -> float:
        if camera.last_arrival is None:
            return float("inf")
        return now - camera.last_arrival

    def _least(self, now: float) -> float:
        return min(self._silence(c, now) for c in self.cameras.values())
