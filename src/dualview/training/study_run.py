"""Running a study: every run is a process of its own, trained, scored on drives that it never saw, and kept.

Started again, a study goes on: finished runs are read, a run that was cut off resumes from its checkpoint.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

import yaml

from dualview.detectors.checkpoint import find_checkpoint
from dualview.errors import ConfigError
from dualview.evaluation.run import unique_names
from dualview.training.bag_index import find_recordings
from dualview.training.named_files import missing_files
from dualview.training.recipe import Recipe, load_recipe, recipe_to_dict
from dualview.training.study import Study
from dualview.training.study_commands import StudyCommands
from dualview.training.study_folder import Scores, StudyFolder, missing_metrics, read_scores
from dualview.training.study_progress import study_progress
from dualview.training.write_errors import make_folder

TRANSDUCTIVE = "transductive"  # the one test set that may name drives whose 2D labels were used
_ARGUMENTS = "study_arguments.json"  # of `dualview evaluate`, in the report's folder
_EVERY = 2.0  # s between two looks at how far the runs are


def run_study(
    study: Study,
    folder: Path,
    train_drives: Sequence[str],
    test_drives: Sequence[str],
    jobs: int = 1,
    tell: Callable[[str], None] = print,
    also: Mapping[str, Sequence[str]] | None = None,
    show: Callable[[int, int, str], None] | None = None,
) -> Scores:
    """Train and score every row with every seed; scores[row][seed][metric].

    jobs: runs at a time, each on its share of the cores. tell: called with a line after each run, whose scores can be read then. also:
    further test sets by name; all but "transductive" must be unseen. show: called now and then with the steps made by all
    runs, those there will be, and what is under way. KeyboardInterrupt lets trainings finish their step and keep it.

    Raises ConfigError if a drive is trained on and scored, a test set or `start_from` is missing, or `folder` holds runs of
    another recipe or scores of other drives; StudyError naming the run that failed and its log, and begins no further one.
    """
    also = also or {}
    _check_drives(study, train_drives, test_drives, also)
    place = StudyFolder(folder)
    runs = study.runs()
    _check_kept_runs(study, place, list(train_drives), {"": test_drives, **also})
    commands = StudyCommands(threads=max(1, (os.cpu_count() or 1) // jobs))
    recipes = {(row, seed): study.recipe_of(row, seed, list(train_drives)) for row, seed in runs}
    steps = {run: 0 if run[0] == study.unchanged else recipe.steps for run, recipe in recipes.items()}

    def one(row: str, seed: int) -> None:
        recipe = recipes[row, seed]
        sets = {"": test_drives, **also}
        missing = {
            name: drives for name, drives in sets.items() if not place.metrics(row, seed, name).is_file()
        }
        if missing:
            weights = _weights(study, recipe, place, row, seed, commands)
            for name, drives in missing.items():
                _score(study, recipe, weights, place, place.report(row, seed, name), name, drives, commands)

    def report(row: str, seed: int, done: int) -> None:
        without = missing_metrics(study, place, row, seed)
        tell(f"[{done}/{len(runs)}] {row}, seed {seed}" + (f"; its metrics.json has no {', '.join(without)}" if without else ""))

    def look() -> None:
        assert show is not None
        made, at = study_progress(study, place, steps)
        show(made, sum(steps.values()), at)

    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(one, row, seed): (row, seed) for row, seed in runs}
        try:
            try:
                _follow(running, report, look if show else None)
            except Exception:  # a run that failed: those under way end, nothing more begins
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            if not isinstance(error, Exception):  # Ctrl-C and its like: what is under way stops
                commands.stop()
            raise
    return read_scores(study, place)


def _follow(
    running: Mapping[Future[None], tuple[str, int]], report: Callable[[str, int, int], None], look: Callable[[], None] | None
) -> None:
    """Wait for all runs, and report each with how many are done; raises what one of them raised."""
    waiting, done = set(running), 0
    while waiting:
        finished, waiting = wait(waiting, _EVERY if look else None, FIRST_COMPLETED)
        for future in finished:
            future.result()
            done += 1
            report(*running[future], done)
        if look:
            look()


def _check_drives(
    study: Study, train_drives: Sequence[str], test_drives: Sequence[str], also: Mapping[str, Sequence[str]]
) -> None:
    """Raises ConfigError as `run_study` does."""
    if not train_drives or not test_drives:
        raise ConfigError("a study needs drives to train on and others to score: give --train and --test")
    absent = [name for name in study.test_sets if name not in also]
    if absent:
        raise ConfigError(
            f"the study reports {', '.join(m for m in study.metrics if m.partition(':')[0] in absent)}: name these drives with "
            f"--also {absent[0]}=BAGS"
        )
    recipes = [study.recipe_of(row, study.seeds[0], list(train_drives)) for row in study.rows]
    for row, recipe in zip(study.rows, recipes, strict=True):
        missing = missing_files(recipe)
        if missing:
            raise ConfigError(f"row '{row}': {missing[0]}")
    if study.unchanged is not None and recipes[0].start_from is None:
        raise ConfigError("the study starts from a trained checkpoint: name it with --set start_from=WEIGHTS")
    labelled = {
        path for r in recipes if r.labels_2d is not None for path in find_recordings(r.labels_2d.train)
    }
    learned = {path for r in recipes for path in find_recordings(r.data.train)}  # a row, or --set source=, may name its own
    seen = {str(path) for path in labelled | learned}
    for name, drives in {"test": test_drives, **also}.items():
        both = sorted({_name(d) for d in drives} & seen)
        if both and name != TRANSDUCTIVE:
            flag = "--test" if name == "test" else f"--also {name}="
            raise ConfigError(
                f"{', '.join(both[:3])} would be trained on and scored: give {flag} drives that aren't in --train, nor in "
                "data.train or labels_2d.train of a row"
            )


def _check_kept_runs(
    study: Study, place: StudyFolder, train_drives: list[str], sets: Mapping[str, Sequence[str]]
) -> None:
    """Raises ConfigError if a run that is there would be taken for one of this study and isn't."""
    for row, seed in study.runs():
        wanted, kept = study.recipe_of(row, seed, train_drives), place.recipe(row, seed)
        if kept.is_file():
            there, asked = (recipe_to_dict(r) for r in (load_recipe(str(kept)), wanted))
            differing = [key for key, value in asked.items() if there[key] != value]
            if differing:
                raise ConfigError(
                    f"{kept.parent} was trained with another recipe ({', '.join(differing)}): name another folder with --out"
                )
        for name, drives in sets.items():
            metrics = place.metrics(row, seed, name)
            scored = set(json.loads(metrics.read_text()).get("drives", ())) if metrics.is_file() else set()
            if scored and scored != set(unique_names(drives)):
                raise ConfigError(
                    f"{metrics.parent} holds scores of other drives ({', '.join(sorted(scored)[:3])}, ...): name another folder with --out"
                )
            asked_for = metrics.parent / _ARGUMENTS
            if asked_for.is_file() and json.loads(asked_for.read_text()) != study.evaluation(name):
                raise ConfigError(
                    f"{metrics.parent} was scored with other arguments ({' '.join(json.loads(asked_for.read_text()))}): delete it, or name "
                    "another folder with --out"
                )


