"""From recordings to scores: a detector run over them, or what a node published, against their labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dualview.detectors.session import TrackingSession
from dualview.errors import BagError, ImageError, TransformError
from dualview.evaluation.keyframes import Keyframe, Prediction, match_stamps, pair, thin_out
from dualview.evaluation.protocol import Protocol
from dualview.geometry.boxes import Boxes3D
from dualview.scene.assembler import AssemblerSettings, ClosedFrame
from dualview.scene.bag_reader import BagReader
from dualview.scene.frame import Annotations
from dualview.scene.offline import iterate_frames
from dualview.scene.recorded import read_tracks, read_transforms
from dualview.scene.rig import Rig, known_rigs, load_rig

LATENCY_TYPE = "dualview/msg/Latency"
LATENCY_STAGES = ("age_at_arrival", "assemble", "preprocess", "network", "publish", "total")


@dataclass(frozen=True)
class Drive:
    """What was predicted for one recording.

    name: unique among the drives scored together. predictions: by rising stamp. dropped: reason -> frames without output.
    latency_ms: stage -> times. weights: what made the boxes.
    """

    name: str
    path: Path
    predictions: list[Prediction]
    weights: str
    dropped: Mapping[str, int] = field(default_factory=dict)
    latency_ms: Mapping[str, list[float]] = field(default_factory=dict)


def fitting_rig(path: str | Path, name: str | None = None) -> Rig:
    """The rig asked for, or the known one whose cameras the recording has (of several, the first by name).

    Raises BagError if none fits.
    """
    if name is not None:
        return load_rig(name)
    with BagReader(path) as bag:
        for known in sorted(known_rigs()):
            rig = load_rig(known)
            if all(camera.image_topic in bag.topics for camera in rig.cameras):
                return rig
        raise BagError(
            f"no known rig has the cameras of {path}: give --rig FILE (copy config/rigs/template.yaml); topics: "
            f"{', '.join(bag.topics) or 'none'}"
        )


def threshold_overrides(score_threshold: float | None) -> dict[str, float]:
    """Overrides for `dualview.load` that mean the same as the node's parameter score_threshold; None: the checkpoint's own."""
    if score_threshold is None:
        return {}
    return {"score_threshold": score_threshold}


def detect(
    path: str | Path,
    rig: Rig,
    session: TrackingSession,
    name: str | None = None,
    progress: Callable[[int], None] | None = None,
    alter: Callable[[ClosedFrame], ClosedFrame | None] | None = None,
    only: Collection[int] | None = None,
) -> Drive:
    """Run a detector over a recording, frame by frame as the node does; `progress` is told the number of frames done.

    The session's state starts afresh; track ids go on. alter: what is done to each frame before the detector sees it;
    None for a frame that it can't see. only: stamps (ns) of the frames that it is given (None: all).
    """
    predictions, dropped = [], Counter[str]()
    latency: dict[str, list[float]] = {"preprocess": [], "network": []}
    session.reset("a new recording")
    lidar = session.detector.config.lidar
    with BagReader(path) as bag:
        for closed in iterate_frames(bag, rig, AssemblerSettings.for_rig(rig), lidar=lidar):
            if not isinstance(closed, ClosedFrame):
                dropped[closed.kind] += 1
                continue
            if only is not None and closed.stamp_ns not in only:
                continue
            altered = alter(closed) if alter else closed
            if altered is None:
                dropped["no label map"] += 1
                continue
            try:
                processed = session.process(altered, with_bev_map=False)
            except ImageError:
                dropped["no usable image"] += 1
                continue
            tracks = processed.output.tracks
            wide = Boxes3D(**{**vars(tracks), "center": tracks.center.double()})
            world = wide.transformed(processed.frame.world_from_ego_anchor)
            predictions.append(Prediction(closed.stamp_ns, world, tuple(session.detector.config.class_names)))
            latency["preprocess"].append(1e3 * processed.preprocess_seconds)
            latency["network"].append(1e3 * processed.network_seconds)
            if progress:
                progress(len(predictions))
    return Drive(
        name or Path(path).stem,
        Path(path),
        predictions,
        session.detector.weights_description,
        dict(dropped),
        latency,
    )


def recorded(
    path: str | Path, tracks: str | Path, rig: Rig, topic: str | None = None, name: str | None = None
) -> Drive:
    """What a node published for a recording, read from the recording `tracks` of its output."""
    with BagReader(tracks) as bag:
        found = read_tracks(bag, rig, topic)
        latency = read_latency(bag)
    model = next((t.model_name for t in found), "unknown (nothing was published)")
    predictions = [Prediction(t.stamp_ns, t.boxes, t.class_names) for t in found]
    return Drive(name or Path(path).stem, Path(path), predictions, model, {}, latency)


def read_latency(bag: BagReader) -> dict[str, list[float]]:
    """Stage -> milliseconds of each published frame, from a node's latency topic; empty if it wasn't recorded."""
    topics = [t for t, about in bag.topics.items() if about.type == LATENCY_TYPE]
    times: dict[str, list[float]] = {}
    for message in bag.messages(topics) if topics else ():
        for stage in LATENCY_STAGES:
            times.setdefault(stage, []).append(float(getattr(message.message, stage)))
    return times


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 of a list that isn't empty."""
    return {f"p{p}": round(float(np.percentile(values, p)), 3) for p in (50, 95, 99)}


