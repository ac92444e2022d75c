"""A LiDAR teacher in training: every student learns from it, none carries it, and what doesn't fit is said beforehand."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from students import GRID, recipe_of, save_teacher
from torch.utils._python_dispatch import TorchDispatchMode

from dualview.detectors.centerpoint import CenterPoint
from dualview.detectors.checkpoint import build_detector, load_checkpoint, resolve_precision, save_checkpoint
from dualview.detectors.detector import Detector
from dualview.detectors.import_sparse4d import LIDAR_TOP_FROM_EGO
from dualview.detectors.inputs import DetectorInputs, normalize_images
from dualview.errors import BagError, ConfigError, DualViewError, WeightsError
from dualview.training.clips import FrameRequest
from dualview.training.data_module import prepare_drives
from dualview.training.lidar_teacher import load_lidar_teacher
from dualview.training.lightning import lightning
from dualview.training.module import DetectorTraining
from dualview.training.objective_lidar import TEACHER_MAPS, LidarObjective, build_lidar_objective
from dualview.training.objectives import joined_needs
from dualview.training.recipe import Recipe, recipe_from_dict
from dualview.training.samples import FrameDataset, TrainingBatch, collate
from dualview.training.trainer import train

TIG = {"tig/absolute_depth", "tig/inner_depth", "tig/inter_channel", "tig/inter_keypoint"}
RAYS = {"ray/contrastive", "ray/weighted"}
NO_IMAGE_CHANGES = {"image": None, "photometric": None, "grid_mask": None, "camera_dropout": 0.0}
# What keeps a test quick; the parts are the published ones.
FEW = {"inner_feature.keypoints": 4}
FEW_RAYS = {"rays.ray_count": 60}
# Student -> method, overrides, the terms that it gets.
STUDENTS = {
    "bevdet-tiny": ("rayd3d", FEW_RAYS, {*RAYS, "response"}),
    "bevdet4d-tiny": ("tig-bev", FEW, TIG),
    "bevdepth-tiny": ("tig-bev", {**FEW, "rays": {"ray_count": 60}}, {*TIG, *RAYS}),
    "bevformer-lite": ("rayd3d", FEW_RAYS, RAYS),  # another kind of head: no response to compare
    "dualview-tiny": ("rayd3d", {**FEW_RAYS, "inner_feature": {"keypoints": 4}}, {*RAYS, "tig/inter_channel", "tig/inter_keypoint"}),
}  # fmt: skip


@pytest.fixture(scope="module")
def teacher(small_recipe: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_teacher(small_recipe, tmp_path_factory.mktemp("teacher") / "teacher.safetensors")


def distilled(small_recipe: dict, model: str, teacher: Path | str, **changes) -> dict:
    method, overrides, _ = STUDENTS[model]
    section = {"method": method, "teacher": str(teacher), "overrides": overrides}
    return recipe_of(small_recipe, model, lidar_distillation=section, **changes)


def with_section(
    small_recipe: dict, model: str, method: str, teacher: Path | str | None, **overrides
) -> Recipe:
    section = {"method": method, "teacher": None if teacher is None else str(teacher), "overrides": overrides}
    return recipe_from_dict(recipe_of(small_recipe, model, lidar_distillation=section))


def build(recipe: Recipe, told: list[str] | None = None) -> LidarObjective:
    objective = build_lidar_objective(
        recipe, recipe.detector_config(), (told if told is not None else []).append
    )
    assert objective is not None
    return objective


def batch_of(recipe: Recipe, objective: LidarObjective, frames: tuple[int, ...] = (6, 9)) -> TrainingBatch:
    config = recipe.detector_config()
    drives = prepare_drives(recipe, config, with_sweeps=True)
    lidar = joined_needs([objective], config).lidar
    data = FrameDataset(drives, recipe.augmentation, recipe.data, lidar=lidar)
    requests = [FrameRequest(0, f, (recipe.seed, i, 0), 0) for i, f in enumerate(frames)]
    return collate([data[request] for request in requests])


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "losses.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "frames_per_second"} for row in csv.DictReader(file)]


@pytest.mark.parametrize("model", STUDENTS)
def test_every_student_learns_and_stays_itself(
    model: str, small_recipe: dict, teacher: Path, tmp_path: Path
) -> None:
    before = teacher.read_bytes()
    told: list[str] = []
    content = distilled(small_recipe, model, teacher, precision="bf16" if model == "bevdet-tiny" else "fp32")
    result = train(recipe_from_dict(content), tmp_path / "run", tell=told.append, progress_bar=False)
    terms = {t for t in result.losses if t.startswith(("tig/", "ray/", "response"))}
    assert terms == STUDENTS[model][2]
    assert all(result.losses[t] == result.losses[t] and result.losses[t] > 0 for t in terms)
    assert any("responses aren't distilled" in line for line in told) == (
        model in ("bevformer-lite", "dualview-tiny")
    )
    emulated = content["precision"] == "bf16" and resolve_precision("auto", torch.device("cpu")) == "fp32"
    assert any("precision=fp32" in line for line in told) == emulated

    # The checkpoint to use is the base's, name by name.
    base = build_detector(recipe_from_dict(recipe_of(small_recipe, model)).detector_config())
    weights = load_file(result.weights)
    shapes = {name: value.shape for name, value in base.state_dict().items()}
    assert {name: value.shape for name, value in weights.items()} == shapes
    assert load_checkpoint(result.weights).config == base.config
    # The checkpoint to go on from holds the layers between the maps, and of the teacher which it was.
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["state_dict"]
    beside = {name for name in state if name.startswith("objectives.")}
    assert beside and all(".adapters." in name or name.endswith("_extra_state") for name in beside)
    assert len(state["objectives.0._extra_state"]) == 64
    assert teacher.read_bytes() == before


def test_a_stopped_run_goes_on_as_if_it_had_not(small_recipe: dict, teacher: Path, tmp_path: Path) -> None:
    recipe = recipe_from_dict(distilled(small_recipe, "bevdepth-tiny", teacher, steps=5, checkpoint_every=2))

    class Stop(Exception):
        pass

    class StopAfterThree(lightning().Callback):
        def on_train_batch_start(self, trainer, module, batch, index) -> None:
            if trainer.global_step == 3:
                raise Stop

    train(recipe, tmp_path / "whole", tell=lambda line: None, progress_bar=False)
    with pytest.raises(Stop):
        train(
            recipe,
            tmp_path / "part",
            tell=lambda line: None,
            callbacks=(StopAfterThree(),),
            progress_bar=False,
        )
    train(recipe, tmp_path / "part", resume=True, tell=lambda line: None, progress_bar=False)
    assert rows(tmp_path / "part") == rows(tmp_path / "whole") and len(rows(tmp_path / "whole")) == 5
    one, other = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "part"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_does_not_go_on_with_another_teacher(small_recipe: dict, tmp_path: Path) -> None:
    path = save_teacher(small_recipe, tmp_path / "teacher.safetensors")
    recipe = recipe_from_dict(distilled(small_recipe, "bevdet-tiny", path, steps=2, checkpoint_every=1))
    train(recipe, tmp_path / "run", tell=lambda line: None, progress_bar=False)
    save_teacher(small_recipe, path, seed=6)
    with pytest.raises(ConfigError, match="teacher's weights have changed"):
        train(recipe, tmp_path / "run", resume=True, tell=lambda line: None, progress_bar=False)


def test_the_teacher_is_frozen_whatever_the_module_does(small_recipe: dict, teacher: Path) -> None:
    recipe = recipe_from_dict(distilled(small_recipe, "bevdepth-tiny", teacher))
    objective = build(recipe)
    frozen = objective._teacher._detector
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    torch.manual_seed(0)
    detector = build_detector(recipe.detector_config(), recipe.seed)
    # The student's own weights don't depend on there being a teacher.
    base = build_detector(
        recipe_from_dict(recipe_of(small_recipe, "bevdepth-tiny")).detector_config(), recipe.seed
    )
    assert all(torch.equal(a, b) for a, b in zip(detector.parameters(), base.parameters(), strict=True))
    module = DetectorTraining(recipe, detector, [objective]).train()
    batch = batch_of(recipe, objective)
    prediction = detector(replace(batch.inputs, images=normalize_images(batch.inputs.images)), None)
    losses = objective.losses(prediction, batch)
    sum(losses.values()).backward()
    assert not frozen.training and not any(m.training for m in frozen.modules())
    assert all(p.grad is None and not p.requires_grad for p in frozen.parameters())
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())
    trained = {
        id(p) for group in module.configure_optimizers()["optimizer"].param_groups for p in group["params"]
    }
    assert all(p.grad is not None and p.grad.ne(0).any() for p in objective.adapters.parameters())
    assert {id(p) for p in objective.adapters.parameters()} <= trained
    assert not trained & {id(p) for p in frozen.parameters()}
    assert detector.bev_branch.encoder.state_dict() and any(
        p.grad is not None and p.grad.ne(0).any() for p in detector.bev_branch.parameters()
    )


def test_teacher_and_student_see_one_world(small_recipe: dict, teacher: Path) -> None:
    """A turned and mirrored world: the teacher gets the very cloud that the student's boxes and cameras are augmented
    with, so each box holds the points that it held.
    """
    turned = {
        "image": None,
        "photometric": None,
        "grid_mask": None,
        "bev": {"rotate": 40.0, "scale": [0.8, 0.9]},
    }
    section = {"method": "rayd3d", "teacher": str(teacher)}
    plain, moved = (
        recipe_from_dict(
            recipe_of(
                small_recipe, "bevdet-tiny", lidar_distillation=section, augmentation={**turned, "bev": bev}
            )
        )
        for bev in (None, turned["bev"])
    )
    objective = build(plain)
    before, after = batch_of(plain, objective), batch_of(moved, objective)
    for b in range(2):
        assert not torch.allclose(before.inputs.points[b], after.inputs.points[b], atol=0.5)
        matrix = after.inputs.bev_augmentation[b]
        assert torch.allclose(
            before.inputs.points[b][:, :3] @ matrix.T, after.inputs.points[b][:, :3], atol=1e-4
        )
        held = [points_in_boxes(batch, b) for batch in (before, after)]
        assert held[0] == held[1] and max(held[0].values()) > 10
    seen = objective._teacher.outputs(after.inputs.points, True)
    expected = objective._teacher._detector.encode(after.inputs.points)
    assert torch.equal(seen.bev, expected) and len(seen.center) == 2


def points_in_boxes(batch: TrainingBatch, sample: int) -> dict[int, int]:
    """Track id -> points inside the box, grown by 2 % so that points on its faces are in."""
    points, truth = batch.inputs.points[sample][:, :3].double(), batch.truths[sample]
    counts = {}
    for box, track in zip(truth.boxes.double(), truth.track_ids.tolist(), strict=True):
        offset = points - box[:3]
        cos, sin = box[6].cos(), box[6].sin()
        local = torch.stack(
            [offset[:, 0] * cos + offset[:, 1] * sin, offset[:, 1] * cos - offset[:, 0] * sin, offset[:, 2]],
            1,
        )
        counts[track] = int((local.abs() <= box[3:6] / 2 * 1.02).all(1).sum())
    return counts


def test_samples_without_lidar_teach_nothing(small_recipe: dict, teacher: Path) -> None:
    recipe = recipe_from_dict(distilled(small_recipe, "bevdepth-tiny", teacher))
    told: list[str] = []
    objective = build(recipe, told).eval()
    batch = batch_of(recipe, objective)
    torch.manual_seed(0)
    detector = build_detector(recipe.detector_config()).eval()
    prediction = detector(replace(batch.inputs, images=normalize_images(batch.inputs.images)), None)
    empty = torch.zeros(0, 5)

    def losses(clouds: tuple[torch.Tensor, ...], chosen: TrainingBatch = batch) -> dict[str, torch.Tensor]:
        torch.manual_seed(1)
        depth = torch.stack([d if len(c) else torch.zeros_like(d) for d, c in zip(chosen.depth, clouds, strict=True)])
        inputs = replace(chosen.inputs, points=clouds)
        return objective.losses(prediction, replace(chosen, inputs=inputs, depth=depth))

    first, second = batch.inputs.points
    one = losses((first, empty))
    # Where the second sample has no cloud its boxes don't matter. A cloud that is all above or beside the map is none.
    spoilt = replace(batch, truths=[batch.truths[0], batch.truths[0]])
    other = losses((first, empty), spoilt)
    assert objective._teacher.sees(second)
    for away in (torch.tensor([100.0, 0.0, 0.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 50.0, 0.0, 0.0])):
        assert not objective._teacher.sees(second * 0 + away)
        beside = losses((first, second * 0 + away), spoilt)
        teaching = [name for name in one if name.startswith(("ray/", "tig/inter"))]
        assert teaching and all(torch.equal(one[name], beside[name]) for name in teaching)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert any(not torch.equal(one[name], value) for name, value in losses((first, second)).items())
    assert not any("no LiDAR" in line for line in told)
    none = losses((empty, empty))
    assert none.keys() == one.keys() and not any(value.detach().any() for value in none.values())
    sum(none.values()).backward()
    assert all(p.grad is not None and not p.grad.any() for p in objective.adapters.parameters())
    losses((empty, empty))
    assert sum("no LiDAR where the teacher looks in any of" in line for line in told) == 1


def test_depths_are_learnt_without_boxes_too(small_recipe: dict, teacher: Path) -> None:
    """A frame of which only 2D labels are used: the teacher says nothing, the returns still do."""
    recipe = recipe_from_dict(distilled(small_recipe, "bevdepth-tiny", teacher))
    objective = build(recipe).eval()
    batch = batch_of(recipe, objective)
    torch.manual_seed(0)
    detector = build_detector(recipe.detector_config()).eval()
    prediction = detector(replace(batch.inputs, images=normalize_images(batch.inputs.images)), None)
    half = replace(batch, boxed=(True, False), truths=[batch.truths[0], batch.truths[1][:0]],
                   beyond=[batch.beyond[0], batch.beyond[1][:0]])  # fmt: skip
    whole, found = objective.losses(prediction, batch), objective.losses(prediction, half)
    assert torch.equal(whole["tig/absolute_depth"], found["tig/absolute_depth"])
    assert not torch.equal(whole["tig/inter_channel"], found["tig/inter_channel"])
    # A sample whose depth is left out doesn't count in the mean either.
    first, second = (half.depth * torch.tensor(kept)[:, None, None, None] for kept in ([1.0, 0.0], [0.0, 1.0]))
    parts = [objective.losses(prediction, replace(half, depth=d))["tig/absolute_depth"] for d in (first, second)]
    assert torch.allclose((parts[0] + parts[1]) / 2, found["tig/absolute_depth"]) and not torch.allclose(*parts)


def test_boxes_past_the_detectors_range_are_no_background(small_recipe: dict, teacher: Path) -> None:
    """The map is square, the range of what is to be found a circle: what stands in a corner is an object all the same."""
    far = {**small_recipe, "data": {**small_recipe["data"], "max_range": 5.0}}
    recipes = [recipe_from_dict(distilled(content, "bevdet-tiny", teacher)) for content in (small_recipe, far)]
    objective = build(recipes[0]).eval()
    batches = [batch_of(recipe, objective) for recipe in recipes]
    assert sum(len(t.labels) for t in batches[1].truths) < sum(len(t.labels) for t in batches[0].truths)
    assert sum(len(t.labels) for t in batches[1].beyond) > 0
    torch.manual_seed(0)
    detector = build_detector(recipes[0].detector_config()).eval()
    inputs = batches[0].inputs
    prediction = detector(replace(inputs, images=normalize_images(inputs.images)), None)
    found = []
    for batch in (*batches, replace(batches[1], beyond=[b[:0] for b in batches[1].beyond])):
        torch.manual_seed(1)
        found.append(objective.losses(prediction, batch)["ray/weighted"])
    assert torch.allclose(found[0], found[1]) and not torch.allclose(found[0], found[2])


def test_depth_alone_needs_no_teacher(small_recipe: dict, tmp_path: Path) -> None:
    recipe = with_section(small_recipe, "bevdet-tiny", "tig-bev", None, inner_feature=None)
    assert build(recipe).needs.lidar is None
    result = train(recipe, tmp_path / "run", tell=lambda line: None, progress_bar=False)
    assert {"tig/absolute_depth", "tig/inner_depth"} <= set(result.losses)
    assert not any(term.startswith(("ray/", "tig/inter", "response")) for term in result.losses)


def test_what_does_not_go_together_is_named(small_recipe: dict, teacher: Path, tmp_path: Path) -> None:
    def fails(
        error: type[DualViewError], message: str, model: str, method: str, path: Path | str, **overrides
    ) -> None:
        with pytest.raises(error, match=message):
            build(with_section(small_recipe, model, method, path, **overrides))

    fails(
        WeightsError,
        "no checkpoint 'nowhere.safetensors': name a LiDAR detector's",
        "bevdet-tiny",
        "rayd3d",
        "nowhere.safetensors",
    )
    camera = tmp_path / "camera.safetensors"
    save_checkpoint(
        build_detector(recipe_from_dict(recipe_of(small_recipe, "bevdet-tiny")).detector_config()), camera
    )
    fails(ConfigError, "'bevdet-tiny', which reads no LiDAR", "bevdet-tiny", "rayd3d", camera)
    far = {**GRID, "x_min": -64.0, "y_min": -64.0, "columns": 32, "rows": 32}
    wide = save_teacher(small_recipe, tmp_path / "wide.safetensors", **{"branch.grid": far})
    fails(ConfigError, r"reaches 32\.00 m beyond", "bevdet-tiny", "rayd3d", wide)
    fails(ConfigError, "predicts no depth.*inner_depth: null", "bevformer-lite", "tig-bev", teacher)
    fails(
        ConfigError,
        r"responses can't be compared.*response: null",
        "dualview-tiny",
        "rayd3d",
        teacher,
        response={},
    )
    fails(ConfigError, "nothing else asks the teacher", "dualview-tiny", "rayd3d", teacher, rays=None)
    with pytest.raises(ConfigError, match="set teacher to the weights"):
        with_section(small_recipe, "bevdet-tiny", "rayd3d", None)
    with pytest.raises(ConfigError, match="every part is turned off"):
        with_section(small_recipe, "bevdet-tiny", "rayd3d", teacher, rays=None, response=None)
    no_term = {"channel_weight": 0, "keypoint_weight": 0}
    for part, wrong in (("inner_depth", {"weight": 0}), ("response", {"weight": 0}), ("inner_feature", no_term)):
        with pytest.raises(ConfigError, match=f"{part}: null"):  # a teacher that would look on and say nothing
            with_section(small_recipe, "bevdet-tiny", "tig-bev", teacher, **{part: wrong})
    with pytest.raises(ConfigError, match=r"lidar_distillation\.overrides.*did you mean 'rays'"):
        with_section(small_recipe, "bevdet-tiny", "rayd3d", teacher, ray=None)
    perspective = recipe_from_dict({**small_recipe, "model": "sparse4d-tiny", "overrides": {},
                                    "lidar_distillation": {"method": "rayd3d", "teacher": str(teacher)}})  # fmt: skip
    with pytest.raises(ConfigError, match=r"sparse4d-tiny has no bird's-eye-view map"):
        build(perspective)


def test_maps_that_take_in_other_heights_are_compared(small_recipe: dict, teacher: Path) -> None:
    """The lift takes in more than the teacher's pillars do; what is compared are cells on the ground."""
    recipe = with_section(small_recipe, "bevdet-tiny", "rayd3d", teacher, response={})
    tall = {**recipe.overrides, "bev.grid": {**GRID, "z_min": -10.0, "z_max": 10.0}}
    told: list[str] = []
    objective = build(replace(recipe, overrides=tall), told)
    assert objective.settings.response is not None and not any("aren't distilled" in line for line in told)
    moved = {**recipe.overrides, "bev.grid": {**GRID, "x_min": -30.0}}
    with pytest.raises(ConfigError, match="the maps are on other grids"):
        build(replace(recipe, overrides=moved))


