"""The motion filter: the same numbers as a textbook Kalman filter, and what the tracker makes of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detector_frames import ego_pose
from hypothesis import given, settings
from hypothesis import strategies as st
from test_greedy_tracker import CLASSES, boxes, seen_at

from dualview.detectors.greedy_tracker import GreedyTrackingConfig, Tracks, track
from dualview.detectors.motion_filter import (
    Motion,
    MotionFilterConfig,
    accelerations,
    corrected,
    observed,
    predicted,
)

CONFIG = MotionFilterConfig(place_error=0.4, place_error_per_meter=0.02, velocity_error=1.5, velocity_error_again=2.5)
NAMES = (*CLASSES, "barrier")
FILTERED = GreedyTrackingConfig(motion=CONFIG)


class Textbook:
    """One axis, two numbers of state, matrices written out."""

    def __init__(self, place: float, velocity: float, noise: np.ndarray) -> None:
        self.mean, self.covariance = np.array([place, velocity]), noise.copy()

    def predict(self, seconds: float, acceleration: float) -> None:
        move = np.array([[1, seconds], [0, 1]])
        push = np.array([seconds**2 / 2, seconds])
        self.mean = move @ self.mean
        self.covariance = move @ self.covariance @ move.T + acceleration**2 * np.outer(push, push)

    def correct(self, measured: np.ndarray, noise: np.ndarray) -> None:
        gain = self.covariance @ np.linalg.inv(self.covariance + noise)
        self.mean = self.mean + gain @ (measured - self.mean)
        self.covariance = (np.eye(2) - gain) @ self.covariance


numbers = st.floats(-50, 50)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(numbers, numbers, st.floats(0.01, 2), st.floats(0, 80)), min_size=2, max_size=6), st.floats(0, 3))
def test_a_textbook_filter_says_the_same(steps, acceleration) -> None:
    motion = reference = None
    for place, velocity, seconds, distance in steps:
        both = torch.tensor([[place, -place]]), torch.tensor([[velocity, 1.0]])
        again = torch.tensor([motion is not None])
        seen = observed(*both, torch.tensor([distance]), torch.tensor([True]), again, CONFIG)
        noise = np.diag([(0.4 + 0.02 * distance) ** 2, (1.5 if motion is None else 2.5) ** 2])
        if motion is None or reference is None:
            motion, reference = seen, Textbook(place, velocity, noise)
            continue
        motion = corrected(predicted(motion, seconds, torch.tensor([acceleration])), seen)
        reference.predict(seconds, acceleration)
        reference.correct(np.array([place, velocity]), noise)
    assert motion is not None and reference is not None
    ours = [motion.place[0, 0], motion.velocity[0, 0]]
    np.testing.assert_allclose(ours, reference.mean, rtol=1e-4, atol=1e-4)
    covariance = [[motion.place_variance[0], motion.mixed[0]], [motion.mixed[0], motion.velocity_variance[0]]]
    np.testing.assert_allclose(covariance, reference.covariance, rtol=1e-5, atol=1e-8)


def followed(world, frames: int, wrong_velocity, config=FILTERED, gap: float = 0.5):
    """The last frame's tracks of world boxes whose velocities the network gets wrong, and the truth."""
    tracks = Tracks()
    for number in range(frames):
        seconds = gap * number
        truth = seen_at(world, seconds)
        turned = torch.as_tensor(wrong_velocity).double() @ ego_pose(seconds)[:3, :3]
        told = type(truth)(**{**vars(truth), "velocity": turned.expand_as(truth.velocity)})
        found, tracks = track(tracks, told, ego_pose(seconds), round(seconds * 1e9), NAMES, config)
    return found, tracks, truth


def test_places_correct_a_velocity_that_the_network_gets_wrong() -> None:
    world = boxes([[4020.0, 1010.0]], [[6.0, -2.0]], [0], [0.9])
    near = float(seen_at(world, 0.0).center.norm())
    assert near < 60  # m: its place is told well
    errors = []
    for frames in (1, 3, 8):
        found, _, truth = followed(world, frames, [0.0, 0.0, 0.0])
        errors.append(float((found.boxes.velocity - truth.velocity)[0].norm()))
        assert found.boxes.track_id.tolist() == [0]
    assert errors[0] == pytest.approx(40**0.5, rel=1e-4) and errors[1] < 0.5 * errors[0] and errors[2] < 0.2 * errors[0]


