"""The tool that says how much label maps know."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from label_world import RIG, RIG_YAML, write_recording

from dualview.errors import ConfigError
from dualview.teachers.label_maker import LabelEngine, make_label_maps
from dualview.teachers.label_settings import LabelSettings


def test_a_probe_finds_the_cars(settings: LabelSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Heights tell cars from the flat road nearly always; of a random network's features no more is asked than a figure."""
    spec = importlib.util.spec_from_file_location("label_probe", Path(__file__).parents[2] / "tools/label_probe.py")
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    drives = [write_recording(tmp_path / f"{seed}.mcap", 0.6, seed=seed) for seed in range(2)]
    make_label_maps(drives, RIG, replace(settings, accumulation="none"), tmp_path / "maps", LabelEngine(quiet=True))
    (tmp_path / "rig.yaml").write_text(RIG_YAML)
    arguments = [str(tmp_path / "maps"), "--rig", str(tmp_path / "rig.yaml")]
    assert tool.main([*arguments, "--train", str(drives[0]), "--test", str(drives[1])]) == 0
    first, *rows = capsys.readouterr().out.splitlines()
    share = float(first.split(", ")[1].split()[0])
    found = {row.split(":")[0]: float(row.split()[-1]) for row in rows}
    assert 0.02 < share < 0.5 and found["heights"] > 0.9 and 0 < found["features"] <= 1
    other = write_recording(tmp_path / "other.mcap", 0.6, seed=5)
    with pytest.raises(ConfigError, match="name the drives it was made of"):
        tool.main([*arguments, "--train", str(other), "--test", str(drives[1])])
    truth = torch.tensor([0.0, 1, 0, 1])
    assert tool.average_precision((truth[:, None], truth), (truth[:, None], truth)) == 1.0
