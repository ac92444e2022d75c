"""What diagnostics say, as sentences and levels, from events alone."""

from __future__ import annotations

import math

import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from dualview.ros.diagnostics import DiagnosticsSchedule, diagnostics_message
from dualview.ros.health import BUSY, STAGES, TOO_FEW, Level, LiveTime, NodeHealth, Report, kind_of


def make_health() -> NodeHealth:
    health = NodeHealth(
        {"front": "/front/image", "rear": "/rear/image"}, 0.5, max_processing_ms=100.0, max_delay_ms=1000.0
    )
    health.start(0.0)
    return health


def stages(network: float = 20.0) -> dict[str, float]:
    return dict.fromkeys(STAGES, 1.0) | {"network": network}


def work(
    health: NodeHealth, now: float, network: float = 20.0, problems: dict[str, str] | None = None
) -> None:
    for camera in health.cameras:
        health.image(camera, now)
    health.masked(problems or {})
    health.published(stages(network), now)


def said(health: NodeHealth, about: str, now: float) -> Report:
    return next(r for r in health.reports(now) if r.name == about)


def test_all_is_well_while_frames_go_out() -> None:
    health = make_health()
    work(health, 1.0)
    assert all(r.level is Level.OK for r in health.reports(1.1))
    assert [r.name for r in health.reports(1.1)] == ["frames", "latency", "camera front", "camera rear"]


def test_before_the_first_image_the_topics_are_named() -> None:
    health = make_health()
    report = said(health, "frames", 1.0)
    assert report.level is Level.WARN and "/front/image, /rear/image" in report.message
    assert said(health, "frames", 60.0).level is Level.ERROR
    health.cameras["front"].topic_problem = "nobody publishes it"
    assert "nobody publishes it" in said(health, "camera front", 1.0).message


def test_a_silent_camera_is_named_and_the_others_are_not() -> None:
    health = make_health()
    work(health, 1.0)
    health.image("front", 2.0)
    report = said(health, "camera rear", 2.0)
    assert report.level is Level.WARN and report.message == "silent for 1.0 s"
    assert said(health, "camera front", 2.0).level is Level.OK


def test_silence_of_all_cameras_is_an_error() -> None:
    health = make_health()
    work(health, 1.0)
    report = said(health, "frames", 3.0)
    assert report.level is Level.ERROR and "no image from any camera for 2.0 s" in report.message


def test_too_few_cameras_is_an_error_at_once_until_frames_go_out_again() -> None:
    health = make_health()
    work(health, 1.0)
    health.dropped(TOO_FEW, "1 usable of 2 needed (rear: silent)", 1.1)
    report = said(health, "frames", 1.1)
    assert report.level is Level.ERROR and "rear: silent" in report.message
    work(health, 1.2)
    assert said(health, "frames", 1.2).level is Level.WARN  # recently dropped, but publishing


def test_missing_poses_are_an_error_when_nothing_goes_out_any_more() -> None:
    health = make_health()
    work(health, 1.0)
    for now in (1.2, 1.8, 2.4, 3.0):
        health.image("front", now)
        health.dropped("no transform", "'odom' is not in the tree", now)
    report = said(health, "frames", 3.0)
    assert (
        report.level is Level.ERROR
        and report.message == "nothing is published: no transform: 'odom' is not in the tree"
    )
    assert report.values["dropped: no transform"] == "4"


def test_frames_that_the_network_cannot_follow_are_a_warning_with_a_count() -> None:
    health = make_health()
    work(health, 1.0)
    health.dropped(BUSY, "a newer frame was ready", 1.1)
    report = said(health, "frames", 1.1)
    assert report.level is Level.WARN and report.values[f"dropped: {BUSY}"] == "1"


def test_masked_cameras_say_why_and_reasons_are_counted_without_their_numbers() -> None:
    health = make_health()
    for i in range(200):
        work(health, 1.0 + i, problems={"rear": f"the image is {i}x{i + 1}"})
    report = said(health, "camera rear", 200.0)
    assert report.level is Level.WARN and report.message == "masked: the image is 199x200"
    assert report.values["masked: the image is #x#"] == "200"
    for i in range(1000):
        health.masked({"rear": f"reason {'x' * i}"})
    assert len(health.cameras["rear"].reasons) <= 30


def test_slow_processing_warns_and_becomes_an_error_when_it_lasts() -> None:
    health = make_health()
    work(health, 1.0, network=500.0)
    assert said(health, "latency", 1.0).level is Level.WARN
    work(health, 2.5, network=500.0)
    report = said(health, "latency", 2.5)
    assert report.level is Level.ERROR and "502 ms, at most 100 ms" in report.message
    work(health, 2.6)
    assert said(health, "latency", 2.6).level is Level.OK


def test_latency_percentiles_ignore_unknown_ages_and_are_bounded() -> None:
    health = make_health()
    for i in range(1000):
        work(health, float(i), network=float(i))
    assert len(health.latency) == 100
    assert health.latency.percentile("network", 50) == pytest.approx(949.5)
    health.latency.add(dict.fromkeys(STAGES, math.nan))
    assert health.latency.percentile("network", 50) > 900


def test_a_reset_is_told() -> None:
    health = make_health()
    health.reset("time went back by 5.00 s (front)", 1.0)
    work(health, 1.1)
    assert (
        "time went back" in said(health, "frames", 1.1).message
        and said(health, "frames", 1.1).level is Level.WARN
    )
    work(health, 9.0)
    assert said(health, "frames", 9.0).level is Level.OK


def test_live_time_follows_ros_time_until_it_stands_still() -> None:
    live = LiveTime(stall=0.5)
    live.tick(0.0, 0)
    assert live.tick(1.0, 100_000_000) == pytest.approx(0.1)  # a slow replay
    assert live.tick(1.4, 100_000_000) == pytest.approx(0.1)  # between two /clock messages
    assert live.tick(2.4, 100_000_000) == pytest.approx(1.1)  # the player has stopped
    assert live.tick(2.5, -(10**9)) == pytest.approx(1.1)  # a loop
    assert live.tick(2.6, 10**15) < 3.0  # a leap


def test_a_sentence_is_compared_without_its_numbers() -> None:
    assert kind_of("silent for 0.6 s") == kind_of("silent for 12.0 s") != kind_of("masked")


def test_diagnostics_go_out_every_second_and_at_changes() -> None:
    schedule = DiagnosticsSchedule(period=1.0, pause=0.1)
    fine, silent = [Report("camera", Level.OK, "in use")], [Report("camera", Level.WARN, "silent for 0.6 s")]
    longer = [Report("camera", Level.WARN, "silent for 0.7 s")]
    assert schedule.is_due(fine, 0.0) and not schedule.is_due(fine, 0.5)
    assert not schedule.is_due(silent, 0.05)  # not more often than every 0.1 s
    assert schedule.is_due(silent, 0.6) and not schedule.is_due(longer, 1.2)
    assert schedule.is_due(longer, 1.6)


def test_the_message_has_names_levels_as_bytes_and_values() -> None:
    message = diagnostics_message(
        [Report("frames", Level.ERROR, "nothing", {"a": "1"})], 5 * 10**9, "node", "machine"
    )
    (status,) = message.status
    assert status.level == DiagnosticStatus.ERROR == b"\x02"
    assert (status.name, status.hardware_id, status.values[0].key) == ("node: frames", "machine", "a")
    assert message.header.stamp.sec == 5
