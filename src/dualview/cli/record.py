"""Record topics into an .mcap file until stopped (SIGINT, SIGTERM, SIGHUP) or nothing has come for a while."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from pathlib import Path

HELP = "record topics into an .mcap file"
_DRAIN = 0.3  # s


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "out", type=Path, metavar="OUT.mcap", help="the recording; it appears when it is complete"
    )
    parser.add_argument(
        "topics", nargs="+", help="topics to record; each is joined when somebody publishes it"
    )
    parser.add_argument(
        "--idle-timeout",
        type=float,
        metavar="S",
        help="finish when nothing but /diagnostics and /rosout has come for so long after the first message",
    )
    parser.add_argument("--use-sim-time", action="store_true", help="log times follow /clock")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT.mcap if it exists")
    parser.add_argument("--rig", default="synthetic", help="rig to note in the recording (default synthetic)")


def run(arguments: argparse.Namespace) -> int:
    """Record; returns 1 if a topic never appeared or can't be recorded."""
    from dualview.ros.process import plain_node, ros_process
    from dualview.scene.bag_writer import BagWriter
    from dualview.scene.rig import load_rig

    with (
        BagWriter(arguments.out, load_rig(arguments.rig), arguments.overwrite, keep_incomplete=True) as writer,
        ros_process(["dualview_record"]) as stop,
        plain_node("dualview_record", arguments.use_sim_time) as node,
        contextlib.ExitStack() as ending,
    ):
        import rclpy

        from dualview.ros.recorder import BagRecorder

        recorder = BagRecorder(node, writer, arguments.topics)
        ending.callback(recorder.finish)
        executor = rclpy.executors.SingleThreadedExecutor()
        executor.add_node(node)
        next_discovery = 0.0
        while not stop():
            executor.spin_once(timeout_sec=0.1)
            now = time.monotonic()
            if now >= next_discovery:
                next_discovery = now + 0.2
                for topic in recorder.discover():
                    print(
                        f"recording {topic}"
                        if topic in recorder.recording
                        else f"{topic}: {recorder.refused[topic]}",
                        flush=True,
                    )
            idle = recorder.last_message is not None and now - recorder.last_message
            if arguments.idle_timeout and idle and idle > arguments.idle_timeout:
                break
        end = time.monotonic() + _DRAIN
        while time.monotonic() < end:  # what has arrived but wasn't taken yet
            executor.spin_once(timeout_sec=0.02)
        executor.shutdown()
        recorder.finish()
        counts = dict(writer.counts)
    print(
        f"{arguments.out}: {sum(counts.values())} messages; "
        + ", ".join(f"{t} {n}" for t, n in sorted(counts.items()))
    )
    for topic in recorder.waiting:
        print(f"{topic} was never published", file=sys.stderr)
    return 1 if recorder.waiting or recorder.refused else 0
