"""summary.json: what went in, what came out, how long it took and how good it was, from the recorded messages alone."""

from __future__ import annotations

import os
import platform
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dualview
from dualview.evaluation.run import percentiles, read_latency
from dualview.resources import checkout_directory
from dualview.scene.bag_reader import BagReader
from dualview.scene.recorded import RecordedTracks

_SCORES = ("mAP", "NDS", "mATE", "mASE", "mAOE", "mAVE", "mAAE", "AMOTA", "AMOTP", "MOTA", "IDS", "keyframes",
           "keyframes_without_output", "present", "note")  # fmt: skip


def summarize(
    output: Path,
    tracks: list[RecordedTracks],
    frames: int,
    frames_without_pose: Mapping[str, int],
    metrics: Mapping[str, Any],
    weights: str,
) -> dict[str, Any]:
    """The content of summary.json.

    frames, frames_without_pose: what the recording holds when it is read directly. Reasons for dropped frames are those of the node's
    own last diagnostics; a frame that neither came out nor was counted by the node is "lost before the node".
    """
    with BagReader(output) as bag:
        latency = {stage: percentiles(values) for stage, values in read_latency(bag).items() if values}
        counts = last_frame_counts(bag)
    frames_in = frames + sum(frames_without_pose.values())
    dropped = {
        key.removeprefix("dropped: "): n for key, n in counts.items() if key.startswith("dropped: ") and n
    }
    rest = frames_in - len(tracks) - sum(dropped.values())
    if rest > 0:
        dropped["lost before the node"] = rest
    masked = Counter(camera for t in tracks for camera in t.missing_cameras)
    scores = {key: metrics[key] for key in _SCORES if key in metrics} if metrics["scored"] else None
    return {
        "frames_in": frames_in,
        "frames_processed": len(tracks),
        "frames_dropped": dropped,
        "frames_with_camera_masked": dict(masked),
        "tracks": len({int(i) for t in tracks for i in t.boxes.track_id.tolist()}),
        "boxes": sum(len(t.boxes) for t in tracks),
        "latency_ms": latency,
        "scores": scores,
        **({} if scores else {"scores_note": metrics.get("note", "")}),
        "weights": weights,
        "commit": commit(),
        "machine": machine(),
    }


def last_frame_counts(bag: BagReader) -> dict[str, int]:
    """The numbers of the last diagnostics of "frames" that a node sent; empty if none were recorded."""
    counts: dict[str, int] = {}
    for message in bag.messages(["/diagnostics"]):
        for status in message.message.status:
            if status.name.endswith(": frames"):
                counts = {v.key: int(v.value) for v in status.values if v.value.isdigit()}
    return counts


def commit() -> str:
    """The commit that runs, with "+changes" if the checkout differs from it; the version where there is no checkout."""
    root = checkout_directory()
    try:
        if root is None:
            raise OSError
        git = ["git", "-C", str(root)]
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True
        ).stdout
        return head + ("+changes" if changed.strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return f"version {dualview.__version__}"


def machine() -> dict[str, Any]:
    """What ran it."""
    import torch

    cpu = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (OSError, ValueError):
        memory = float("nan")
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(memory, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ros": os.environ.get("ROS_DISTRO", "wheels"),
    }
