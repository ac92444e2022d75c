"""A frozen backbone's maps, computed once: the detector sees the same as if the backbone had run."""

import errno
import math
import os
import resource
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from students import recipe_of

from dualview.detectors.checkpoint import build_detector, load_checkpoint, save_checkpoint
from dualview.detectors.inputs import normalize_images
from dualview.errors import ConfigError
from dualview.training import array_file, feature_store
from dualview.training.array_file import DiskFullError
from dualview.training.data_module import StreamingData
from dualview.training.drive_store import drive_lock
from dualview.training.feature_store import backbone_key, known_features
from dualview.training.frozen import freeze, freeze_detector
from dualview.training.labelled_drives import training_drives
from dualview.training.module import DetectorTraining
from dualview.training.objectives import joined_needs
from dualview.training.recipe import recipe_from_dict
from dualview.training.trainer import initial_detector, train

PLAIN = {"image": None, "photometric": None, "grid_mask": None, "camera_dropout": 0.0}


@pytest.fixture
def frozen(small_recipe: dict, tmp_path: Path) -> dict:
    """A recipe whose whole backbone is frozen."""
    start = tmp_path / "start.safetensors"
    # No proposals: an untrained heatmap is a plain, whose peaks another rounding would move.
    center = {**small_recipe["overrides"]["center_head"], "proposals": 0}
    overrides = {**small_recipe["overrides"], "neck_blocks": [1, 1], "center_head": center}
    config = recipe_from_dict({**small_recipe, "overrides": overrides}).detector_config()
    save_checkpoint(build_detector(config, seed=5), start)
    content = {k: v for k, v in small_recipe.items() if k not in ("model", "overrides")}
    return {
        **content, "model": "dualview-tiny", "start_from": str(start), "freeze_stages": 4, "augmentation": PLAIN, "steps": 3,
        "data": {**content["data"], "cache": str(tmp_path / "cache")},
    }  # fmt: skip


def built(content: dict, told: list[str]):
    """Detector, its known features, and a batch of the recipe."""
    recipe = recipe_from_dict({**content, "cache_features": True})
    config = recipe.detector_config()
    drives = training_drives(recipe, config)
    detector = initial_detector(recipe, config, drives, told.append)
    freeze(detector.image_backbone.body, recipe.freeze_stages)
    known = known_features(recipe, detector, drives, told.append)
    return detector, known, next(iter(StreamingData(recipe, config, drives, known.needs).train_dataloader()))


def test_the_detector_sees_what_its_backbone_would_say(frozen, tmp_path):
    told: list[str] = []
    detector, known, batch = built(frozen, told)
    assert any("maps of" in line and "computed once" in line for line in told)
    inputs = replace(batch.inputs, images=normalize_images(batch.inputs.images))
    completed = known.complete(inputs, batch)
    detector.eval()
    with torch.no_grad():
        for ours, maps in zip(completed.image_features, detector.image_backbone(inputs.images.flatten(0, 1)), strict=True):
            assert ours.flatten(0, 1).shape == maps.shape
            assert torch.allclose(ours.flatten(0, 1), maps, rtol=2e-3, atol=1e-4)  # float16
        one, other = (detector(given, detector.initial_memory()) for given in (completed, inputs))
        blind = replace(inputs, image_features=tuple(torch.zeros_like(m) for m in completed.image_features))
        none = detector(blind, detector.initial_memory())
    rounding, blindness = (float((p.bev.features - other.bev.features).norm()) for p in (one, none))
    assert 0 < rounding < 0.05 * blindness

    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("features-*")}
    assert len(before) == 3 * 3  # drives and levels
    told.clear()
    built(frozen, told)
    assert not any("computed once" in line for line in told)
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("features-*")}


def test_a_mirrored_world_has_maps_of_its_own(frozen, tmp_path):
    augmentation = {**PLAIN, "mirror": "together", "bev": {"flip_x": False, "flip_y": True}}
    detector, known, batch = built({**frozen, "augmentation": augmentation, "seed": 3, "batch_size": 4}, [])
    mirrored = torch.linalg.det(batch.inputs.image_augmentation[:, 0, :3, :3]) < 0
    assert mirrored.any() and not mirrored.all()
    inputs = replace(batch.inputs, images=normalize_images(batch.inputs.images))
    detector.eval()
    with torch.no_grad():
        said = detector.image_backbone(inputs.images.flatten(0, 1))
    for ours, maps in zip(known.complete(inputs, batch).image_features, said, strict=True):
        assert torch.allclose(ours.flatten(0, 1), maps, rtol=2e-3, atol=1e-4)  # float16
    assert len(list((tmp_path / "cache").rglob("features-*"))) == 3 * 3 * 2  # drives, levels, and both ways round


def test_half_a_file_is_written_anew(frozen, tmp_path):
    built(frozen, [])
    damaged = sorted((tmp_path / "cache").rglob("features-*"))[0]
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    built(frozen, [])
    assert damaged.read_bytes() == whole


def features_in(tmp_path: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in (tmp_path / "cache").rglob("features-*")}


def test_a_full_disk_is_known_before_the_backbone_runs(frozen, tmp_path, monkeypatch):
    """A limit on the size of files stands for the disk."""
    recipe = recipe_from_dict({**frozen, "cache_features": True})
    drives = training_drives(recipe, recipe.detector_config())
    ran: list[int] = []
    monkeypatch.setattr(feature_store, "normalize_images", lambda images: ran.append(1) or normalize_images(images))
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
    try:
        with pytest.raises(DiskFullError, match=r"no room left .*leave cache_features out"):
            built(frozen, [])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert not ran and not any(list(drive.folder.glob("*features*")) for drive in drives)


