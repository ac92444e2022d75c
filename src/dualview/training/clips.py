"""Streaming clips: every slot of the batch walks one drive in order, then another (Sparse4D v2, arXiv
2305.14018, section 4.1).

Which frames a slot sees is a pure function of (seed, slot, number of the clip), so a run that was killed goes
on with the very batches that it would have had, and neither the number of workers nor of processes changes
what a slot sees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice

import numpy as np

from dualview.errors import ConfigError
from dualview.training.drive_store import DriveSummary
from dualview.training.recipe import ClipSettings

_JITTER = 0.25  # of the wanted interval: a frame that comes so much too early is taken


@dataclass(frozen=True)
class FrameRequest:
    """One frame of one slot. clip names the random draws of the whole clip; position counts its frames, 0 =
    nothing is remembered.
    """

    drive: int
    frame: int
    clip: tuple[int, int, int]  # (seed, slot, number)
    position: int

    @property
    def first(self) -> bool:
        """The slot starts a clip here: memory must be empty."""
        return self.position == 0

    def clip_random(self) -> np.random.Generator:
        """Draws that are the same for all frames of the clip."""
        return np.random.default_rng([*self.clip, 1])

    def corruption_random(self) -> np.random.Generator:
        """Draws of the clip's corruption, apart from its other draws, which stay what they are without it."""
        return np.random.default_rng([*self.clip, 4])

    def frame_random(self) -> np.random.Generator:
        """Draws of this frame alone."""
        return np.random.default_rng([*self.clip, 2, self.position])


def walk(drive: DriveSummary, random: np.random.Generator, settings: ClipSettings) -> list[int]:
    """The frames of one clip through a drive, in the order they are played; only labelled frames.

    The clip's rate is drawn first, then each step goes to the first frame that is about one interval on, and
    with `skip_probability` to the one that is two intervals on. Played backwards, the same frames come in
    falling order.
    """
    frames = np.flatnonzero(drive.labelled)
    if not len(frames):
        return []
    stamps = drive.stamps[frames] * 1e-9
    rate = float(np.exp(random.uniform(np.log(settings.min_rate), np.log(settings.max_rate))))
    backwards = random.uniform() < settings.reverse_probability
    interval = 1.0 / rate
    # The mean step is (1 + skip probability) intervals: begin so early that the clip is full, wherever in the
    # drive it lies.
    needed = settings.max_frames * interval * (1 + settings.skip_probability)
    latest = max(stamps[-1] - needed, stamps[0] + interval)
    begin = random.uniform(stamps[0], latest)
    chosen = [max(int(np.searchsorted(stamps, begin, side="right")) - 1, 0)]
    while len(chosen) < settings.max_frames:
        skipped = random.uniform() < settings.skip_probability
        wanted = stamps[chosen[-1]] + interval * (2 if skipped else 1) - _JITTER * interval
        following = max(int(np.searchsorted(stamps, wanted)), chosen[-1] + 1)
        if skipped:  # where the drive is slower than the clip's rate, leaving out means one frame
            following = max(following, chosen[-1] + 2)
        if following >= len(stamps):
            break
        chosen.append(following)
    played = chosen[::-1] if backwards else chosen
    return [int(frames[i]) for i in played]


def slot_requests(
    drives: Sequence[DriveSummary], settings: ClipSettings, seed: int, slot: int, slots: int
) -> Iterator[FrameRequest]:
    """The endless stream of one slot of `slots`: in each round through all drives, every drive is walked once
    by some slot.
    """
    order: dict[int, np.ndarray] = {}
    for number in count():
        turn = number * slots + slot
        lap = turn // len(drives)
        if lap not in order:
            order = {lap: np.random.default_rng([seed, 3, lap]).permutation(len(drives))}
        drive = int(order[lap][turn % len(drives)])
        clip = (seed, slot, number)
        for position, frame in enumerate(walk(drives[drive], np.random.default_rng([*clip, 0]), settings)):
            yield FrameRequest(drive, frame, clip, position)


class ClipSampler:
    """Batches of frame requests, one a slot; a `batch_sampler` for a DataLoader.

    Process `rank` of `world` has the slots rank * batch_size ... . It yields batch `start` first and ends
    before batch `total`, and says that it is `total` long: what was consumed before a restart counts.
    """

    def __init__(
        self,
        drives: Sequence[DriveSummary],
        settings: ClipSettings,
        seed: int,
        batch_size: int,
        total: int,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if not any(drive.labelled.any() for drive in drives):
            raise ConfigError(
                "none of the training drives has an annotated frame: check the rig's annotations_topic and class names "
                "with `dualview bag check`"
            )
        self._drives, self._settings, self._seed = drives, settings, seed
        self._batch_size, self._total, self._start = batch_size, total, start
        self._rank, self._world = rank, world

    def __len__(self) -> int:
        return self._total

    def __iter__(self) -> Iterator[list[FrameRequest]]:
        slots = self._batch_size * self._world
        mine = range(self._rank * self._batch_size, (self._rank + 1) * self._batch_size)
        streams = [slot_requests(self._drives, self._settings, self._seed, slot, slots) for slot in mine]
        batches = (list(batch) for batch in zip(*streams, strict=False))
        return islice(batches, self._start, self._total)
