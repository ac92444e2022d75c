"""A recording replayed through DDS and the same recording read directly give the same tracks, ids included."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from dualview.msg import TrackedObject3DArray
from ros_detector import save_smallest_detector, save_smallest_student
from ros_drive import Drive, rig_dict, write_rig
from ros_processes import Listener, Process, node_process, wait_until

import dualview
from dualview.detectors.session import TrackingSession
from dualview.scene.assembler import ClosedFrame
from dualview.scene.bag_reader import BagReader
from dualview.scene.messages import stamp_ns
from dualview.scene.offline import iterate_frames
from dualview.scene.rig import load_rig

FRAMES = 25
RATES = (0.5, 0.25, 0.1)  # the first that this machine follows without dropping a frame
Row = tuple  # (id, class, score, centre, size, velocity, age, cameras)


def offline_tracks(bag: Path, rig: Path, weights: Path) -> dict[int, list[Row]]:
    """Tracks by stamp from the recording itself, as evaluation reads it."""
    torch.set_num_threads(1)
    session = TrackingSession(dualview.load(weights, device="cpu", overrides={"score_threshold": 0.0}, precision="auto"))
    names = session.detector.config.class_names
    result: dict[int, list[Row]] = {}
    with BagReader(bag) as reader:
        for closed in iterate_frames(reader, load_rig(rig)):
            assert isinstance(closed, ClosedFrame)
            processed = session.process(closed)
            boxes = processed.output.tracks
            wide = type(boxes)(**{**vars(boxes), "center": boxes.center.double()}).transformed(
                processed.frame.world_from_ego_anchor
            )
            result[closed.stamp_ns] = [
                (i, names[label], score, tuple(c), tuple(s), tuple(v), age, cameras)
                for i, label, score, c, s, v, age, cameras in zip(
                    wide.track_id.tolist(), wide.label.tolist(), wide.score.tolist(), wide.center.tolist(), wide.size.tolist(),
                    wide.velocity.tolist(), processed.output.age.tolist(), processed.output.camera_count.tolist(), strict=True)
            ]  # fmt: skip
    return result


def live_rows(message: TrackedObject3DArray) -> list[Row]:
    rows = []
    for o in message.objects:
        p = o.pose.pose.position
        rows.append((o.track_id, o.class_name, o.score, (p.x, p.y, p.z), (o.size.x, o.size.y, o.size.z),
                     (o.velocity.x, o.velocity.y, o.velocity.z), o.age, o.camera_count))  # fmt: skip
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("save", [save_smallest_detector, save_smallest_student])
def test_replay_through_ros_equals_reading_the_recording(
    tmp_path: Path, save: Callable[[Path], Path], listener: Listener
) -> None:
    weights = save(tmp_path / "weights.safetensors")
    rig_file = tmp_path / "rig.yaml"
    bag = Drive(write_rig(rig_file, rig_dict(6))).write(tmp_path / "drive.mcap", FRAMES)
    expected = offline_tracks(bag, rig_file, weights)
    assert len(expected) == FRAMES
    assert sum(len(rows) for rows in expected.values()) > 5 * FRAMES, "the comparison needs tracks"
    assert len({row[0] for rows in expected.values() for row in rows}) > 10

    for attempt, rate in enumerate(RATES):
        listener.tracks.clear()
        listener.diagnostics.clear()
        node = node_process(tmp_path / f"node{attempt}.log", rig_file, weights, sim_time=True)
        try:
            wait_until(
                lambda: listener.says("frames", "waiting for the first image"),
                60,
                lambda log=node.log: log.read_text(),
            )
            wait_until(lambda: listener.node.count_publishers("/dualview_node/tracks") == 1, 20)
            player = Process(
                ["-m", "dualview", "replay", str(bag), "--rig", str(rig_file), "--rate", str(rate)],
                tmp_path / "player.log",
            )
            assert player.wait(120) == 0, player.output
            wait_until(
                lambda: len(listener.tracks) >= FRAMES or listener.says("frames", "no image from any camera"),
                30,
            )
        finally:
            assert node.stop(signal.SIGTERM) == 0, node.output
        if len(listener.tracks) == FRAMES:
            break
    got = {stamp_ns(m.header.stamp): live_rows(m) for m in listener.tracks}
    assert got.keys() == expected.keys(), f"frames were dropped even at rate {rate}: {listener.story()}"
    for stamp, rows in expected.items():
        live = got[stamp]
        assert [r[:2] + r[6:] for r in live] == [r[:2] + r[6:] for r in rows], "ids, classes, ages, cameras"
        for a, b in zip(live, rows, strict=True):
            assert a[2] == pytest.approx(b[2], abs=1e-6)
            for i in (3, 4, 5):
                assert a[i] == pytest.approx(b[i], abs=1e-5, rel=1e-6)
    assert all(m.header.frame_id == "odom" for m in listener.tracks)
    assert all(list(m.camera_mask) == [True] * 6 and not m.missing_cameras for m in listener.tracks)
    assert len({bytes(o.uuid) for m in listener.tracks for o in m.objects}) == len(
        {row[0] for rows in got.values() for row in rows}
    )
