"""Boxes land on their pixels, near boxes are cut and not folded over, pictures aren't blank, videos play."""

from __future__ import annotations

from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dualview.drawing import projection
from dualview.drawing.bev_picture import bev_picture
from dualview.drawing.camera_picture import camera_picture
from dualview.drawing.frame_picture import camera_rows, frame_picture
from dualview.drawing.palette import BACKGROUND, TRUTH, class_color
from dualview.drawing.recording import frames_per_second
from dualview.drawing.text import TextLayer
from dualview.drawing.video import VideoWriter, strip
from dualview.drawing.view import FrameView, LabelledBoxes, Trails
from dualview.errors import DualViewError
from dualview.geometry.boxes import Boxes3D
from dualview.scene.frame import SurroundFrame

HEIGHT, WIDTH, FOCAL = 120, 200, 100.0
# optical axes for a camera that looks along ego x: z forward, x right (-y), y down (-z)
LOOKING_FORWARD = torch.tensor([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]])


def turned(degrees: float) -> torch.Tensor:
    """Camera pose in the ego frame, looking `degrees` to the left of forward."""
    angle = torch.tensor(np.deg2rad(degrees))
    turn = torch.eye(4)
    turn[:2, :2] = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    return turn @ LOOKING_FORWARD


def surround_frame(*degrees: float, stamp_ns: int = 0) -> SurroundFrame:
    count = len(degrees)
    intrinsics = torch.tensor([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, 3] = torch.tensor([1000.0, 2000.0, 0.0])
    return SurroundFrame(
        stamp_ns=stamp_ns,
        images=torch.full((count, 3, HEIGHT, WIDTH), 90, dtype=torch.uint8),
        camera_stamps_ns=torch.zeros(count, dtype=torch.int64),
        intrinsics=intrinsics.expand(count, 3, 3),
        ego_from_camera=torch.stack([turned(d) for d in degrees]),
        world_from_ego=pose.expand(count, 4, 4),
        world_from_ego_anchor=pose,
        camera_mask=torch.ones(count, dtype=torch.bool),
        camera_names=tuple(f"cam_{int(d)}" for d in degrees),
    )


def box(
    x: float, y: float, z: float = 1.5, size=(4.0, 2.0, 1.6), yaw: float = 0.0, track_id: int = 7
) -> Boxes3D:
    return Boxes3D(
        torch.tensor([[x, y, z]], dtype=torch.float64), torch.tensor([size]), torch.tensor([yaw]),
        torch.tensor([[5.0, 0.0, 0.0]]), torch.tensor([0]), torch.tensor([0.8]), torch.tensor([track_id]),
    )  # fmt: skip


def car(*arguments, **options) -> LabelledBoxes:
    return LabelledBoxes(box(*arguments, **options), ("car",))


def test_corners_land_where_pinhole_geometry_says():
    frame = surround_frame(0)
    corners = projection.homogeneous_corners(box(12.0, 0.0), frame.image_from_ego_anchor()[0])[0]
    pixels = corners[:, :2] / corners[:, 2:]
    # near face 10 m ahead: half width 1 m -> 10 px, half height 0.8 m -> 8 px about the image centre
    near = pixels[[0, 2, 4, 6]]  # x = minus half
    assert np.allclose(sorted(near[:, 0]), [90, 90, 110, 110], atol=1e-4)
    assert np.allclose(sorted(near[:, 1]), [52, 52, 68, 68], atol=1e-4)
    assert corners[0, 2] == pytest.approx(10.0) and corners[1, 2] == pytest.approx(14.0)
    assert pixels[2, 0] < pixels[0, 0]  # y to the left is left in the image


def test_the_box_is_drawn_on_these_pixels_and_nowhere_else():
    view = FrameView(surround_frame(0), tracks=car(12.0, 0.0))
    picture = camera_picture(view, 0, TextLayer())
    changed = (picture != 90).any(-1)
    rows, columns = np.nonzero(changed)
    assert rows.min() in range(50, 53) and rows.max() in range(67, 70)
    assert columns.min() in range(88, 91) and columns.max() in range(109, 112)
    assert (np.abs(picture[60, 90].astype(int) - class_color("car")) < 60).all()  # left edge of the near face
    labels = camera_picture(FrameView(surround_frame(0), truth=car(12.0, 0.0)), 0, TextLayer())
    assert (labels[52, 95:105] > 160).any() and (labels[rows.min() - 3] == 90).all()
    assert (np.array(TRUTH) == 255).all()


def test_a_box_behind_the_camera_is_not_drawn():
    picture = camera_picture(FrameView(surround_frame(0), tracks=car(-12.0, 0.0)), 0, TextLayer())
    assert (picture == 90).all()


def test_a_box_beside_the_camera_is_cut_at_its_plane():
    corners = projection.homogeneous_corners(
        box(0.0, 3.0, size=(8.0, 2.0, 1.6)), surround_frame(0).image_from_ego_anchor()[0]
    )
    assert (corners[0, :, 2] < 0).any() and (corners[0, :, 2] > 0).any()
    edges, seen = projection.visible_edges(corners)
    assert seen[0].sum() == 8  # four edges cross the plane, four lie in front, four behind
    assert np.isfinite(edges[seen]).all()
    assert (edges[seen][..., 0] < WIDTH / 2).all()  # to the left, all of it: nothing folds over to the right
    face = projection.visible_face(corners[0])
    assert len(face) == 4 and (face[:, 0] < WIDTH / 2).all()
    assert len(projection.visible_face(corners[0], (0, 2, 6, 4))) == 0  # its back is behind us


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-30, 30), st.floats(-30, 30), st.floats(-3, 4), st.floats(-4, 4), st.floats(0.3, 12), st.floats(0.3, 4),
)  # fmt: skip
def test_visible_edges_are_in_front_of_the_camera_and_finite(x, y, z, yaw, length, width):
    corners = projection.homogeneous_corners(
        box(x, y, z, (length, width, 1.5), yaw), surround_frame(0).image_from_ego_anchor()[0]
    )
    edges, seen = projection.visible_edges(corners)
    assert np.isfinite(edges[seen]).all()
    assert seen.any() == bool((corners[..., 2] >= projection.NEAR).any())
    fully = (corners[0][np.array(projection.EDGES)][..., 2] >= projection.NEAR).all(-1)
    exact = corners[0][np.array(projection.EDGES)]
    assert np.allclose(edges[0][fully], exact[fully][..., :2] / exact[fully][..., 2:])


