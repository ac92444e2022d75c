"""Markers: one of each kind a track, DELETE for what vanished, bounded trails."""

from __future__ import annotations

import torch
from visualization_msgs.msg import Marker

from dualview.geometry.boxes import Boxes3D
from dualview.ros.conversions import TrackSet
from dualview.ros.markers import NAMESPACES, MarkerMaker, class_colour

SECOND = 1_000_000_000


def show(maker: MarkerMaker, stamp: int, ids: list[int], frame: str = "odom"):
    count = len(ids)
    boxes = Boxes3D(
        torch.tensor([[float(i), stamp / SECOND, 0.0] for i in ids], dtype=torch.float64).reshape(count, 3), torch.ones(count, 3),
        torch.zeros(count), torch.tensor([[3.0, 4.0, 0.0]] * count).reshape(count, 3), torch.zeros(count, dtype=torch.int64),
        torch.full((count,), 0.5), torch.tensor(ids, dtype=torch.int64),
    )  # fmt: skip
    maker.follow(stamp, ids, boxes.center)
    zeros = torch.zeros(count, dtype=torch.int64)
    return maker.make(
        TrackSet(stamp, frame, boxes, zeros, zeros, [0.5] * count, ("car",), bytes(8)), "odom"
    ).markers


def test_a_track_has_box_heading_label_and_from_its_second_frame_a_trail() -> None:
    maker = MarkerMaker()
    assert [m.ns for m in show(maker, 0, [4])] == ["boxes", "headings", "labels"]
    markers = show(maker, SECOND // 10, [4])
    assert [m.ns for m in markers] == list(NAMESPACES)
    assert {m.id for m in markers} == {4} and {m.action for m in markers} == {Marker.ADD}
    assert markers[2].text == "4 car 5.0 m/s"
    assert markers[0].lifetime.sec == 1
    assert [p.y for p in markers[3].points] == [0.0, 0.1]


def test_what_vanished_is_deleted_once() -> None:
    maker = MarkerMaker()
    show(maker, 0, [1, 2])
    markers = show(maker, 1, [2])
    deleted = [(m.ns, m.id) for m in markers if m.action == Marker.DELETE]
    assert deleted == [("boxes", 1), ("headings", 1), ("labels", 1)]
    assert not [m for m in show(maker, 2, [2]) if m.action == Marker.DELETE]
    assert {m.ns for m in show(maker, 3, []) if m.action == Marker.DELETE} == set(NAMESPACES)


def test_trails_are_bounded_and_in_the_world_whatever_the_boxes_are_in() -> None:
    maker = MarkerMaker(trail_length=5)
    for i in range(50):
        markers = show(maker, i * SECOND // 10, [1], frame="base_link")
    box, trail = markers[0], markers[-1]
    assert box.header.frame_id == "base_link" and trail.header.frame_id == "odom"
    assert len(trail.points) == 5
    for i in range(200):
        show(maker, 5 * SECOND + i * SECOND, [100 + i])
    assert len(maker._trails) <= 3


def test_no_trails_if_none_are_wanted() -> None:
    maker = MarkerMaker(trail_length=0)
    show(maker, 0, [1])
    assert "trails" not in {m.ns for m in show(maker, 1, [1])}


def test_clear_removes_everything() -> None:
    maker = MarkerMaker()
    show(maker, 0, [1])
    (marker,) = maker.clear(1, "odom").markers
    assert marker.action == Marker.DELETEALL
    assert [m.action for m in show(maker, 2, [2])] == [Marker.ADD] * 3


def test_colours_are_fixed_by_class_name() -> None:
    assert class_colour("car") != class_colour("pedestrian")
    assert class_colour("my_class") == class_colour("my_class")
    assert all(0.0 <= c <= 1.0 for c in class_colour("anything"))
