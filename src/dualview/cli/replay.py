"""Play a recording into ROS: its topics with their types, tf, and /clock, at a chosen rate, in a process of its own."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

HELP = "play a recording into ROS with /clock"
_LINGER = 0.5  # s at the end, so that the last messages leave before their publishers do


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("bag", type=Path, help="rosbag2 folder, .mcap, .db3 or ROS 1 .bag")
    parser.add_argument(
        "--rate", type=float, default=1.0, help="seconds of the recording a second (default 1)"
    )
    parser.add_argument("--rig", help="wait until a node takes this rig's image topics")
    parser.add_argument("--loop", action="store_true", help="begin again at the end, until stopped")
    parser.add_argument(
        "--start", type=float, default=0.0, metavar="S", help="begin so many seconds into the recording"
    )
    parser.add_argument("--duration", type=float, metavar="S", help="play so many seconds of the recording")
    parser.add_argument("--topics", nargs="+", default=[], help="play only these topics")
    parser.add_argument("--wait-for", nargs="+", default=[], metavar="TOPIC",
                        help="begin when these have subscribers (topics of others: publishers)")  # fmt: skip
    parser.add_argument(
        "--wait-timeout", type=float, default=60.0, metavar="S", help="give up waiting after (default 60)"
    )
    parser.add_argument(
        "--clock-hz", type=float, default=100.0, help="rate of /clock in wall time (default 100)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Play; returns 1 if what was to be waited for didn't come."""
    from dualview.errors import BagError, ConfigError
    from dualview.ros.process import plain_node, ros_process
    from dualview.scene.bag_reader import BagReader
    from dualview.scene.rig import load_rig

    if arguments.rate <= 0 or arguments.clock_hz <= 0:
        raise ConfigError("--rate and --clock-hz must be above 0")
    with BagReader(arguments.bag) as bag, ros_process(["dualview_replay"]) as stop:
        from dualview.ros.player import BagPlayer, PlaySettings

        awaited = list(arguments.wait_for)
        if arguments.rig:
            rig = load_rig(arguments.rig)
            bag.check_rig(rig)
            awaited += [camera.image_topic for camera in rig.cameras if camera.image_topic in bag.topics]
        settings = PlaySettings(
            rate=arguments.rate, loops=0 if arguments.loop else 1, start=arguments.start, duration=arguments.duration,
            clock_hz=arguments.clock_hz, topics=tuple(arguments.topics),
        )  # fmt: skip
        with plain_node("dualview_replay") as node:
            player = BagPlayer(node, bag, settings)
            for topic, why in player.report.skipped.items():
                print(f"not played: {topic}: {why}", file=sys.stderr)
            missing = player.wait_for(awaited, arguments.wait_timeout, stop)
            if missing and not stop():
                raise BagError(
                    f"nobody took {', '.join(missing)} within {arguments.wait_timeout:g} s: is the node running and configured, with "
                    "the same ROS_DOMAIN_ID?"
                )
            print(
                f"playing {arguments.bag} at rate {arguments.rate:g}: {len(player.topics)} topics, {bag.duration:.1f} s",
                flush=True,
            )
            report = player.play(stop)
            time.sleep(_LINGER)
            print(report.sentence(), flush=True)
    return 0
