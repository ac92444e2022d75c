"""The recording of a synthetic drive: complete, repeatable, consistent."""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from mcap.reader import make_reader

from dualview.errors import BagError
from dualview.scene.bag_reader import BagReader
from dualview.scene.rig import load_rig
from dualview.scene.synthetic.drive import Drive


def digest(path: Path) -> tuple[str, Counter[str]]:
    """Hash over topics, stamps and bytes of all messages, and the number of messages on each topic."""
    whole, counts = hashlib.sha256(), Counter()
    with path.open("rb") as file:
        for _, channel, message in make_reader(file).iter_messages():
            whole.update(f"{channel.topic} {message.log_time}".encode() + message.data)
            counts[channel.topic] += 1
    return whole.hexdigest(), counts


@pytest.fixture(scope="module")
def bag(drive: Drive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bag") / "first.mcap"
    drive.write(path)
    return path


def test_same_seed_same_bytes(bag: Path, same_drive_again: Drive, tmp_path: Path) -> None:
    summary = same_drive_again.write(tmp_path / "second.mcap")
    first, counts = digest(bag)
    assert digest(tmp_path / "second.mcap")[0] == first
    again = same_drive_again.write(tmp_path / "third.mcap")  # what was written before isn't remembered
    assert digest(tmp_path / "third.mcap")[0] == first and again.instances == summary.instances
    assert (summary.images, summary.sweeps, summary.keyframes) == (12, 4, 4)
    assert (
        counts["/cam_front/image/compressed"]
        == counts["/cam_back/camera_info"]
        == counts["/cam_front/annotations_2d"]
        == 4
    )
    assert counts["/lidar_top/points"] == counts["/annotations"] == 4
    assert counts["/tf_static"] == 1 and counts["/tf"] == counts["/odom"] >= 20


def test_annotations_hold_together(bag: Path) -> None:
    with BagReader(bag) as reader:
        frames = reader.annotations(load_rig("synthetic"))
    assert len(frames) == 4
    for before, now, after in zip(frames[:-2], frames[1:-1], frames[2:], strict=True):
        assert (now.stamp_ns - before.stamp_ns) == 100_000_000
        assert len(set(now.instance_ids)) == len(now.instance_ids) > 5
        assert ((now.visibility >= 0) & (now.visibility <= 1)).all() and (now.num_lidar_points >= 0).all()
        assert (now.num_lidar_points > 0).any() and (now.visibility > 0.5).any()
        place = {
            (f.stamp_ns, name): f.boxes.center[row]
            for f in (before, after)
            for row, name in enumerate(f.instance_ids)
        }
        compared = 0
        for row, name in enumerate(now.instance_ids):
            if (before.stamp_ns, name) in place and (after.stamp_ns, name) in place:
                step = (place[after.stamp_ns, name] - place[before.stamp_ns, name]).numpy()[:2] / 0.2
                np.testing.assert_allclose(now.boxes.velocity[row].numpy()[:2], step, atol=0.2)
                compared += 1
        assert compared > 5


def test_nothing_is_left_of_a_failed_write(
    drive: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there.mcap").touch()
    with pytest.raises(BagError, match="exists already"):
        drive.write(tmp_path / "there.mcap")

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(drive, "scan", fail)
    with pytest.raises(KeyboardInterrupt):
        drive.write(tmp_path / "broken.mcap")
    assert [p.name for p in tmp_path.iterdir()] == ["there.mcap"]
