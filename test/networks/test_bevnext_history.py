"""The history of BEV maps: when a map is kept, when a history ends, and that a slot's restart is a fresh start."""

import pytest
import torch

from dualview.geometry.bev_grid import BevGrid
from dualview.networks.bev_history import BevHistory, BevHistoryConfig, recall_maps, remember_map
from dualview.networks.dual_memory import DualMemory
from dualview.networks.instance_memory import InstanceMemory

GRID = BevGrid.centered(4.0, 1.0)
START = 1.7e9  # s


def frame(seconds: float, value: float, batch: int = 1, x: float | None = None):
    """A map of one value, its stamps and poses; the vehicle drives along x."""
    poses = torch.eye(4, dtype=torch.float64).repeat(batch, 1, 1)
    poses[:, 0, 3] = 1000.0 + (seconds if x is None else x)
    return (
        torch.full((batch, 2, 8, 8), value),
        torch.full((batch,), START + seconds, dtype=torch.float64),
        poses,
    )


def ages(history: BevHistory, seconds: float, sample: int = 0) -> list[float]:
    """Ages (s) of the maps that are there."""
    there = history.valid[sample]
    return [round(float(START + seconds - stamp), 2) for stamp in history.stamps[sample][there]]


def test_kept_maps_lie_an_interval_apart_whatever_the_rate() -> None:
    config = BevHistoryConfig(frames=2, interval=0.4)
    history = None
    for index in range(12):  # 10 Hz
        jitter = 0.003 * (-1) ** index
        history = remember_map(history, *frame(0.1 * index + jitter, float(index)), config)
    assert history.maps[0, :, 0, 0, 0].tolist() == [8.0, 4.0]
    at_two_hertz = None
    for index in range(4):
        at_two_hertz = remember_map(at_two_hertz, *frame(0.5 * index, float(index)), config)
    assert at_two_hertz.maps[0, :, 0, 0, 0].tolist() == [3.0, 2.0]


@pytest.mark.parametrize("rate", [2.0, 5.0, 10.0, 12.5, 20.0, 25.0])
def test_a_fused_map_can_be_asked_to_be_of_a_steady_age(rate: float) -> None:
    config = BevHistoryConfig(frames=2, interval=0.4, kept_per_interval=4)
    history = None
    for index in range(int(3 * rate)):
        now = index / rate
        recalled = recall_maps(history, *frame(now, now, x=0.0), GRID, config)[0, :, 0, 4, 4]
        history = remember_map(history, *frame(now, now, x=0.0), config)
        assert history.maps.shape[1] == config.kept
        if now > 2.0:
            first, second = (round(now - float(value), 3) for value in recalled)
            slack = 1 / rate + 0.1  # a frame later, and a map every 0.1 s
            assert 0.39 <= first <= 0.4 + slack and 0.78 <= second <= 0.8 + slack


def test_without_a_map_of_that_age_the_present_stands_in() -> None:
    config = BevHistoryConfig(frames=2, interval=0.4, kept_per_interval=4)
    history = remember_map(None, *frame(0.0, 1.0), config)
    assert recall_maps(history, *frame(0.3, 7.0), GRID, config).eq(7).all()
    recalled = recall_maps(history, *frame(0.4, 7.0, x=0.0), GRID, config)
    assert recalled[0, 0].eq(1).all() and recalled[0, 1].eq(7).all()


def test_before_there_is_a_history_the_present_stands_in() -> None:
    config = BevHistoryConfig(frames=2)
    now = frame(0.0, 7.0)
    assert recall_maps(None, *now, GRID, config).eq(7).all()
    history = remember_map(None, *frame(0.0, 3.0), config)
    recalled = recall_maps(history, *frame(0.5, 7.0, x=0.0), GRID, config)
    assert recalled[0, 0].eq(3).all() and recalled[0, 1].eq(7).all()


def test_recalled_maps_lie_where_they_lay_in_the_world() -> None:
    config = BevHistoryConfig(frames=2, interval=0.4)
    history = None
    for index in range(2):
        present, stamps, poses = frame(0.5 * index, 0.0, x=float(index))
        present[..., 4, 6 - index] = 1.0  # stands still in the world
        history = remember_map(history, present, stamps, poses, config)
    recalled = recall_maps(history, *frame(1.0, 0.0, x=2.0), GRID, config)
    for earlier in recalled[0]:
        assert earlier[0].nonzero().tolist() == [[4, 4]] and float(earlier[0, 4, 4]) == pytest.approx(
            1.0, abs=1e-5
        )


