"""Score a detector on recordings, or what a node published for one, as nuScenes does: mAP, NDS, AMOTA and more, with a report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dualview.cli._label_maps import label_map_reader
from dualview.cli._robustness import (
    add_robustness_arguments,
    check_robustness_arguments,
    check_sees_images,
    run_robustness,
)

if TYPE_CHECKING:
    from dualview.evaluation.protocol import Protocol
    from dualview.evaluation.run import Labels
    from dualview.scene.rig import Rig

HELP = "score a detector, or a node's recorded tracks, against the labels of recordings"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("bags", nargs="+", metavar="BAG", help="recordings; those with labels are scored")
    parser.add_argument("--report", metavar="DIR", required=True, help="where metrics.json and report.md go")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--weights", default="dualview-tiny", help="a preset, a name in models/, or a .safetensors file"
    )
    source.add_argument("--tracks", action="append", metavar="OUT.mcap",
                        help="score these recorded tracks of a node instead; once for each BAG, in the same order")  # fmt: skip
    parser.add_argument("--tracks-topic", help="topic of the tracks in OUT.mcap (default: the only one)")
    parser.add_argument(
        "--rig", help="rig name or file (default: the known one whose cameras the recording has)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"),
                        help="as the node's parameter (default auto: bf16 on a CPU with AMX or AVX-512 BF16, else fp32)")  # fmt: skip
    parser.add_argument(
        "--score-threshold", type=float, help="as the node's parameter (default: what the checkpoint says)"
    )
    parser.add_argument("--label-maps", metavar="DIR",
                        help="for oracles that read label maps: what `dualview label-maps` made of the recordings")  # fmt: skip
    parser.add_argument(
        "--cache", type=Path, metavar="DIR",
        help="keep corrupted images and what the image backbone says of all images in DIR, for further evaluations of checkpoints with "
        "the same backbone on the same recordings (a few MB a frame); the network's times aren't told then",
    )  # fmt: skip
    parser.add_argument(
        "--protocol", default="nuscenes", help="nuscenes, waymo, argoverse2, or a YAML file with other classes and ranges"
    )
    parser.add_argument("--labelled-frames", action="store_true",
                        help="give the detector the frames nearest to labels alone, as it learned from (default: all)")  # fmt: skip
    parser.add_argument("--keyframe-interval", type=float, metavar="S",
                        help="score keyframes at least so far apart, s (nuScenes: 0.5; default: all)")  # fmt: skip
    parser.add_argument("--pictures", type=int, default=3, metavar="N",
                        help="pictures of the worst frames, and strips of the worst identity switches (default 3)")  # fmt: skip
    add_robustness_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, write the report, print the best-known numbers."""
    from dataclasses import replace

    from dualview.detectors.host_memory import keep_freed_memory
    from dualview.detectors.result_cache import CachedNetwork
    from dualview.errors import ConfigError
    from dualview.evaluation.metrics import compute_metrics, headline
    from dualview.evaluation.protocol import load_protocol
    from dualview.evaluation.report import write_report
    from dualview.evaluation.robustness import robustness_headline
    from dualview.evaluation.run import (
        detect,
        fitting_rig,
        label,
        labelled_frames,
        read_labels,
        recorded,
        unique_names,
    )

    keep_freed_memory()
    check_robustness_arguments(arguments)
    protocol = load_protocol(arguments.protocol)
    if arguments.keyframe_interval is not None:
        protocol = replace(protocol, keyframe_interval_s=arguments.keyframe_interval)
    if arguments.tracks and len(arguments.tracks) != len(arguments.bags):
        raise ConfigError(
            f"{len(arguments.tracks)} --tracks for {len(arguments.bags)} recordings: give one for each, in the same order"
        )
    _check_named_once(arguments.bags)
    rig = fitting_rig(arguments.bags[0], arguments.rig)
    names = list(unique_names(arguments.bags))
    labels = [read_labels(path, rig, protocol) for path in arguments.bags]
    _tell_unlabelled(arguments.bags, labels, rig)
    if arguments.tracks and arguments.labelled_frames:
        raise ConfigError("--labelled-frames is for a detector that runs now: with --tracks the node has chosen its frames")
    folder = _folder(arguments.report)
    only: list[frozenset[int] | None] = [None] * len(labels)
    drives = []
    if arguments.tracks:
        for path, tracks, name in zip(arguments.bags, arguments.tracks, names, strict=True):
            drives.append(recorded(path, tracks, rig, arguments.tracks_topic, name))
        _check_classes(protocol, labels, {c for d in drives for p in d.predictions for c in p.class_names})
    else:
        _check_cameras(arguments.bags, rig)
        session = _session(arguments, rig)
        _check_classes(protocol, labels, session.detector.config.class_names)
        check_sees_images(arguments, session.detector.config)
        cached = arguments.cache is not None and session.detector.image_backbone is not None
        if cached:
            session.detector.image_backbone = CachedNetwork(session.detector.image_backbone, arguments.cache)
        if arguments.labelled_frames:
            tolerance = protocol.tolerance_s
            only = [
                labelled_frames(path, rig, own, tolerance) if own.annotations else None
                for path, own in zip(arguments.bags, labels, strict=True)
            ]
        label_maps = label_map_reader(arguments, session.detector.config, protocol.tolerance_s)
        completed = [
            label_maps(path, [a.stamp_ns for a in own.annotations])
            for path, own in zip(arguments.bags, labels, strict=True)
        ]
        for path, name, complete, frames in zip(arguments.bags, names, completed, only, strict=True):
            found = detect(path, rig, session, name, _progress(name), complete, frames)
            # With a cache the network's times may be those of looking up what its backbone said before: they aren't told.
            times = {stage: ms for stage, ms in found.latency_ms.items() if not (cached and stage == "network")}
            drives.append(replace(found, latency_ms=times))
            print(file=sys.stderr)
    keyframes = [
        k for drive, own in zip(drives, labels, strict=True) for k in label(drive, rig, protocol, own)
    ]
    metrics, detection = compute_metrics(drives, keyframes, protocol)
    if arguments.corruptions and metrics["scored"]:
        metrics["robustness"] = run_robustness(
            arguments, metrics, names, labels, rig, session, protocol, _progress, only
        )
    page = write_report(folder, metrics, detection, drives, keyframes, rig, protocol, arguments.pictures)
    robustness = robustness_headline(metrics["robustness"]) if "robustness" in metrics else []
    for name, value in headline(metrics) + robustness:
        print(f"{name:>28}  {value}")
    print(f"weights: {'; '.join(metrics['weights'])}\nreport: {page}")
    return 0


