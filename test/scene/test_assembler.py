"""The rules of frame assembly, each by the sentence that states it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualview.scene.assembler import AssemblerSettings, ClosedFrame, DroppedFrame, FrameAssembler
from dualview.scene.calibration import CameraCalibration
from dualview.scene.images import EncodedImage
from dualview.scene.rig import CameraSpec, Rig

MS = 1_000_000
START = 1_700_000_000_000 * MS
NAMES = ("front", "left", "right")
OFFSETS = {"front": 0, "left": -12, "right": 20}  # exposure relative to the anchor, ms


def pose(x: float) -> np.ndarray:
    matrix = np.eye(4)
    matrix[0, 3] = x
    return matrix


def make_assembler(names=NAMES, **overrides) -> FrameAssembler:
    rig = Rig("test", tuple(CameraSpec(n, f"/{n}/image", True, f"/{n}/camera_info", f"{n}_optical") for n in names))
    assembler = FrameAssembler(rig, AssemblerSettings(**overrides))
    for name in names:
        assembler.add_calibration(name, CameraCalibration(64, 48, np.array([[50, 0, 32], [0, 50, 24], [0, 0, 1.0]])))
        assembler.add_transform("base_link", f"{name}_optical", 0, pose(NAMES.index(name)), static=True)
    return assembler


def send_image(assembler: FrameAssembler, camera: str, ms: float) -> None:
    assembler.add_image(camera, EncodedImage(START + round(ms * MS), b"", "jpeg", True))


def send_pose(assembler: FrameAssembler, ms: float, x: float | None = None) -> None:
    """The vehicle drives 1 m per 100 ms along x unless told otherwise."""
    assembler.add_transform("odom", "base_link", START + round(ms * MS), pose(ms / 100 if x is None else x))


def drive(assembler: FrameAssembler, begin: int, end: int, dead: tuple[str, ...] = (), period: int = 100) -> list:
    """Everything of [begin, end) ms in order of its stamps; poses at every image's stamp and around."""
    events = []
    for t in range(begin, end, period):
        events += [(t + OFFSETS[n], n) for n in assembler._cameras if n not in dead]
    for stamp, camera in sorted(events):
        send_pose(assembler, stamp)
        send_image(assembler, camera, stamp)
    return assembler.take_closed()


def closed(results: list) -> list[ClosedFrame]:
    return [r for r in results if isinstance(r, ClosedFrame)]


def present(frame: ClosedFrame) -> set[str]:
    return {c.name for c in frame.cameras if c.image is not None}


def test_each_anchor_image_makes_a_frame_with_the_nearest_images_and_their_own_poses() -> None:
    frames = closed(drive(make_assembler(), 0, 500))
    assert [f.stamp_ns - START for f in frames] == [0, 100 * MS, 200 * MS, 300 * MS, 400 * MS]
    for i, frame in enumerate(frames[1:], 1):
        assert present(frame) == set(NAMES)
        for camera in frame.cameras:
            expected = 100 * i + OFFSETS[camera.name]
            assert camera.image.stamp_ns == START + expected * MS
            assert camera.world_from_ego[0, 3] == pytest.approx(expected / 100)
            assert camera.ego_from_camera[0, 3] == NAMES.index(camera.name)
        assert frame.world_from_ego[0, 3] == pytest.approx(i)


def test_the_order_of_arrival_does_not_change_the_frames() -> None:
    """Transport jitter below max_wait: the same frames, image by image."""
    stamps = [(t + OFFSETS[n], n) for t in range(0, 1000, 100) for n in NAMES]

    def frames_of(jitter: dict) -> list:
        assembler = make_assembler()
        for i in range(-1, 12):
            send_pose(assembler, i * 100)
        for stamp, camera in sorted(stamps, key=lambda s: s[0] + jitter[s]):
            send_image(assembler, camera, stamp)
        assembler.flush()
        return [(f.stamp_ns, [c.image and c.image.stamp_ns for c in f.cameras]) for f in closed(assembler.take_closed())]

    calm = frames_of(dict.fromkeys(stamps, 0))
    random = np.random.default_rng(0)
    for _ in range(30):
        # each camera's own order is kept, as every transport does
        delays = {n: random.uniform(0, 15) for n in NAMES}
        assert frames_of({s: delays[s[1]] for s in stamps}) == calm