def test_where_room_cant_be_reserved_a_full_disk_shows_in_writing(frozen, tmp_path, monkeypatch):
    def unsupported(file: int, start: int, size: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    def full(file: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(array_file.os, "posix_fallocate", full)
        with pytest.raises(DiskFullError, match="No space left"):
            built(frozen, [])
    monkeypatch.setattr(array_file.os, "posix_fallocate", unsupported)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
    try:
        with pytest.raises(DiskFullError, match="no room left"):
            built(frozen, [])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert not features_in(tmp_path)
    built(frozen, [])
    written = features_in(tmp_path)
    assert len(written) == 3 * 3 and all(map(any, written.values()))


def test_two_runs_compute_each_drive_once(frozen, tmp_path, monkeypatch):
    """While one is at a drive, the other waits, and takes its maps over."""
    built(frozen, [])
    folder = min((tmp_path / "cache").glob("drive0*"))
    away = tmp_path / "away"
    away.mkdir()
    for path in folder.glob("features-*"):
        os.replace(path, away / path.name)
    waits = threading.Event()
    monkeypatch.setattr(feature_store, "store_features", lambda *_: pytest.fail("computed a second time"))
    said: list[str] = []

    class Told(list):
        def append(self, line: str) -> None:
            said.append(line)
            if "another run" in line:
                waits.set()

    with ThreadPoolExecutor(1) as pool:
        with drive_lock(folder, lambda: None):
            work = pool.submit(built, frozen, Told())
            assert waits.wait(60)
            for path in away.iterdir():
                os.replace(path, folder / path.name)
        _, known, batch = work.result(60)
    assert len(known.complete(replace(batch.inputs, images=normalize_images(batch.inputs.images)), batch).image_features) == 3
    assert sum("another run" in line for line in said) == 1


def test_a_run_learns_from_known_features(frozen, tmp_path):
    result = train(recipe_from_dict({**frozen, "cache_features": True}), tmp_path / "run", progress_bar=False)
    assert result.steps == 3 and all(math.isfinite(value) for value in result.losses.values())
    start, end = (load_checkpoint(p) for p in (frozen["start_from"], result.weights))
    moved = [n for n, value in end.named_parameters() if not torch.equal(value, start.get_parameter(n))]
    assert any(n.startswith("feature_pyramid.blocks") for n in moved)
    assert not any(n.startswith("image_backbone") for n in moved)


def test_what_does_not_fit_is_refused(frozen, tmp_path):
    with pytest.raises(ConfigError, match="raise freeze_stages"):
        train(recipe_from_dict({**frozen, "cache_features": True, "freeze_stages": 2}), tmp_path / "run", progress_bar=False)
    with pytest.raises(ConfigError, match=r"set augmentation.image to null"):
        recipe_from_dict({**frozen, "cache_features": True, "augmentation": {**PLAIN, "image": {}}})


def test_another_backbone_has_another_key(frozen):
    config = recipe_from_dict(frozen).detector_config()
    one, other = (build_detector(config, seed).image_backbone for seed in (1, 2))
    assert backbone_key(one, "fp32") == backbone_key(one, "fp32")
    assert len({backbone_key(one, "fp32"), backbone_key(other, "fp32"), backbone_key(one, "bf16")}) == 3
    with torch.no_grad():
        next(one.parameters()).view(-1)[0] += 1e-3
    assert backbone_key(one, "fp32") != backbone_key(build_detector(config, 1).image_backbone, "fp32")


@pytest.mark.parametrize("model", ["bevdet-tiny", "bevdepth4d-tiny"])
def test_bevdet_learns_the_same_from_known_features(model, small_recipe, tmp_path):
    """Two training steps, the second of which remembers the first: every loss is what it is with the backbone running."""
    content = recipe_of(
        small_recipe, model, augmentation=PLAIN, data={**small_recipe["data"], "cache": str(tmp_path / "cache")},
    )  # fmt: skip
    start = tmp_path / "start.safetensors"
    save_checkpoint(build_detector(recipe_from_dict(content).detector_config(), seed=5), start)
    content = {**content, "backbone_weights": str(start), "freeze_stages": 4}
    losses = []
    for cached in (True, False):
        recipe = recipe_from_dict({**content, "cache_features": cached})
        config = recipe.detector_config()
        drives = training_drives(recipe, config)
        detector = initial_detector(recipe, config, drives, lambda line: None)
        freeze_detector(detector, recipe)
        known = known_features(recipe, detector, drives, lambda line: None)
        assert (known is not None) == cached
        objectives = [] if known is None else [known]
        needs = joined_needs(objectives, config)
        module = DetectorTraining(recipe, detector, objectives)
        ran = []
        detector.image_backbone.register_forward_hook(lambda *_, ran=ran: ran.append(1))
        module.log = lambda *_, **__: None
        batches = iter(StreamingData(recipe, config, drives, needs).train_dataloader())
        steps = [module.training_step(next(batches), i) and dict(module.last_losses) for i in range(2)]
        losses.append(steps)
        assert bool(ran) != cached
    for ours, theirs in zip(*losses, strict=True):
        assert ours == pytest.approx(theirs, rel=5e-3)  # float16
