"""The demo, step by step."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualview.demo.observer import RECORDED, Observer, observing
from dualview.demo.pace import Pace, measure_pace
from dualview.demo.processes import Child, ending_all, logs_of, ros_environment, wait_until
from dualview.demo.summary import summarize
from dualview.drawing.output import draw_strip, draw_video
from dualview.drawing.view import LabelledBoxes
from dualview.errors import DualViewError
from dualview.evaluation.metrics import compute_metrics, headline
from dualview.evaluation.protocol import Protocol
from dualview.evaluation.report import write_report
from dualview.evaluation.run import fitting_rig, label, recorded
from dualview.scene.assembler import FrameAssembler
from dualview.scene.bag_reader import BagReader
from dualview.scene.messages import AssemblerFeed
from dualview.scene.recorded import read_bev_images, read_tracks
from dualview.scene.rig import Rig

UNTRAINED_NOTE = "boxes are meaningless until you train or pass --weights"
_NODE_START_S, _RECORDER_START_S, _STALL_S, _SILENCE_S, _QUIET_S = 120.0, 40.0, 40.0, 15.0, 2.5


@dataclass(frozen=True)
class DemoSettings:
    """bag None: a synthetic drive of `seconds` s with `seed`. rate None: as fast as the machine can follow.

    score_threshold None: the checkpoint's own, or a low one for untrained weights.
    """

    bag: Path | None
    out: Path
    rig: str | None = None
    weights: str = "dualview-tiny"
    device: str = "auto"
    seed: int = 7
    seconds: float = 8.0
    rate: float | None = None
    score_threshold: float | None = None
    video: bool = True


def run_demo(settings: DemoSettings) -> dict[str, Any]:
    """Play, record, score, draw; returns the content of summary.json.

    Raises DualViewError that names what hung or failed, with the end of its log.
    """
    begin = time.monotonic()
    out = settings.out
    out.mkdir(parents=True, exist_ok=True)
    for old in ("output.mcap", "summary.json", "demo.mp4", "strip.png"):
        (out / old).unlink(missing_ok=True)
    bag = settings.bag or _synthesize(settings)
    rig = fitting_rig(bag, settings.rig)
    _say(f"measuring {settings.weights} on the first frames of {bag} (rig '{rig.name}')")
    pace = measure_pace(bag, rig, settings.weights, settings.device, settings.rate, settings.score_threshold)
    _say(pace.sentence())
    if pace.untrained:
        _say(
            f"weights: {pace.weights}: {UNTRAINED_NOTE}; the score threshold is {pace.score_threshold:g} so that there are some"
        )
    played = _play(settings, bag, rig, pace)
    _say("scoring")
    drive = recorded(bag, out / "output.mcap", rig)
    with BagReader(out / "output.mcap") as reader:
        tracks, bev_images = read_tracks(reader, rig), read_bev_images(reader)
    keyframes = label(drive, rig, Protocol())
    metrics, detection = compute_metrics([drive], keyframes, Protocol())
    summary = summarize(out / "output.mcap", tracks, pace.frames, pace.dropped, metrics, pace.weights)
    if pace.untrained:
        summary["weights_note"] = UNTRAINED_NOTE
    summary |= {"input": str(bag), "rig": rig.name, "rate": round(pace.rate, 3), "score_threshold": pace.score_threshold,
                "seconds": {"playing": round(played, 1)}}  # fmt: skip
    write_report(out / "report", metrics, detection, [drive], keyframes, rig, Protocol(), pictures=0)
    _say("drawing")
    views = {t.stamp_ns: LabelledBoxes(t.boxes, t.class_names) for t in tracks}
    options: dict[str, Any] = {"bev_images": bev_images, "subtitle": f"weights: {pace.weights}"}
    if settings.video:
        draw_video(
            out / "demo.mp4", bag, rig, views, progress=_counter("frames drawn", pace.frames), **options
        )
    draw_strip(out / "strip.png", bag, rig, views, 3, **options)
    summary["seconds"]["all"] = round(time.monotonic() - begin, 1)
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print(table(summary, metrics, out))
    return summary


def _synthesize(settings: DemoSettings) -> Path:
    """Make the default input by `dualview synth`, in a process of its own."""
    bag = settings.out / "input.mcap"
    bag.unlink(missing_ok=True)
    _say(f"making a synthetic drive of {settings.seconds:g} s (seed {settings.seed})")
    arguments = [
        "synth",
        str(bag),
        "--seed",
        str(settings.seed),
        "--seconds",
        str(settings.seconds),
        "--rig",
        settings.rig or "nuscenes",
    ]
    with ending_all() as children:
        child = Child("synthetic drive", arguments, settings.out / "logs" / "synth.log", dict(os.environ))
        children.append(child)
        wait_until(
            lambda: child.exit_status is not None, 60 + 60 * settings.seconds, "the synthetic drive", [child]
        )
        child.check()
    return bag


def _play(settings: DemoSettings, bag: Path, rig: Rig, pace: Pace) -> float:
    """player -> node -> recorder, each its own process; returns the seconds that playing took."""
    domain = random.SystemRandom().randint(1, 101)  # above, Fast DDS' ports meet those of other programs
    environment = ros_environment(domain)
    os.environ.update(
        {key: environment[key] for key in environment if os.environ.get(key) != environment[key]}
    )
    logs = settings.out / "logs"
    rig_argument = settings.rig or rig.name
    parameters = {} if pace.score_threshold is None else {"score_threshold": f"{pace.score_threshold:f}"}
    node_arguments = ["run", "--rig", rig_argument, "--weights", settings.weights, "--device", settings.device, "--use-sim-time",
                      "--ros-args", *(a for k, v in parameters.items() for a in ("-p", f"{k}:={v}"))]  # fmt: skip
    player_arguments = [
        "replay",
        str(bag),
        "--rig",
        rig_argument,
        "--rate",
        f"{pace.rate:.4f}",
        "--topics",
        *_topics(bag, rig),
    ]
    recorder_arguments = [
        "record",
        str(settings.out / "output.mcap"),
        *RECORDED,
        "--use-sim-time",
        "--overwrite",
        "--rig",
        rig_argument,
    ]
    with observing() as observer, ending_all() as children:
        _say(f"starting the node and the recorder (ROS_DOMAIN_ID {domain}, this machine only)")
        node = Child("node", node_arguments, logs / "node.log", environment)
        recorder = Child("recorder", recorder_arguments, logs / "recorder.log", environment)
        children += [node, recorder]
        wait_until(lambda: observer.says("state", "not configured:") or observer.says("frames", "waiting"), _NODE_START_S,
                   "the node to become active", children, observer.spin, observer.story)  # fmt: skip
        if observer.says("state", "not configured:"):
            raise DualViewError(f"the node can't start: {observer.statuses['state'][0]}")
        wait_until(
            observer.is_recorded,
            _RECORDER_START_S,
            "the recorder to join the node's topics",
            children,
            observer.spin,
        )
        player = Child("player", player_arguments, logs / "player.log", environment)
        children.append(player)
        begin = time.monotonic()
        _follow(observer, player, [node, recorder, player], pace)
        seconds = time.monotonic() - begin
        # the recorder ends first, while the node still tells its last counts
        if recorder.stop(30.0) not in (0, 1):
            raise DualViewError(
                f"the recorder didn't end in order; the end of {recorder.log}:\n{recorder.tail()}"
            )
        node.stop(30.0)
    if not (settings.out / "output.mcap").is_file():
        raise DualViewError(f"the recorder wrote no output; the end of {recorder.log}:\n{recorder.tail()}")
    return seconds


def _topics(bag: Path, rig: Rig) -> list[str]:
    """What the node needs of a recording."""
    with BagReader(bag) as reader:
        return [t for t in AssemblerFeed(rig, FrameAssembler(rig)).topics if t in reader.topics]


def _follow(observer: Observer, player: Child, children: list[Child], pace: Pace) -> None:
    """Wait for the player's end and the node's last frame, showing progress.

    Raises DualViewError when neither frames nor drops go on for longer than the machine could need, or when the node falls silent.
    """
    show = _counter("frames", pace.frames)
    patience = _STALL_S + 10 * pace.frame_ms / 1e3
    latest, progress, quiet_since = -1, time.monotonic(), None
    quiet = _QUIET_S + 4 * pace.frame_ms / 1e3
    while True:
        observer.spin(0.2)
        for child in children:
            child.check()
        now = time.monotonic()
        counts = observer.frame_counts()
        seen = len(observer.stamps) + sum(n for key, n in counts.items() if key.startswith("dropped"))
        if seen != latest:
            latest, progress, quiet_since = seen, now, None
            show(len(observer.stamps), f", {observer.last_boxes} boxes, {len(observer.track_ids)} ids so far")
        if player.exit_status is not None:
            quiet_since = now if quiet_since is None else quiet_since
            if seen >= pace.frames + sum(pace.dropped.values()) and now - quiet_since > 1.5:
                break
            if now - quiet_since > quiet:
                break
        elif now - progress > patience:
            raise DualViewError(
                f"no frame for {patience:.0f} s while the drive is played, after {len(observer.stamps)} frames. "
                f"The node says: {observer.story() or 'nothing'}\n{logs_of(children)}"
            )
        silence = now - observer.last_diagnostics
        if silence > _SILENCE_S:  # it speaks once a second even when it has nothing to do
            raise DualViewError(
                f"the node hangs: it has said nothing on /diagnostics for {silence:.0f} s, after "
                f"{len(observer.stamps)} frames\n{logs_of(children)}"
            )
    before = observer.diagnostics_count
    wait_until(
        lambda: observer.diagnostics_count >= before + 2,
        15.0,
        "the node's last diagnostics",
        children,
        observer.spin,
    )
    if sys.stderr.isatty():
        print(file=sys.stderr)


def _say(sentence: str) -> None:
    print(f"· {sentence}", flush=True)


def _counter(what: str, total: int) -> Callable[..., None]:
    """Shows "12/80 frames" on a terminal, and every quarter of the way elsewhere."""
    shown = [0]

    def show(done: int, more: str = "") -> None:
        if sys.stderr.isatty():
            print(
                f"\r  {done}/{total} {what}{more}   ",
                end="" if done < total else "\n",
                file=sys.stderr,
                flush=True,
            )
        elif done and done * 4 // max(total, 1) > shown[0]:
            shown[0] = done * 4 // max(total, 1)
            print(f"  {done}/{total} {what}{more}", flush=True)

    return show


def table(summary: dict[str, Any], metrics: dict[str, Any], out: Path) -> str:
    """The short table at the end."""
    dropped = ", ".join(f"{n} × {why}" for why, n in summary["frames_dropped"].items()) or "none"
    latency = summary["latency_ms"]
    stages = ", ".join(
        f"{s} {latency[s]['p50']:.0f}/{latency[s]['p95']:.0f}"
        for s in ("preprocess", "network", "publish")
        if s in latency
    )
    weights = summary["weights"] + (f": {summary['weights_note']}" if "weights_note" in summary else "")
    rows = [
        ("weights", weights),
        ("frames", f"{summary['frames_processed']} of {summary['frames_in']} processed; dropped: {dropped}"),
        ("tracks", f"{summary['tracks']} ids, {summary['boxes']} boxes"),
        ("latency p50/p95 ms", stages or "–"),
        *headline(metrics),
        ("recorded output", out / "output.mcap"),
        ("summary, report", f"{out / 'summary.json'}, {out / 'report' / 'report.md'}"),
        (
            "pictures",
            ", ".join(str(out / name) for name in ("demo.mp4", "strip.png") if (out / name).is_file()),
        ),
        (
            "took",
            f"{summary['seconds']['all']:.0f} s, of which {summary['seconds']['playing']:.0f} s playing at rate {summary['rate']:g}",
        ),
    ]
    width = max(len(str(name)) for name, _ in rows)
    return "\n".join(f"  {name:>{width}}  {value}" for name, value in rows)
