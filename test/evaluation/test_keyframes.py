"""Which frame answers for which keyframe, and how boxes get to its stamp."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from evaluation_drives import drive
from hypothesis import given
from hypothesis import strategies as st

from dualview.evaluation.attributes import KNOWN_ATTRIBUTES, attribute_of
from dualview.evaluation.keyframes import match_stamps, pair, thin_out
from dualview.evaluation.run import percentiles, unique_names

MS = 1_000_000


def test_the_nearest_frame_within_the_tolerance_answers():
    frames = [0, 100 * MS, 200 * MS]
    assert match_stamps([4 * MS, 96 * MS, 151 * MS, 251 * MS, -60 * MS], frames, 0.05) == [
        0,
        1,
        2,
        None,
        None,
    ]
    assert match_stamps([5], [], 0.05) == [None]


@given(
    st.lists(st.integers(0, 10**10), max_size=20), st.lists(st.integers(0, 10**10), unique=True, max_size=20)
)
def test_no_other_frame_is_nearer(keyframes, frames):
    frames = sorted(frames)
    for stamp, match in zip(keyframes, match_stamps(keyframes, frames, 0.05), strict=True):
        nearest = min((abs(f - stamp) for f in frames), default=10**18)
        assert (match is None) == (nearest > 50 * MS)
        assert match is None or abs(frames[match] - stamp) == nearest


def test_boxes_are_carried_on_by_their_own_velocity_and_unknown_ones_stay():
    keyframe = drive(frames=1)[0]
    velocity = keyframe.prediction.boxes.velocity.clone()
    velocity[0] = float("nan")
    early = replace(
        keyframe.prediction,
        stamp_ns=keyframe.annotations.stamp_ns - 40 * MS,
        boxes=replace(keyframe.prediction.boxes, velocity=velocity),
    )
    paired = pair("d", [keyframe.annotations], [np.zeros(3)], [early], 0.05)[0]
    moved = paired.prediction.boxes.center - early.boxes.center
    assert paired.prediction.stamp_ns == keyframe.annotations.stamp_ns
    assert torch.allclose(moved[1:], 0.04 * velocity[1:].double()) and (moved[0] == 0).all()
    late = pair("d", [keyframe.annotations], [np.zeros(3)], [early], 0.03)[0]
    assert late.prediction is None


def test_keyframes_are_thinned_to_a_rate():
    annotations = [k.annotations for k in drive(frames=11, interval_s=0.1)]
    assert len(thin_out(annotations, 0.5)) == 3
    assert len(thin_out(annotations, 0.0)) == 11


def test_attributes_follow_class_and_speed():
    assert attribute_of("car", 0.1) == "vehicle.parked" and attribute_of("car", 0.3) == "vehicle.moving"
    assert (
        attribute_of("bicycle", 3.0) == "cycle.with_rider"
        and attribute_of("motorcycle", float("nan")) == "cycle.without_rider"
    )
    assert attribute_of("pedestrian", 1.0) == "pedestrian.moving" and attribute_of("barrier", 9.0) == ""
    assert {attribute_of(n, s) for n in ("car", "bicycle", "pedestrian") for s in (0, 1)} <= set(
        KNOWN_ATTRIBUTES
    )


def test_names_and_percentiles():
    assert list(unique_names(["a/x.mcap", "b/x.mcap", "y.mcap"])) == ["x", "x-2", "y"]
    assert percentiles(list(range(101))) == pytest.approx({"p50": 50.0, "p95": 95.0, "p99": 99.0})
