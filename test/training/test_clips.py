"""Which frame a slot sees when: in order, at 1 to 10 Hz, and nothing but the seed decides."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from dualview.errors import ConfigError
from dualview.training.clips import ClipSampler, slot_requests, walk
from dualview.training.drive_store import DriveSummary
from dualview.training.recipe_settings import ClipSettings


def drive(frames: int = 100, rate: float = 10.0, name: str = "a", labelled: bool = True) -> DriveSummary:
    stamps = (np.arange(frames) / rate * 1e9).astype(np.int64) + 10**18
    return DriveSummary(Path(name), name, stamps, np.full(frames, labelled), 6)


def gaps(settings: ClipSettings, drives: DriveSummary, seeds: int = 200) -> np.ndarray:
    found = []
    for seed in range(seeds):
        frames = walk(drives, np.random.default_rng(seed), settings)
        found.append(np.diff(drives.stamps[frames]) * 1e-9)
    return np.concatenate(found)


def test_clips_show_rates_from_one_to_ten_hertz_with_irregular_gaps() -> None:
    seen = np.abs(gaps(ClipSettings(), drive(400)))
    assert seen.min() == pytest.approx(0.1, abs=0.01) and 1.0 <= seen.max() <= 2.1
    assert len(np.unique(seen.round(1))) > 12
    assert np.abs(gaps(ClipSettings(min_rate=10, max_rate=10, skip_probability=0.0), drive())).max() < 0.11


def test_skips_drop_one_frame_half_of_the_time_on_slow_drives() -> None:
    """Keyframes at 2 Hz, as published: intervals of 0.5 and 1 s, 0.75 s on average."""
    seen = np.abs(gaps(ClipSettings(min_rate=9, max_rate=10), drive(100, 2.0)))
    assert set(seen.round(2)) == {0.5, 1.0}
    assert seen.mean() == pytest.approx(0.75, abs=0.02)


def test_some_clips_are_played_backwards() -> None:
    settings = ClipSettings(reverse_probability=0.3)
    signs = [np.sign(np.diff(walk(drive(), np.random.default_rng(s), settings))) for s in range(300)]
    assert all(len(set(s)) == 1 for s in signs if len(s))
    assert np.mean([s[0] < 0 for s in signs if len(s)]) == pytest.approx(0.3, abs=0.08)


def test_every_part_of_a_drive_is_seen_and_only_labelled_frames() -> None:
    summary = drive(300)
    summary.labelled[::2] = False
    seen = {
        f for s in range(300) for f in walk(summary, np.random.default_rng(s), ClipSettings(max_frames=20))
    }
    assert all(f % 2 for f in seen) and len(seen) == 150


@pytest.mark.parametrize(("max_frames", "least"), [(1, 0.6), (2, 0.5), (20, 0.4)])
def test_the_ends_of_a_drive_are_seen_too(max_frames: int, least: float) -> None:
    """Keyframes of a nuScenes scene: 40 at 2 Hz. least: how often the rarest frame comes, as a part of the commonest's times."""
    settings = ClipSettings(max_frames=max_frames, min_rate=2.0, skip_probability=0.0)
    seen = np.zeros(40)
    for seed in range(8000 // max_frames):
        clip = walk(drive(40, 2.0), np.random.default_rng(seed), settings)
        assert len(clip) == max_frames
        seen[clip] += 1
    assert seen.min() >= least * seen.max()


@pytest.mark.parametrize(("min_rate", "max_rate"), [(2.0, 10.0), (2.0, 2.0), (10.0, 10.0)])
def test_the_ends_of_a_fast_drive_are_seen_too(min_rate: float, max_rate: float) -> None:
    """Each frame labelled at 10 Hz; slower clips go by several frames at a time, and no phase of these is left out."""
    settings = ClipSettings(max_frames=10, min_rate=min_rate, max_rate=max_rate, skip_probability=0.0)
    seen, lengths = np.zeros(100), []
    for seed in range(2000):
        clip = walk(drive(100), np.random.default_rng(seed), settings)
        seen[clip] += 1
        lengths.append(len(clip))
    assert seen.min() >= 0.4 * seen.max() and np.mean(lengths) > 9.5


def test_each_round_walks_every_drive_once() -> None:
    drives = [drive(name=str(i)) for i in range(7)]
    slots = 3
    turns = []
    for slot in range(slots):
        clips: dict = {}
        for request in islice(slot_requests(drives, ClipSettings(max_frames=4), 5, slot, slots), 200):
            clips.setdefault(request.clip[2], request.drive)
        turns += [(number * slots + slot, d) for number, d in clips.items()]
    order = [d for _, d in sorted(turns)][:21]
    assert [sorted(order[i : i + 7]) for i in (0, 7, 14)] == [list(range(7))] * 3


def test_a_sampler_that_starts_late_yields_what_the_whole_one_would() -> None:
    drives = [drive(name=str(i)) for i in range(4)]
    whole = list(ClipSampler(drives, ClipSettings(), 3, 2, 60))
    assert list(ClipSampler(drives, ClipSettings(), 3, 2, 60, start=37)) == whole[37:]
    assert len(whole) == 60 and all(batch[0].first for batch in whole[:1])
    assert list(ClipSampler(drives, ClipSettings(), 4, 2, 60)) != whole


def test_two_processes_share_the_slots_of_one() -> None:
    drives = [drive(name=str(i)) for i in range(4)]
    whole = list(ClipSampler(drives, ClipSettings(), 3, 4, 30))
    parts = [list(ClipSampler(drives, ClipSettings(), 3, 2, 30, rank=rank, world=2)) for rank in range(2)]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole


def test_drives_without_labels_are_refused_with_a_sentence() -> None:
    with pytest.raises(ConfigError, match="annotated frame"):
        ClipSampler([drive(labelled=False)], ClipSettings(), 0, 1, 5)