def _check_named_once(paths: Sequence[str]) -> None:
    """Raises ConfigError for a recording that would count twice."""
    from dualview.errors import ConfigError

    seen: set[Path] = set()
    for path in paths:
        real = Path(path).expanduser().resolve()
        if real in seen:
            raise ConfigError(f"{path} is named twice, and would count twice: name each recording once")
        seen.add(real)


def _folder(path: str) -> Path:
    """The report's folder, made before anything slow starts. Raises ConfigError if it can't be."""
    from dualview.errors import ConfigError

    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--report {path}: the folder can't be made ({error.strerror or error}); name another"
        ) from error
    return folder


def _check_cameras(paths: Sequence[str], rig: Rig) -> None:
    """Raises BagError for the first recording without any of the rig's cameras; says what else is missing."""
    from dualview.scene.bag_reader import BagReader

    for path in paths:
        with BagReader(path) as bag:
            for problem in bag.check_rig(rig):
                print(f"dualview evaluate: {path}: {problem}", file=sys.stderr)


def _tell_unlabelled(paths: Sequence[str], labels: Sequence[Labels], rig: Rig) -> None:
    """Name the recordings that can't be scored, and why, before the long part."""
    for path, own in zip(paths, labels, strict=True):
        if own.annotations:
            continue
        if own.unplaced:
            reason = f"labels, but no pose from {rig.world_frame} to {rig.ego_frame} at their stamps (is /tf recorded?)"
        elif rig.annotations_topic is None:
            reason = f"no labels that rig '{rig.name}' knows of (set annotations_topic in the rig file)"
        else:
            reason = f"no labels on {rig.annotations_topic}, rig '{rig.name}' (`dualview bag info` lists its topics)"
        print(f"dualview evaluate: {path} has {reason}: it counts for times, not for scores", file=sys.stderr)


def _check_classes(protocol: Protocol, labels: Sequence[Labels], detected: Collection[str]) -> None:
    """Raises ConfigError if the protocol scores a class that neither labels nor detector know."""
    from dualview.evaluation.protocol import Protocol
    from dualview.evaluation.protocol_checks import check_classes

    known = set(detected).union(*(own.class_names for own in labels))
    check_classes(protocol, known, list(Protocol().class_ranges))


def _session(arguments: argparse.Namespace, rig: Any) -> Any:
    import dualview
    from dualview.detectors.session import TrackingSession
    from dualview.evaluation.run import threshold_overrides
    from dualview.scene.assembler import AssemblerSettings

    overrides = threshold_overrides(arguments.score_threshold)
    detector = dualview.load(
        arguments.weights, arguments.device, overrides=overrides, precision=arguments.precision
    )
    return TrackingSession(detector, AssemblerSettings.for_rig(rig).min_cameras, decode_workers=2)


def _progress(name: str) -> Callable[[int], None]:
    def show(done: int) -> None:
        if done % 5 == 0 and sys.stderr.isatty():
            print(f"\r{name}: {done} frames", end="", file=sys.stderr, flush=True)

    return show
