"""How long a frame spends in the node outside the network: six 1600x900 JPEG streams at 10 Hz through real processes over DDS.

    python tools/node_overhead.py [--weights NAME] [--seconds 20] [--one-core]

Prints the parts with their percentiles, from the node's own ~/debug/latency, and the processor time of the node. The default detector has
dualview-tiny's input size and very few channels: complete, random weights, and quick, so that frames don't wait for the network.
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

PARTS = ("age_at_arrival", "assemble", "preprocess", "network", "publish", "total")


def cpu_seconds(pid: int, thread: int | None = None) -> float:
    """User and system time so far of a process, or of one of its threads."""
    path = Path(f"/proc/{pid}/stat" if thread is None else f"/proc/{pid}/task/{thread}/stat")
    fields = path.read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", help="default: the narrow detector described above")
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.0,
        help="score_threshold; 0 publishes all instances of random weights",
    )
    parser.add_argument("--one-core", action="store_true", help="bind the node to one core")
    parser.add_argument(
        "--priority",
        action="store_true",
        help="run player and node before everything else (needs root): a busy machine",
    )
    arguments = parser.parse_args()
    if arguments.priority:
        os.nice(-15)  # inherited by the processes
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")

    from dualview.ros.environment import child_environment, prepare_this_process

    prepare_this_process()
    import rclpy
    from dualview.msg import Latency, TrackedObject3DArray
    from rclpy.qos import qos_profile_sensor_data

    with tempfile.TemporaryDirectory() as folder:
        rig_file, bag = Path(folder) / "rig.yaml", Path(folder) / "drive.mcap"
        drive = Drive(write_rig(rig_file, rig_dict(6)), size=(900, 1600))
        drive.write(bag, 10 * arguments.seconds)
        weights = arguments.weights or str(
            save_smallest_detector(Path(folder) / "narrow.safetensors", (128, 352))
        )
        command = [sys.executable, "-m", "dualview"]
        environment = child_environment({**os.environ, "OMP_NUM_THREADS": "1"})
        node_command = [*command, "run", "--rig", str(rig_file), "--weights", weights, "--device", "cpu", "--use-sim-time",
                        "--ros-args", "-p", f"score_threshold:={arguments.threshold}", "-p", "network_threads:=1"]  # fmt: skip
        if arguments.one_core:
            node_command = ["taskset", "-c", "0", *node_command]
        node_process = subprocess.Popen(node_command, env=environment)
        rclpy.init()
        listener = rclpy.create_node("overhead")
        stages: list[Latency] = []
        counts: list[int] = []
        name = "/dualview_node"
        listener.create_subscription(
            Latency, f"{name}/debug/latency", lambda m: stages.append(m), qos_profile_sensor_data
        )
        listener.create_subscription(
            TrackedObject3DArray, f"{name}/tracks", lambda m: counts.append(len(m.objects)), 10
        )
        player = None
        try:
            player = subprocess.Popen([*command, "replay", str(bag), "--rig", str(rig_file)], env=environment)
            while player.poll() is None and not stages:
                rclpy.spin_once(listener, timeout_sec=0.1)
            pid = node_process.pid
            begin, cpu, receiving = time.monotonic(), cpu_seconds(pid), cpu_seconds(pid, pid)
            first = len(stages)
            while player.poll() is None:
                rclpy.spin_once(listener, timeout_sec=0.1)
            seconds, cpu, receiving = (
                time.monotonic() - begin,
                cpu_seconds(pid) - cpu,
                cpu_seconds(pid, pid) - receiving,
            )
        finally:
            for process in (player, node_process):
                if process is not None and process.poll() is None:
                    process.send_signal(signal.SIGINT)
                    process.wait(30)
            rclpy.shutdown()
    frames = len(stages) - first
    table = {part: np.array([getattr(m, part) for m in stages[first:]]) for part in PARTS}
    table["outside the network"] = table["assemble"] + table["preprocess"] + table["publish"]
    print(
        f"{frames} of {10 * arguments.seconds} frames, {np.mean(counts):.0f} tracks each, load {os.getloadavg()[0]:.1f}"
    )
    print(f"{'ms':22s}{'p50':>8s}{'p95':>8s}{'p99':>8s}")
    for part, values in table.items():
        print(f"{part:22s}" + "".join(f"{np.percentile(values, p):8.1f}" for p in (50, 95, 99)))
    incoming = 10 * seconds
    print(f"processor time of the node: {cpu / seconds:.2f} cores, {1e3 * cpu / incoming:.1f} ms for each of 10 frames a second; of it "
          f"{1e3 * receiving / incoming:.1f} ms in the thread that receives and assembles")  # fmt: skip
    print(json.dumps({part: round(float(np.percentile(values, 95)), 2) for part, values in table.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