def test_teacher_and_student_share_the_working_frame(small_recipe: dict, teacher: Path, tmp_path: Path) -> None:
    """LIDAR_TOP's frame for both, as BEVDet and TiG-BEV had it in 2022; one of each is refused."""
    recipe = with_section(small_recipe, "bevdet-tiny", "rayd3d", teacher)
    turned = {**recipe.overrides, "working_from_ego": LIDAR_TOP_FROM_EGO}
    with pytest.raises(ConfigError, match="different frames"):
        build(replace(recipe, overrides=turned))
    there = save_teacher(small_recipe, tmp_path / "there.safetensors", working_from_ego=LIDAR_TOP_FROM_EGO)
    with pytest.raises(ConfigError, match="different frames"):
        build(with_section(small_recipe, "bevdet-tiny", "rayd3d", there))
    both = replace(with_section(small_recipe, "bevdet-tiny", "rayd3d", there), overrides=turned)
    objective, config = build(both), both.detector_config()
    drives, plain = prepare_drives(both, config, with_sweeps=True), replace(both.augmentation, bev=None)
    samples = [
        FrameDataset(drives, plain, both.data, frame, objective.needs.lidar)[FrameRequest(0, 6, (0, 0, 0), 0)]
        for frame in (config.working_from_ego_matrix, None)
    ]
    matrix = config.working_from_ego_matrix.float()
    ours, ego = samples[0].inputs.points[0], samples[1].inputs.points[0]
    assert torch.allclose(ours[:, :3], ego[:, :3] @ matrix[:3, :3].T + matrix[:3, 3], atol=1e-4)
    held = [points_in_boxes(collate([sample]), 0) for sample in samples]
    assert held[0] == held[1] and max(held[0].values()) > 10