def _weights(study: Study, recipe: Recipe, place: StudyFolder, row: str, seed: int, commands: StudyCommands) -> str:
    """The weights of a run, trained now if they aren't there."""
    folder = place.run(row, seed)
    make_folder(folder)
    recipe_file = place.recipe(row, seed)
    recipe_file.write_text(yaml.safe_dump(recipe_to_dict(recipe), sort_keys=False))
    if row == study.unchanged:
        return str(find_checkpoint(str(recipe.start_from)))
    resume = ["--resume"] if (folder / "last.ckpt").exists() else []
    commands.run(["train", str(recipe_file), "--out", str(folder), "--quiet", *resume], folder)
    return str(folder / "weights.safetensors")


def _score(
    study: Study,
    recipe: Recipe,
    weights: str,
    place: StudyFolder,
    report: Path,
    name: str,
    drives: Sequence[str],
    commands: StudyCommands,
) -> None:
    """Score a run on one test set. Written beside and renamed, so that a report is whole or not there."""
    target = name in ("", TRANSDUCTIVE) and recipe.labels_2d is not None
    rig = (recipe.labels_2d.rig if target and recipe.labels_2d is not None else None) or recipe.data.rig
    partial = report.with_name(f"{report.name}.partial")
    cache = ["--cache", str(place.cache)] if recipe.cache_features else []
    further = [*cache, *study.evaluation(name)]
    commands.run(
        ["evaluate", *drives, "--weights", weights, "--report", str(partial), "--rig", rig, *further], report.parent
    )
    (partial / _ARGUMENTS).write_text(json.dumps(study.evaluation(name)))
    partial.rename(report)


def _name(drive: str) -> str:
    return str(Path(drive).expanduser().resolve())
