"""The tool that says how clearly a LiDAR teacher's map shows objects."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
import yaml
from students import recipe_of, save_teacher

from dualview.geometry.bev_grid import BevGrid
from dualview.training.recipe import recipe_from_dict


def test_objects_are_told_from_the_rest(small_recipe: dict, drives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("teacher_contrast", Path(__file__).parents[2] / "tools/teacher_contrast.py")
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    seen = tool.seen_cells(torch.tensor([[-0.5, 0.5, 3.0], [1.99, -1.0, 0.0], [2.0, 0.0, 0.0]]), BevGrid.centered(2.0, 1.0))
    assert seen.nonzero().tolist() == [[1, 3], [2, 1]]

    teacher = save_teacher(small_recipe, tmp_path / "teacher.safetensors")
    content = recipe_of(small_recipe, "centerpoint-tiny")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    assert tool.main([str(teacher), "--recipe", str(tmp_path / "recipe.yaml"), "--bags", str(drives), "--frames", "2"]) == 0
    lines = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    rows = {cells[1].strip(): [float(c) for c in cells[-5:-1]] for cells in lines[1:]}
    grid = recipe_from_dict(content).detector_config().bev_grid
    assert grid is not None and (rows["no object"][0] + rows["any object"][0]) % (grid.rows * grid.columns) == 0
    assert 0 < rows["no object, seen"][0] < rows["no object"][0] and rows["any object"][0] > 0
    assert rows["any object"][2] == pytest.approx(rows["any object"][1] / rows["no object"][1], abs=0.01)
