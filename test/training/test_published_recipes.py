"""Recipes of published rows: found by name in their folder, whole, and what their papers say."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from students import CAMERAS

from dualview.cli import main
from dualview.detectors.centerpoint_config import CenterPointConfig
from dualview.detectors.systems import make_detector
from dualview.errors import ConfigError
from dualview.geometry.bev_grid import BevGrid
from dualview.training.recipe import Recipe, known_recipes, load_recipe
from dualview.training.study import load_study

NUSCENES = sorted(name for name in known_recipes() if name.startswith("nuscenes/"))
IMAGES, BALANCED = 28_130, 123_580  # keyframes of the train split; with class-balanced repetition


def test_recipes_are_found_in_sub_folders(capsys: pytest.CaptureFixture) -> None:
    assert len(NUSCENES) >= 24
    assert main(["train", "nuscenes/bevdet_r50_tig", "--check"]) == 0
    assert "method: tig-bev" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="did you mean 'nuscenes/bevdet_r50_tig'"):
        load_recipe("nuscenes/bevdet_r50_tgi")


@pytest.mark.parametrize("name", NUSCENES)
def test_batches_schedules_and_teachers(name: str) -> None:
    recipe = load_recipe(name)
    config = recipe.detector_config()
    camera = config.lidar is None
    batch = recipe.batch_size * recipe.devices
    published = {"bevformer": 8, "centerpoint": 32, "sparse4d": 48, "dualview": 24}
    assert batch == published.get(name.split("/")[1].split("_")[0], 64)
    epochs = [recipe.steps * batch / count for count in (IMAGES, BALANCED)]
    assert any(abs(e - whole) < 0.05 for e in epochs for whole in (20, 24, 100)), epochs
    assert recipe.augmentation.corruption is None or name.endswith("_corrupted")
    assert recipe.data.train == ("nuscenes/train",) and recipe.data.rig == "nuscenes"
    if "bevde" in name:  # published: the network's share of 1600 px, less 0.06 to plus 0.11
        share, (low, high) = config.image_size[1] / 1600, recipe.augmentation.image.resize
        assert (low * share, high * share) == pytest.approx((share - 0.06, share + 0.11), abs=2e-3)
    if "bevdepth" in name:
        assert config.bev.depth_network == ("bevdepth" if "rayd3d" in name else "bevdet")
    if camera:
        assert config.image_size == (
            (512, 1408) if "r101" in name else (450, 800) if "bevformer" in name else (256, 704)
        )
        assert ("resnet101" if "r101" in name else "resnet50") == config.image_backbone_name
    section = recipe.lidar_distillation
    assert ("tig" in name or "rayd3d" in name) == (section is not None and section.settings.needs_teacher)
    if section is not None and section.settings.needs_teacher:
        teacher = load_recipe(f"nuscenes/{Path(str(section.teacher)).parent.name}").detector_config()
        student = config.camera_map
        assert student is not None and teacher.class_names == config.class_names
        assert student.grid.same_cells(teacher.bev_grid) == ("bevformer" not in name)
        # Depth is supervised once, and as the published code of the family does it.
        assert recipe.losses.lift_depth == 0 or config.lift is None


# Epochs, frames of one, learning rate, weight decay, clip, warm-up steps, decays after which epochs (spec sheets of the papers'
# code: BEVDet's own; TiG-BEV's on the class-balanced set, and without it; BEVDepth's, which RayD3D goes by).
BEVDET = (24, BALANCED, 2e-4, 1e-7, 1000.0, 500, (16, 22))
TIG_BALANCED = (20, BALANCED, 2e-4, 1e-2, 5.0, 200, (16, 19))
TIG_PLAIN = (24, IMAGES, 2e-4, 1e-7, 5.0, 500, (19, 23))
BEVDEPTH = (24, BALANCED, 2e-4, 1e-7, 1000.0, 500, (19, 23))
SCHEDULES = {
    "bevdet_r50": BEVDET, "bevdet_r50_rayd3d": BEVDET, "bevdet_r50_rayd3d_corrupted": BEVDET, "bevdet_r50_tig": TIG_BALANCED,
    "bevdet4d_r50": TIG_BALANCED, "bevdet4d_r50_tig": TIG_BALANCED,
    "bevdepth4d_r101": TIG_BALANCED, "bevdepth4d_r101_tig": TIG_BALANCED,
    "bevdepth4d_r50": TIG_PLAIN, "bevdepth4d_r50_tig": TIG_PLAIN, "bevdepth_r50_tig": (24, IMAGES, 4e-4, *TIG_PLAIN[3:]),
    "bevdepth4d_r50_rayd3d": BEVDEPTH, "bevdepth4d_r50_rayd3d_corrupted": BEVDEPTH, "bevdepth4d_r101_rayd3d": BEVDEPTH,
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_of_bevdets_family(name: str) -> None:
    epochs, frames, rate, decay, clip, warmup, steps = SCHEDULES[name]
    recipe = load_recipe(f"nuscenes/{name}")
    optimizer = recipe.optimizer
    assert recipe.steps == pytest.approx(epochs * frames / 64, rel=2e-3)
    found = (optimizer.learning_rate, optimizer.weight_decay, optimizer.clip, optimizer.warmup_steps)
    assert found == (rate, decay, clip, warmup) and optimizer.schedule == "steps" and optimizer.warmup_from == 1e-3
    assert optimizer.decay_at == pytest.approx([step / epochs for step in steps], abs=1e-4)
    assert recipe.losses.center_velocity == (1.0 if "4d" in name else 0.2)
    section = recipe.lidar_distillation
    inner = None if section is None else section.settings.inner_feature
    assert (inner is not None) == ("tig" in name)
    if inner is not None:  # 20 in tig_bev4d-r50.py alone
        assert (inner.channel_weight, inner.keypoint_weight) == (20.0 if name == "bevdepth4d_r50_tig" else 10.0, 100.0)


def test_schedules_of_teachers_and_bevformer() -> None:
    for name in ("centerpoint_voxel", "centerpoint_pillar"):
        recipe = load_recipe(f"nuscenes/{name}")
        assert recipe.steps == pytest.approx(20 * BALANCED / 32, rel=2e-3) and recipe.optimizer.schedule == "cyclic"
        assert (recipe.optimizer.learning_rate, recipe.optimizer.weight_decay, recipe.optimizer.clip) == (1e-3, 0.01, 35.0)
    for name in ("bevformer_tiny", "bevformer_tiny_rayd3d"):
        recipe = load_recipe(f"nuscenes/{name}")
        assert recipe.steps == pytest.approx(24 * IMAGES / 8, rel=2e-3) and recipe.freeze_stages == 1
        optimizer = recipe.optimizer
        assert (optimizer.learning_rate, optimizer.weight_decay, optimizer.clip, optimizer.backbone_factor) == (2e-4, 0.01, 35.0, 0.1)


def test_the_rows_of_dual_view_differ_in_views_and_maps_alone() -> None:
    """DualViewDistill, Table VII: each view, both, and both with the distilled maps; Sparse4Dv3 has schedules of its own."""
    rows = [load_recipe(f"nuscenes/dualview_r50{row}") for row in ("_perspective", "_bev", "", "_maps")]
    shared = {str((r.steps, r.batch_size, r.optimizer, r.augmentation, r.losses, r.clips, r.data, r.precision)) for r in rows}
    assert len(shared) == 1
    views = [(c.decoder.use_perspective, c.bev is not None) for c in (r.detector_config() for r in rows)]
    assert views == [(True, False), (False, True), (True, True), (True, True)]
    assert [r.map_distillation and r.map_distillation.weight for r in rows] == [None, None, None, 7.0]
    sparse = load_recipe("nuscenes/sparse4d_r50")
    assert sparse.detector_config().decoder == rows[0].detector_config().decoder
    assert (sparse.optimizer.learning_rate, rows[0].optimizer.learning_rate) == (6e-4, 2e-4)
    bev = sparse.augmentation.bev  # published: turned, but neither mirrored nor scaled
    assert bev is not None and bev.rotate == 22.5 and bev.scale == (1.0, 1.0) and not (bev.flip_x or bev.flip_y)


def test_the_bevdet_family_lifts_what_its_authors_lift() -> None:
    for name in ("bevdet_r50", "bevdet4d_r50", "bevdepth4d_r50", "bevdepth4d_r101_tig", "bevdet_r50_rayd3d"):
        grid = load_recipe(f"nuscenes/{name}").detector_config().bev_grid
        assert (grid.z_min, grid.z_max) == (-10.0, 10.0), name


def test_studies_of_distillation_change_the_teacher_alone() -> None:
    for name, count in (("lidar_bevdet", 10), ("lidar_bevdepth", 9)):
        study = load_study(name, {"lidar_distillation.teacher": "mine.safetensors"})
        recipes = {row: study.recipe_of(row, 1, ["a.mcap"]) for row in study.rows}
        assert len(recipes) == count and recipes["base"].lidar_distillation is None
        with_teacher = {
            row
            for row, r in recipes.items()
            if r.lidar_distillation and r.lidar_distillation.settings.needs_teacher
        }
        assert with_teacher == set(recipes) - {"base", "absolute_depth", "tig_depth"}
        assert all(recipes[row].lidar_distillation.teacher == "mine.safetensors" for row in with_teacher)
        assert (
            len(
                {
                    (r.steps, r.batch_size, r.losses, r.data, r.clips, str(r.overrides), r.model)
                    for r in recipes.values()
                }
            )
            == 1
        )
        (grid,) = {r.detector_config().bev_grid for r in recipes.values()}
        assert grid.same_cells(load_recipe("centerpoint_coarse").detector_config().bev_grid)
        parts = [r.lidar_distillation and r.lidar_distillation.settings for r in recipes.values()]
        assert len({str(p) for p in parts}) == count
    inner = load_study("lidar_bevdepth").recipe_of("tig_feature", 0, ["a"]).lidar_distillation.settings
    assert inner.inner_depth is None and inner.inner_feature is not None and inner.absolute_depth == 0
    rays = load_study("lidar_bevdet").recipe_of("ray_contrastive", 0, ["a"]).lidar_distillation.settings.rays
    assert rays.weighted_weight == 0 and rays.contrastive_weight == 1


@pytest.fixture
def dry_run(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    tool = Path(__file__).parents[2] / "tools" / "dry_run.py"
    spec = importlib.util.spec_from_file_location("dry_run", tool)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "dry_run", module)
    spec.loader.exec_module(module)
    return module


def shrunken() -> list[str]:
    """Arguments that make a recipe of the BEVDet family small; at full size the dry run is a tool."""
    keys = (
        "bev.grid", "bev.depth_bins", "bev.depth_channels", "bev.context_channels", "bev.encoder_channels",
        "bev.out_channels", "backbone.name", "backbone.widths", "neck_channels", "image_size",
    )  # fmt: skip
    changes = [f"overrides.{key}={CAMERAS[key]}" for key in keys]
    return [item for change in changes for item in ("--set", change)]


def test_the_dry_run_tries_a_recipe(capsys: pytest.CaptureFixture, dry_run: ModuleType) -> None:
    assert dry_run.main(["nuscenes/bevdepth4d_r50", "--set", "augmentation.bev=null", *shrunken()]) == 0
    printed = capsys.readouterr().out
    assert "nuscenes/bevdepth4d_r50: ok, map [1, 8, 16, 16]" in printed and "tig/absolute_depth" in printed


def test_the_dry_run_invents_label_maps(capsys: pytest.CaptureFixture, dry_run: ModuleType) -> None:
    smaller = ["--set", "overrides.image_size=[64,192]", "--set", "overrides.decoder.num_layers=2"]
    assert dry_run.main(["dualview_tiny_maps", *smaller]) == 0
    printed = capsys.readouterr().out
    assert "dualview_tiny_maps: ok, map [1, 128, 128, 128]" in printed and "maps/cosine" in printed


def test_without_spconv_the_dry_run_tries_teachers_of_pillars(
    capsys: pytest.CaptureFixture, dry_run: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = load_recipe("nuscenes/centerpoint_voxel").detector_config()
    stand_in = dry_run.with_pillars(published)
    with torch.device("meta"):
        one, other = (make_detector(config).lidar_branch for config in (published, stand_in))
    shapes = [{n: p.shape for n, p in b.named_parameters() if not n.startswith("encoder")} for b in (one, other)]
    assert shapes[0] == shapes[1] and stand_in.bev_grid == published.bev_grid

    def small(teacher: CenterPointConfig) -> CenterPointConfig:
        branch = replace(
            teacher.branch, grid=BevGrid(**CAMERAS["bev.grid"]), voxel=4.0 / 8, features=(4, 4, 4, 4), channels=(8, 8),
            layers=(1, 1), pyramid_channels=(4, 8),
        )  # fmt: skip
        return replace(teacher, branch=branch)

    monkeypatch.setattr(dry_run, "spconv_is_installed", lambda: False)
    with_pillars = dry_run.with_pillars
    monkeypatch.setattr(dry_run, "with_pillars", lambda teacher: with_pillars(small(teacher)))
    few = ["--set", "lidar_distillation.overrides={rays.ray_count: 60}", "--set", "augmentation.bev=null"]
    assert dry_run.main(["nuscenes/bevdet_r50_rayd3d", *few, *shrunken()]) == 0
    printed = capsys.readouterr().out
    assert "nuscenes/bevdet_r50_rayd3d: ok, map [1, 8, 16, 16]" in printed and "pillars stand in" in printed
    assert all(term in printed for term in ("ray/contrastive", "ray/weighted", "response"))


def test_a_recipe_that_fails_in_the_dry_run_does_not_stop_the_others(
    capsys: pytest.CaptureFixture, dry_run: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tried(recipe: Recipe, device: torch.device) -> None:
        raise ValueError(f"no {recipe.model} on {device}")

    monkeypatch.setattr(dry_run, "dry_run", tried)
    assert dry_run.main(["nuscenes/centerpoint_voxel", "nuscenes/bevdet_r50", "--device", "cuda"]) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first == "nuscenes/centerpoint_voxel: FAILED: no centerpoint-voxel on cuda"
    assert second == "nuscenes/bevdet_r50: FAILED: no bevdet-r50 on cuda"
