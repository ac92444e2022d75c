"""Start dualview_node: the same node, parameter files and rig files as `ros2 launch dualview perception.launch.py`."""

from __future__ import annotations

import argparse

HELP = "start the node (where there is no ros2 launch)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--rig", help="rig: a name in config/rigs or a YAML file")
    parser.add_argument("--weights", help="a preset, a name in models/, or a .safetensors file")
    parser.add_argument("--device", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--params", action="append", default=[], metavar="FILE",
                        help="a ROS parameter file; may be given several times, the last wins")  # fmt: skip
    parser.add_argument("--namespace", help="namespace of the node")
    parser.add_argument("--use-sim-time", action="store_true", help="follow /clock")
    parser.add_argument(
        "--ros-args", nargs=argparse.REMAINDER, default=[], help="anything else for ROS, such as -r or -p"
    )


def ros_arguments(arguments: argparse.Namespace) -> list[str]:
    """The command line of the node that the arguments mean."""
    result = ["dualview_node", "--ros-args"]
    for file in arguments.params:
        result += ["--params-file", file]
    for name in ("rig", "weights", "device"):
        if getattr(arguments, name):
            result += ["-p", f"{name}:={getattr(arguments, name)}"]
    if arguments.use_sim_time:
        result += ["-p", "use_sim_time:=true"]
    if arguments.namespace:
        result += ["-r", f"__ns:=/{arguments.namespace.strip('/')}"]
    return result + [a for a in arguments.ros_args if a != "--ros-args"]


def run(arguments: argparse.Namespace) -> int:
    """Run the node until SIGINT or SIGTERM."""
    from dualview.ros.node import main

    return main(ros_arguments(arguments))