@dataclass(frozen=True)
class Labels:
    """The labelled instants of one recording that can be scored, where the vehicle was then ([3] m, world), and how many more there are
    without a pose of the vehicle."""

    annotations: list[Annotations]
    ego_positions: list[np.ndarray]
    unplaced: int = 0

    @property
    def class_names(self) -> set[str]:
        """Every class that the recording has a label of."""
        return {name for annotation in self.annotations for name in annotation.class_names}


def read_labels(path: str | Path, rig: Rig, protocol: Protocol) -> Labels:
    """The labels of a recording; empty if it has none.

    The ego position at a keyframe comes from tf; a keyframe at which tf has none (before the first or after the last pose) is
    left out, since no range can be told for it.
    """
    with BagReader(path) as bag:
        annotations = thin_out(_with_racks(bag, rig), protocol.keyframe_interval_s)
        transforms = read_transforms(bag) if annotations else None
    kept, positions = [], []
    for annotation in annotations:
        try:
            pose = transforms.lookup(rig.world_frame, rig.ego_frame, annotation.stamp_ns)
        except TransformError:
            continue
        kept.append(annotation)
        positions.append(pose[:3, 3])
    return Labels(kept, positions, len(annotations) - len(kept))


def labelled_frames(path: str | Path, rig: Rig, labels: Labels, tolerance_s: float) -> frozenset[int]:
    """Stamps (ns) of a recording's frames that are nearest to labels, at most `tolerance_s` away."""
    with BagReader(path) as bag:
        frames = iterate_frames(bag, rig, AssemblerSettings.for_rig(rig))
        stamps = sorted(frame.stamp_ns for frame in frames if isinstance(frame, ClosedFrame))
    found = match_stamps([annotation.stamp_ns for annotation in labels.annotations], stamps, tolerance_s)
    return frozenset(stamps[index] for index in found if index is not None)


def label(drive: Drive, rig: Rig, protocol: Protocol, labels: Labels | None = None) -> list[Keyframe]:
    """The drive's predictions beside the labels of its recording (read from it where they aren't given); empty if it has none."""
    labels = labels or read_labels(drive.path, rig, protocol)
    return pair(drive.name, labels.annotations, labels.ego_positions, drive.predictions, protocol.tolerance_s)


def _with_racks(bag: BagReader, rig: Rig) -> list:
    """Labels of all classes in the recording: bicycle racks matter to filtering although no detector knows them."""
    from dataclasses import replace

    return bag.annotations(replace(rig, class_names=None))


def unique_names(paths: Sequence[str | Path]) -> Iterator[str]:
    """A name for each recording: its stem, numbered where it comes again."""
    seen: Counter[str] = Counter()
    for path in paths:
        stem = Path(path).stem
        seen[stem] += 1
        yield stem if seen[stem] == 1 else f"{stem}-{seen[stem]}"
