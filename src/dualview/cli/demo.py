"""Play a drive through real ROS 2 processes (player -> node -> recorder), then score and draw what the node published."""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path

HELP = "play a drive through the node, then score and draw what came out"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "recording",
        nargs="?",
        type=Path,
        metavar="BAG",
        help="the drive (default: a synthetic one, made on the spot)",
    )
    parser.add_argument("--bag", type=Path, help="the same, as an option")
    parser.add_argument(
        "--rig", help="rig name or file (default: the known one whose cameras the recording has)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out/demo"),
        metavar="DIR",
        help="where results go (default out/demo)",
    )
    parser.add_argument(
        "--weights", default="dualview-tiny", help="a preset, a name in models/, or a .safetensors file"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--seed", type=int, default=12, help="of the synthetic drive (default %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="of the synthetic drive (default 8)")
    parser.add_argument(
        "--rate", type=float, help="seconds of the recording a second (default: what this machine can follow)"
    )
    parser.add_argument("--score-threshold", type=float,
                        help="tracks with a lower score aren't published (default: what the checkpoint says)")  # fmt: skip
    parser.add_argument("--no-video", action="store_true", help="only the picture strip")


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; returns 1 if the node put out nothing."""
    # Threads that wait for each other in a busy loop slow a shared machine down five- to tenfold; waiting asleep costs a
    # quiet one some 40 %. OpenMP reads this once, when PyTorch is loaded; the node inherits it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from dualview.demo.run import run_demo
    from dualview.demo.settings import DemoSettings
    from dualview.errors import ConfigError

    for number in (signal.SIGTERM, signal.SIGHUP):  # so that the processes that it started end with it
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    if arguments.recording and arguments.bag:
        raise ConfigError("the drive is named twice: give BAG or --bag BAG")
    settings = DemoSettings(
        bag=arguments.recording or arguments.bag, out=arguments.out, rig=arguments.rig, weights=arguments.weights,
        device=arguments.device, seed=arguments.seed, seconds=arguments.seconds, rate=arguments.rate,
        score_threshold=arguments.score_threshold, video=not arguments.no_video,
    )  # fmt: skip
    return 0 if run_demo(settings)["frames_processed"] else 1


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
