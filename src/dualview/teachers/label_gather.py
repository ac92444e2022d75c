"""The points of a whole drive, gathered into tiles of the street and into objects, by many processes.

A drive is cut into chunks of frames. Each chunk is gathered apart, in bounded memory, and is there as a whole or not at
all; then each tile and each object is joined from the chunks that know it. How many processes there are and how much
memory they have changes no number, since the chunks are always the same.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from dualview.teachers.cloud_store import CloudStore, by_tile, instance_name
from dualview.teachers.feature_cloud import FeatureCloud, join, merge, read_cloud, write_cloud
from dualview.teachers.lifted_file import read_lifted

CHUNK_FRAMES = 40  # what an interruption costs at most, in each process


@dataclass(frozen=True)
class GatherJob:
    """The lifted frames of the files `frames`, in order of time, into the clouds of `folder`. objects: whether movable
    objects are gathered. voxel: points nearer than this are merged, m. memory_bytes: for clouds that are held.
    """

    frames: tuple[Path, ...]
    folder: Path
    objects: bool
    voxel: float
    memory_bytes: int


def run_gather(job: GatherJob) -> Path:
    """Do it; `folder` appears when it is whole."""
    partial = job.folder.with_name(f"{job.folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    store = CloudStore(partial, job.voxel, job.memory_bytes)
    for path in job.frames:
        frame = read_lifted(path)
        for name, cloud in by_tile(frame.static):
            store.add(name, cloud)
        for instance, cloud in frame.instances.items() if job.objects else ():
            store.add(instance_name(instance), cloud)
    store.finish()
    os.replace(partial, job.folder)
    return job.folder


@dataclass(frozen=True)
class JoinJob:
    """One tile or object, from the files of the chunks that know it, in order of time -> `target`, in half precision."""

    parts: tuple[Path, ...]
    target: Path
    voxel: float


def run_join(job: JoinJob) -> Path:
    """Do it. One chunk after the other: a vehicle that stands for an hour sees the same tile in all of them."""
    cloud: FeatureCloud = read_cloud(job.parts[0])
    for part in job.parts[1:]:
        cloud = merge(join([cloud, read_cloud(part)]), job.voxel)
    write_cloud(job.target, cloud, half=True)
    return job.target
