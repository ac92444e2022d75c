"""Starts dualview_node.

    ros2 launch dualview perception.launch.py rig:=nuscenes weights:=dualview-tiny

The node's subscriptions come from the rig file. `camera_namespace:=NS` remaps every topic of the rig below /NS, for vehicles that put their
sensors into a namespace.
"""

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

ARGUMENTS = {
    "rig": ("", "rig: a name in config/rigs or a path to a YAML file; empty: what params_file says"),
    "weights": (
        "",
        "detector: a preset, a name in models/, or a path to a .safetensors file; empty: what params_file says",
    ),
    "device": ("", "auto, cpu, cuda or cuda:N; empty: what params_file says"),
    "namespace": ("", "namespace of the node"),
    "use_sim_time": ("false", "follow /clock, for recordings"),
    "camera_namespace": ("", "the rig's topics are below this namespace"),
    "log_level": ("info", "debug, info, warn, error"),
}


def topic_remappings(rig_name: str, camera_namespace: str) -> list[tuple[str, str]]:
    """(topic as the rig names it, topic of the vehicle) for every input of a rig."""
    from dualview.scene.rig import load_rig

    rig = load_rig(rig_name)
    topics = [t for camera in rig.cameras for t in (camera.image_topic, camera.camera_info_topic) if t]
    return [(topic, f"/{camera_namespace.strip('/')}/{topic.lstrip('/')}") for topic in topics]


def start_node(context, *args, **kwargs):
    """The node, once the arguments have values."""
    value = {name: LaunchConfiguration(name).perform(context) for name in (*ARGUMENTS, "params_file")}
    given = {name: value[name] for name in ("rig", "weights", "device") if value[name]}
    remappings = []
    if value["camera_namespace"]:
        if not value["rig"]:
            raise RuntimeError(
                "camera_namespace needs the argument rig as well: the topics to remap are the rig's"
            )
        remappings = topic_remappings(value["rig"], value["camera_namespace"])
    return [
        LifecycleNode(
            package="dualview",
            executable="dualview_node",
            name="dualview_node",
            namespace=value["namespace"],
            output="screen",
            parameters=[
                value["params_file"],
                {**given, "use_sim_time": value["use_sim_time"].lower() == "true"},
            ],
            remappings=remappings,
            arguments=["--ros-args", "--log-level", value["log_level"]],
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """What ros2 launch asks for."""
    default_file = PathJoinSubstitution([FindPackageShare("dualview"), "config", "dualview.yaml"])
    return LaunchDescription(
        [
            *[
                DeclareLaunchArgument(name, default_value=default, description=text)
                for name, (default, text) in ARGUMENTS.items()
            ],
            DeclareLaunchArgument(
                "params_file", default_value=default_file, description="parameters of the node"
            ),
            OpaqueFunction(function=start_node),
        ]
    )
