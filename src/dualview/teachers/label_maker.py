"""Recordings -> label maps of a frozen image network's features (DualViewDistill, Sec. III-B).

For each recording: *scan* its frames (nothing decoded), *lift* features to LiDAR points, *gather* the points
of the whole drive into tiles of the street and into objects, *pool* a map for each frame. What a stage has
written is there after an interruption, and the next run goes on with what is missing. Memory is bounded: one
frame in each process, a fixed number of bytes of tiles and objects while gathering, single tiles while
pooling; what grows with the drive is on disk (and the boxes: about a kilobyte each keyframe and object).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dualview.errors import BagError
from dualview.scene.assembler import AssemblerSettings, ClosedFrame
from dualview.scene.bag_reader import BagReader
from dualview.scene.frame import Annotations
from dualview.scene.keyframes import Keyframes
from dualview.scene.offline import iterate_frames
from dualview.scene.recorded import LidarSweeps, read_transforms
from dualview.scene.rig import Rig
from dualview.teachers.cloud_store import CloudStore, by_tile, instance_name
from dualview.teachers.feature_basis import BasisFit, FeatureBasis
from dualview.teachers.feature_cloud import read_file
from dualview.teachers.image_teacher import ImageTeacher
from dualview.teachers.label_jobs import (
    LiftJob,
    PoolJob,
    read_lifted,
    run_jobs,
    run_lift,
    run_pool,
    shared_teacher,
    write_lifted,
)
from dualview.teachers.label_settings import LabelSettings, claim_folder
from dualview.teachers.label_store import BASIS_FILE, DRIVE_FILE, FORMAT, recording_key

_WORK = ".work"
_AROUND_NS = 1_500_000_000  # keyframes this near go with a job
_BASIS_FRAMES = 40


@dataclass(frozen=True)
class LabelEngine:
    """How the work is done, which changes no label: processes; devices ("cpu", "cuda:0", ...), which take
    turns; memory (bytes) for gathering; no bars if quiet.
    """

    workers: int = 1
    devices: tuple[str, ...] = ("cpu",)
    memory_bytes: int = 2_000_000_000
    quiet: bool = False
    tell: Callable[[str], None] = lambda line: None


@dataclass(frozen=True)
class _Plan:
    """The frames of one recording. stamps int64 [F], poses float64 [F, 4, 4] (world_from_ego): those that get
    a label; teacher bool [F]: those whose features are read.
    """

    recording: Path
    work: Path
    target: Path
    stamps: np.ndarray
    poses: np.ndarray
    teacher: np.ndarray
    annotations: list[Annotations]

    @property
    def teacher_stamps(self) -> list[int]:
        return self.stamps[self.teacher].tolist()

    def around(self, stamp_ns: int) -> tuple[Annotations, ...] | None:
        """The keyframes near an instant; None if the recording has none at all."""
        if not self.annotations:
            return None
        stamps = [a.stamp_ns for a in self.annotations]
        return tuple(
            self.annotations[
                bisect_left(stamps, stamp_ns - _AROUND_NS) : bisect_right(stamps, stamp_ns + _AROUND_NS)
            ]
        )


def make_label_maps(
    recordings: Sequence[Path], rig: Rig, settings: LabelSettings, directory: Path, engine: LabelEngine
) -> list[Path]:
    """The folders with the label maps of `recordings`, made now where they are missing.

    Raises ConfigError if `directory` holds other labels, WeightsError as `open_teacher` does, BagError if a
    recording can't be read, has no LiDAR, is being worked on by another process, or the disk is full; what is
    finished stays valid.
    """
    teacher = shared_teacher(settings.teacher, engine.devices[0])
    claim_folder(directory, settings, teacher)
    targets = [directory / recording_key(path) for path in recordings]
    missing = [(p, t) for p, t in zip(recordings, targets, strict=True) if not (t / DRIVE_FILE).is_file()]
    try:
        with contextlib.ExitStack() as locks:
            plans = []
            for path, target in missing:
                work = directory / _WORK / target.name
                locks.enter_context(_locked(work, path))
                plans.append(_scan(path, rig, settings, work, target, engine))
            if settings.components is not None and plans:
                _fit_basis(plans, rig, settings, directory, teacher, engine)
            for number, plan in enumerate(plans, 1):
                _label(plan, rig, settings, directory, teacher, engine)
                engine.tell(f"[{number}/{len(plans)}] {plan.recording.name}: {len(plan.stamps)} label maps")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BagError(
                f"no room left in {directory}: make room and start again; what is finished stays valid"
            ) from error
        raise
    with contextlib.suppress(OSError):  # another process may be at work in it
        (directory / _WORK).rmdir()
    return targets


@contextlib.contextmanager
def _locked(work: Path, recording: Path) -> Iterator[None]:
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BagError(
                f"another process makes the label maps of {recording.name} in {work.parents[1]}: wait until it has ended"
            ) from error
        yield


def _scan(
    path: Path, rig: Rig, settings: LabelSettings, work: Path, target: Path, engine: LabelEngine
) -> _Plan:
    """Which frames there are. With annotations, only those whose boxes are known."""
    with BagReader(path) as bag:
        if not any(topic in bag.topics for topic in rig.lidar_topics):
            raise BagError(
                f"{path} has none of the LiDAR topics of rig '{rig.name}' ({', '.join(rig.lidar_topics) or 'none'}): label maps need "
                "points; name another rig with --rig"
            )
        annotations = bag.annotations(rig)
        if not annotations:
            engine.tell(
                f"{path.name} has no boxes: moving objects will leave trails (--no-accumulation avoids them)"
            )
        frames = [(f.stamp_ns, f.world_from_ego) for f in _frames(bag, rig, settings)]
    keyframes = Keyframes(annotations)
    if annotations:
        frames = [f for f in frames if keyframes.at(f[0]) is not None]
    if not frames:
        raise BagError(f"{path} gave no frame with rig '{rig.name}': look at it with `dualview bag check`")
    stamps = np.array([stamp for stamp, _ in frames], np.int64)
    poses = np.stack([pose for _, pose in frames])
    step, last, teacher = 0.9e9 / settings.teacher_rate, -np.inf, np.zeros(len(stamps), bool)
    for i, stamp in enumerate(stamps):
        if stamp - last >= step:
            teacher[i], last = True, stamp
    if settings.accumulation == "none":
        stamps, poses, teacher = stamps[teacher], poses[teacher], teacher[teacher]
    return _Plan(path, work, target, stamps, poses, teacher, annotations)


def _frames(bag: BagReader, rig: Rig, settings: LabelSettings) -> Iterator[ClosedFrame]:
    own = AssemblerSettings.for_rig(rig)
    interval = max(own.min_interval, 0.9 / settings.label_rate)  # a tenth of slack for jitter, as in training
    spaced = AssemblerSettings.for_rig(rig, min_interval=interval)
    for frame in iterate_frames(bag, rig, spaced):
        if isinstance(frame, ClosedFrame) and any(c.image is not None for c in frame.cameras):
            yield frame


def _lift_jobs(
    plan: _Plan,
    wanted: dict[int, Path],
    rig: Rig,
    settings: LabelSettings,
    basis: Path | None,
    engine: LabelEngine,
) -> Iterator[LiftJob]:
    """Jobs for the stamps of `wanted` (stamp -> file)."""
    with BagReader(plan.recording) as bag:
        sweeps = LidarSweeps(bag, rig, read_transforms(bag))
        for number, frame in enumerate(f for f in _frames(bag, rig, settings) if f.stamp_ns in wanted):
            yield LiftJob(
                wanted[frame.stamp_ns], frame, tuple(sweeps.near(frame.stamp_ns)), plan.around(frame.stamp_ns),
                settings.teacher, engine.devices[number % len(engine.devices)], settings.teacher_side,
                settings.ensemble, settings.lift, basis,
            )  # fmt: skip


def _fit_basis(
    plans: Sequence[_Plan],
    rig: Rig,
    settings: LabelSettings,
    directory: Path,
    teacher: ImageTeacher,
    engine: LabelEngine,
) -> None:
    """The basis of the whole set, from frames spread over its first recordings; later ones take it over."""
    path = directory / BASIS_FILE
    if path.is_file():
        return
    assert settings.components is not None
    fit = BasisFit(teacher.channels)
    for plan in plans:
        share = max(_BASIS_FRAMES // len(plans), 1)
        stamps = plan.teacher_stamps
        picked = (
            [stamps[int((i + 0.5) * len(stamps) / share)] for i in range(share)]
            if len(stamps) > share
            else stamps
        )
        folder = plan.work / "sample"
        _lift(plan, folder, picked, rig, settings, None, engine, "sample")
        for stamp in picked:
            lifted = read_lifted(folder / f"{stamp}.safetensors")
            for cloud in (lifted.static, *lifted.instances.values()):
                fit.add(cloud.features)
    basis = fit.basis(settings.components)
    basis.save(path)
    engine.tell(f"{settings.components} components keep {float(basis.kept[-1]):.1%} of the squared norm")


def _lift(
    plan: _Plan, folder: Path, stamps: Sequence[int], rig: Rig, settings: LabelSettings, basis: Path | None,
    engine: LabelEngine, title: str,
) -> None:  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    paths = {stamp: folder / f"{stamp}.safetensors" for stamp in stamps}
    wanted = {stamp: path for stamp, path in paths.items() if not path.is_file()}
    if wanted:
        jobs = _lift_jobs(plan, wanted, rig, settings, basis, engine)
        run_jobs(run_lift, jobs, engine.workers, len(wanted), f"{title} {plan.recording.stem}", engine.quiet)


def _project_samples(plan: _Plan, lifted: Path, basis: Path | None) -> None:
    """Frames that the basis was made from needn't be seen by the teacher again."""
    samples = plan.work / "sample"
    if basis is None or not samples.is_dir():
        return
    lifted.mkdir(exist_ok=True)
    matrix = FeatureBasis.load(basis).matrix
    for path in sorted(samples.glob("[!.]*.safetensors")):
        if not (lifted / path.name).is_file():
            write_lifted(lifted / path.name, read_lifted(path), matrix)
    shutil.rmtree(samples)