def test_a_fast_camera_gives_its_nearest_image_even_if_an_older_one_was_near_enough() -> None:
    assembler = make_assembler(("front", "left"))
    for t in (-60, 0, 60):
        send_pose(assembler, t)
    for t in (-110, -60, -10):
        if t == -10:
            send_image(assembler, "front", 0)
            assert assembler.take_closed() == []  # left is due every 50 ms: the image at -60 will be beaten
        send_image(assembler, "left", t)
    (frame,) = assembler.take_closed()
    assert frame.cameras[1].image.stamp_ns == START - 10 * MS


def test_a_late_camera_is_waited_for_no_longer_than_max_wait_of_sensor_time() -> None:
    assembler = make_assembler(("front", "left"))
    drive(assembler, 0, 300)
    send_pose(assembler, 300)
    send_pose(assembler, 400)
    send_image(assembler, "front", 300)
    assert assembler.take_closed() == []
    send_image(assembler, "front", 400)
    (frame,) = assembler.take_closed()
    assert present(frame) == {"front"}
    assert frame.problems == {"left": "no image near the anchor"}


def test_a_silent_camera_is_named_not_waited_for_and_welcomed_back() -> None:
    assembler = make_assembler()
    drive(assembler, 0, 300)
    frames = closed(drive(assembler, 300, 1500, dead=("left",)))
    assert all(present(f) == {"front", "right"} for f in frames[1:])
    assert list(assembler.silent_cameras()) == ["left"]
    assert "silent for 1." in assembler.silent_cameras()["left"]
    send_pose(assembler, 1500)
    send_image(assembler, "front", 1500)
    send_pose(assembler, 1520)
    send_image(assembler, "right", 1520)
    assert len(assembler.take_closed()) >= 1  # closed by the right camera alone: nobody waits for left
    back = closed(drive(assembler, 1600, 2000))
    assert present(back[-1]) == set(NAMES)
    assert assembler.silent_cameras() == {}


def test_the_next_camera_takes_over_from_a_silent_anchor_and_gives_it_back() -> None:
    assembler = make_assembler()
    drive(assembler, 0, 300)
    without = closed(drive(assembler, 300, 2000, dead=("front",)))
    assert len(without) >= 10
    assert all("front" in f.problems for f in without[1:])
    gaps = np.diff([f.stamp_ns for f in without])
    assert (gaps == 100 * MS).all()
    again = closed(drive(assembler, 2000, 2500))
    assert again[-1].stamp_ns == START + 2400 * MS  # the anchor's own stamps again
    stamps = [f.stamp_ns for f in without + again]
    assert min(np.diff(stamps)) >= 60 * MS  # no instant twice


def test_all_cameras_but_one_dead_still_gives_frames() -> None:
    assembler = make_assembler()
    drive(assembler, 0, 300)
    frames = closed(drive(assembler, 300, 2000, dead=("front", "left")))
    assert len(frames) >= 10
    assert all(present(f) == {"right"} for f in frames[2:])


def test_fewer_than_min_cameras_is_a_drop_that_says_who_is_missing() -> None:
    assembler = make_assembler(min_cameras=2)
    drive(assembler, 0, 300)
    drops = [r for r in drive(assembler, 300, 2000, dead=("front", "left")) if isinstance(r, DroppedFrame)]
    assert drops and {d.kind for d in drops} == {"too few cameras"}
    assert "front: silent" in drops[-1].detail and "1 usable of 2 needed" in drops[-1].detail


