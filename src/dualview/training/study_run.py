"""Running a study: every run is a process of its own, trained, scored on drives that it never saw, and kept.

Started again, a study goes on: finished runs are read, a run that was cut off resumes from its checkpoint.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

from dualview.errors import ConfigError, DualViewError
from dualview.training.recipe import recipe_to_dict
from dualview.training.study import Study
from dualview.training.study_table import look_up

Scores = dict[str, dict[int, dict[str, float]]]


class StudyError(DualViewError):
    """A run of a study failed."""


@dataclass(frozen=True)
class StudyFolder:
    """Where a study's runs lie: one folder for each row and seed below `root`."""

    root: Path

    def run(self, row: str, seed: int) -> Path:
        """Folder of one run."""
        return self.root / f"{row}-{seed}"

    def metrics(self, row: str, seed: int) -> Path:
        """The scores of one run; there once it is finished."""
        return self.run(row, seed) / "report" / "metrics.json"


def run_study(
    study: Study,
    folder: Path,
    train_drives: Sequence[str],
    test_drives: Sequence[str],
    jobs: int = 1,
    tell: Callable[[str], None] = print,
) -> Scores:
    """Train and score every row with every seed; scores[row][seed][metric].

    jobs: runs at a time, each on its share of the cores. Raises ConfigError if a drive is in both sets,
    StudyError naming the run that failed and its log.
    """
    both = sorted({_name(d) for d in train_drives} & {_name(d) for d in test_drives})
    if both:
        raise ConfigError(
            f"{', '.join(both[:3])} would be trained on and scored: give --test drives that aren't in --train"
        )
    if not train_drives or not test_drives:
        raise ConfigError("a study needs drives to train on and others to score: give --train and --test")
    place = StudyFolder(folder)
    runs = study.runs()
    threads = max(1, (os.cpu_count() or 1) // jobs)
    done = 0

    def one(run: tuple[str, int]) -> None:
        nonlocal done
        row, seed = run
        if not place.metrics(row, seed).is_file():
            _train_and_score(study, place, row, seed, train_drives, test_drives, threads)
        done += 1
        tell(f"[{done}/{len(runs)}] {row}, seed {seed}")

    with ThreadPoolExecutor(jobs) as pool:
        for result in [pool.submit(one, run) for run in runs]:
            result.result()
    return read_scores(study, place)


def read_scores(study: Study, place: StudyFolder) -> Scores:
    """The scores of all runs that are finished."""
    scores: Scores = {row: {} for row in study.rows}
    for row, seed in study.runs():
        path = place.metrics(row, seed)
        if path.is_file():
            metrics = json.loads(path.read_text())
            scores[row][seed] = {name: look_up(metrics, name) for name in study.metrics}
    return scores


def _train_and_score(
    study: Study,
    place: StudyFolder,
    row: str,
    seed: int,
    train_drives: Sequence[str],
    test_drives: Sequence[str],
    threads: int,
) -> None:
    folder = place.run(row, seed)
    folder.mkdir(parents=True, exist_ok=True)
    recipe = study.recipe_of(row, seed, list(train_drives))
    recipe_file = folder / "study_recipe.yaml"
    recipe_file.write_text(yaml.safe_dump(recipe_to_dict(recipe), sort_keys=False))
    resume = ["--resume"] if (folder / "last.ckpt").exists() else []
    _command(["train", str(recipe_file), "--out", str(folder), "--quiet", *resume], folder, threads)
    weights = str(folder / "weights.safetensors")
    # Written beside and renamed, so that a report is whole or not there.
    partial = folder / "report.partial"
    _command(
        ["evaluate", *test_drives, "--weights", weights, "--report", str(partial), "--rig", recipe.data.rig,
         *study.evaluate], folder, threads,
    )  # fmt: skip
    partial.rename(folder / "report")


def _command(arguments: list[str], folder: Path, threads: int) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    log = folder / f"{arguments[0]}.log"
    with log.open("ab") as output:
        code = subprocess.run(
            [sys.executable, "-m", "dualview", *arguments], stdout=output, stderr=subprocess.STDOUT,
            env=environment, check=False,
        ).returncode  # fmt: skip
    if code:
        last = log.read_text(errors="replace").strip().splitlines()[-1:]
        raise StudyError(f"{folder.name}: dualview {arguments[0]} failed ({' '.join(last)}); see {log}")


def _name(drive: str) -> str:
    return str(Path(drive).expanduser().resolve())
