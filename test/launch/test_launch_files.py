"""Launch files: arguments, processes, and that everything they name exists."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import yaml
from launch_stand_in import ROOT, LaunchDescription, load_launch_file, text

from dualview.cli import build_parser
from dualview.ros.parameters import SPECS
from dualview.scene.rig import load_rig


def kinds(actions: list[Any]) -> list[str]:
    return [type(a).__name__ for a in actions]


@pytest.mark.parametrize("name", ["perception.launch.py", "replay.launch.py", "rviz.launch.py"])
def test_every_argument_is_described(name: str) -> None:
    _, description = load_launch_file(name)
    assert isinstance(description, LaunchDescription)
    assert all(len(a.description) > 5 for a in description.arguments().values())


def test_perception_starts_the_node_with_its_parameter_file() -> None:
    _, description = load_launch_file("perception.launch.py")
    assert {"rig", "weights", "device", "params_file", "namespace", "use_sim_time"} <= set(
        description.arguments()
    )
    (node,) = description.actions(
        rig="nuscenes", weights="dualview-r50", use_sim_time="true", namespace="vehicle"
    )
    assert (node.kwargs["package"], node.kwargs["executable"], node.kwargs["name"]) == (
        "dualview",
        "dualview_node",
        "dualview_node",
    )
    assert node.kwargs["namespace"] == "vehicle"
    file, given = node.kwargs["parameters"]
    assert given == {"rig": "nuscenes", "weights": "dualview-r50", "use_sim_time": True}
    assert set(given) - {"use_sim_time"} <= set(SPECS)
    assert Path(file) == ROOT / "config/dualview.yaml" and Path(file).is_file()
    assert node.kwargs["remappings"] == []


def test_perception_leaves_to_the_parameter_file_what_is_not_given() -> None:
    _, description = load_launch_file("perception.launch.py")
    (node,) = description.actions()
    assert node.kwargs["parameters"][1] == {"use_sim_time": False}


def test_remappings_come_from_the_rig_file() -> None:
    _, description = load_launch_file("perception.launch.py")
    (node,) = description.actions(rig="nuscenes", camera_namespace="/sensing")
    remapped = dict(node.kwargs["remappings"])
    rig = load_rig("nuscenes")
    assert len(remapped) == 12
    for camera in rig.cameras:
        assert remapped[camera.image_topic] == f"/sensing{camera.image_topic}"
        assert remapped[camera.camera_info_topic] == f"/sensing{camera.camera_info_topic}"
    with pytest.raises(RuntimeError, match="needs the argument rig"):
        description.actions(camera_namespace="/sensing")


def included(action: Any, description: LaunchDescription) -> tuple[Path, dict[str, str]]:
    """File and arguments of an IncludeLaunchDescription."""
    (source,) = action.args
    path = Path(text(source.args[0], description.context))
    return path, {name: text(value, description.context) for name, value in action.kwargs["launch_arguments"]}


def parsed(command: list[str]) -> argparse.Namespace:
    """Our own command line, as its parser understands it (an unknown option ends the test)."""
    assert command[0] == "dualview"
    return build_parser(command[1]).parse_args(command[1:])


def test_replay_starts_player_node_recorder_and_rviz() -> None:
    _, description = load_launch_file("replay.launch.py")
    with pytest.raises(AssertionError, match="argument 'bag' is required"):
        description.actions()
    actions = description.actions(
        bag="drive.mcap", rig="nuscenes", record="out.mcap", rviz="true", rate="0.5"
    )
    node, recorder, player, at_end, rviz = actions
    path, given = included(node, description)
    assert path.is_file() and path.name == "perception.launch.py"
    assert set(given) <= set(load_launch_file(path.name)[1].arguments())
    assert given["use_sim_time"] == "true" and given["rig"] == "nuscenes"
    record, play = parsed(recorder.kwargs["cmd"]), parsed(player.kwargs["cmd"])
    assert (
        record.use_sim_time and "/dualview_node/tracks" in record.topics and "/diagnostics" in record.topics
    )
    assert (str(play.bag), play.rate, play.rig, play.loop) == ("drive.mcap", 0.5, "nuscenes", False)
    assert at_end.args[0].kwargs["target_action"] is player
    path, given = included(rviz, description)
    assert path.is_file() and set(given) <= set(load_launch_file(path.name)[1].arguments())


def test_replay_without_recorder_and_rviz() -> None:
    _, description = load_launch_file("replay.launch.py")
    actions = description.actions(bag="drive.mcap", loop="true")
    assert kinds(actions) == ["IncludeLaunchDescription", "ExecuteProcess", "RegisterEventHandler"]
    assert parsed(actions[1].kwargs["cmd"]).loop


def test_rviz_opens_our_configuration() -> None:
    _, description = load_launch_file("rviz.launch.py")
    (node,) = description.actions(fixed_frame="map")
    config = Path(text(node.kwargs["arguments"][1], description.context))
    assert config.is_file() and "Visualization Manager" in yaml.safe_load(config.read_text())
    assert text(node.kwargs["arguments"][3], description.context) == "map"