def _label(
    plan: _Plan,
    rig: Rig,
    settings: LabelSettings,
    directory: Path,
    teacher: ImageTeacher,
    engine: LabelEngine,
) -> None:
    """All label maps of one recording."""
    lifted, maps = plan.work / "lifted", plan.work / "maps"
    basis = None if settings.components is None else directory / BASIS_FILE
    _project_samples(plan, lifted, basis)
    _lift(plan, lifted, plan.teacher_stamps, rig, settings, basis, engine, "lift")
    alone = settings.accumulation == "none"
    store = plan.work / "store"
    if not alone and not store.is_dir():
        _gather(plan, lifted, store, settings, engine)
    maps.mkdir(exist_ok=True)
    channels = settings.components or teacher.channels
    jobs = [
        PoolJob(
            maps, stamp, torch.from_numpy(pose), plan.around(stamp), lifted / f"{stamp}.safetensors" if alone else store,
            settings.accumulation != "static", settings.grid, settings.height, channels,
        )
        for stamp, pose in zip(plan.stamps.tolist(), plan.poses, strict=True)
        if not (maps / f"{stamp}.safetensors").is_file()
    ]  # fmt: skip
    run_jobs(run_pool, jobs, engine.workers, len(jobs), f"pool {plan.recording.stem}", engine.quiet)
    _finish(plan, rig, maps)