def test_a_late_pose_is_waited_for_and_a_missing_one_drops_the_frame() -> None:
    assembler = make_assembler(("front",))
    send_pose(assembler, -100)
    send_image(assembler, "front", 0)
    assert assembler.take_closed() == []
    send_pose(assembler, 10)
    (frame,) = assembler.take_closed()
    assert frame.world_from_ego[0, 3] == pytest.approx(0.0)
    send_image(assembler, "front", 100)
    send_image(assembler, "front", 200)
    (drop,) = assembler.take_closed()
    assert (drop.kind, drop.stamp_ns) == ("no transform", START + 100 * MS)
    assert "'odom' -> 'base_link' is not known yet" in drop.detail
    assert assembler.counts["no transform"] == 1


def test_a_camera_without_mounting_is_masked_and_the_others_go_on() -> None:
    assembler = make_assembler(("front", "left"))
    assembler.transforms._edges.pop("left_optical")
    frames = closed(drive(assembler, 0, 300))
    assert present(frames[0]) == {"front"}
    assert "'left_optical' is not in the tree" in frames[0].problems["left"]


def test_a_camera_without_usable_calibration_is_masked_until_a_good_one_comes() -> None:
    assembler = make_assembler()
    good = assembler._cameras["left"].calibration
    assembler.reject_calibration("left", "camera_info holds numbers that are not finite")
    frames = closed(drive(assembler, 0, 300))
    assert frames[-1].problems == {"left": "camera_info holds numbers that are not finite"}
    assembler.add_calibration("left", good)
    assert present(closed(drive(assembler, 300, 500))[-1]) == set(NAMES)


def test_the_first_camera_info_may_come_after_its_image() -> None:
    """Live, topics don't arrive in the order of their stamps: the frame waits for a calibration as it does for a pose."""
    assembler = make_assembler(("front", "right"))
    assembler._cameras["right"].calibration = None
    assert drive(assembler, 0, 100) == []
    assembler.add_calibration("right", CameraCalibration(64, 48, np.array([[50, 0, 32], [0, 50, 24], [0, 0, 1.0]])))
    (frame,) = closed(assembler.take_closed())
    assert present(frame) == {"front", "right"}


def test_a_looped_recording_resets_once_and_loses_nothing_but_open_frames() -> None:
    assembler = make_assembler()
    first = closed(drive(assembler, 0, 3000))
    second = closed(drive(assembler, 0, 3000))
    assert [f.reset for f in first] == [None] * len(first)
    resets = [f.reset for f in second if f.reset]
    assert len(resets) == 1 and "time went back by 2.9" in resets[0]
    assert len(second) >= len(first) - 1


def test_old_images_that_arrive_after_the_step_back_do_not_disturb() -> None:
    assembler = make_assembler()
    drive(assembler, 0, 10_000)
    send_pose(assembler, -20)
    send_pose(assembler, 100)
    send_image(assembler, "front", 0)
    send_image(assembler, "right", 12)  # agrees with it
    send_image(assembler, "left", 9_988 + 100)  # was still on its way
    assert assembler.counts["image from before a time jump"] == 1
    frames = closed(drive(assembler, 100, 1000))
    assert len([f for f in frames if f.reset]) == 1


def test_a_jump_ahead_resets_and_a_single_wrong_stamp_does_not() -> None:
    assembler = make_assembler()
    drive(assembler, 0, 500)
    send_image(assembler, "left", 3_600_000)  # one image an hour ahead
    quiet = closed(drive(assembler, 500, 1000))
    assert quiet and all(f.reset is None and "left" not in f.problems for f in quiet[1:])
    jumped = closed(drive(assembler, 60_000, 60_500))
    assert "time jumped ahead by 59." in jumped[0].reset
    assert [f.reset for f in jumped[1:]] == [None] * (len(jumped) - 1)


