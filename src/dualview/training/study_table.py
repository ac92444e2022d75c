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
    scores: Mapping[str, Mapping[int, Mapping[str, float]]],
    baseline: str,
    metrics: Sequence[str],
    compare: Sequence[tuple[str, str]] = (),
) -> str:
    """Markdown of scores[row][seed][metric], with the difference of every row from the baseline and of each further pair (row, other)
    of `compare`. Rows and seeds that are missing are said to be.
    """
    lines = _head("row", "seeds", *metrics)
    for row, runs in scores.items():
        cells = [_mean_and_spread([run[metric] for run in runs.values()]) for metric in metrics]
        lines.append(_line(row, str(len(runs)), *cells))
    pairs = [*((row, baseline) for row in scores if row != baseline), *compare]
    lines += ["", "Differences, paired by seed, with the half width of the 95 % interval:", ""]
    lines += _head("rows", *metrics)
    for row, other in pairs:
        seeds = sorted(scores[row].keys() & scores[other].keys())
        if seeds:
            cells = [
                _difference([scores[row][s][metric] for s in seeds], [scores[other][s][metric] for s in seeds])
                for metric in metrics
            ]
            lines.append(_line(f"{row} − {other}", *cells))
    return "\n".join(lines) + "\n"


def _head(*names: str) -> list[str]:
    return [_line(*names), "|" + "---|" * len(names)]


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _mean_and_spread(values: Sequence[float]) -> str:
    if np.isnan(values).any():
        return "–"
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}" if values else "not run"


def _difference(row: Sequence[float], other: Sequence[float]) -> str:
    found = paired_difference(row, other)
    if math.isnan(found.mean):
        return "–"
    if math.isinf(found.half_width):
        return f"{found.mean:+.3f} (one seed)"
    return f"{found.mean:+.3f} ± {found.half_width:.3f}" + ("" if found.clear else " (within the noise)")
