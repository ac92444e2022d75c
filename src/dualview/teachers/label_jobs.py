"""The two pieces of label making that run in many processes: lifting one frame, and pooling one frame's map.

A job carries all that it needs (encoded images, sweeps, the boxes around), so the process that reads the
recording never decodes and the others never read. Each writes one file, whole or not at all.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import joblib
import torch
from torch import Tensor
from tqdm import tqdm

from dualview.geometry.bev_grid import BevGrid
from dualview.geometry.rigid import invert_rigid
from dualview.scene.assembler import ClosedFrame
from dualview.scene.calibration import CameraCalibration
from dualview.scene.frame import Annotations, SurroundFrame
from dualview.scene.keyframes import Keyframes
from dualview.scene.preprocess import ImagePreprocessor
from dualview.scene.recorded import LidarSweep
from dualview.teachers.bev_pooling import join_sums, pool_voxels, sum_voxels
from dualview.teachers.cloud_store import CloudCache, instance_name, tiles_around
from dualview.teachers.feature_basis import FeatureBasis
from dualview.teachers.feature_cloud import FeatureCloud
from dualview.teachers.image_teacher import ImageTeacher, TeacherChoice, open_teacher
from dualview.teachers.instances import instances_at
from dualview.teachers.label_store import write_label
from dualview.teachers.lifted_file import read_lifted, write_lifted
from dualview.teachers.lifting import LiftSettings, lift_frame
from dualview.teachers.multi_scale import EnsembleSettings, ensemble_features

_GPU_BATCH = 16

# Processes keep what is costly to open; all of it is read-only.
_teacher = lru_cache(maxsize=1)(open_teacher)
_preprocessor = lru_cache(maxsize=16)(ImagePreprocessor)
_clouds = CloudCache()


@lru_cache(maxsize=2)
def _basis(path: Path, written_ns: int) -> FeatureBasis:
    return FeatureBasis.load(path)


@dataclass(frozen=True)
class LiftJob:
    """Features of one instant's points -> `target`. annotations: the keyframes around, None if the recording
    has none. devices: of all processes together. basis: a file to project with, None for all channels.
    """

    target: Path
    closed: ClosedFrame
    sweeps: tuple[LidarSweep, ...]
    annotations: tuple[Annotations, ...] | None
    teacher: TeacherChoice
    devices: tuple[str, ...]
    long_side: int
    ensemble: EnsembleSettings
    lift: LiftSettings
    basis: Path | None


def run_lift(job: LiftJob) -> dict[str, str]:
    """Do it; returns the cameras whose images can't be used, with the reason."""
    device = own_device(job.devices)
    teacher = _teacher(job.teacher, device)
    frames, masked = whole_views(job.closed, job.long_side, teacher.stride)
    on_gpu = torch.device(device).type == "cuda"
    ensemble = replace(
        job.ensemble, batch=_GPU_BATCH if on_gpu else 1
    )  # a CPU's caches hold one crop at most

    def features_of(frame: SurroundFrame, camera: int) -> Tensor:
        return ensemble_features(teacher, teacher.normalize(frame.images[camera]), ensemble)

    keyframes = None if job.annotations is None else Keyframes(job.annotations)
    lifted = lift_frame(frames, job.sweeps, keyframes, features_of, teacher.channels, job.lift)
    write_lifted(
        job.target,
        lifted,
        None if job.basis is None else _basis(job.basis, job.basis.stat().st_mtime_ns).matrix,
    )
    return masked


def own_device(devices: Sequence[str]) -> str:
    """The one of `devices` that this process works on: joblib's processes are numbered from 1, the first process isn't."""
    number = multiprocessing.current_process().name.rpartition("-")[2]
    return devices[int(number) % len(devices) if number.isdigit() else 0]