def test_no_boxes_at_all_and_boxes_that_are_not_numbers():
    empty = LabelledBoxes(Boxes3D.empty(), ("car",))
    broken = car(float("nan"), 0.0)
    for boxes in (empty, broken):
        picture = camera_picture(FrameView(surround_frame(0), tracks=boxes, truth=boxes), 0, TextLayer())
        assert (picture == 90).all()
    assert frame_picture(FrameView(surround_frame(0), tracks=empty)).std() > 0


def test_a_masked_camera_says_why():
    frame = replace(surround_frame(0), camera_mask=torch.tensor([False]))
    text = TextLayer()
    camera_picture(FrameView(frame, problems={"cam_0": "silent for 3.0 s"}), 0, text)
    assert "silent for 3.0 s" in [label.text for label in text.labels]


def test_from_above_forward_is_up_and_left_is_left():
    view = FrameView(surround_frame(0), tracks=car(20.0, 10.0))
    picture = bev_picture(view, 400, TextLayer(), reach=50.0)
    color = np.abs(picture.astype(int) - class_color("car")).sum(-1) < 40
    rows, columns = np.nonzero(color)
    assert rows.mean() == pytest.approx(400 * (50 - 20) / 100, abs=4)
    assert columns.mean() == pytest.approx(400 * (50 - 10) / 100, abs=4)


