"""How well a detector stands up to corrupted images: RoboBEV's mRR and mCE (Xie et al. 2023, arXiv 2304.06719, section 4).

    resilience rate   RR_c = sum over severities of NDS_c,s / (severities * NDS_clean)
    corruption error  CE_c = sum over severities of (1 - NDS_c,s) / sum of (1 - NDS of the baseline)

mRR and mCE are their means over the corruptions, all in percent. The benchmark's baseline is DETR3D on nuScenes' validation
set: mCE is comparable with published figures on that set only; elsewhere give the metrics of a detector of one's own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
import torch
from torch import Tensor

from dualview.detectors.result_cache import ResultCache
from dualview.detectors.session import TrackingSession
from dualview.errors import ConfigError
from dualview.evaluation.detection import score_detections
from dualview.evaluation.protocol import Protocol
from dualview.evaluation.run import Labels, detect, label
from dualview.scene import preprocess
from dualview.scene.corruptions import catalogue
from dualview.scene.corruptions.catalogue import CORRUPTIONS, SEVERITIES, TITLES
from dualview.scene.corruptions.corruption import Corruption
from dualview.scene.corruptions.encoded import CorruptImage, corrupt_closed, corrupt_encoded
from dualview.scene.images import EncodedImage
from dualview.scene.rig import Rig

# DETR3D's NDS, the mean over the three severities, as RoboBEV publishes it
DETR3D = {
    "camera_crash": 0.2859, "frame_lost": 0.2604, "color_quant": 0.3177, "motion_blur": 0.2661,
    "brightness": 0.4002, "low_light": 0.2786, "fog": 0.3912, "snow": 0.1913,
}  # fmt: skip
DETR3D_NAME = "DETR3D on nuScenes val, as RoboBEV publishes it"


@dataclass(frozen=True)
class CorruptedScore:
    """Detection scores under one corruption at one severity. present_nds: over the classes with labels, None without any."""

    corruption: Corruption
    nds: float
    mean_ap: float
    present_nds: float | None = None


@dataclass(frozen=True)
class Baseline:
    """What mCE compares with. nds: corruption -> mean over `severities`; drives, seeds: of its evaluation, None: not told."""

    name: str
    nds: Mapping[str, float]
    severities: tuple[str, ...] = SEVERITIES
    drives: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None


DETR3D_BASELINE = Baseline(DETR3D_NAME, DETR3D)


def resilience_rate(clean: float, corrupted: Sequence[float]) -> float | None:
    """RR in percent of the NDS on clean images and at each severity; None where nothing was detected in clean images."""
    return 100 * float(np.mean(corrupted)) / clean if clean > 0 else None


def corruption_error(corrupted: Sequence[float], baseline: float) -> float:
    """CE in percent of the NDS at each severity; baseline: another detector's, the mean over the same severities."""
    return 100 * (1 - float(np.mean(corrupted))) / (1 - baseline)


def parse_corruptions(text: str) -> tuple[str, ...]:
    """ "all", or names with commas between them, as names in the benchmark's order. Raises ConfigError."""
    names = CORRUPTIONS if text == "all" else tuple(n.strip().replace("-", "_") for n in text.split(","))
    return _known(names, CORRUPTIONS, "corruption")


def parse_severities(text: str) -> tuple[str, ...]:
    """ "all", or names with commas between them, the mildest first. Raises ConfigError."""
    names = SEVERITIES if text == "all" else tuple(n.strip() for n in text.split(","))
    return _known(names, SEVERITIES, "severity")


def _known(names: Sequence[str], known: tuple[str, ...], what: str) -> tuple[str, ...]:
    wrong = [name for name in names if name not in known]
    if wrong:
        raise ConfigError(f"there is no {what} '{wrong[0]}': choose 'all' or some of {', '.join(known)}")
    return tuple(name for name in known if name in names)