def whole_views(closed: ClosedFrame, long_side: int, stride: int) -> tuple[list[SurroundFrame], dict[str, str]]:
    """The cameras of an instant, one frame for each, so that every image keeps its own proportions and is seen whole;
    and the cameras that are masked, with the reason.
    """
    frames, masked = [], dict(closed.problems)
    for camera in closed.cameras:
        if camera.calibration is not None:
            size = teacher_image_size(camera.calibration, long_side, stride)
            frame, problems = _preprocessor(size).build(replace(closed, cameras=(camera,)))
            frames.append(frame)
            masked |= problems
    return frames, masked


def teacher_image_size(calibration: CameraCalibration, long_side: int, stride: int) -> tuple[int, int]:
    """(height, width) px near `long_side` in the camera's proportions, whole patches."""
    scale = long_side / max(calibration.height, calibration.width)
    return tuple(max(round(n * scale / stride), 1) * stride for n in (calibration.height, calibration.width))  # type: ignore[return-value]


@dataclass(frozen=True)
class PoolJob:
    """One frame's map -> `folder`. source: a store of accumulated clouds, or the file of a lifted frame alone.
    movable: whether annotated objects are laid in. memory_bytes: for clouds that the next frames may need too.
    """

    folder: Path
    stamp_ns: int
    world_from_ego: Tensor
    annotations: tuple[Annotations, ...] | None
    source: Path
    movable: bool
    grid: BevGrid
    height: float
    channels: int
    memory_bytes: int


def run_pool(job: PoolJob) -> int:
    """Do it; returns the number of cells."""
    ego_from_world = invert_rigid(job.world_from_ego)
    sums = [sum_voxels(FeatureCloud.empty(job.channels), job.grid, job.height)]
    own = read_lifted(job.source) if job.source.is_file() else None
    for cloud in [own.static] if own is not None else _tiles(job):
        sums.append(sum_voxels(cloud.moved(ego_from_world), job.grid, job.height))
    instances = None
    if job.movable and job.annotations is not None:
        instances = instances_at(Keyframes(job.annotations), job.stamp_ns)
    for name, pose in (instances.known if instances is not None else {}).items():
        found = own.instances.get(name) if own is not None else _cloud(job, instance_name(name))
        if found is not None:
            moved = found.moved(ego_from_world @ pose.matrix())
            sums.append(sum_voxels(moved, job.grid, job.height))
    label = pool_voxels(join_sums(sums))
    write_label(job.folder, job.stamp_ns, label)
    return len(label)


def _tiles(job: PoolJob) -> Iterable[FeatureCloud]:
    grid = job.grid
    radius = max(abs(v) for v in (grid.x_min, grid.x_max, grid.y_min, grid.y_max)) * 2**0.5
    clouds = (_cloud(job, name) for name in tiles_around(job.world_from_ego[:3, 3], radius))
    return (cloud for cloud in clouds if cloud is not None)


def _cloud(job: PoolJob, name: str) -> FeatureCloud | None:
    path = job.source / f"{name}.safetensors"
    return _clouds.read(path, job.memory_bytes) if path.is_file() else None


def run_jobs(
    function: Callable[[Any], Any],
    jobs: Iterable[Any],
    workers: int,
    total: int,
    title: str,
    quiet: bool,
    unit: str = "frame",
) -> list[Any]:
    """What `function` returns of all jobs, in any order, done in `workers` processes (1: in this one), with a progress bar
    that counts `unit`s.

    Jobs are made as they are needed, at most two waiting for each process.
    """
    engine = joblib.Parallel(
        n_jobs=workers,
        return_as="generator_unordered",
        pre_dispatch="2*n_jobs",
        batch_size=1,
        max_nbytes=None,
    )
    results = engine(joblib.delayed(function)(job) for job in jobs)
    return list(tqdm(results, title, total, unit=unit, disable=quiet or None))


def shared_teacher(choice: TeacherChoice, device: str) -> ImageTeacher:
    """The teacher that jobs of this process use."""
    return _teacher(choice, device)
