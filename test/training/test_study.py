"""Studies: checked before they start, paired by seed, and going on where they were stopped."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from dualview.cli import main
from dualview.detectors.checkpoint import save_checkpoint
from dualview.errors import ConfigError
from dualview.training.recipe import recipe_from_dict
from dualview.training.study import Study, known_studies, load_study
from dualview.training.study_commands import StudyError
from dualview.training.study_folder import StudyFolder, read_scores
from dualview.training.study_run import run_study
from dualview.training.study_table import look_up, paired_difference, study_table
from dualview.training.trainer import initial_detector


@pytest.mark.parametrize("name", sorted(known_studies()))
def test_the_studies_that_come_along_are_whole(name: str) -> None:
    study = load_study(name)
    assert len(study.seeds) >= 3 and study.baseline in study.rows


def test_the_views_study_differs_in_views_alone() -> None:
    study = load_study("views")
    recipes = {row: study.recipe_of(row, 1, ["a.mcap"]) for row in study.rows}
    configs = {row: recipe.detector_config() for row, recipe in recipes.items()}
    assert configs["perspective"].bev is None and not configs["perspective"].decoder.use_bev
    assert configs["bev"].bev is not None and not configs["bev"].decoder.use_perspective
    assert configs["both"].decoder.use_bev and configs["both"].decoder.use_perspective
    budgets = {(r.steps, r.batch_size, r.seed, r.data, r.clips, r.dense_steps) for r in recipes.values()}
    assert len(budgets) == 1


def test_wrong_studies_say_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(ConfigError, match="did you mean 'views'"):
        load_study("view")
    file = tmp_path / "mine.yaml"
    good = {"recipe": "dualview_tiny", "rows": {"a": {}, "b": {"step": 3}}, "baseline": "a"}
    file.write_text(yaml.safe_dump(good))
    with pytest.raises(ConfigError, match=r"row 'b'.*no key 'step': did you mean 'steps'"):
        load_study(str(file))
    for key, value in {"baseline": "c", "compare": [["b", "a"], ["a", "c"]], "unchanged": "c"}.items():
        file.write_text(yaml.safe_dump({**good, key: value}))
        with pytest.raises(ConfigError, match=f"{key} 'c' is none of the rows a, b"):
            load_study(str(file))
    drive = tmp_path / "drive.mcap"
    drive.write_bytes(b"")
    assert (
        main(["study", "views", "--train", str(drive), "--test", str(drive), "--out", str(tmp_path / "s")])
        == 1
    )
    assert "would be trained on and scored" in capsys.readouterr().err


def test_some_rows_of_a_study_alone(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    whole = load_study("combined")
    some = whole.only(["both", "maps", "base"])
    assert list(some.rows) == ["base", "maps", "both"]  # the study's own order, whatever was asked
    assert some.compare == (("both", "maps"),)
    assert some.runs() == [run for run in whole.runs() if run[0] != "lidar"]
    assert some.recipe_of("maps", 1, ["a.mcap"]) == whole.recipe_of("maps", 1, ["a.mcap"])
    assert load_study("finetune_2d").only(["before", "2d"]).unchanged == "before"

    drive = tmp_path / "drive.mcap"
    drive.write_bytes(b"")
    command = ["study", "views", "--train", str(drive), "--test", str(drive), "--rows"]
    assert main([*command, "perspective", "bevs"]) == 1
    assert "no row 'bevs'; rows are perspective, bev, both" in capsys.readouterr().err
    assert main([*command, "bev", "both"]) == 1
    assert "compared with 'perspective': name it too" in capsys.readouterr().err


def test_paired_differences_against_the_t_test() -> None:
    from scipy import stats

    random = np.random.default_rng(0)
    row, base = random.normal(0.5, 0.1, 5), random.normal(0.4, 0.1, 5)
    found = paired_difference(row, base)
    interval = stats.ttest_rel(row, base).confidence_interval(0.95)
    assert found.mean - found.half_width == pytest.approx(interval.low)
    assert found.mean + found.half_width == pytest.approx(interval.high)
    assert found.clear == (interval.low > 0 or interval.high < 0)
    assert math.isinf(paired_difference([1.0], [0.5]).half_width)
    with pytest.raises(ValueError, match="run the same seeds"):
        paired_difference([1.0, 2.0], [0.5])


def test_the_table_says_noise_where_there_is_noise() -> None:
    scores = {
        "base": {0: {"mAP": 0.1}, 1: {"mAP": 0.2}, 2: {"mAP": 0.3}},
        "better": {0: {"mAP": 0.2}, 1: {"mAP": 0.301}, 2: {"mAP": 0.399}},
        "same": {0: {"mAP": 0.2}, 1: {"mAP": 0.1}, 2: {"mAP": 0.31}},
        "missing": {},
    }
    lines = study_table(scores, "base", ["mAP"]).splitlines()
    assert "| base | 3 | 0.200 ± 0.100 |" in lines
    assert "| missing | 0 | not run |" in lines
    (better,) = [line for line in lines if line.startswith("| better − base | +")]
    (same,) = [line for line in lines if line.startswith("| same − base | +")]
    assert "noise" not in better and "within the noise" in same
    first = {row: {0: runs[0]} for row, runs in scores.items() if runs}  # a difference, and nothing known of its noise
    assert "| better − base | +0.100 (one seed) |" in study_table(first, "base", ["mAP"]).splitlines()
    pairs = study_table(scores, "base", ["mAP"], [("better", "same"), ("same", "missing")]).splitlines()
    assert pairs[:-1] == lines and pairs[-1].startswith("| better − same | +0.097 ± ")  # 'missing' has no seed yet
    assert look_up({"per_class": {"car": {"ap_2m": 0.5}}}, "per_class.car.ap_2m") == 0.5
    with pytest.raises(KeyError, match=r"no per_class\.bus"):
        look_up({"per_class": {"car": 1}}, "per_class.bus.ap_2m")


def test_a_study_runs_and_goes_on(small_recipe: dict, drives: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "small.yaml"
    recipe.write_text(yaml.safe_dump({**small_recipe, "steps": 2}))
    file = tmp_path / "study.yaml"
    rows = {"plain": {}, "alone": {"losses.one_to_many": 2}}
    file.write_text(yaml.safe_dump({"recipe": str(recipe), "rows": rows, "baseline": "plain", "seeds": [3, 4],
                                    "metrics": ["mAP", "NDS"], "evaluate": ["--pictures", "0"]}, sort_keys=False))  # fmt: skip
    study = load_study(str(file))
    bags = sorted(str(p) for p in drives.glob("*.mcap"))
    place = StudyFolder(tmp_path / "out")
    # what a run that was finished before says counts, and is not made again
    for row, seed in study.runs()[1:]:
        place.metrics(row, seed).parent.mkdir(parents=True)
        place.metrics(row, seed).write_text(json.dumps({"mAP": 0.25, "NDS": 0.5}))
    told: list[str] = []
    scores = run_study(study, place.root, bags[:2], bags[2:], tell=told.append)
    assert len(told) == 4 and scores == read_scores(study, place)
    assert scores["alone"] == {3: {"mAP": 0.25, "NDS": 0.5}, 4: {"mAP": 0.25, "NDS": 0.5}}
    assert 0.0 <= scores["plain"][3]["mAP"] < 0.25
    assert (place.run("plain", 3) / "weights.safetensors").is_file()
    assert not (place.run("plain", 4) / "weights.safetensors").exists()

    def again(changes: dict, test: list[str]) -> None:
        run_study(load_study(str(file), changes), place.root, bags[:2], test, tell=told.append)

    with pytest.raises(ConfigError, match=r"plain-3 was trained with another recipe \(precision\): .* --out"):
        again({"precision": "bf16"}, bags[2:])
    with pytest.raises(ConfigError, match=f"plain-3/report holds scores of other drives .*{Path(bags[2]).stem}"):
        again({}, [str(tmp_path / "other.mcap")])
    with pytest.raises(ConfigError, match=r"drive2.mcap would be trained on and scored"):
        again({"data.train": bags[2:]}, bags[2:])
    with pytest.raises(ConfigError, match=r"plain-3/report was scored with other arguments \(--pictures 0\): delete it"):
        run_study(replace(study, evaluate=("--keyframe-interval", "1")), place.root, bags[:2], bags[2:])
    more = replace(study, metrics=("mAP", "per_class.cra.ap"))
    told.clear()
    lacking = run_study(more, place.root, bags[:2], bags[2:], tell=told.append)
    assert all(line.endswith("; its metrics.json has no per_class.cra.ap") for line in told)
    assert math.isnan(lacking["plain"][3]["per_class.cra.ap"]) and lacking["plain"][3]["mAP"] == scores["plain"][3]["mAP"]
    assert "| – |" in study_table(lacking, "plain", more.metrics)

    place.metrics("plain", 3).unlink()
    for seed in (3, 4):
        shutil.rmtree(place.run("alone", seed))
    with pytest.raises(StudyError, match=r"plain-3: dualview (train|evaluate) failed"):
        run_study(study, place.root, bags[:2], [str(tmp_path / "absent.mcap")], tell=told.append)
    assert not place.run("alone", 4).exists()  # alone-3 may have begun before the failure was seen, nothing after it


def test_the_row_that_is_not_trained_is_scored_once(tmp_path: Path) -> None:
    rows = {"before": {}, "after": {}}
    study = Study("dualview_tiny_cpu", rows, "before", seeds=(5, 6), metrics=("mAP",), unchanged="before")
    assert study.runs() == [("before", 5), ("after", 5), ("after", 6)]
    place = StudyFolder(tmp_path)
    for (row, seed), score in zip(study.runs(), (0.1, 0.2, 0.3), strict=True):
        place.metrics(row, seed).parent.mkdir(parents=True)
        place.metrics(row, seed).write_text(json.dumps({"mAP": score}))
    scores = read_scores(study, place)
    assert scores == {"before": {5: {"mAP": 0.1}, 6: {"mAP": 0.1}}, "after": {5: {"mAP": 0.2}, 6: {"mAP": 0.3}}}


def test_a_fine_tuning_study_starts_from_a_checkpoint_and_scores_two_cities(
    small_recipe: dict, drives: Path, target_drive: Path, tmp_path: Path
) -> None:
    plain = recipe_from_dict({**small_recipe, "anchors": "preset"})
    weights = tmp_path / "before.safetensors"
    save_checkpoint(initial_detector(plain, plain.detector_config(), [], lambda line: None), weights)
    recipe, file = tmp_path / "small.yaml", tmp_path / "study.yaml"
    recipe.write_text(yaml.safe_dump({**small_recipe, "augmentation": {"image": {"rotate": 0.0}}, "steps": 2}))
    rows = {"before": {}, "2d": {"data.train": []}, "joint": {}}
    content = {"recipe": str(recipe), "rows": rows, "baseline": "before", "unchanged": "before", "seeds": [0],
               "metrics": ["mAP", "source:mAP"], "evaluate": ["--pictures", "0"]}  # fmt: skip
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    changes = {"start_from": str(weights), "labels_2d.train": [str(target_drive)]}
    study, place = load_study(str(file), changes), StudyFolder(tmp_path / "out")
    bags = sorted(str(p) for p in drives.glob("*.mcap"))
    assert study.recipe_of("2d", 0, bags[:1]).data.train == () and study.test_sets == ("source",)
    assert study.recipe_of("joint", 0, bags[:1]).data.train == (bags[0],)

    def run(test: list[str], also: dict, which: Study = study) -> dict:
        return run_study(which, place.root, bags[:1], test, tell=lambda line: None, also=also)

    with pytest.raises(ConfigError, match="reports source:mAP: name these drives with --also source=BAGS"):
        run(bags[1:2], {})
    with pytest.raises(
        ConfigError, match=r"labelled.mcap would be trained on and scored: give --test .* labels_2d.train"
    ):
        run([str(target_drive)], {"source": bags[2:]})
    with pytest.raises(ConfigError, match=r"drive0.mcap would be trained on and scored: give --also source="):
        run(bags[1:2], {"source": bags[:1]})
    with pytest.raises(ConfigError, match="name it with --set start_from=WEIGHTS"):
        run(bags[1:2], {"source": bags[2:]}, load_study(str(file)))

    # what was scored before counts: left is the untrained row on the test drives
    for row, name in (("before", "source"), ("2d", ""), ("2d", "source"), ("joint", ""), ("joint", "source")):
        place.metrics(row, 0, name).parent.mkdir(parents=True)
        place.metrics(row, 0, name).write_text(json.dumps({"mAP": 0.25 if name else 0.5}))
    command = ["study", str(file), "--train", bags[0], "--test", bags[1], "--also", f"source={bags[2]}"]
    command += ["--set", f"start_from={weights}", "--set", f"target={target_drive}", "--out", str(place.root)]
    assert main(command) == 0
    assert "| joint | 1 | 0.500 | 0.250 |" in (place.root / "table.md").read_text()
    scores = read_scores(study, place)
    assert scores["joint"] == {0: {"mAP": 0.5, "source:mAP": 0.25}}
    assert scores["before"][0]["mAP"] < 0.25 and not (place.run("before", 0) / "weights.safetensors").exists()
    assert weights.name in (place.report("before", 0) / "metrics.json").read_text()
