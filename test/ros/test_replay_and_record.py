"""What is played is what was recorded, byte by byte, and a recording that is stopped is complete."""

from __future__ import annotations

import itertools
import signal
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path

import pytest
from ros_drive import Drive, rig_dict, write_rig
from ros_processes import Listener, Process, wait_until

from dualview.errors import BagError
from dualview.ros.player import message_type
from dualview.scene.bag_reader import BagReader

pytestmark = pytest.mark.slow


def contents(path: Path) -> dict[str, list[bytes]]:
    result: dict[str, list[bytes]] = {}
    with BagReader(path) as bag:
        for message in bag.messages(raw=True):
            result.setdefault(message.topic, []).append(bytes(message.message))
    return result


def padded(messages: list[bytes]) -> list[bytes]:
    """As DDS carries them: filled up with zeros to a multiple of four bytes."""
    return [m + bytes(-len(m) % 4) for m in messages]


def log_times(path: Path, topic: str) -> list[int]:
    with BagReader(path) as bag:
        return [m.log_time_ns for m in bag.messages([topic], raw=True)]


@pytest.fixture
def drive(tmp_path: Path) -> tuple[Path, Path]:
    """Recording and rig file of two cameras, 2 s."""
    rig = tmp_path / "rig.yaml"
    return Drive(write_rig(rig, rig_dict(2))).write(tmp_path / "drive.mcap", 20), rig


def test_a_replay_recorded_again_has_the_same_messages(
    drive: tuple[Path, Path], tmp_path: Path, ros_domain: None, started: Callable[[Process], Process]
) -> None:
    bag, _ = drive
    topics = ["/cam0/image/compressed", "/cam1/image/compressed", "/cam0/camera_info", "/tf", "/tf_static"]
    out = tmp_path / "again.mcap"
    recorder = started(
        Process(["-m", "dualview", "record", str(out), *topics, "--use-sim-time"], tmp_path / "recorder.log")
    )
    player = started(
        Process(["-m", "dualview", "replay", str(bag), "--wait-for", *topics], tmp_path / "player.log")
    )
    assert player.wait(90) == 0, player.output
    assert "played" in player.output and "late p50" in player.output
    assert not out.exists(), "the recording must appear when it is complete, not before"
    assert recorder.stop(signal.SIGTERM) == 0, recorder.output
    original, again = contents(bag), contents(out)
    assert set(again) == set(topics)
    for topic in topics:
        assert again[topic] == padded(original[topic]), (
            f"{topic}: {len(again[topic])} of {len(original[topic])} messages"
        )
    # log times follow /clock, so they are near the stamps of the drive
    for before, after in zip(log_times(bag, topics[0]), log_times(out, topics[0]), strict=True):
        assert abs(after - before) < 1_500_000_000
    # nothing is from before the clock began
    assert min(min(log_times(out, topic)) for topic in topics) >= min(log_times(bag, "/tf_static")) - 1_500_000_000
    assert not list(tmp_path.glob(".*.partial"))


def test_record_ends_by_itself_when_nothing_comes_any_more(
    drive: tuple[Path, Path], tmp_path: Path, ros_domain: None, started: Callable[[Process], Process]
) -> None:
    bag, _ = drive
    out = tmp_path / "again.mcap"
    recorder = started(Process(["-m", "dualview", "record", str(out), "/cam0/image/compressed", "/never", "--idle-timeout", "1.5"],
                               tmp_path / "recorder.log"))  # fmt: skip
    options = ["--start", "0.5", "--duration", "0.8", "--wait-for", "/cam0/image/compressed"]
    player = started(Process(["-m", "dualview", "replay", str(bag), *options], tmp_path / "player.log"))
    assert player.wait(60) == 0, player.output
    assert recorder.wait(60) == 1, recorder.output  # /never was never published, and the status says so
    assert "/never was never published" in recorder.output
    recorded = contents(out)["/cam0/image/compressed"]
    with BagReader(bag) as reader:
        begin = reader.start_ns + 500_000_000
        played = reader.messages(
            ["/cam0/image/compressed"], start_ns=begin, stop_ns=begin + 800_000_000, raw=True
        )
        expected = padded([bytes(m.message) for m in played])
    assert len(expected) == 8 and recorded == expected


def test_the_clock_follows_the_rate_and_static_tf_comes_first(
    drive: tuple[Path, Path], tmp_path: Path, listener: Listener, started: Callable[[Process], Process]
) -> None:
    from rosgraph_msgs.msg import Clock
    from tf2_msgs.msg import TFMessage

    bag, _ = drive
    clocks: deque[Clock] = deque()
    listener.listen(Clock, "/clock", clocks, depth=1000)
    poses: deque[TFMessage] = deque()
    listener.listen(TFMessage, "/tf", poses, depth=1000)
    player = started(
        Process(
            ["-m", "dualview", "replay", str(bag), "--rate", "0.5", "--wait-for", "/tf"],
            tmp_path / "player.log",
        )
    )
    assert player.wait(60) == 0, player.output
    wait_until(lambda: len(poses) == len(contents(bag)["/tf"]), 10, lambda: str(len(poses)))
    times = [c.clock.sec * 10**9 + c.clock.nanosec for c in clocks]
    with BagReader(bag) as reader:
        assert times == sorted(times) and reader.start_ns <= times[0] and times[-1] <= reader.end_ns
        assert times[-1] > reader.end_ns - 100_000_000
    steps = Counter(b - a for a, b in itertools.pairwise(times[1:]))
    assert steps.most_common(1)[0][0] == 5_000_000  # 100 Hz of wall time at half the rate


def test_nobody_to_play_for_is_an_error_with_advice(
    drive: tuple[Path, Path], tmp_path: Path, started: Callable[[Process], Process]
) -> None:
    bag, rig = drive
    player = started(
        Process(
            ["-m", "dualview", "replay", str(bag), "--rig", str(rig), "--wait-timeout", "0.5"],
            tmp_path / "player.log",
        )
    )
    assert player.wait(60) == 1
    assert "nobody took /cam0/image/compressed" in player.output and "is the node running" in player.output


def test_a_message_type_that_is_not_installed_is_named() -> None:
    with pytest.raises(BagError, match="radar_msgs/msg/Return is not installed"):
        message_type("radar_msgs/msg/Return")
    assert message_type("sensor_msgs/msg/Image").__name__ == "Image"
