"""Training a detector whose BEV branch has a history: it learns, and a run that was cut off goes on as if it hadn't been."""

import csv
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dualview.training.lightning import lightning
from dualview.training.objective_colors import CleanColors
from dualview.training.objectives import build_objectives
from dualview.training.recipe import recipe_from_dict
from dualview.training.trainer import train


class Cut(RuntimeError):
    """The run was cut off."""


class CutsAfter(lightning().Callback):
    def __init__(self, step: int) -> None:
        self._step = step

    def on_train_batch_end(self, trainer, module, *unused) -> None:
        if trainer.global_step == self._step:
            raise Cut


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "losses.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k != "frames_per_second"} for row in table]


@pytest.fixture
def content(small_recipe: dict) -> dict:
    overrides = {
        **small_recipe["overrides"],
        "bev.depth_field": {"iterations": 3},
        "bev.history": {"frames": 2, "interval": 0.1},
        "bev.refinement": {"heads": 2, "points": 2, "heights": 2},
    }
    return {**small_recipe, "overrides": overrides, "precision": "bf16"}


def test_a_cut_off_run_goes_on_with_its_maps(content: dict, tmp_path: Path) -> None:
    recipe = recipe_from_dict({**content, "steps": 8, "checkpoint_every": 3})
    train(recipe, tmp_path / "whole", progress_bar=False)
    with pytest.raises(Cut):
        train(recipe, tmp_path / "cut", callbacks=(CutsAfter(5),), progress_bar=False)
    saved = torch.load(tmp_path / "cut" / "last.ckpt", weights_only=True)["dualview"]["streams"][0]
    assert saved["memory"]["history"]["valid"].any() and saved["memory"]["instances"] is not None
    train(recipe, tmp_path / "cut", resume=True, progress_bar=False)
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole") and len(rows(tmp_path / "cut")) == 8
    first, second = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_random_field_sees_the_cameras_colours(content: dict, tmp_path: Path) -> None:
    """Photometric augmentation and grid are the network's alone (as in BEVNeXt's code); mirroring is of both."""
    augmentation = {
        "grid_mask": {"probability": 1.0},
        "image": None,
        "mirror": "together",
        "corruption": None,
    }
    recipe = recipe_from_dict({**content, "augmentation": augmentation})
    objectives = build_objectives(recipe, recipe.detector_config())
    (colors,) = [o for o in objectives if isinstance(o, CleanColors)]
    plain = recipe_from_dict({**content, "augmentation": {"grid_mask": None, "photometric": None}})
    assert not any(isinstance(o, CleanColors) for o in build_objectives(plain, plain.detector_config()))
    other = recipe_from_dict({**content, "overrides": {**content["overrides"], "bev.depth_field": None}})
    assert not any(isinstance(o, CleanColors) for o in build_objectives(other, other.detector_config()))

    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    class Watches(lightning().Callback):
        def on_train_batch_start(self, trainer, module, batch, *unused) -> None:
            inputs = colors.complete(batch.inputs, batch)
            assert inputs.colors is not None
            seen.append((inputs.images.float(), inputs.colors))

    train(recipe_from_dict({**content, "augmentation": augmentation, "steps": 2}), tmp_path / "run",
          callbacks=(Watches(),), progress_bar=False)  # fmt: skip
    for images, clean in seen:
        assert images.shape == clean.shape and clean.dtype == torch.float32 and not torch.equal(images, clean)
        hidden = (images == 0).all(2)
        assert (
            hidden.float().mean() > 0.1 + (clean == 0).all(2).float().mean()
        )  # the grid isn't in the colours
    assert len(seen) == 2


def test_it_learns(content: dict, tmp_path: Path) -> None:
    content = {**content, "steps": 40, "checkpoint_every": 40}
    content["augmentation"] = {"grid_mask": None, "photometric": None}
    train(recipe_from_dict(content), tmp_path / "run", progress_bar=False)
    table = rows(tmp_path / "run")

    def mean(name: str, part: slice) -> float:
        values = [float(row[name]) for row in table[part]]
        return sum(values) / len(values)

    for name in ("center0/heatmap", "layer2/class"):  # the first of them sees the map alone
        assert mean(name, slice(-10, None)) < 0.9 * mean(name, slice(0, 10)), name
