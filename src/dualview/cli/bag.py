"""Look into a recording (rosbag2 mcap or sqlite3, ROS 1 .bag), without ROS."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime

HELP = "what a recording holds, and whether it fits a rig"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`dualview bag info BAG [--rig RIG]`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    info = actions.add_parser("info", help="duration and topics of a recording")
    info.add_argument("bag", help=".mcap, .db3 or .bag file, or a rosbag2 folder")
    info.add_argument(
        "--rig",
        help="also say what the recording lacks for this rig (name or YAML file); exit status 1 if anything",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the table; 1 if a rig was given that doesn't fit completely."""
    from dualview.scene.bag_reader import BagReader, topic_table
    from dualview.scene.rig import load_rig

    with BagReader(arguments.bag) as bag:
        start = datetime.fromtimestamp(bag.start_ns / 1e9, tz=UTC)
        total = sum(topic.count for topic in bag.topics.values())
        print(f"{bag.path}: {bag.duration:.3f} s from {start:%Y-%m-%d %H:%M:%S} UTC, {total} messages")
        print(topic_table(bag))
        problems = bag.check_rig(load_rig(arguments.rig)) if arguments.rig else ()
        for problem in problems:
            print(f"rig {arguments.rig}: {problem}")
        if arguments.rig and not problems:
            print(f"rig {arguments.rig}: fits")
    return 1 if problems else 0
