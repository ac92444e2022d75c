"""Replays a small drive in a loop through a real node for minutes and measures whether anything grows.

    python tools/soak.py [--minutes 10] [--warm-up 2] [--bag DRIVE.mcap --rig NAME]

Prints the resident memory of the node over time and its slope after the warm-up (aim: below 1 MB a minute), threads and open files at the
beginning and the end, and what was published. Exit status 1 if the slope is too steep or the node stopped publishing.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "test" / "ros")]

import numpy as np  # noqa: E402
from ros_detector import save_smallest_detector  # noqa: E402
from ros_drive import Drive, rig_dict, write_rig  # noqa: E402

LIMIT = 1.0  # MB a minute


def process_size(pid: int) -> tuple[float, int, int]:
    """Resident MB, threads, open files."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]) / 1024, int(status["Threads"]), len(os.listdir(f"/proc/{pid}/fd"))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="after the warm-up")
    parser.add_argument("--warm-up", type=float, default=2.0, help="minutes")
    parser.add_argument("--bag", help="default: a drive of 10 s with six 320x180 cameras, made on the spot")
    parser.add_argument("--rig", help="rig of the bag (default synthetic)")
    parser.add_argument("--weights", help="default: the smallest detector with random weights")
    parser.add_argument("--rate", type=float, default=1.0)
    arguments = parser.parse_args()
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")

    from dualview.ros.environment import child_environment, prepare_this_process

    prepare_this_process()
    import rclpy
    from dualview.msg import BevMap, TrackedObject3DArray
    from rclpy.qos import qos_profile_sensor_data
    from visualization_msgs.msg import MarkerArray

    with tempfile.TemporaryDirectory() as folder:
        bag, rig = arguments.bag, arguments.rig or "synthetic"
        if bag is None:
            rig, bag = f"{folder}/rig.yaml", f"{folder}/drive.mcap"
            Drive(write_rig(Path(rig), rig_dict(6))).write(Path(bag), 100)
        weights = arguments.weights or str(save_smallest_detector(Path(folder) / "smallest.safetensors"))
        command, environment = (
            [sys.executable, "-m", "dualview"],
            child_environment({**os.environ, "OMP_NUM_THREADS": "1"}),
        )
        log = open(f"{folder}/node.log", "wb")
        node = subprocess.Popen([*command, "run", "--rig", rig, "--weights", weights, "--device", "cpu", "--use-sim-time", "--ros-args",
                                 "-p", "score_threshold:=0.0"], env=environment, stdout=log, stderr=log)  # fmt: skip
        player = subprocess.Popen(
            [*command, "replay", bag, "--rig", rig, "--loop", "--rate", str(arguments.rate)], env=environment
        )
        rclpy.init()
        listener = rclpy.create_node("soak")
        published, ids = [0], set()

        def count(message: TrackedObject3DArray) -> None:
            published[0] += 1
            ids.update(o.track_id for o in message.objects)

        listener.create_subscription(TrackedObject3DArray, "/dualview_node/tracks", count, 10)
        # somebody subscribes to everything, so that everything is made
        listener.create_subscription(MarkerArray, "/dualview_node/markers", lambda m: None, 10)
        listener.create_subscription(
            BevMap, "/dualview_node/bev/features", lambda m: None, qos_profile_sensor_data
        )
        samples: list[tuple[float, float]] = []
        begin = next_sample = time.monotonic()
        first: tuple[float, int, int] | None = None
        failed = ""
        try:
            while (minutes := (time.monotonic() - begin) / 60) < arguments.warm_up + arguments.minutes:
                rclpy.spin_once(listener, timeout_sec=0.2)
                if node.poll() is not None or player.poll() is not None:
                    failed = "a process ended early"
                    break
                if time.monotonic() >= next_sample:
                    next_sample += 5.0
                    size = process_size(node.pid)
                    if minutes >= arguments.warm_up:
                        first = first or size
                        samples.append((minutes, size[0]))
                    if round((minutes * 60) / 5) % 12 == 0:
                        print(
                            f"{minutes:5.1f} min  {size[0]:7.1f} MB  {size[1]} threads  {size[2]} files  {published[0]} frames",
                            flush=True,
                        )
            last = process_size(node.pid) if node.poll() is None else (0.0, 0, 0)
        finally:
            for process in (player, node):
                if process.poll() is None:
                    process.send_signal(signal.SIGINT)
                    process.wait(30)
            rclpy.shutdown()
            log.close()
        resets = Path(f"{folder}/node.log").read_text().count("memory was reset")
        times, sizes = np.array(samples).T if samples else (np.zeros(2), np.zeros(2))
        slope = float(np.polyfit(times, sizes, 1)[0]) if len(times) > 2 else float("nan")
        expected = 10 * 60 * (arguments.warm_up + arguments.minutes) * arguments.rate
        result = {
            "minutes": round(float(times[-1] - times[0]), 2), "rss_slope_mb_per_minute": round(slope, 3),
            "rss_mb": [round(first[0] if first else 0.0, 1), round(last[0], 1)], "rss_max_mb": round(float(sizes.max()), 1),
            "threads": [first[1] if first else 0, last[1]], "files": [first[2] if first else 0, last[2]],
            "frames_published": published[0], "frames_played_about": round(expected), "track_ids": len(ids),
            "highest_track_id": max(ids, default=-1), "resets": resets, "failed": failed,
        }  # fmt: skip
        print(json.dumps(result))
    return 0 if slope < LIMIT and published[0] > 0.3 * expected and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
