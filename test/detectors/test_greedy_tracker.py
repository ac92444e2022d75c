"""The greedy tracker: identities under motion, births, deaths, and that no id comes twice."""

from __future__ import annotations

import pytest
import torch
from detector_frames import ego_pose
from hypothesis import given, settings
from hypothesis import strategies as st

from dualview.detectors.greedy_tracker import GATES, GreedyTrackingConfig, Tracks, in_ego, track
from dualview.geometry.boxes import Boxes3D
from dualview.geometry.rigid import invert_rigid

CLASSES = ("car", "pedestrian", "bicycle")
CONFIG = GreedyTrackingConfig()


def boxes(places, velocities, labels, scores) -> Boxes3D:
    count = len(labels)
    zeros = torch.zeros(count, 1, dtype=torch.float64)
    return Boxes3D(
        torch.cat([torch.as_tensor(places, dtype=torch.float64).view(count, 2), zeros], 1), torch.ones(count, 3),
        torch.zeros(count), torch.cat([torch.as_tensor(velocities, dtype=torch.float64).view(count, 2), zeros], 1),
        torch.as_tensor(labels, dtype=torch.int64), torch.as_tensor(scores, dtype=torch.float32),
        torch.full((count,), -1, dtype=torch.int64),
    )  # fmt: skip


def seen_at(world: Boxes3D, seconds: float) -> Boxes3D:
    """World boxes at constant velocity, as the vehicle sees them."""
    moved = Boxes3D(**{**vars(world), "center": world.center + seconds * world.velocity})
    return moved.transformed(invert_rigid(ego_pose(seconds)))


def step(tracks: Tracks, detections: Boxes3D, seconds: float):
    return track(tracks, detections, ego_pose(seconds), round(seconds * 1e9), CLASSES, CONFIG)


@st.composite
def scenes(draw):
    """Objects on a grid wide enough that no two of a class can be taken for one another."""
    count = draw(st.integers(1, 8))
    cells = draw(st.permutations(range(16)))[:count]
    speed = st.floats(-12, 12)
    return boxes(
        [[4000 + 60.0 * (c % 4), 1000 + 60.0 * (c // 4)] for c in cells],
        [[draw(speed), draw(speed)] for _ in cells],
        [draw(st.integers(0, 2)) for _ in cells],
        [draw(st.floats(0.1, 1)) for _ in cells],
    )


@settings(max_examples=30, deadline=None)
@given(scenes(), st.lists(st.floats(0.05, 0.6), min_size=2, max_size=6), st.randoms())
def test_ids_persist_under_constant_velocity(world, gaps, random) -> None:
    tracks, seconds, name_of, ages = Tracks(5), 0.0, {}, []
    for gap in gaps:
        order = list(range(len(world)))
        random.shuffle(order)
        found, tracks = step(tracks, seen_at(world[torch.tensor(order)], seconds), seconds)
        truth = seen_at(world, seconds)
        for place, identity in zip(found.boxes.center, found.boxes.track_id.tolist(), strict=True):
            which = int((truth.center - place).norm(dim=1).argmin())
            assert name_of.setdefault(identity, which) == which
        ages.append(found.age.unique().tolist())
        seconds += gap
    assert sorted(name_of) == list(range(5, 5 + len(world)))
    assert ages == [[i] for i in range(len(gaps))]
    assert tracks.next_track_id == 5 + len(world)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.floats(-40, 40), st.floats(-40, 40), st.integers(0, 2)), max_size=6), max_size=8
    )
)
def test_ids_are_unique_in_a_frame_and_never_given_twice(frames) -> None:
    tracks, born = Tracks(), set()
    for number, frame in enumerate(frames):
        detections = boxes(
            [f[:2] for f in frame], [[0, 0] for _ in frame], [f[2] for f in frame], [0.5] * len(frame)
        )
        before = tracks.next_track_id
        found, tracks = step(tracks, detections, 0.5 * number)
        ids = found.boxes.track_id.tolist()
        assert len(ids) == len(set(ids)) == len(frame)
        fresh = {i for i, age in zip(ids, found.age.tolist(), strict=True) if age == 0}
        assert fresh == set(range(before, tracks.next_track_id)) and not fresh & born
        assert {i for i in ids if i not in fresh} <= born
        born |= fresh


def test_an_object_that_is_hidden_for_a_while_keeps_its_id() -> None:
    world = boxes([[4020.0, 1010.0]], [[3.0, 1.0]], [0], [0.9])
    nothing = world[torch.zeros(0, dtype=torch.int64)]
    first, tracks = step(Tracks(), seen_at(world, 0.0), 0.0)
    for seconds in (0.5, 1.0, 1.5):
        hidden, tracks = step(tracks, nothing, seconds)
        assert not len(hidden.boxes) and len(tracks.boxes) == 1
        assert torch.allclose(
            in_ego(tracks, ego_pose(seconds)).center, seen_at(world, seconds).center, atol=1e-6
        )
    back, _ = step(tracks, seen_at(world, 1.6), 1.6)
    assert back.boxes.track_id.tolist() == first.boxes.track_id.tolist() and back.age.tolist() == [4]


def test_one_that_is_hidden_too_long_gets_another() -> None:
    world = boxes([[4020.0, 1010.0]], [[0.0, 0.0]], [0], [0.9])
    first, tracks = step(Tracks(), seen_at(world, 0.0), 0.0)
    _, tracks = step(tracks, world[torch.zeros(0, dtype=torch.int64)], 2.0)
    later, _ = step(tracks, seen_at(world, 2.5), 2.5)
    assert later.boxes.track_id.tolist() != first.boxes.track_id.tolist()


def test_gates_and_classes() -> None:
    def same(label: int, other: int, distance: float, gap: float = 0.5, config=CONFIG) -> bool:
        _, tracks = step(Tracks(), boxes([[0, 0]], [[0, 0]], [label], [1.0]), 0.0)
        pose = ego_pose(0.0)
        moved = boxes([[distance, 0]], [[0, 0]], [other], [1.0])
        found, _ = track(tracks, moved, pose, round(gap * 1e9), CLASSES, config)
        return found.boxes.track_id.tolist() == [0]

    for label, name in enumerate(CLASSES):
        assert same(label, label, GATES[name] - 0.01) and not same(label, label, GATES[name] + 0.01)
    assert not same(0, 1, 0.1)
    # A track of a moment ago is near.
    assert not same(0, 0, 2.0, gap=0.1) and same(0, 0, 0.9, gap=0.1)
    wider = GreedyTrackingConfig(gate_scale=1.5)
    assert same(0, 0, 5.9, config=wider) and not same(0, 0, 6.1, config=wider)
    with pytest.raises(ValueError, match="gate_scale > 0"):
        GreedyTrackingConfig(gate_scale=0.0)


def test_the_better_detection_chooses_first() -> None:
    _, tracks = step(Tracks(), boxes([[0, 0]], [[0, 0]], [0], [1.0]), 0.0)
    both = boxes([[1.0, 0], [0.5, 0]], [[0, 0], [0, 0]], [0, 0], [0.9, 0.3])
    found, _ = track(tracks, both, ego_pose(0.0), 500_000_000, CLASSES, CONFIG)
    assert found.boxes.track_id.tolist() == [0, 1]
