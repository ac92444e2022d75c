"""How far a study is, read from what its runs write."""

from __future__ import annotations

from pathlib import Path

from dualview.training.study import Study
from dualview.training.study_folder import StudyFolder


def study_progress(study: Study, place: StudyFolder, steps: dict[tuple[str, int], int]) -> tuple[int, str]:
    """(optimiser steps that all runs have made, what those between their first step and their scores are at: "both-0 110/300").

    steps: (row, seed) -> how many the run makes in all, 0 for one that isn't trained.
    """
    made, at = 0, []
    for run, wanted in steps.items():
        if all(place.metrics(*run, name).is_file() for name in ("", *study.test_sets)):
            made += wanted
            continue
        done = min(logged_step(place.run(*run) / "losses.csv"), wanted)
        made += done
        if done:
            name = place.run(*run).name
            at.append(f"{name} {done}/{wanted}" if done < wanted else f"{name} being scored")
    return made, ", ".join(at)


def logged_step(losses: Path) -> int:
    """The last step that a run's losses.csv tells of; 0 where there is none yet."""
    try:
        last = losses.read_text(encoding="utf-8").splitlines()[-1]
        return int(last.partition(",")[0])
    except (OSError, ValueError, IndexError):
        return 0