@pytest.mark.parametrize("wrong", [-1e6, -3000, -200, 3_600_000])
def test_one_wrong_stamp_changes_nothing(wrong: float) -> None:
    calm, disturbed = make_assembler(), make_assembler()
    expected = [f.stamp_ns for f in closed([*drive(calm, 0, 500), *drive(calm, 500, 1500)])]
    frames = closed(drive(disturbed, 0, 500))
    send_image(disturbed, "left", int(500 + wrong))
    frames += closed(drive(disturbed, 500, 1500))
    assert [f.stamp_ns for f in frames] == expected
    assert all(f.reset is None and present(f) == set(NAMES) for f in frames[1:])
    assert disturbed.counts["image from another time"] == 1


@pytest.mark.parametrize("first", [0, 6])
@pytest.mark.parametrize("rate", [1, 3])
@pytest.mark.parametrize("ahead", [3_000, 3_600_000, -3_000])
def test_a_camera_whose_clock_is_wrong_does_not_disturb_the_others(ahead: int, rate: int, first: int) -> None:
    """first: the period in which it begins, 0 before all others. rate: its images in a period. It is named as one that gives none."""
    assembler = make_assembler()
    others = {n for n in NAMES if n != "left"}
    frames = []
    for i in range(40):
        send_pose(assembler, i * 100)
        for k in range(rate if i >= first else 0):
            send_image(assembler, "left", i * 100 + OFFSETS["left"] + ahead + k * 33)
        for name in others:
            send_image(assembler, name, i * 100 + OFFSETS[name])
        frames += closed(assembler.take_closed())
    assert len(frames) >= 37 and all(present(f) == others for f in frames)
    assert [f.reset for f in frames[1:]] == [None] * (len(frames) - 1)
    assert "left" in assembler.silent_cameras() or ahead < 0


def test_a_pause_of_all_cameras_longer_than_max_gap_resets() -> None:
    assembler = make_assembler(("front",))
    drive(assembler, 0, 500)
    after = closed(drive(assembler, 3_500, 4_000))
    assert after[0].reset is not None
    short = closed(drive(assembler, 5_000, 5_500))
    assert short[0].reset is None


def test_repeated_and_slightly_late_images_are_left_out_and_counted() -> None:
    assembler = make_assembler(("front",))
    drive(assembler, 0, 300)
    send_image(assembler, "front", 200)
    send_image(assembler, "front", 190)
    assert assembler.take_closed() == []
    assert assembler.counts["image out of order"] == 2


def test_min_interval_thins_a_fast_anchor() -> None:
    frames = closed(drive(make_assembler(("front",), min_interval=0.45), 0, 3000))
    assert np.diff([f.stamp_ns for f in frames]).tolist() == [500 * MS] * (len(frames) - 1)


def test_flush_closes_with_what_is_there() -> None:
    assembler = make_assembler()
    send_pose(assembler, -50)
    send_pose(assembler, 50)
    send_image(assembler, "front", 0)
    assert assembler.take_closed() == []
    assembler.flush()
    (frame,) = assembler.take_closed()
    assert present(frame) == {"front"}


def test_the_rig_file_may_carry_settings() -> None:
    rig = Rig("test", (CameraSpec("front", "/image", True),), assembler={"max_wait": 0.12})
    assert FrameAssembler(rig).settings.max_wait == 0.12
    assert AssemblerSettings.for_rig(rig, max_wait=0.2, max_skew=None).max_wait == 0.2


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.integers(-200, 20_000)), max_size=150))
@settings(max_examples=60, deadline=None)
def test_whatever_comes_nothing_grows_and_frames_stay_sane(images: list) -> None:
    """Any stamps in any order: buffers stay small, frames carry images within max_skew, time rises between resets."""
    assembler = make_assembler()
    for t in range(-400, 20_400, 400):
        send_pose(assembler, t)
    last = None
    for camera, ms in images:
        send_image(assembler, camera, ms)
        assert sum(len(c.images) for c in assembler._cameras.values()) <= 3 * 120
        for frame in closed(assembler.take_closed()):
            if frame.reset is None and last is not None:
                assert frame.stamp_ns > last
            last = frame.stamp_ns
            for part in frame.cameras:
                assert part.image is None or abs(part.image.stamp_ns - frame.stamp_ns) <= 60 * MS
