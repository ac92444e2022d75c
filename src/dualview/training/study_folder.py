"""Where the runs of a study lie, and what is known of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from dualview.training.study import Study
from dualview.training.study_table import look_up

Scores = dict[str, dict[int, dict[str, float]]]


@dataclass(frozen=True)
class StudyFolder:
    """Where a study's runs lie: one folder for each row and seed below `root`."""

    root: Path

    def run(self, row: str, seed: int) -> Path:
        """Folder of one run."""
        return self.root / f"{row}-{seed}"

    def recipe(self, row: str, seed: int) -> Path:
        """What one run was asked to train."""
        return self.run(row, seed) / "study_recipe.yaml"

    def report(self, row: str, seed: int, test_set: str = "") -> Path:
        """Folder of the scores of one run, on the test drives or on a further test set."""
        return self.run(row, seed) / (f"report-{test_set}" if test_set else "report")

    @property
    def cache(self) -> Path:
        """What one frozen backbone says of the test drives, for all runs; free to delete."""
        return self.root / ".cache"

    def metrics(self, row: str, seed: int, test_set: str = "") -> Path:
        """The scores of one run; there once that test set was scored."""
        return self.report(row, seed, test_set) / "metrics.json"


def read_scores(study: Study, place: StudyFolder) -> Scores:
    """The scores of all runs that are finished."""
    scores: Scores = {row: {} for row in study.rows}
    for row, seed in product(study.rows, study.seeds):
        run = row, study.seed_of(row, seed)
        paths = {name: place.metrics(*run, name) for name in ("", *study.test_sets)}
        if all(path.is_file() for path in paths.values()):
            found = {name: json.loads(path.read_text()) for name, path in paths.items()}
            scores[row][seed] = {metric: _look_up(found, metric) for metric in study.metrics}
    return scores


def missing_metrics(study: Study, place: StudyFolder, row: str, seed: int) -> list[str]:
    """The study's metrics that a finished run's metrics.json lacks: wrong names, or classes and ranges without a label."""
    missing = []
    for metric in study.metrics:
        name, path = _place_of(metric)
        try:
            look_up(json.loads(place.metrics(row, seed, name).read_text()), path)
        except KeyError:
            missing.append(metric)
    return missing


def _look_up(found: Mapping[str, Mapping[str, Any]], metric: str) -> float:
    """A metric of the study in the metrics.json of its test set; NaN where it hasn't got it."""
    name, path = _place_of(metric)
    try:
        return look_up(found[name], path)
    except KeyError:
        return math.nan


def _place_of(metric: str) -> tuple[str, str]:
    """(test set, dotted path) of a metric."""
    name, colon, path = metric.partition(":")
    return (name, path) if colon else ("", metric)
