"""CenterPoint's tracker: each detection steps back along its own velocity to where it was in the last frame, and takes
the nearest track of its class there (Yin et al. 2021, arXiv 2006.11275, section 4.1).

With a motion filter the tracks step forward instead, along what their past says of their velocity; that velocity is
reported, and a place between the detected and the filtered one. A value and a function: tracks in, tracks out. Everything
happens in the world frame.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from dualview.detectors.motion_filter import (
    Motion,
    MotionFilterConfig,
    accelerations,
    corrected,
    observed,
    predicted,
)
from dualview.geometry.boxes import Boxes3D, concatenate_boxes
from dualview.geometry.rigid import invert_rigid

# How far (m) a detection may lie from a track of the last keyframe, half a second ago (the published table; the last
# three aren't tracked there).
GATES = {
    "car": 4.0, "truck": 4.0, "bus": 5.5, "trailer": 3.0, "pedestrian": 1.0, "motorcycle": 13.0, "bicycle": 3.0,
    "construction_vehicle": 4.0, "barrier": 1.0, "traffic_cone": 1.0,
}  # fmt: skip
_OTHER_GATE = 3.0


@dataclass(frozen=True)
class GreedyTrackingConfig:
    """max_coast (s): an unseen track goes on so long at constant velocity (published: three keyframes). gate_interval
    (s): the gates are for tracks seen so long ago; for fresher ones they shrink, down to `smallest_gate` of
    themselves. gate_scale: on all gates; the published ones are for LiDAR, and cameras place objects less exactly.

    motion: how places and velocities are filtered (None, as published: a track is where it was last detected, as fast as the
    network said). persistence: the odds of a detection that goes on with a track count 1 + persistence * (the track's score
    before) times, so what is seen again and again is surer than what one frame shows (0, as published: nothing more sure).
    """

    max_coast: float = 1.6
    gate_interval: float = 0.5
    smallest_gate: float = 0.25
    gate_scale: float = 1.0
    motion: MotionFilterConfig | None = None
    persistence: float = 0.0

    def __post_init__(self) -> None:
        if self.persistence < 0:
            raise ValueError(f"tracking.persistence {self.persistence} must not be negative")
        if min(self.gate_interval, self.gate_scale) <= 0 or self.max_coast < 0 or not 0 < self.smallest_gate <= 1:
            raise ValueError(
                f"{self}: max_coast >= 0, gate_interval > 0, gate_scale > 0 and smallest_gate in 0..1"
            )


@dataclass(frozen=True)
class Tracks:
    """K tracks. boxes: world frame, float64, at `stamp_ns`; seen_ns int64 [K]: when each was last seen; age int64 [K]:
    frames since its id was given. next_track_id: the first id that was never given. motion: theirs, at `stamp_ns`, if a
    filter is on.
    """

    next_track_id: int = 0
    stamp_ns: int | None = None
    boxes: Boxes3D = field(default_factory=Boxes3D.empty)
    seen_ns: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    age: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    motion: Motion | None = None


@dataclass(frozen=True)
class Tracked:
    """What is reported: boxes with ids in the frame that they came in, best score first; age int64 [M]."""

    boxes: Boxes3D
    age: Tensor


def track(
    tracks: Tracks,
    detections: Boxes3D,
    world_from_ego: Tensor,
    stamp_ns: int,
    class_names: tuple[str, ...],
    config: GreedyTrackingConfig,
) -> tuple[Tracked, Tracks]:
    """Give every detection (ego frame; on the CPU) an id, its track's or a new one; the tracks for the next frame.

    world_from_ego [4, 4] float64 at `stamp_ns`. Detections choose in the order of their scores. Ids are never given
    twice.
    """
    detections = detections[detections.score.argsort(descending=True, stable=True)]
    world = _doubled(detections).transformed(world_from_ego.double())
    elapsed = 0.0 if tracks.stamp_ns is None else (stamp_ns - tracks.stamp_ns) * 1e-9
    places, goals, motion = world.center[:, :2], tracks.boxes.center[:, :2], None
    if config.motion is None:
        places = places - elapsed * world.velocity[:, :2]
    else:
        agility = config.motion.agility * accelerations(class_names)
        motion = predicted(tracks.motion or Motion.empty(), elapsed, agility[tracks.boxes.label])
        goals = motion.place
    chosen = _assign(places, world.label, goals, tracks.boxes.label, _gates(tracks, stamp_ns, class_names, config))
    old = chosen >= 0
    world = _with_tracks_of(world, tracks, chosen, config.persistence)
    age = torch.zeros_like(chosen)
    age[old] = tracks.age[chosen[old]] + 1
    unseen = torch.ones(len(tracks.boxes), dtype=torch.bool)
    unseen[chosen[old]] = False
    unseen &= (stamp_ns - tracks.seen_ns) <= config.max_coast * 1e9
    coasting = tracks.boxes[unseen]
    coasting = replace(coasting, center=coasting.center + elapsed * coasting.velocity)
    if config.motion is not None and motion is not None:
        distance = (world.center[:, :2] - world_from_ego[:2, 3]).norm(dim=1)
        moves = agility[world.label] > 0
        now = observed(world.center[:, :2], world.velocity[:, :2], distance, moves, old, config.motion)
        now = now.updated(old, corrected(motion[chosen[old]], now[old]))
        place = torch.lerp(world.center[:, :2], now.place, config.motion.smoothing)
        world = replace(
            world,
            center=torch.cat([place, world.center[:, 2:]], 1),
            velocity=torch.cat([now.velocity, world.velocity[:, 2:]], 1),
        )
        motion = now.joined(motion[unseen])
    following = Tracks(
        tracks.next_track_id + int((~old).sum()),
        stamp_ns,
        concatenate_boxes([world, coasting]) if len(world) or len(coasting) else Boxes3D.empty(),
        torch.cat([torch.full_like(chosen, stamp_ns), tracks.seen_ns[unseen]]),
        torch.cat([age, tracks.age[unseen] + 1]),
        motion,
    )
    seen = replace(detections, track_id=world.track_id, score=world.score)
    if config.motion is not None:
        in_ego_frame = world.transformed(invert_rigid(world_from_ego.double()))
        seen = replace(seen, velocity=in_ego_frame.velocity.to(seen.velocity.dtype))
        if config.motion.smoothing:
            seen = replace(seen, center=in_ego_frame.center.to(seen.center.dtype))
    order = seen.score.argsort(descending=True, stable=True)
    return Tracked(seen[order], age[order]), following


def _with_tracks_of(world: Boxes3D, tracks: Tracks, chosen: Tensor, persistence: float) -> Boxes3D:
    """Detections with the ids of the tracks that they chose, [M] (-1: a new one), and the scores of these tracks now."""
    old = chosen >= 0
    ids = torch.full_like(chosen, -1)
    ids[old], ids[~old] = tracks.boxes.track_id[chosen[old]], tracks.next_track_id + torch.arange(int((~old).sum()))
    score = world.score.clone()
    more = 1 + persistence * tracks.boxes.score[chosen[old]].to(score)
    score[old] = score[old] * more / (1 - score[old] + score[old] * more)  # odds s / (1 - s), so many times
    return replace(world, track_id=ids, score=score)


def in_ego(tracks: Tracks, world_from_ego: Tensor) -> Boxes3D:
    """All tracks, those that coast included, in the ego frame."""
    return tracks.boxes.transformed(invert_rigid(world_from_ego.double()))


def _gates(
    tracks: Tracks, stamp_ns: int, class_names: tuple[str, ...], config: GreedyTrackingConfig
) -> Tensor:
    """Largest distance (m) to each track, [K]."""
    table = torch.tensor([GATES.get(name, _OTHER_GATE) for name in class_names], dtype=torch.float64)
    share = (stamp_ns - tracks.seen_ns).double() * 1e-9 / config.gate_interval
    return config.gate_scale * table[tracks.boxes.label] * share.clamp(config.smallest_gate, 1.0)


def _assign(places: Tensor, labels: Tensor, goals: Tensor, goal_labels: Tensor, gates: Tensor) -> Tensor:
    """For each detection (places [M, 2]), in order, the nearest free track (goals [K, 2]) of its class within the gate:
    int64 [M], -1 = none.
    """
    chosen = torch.full((len(places),), -1, dtype=torch.int64)
    if not len(places) or not len(gates):
        return chosen
    distance = (places[:, None] - goals[None].to(places)).norm(dim=-1)
    possible = (labels[:, None] == goal_labels) & (distance <= gates)
    distance = torch.where(possible, distance, torch.inf)
    for row in range(len(places)):
        nearest = int(distance[row].argmin())
        if bool(distance[row, nearest].isfinite()):
            chosen[row] = nearest
            distance[:, nearest] = torch.inf
    return chosen


def _doubled(boxes: Boxes3D) -> Boxes3D:
    """World coordinates are large: float64."""
    return replace(boxes, center=boxes.center.double(), velocity=boxes.velocity.double())