def check_comparable(
    baseline: Baseline, corruptions: Sequence[str], severities: Sequence[str], drives: Sequence[str], seed: int
) -> None:
    """Raises ConfigError if mCE can't be told: the baseline hasn't each of the corruptions at just these severities, or was run on other
    recordings, whose names are compared, or with another seed.
    """
    missing = [name for name in corruptions if name not in baseline.nds]
    if missing:
        raise ConfigError(f"the baseline of mCE has no {missing[0]}: ask for {', '.join(baseline.nds)} alone, or run it anew")
    if tuple(severities) != baseline.severities:
        raise ConfigError(f"the baseline of mCE has other severities: ask for --severities {','.join(baseline.severities)}, or run it anew")
    if baseline.drives is not None and sorted(baseline.drives) != sorted(drives):
        other = sorted(set(baseline.drives) ^ set(drives))
        named = ", ".join([*other[:3], *(["…"] if len(other) > 3 else [])])
        raise ConfigError(f"the baseline of mCE is of other recordings ({named} in one of the two alone): run both on the same")
    if baseline.seeds is not None and baseline.seeds != (seed,):
        raise ConfigError(
            f"the baseline of mCE has other draws: ask for --corruption-seed {', '.join(map(str, baseline.seeds))}, or run it anew"
        )


def read_baseline(path: str | Path) -> Baseline:
    """The baseline that another evaluation's metrics.json holds. Raises ConfigError if it holds none."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        found = content["robustness"]
        nds = {name: float(values["NDS"]) for name, values in found["per_corruption"].items()}
        if not all(0 <= value < 1 for value in nds.values()):
            raise ValueError(f"NDS {nds} must be below 1")
        return Baseline(
            "; ".join(content["weights"]), nds, tuple(found["severities"]), tuple(content["drives"]), tuple(found["seeds"])
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} isn't the metrics.json of an evaluation with --corruptions: make one with the detector to compare with"
        ) from error


def evaluate_corrupted(
    paths: Sequence[str | Path],
    names: Sequence[str],
    labels: Sequence[Labels],
    rig: Rig,
    session: TrackingSession,
    protocol: Protocol,
    corruptions: Sequence[Corruption],
    progress: Callable[[str], Callable[[int], None]] | None = None,
    cache: Path | None = None,
    only: Sequence[Collection[int] | None] | None = None,
) -> Iterator[CorruptedScore]:
    """Run the detector over all recordings under each corruption and score it, one after the other.

    Images are corrupted on their way from the recording: the detector sees what it would see in a copy that
    `dualview corrupt` wrote. names, labels: of each recording; the labels (`read_labels`) are the same under all.
    progress: recording and corruption in words -> what is told the number of frames done. cache: folder that keeps corrupted
    images for further detectors. only: of each recording, as for `detect`.
    """
    corrupt: CorruptImage = corrupt_encoded
    if cache is not None:
        corrupt = partial(_corrupt_or_recall, ResultCache(cache, _maker_of_images()))
    for corruption in corruptions:
        keyframes = []
        for path, name, known, frames in zip(paths, names, labels, only or [None] * len(paths), strict=True):
            tell = progress(f"{name}, {corruption.name} {corruption.severity}") if progress else None
            alter = partial(corrupt_closed, corruption=corruption, corrupt_image=corrupt)
            keyframes += label(detect(path, rig, session, name, tell, alter, frames), rig, protocol, known)
        if not keyframes:
            raise ConfigError("--corruptions: the recordings have no labels, so there is nothing to score")
        scores = score_detections(keyframes, protocol)
        present = None if scores.present is None else scores.present.nds
        yield CorruptedScore(corruption, scores.nds, scores.mean_ap, present)


def _maker_of_images() -> str:
    """What corrupted images depend on beside themselves: our code and the libraries that decode, compute and encode them."""
    code = hashlib.sha256()
    for file in (*sorted(Path(catalogue.__file__).parent.glob("*.py")), Path(preprocess.__file__)):
        code.update(file.read_bytes())
    libraries = " ".join(f"{module.__name__} {module.__version__}" for module in (np, cv2, simplejpeg))
    return f"corrupted images of {code.hexdigest()} {libraries}"


def _corrupt_or_recall(
    cache: ResultCache, image: EncodedImage, corruption: Corruption, camera: int, cameras: int
) -> EncodedImage:
    """`corrupt_encoded`, or what it made of this image before. A raw image is corrupted each time: it is large, and soon done."""
    if not image.compressed:
        return corrupt_encoded(image, corruption, camera, cameras)

    def compute() -> list[Tensor]:
        return [torch.from_numpy(np.array(corrupt_encoded(image, corruption, camera, cameras).data))]

    data = torch.from_numpy(np.frombuffer(bytes(image.data), np.uint8).copy())
    (found,) = cache(data, compute, f"{corruption}, camera {camera} of {cameras}, {image.stamp_ns}")
    return replace(image, data=found.numpy())


def robustness_summary(
    clean_nds: float,
    clean_present_nds: float | None,
    scores: Sequence[CorruptedScore],
    baseline: Baseline = DETR3D_BASELINE,
) -> dict[str, Any]:
    """What metrics.json says under "robustness"; scores: every corruption at the same severities.

    mRR, mCE and RR, CE of each corruption are in percent, NDS is not; `mRR_present` is mRR of the NDS over classes that have
    labels. mCE is None where the baseline has other corruptions or severities; `mRR` is the mean over the corruptions that were
    run, which `complete` says to be all of the benchmark.
    """
    names = tuple(n for n in CORRUPTIONS if any(s.corruption.name == n for s in scores))
    severities = tuple(n for n in SEVERITIES if any(s.corruption.severity == n for s in scores))
    table = {(s.corruption.name, s.corruption.severity): s for s in scores}
    if len(table) != len(names) * len(severities) or len(table) != len(scores):
        raise ValueError("a summary needs each corruption at each severity once")
    comparable = severities == baseline.severities and set(names) <= baseline.nds.keys()
    per_corruption: dict[str, Any] = {}
    present: list[float | None] = []
    for name in names:
        row = [table[name, severity] for severity in severities]
        nds = [s.nds for s in row]
        per_corruption[name] = {
            "RR": resilience_rate(clean_nds, nds),
            "CE": corruption_error(nds, baseline.nds[name]) if comparable else None,
            "NDS": float(np.mean(nds)),
            "mAP": float(np.mean([s.mean_ap for s in row])),
            "severities": {
                s.corruption.severity: {"NDS": s.nds, "mAP": s.mean_ap, "present_NDS": s.present_nds}
                for s in row
            },
        }
        known = [s.present_nds for s in row if s.present_nds is not None]
        whole = clean_present_nds is not None and len(known) == len(row)
        present.append(resilience_rate(clean_present_nds or 0.0, known) if whole else None)
    return {
        "mRR": _mean([values["RR"] for values in per_corruption.values()]),
        "mCE": _mean([values["CE"] for values in per_corruption.values()]),
        "mRR_present": _mean(present),
        "complete": names == CORRUPTIONS and severities == SEVERITIES,
        "baseline": baseline.name if comparable else None,
        "seeds": sorted({s.corruption.seed for s in scores}),
        "severities": list(severities),
        "per_corruption": per_corruption,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if values and len(known) == len(values) else None


def robustness_headline(robustness: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, value) of the numbers that one looks at first."""
    count = len(robustness["per_corruption"])
    part = (
        ""
        if robustness["complete"]
        else f" ({count} of {len(CORRUPTIONS)} corruptions, {', '.join(robustness['severities'])})"
    )
    rows = [(f"mRR{part}", f"{_percent(robustness['mRR'])} %")]
    if robustness["mCE"] is not None:
        rows.append((f"mCE{part}", f"{_percent(robustness['mCE'])} % of {robustness['baseline']}"))
    return rows