def _gather(plan: _Plan, lifted: Path, folder: Path, settings: LabelSettings, engine: LabelEngine) -> None:
    """The lifted frames, in order of time, into one store; it appears when it is whole."""
    partial = folder.with_name("store.partial")
    shutil.rmtree(partial, ignore_errors=True)
    store = CloudStore(partial, settings.lift.voxel, engine.memory_bytes)
    for stamp in plan.teacher_stamps:
        frame = read_lifted(lifted / f"{stamp}.safetensors")
        for name, cloud in by_tile(frame.static):
            store.add(name, cloud)
        for instance, cloud in frame.instances.items() if settings.accumulation == "full" else ():
            store.add(instance_name(instance), cloud)
    store.finish()
    os.replace(partial, folder)


def _finish(plan: _Plan, rig: Rig, maps: Path) -> None:
    """Say what the folder holds, and move it to its place."""
    info = {
        "format": FORMAT, "source": str(plan.recording), "rig": rig.name, "stamps": plan.stamps.tolist(),
        "teacher_stamps": plan.teacher_stamps,
    }  # fmt: skip
    (maps / DRIVE_FILE).write_text(json.dumps(info))
    shutil.rmtree(plan.target, ignore_errors=True)
    os.replace(maps, plan.target)
    shutil.rmtree(plan.work)


def label_statistics(folder: Path) -> Tensor:
    """int64 [F, 2]: occupied cells and bytes of each label map of a recording."""
    rows = [(len(read_file(p)["cells"]), p.stat().st_size) for p in sorted(folder.glob("*.safetensors"))]
    return torch.tensor(rows, dtype=torch.int64).view(-1, 2)
