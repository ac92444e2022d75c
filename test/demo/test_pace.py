"""The rate follows from the quietest stretch that was measured."""

import pytest

from dualview.demo import run
from dualview.demo.pace import Pace, _frame_time, _possible_rate, _wants_more
from dualview.demo.play import Played
from dualview.demo.settings import DemoSettings
from dualview.scene.rig import load_rig

WARM = [900.0, 700.0]


def test_a_disturbed_stretch_does_not_slow_the_drive_down():
    disturbed, quiet = [800.0, 90.0, 4000.0, 850.0, 3000.0, 820.0], [100.0, 104.0, 96.0, 100.0, 300.0, 100.0]
    assert _frame_time(WARM + disturbed) > 900
    assert _frame_time(WARM + disturbed + quiet) == pytest.approx(120.0)
    assert _possible_rate(WARM + quiet, 100.0) == pytest.approx(100 / (2.4 * 120 + 15))
    assert _possible_rate([1.0] * 8, 100.0) == 1.0  # never faster than it was recorded


def test_more_is_measured_only_where_it_can_help():
    slow, fast = WARM + [2000.0] * 6, WARM + [20.0] * 6
    assert _wants_more(WARM, 100.0, 5.0)
    assert not _wants_more(fast, 100.0, 5.0)
    assert _wants_more(slow, 100.0, 10.0) and not _wants_more(slow, 100.0, 0.5)
    assert not _wants_more(WARM + [2000.0] * 18, 100.0, 10.0)


def test_a_drive_of_one_frame_has_a_pace():
    assert _frame_time([50.0]) == pytest.approx(60.0)


@pytest.mark.parametrize(
    ("too_fast", "asked_for", "rates"),
    [([0], None, [0.4]), ([3, 0], None, [0.4, 0.2]), ([9, 9, 9], None, [0.4, 0.2, 0.1]), ([3], 0.4, [0.4])],
)
def test_a_drive_that_was_too_fast_is_played_again_slower(monkeypatch, tmp_path, too_fast, asked_for, rates):
    passes = iter(too_fast)
    seen = []

    def one_pass(bag, rig, pace, settings):
        seen.append(pace.rate)
        return Played(1.0, next(passes))

    monkeypatch.setattr(run, "play", one_pass)
    pace = Pace(100.0, 100.0, 0.4, 10, {}, None, "some weights", False)
    settings = DemoSettings(tmp_path / "drive.mcap", tmp_path, rate=asked_for)
    played, tried = run._play_whole(settings, settings.bag, load_rig("nuscenes"), pace)
    assert tried == pytest.approx(rates) and seen == pytest.approx(rates)
    assert played.too_fast == too_fast[-1]
