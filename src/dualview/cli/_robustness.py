"""What `dualview evaluate --corruptions` adds to an evaluation."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dualview.detectors.detector import Settings
    from dualview.detectors.session import TrackingSession
    from dualview.evaluation.protocol import Protocol
    from dualview.evaluation.run import Labels
    from dualview.scene.rig import Rig


def add_robustness_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare --corruptions and what belongs to it."""
    group = parser.add_argument_group("robustness (RoboBEV)")
    group.add_argument("--corruptions", metavar="all|NAMES",
                       help="also run under corrupted images, for mRR and mCE: 'all', or fog,snow,… (see dualview corrupt)")  # fmt: skip
    group.add_argument(
        "--severities", metavar="all|NAMES", help="easy,moderate,hard (default: all)"
    )
    group.add_argument(
        "--corruption-seed", type=int, metavar="N", help="seed of the corruptions (default 0)"
    )
    group.add_argument("--mce-baseline", metavar="METRICS.json",
                       help="another detector's metrics with --corruptions, for mCE (default: DETR3D on nuScenes)")  # fmt: skip


def check_robustness_arguments(arguments: argparse.Namespace) -> None:
    """Raises ConfigError for what can't be done, before anything slow starts."""
    from dualview.errors import ConfigError
    from dualview.evaluation.robustness import (
        check_comparable,
        parse_corruptions,
        parse_severities,
        read_baseline,
    )
    from dualview.evaluation.run import unique_names

    if arguments.corruptions is None:
        for option in ("severities", "corruption_seed", "mce_baseline"):
            if getattr(arguments, option) is not None:
                raise ConfigError(f"--{option.replace('_', '-')} belongs to --corruptions: say which ('all'), or leave it out")
        return
    if arguments.tracks:
        raise ConfigError(
            "--corruptions needs a detector to run: for a node, play copies that `dualview corrupt` makes to it"
        )
    seed = _seed(arguments)
    if seed < 0:
        raise ConfigError(f"--corruption-seed {seed}: a seed is a whole number from 0 on")
    corruptions, severities = parse_corruptions(arguments.corruptions), parse_severities(_severities(arguments))
    if arguments.mce_baseline:
        drives = list(unique_names(arguments.bags))
        check_comparable(read_baseline(arguments.mce_baseline), corruptions, severities, drives, seed)


def _seed(arguments: argparse.Namespace) -> int:
    return arguments.corruption_seed or 0


def _severities(arguments: argparse.Namespace) -> str:
    return "all" if arguments.severities is None else arguments.severities


def check_sees_images(arguments: argparse.Namespace, detector: Settings) -> None:
    """Raises ConfigError if images are to be corrupted that the detector doesn't look at."""
    from dualview.errors import ConfigError

    if arguments.corruptions is not None and detector.image_backbone_name is None:
        raise ConfigError(f"{detector.name} sees no images, so that --corruptions change nothing: leave them out")


def run_robustness(
    arguments: argparse.Namespace,
    metrics: Mapping[str, Any],
    names: Sequence[str],
    labels: Sequence[Labels],
    rig: Rig,
    session: TrackingSession,
    protocol: Protocol,
    progress: Callable[[str], Callable[[int], None]],
    only: Sequence[Collection[int] | None],
) -> dict[str, Any]:
    """Run all corruptions that were asked for; `metrics`: those of clean images; names, labels, only: of each recording.

    Each score is printed when it is known.
    """
    from dualview.evaluation.robustness import (
        DETR3D_BASELINE,
        evaluate_corrupted,
        parse_corruptions,
        parse_severities,
        read_baseline,
        robustness_summary,
    )
    from dualview.scene.corruptions.corruption import Corruption

    wanted = [
        Corruption(name, severity, _seed(arguments))
        for name in parse_corruptions(arguments.corruptions)
        for severity in parse_severities(_severities(arguments))
    ]
    baseline = read_baseline(arguments.mce_baseline) if arguments.mce_baseline else DETR3D_BASELINE
    scores = []
    found = evaluate_corrupted(
        arguments.bags, names, labels, rig, session, protocol, wanted, progress, arguments.cache, only
    )
    for score in found:
        scores.append(score)
        about = f"{score.corruption.name}, {score.corruption.severity}"
        print(f"{about:>28}  mAP {score.mean_ap:.3f}, NDS {score.nds:.3f}", file=sys.stderr, flush=True)
    present = metrics["present"]["NDS"] if metrics["present"] else None
    return robustness_summary(metrics["NDS"], present, scores, baseline)
