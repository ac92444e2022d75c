"""The table of parameters: one place for type, default, range and meaning."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from rcl_interfaces.msg import ParameterType

from dualview.cli import main
from dualview.errors import ConfigError
from dualview.ros.parameters import PARAMETERS, SPECS, Change, NodeSettings, markdown_table, yaml_defaults
from dualview.scene.assembler import AssemblerSettings
from dualview.scene.rig import load_rig

ROOT = Path(__file__).resolve().parents[2]


def test_the_settings_have_exactly_the_parameters_of_the_table() -> None:
    assert list(NodeSettings.__dataclass_fields__) == [spec.name for spec in PARAMETERS]
    assert all(
        spec.description.endswith(".") and spec.problem_with(spec.default) is None for spec in PARAMETERS
    )


def test_each_parameter_is_declared_with_type_range_and_description() -> None:
    kinds = {bool: ParameterType.PARAMETER_BOOL, int: ParameterType.PARAMETER_INTEGER,
             float: ParameterType.PARAMETER_DOUBLE, str: ParameterType.PARAMETER_STRING}  # fmt: skip
    for spec in PARAMETERS:
        described = spec.descriptor()
        assert described.type == kinds[type(spec.default)] and described.description == spec.description
        assert described.read_only == (spec.change is Change.START)
        if type(spec.default) is int:
            assert described.integer_range[0].from_value == spec.minimum
        if type(spec.default) is float:
            assert described.floating_point_range[0].to_value == spec.maximum


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("max_skew", -2.0, "must be within -1 … 1"),
        ("max_skew", float("nan"), "finite"),
        ("output_frame", "moon", "one of world, ego"),
        ("min_cameras", 1.5, "of type int"),
        ("autostart", 1, "of type bool"),
        ("decode_workers", True, "of type int"),
    ],
)
def test_values_that_cannot_be_used_are_refused_in_a_sentence(name: str, value: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        NodeSettings.from_values({name: value})


def test_parameters_win_over_the_rig_file_and_the_rig_file_over_the_defaults() -> None:
    from dataclasses import replace

    rig = replace(load_rig("nuscenes"), assembler={"max_skew": 0.08, "max_wait": 0.2})
    settings = NodeSettings.from_values({"max_wait": 0.3, "world_frame": "earth", "anchor": "cam_back"})
    assembler = settings.assembler_settings(rig)
    assert (assembler.max_skew, assembler.max_wait) == (0.08, 0.3)
    assert assembler.max_gap == AssemblerSettings().max_gap
    adapted = settings.adapted_rig(rig)
    assert (adapted.world_frame, adapted.ego_frame, adapted.anchor) == ("earth", rig.ego_frame, "cam_back")
    with pytest.raises(ConfigError, match="not one of its cameras"):
        NodeSettings.from_values({"anchor": "cam_up"}).adapted_rig(rig)


def test_the_shipped_parameter_file_is_the_table() -> None:
    text = (ROOT / "config/dualview.yaml").read_text()
    assert text == yaml_defaults(), "run `dualview parameters --yaml > config/dualview.yaml`"
    values = yaml.safe_load(text)["/**"]["ros__parameters"]
    assert NodeSettings.from_values(values) == NodeSettings.from_values({})


def test_the_command_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["parameters", "--markdown"]) == 0
    printed = capsys.readouterr().out
    assert printed == markdown_table()
    assert printed.count("\n") == len(SPECS) + 2
    readme = (ROOT / "README.md").read_text() if (ROOT / "README.md").is_file() else ""
    if "| parameter |" in readme:
        assert markdown_table().strip() in readme, (
            "the README's parameter table is out of date: run `dualview parameters --markdown`"
        )
