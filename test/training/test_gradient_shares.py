"""The tool that says how hard each loss term pulls."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import yaml
from students import recipe_of, save_teacher


def test_shares_of_a_distilled_students_terms(
    small_recipe: dict, drives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("gradient_shares", Path(__file__).parents[2] / "tools/gradient_shares.py")
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    section = {
        "method": "rayd3d", "teacher": str(save_teacher(small_recipe, tmp_path / "teacher.safetensors")),
        "overrides": {"rays.ray_count": 60, "rays.contrastive_weight": 0.0},
    }  # fmt: skip
    norms = []
    for weight in (1.0, 10.0):
        content = recipe_of(small_recipe, "bevdet-tiny", lidar_distillation=section, steps=1)
        section["overrides"]["rays.weighted_weight"] = weight
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
        out = ["--bags", str(drives), "--every", "1", "--out", str(tmp_path / f"run{weight}")]
        assert tool.main([str(tmp_path / "recipe.yaml"), *out]) == 0
        rows = {cells[1].strip(): [float(c) for c in cells[2:5]] for line in capsys.readouterr().out.splitlines()
                if (len(cells := line.split("|")) == 6 and "/" in line) or "all of" in line}  # fmt: skip
        assert all(value > 0 for value in rows["all of detection's"])
        norms.append(rows["ray/weighted"])
    assert norms[1] == pytest.approx([10 * value for value in norms[0]], rel=0.02)
