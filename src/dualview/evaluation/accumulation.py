"""The devkit's tracking scores of one class, without its waste on long recordings.

`TrackingEvaluation` walks through all frames once for each recall threshold. Three things in it grow with the square of the recording's
length or are done forty times over: the event table is rebuilt at every frame, each object's events are searched in the whole table, and
distances are measured anew at each threshold. Here the same matching (motmetrics' accumulator) and the same metrics (the devkit's
`create_motmetrics`) run on tables that are built once; the numbers are the same to the last digit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dualview.evaluation import devkit

_SAMPLE_PERIOD_S = 0.5  # the devkit counts frames in nuScenes' keyframe period, whatever the recording's is
Stamped = Mapping[str, Mapping[int, Sequence[Any]]]  # drive -> stamp (ns) -> the devkit's TrackingBoxes


@dataclass(frozen=True)
class IdSwitch:
    """A labelled object whose track id changed from `before` to `after` at a keyframe.

    last_ns: the keyframe at which it was last matched to `before`. held: keyframes of the object matched to `before` until then.
    distance: of the object from the vehicle, m. threshold: tracks count whose mean score is at least this.
    """

    drive: str
    stamp_ns: int
    last_ns: int
    class_name: str
    instance_id: str
    before: int
    after: int
    held: int
    distance: float
    threshold: float


@dataclass
class _Frame:
    """One class at one instant: ids (numbers that no other drive uses), positions [., 2] m, and the tracks' scores."""

    drive: str
    stamp_ns: int
    label_ids: np.ndarray
    label_xy: np.ndarray
    labels: Sequence[Any]
    track_ids: np.ndarray
    track_xy: np.ndarray
    scores: np.ndarray
    distances: dict[bytes, np.ndarray] = field(default_factory=dict)  # of the tracks that a threshold leaves


class ClassAccumulation(devkit.TrackingEvaluation):
    """`TrackingEvaluation` of one class; `accumulate` gives the same `TrackingMetricData`.

    worst: metric -> its value at recalls that are never reached, as the devkit's configuration has it.
    """

    def __init__(
        self,
        labels: Stamped,
        tracks: Stamped,
        class_name: str,
        config: devkit.TrackingConfig,
        recall_steps: int,
    ) -> None:
        super().__init__(
            labels, tracks, class_name, config.dist_fcn_callable, config.dist_th_tp, config.min_recall, recall_steps,
            config.metric_worst, verbose=False,
        )  # fmt: skip
        self._label_numbers: dict[tuple[str, str], int] = {}
        self._track_numbers: dict[tuple[str, str], int] = {}
        self._frames = [
            self._frame(drive, stamp, boxes, tracks[drive][stamp])
            for drive, stamps in labels.items()
            for stamp, boxes in stamps.items()
        ]
        self._metrics = _host()

    def _frame(self, drive: str, stamp: int, labels: Sequence[Any], tracks: Sequence[Any]) -> _Frame:
        labels = [b for b in labels if b.tracking_name == self.class_name]
        tracks = [b for b in tracks if b.tracking_name == self.class_name]
        return _Frame(
            drive, stamp, _numbers(self._label_numbers, drive, labels), _positions(labels), labels,
            _numbers(self._track_numbers, drive, tracks), _positions(tracks), np.array([b.tracking_score for b in tracks]),
        )  # fmt: skip

    def accumulate(self) -> devkit.TrackingMetricData:
        """Every metric at every recall step; empty if the class has no labels."""
        data = devkit.TrackingMetricData()
        count = sum(len(frame.labels) for frame in self._frames)
        if count == 0:
            return data
        data.confidence, data.recall_hypo = self.compute_thresholds(count)
        rows: dict[float, Mapping[str, float]] = {}
        for threshold in data.confidence:
            if not np.isnan(threshold) and threshold not in rows:
                events, _ = self.accumulate_threshold(threshold)
                rows[threshold] = self._metrics.compute(
                    events, metrics=devkit.MOT_METRIC_MAP.keys(), return_dataframe=False
                )
        instances = {b.tracking_id for frame in self._frames for b in frame.labels}
        never = {"ml": len(instances), "gt": count, "fn": count}
        for source, metric in devkit.MOT_METRIC_MAP.items():
            if not metric:
                continue
            if rows:
                values = [rows[t][source] if t in rows else np.nan for t in data.confidence]
            else:
                worst = self.metric_worst[metric]
                values = [never.get(metric, np.nan) if worst == -1 else worst] * len(data.confidence)
            data.set_metric(metric, values)
        return data

    def accumulate_threshold(self, threshold: float | None = None) -> tuple[Any, list[float]]:
        """(events of all drives with tracks from `threshold` on, as motmetrics' table; without a threshold, also the scores of all
        matched tracks)."""
        accumulator, frames = self._accumulated(threshold)
        events = accumulator.events
        scores: list[float] = []
        if threshold is None:
            matches = events[events.Type == "MATCH"]
            numbers = matches.index.get_level_values(0)
            for number, tracks in matches.HId.groupby(numbers):
                frame = frames[number]
                scores.extend(frame.scores[np.isin(frame.track_ids, tracks.to_numpy(dtype=int))].tolist())
        return events, scores

    def _accumulated(self, threshold: float | None) -> tuple[Any, list[_Frame]]:
        """The filled accumulator, and the frames in the order of its frame numbers. Ids differ between drives, so one accumulator
        keeps them apart; frames with neither labels nor tracks are left out, as in the devkit."""
        accumulator = devkit.MOTAccumulator()
        frames: list[_Frame] = []
        for frame in self._frames:
            kept = np.ones(len(frame.scores), bool) if threshold is None else frame.scores >= threshold
            if len(frame.label_ids) or kept.any():
                distances = self._distances(frame, kept)
                accumulator.update(frame.label_ids, frame.track_ids[kept], distances, frameid=len(frames))
                frames.append(frame)
        return accumulator, frames

    def _distances(self, frame: _Frame, kept: np.ndarray) -> np.ndarray:
        """Between labels and kept tracks, NaN from the matching distance on. Measured for each set of tracks apart, as the devkit does:
        a matrix product of another shape may round differently."""
        key = kept.tobytes()
        if key not in frame.distances:
            if len(frame.label_ids) and kept.any():
                distances = _distances(frame.label_xy, frame.track_xy[kept])
                distances[distances >= self.dist_th_tp] = np.nan
            else:
                distances = np.ones((0, 0))
            frame.distances[key] = distances
        return frame.distances[key]

    def switches(self, threshold: float) -> list[IdSwitch]:
        """Every change of identity among the tracks from `threshold` on, in the order of the frames."""
        accumulator, frames = self._accumulated(threshold)
        events = accumulator.events
        found = events[(events.Type == "MATCH") | (events.Type == "SWITCH")]
        names = {number: instance for (_, instance), number in self._label_numbers.items()}
        tracks = {number: int(track) for (_, track), number in self._track_numbers.items()}
        held: dict[tuple[int, int], int] = {}  # (object, track) -> keyframes together
        last: dict[int, tuple[int, int]] = {}  # object -> (track, frame) of its latest match
        switches = []
        rows = zip(found.index.get_level_values(0), found.Type, found.OId, found.HId, strict=True)
        for number, kind, label, track in rows:
            frame = frames[number]
            if kind == "SWITCH":
                before, seen = last[label]
                (index,) = np.flatnonzero(frame.label_ids == label)[:1]
                switches.append(IdSwitch(
                    frame.drive, frame.stamp_ns, frames[seen].stamp_ns, self.class_name, names[label], tracks[before], tracks[track],
                    held[label, before], float(frame.labels[index].ego_dist), threshold,
                ))  # fmt: skip
            held[label, track] = held.get((label, track), 0) + 1
            last[label] = (track, number)
        return switches


