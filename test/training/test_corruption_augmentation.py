"""Corrupted clips: drawn apart from all other augmentation, one corruption a clip, off unless asked for."""

from collections import Counter
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from small_world import CLASSES, SIZE

from dualview.errors import ConfigError
from dualview.scene.augmentation.corruption import CorruptionAugmentationSettings, draw_corruption
from dualview.scene.corruptions.catalogue import CORRUPTIONS, SEVERITIES
from dualview.scene.rig import load_rig
from dualview.training.bag_index import IndexSettings, find_recordings, index_recordings
from dualview.training.clips import FrameRequest
from dualview.training.drive_store import Drive, DriveSummary
from dualview.training.recipe import recipe_from_dict, recipe_to_dict
from dualview.training.recipe_settings import AugmentationSettings, DataSettings
from dualview.training.samples import ClipDraw, FrameDataset, TrainingSample
from dualview.training.trainer import LAST, _check_folder

PLAIN = dict(image=None, bev=None, photometric=None, grid_mask=None, camera_dropout=0.0)
ALWAYS = CorruptionAugmentationSettings(probability=1.0)


@pytest.fixture(scope="module")
def summaries(drives: Path, small_rig: Path, cache: Path) -> list[DriveSummary]:
    rig = load_rig(str(small_rig))
    return index_recordings(find_recordings([str(drives)]), rig, IndexSettings(SIZE, CLASSES), cache)


def sample(summaries, settings: AugmentationSettings, position: int = 0, clip: int = 2) -> TrainingSample:
    request = FrameRequest(0, 4 + position, (0, 1, clip), position)
    return FrameDataset(summaries, settings, DataSettings())[request]


def test_other_draws_are_the_same_with_and_without(summaries) -> None:
    for clip in range(4):
        off = sample(summaries, AugmentationSettings(), clip=clip)
        never = sample(
            summaries,
            AugmentationSettings(corruption=CorruptionAugmentationSettings(probability=0.0)),
            clip=clip,
        )
        on = sample(summaries, AugmentationSettings(corruption=ALWAYS), clip=clip)
        assert torch.equal(off.inputs.images, never.inputs.images)
        for field in fields(off.inputs):
            before, after = getattr(off.inputs, field.name), getattr(on.inputs, field.name)
            if before is None:
                assert after is None
            elif field.name != "images":
                assert torch.equal(before, after)
        assert torch.equal(off.truth.boxes, on.truth.boxes) and torch.equal(off.depth, on.depth)


def test_a_sample_shows_the_corrupted_frame(summaries) -> None:
    settings = AugmentationSettings(**PLAIN, corruption=ALWAYS)
    frame = Drive(summaries[0].folder).frame(4).frame
    different = 0
    for clip in range(6):
        draw = ClipDraw.of(FrameRequest(0, 4, (0, 1, clip), 0), frame, settings)
        made = sample(summaries, settings, clip=clip)
        assert draw.corruption is not None
        assert torch.equal(made.inputs.images[0], draw.corruption.frame(frame).images)
        assert made.inputs.camera_mask.all()  # the detector isn't told
        different += not torch.equal(made.inputs.images[0], frame.images)
    assert different >= 5


def test_a_clip_keeps_its_corruption(summaries) -> None:
    only = CorruptionAugmentationSettings(1.0, ("camera_crash",), ("easy",))
    settings = AugmentationSettings(**PLAIN, corruption=only)

    def dark(position: int, clip: int) -> tuple[bool, ...]:
        images = sample(summaries, settings, position, clip).inputs.images[0]
        return tuple(bool((image == 0).all()) for image in images)

    clips = [{dark(position, clip) for position in range(3)} for clip in range(8)]
    assert all(len(seen) == 1 for seen in clips)
    assert len(set.union(*clips)) == 2  # one camera or the other of two


def test_corruptions_and_severities_are_drawn_evenly_with_the_stated_probability() -> None:
    random = np.random.default_rng(0)
    settings = CorruptionAugmentationSettings(probability=0.4)
    drawn = [draw_corruption(random, settings) for _ in range(4000)]
    found = [c for c in drawn if c is not None]
    assert len(found) / 4000 == pytest.approx(0.4, abs=0.03)
    names, severities = Counter(c.name for c in found), Counter(c.severity for c in found)
    assert set(names) == set(CORRUPTIONS) and set(severities) == set(SEVERITIES)
    assert min(names.values()) > 0.7 * max(names.values())
    assert len({c.seed for c in found}) > 0.99 * len(found)


def test_a_recipe_turns_it_on_and_names_what_is_wrong() -> None:
    assert recipe_from_dict({"model": "dualview-tiny"}).augmentation.corruption is None
    recipe = recipe_from_dict({"model": "dualview-tiny", "augmentation": {"corruption": {}}})
    assert recipe.augmentation.corruption == CorruptionAugmentationSettings()
    assert recipe_from_dict(recipe_to_dict(recipe)) == recipe
    for wrong, message in (
        ({"corruptions": ["hail"]}, "augmentation.corruption: there is no corruption 'hail'"),
        ({"severities": ["mid"]}, "there is no severity 'mid'"),
        ({"severities": []}, "at least one"),
        ({"probability": 1.5}, "must lie in 0..1"),
        ({"probabilty": 0.5}, "did you mean 'probability'"),
    ):
        with pytest.raises(ConfigError, match=message):
            recipe_from_dict({"model": "dualview-tiny", "augmentation": {"corruption": wrong}})


def test_a_run_that_began_before_there_were_corruptions_can_go_on(tmp_path: Path) -> None:
    recipe = recipe_from_dict({"model": "dualview-tiny"})
    written = recipe_to_dict(recipe)
    del written["augmentation"]["corruption"]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(written))
    (tmp_path / LAST).touch()
    _check_folder(recipe, tmp_path, resume=True)
    changed = recipe_from_dict({"model": "dualview-tiny", "augmentation": {"corruption": {}}})
    with pytest.raises(ConfigError, match="in augmentation: a run goes on with its own recipe"):
        _check_folder(changed, tmp_path, resume=True)