def test_a_recording_without_lidar_is_named(
    small_recipe: dict, small_rig: Path, teacher: Path, tmp_path: Path
) -> None:
    rig = tmp_path / "rig.yaml"
    data = {**small_recipe["data"], "rig": str(rig), "cache": str(tmp_path / "cache")}
    recipe = recipe_from_dict(distilled({**small_recipe, "data": data}, "bevdet-tiny", teacher))
    rig.write_text(small_rig.read_text().replace("lidar_topics: [/lidar/points]\n", ""))
    with pytest.raises(ConfigError, match="set lidar_topics in the rig file"):
        train(recipe, tmp_path / "run", tell=lambda line: None, progress_bar=False)
    rig.write_text(small_rig.read_text().replace("[/lidar/points]", "[/elsewhere/points]"))
    with pytest.raises(BagError, match="/elsewhere/points"):
        train(recipe, tmp_path / "run", tell=lambda line: None, progress_bar=False)


class Operations(TorchDispatchMode):
    """Every operation that runs, with the shapes and types of its tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = [
            (tuple(a.shape), a.dtype)
            for a in torch.utils._pytree.tree_leaves((args, kwargs))
            if torch.is_tensor(a)
        ]
        self.seen.append((str(func), given))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("model", STUDENTS)
def test_a_distilled_student_costs_what_its_base_costs(
    model: str, small_recipe: dict, teacher: Path, tmp_path: Path
) -> None:
    """Its checkpoint has the base's names and shapes; two frames run the base's operations; and with the base's weights in
    it, it is the base: operation by operation on the same shapes, to the same numbers.
    """
    plain = recipe_from_dict(recipe_of(small_recipe, model))
    base = build_detector(plain.detector_config(), plain.seed).eval()
    content = distilled(small_recipe, model, teacher, steps=1)
    result = train(recipe_from_dict(content), tmp_path / "run", tell=lambda line: None, progress_bar=False)
    student = load_checkpoint(result.weights).eval()
    assert base.config == student.config and type(base) is type(student)
    assert layout(base) == layout(student)
    assert any(not torch.equal(a, b) for a, b in zip(base.parameters(), student.parameters(), strict=True))
    drives = prepare_drives(plain, plain.detector_config())
    inputs = FrameDataset(drives, plain.augmentation, plain.data)[FrameRequest(0, 6, (0, 0, 0), 0)].inputs
    inputs = replace(inputs, images=normalize_images(inputs.images))
    expected, numbers = two_frames(base, inputs)
    found, _ = two_frames(student, inputs)
    assert len(expected) > 100 and [name for name, _ in found] == [name for name, _ in expected]
    student.load_state_dict(base.state_dict(), strict=True)
    found, same = two_frames(student, inputs)
    assert found == expected and torch.equal(same, numbers)


def layout(detector: Detector) -> list[tuple]:
    return [(name, value.shape, value.dtype) for name, value in detector.state_dict().items()]


def two_frames(detector: Detector, inputs: DetectorInputs) -> tuple[list[tuple], torch.Tensor]:
    """The operations of two frames, of which the second remembers the first, and the second's BEV map."""
    with torch.no_grad(), Operations() as run:
        first = detector(inputs, detector.initial_memory())
        second = detector(inputs, first.memory)
    return run.seen, second.bev.features


