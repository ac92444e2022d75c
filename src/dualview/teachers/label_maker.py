"""Recordings -> label maps of a frozen image network's features (DualViewDistill, Sec. III-B).

For each recording: *scan* its frames (nothing decoded), *lift* features to LiDAR points, *gather* the points
of the whole drive into tiles of the street and into objects, *pool* a map for each frame. What a stage has
written is there after an interruption, and the next run goes on with what is missing. Memory is bounded: one
frame in each process, and a fixed number of bytes of tiles and objects while gathering and pooling; what grows
with the drive is on disk, but for the boxes and poses of the recording that is being worked on.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dualview.errors import BagError, ConfigError, disk_is_full
from dualview.scene.bag_reader import BagReader
from dualview.scene.rig import Rig
from dualview.teachers.feature_basis import BasisFit, FeatureBasis
from dualview.teachers.feature_cloud import read_file
from dualview.teachers.folder_lock import FOLDER_LOCK, LOCK_FILE, WORK, is_held, locked
from dualview.teachers.image_teacher import ImageTeacher
from dualview.teachers.label_gather import CHUNK_FRAMES, GatherJob, JoinJob, run_gather, run_join
from dualview.teachers.label_jobs import PoolJob, run_jobs, run_pool, shared_teacher
from dualview.teachers.label_lift import LabelEngine, lift_frames
from dualview.teachers.label_plan import (
    KeyframesAround,
    Plan,
    begin_work,
    is_finished,
    rig_key,
    scan,
)
from dualview.teachers.label_settings import LabelSettings, claim_folder
from dualview.teachers.label_store import BASIS_FILE, DRIVE_FILE, FORMAT, recording_key
from dualview.teachers.lifted_file import read_lifted, write_lifted

_BASIS_FRAMES = 40


def make_label_maps(
    recordings: Sequence[Path], rig: Rig, settings: LabelSettings, directory: Path, engine: LabelEngine
) -> list[Path]:
    """The folders with the label maps of `recordings`, made now where they are missing.

    Raises ConfigError if `directory` holds other labels or some of another rig, or if the teacher has fewer channels than are to be
    kept, WeightsError as `open_teacher` does, BagError if a recording can't be read, has no LiDAR that the cameras see, is being
    worked on by another process, or the disk is full; what is finished stays valid.
    """
    teacher = shared_teacher(settings.teacher, engine.devices[0])
    if settings.components is not None and not 1 <= settings.components <= teacher.channels:
        raise ConfigError(f"{settings.teacher.name} has {teacher.channels} channels: --pca must be 1 to {teacher.channels}")
    claim_folder(directory, settings, teacher)
    targets = [directory / recording_key(path) for path in recordings]
    places = dict(zip(targets, recordings, strict=True))  # a recording that is named twice is labelled once
    missing = [(p, t) for t, p in places.items() if not is_finished(t, p, rig) or _is_left(directory / WORK / t.name)]
    try:
        with contextlib.ExitStack() as locks:
            plans = []
            for path, target in missing:
                work = directory / WORK / target.name
                locks.enter_context(_at_work(work, path))
                if is_finished(target, path, rig):  # by another process in the meantime, or stopped while it cleared up
                    shutil.rmtree(work)
                    continue
                begin_work(work, path, rig, engine.tell)
                plans.append(scan(path, rig, settings, work, target, engine.tell))
            if settings.components is not None and plans:
                _fit_basis(plans, rig, settings, directory, teacher, engine)
            for number, plan in enumerate(plans, 1):
                _label(plan, rig, settings, directory, teacher, engine)
                engine.tell(f"[{number}/{len(plans)}] {plan.recording.name}: {len(plan.stamps)} label maps")
    except OSError as error:
        if disk_is_full(error):
            raise BagError(
                f"no room left in {directory}: make room and start again; what is finished stays valid"
            ) from error
        raise
    with contextlib.suppress(OSError):  # another process may be at work in it
        (directory / WORK).rmdir()
    return targets


def _is_left(work: Path) -> bool:
    """Whether a process was stopped while it cleared up `work`, and none is about it."""
    return work.is_dir() and not is_held(work / LOCK_FILE)


@contextlib.contextmanager
def _at_work(work: Path, recording: Path) -> Iterator[None]:
    def refuse() -> None:
        raise BagError(
            f"another process makes the label maps of {recording.name} in {work.parents[1]}: wait until it has ended"
        )

    with locked(work / LOCK_FILE, refuse):
        yield


def _fit_basis(
    plans: Sequence[Plan],
    rig: Rig,
    settings: LabelSettings,
    directory: Path,
    teacher: ImageTeacher,
    engine: LabelEngine,
) -> None:
    """The basis of the whole set, from frames spread over its first recordings; later ones take it over, and so
    does another process that works on other recordings of the set at the same time.
    """
    path = directory / BASIS_FILE
    if path.is_file():
        return
    with locked(
        directory / FOLDER_LOCK, lambda: engine.tell(f"another process makes {path}: waiting for it")
    ):
        if not path.is_file():
            _fit_basis_alone(plans, path, rig, settings, teacher, engine)


def _fit_basis_alone(
    plans: Sequence[Plan],
    path: Path,
    rig: Rig,
    settings: LabelSettings,
    teacher: ImageTeacher,
    engine: LabelEngine,
) -> None:
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
        lift_frames(plan, _keyframes(plan, rig), folder, picked, rig, settings, None, engine, "sample")
        for stamp in picked:
            lifted = read_lifted(folder / f"{stamp}.safetensors")
            for cloud in (lifted.static, *lifted.instances.values()):
                fit.add(cloud.features)
    basis = fit.basis(settings.components)
    basis.save(path)
    engine.tell(f"{settings.components} components keep {float(basis.kept[-1]):.1%} of the squared norm")


def _keyframes(plan: Plan, rig: Rig) -> KeyframesAround:
    with BagReader(plan.recording) as bag:
        return KeyframesAround(bag, rig)


def _project_samples(plan: Plan, lifted: Path, basis: Path | None) -> None:
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
    plan: Plan,
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
    around = _keyframes(plan, rig)
    lift_frames(plan, around, lifted, plan.teacher_stamps, rig, settings, basis, engine, "lift")
    alone = settings.accumulation == "none"
    store = plan.work / "store"
    if not alone and not store.is_dir():
        _gather(plan, lifted, store, settings, engine)
    maps.mkdir(exist_ok=True)
    channels = settings.components or teacher.channels
    jobs = [
        PoolJob(
            maps, stamp, torch.from_numpy(pose), around(stamp), lifted / f"{stamp}.safetensors" if alone else store,
            settings.accumulation != "static", settings.grid, settings.height, channels,
            engine.memory_bytes // engine.workers,
        )
        for stamp, pose in zip(plan.stamps.tolist(), plan.poses, strict=True)
        if not (maps / f"{stamp}.safetensors").is_file()
    ]  # fmt: skip
    _run(run_pool, jobs, "pool", "frame", plan, engine)
    _finish(plan, rig, maps)


def _gather(plan: Plan, lifted: Path, folder: Path, settings: LabelSettings, engine: LabelEngine) -> None:
    """The lifted frames into one store, chunk by chunk; it appears when it is whole."""
    chunks, partial = plan.work / "chunks", folder.with_name("store.partial")
    chunks.mkdir(exist_ok=True)
    partial.mkdir(exist_ok=True)
    frames = [lifted / f"{stamp}.safetensors" for stamp in plan.teacher_stamps]
    objects, voxel = settings.accumulation == "full", settings.lift.voxel
    memory = engine.memory_bytes // engine.workers
    gather = [
        GatherJob(tuple(frames[i : i + CHUNK_FRAMES]), chunks / f"{i:08d}", objects, voxel, memory)
        for i in range(0, len(frames), CHUNK_FRAMES)
    ]
    _run(run_gather, [j for j in gather if not j.folder.is_dir()], "gather", "chunk", plan, engine)
    parts: dict[str, list[Path]] = {}
    for job in gather:
        for path in sorted(job.folder.glob("[!.]*.safetensors")):
            parts.setdefault(path.name, []).append(path)
    join = [JoinJob(tuple(known), partial / name, voxel) for name, known in parts.items()]
    _run(run_join, [j for j in join if not j.target.is_file()], "join", "cloud", plan, engine)
    os.replace(partial, folder)
    shutil.rmtree(chunks)


def _run(
    function: Callable[[Any], Any],
    jobs: Sequence[Any],
    title: str,
    unit: str,
    plan: Plan,
    engine: LabelEngine,
) -> None:
    run_jobs(function, jobs, engine.workers, len(jobs), f"{title} {plan.recording.stem}", engine.quiet, unit)


def _finish(plan: Plan, rig: Rig, maps: Path) -> None:
    """Say what the folder holds, and move it to its place."""
    info = {
        "format": FORMAT, "source": str(plan.recording), "rig": rig.name, "rig_key": rig_key(rig), "stamps": plan.stamps.tolist(),
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
