"""What a recipe names and isn't there is said before anything slow begins."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import yaml
from students import recipe_of, save_teacher

from dualview.cli import main
from dualview.errors import ConfigError, WeightsError
from dualview.training.named_files import missing_files
from dualview.training.recipe import Recipe, known_recipes, load_recipe, parse_changes
from dualview.training.study import known_studies, load_study


def naming(weights: str, teacher: str) -> Recipe:
    """A recipe that names weights, a teacher and label maps."""
    return load_recipe(
        "dualview_tiny_cpu",
        {
            "start_from": None, "freeze_stages": 0, "backbone_weights": weights,
            "lidar_distillation": {"method": "rayd3d", "teacher": teacher},
            "map_distillation": {"labels": "$LABEL_MAPS/full", "weight": 7.0},
        },
    )  # fmt: skip


def test_every_missing_file_is_named_with_its_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LABEL_MAPS", raising=False)
    assert missing_files(naming("nope", "centerpoint-corse")) == [
        "backbone_weights: there is no checkpoint 'nope'",
        "lidar_distillation.teacher: there is no checkpoint 'centerpoint-corse': did you mean 'centerpoint-coarse'?",
        "map_distillation.labels: there is no folder '$LABEL_MAPS/full': the environment variable LABEL_MAPS isn't set",
    ]
    (tmp_path / "full").mkdir()
    (tmp_path / "some.safetensors").write_bytes(b"")  # what is in it is looked at later
    monkeypatch.setenv("LABEL_MAPS", str(tmp_path))
    monkeypatch.setenv("WEIGHTS", str(tmp_path / "some.safetensors"))
    assert missing_files(naming("$WEIGHTS", "centerpoint-coarse")) == []


@pytest.mark.parametrize("name", [name for name in known_recipes() if "/" not in name])
def test_recipes_that_come_along_lack_no_weights_of_ours(name: str) -> None:
    """Label maps are the user's, and a detector to adapt, and a teacher that is trained first."""
    start = {"start_from": "dualview-tiny"} if name == "finetune_2d" else {}
    told = missing_files(load_recipe(name, start))
    assert all("labels:" in sentence or "runs/centerpoint_tiny/weights" in sentence for sentence in told), told


@pytest.mark.parametrize("name", sorted(known_studies()))
def test_studies_that_come_along_lack_no_checkpoint(name: str) -> None:
    study = load_study(name)
    for row in study.rows:
        told = missing_files(study.recipe_of(row, study.seeds[0], ["a.mcap"]))
        assert all(sentence.startswith(("map_distillation.labels:", "labels_2d:")) for sentence in told), told


def test_depth_and_anchors_are_looked_for_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drive = tmp_path / "drive.mcap"
    drive.write_bytes(b"")
    changes = {"labels_2d": {"train": [str(drive)], "depth": "dpt-hybrid"}, "anchors": str(tmp_path / "anchors.npy")}
    anchors, depth = missing_files(load_recipe("dualview_tiny_cpu", changes))
    assert anchors.startswith("anchors: there is no file") and "`dualview anchors`" in anchors
    assert f"there is no depth at {drive}.depth/dpt-hybrid: run dualview label-depth" in depth
    given = [f"{key}={value}" for key, value in (("anchors", changes["anchors"]), ("labels_2d.train", f"[{tmp_path / 'none.mcap'}]"))]
    assert main(["train", "dualview_tiny_cpu", *given, "--out", str(tmp_path / "run")]) == 1
    told = capsys.readouterr().err
    assert "anchors: there is no file" in told and "labels_2d: " in told and "none.mcap' finds no recording" in told
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_to_start_from_is_read_at_once() -> None:
    with pytest.raises(WeightsError, match="start_from: there is no checkpoint 'nope'"):
        load_recipe("dualview_tiny_cpu", {"start_from": "nope"})


def test_a_check_says_what_is_not_there_yet(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "nuscenes/bevdet_r50_tig", "--check"]) == 0
    told = capsys.readouterr().err
    assert "not there yet: lidar_distillation.teacher: there is no checkpoint 'runs/centerpoint_voxel" in told
    assert main(["train", "bevdet_coarse", "--check"]) == 0
    assert "not there yet" not in capsys.readouterr().err


def test_a_study_does_not_begin_without_them(drives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--train", str(drives / "drive0.mcap"), "--test", str(drives / "drive1.mcap"), "--also", f"corrupted={drives / 'drive1.mcap'}"]
    change = ["--set", "lidar_distillation.teacher=nope", "--rows", "base", "ray_both"]
    assert main(["study", "lidar_bevdet", *few, *change, "--out", str(tmp_path / "study")]) == 1
    assert "row 'ray_both': lidar_distillation.teacher: there is no checkpoint 'nope'" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


def test_a_folder_that_cannot_be_made_is_named(small_recipe: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe_of(small_recipe, "bevdet-tiny")))
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/below")):
        assert main(["train", str(tmp_path / "recipe.yaml"), "--out", str(out), "--quiet"]) == 1
        assert "give another folder with --out" in capsys.readouterr().err


def test_values_that_cannot_be_read_are_named() -> None:
    with pytest.raises(ConfigError, match=r"the value of optimizer.learning_rate isn't YAML: \{a"):
        parse_changes(["optimizer.learning_rate={a"])
    with pytest.raises(ConfigError, match="heatmap must be 0 or more, got -1"):
        load_recipe("bevdet_coarse", {"losses.heatmap": -1.0})
    for number in (float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="finite number"):
            load_recipe("bevdet_coarse", {"optimizer.learning_rate": number})
    for wrong in ({"ray_count": 1_000_000}, {"ray_step": 1e-4}):
        with pytest.raises(ConfigError, match="at most 20000 rays"):
            load_recipe("bevdet_tiny_rayd3d", {"lidar_distillation.overrides": {"rays": wrong}})


def test_others_may_read_the_weights(small_recipe: dict, tmp_path: Path) -> None:
    """A node runs as another user than who trained."""
    beside = tmp_path / "beside"
    beside.write_text("")
    assert stat.S_IMODE(save_teacher(small_recipe, tmp_path / "w.safetensors").stat().st_mode) == stat.S_IMODE(beside.stat().st_mode)