def robustness_section(robustness: Mapping[str, Any]) -> str:
    """The report's section, Markdown."""
    severities = robustness["severities"]
    lines = [
        "## Corrupted images",
        "",
        *(f"- {name}: **{value}**" for name, value in robustness_headline(robustness)),
    ]
    if robustness["mRR_present"] is not None:
        lines.append(
            f"- mRR of the NDS over classes that have labels: {_percent(robustness['mRR_present'])} %"
        )
    lines += ["", f"| corruption | RR % | CE % | mAP | NDS | {' | '.join(f'NDS {s}' for s in severities)} |",
              "|---" * (5 + len(severities)) + "|"]  # fmt: skip
    for name, values in robustness["per_corruption"].items():
        each = [f"{values['severities'][s]['NDS']:.3f}" for s in severities]
        cells = [
            _percent(values["RR"]),
            _percent(values["CE"]),
            f"{values['mAP']:.3f}",
            f"{values['NDS']:.3f}",
            *each,
        ]
        lines.append(f"| {TITLES[name]} | {' | '.join(cells)} |")
    lines += ["", "RR: the part of the clean NDS that is left. CE: what is missing to an NDS of 1, relative to the baseline. "
              f"Seed {', '.join(map(str, robustness['seeds']))}; the noise is the same for every detector."]  # fmt: skip
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