def test_what_cannot_move_stands_still() -> None:
    world = boxes([[4020.0, 1010.0]], [[0.0, 0.0]], [3], [0.9])
    found, _, _ = followed(world, 4, [3.0, 0.0, 0.0])
    assert float(found.boxes.velocity.norm()) < 1e-3
    assert accelerations(NAMES)[3] == 0 and accelerations(("tram",))[0] > 0


def test_reported_places_lie_between_what_was_detected_and_what_was_filtered() -> None:
    """An object that stands still, detected a metre off once: the filter follows in part."""
    world = boxes([[4020.0, 1010.0]], [[0.0, 0.0]], [0], [0.9])
    off = boxes([[4021.0, 1010.0]], [[0.0, 0.0]], [0], [0.9])
    places = []
    for smoothing in (0.0, 0.5, 1.0):
        motion = MotionFilterConfig(smoothing=smoothing)
        config = GreedyTrackingConfig(motion=motion)
        _, tracks, _ = followed(world, 6, [0.0, 0.0, 0.0], config)
        detected = seen_at(off, 3.0)
        found, following = track(tracks, detected, ego_pose(3.0), 3_000_000_000, NAMES, config)
        assert found.boxes.track_id.tolist() == [0] and following.motion is not None
        back = found.boxes.transformed(ego_pose(3.0).double())
        assert float(back.center[0, 1]) == pytest.approx(1010.0, abs=1e-3)
        places.append(float(back.center[0, 0]))
        if not smoothing:
            assert torch.equal(found.boxes.center, detected.center)
    assert places[0] == pytest.approx(4021.0, abs=1e-3) and 4020.0 < places[2] < 4020.8
    assert places[1] == pytest.approx((places[0] + places[2]) / 2, abs=1e-3)


def test_without_a_filter_the_network_is_believed() -> None:
    world = boxes([[4020.0, 1010.0]], [[0.0, 0.0]], [0], [0.9])
    found, tracks, _ = followed(world, 2, [1.0, 0.0, 0.0], GreedyTrackingConfig(gate_scale=4.0))
    assert float(found.boxes.velocity.norm()) == pytest.approx(1.0) and tracks.motion is None


def test_tracks_that_coast_keep_their_motion_and_ids() -> None:
    world = boxes([[4020.0, 1010.0], [4060.0, 1050.0]], [[6.0, 0.0], [0.0, 0.0]], [0, 0], [0.9, 0.8])
    found, tracks, _ = followed(world, 6, [0.0, 0.0, 0.0])
    hidden = seen_at(world, 3.0)[torch.tensor([1])]
    _, tracks = track(tracks, hidden, ego_pose(3.0), 3_000_000_000, NAMES, FILTERED)
    assert isinstance(tracks.motion, Motion) and len(tracks.motion.place) == len(tracks.boxes) == 2
    back, _ = track(tracks, seen_at(world, 3.5), ego_pose(3.5), 3_500_000_000, NAMES, FILTERED)
    assert back.boxes.track_id.tolist() == found.boxes.track_id.tolist()


def test_scores_grow_with_what_was_seen_before() -> None:
    config = GreedyTrackingConfig(persistence=2.0)
    world = boxes([[4020.0, 1010.0]], [[0.0, 0.0]], [0], [0.4])
    scores = [float(followed(world, frames, [0.0, 0, 0], config)[0].boxes.score) for frames in (1, 2, 3)]
    odds = [score / (1 - score) for score in scores]
    assert odds == pytest.approx([2 / 3, 2 / 3 * (1 + 2 * 0.4), 2 / 3 * (1 + 2 * scores[1])], rel=1e-5)


def test_tracks_come_best_score_first_whatever_the_detections_scored() -> None:
    config = GreedyTrackingConfig(persistence=4.0)
    old = boxes([[4020.0, 1010.0]], [[0.0, 0.0]], [0], [0.4])
    _, tracks = track(Tracks(), seen_at(old, 0.0), ego_pose(0.0), 0, NAMES, config)
    both = boxes([[4020.0, 1010.0], [4020.0, 1030.0]], [[0.0, 0.0], [0.0, 0.0]], [0, 0], [0.4, 0.5])
    found, _ = track(tracks, seen_at(both, 0.5), ego_pose(0.5), 500_000_000, NAMES, config)
    assert found.boxes.track_id.tolist() == [0, 1] and found.age.tolist() == [1, 0]
    assert found.boxes.score[0] > found.boxes.score[1]


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="place_error"):
        MotionFilterConfig(velocity_error=0.0)
    with pytest.raises(ValueError, match="smoothing"):
        MotionFilterConfig(smoothing=1.5)
    with pytest.raises(ValueError, match="persistence"):
        GreedyTrackingConfig(persistence=-1.0)
