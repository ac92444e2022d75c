"""A run that is killed goes on as if it hadn't been: same losses to the last digit, same weights."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from dualview.errors import ConfigError
from dualview.training.recipe import recipe_from_dict
from dualview.training.trainer import train

SOURCE = Path(__file__).parents[2] / "src"


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "losses.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    for row in table:
        row.pop("frames_per_second")
    return table


def command(recipe: Path, folder: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "dualview", "train", str(recipe), "--out", str(folder), "--quiet", *more]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}


def killed_half_way(recipe: Path, folder: Path) -> int:
    """Train until there is a checkpoint and a few steps more, then kill -9 all processes; how many steps were logged."""
    process = subprocess.Popen(command(recipe, folder), env=environment(), start_new_session=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        table = folder / "losses.csv"
        if (folder / "last.ckpt").exists() and table.exists() and table.read_text().count("\n") > 5:
            break
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return len(rows(folder))


def same_runs(one: Path, other: Path, steps: int) -> None:
    """Same losses to the last digit, same weights."""
    assert rows(one) == rows(other) and len(rows(one)) == steps
    first, second = (load_file(folder / "weights.safetensors") for folder in (one, other))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_kill_and_resume_give_the_same_losses_and_weights(small_recipe, tmp_path) -> None:
    # EMA, accumulation, a worker process and clips that end in between: everything that could be forgotten
    content = {**small_recipe, "steps": 14, "accumulate": 2, "checkpoint_every": 3}
    content["data"] = {**content["data"], "workers": 1}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(content))
    train(recipe_from_dict(content), tmp_path / "whole", progress_bar=False)

    killed = tmp_path / "killed"
    assert 4 <= killed_half_way(recipe, killed) < 14
    train(recipe_from_dict(content), killed, resume=True, progress_bar=False)
    same_runs(tmp_path / "whole", killed, 14)


def test_a_run_is_neither_overwritten_nor_continued_as_another(small_recipe, tmp_path) -> None:
    recipe = recipe_from_dict({**small_recipe, "steps": 1, "checkpoint_every": 1})
    folder = tmp_path / "run"
    with pytest.raises(ConfigError, match="leave out --resume"):
        train(recipe, folder, resume=True, progress_bar=False)
    train(recipe, folder, progress_bar=False)
    with pytest.raises(ConfigError, match="holds a run already"):
        train(recipe, folder, progress_bar=False)
    changed = recipe_from_dict({**small_recipe, "steps": 1, "seed": 5})
    with pytest.raises(ConfigError, match=r"differs .* in seed"):
        train(changed, folder, resume=True, progress_bar=False)
