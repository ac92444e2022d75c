"""The first stage of label making: the features of many frames of a recording, and what of it couldn't be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dualview.errors import BagError
from dualview.scene.bag_reader import BagReader
from dualview.scene.recorded import LidarSweeps, read_transforms
from dualview.scene.rig import Rig
from dualview.teachers.label_jobs import LiftJob, run_jobs, run_lift
from dualview.teachers.label_plan import KeyframesAround, Plan, label_frames
from dualview.teachers.label_settings import LabelSettings
from dualview.teachers.lifted_file import has_points

_NOTABLE = 0.1  # of the sweeps: a few at the ends of a recording, before its first pose, are in every one


@dataclass(frozen=True)
class LabelEngine:
    """How the work is done, which changes no label: processes; devices ("cpu", "cuda:0", ...), one for each
    process; memory (bytes) of all processes for gathering and pooling; no bars if quiet.
    """

    workers: int = 1
    devices: tuple[str, ...] = ("cpu",)
    memory_bytes: int = 2_000_000_000
    quiet: bool = False
    tell: Callable[[str], None] = lambda line: None


def lift_frames(
    plan: Plan, around: KeyframesAround, folder: Path, stamps: Sequence[int], rig: Rig, settings: LabelSettings,
    basis: Path | None, engine: LabelEngine, title: str,
) -> None:  # fmt: skip
    """The features of the frames at `stamps` (ns) -> a file each in `folder`, those that aren't there yet.

    Sweeps and cameras that can't be used are told of. Raises BagError, with the reason, if no camera saw any point.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {stamp: folder / f"{stamp}.safetensors" for stamp in stamps}
    wanted = {stamp: path for stamp, path in paths.items() if not path.is_file()}
    losses = _lift(plan, around, wanted, rig, settings, basis, engine, title) if wanted else []
    if not any(has_points(path) for path in paths.values()):
        for path in paths.values():  # so that they are made anew when the cause is removed
            path.unlink()
        raise BagError(
            f"no camera of {plan.recording} sees any LiDAR point with rig '{rig.name}': {'; '.join(losses) or 'look at poses and stamps'} "
            f"(`dualview bag info --rig {rig.name}` says more)"
        )
    for line in losses:
        engine.tell(f"{plan.recording.name}: {line}")


def _lift(
    plan: Plan, around: KeyframesAround, wanted: dict[int, Path], rig: Rig, settings: LabelSettings, basis: Path | None,
    engine: LabelEngine, title: str,
) -> list[str]:  # fmt: skip
    """The files of `wanted` (stamp -> file); returns what couldn't be used, a sentence each."""
    with BagReader(plan.recording) as bag:
        sweeps = LidarSweeps(bag, rig, read_transforms(bag))
        jobs = _jobs(bag, sweeps, around, wanted, rig, settings, basis, engine)
        masked = run_jobs(run_lift, jobs, engine.workers, len(wanted), f"{title} {plan.recording.stem}", engine.quiet)
    losses = []
    if sweeps.left_out > _NOTABLE * sweeps.read:
        losses.append(f"{sweeps.left_out} of {sweeps.read} LiDAR sweeps can't be used ({sweeps.reason})")
    counts = Counter(camera for cameras in masked for camera in cameras)
    reasons = {camera: why for cameras in masked for camera, why in cameras.items()}
    losses += [f"{c}: {n} of {len(wanted)} images can't be used ({reasons[c]})" for c, n in sorted(counts.items())]
    return losses


def _jobs(
    bag: BagReader, sweeps: LidarSweeps, around: KeyframesAround, wanted: dict[int, Path], rig: Rig, settings: LabelSettings,
    basis: Path | None, engine: LabelEngine,
) -> Iterator[LiftJob]:  # fmt: skip
    """Jobs for the stamps of `wanted` (stamp -> file)."""
    for frame in label_frames(bag, rig, settings):
        if frame.stamp_ns in wanted:
            yield LiftJob(
                wanted[frame.stamp_ns], frame, tuple(sweeps.near(frame.stamp_ns)), around(frame.stamp_ns), settings.teacher,
                engine.devices, settings.teacher_side, settings.ensemble, settings.lift, basis,
            )  # fmt: skip
