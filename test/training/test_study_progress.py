"""How far a study is, as its bar says."""

from pathlib import Path

from dualview.training.study import Study
from dualview.training.study_folder import StudyFolder
from dualview.training.study_progress import logged_step, study_progress


def test_steps_are_counted_and_what_is_under_way_is_named(tmp_path: Path) -> None:
    study = Study("dualview_tiny_cpu", {"a": {}, "b": {}}, "a", seeds=(0, 1), metrics=("mAP", "fog:mAP"))
    place = StudyFolder(tmp_path)
    steps = dict.fromkeys(study.runs(), 300)
    assert study_progress(study, place, steps) == (0, "")

    def log(row: str, seed: int, step: int) -> None:
        place.run(row, seed).mkdir(exist_ok=True)
        (place.run(row, seed) / "losses.csv").write_text(f"step,total\n10,1.5\n{step},1.0\n")

    def score(row: str, seed: int, name: str) -> None:
        place.metrics(row, seed, name).parent.mkdir(parents=True)
        place.metrics(row, seed, name).write_text("{}")

    log("a", 0, 300)
    score("a", 0, "")
    log("b", 0, 110)
    assert study_progress(study, place, steps) == (410, "a-0 being scored, b-0 110/300")
    score("a", 0, "fog")
    assert study_progress(study, place, steps) == (410, "b-0 110/300")


def test_a_table_without_lines_tells_no_step(tmp_path: Path) -> None:
    path = tmp_path / "losses.csv"
    assert logged_step(path) == 0
    path.write_text("")
    assert logged_step(path) == 0
    path.write_text("step,total\n")
    assert logged_step(path) == 0
