"""Opens RViz with boxes, ids, trails, cameras and the BEV picture.

ros2 launch dualview rviz.launch.py
"""

from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """What ros2 launch asks for."""
    config = PathJoinSubstitution([FindPackageShare("dualview"), "config", "rviz", "dualview.rviz"])
    return LaunchDescription(
        [
            DeclareLaunchArgument("rviz_config", default_value=config, description="RViz configuration"),
            DeclareLaunchArgument(
                "fixed_frame",
                default_value="odom",
                description="world frame: odom live, map in converted bags",
            ),
            DeclareLaunchArgument(
                "use_sim_time", default_value="false", description="follow /clock, for recordings"
            ),
            Node(
                package="rviz2",
                executable="rviz2",
                name="rviz2",
                output="screen",
                arguments=[
                    "-d",
                    LaunchConfiguration("rviz_config"),
                    "-f",
                    LaunchConfiguration("fixed_frame"),
                ],
                parameters=[
                    {"use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)}
                ],
            ),
        ]
    )
