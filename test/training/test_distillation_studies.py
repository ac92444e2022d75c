"""Studies of LiDAR teachers: at one budget only what is taught differs, and every row can be built and keeps its backbone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dualview.detectors.checkpoint import build_detector, save_checkpoint
from dualview.detectors.systems import make_detector
from dualview.training import study_run
from dualview.training.frozen import freeze_detector
from dualview.training.lidar_teacher import load_lidar_teacher
from dualview.training.objective_lidar import build_lidar_objective
from dualview.training.recipe import Recipe, load_recipe
from dualview.training.study import Study, load_study
from dualview.training.study_commands import StudyCommands
from dualview.training.study_folder import StudyFolder

STUDIES = ("lidar_bevdet", "lidar_bevdepth", "combined")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The studies' teacher, with random weights."""
    path = tmp_path_factory.mktemp("teacher") / "weights.safetensors"
    save_checkpoint(build_detector(load_recipe("centerpoint_coarse").detector_config()), path)
    return path


def recipes_of(name: str, teacher: Path | str = "mine.safetensors") -> dict[str, Recipe]:
    study = load_study(name, {"lidar_distillation.teacher": str(teacher)})
    return {row: study.recipe_of(row, 1, ["a.mcap"]) for row in study.rows}


@pytest.mark.parametrize("name", STUDIES)
def test_rows_differ_in_what_is_taught_alone(name: str) -> None:
    recipes = recipes_of(name)
    budgets = {
        (r.model, str(r.overrides), r.start_from, r.backbone_weights, r.fresh, r.frozen, r.freeze_stages, r.cache_features,
         r.steps, r.batch_size, r.devices, r.precision, r.dense_steps, r.seed, r.data, r.clips, r.augmentation, r.losses,
         r.optimizer, r.image_centers)
        for r in recipes.values()
    }  # fmt: skip
    assert len(budgets) == 1 and len({(r.lidar_distillation, r.map_distillation) for r in map(_plain, recipes.values())}) == len(recipes)
    base = recipes["base"]
    assert base.lidar_distillation is None and base.map_distillation is None
    expected = (300, "bf16") if name == "combined" else (240, "fp32")
    assert (base.steps, base.precision, base.devices, base.accelerator) == (*expected, 1, "cpu")
    assert base.detector_config().image_size == (224, 640) and base.detector_config().track_threshold == 0.02


def _plain(recipe: Recipe) -> SimpleNamespace:
    """Hashable: sections as text."""
    section = recipe.lidar_distillation
    return SimpleNamespace(
        lidar_distillation=str(section and section.settings), map_distillation=str(recipe.map_distillation)
    )


def test_the_shipped_teacher_is_that_of_its_recipe() -> None:
    """So every study begins without training one first."""
    assert load_lidar_teacher("centerpoint-coarse").config == load_recipe("centerpoint_coarse").detector_config()
    named = {str(load_study(name).changes["lidar_distillation.teacher"]) for name in STUDIES}
    assert named == {"centerpoint-coarse"}


@pytest.mark.parametrize("name", STUDIES)
def test_every_row_builds_and_its_backbone_learns_nothing(name: str, teacher: Path) -> None:
    """As a whole, so that its maps can be computed once; what lies behind it learns in every row."""
    for row, recipe in recipes_of(name, teacher).items():
        config = recipe.detector_config()
        with torch.device("meta"):
            detector = make_detector(config)
        freeze_detector(detector, recipe)
        assert recipe.cache_features and detector.takes_known_features, row
        assert not any(p.requires_grad for p in detector.image_backbone.parameters()), row
        assert all(p.requires_grad for p in detector.bev_branch.parameters()), row
        assert all(p.requires_grad for p in detector.center_head.parameters()), row
        told: list[str] = []
        objective = build_lidar_objective(recipe, config, told.append)
        assert (objective is None) == (recipe.lidar_distillation is None), row
        if objective is not None and objective.settings.needs_teacher:
            assert objective._teacher.config.image_size == config.image_size  # stored drives are shared
            assert objective.needs.lidar.max_age > 0.5  # two sweeps of a LiDAR at 2 Hz
            assert objective._teacher.config.branch.max_points == 32  # pillars coarser than CenterPoint's hold more than its 20


def test_lengths_are_those_of_the_grid() -> None:
    """4 m is 2.5 cells of 1.6 m; 24 keypoints a side would be more than the cells that they lie in."""
    settings = [
        (r.lidar_distillation.settings, r.detector_config().bev_grid)
        for name in STUDIES
        for r in recipes_of(name).values()
        if r.lidar_distillation is not None
    ]
    rays = [(s.rays, grid) for s, grid in settings if s.rays is not None]
    features = [s.inner_feature for s, _ in settings if s.inner_feature is not None]
    assert len(rays) == 10 and all(r.sigma * grid.resolution == pytest.approx(4.0) for r, grid in rays)
    assert all(r.region * grid.resolution < 3 * 0.8 for r, grid in rays)  # no larger than the default's squares on its cells
    assert len(features) == 6 and all(f.keypoints == 12 for f in features)


def test_dualview_learns_from_the_teacher_the_maps_and_both() -> None:
    recipes = recipes_of("combined")
    assert {row: (r.lidar_distillation is not None, r.map_distillation is not None) for row, r in recipes.items()} == {
        "base": (False, False), "lidar": (True, False), "maps": (False, True), "both": (True, True),
    }  # fmt: skip
    assert recipes["both"].lidar_distillation == recipes["lidar"].lidar_distillation
    taught = recipes["lidar"].lidar_distillation
    assert taught is not None and taught.settings.rays is not None and taught.settings.inner_feature is None
    maps = load_study("maps")
    same = maps.recipe_of("maps", 1, ["a.mcap"])
    assert recipes["maps"].map_distillation == same.map_distillation
    assert recipes["maps"].detector_config() == same.detector_config() and recipes["maps"].fresh == same.fresh


def test_only_the_drives_named_for_it_are_scored_under_corruptions(
    tmp_path: Path,
) -> None:
    study = load_study("lidar_bevdepth")
    assert study.test_sets == ("corrupted",)
    ran: dict[str, list[str]] = {}

    class Commands(StudyCommands):
        def run(self, arguments: Sequence[str], folder: Path) -> None:
            report = Path(arguments[arguments.index("--report") + 1])
            report.mkdir(parents=True)
            ran[report.name.removesuffix(".partial")] = list(arguments)

    recipe, place = study.recipe_of("base", 0, ["a.mcap"]), StudyFolder(tmp_path)
    for name in ("", "corrupted"):
        study_run._score(study, recipe, "w", place, place.report("base", 0, name), name, ["b.mcap"], Commands(1))
    assert "--corruptions" not in ran["report"] and "--pictures" in ran["report"]
    assert all(arguments[arguments.index("--cache") + 1] == str(place.cache) for arguments in ran.values())
    assert ran["report-corrupted"][-4:] == ["--corruptions", "all", "--severities", "moderate"]
    with pytest.raises(ValueError, match="no metric is called elsewhere:"):
        Study("dualview_tiny_cpu", {"a": {}}, "a", evaluate_also={"elsewhere": ["--pictures", "1"]})