def test_a_cloud_that_comes_again_is_seen_once(teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    encode = CenterPoint.encode

    def counted(self: CenterPoint, clouds: Sequence[torch.Tensor]) -> torch.Tensor:
        seen.append(len(clouds))
        return encode(self, clouds)

    monkeypatch.setattr(CenterPoint, "encode", counted)
    torch.manual_seed(0)
    clouds = [torch.randn(count, 5) * torch.tensor([8.0, 8.0, 1.0, 1.0, 0.0]) for count in (300, 200, 400)]
    plain = load_lidar_teacher(str(teacher)).outputs(clouds, with_center=True)
    for _ in range(2):
        kept = load_lidar_teacher(str(teacher), tmp_path / "maps").outputs(clouds, with_center=True)
        assert torch.allclose(kept.bev, plain.bev, atol=1e-5) and plain.bev.abs().max() > 0.1
        assert torch.allclose(kept.center[0].heatmap, plain.center[0].heatmap, atol=1e-4)
    assert seen == [3, 1, 1, 1]


@pytest.mark.parametrize(("bev", "kept"), [(None, True), ({"flip_x": True}, False)])
def test_maps_of_a_teacher_are_kept_where_scenes_stay_as_they_were(
    bev: dict | None, kept: bool, small_recipe: dict, teacher: Path, tmp_path: Path
) -> None:
    content = distilled(small_recipe, "bevdepth-tiny", teacher, cache_features=True)
    content["augmentation"] = {**NO_IMAGE_CHANGES, "bev": bev}
    content["data"] = {**content["data"], "cache": str(tmp_path)}
    build(recipe_from_dict(content))
    assert (tmp_path / TEACHER_MAPS).is_dir() == kept
