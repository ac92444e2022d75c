"""The table of a study: mean and standard deviation over the seeds, and differences from the baseline seed by
seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class PairedDifference:
    """mean difference, half width of its 95 % interval (Student's t over paired seeds; infinite for one
    seed), and whether zero lies outside.
    """

    mean: float
    half_width: float

    @property
    def clear(self) -> bool:
        """The effect is larger than the noise."""
        return abs(self.mean) > self.half_width


def paired_difference(row: Sequence[float], baseline: Sequence[float]) -> PairedDifference:
    """Scores of the same seeds in the same order. Raises ValueError if they aren't as many."""
    if len(row) != len(baseline) or not len(row):
        raise ValueError(f"{len(row)} scores can't be paired with {len(baseline)}: run the same seeds")
    differences = np.subtract(row, baseline)
    count = len(differences)
    if count == 1:
        return PairedDifference(float(differences[0]), math.inf)
    deviation = float(differences.std(ddof=1))
    quantile = float(stats.t.ppf(0.5 + CONFIDENCE / 2, count - 1))
    return PairedDifference(float(differences.mean()), quantile * deviation / math.sqrt(count))


def look_up(metrics: Mapping[str, Any], path: str) -> float:
    """The number at a dotted path of metrics.json, NaN where it says null (mRR of a detector that sees nothing). Raises
    KeyError naming the path.
    """
    value: Any = metrics
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            raise KeyError(f"metrics.json has no {path}")
        value = value[key]
    return math.nan if value is None else float(value)


def study_table(
    scores: Mapping[str, Mapping[int, Mapping[str, float]]], baseline: str, metrics: Sequence[str]
) -> str:
    """Markdown of scores[row][seed][metric]. Rows and seeds that are missing are said to be."""
    lines = [
        "| row | seeds | " + " | ".join(metrics) + " |",
        "|---|---|" + "---|" * len(metrics),
    ]
    for row, runs in scores.items():
        cells = []
        for metric in metrics:
            values = [runs[seed][metric] for seed in sorted(runs)]
            spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.3f}{spread}" if values else "not run")
        lines.append(f"| {row} | {len(runs)} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"Differences from `{baseline}`, paired by seed, with the half width of the 95 % interval:",
        "",
    ]
    lines += ["| row | " + " | ".join(metrics) + " |", "|---|" + "---|" * len(metrics)]
    for row, runs in scores.items():
        shared = sorted(set(runs) & set(scores.get(baseline, {})))
        if row == baseline or not shared:
            continue
        cells = []
        for metric in metrics:
            found = paired_difference(
                [runs[seed][metric] for seed in shared], [scores[baseline][seed][metric] for seed in shared]
            )
            verdict = "" if found.clear else " (within the noise)"
            one_seed = math.isinf(found.half_width)
            cells.append(f"{found.mean:+.3f} " + ("(one seed)" if one_seed else f"± {found.half_width:.3f}{verdict}"))
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