def test_a_gap_ends_the_history_of_its_sample_alone() -> None:
    config = BevHistoryConfig(frames=2, interval=0.4, max_gap=2.0)
    history = None
    for index in range(3):
        history = remember_map(history, *frame(0.5 * index, float(index), batch=2), config)
    present, stamps, poses = frame(1.5, 9.0, batch=2, x=1.0)
    stamps[1] += 5.0
    recalled = recall_maps(history, present, stamps, poses, GRID, config)
    assert recalled[0, 0].eq(2).all() and recalled[1].eq(9).all()
    following = remember_map(history, present, stamps, poses, config)
    assert following.valid.tolist() == [[True, True], [True, False]]
    assert ages(following, 1.5) == [0.0, 0.5] and following.maps[1, 0].eq(9).all()


def test_a_drive_played_backwards_has_a_history() -> None:
    config = BevHistoryConfig(frames=2, interval=0.4)
    history = None
    for index in range(3):
        history = remember_map(history, *frame(-0.5 * index, float(index)), config)
    assert history.maps[0, :, 0, 0, 0].tolist() == [2.0, 1.0] and history.valid.all()


def test_a_restarted_sample_is_a_fresh_one() -> None:
    config = BevHistoryConfig(frames=2)
    history = None
    for index in range(3):
        history = remember_map(history, *frame(0.5 * index, float(index), batch=2), config)
    history.maps[1] = float("nan")
    assert history.broken().tolist() == [False, True]
    restarted = history.restarted(torch.tensor([False, True]))
    assert not restarted.broken().any() and restarted.valid.tolist() == [[True, True], [False, False]]
    now = frame(1.5, 9.0, batch=2, x=1.0)
    recalled = recall_maps(restarted, *now, GRID, config)
    fresh = recall_maps(None, *now, GRID, config)
    assert torch.equal(recalled[1], fresh[1]) and torch.equal(restarted.maps[0], history.maps[0])
    following, first = remember_map(restarted, *now, config), remember_map(None, *now, config)
    for name in ("maps", "stamps", "world_from_working", "valid"):
        assert torch.equal(getattr(following, name)[1], getattr(first, name)[1]), name


def test_a_history_is_a_value_without_gradient() -> None:
    config = BevHistoryConfig(frames=2, interval=0.0)
    present, stamps, poses = frame(0.0, 1.0)
    present.requires_grad_()
    history = remember_map(None, present, stamps, poses, config)
    before = history.maps.clone()
    later = remember_map(history, *frame(0.5, 2.0), config)
    assert torch.equal(history.maps, before) and later is not history
    assert (
        not later.maps.requires_grad
        and not recall_maps(later, present, stamps, poses, GRID, config).requires_grad
    )


def test_another_batch_is_refused() -> None:
    config = BevHistoryConfig(frames=2)
    history = remember_map(None, *frame(0.0, 1.0), config)
    with pytest.raises(ValueError, match="when the batch or the detector changes"):
        recall_maps(history, *frame(0.5, 1.0, batch=2), GRID, config)
    with pytest.raises(ValueError, match="must be a multiple"):
        BevHistoryConfig(frames=3, scales=3)
    with pytest.raises(ValueError, match="shorter than"):
        BevHistoryConfig(interval=3.0)


def test_instances_and_maps_are_forgotten_together() -> None:
    history = remember_map(None, *frame(0.0, 1.0, batch=2), BevHistoryConfig(frames=2))
    memory = DualMemory.joined(InstanceMemory(5), history)
    assert DualMemory.history_of(memory) is history and memory.next_track_id == 5
    plain = InstanceMemory(5)
    assert DualMemory.joined(plain, None) is plain and DualMemory.history_of(plain) is None
    restarted = memory.restarted(torch.tensor([True, False]))
    assert DualMemory.history_of(restarted).valid[:, 0].tolist() == [False, True]
    assert memory.broken().tolist() == [False, False] and InstanceMemory().broken() is None
    assert DualMemory.history_of(memory.reset()) is None and memory.reset().next_track_id == 5
