"""The demo, step by step."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from dualview.demo.pace import Pace, measure_pace
from dualview.demo.play import Played, play
from dualview.demo.processes import Child, ending_all, wait_until
from dualview.demo.settings import DemoSettings
from dualview.demo.summary import summarize
from dualview.demo.talk import counter, say
from dualview.drawing.output import draw_strip, draw_video
from dualview.drawing.view import LabelledBoxes
from dualview.evaluation.metrics import compute_metrics, headline
from dualview.evaluation.protocol import Protocol
from dualview.evaluation.report import write_report
from dualview.evaluation.run import fitting_rig, label, recorded
from dualview.scene.bag_reader import BagReader
from dualview.scene.recorded import read_bev_images, read_tracks
from dualview.scene.rig import Rig

DRAWN_SCORE = 0.2  # of trained weights: what scores lower is published and counted, but would only hide the pictures
UNTRAINED_NOTE = "boxes are meaningless until you train or pass --weights"


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
    say(f"measuring {settings.weights} on the first frames of {bag} (rig '{rig.name}')")
    pace = measure_pace(bag, rig, settings.weights, settings.device, settings.rate, settings.score_threshold)
    say(pace.sentence())
    if pace.untrained:
        say(
            f"weights: {pace.weights}: {UNTRAINED_NOTE}; the score threshold is {pace.score_threshold:g} so that there are some"
        )
    played, rates = _play_whole(settings, bag, rig, pace)
    say("scoring")
    drive = recorded(bag, out / "output.mcap", rig)
    with BagReader(out / "output.mcap") as reader:
        tracks, bev_images = read_tracks(reader, rig), read_bev_images(reader)
    keyframes = label(drive, rig, Protocol())
    metrics, detection = compute_metrics([drive], keyframes, Protocol())
    summary = summarize(out / "output.mcap", tracks, pace.frames, pace.dropped, metrics, pace.weights)
    if pace.untrained:
        summary["weights_note"] = UNTRAINED_NOTE
    summary |= {"input": str(bag), "rig": rig.name, "rate": rates[-1], "rates_tried": rates, "score_threshold": pace.score_threshold,
                "seconds": {"playing": round(played.seconds, 1)}}  # fmt: skip
    write_report(out / "report", metrics, detection, [drive], keyframes, rig, Protocol(), pictures=0)
    say("drawing")
    least = settings.score_threshold
    if least is None:
        least = 0.0 if pace.untrained else DRAWN_SCORE
    views = {t.stamp_ns: LabelledBoxes(t.boxes[t.boxes.score >= least], t.class_names) for t in tracks}
    shown = f"; drawn from score {least:g}" if least else ""
    options: dict[str, Any] = {"bev_images": bev_images, "subtitle": f"weights: {pace.weights}{shown}"}
    if settings.video:
        draw_video(
            out / "demo.mp4", bag, rig, views, progress=counter("frames drawn", pace.frames), **options
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
    say(f"making a synthetic drive of {settings.seconds:g} s (seed {settings.seed})")
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


def _play_whole(settings: DemoSettings, bag: Path, rig: Rig, pace: Pace) -> tuple[Played, list[float]]:
    """Play at the measured rate; where the node couldn't follow, again at half the rate, three times at most.

    Returns the last pass and the rates tried. A rate that was asked for is kept.
    """
    rates: list[float] = []
    while True:
        rates.append(round(pace.rate, 3))
        played = play(bag, rig, pace, settings)
        if played.too_fast == 0 or settings.rate is not None or len(rates) == 3:
            return played, rates
        say(f"{played.too_fast} frames came too fast for the node: playing again at half the rate")
        pace = replace(pace, rate=pace.rate / 2)


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
