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
from math import ceil

import numpy as np

from dualview.errors import ConfigError
from dualview.training.drive_store import DriveSummary
from dualview.training.recipe_settings import ClipSettings

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
    chosen = [_begin(stamps, random, settings, interval)]
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


def _begin(stamps: np.ndarray, random: np.random.Generator, settings: ClipSettings, interval: float) -> int:
    """The frame a clip begins with. All frames of a drive are seen about equally often, its first and last ones too: a clip
    that would begin before the drive, or last beyond it, is moved inside, to any frame of the first step at that end.
    """
    spacing = max(float(np.median(np.diff(stamps))), 1e-6) if len(stamps) > 1 else interval
    # Frames of a step, and of one that leaves a frame out, as `walk` goes.
    step = max(ceil((1 - _JITTER) * interval / spacing), 1)
    longer = max(ceil((2 - _JITTER) * interval / spacing), 2)
    mean_step = step + settings.skip_probability * (longer - step)
    needed = (settings.max_frames - 1) * mean_step * spacing
    latest = int(np.searchsorted(stamps, stamps[-1] - needed - _JITTER * spacing))  # a clip from here on is full
    begin = int(random.integers(latest + 1 - len(stamps), len(stamps)))
    within_step = int(random.integers(step))
    if begin < 0:
        begin = within_step
    elif begin > latest:
        begin = latest + within_step
    return min(begin, len(stamps) - 1)


@dataclass(frozen=True)
class SlotPart:
    """Which drives a slot walks: indices of `drives`, that it shares with `slots` slots in all, of which it is number
    `place`. order: which random stream says in what order.
    """

    drives: tuple[int, ...]
    place: int
    slots: int
    order: int = 3


def slot_parts(drives: Sequence[DriveSummary], slots: int, share: float) -> list[SlotPart]:
    """The part of each of `slots` slots. Drives of which only 2D labels are used have slots of their own, `share` of all, spread evenly;
    so a slot never changes sides, and what it remembers is always of the same kind. Raises ConfigError as `target_slots`.
    """
    target = tuple(i for i, drive in enumerate(drives) if drive.only_2d)
    source = tuple(i for i, drive in enumerate(drives) if not drive.only_2d)
    if not target or not source:
        return [SlotPart(source or target, slot, slots) for slot in range(slots)]
    count = target_slots(share, slots)
    parts, places = [], {True: 0, False: 0}
    for slot in range(slots):
        mine = (slot + 1) * count // slots > slot * count // slots
        if mine:
            parts.append(SlotPart(target, places[mine], count, 5))
        else:
            parts.append(SlotPart(source, places[mine], slots - count))
        places[mine] += 1
    return parts


def target_slots(share: float, slots: int) -> int:
    """How many of `slots` slots walk the 2D-labelled drives. Raises ConfigError if one side would get none."""
    count = round(share * slots)
    if not 0 < count < slots:
        raise ConfigError(
            f"labels_2d.share {share:g} of {slots} slots (batch_size times devices) leaves {'none' if count == 0 else 'all'} to the "
            "2D-labelled drives: raise batch_size or change labels_2d.share"
        )
    return count


def slot_requests(
    drives: Sequence[DriveSummary],
    settings: ClipSettings,
    seed: int,
    slot: int,
    slots: int,
    part: SlotPart | None = None,
) -> Iterator[FrameRequest]:
    """The endless stream of one slot of `slots`: in each round through all drives, every drive is walked once
    by some slot. part: the drives that the slot walks (None: all).
    """
    part = part or SlotPart(tuple(range(len(drives))), slot, slots)
    order: dict[int, np.ndarray] = {}
    for number in count():
        turn = number * part.slots + part.place
        lap = turn // len(part.drives)
        if lap not in order:
            order = {lap: np.random.default_rng([seed, part.order, lap]).permutation(len(part.drives))}
        drive = part.drives[int(order[lap][turn % len(part.drives)])]
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
        share: float = 0.5,
    ) -> None:
        """share: of the slots that walk the drives of which only 2D labels are used, if there are others too. Raises ConfigError if there
        is nothing to walk, or one kind of drives gets no slot.
        """
        with_boxes = [drive for drive in drives if not drive.only_2d]
        if (with_boxes or not drives) and not any(drive.labelled.any() for drive in with_boxes):
            raise ConfigError(
                "none of the training drives has an annotated frame: check the rig's annotations_topic and class names "
                "with `dualview bag info`"
            )
        self._parts = slot_parts(drives, batch_size * world, share)
        self._drives, self._settings, self._seed = drives, settings, seed
        self._batch_size, self._total, self._start = batch_size, total, start
        self._rank, self._world = rank, world

    def __len__(self) -> int:
        return self._total

    def __iter__(self) -> Iterator[list[FrameRequest]]:
        slots = self._batch_size * self._world
        mine = range(self._rank * self._batch_size, (self._rank + 1) * self._batch_size)
        streams = [
            slot_requests(self._drives, self._settings, self._seed, slot, slots, self._parts[slot])
            for slot in mine
        ]
        batches = (list(batch) for batch in zip(*streams, strict=False))
        return islice(batches, self._start, self._total)