def _numbers(known: dict[tuple[str, str], int], drive: str, boxes: Sequence[Any]) -> np.ndarray:
    """A number for each box's identity, the same wherever (drive, identity) comes again."""
    return np.array([known.setdefault((drive, b.tracking_id), len(known)) for b in boxes], dtype=np.int64)


def _positions(boxes: Sequence[Any]) -> np.ndarray:
    return np.array([b.translation[:2] for b in boxes], dtype=np.float64).reshape(-1, 2)


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Distances [A, B] between points [A, 2] and [B, 2] by ||a||^2 - 2ab + ||b||^2, in the order of scikit-learn's
    `euclidean_distances`, which the devkit calls: so the rounding, which this form makes visible near zero, is the same. Its checks of
    the arguments take ten times as long as the sum."""
    squared = -2 * (first @ second.T)
    squared += np.einsum("ij,ij->i", first, first)[:, None]
    squared += np.einsum("ij,ij->i", second, second)[None, :]
    return np.sqrt(np.maximum(squared, 0.0))


def _host() -> Any:
    """The devkit's metrics; those three that search the whole table for each object read its rows grouped instead."""
    host = devkit.create_motmetrics()
    for name, metric in (
        ("num_fragmentations_custom", fragmentations),
        ("tid", initialization_duration),
        ("lgd", longest_gap_duration),
    ):
        host.register(metric, ["obj_frequencies"], formatter="{:.2%}".format, name=name)
    return host


def _objects(events: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each object its frame numbers and whether it was found in them, by rising frame."""
    table = events.noraw
    objects = table.OId.to_numpy(dtype=float)  # NaN: a false alarm
    frames = table.index.get_level_values(0).to_numpy()
    found = (table.Type != "MISS").to_numpy()
    real = np.flatnonzero(~np.isnan(objects))
    order = real[np.argsort(objects[real], kind="stable")]
    ends = np.flatnonzero(np.diff(objects[order])) + 1
    return (
        list(zip(np.split(frames[order], ends), np.split(found[order], ends), strict=True))
        if len(order)
        else []
    )


def fragmentations(events: Any, obj_frequencies: Any) -> int:
    """How often an object is lost and found again: `num_fragmentations_custom`."""
    total = 0
    for _, found in _objects(events):
        lost = int(np.count_nonzero(found[:-1] & ~found[1:]))
        total += lost - int(found.any() and not found[-1])  # lost for good isn't a fragment
    return total


def initialization_duration(events: Any, obj_frequencies: Any) -> float:
    """Seconds from an object's first frame until it is found, mean over objects that are: `track_initialization_duration`."""
    return _mean([_SAMPLE_PERIOD_S * (frames[found.argmax()] - frames[0])
                  for frames, found in _objects(events) if found.any()])  # fmt: skip


def longest_gap_duration(events: Any, obj_frequencies: Any) -> float:
    """The longest time, s, that an object isn't found between its first and last frame, mean over objects found at all."""
    gaps = []
    for frames, found in _objects(events):
        if found.any():
            edges = np.concatenate([[frames[0] - 1], frames[found], [frames[-1] + 1]])
            gaps.append(_SAMPLE_PERIOD_S * (np.diff(edges).max() - 1))
    return _mean(gaps)


def _mean(values: Sequence[float]) -> float:
    return float(sum(values) / len(values)) if values else float("nan")
