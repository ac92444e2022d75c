"""Plays a recording through the node and records what it says.

    ros2 launch dualview replay.launch.py bag:=drive.mcap rig:=nuscenes record:=tracks.mcap rviz:=true

Player, node and recorder are separate processes, as on a vehicle; all ends when the recording does.
"""

from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

ARGUMENTS = {
    "rig": ("synthetic", "rig of the recording"),
    "weights": ("", "detector; empty: what params_file says"),
    "device": ("", "auto, cpu, cuda or cuda:N; empty: what params_file says"),
    "rate": ("1.0", "seconds of the recording a second"),
    "loop": ("false", "begin again at the end"),
    "record": ("", "file (.mcap) for the node's output; empty: don't record"),
    "rviz": ("false", "open RViz"),
    "fixed_frame": ("map", "RViz' fixed frame"),
}
RECORDED = ("tracks", "detections", "markers", "debug/latency", "bev/image")
_LAST_FRAMES = 3.0  # s for the node and the recorder to finish


def processes(context, *args, **kwargs):
    """Player and recorder, once the arguments have values."""
    value = {
        name: LaunchConfiguration(name).perform(context) for name in ("bag", "rig", "rate", "loop", "record")
    }
    play = [
        "dualview",
        "replay",
        value["bag"],
        "--rate",
        value["rate"],
        "--rig",
        value["rig"],
        "--wait-for",
        "/dualview_node/tracks",
    ]
    if value["loop"].lower() == "true":
        play.append("--loop")
    player = ExecuteProcess(cmd=play, name="dualview_replay", output="screen")
    finish = TimerAction(
        period=_LAST_FRAMES, actions=[EmitEvent(event=Shutdown(reason="the recording has ended"))]
    )
    actions = [player, RegisterEventHandler(OnProcessExit(target_action=player, on_exit=[finish]))]
    if value["record"]:
        topics = [f"/dualview_node/{topic}" for topic in RECORDED] + ["/diagnostics"]
        record = [
            "dualview",
            "record",
            value["record"],
            *topics,
            "--use-sim-time",
            "--overwrite",
            "--rig",
            value["rig"],
        ]
        actions.insert(0, ExecuteProcess(cmd=record, name="dualview_record", output="screen"))
    return actions


def rviz(context, *args, **kwargs):
    """RViz, if it was asked for."""
    if LaunchConfiguration("rviz").perform(context).lower() != "true":
        return []
    return [_include("rviz.launch.py", fixed_frame=LaunchConfiguration("fixed_frame"), use_sim_time="true")]


def _include(file, **arguments):
    source = PythonLaunchDescriptionSource(
        PathJoinSubstitution([FindPackageShare("dualview"), "launch", file])
    )
    return IncludeLaunchDescription(source, launch_arguments=list(arguments.items()))


def generate_launch_description() -> LaunchDescription:
    """What ros2 launch asks for."""
    default_file = PathJoinSubstitution([FindPackageShare("dualview"), "config", "dualview.yaml"])
    node_arguments = {name: LaunchConfiguration(name) for name in ("rig", "weights", "device", "params_file")}
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="recording: rosbag2 folder, .mcap, .db3 or ROS 1 .bag"),
            *[
                DeclareLaunchArgument(name, default_value=default, description=text)
                for name, (default, text) in ARGUMENTS.items()
            ],
            DeclareLaunchArgument(
                "params_file", default_value=default_file, description="parameters of the node"
            ),
            _include("perception.launch.py", use_sim_time="true", **node_arguments),
            OpaqueFunction(function=processes),
            OpaqueFunction(function=rviz),
        ]
    )