def test_from_above_shows_points_trails_and_the_networks_map():
    frame = surround_frame(0)
    plain = bev_picture(FrameView(frame), 200, TextLayer())
    points = np.array([[10.0, -20.0, 1.0]] * 3, dtype=np.float32)
    dotted = bev_picture(FrameView(frame, points=points), 200, TextLayer())
    at = ((2 * (50 - 10)), (2 * (50 + 20)))
    assert (
        dotted[at[0] - 1 : at[0] + 2, at[1] - 1 : at[1] + 2]
        != plain[at[0] - 1 : at[0] + 2, at[1] - 1 : at[1] + 2]
    ).any()
    trail = {7: np.array([[990.0, 2000.0], [1010.0, 2000.0]])}
    followed = bev_picture(FrameView(frame, tracks=car(10.0, 0.0), trails=trail), 200, TextLayer())
    assert (followed[115, 98:103] != plain[115, 98:103]).any()  # behind the vehicle, 7.5 m
    bev_map = np.zeros((8, 8, 3), np.uint8)
    bev_map[4, 7] = (250, 0, 0)  # farthest forward (right), in the middle
    inset = bev_picture(FrameView(frame, bev_image=bev_map), 200, TextLayer())
    rows, columns = np.nonzero((inset[..., 0] > 200) & (inset[..., 1] < 30))
    assert len(rows) and rows.max() < 194 - 40 + 8 and columns.min() > 154


def test_trails_follow_ids_in_the_world_and_forget():
    trails = Trails(seconds=1.0)
    pose = torch.eye(4, dtype=torch.float64)
    for step in range(5):
        frame = replace(surround_frame(0, stamp_ns=int(step * 0.3e9)), world_from_ego_anchor=pose.clone())
        trail = trails.follow(frame, box(10.0 + step, 0.0))
        pose[0, 3] += 1.0  # the vehicle moves: world positions go on by two metres a step
    assert np.allclose(trail[7][:, 0], [10 + 2, 10 + 4, 10 + 6, 10 + 8])  # the first is older than a second
    assert trails.follow(surround_frame(0, stamp_ns=0), box(1.0, 0.0))[7].shape == (1, 2)  # time went back


def test_cameras_are_laid_out_as_they_look():
    poses = surround_frame(180, 0, -110, 55, 110, -55).ego_from_camera
    assert camera_rows(poses) == [[3, 1, 5], [4, 0, 2]]
    assert camera_rows(surround_frame(0).ego_from_camera) == [[0]]
    assert camera_rows(surround_frame(90, -90, 0, 180).ego_from_camera) in (
        [[0, 2], [3, 1]],
        [[2, 1], [0, 3]],
    )


def test_a_whole_picture_has_every_camera_and_is_even():
    frame = surround_frame(0, -55, 55, 180, 110, -110)
    picture = frame_picture(FrameView(frame, tracks=car(12.0, 0.0), truth=car(12.3, 0.0), title="t = 0"))
    assert picture.shape[0] % 2 == 0 and picture.shape[1] % 2 == 0
    assert ((picture == 90).all(-1)).sum() > 0.8 * 6 * HEIGHT * WIDTH
    assert (picture == BACKGROUND).all(-1).any()


def test_a_video_holds_all_pictures_and_is_h264(tmp_path):
    path = tmp_path / "drive.mp4"
    with VideoWriter(path, 10.0) as video:
        for i in range(7):
            video.add(np.full((64, 96, 3), 30 * i, np.uint8))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
        frames = [f.to_ndarray(format="rgb24").mean() for f in container.decode(stream)]
        assert float(stream.average_rate) == 10.0
    assert np.allclose(frames, [30 * i for i in range(7)], atol=4)
    assert list(tmp_path.iterdir()) == [path]


def test_a_video_that_fails_leaves_nothing_behind(tmp_path):
    with pytest.raises(DualViewError, match="even"), VideoWriter(tmp_path / "drive.mp4") as video:
        video.add(np.zeros((63, 96, 3), np.uint8))
    assert not list(tmp_path.iterdir())


def test_a_strip_stacks_pictures():
    pictures = [np.full((10, 20, 3), v, np.uint8) for v in (10, 20, 30)]
    stacked = strip(pictures, gap=2)
    assert stacked.shape == (34, 20, 3) and stacked[0, 0, 0] == 10 and stacked[33, 0, 0] == 30
    with pytest.raises(ValueError):
        strip([])


def test_the_rate_of_a_looped_recording_is_that_of_one_pass():
    stamps = [10**18 + i * 50_000_000 for i in range(20)]
    assert frames_per_second(stamps * 3) == pytest.approx(20.0)
    assert frames_per_second([]) == frames_per_second([5, 5]) == 10.0
