import dataclasses

import pytest
import torch

from dualview.networks.instance_memory import (
    InstanceMemory,
    MemorySettings,
    assign_track_ids,
    decayed_confidence,
    merge_history,
    recall,
    remember,
)

N, M, C = 10, 6, 4
SETTINGS = MemorySettings(num_temporal=M, id_threshold=None)


def frame(seed: int, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(batch, N, C, generator=generator)
    anchors = torch.randn(batch, N, 11, generator=generator)
    return features, anchors, torch.randn(batch, N, 3, generator=generator) * 2


def poses(batch: int = 2, x: float = 0.0) -> torch.Tensor:
    pose = torch.eye(4, dtype=torch.float64).repeat(batch, 1, 1)
    pose[:, 0, 3] = x
    return pose


def stamps(*seconds: float) -> torch.Tensor:
    return torch.tensor(seconds, dtype=torch.float64)


def step(memory: InstanceMemory, seed: int, when: torch.Tensor, settings: MemorySettings = SETTINGS):
    history, interval = recall(memory, when, poses(), settings, torch.float32)
    features, anchors, logits = frame(seed)
    features, anchors = merge_history(features, anchors, logits, history)
    after = remember(memory, history, features, anchors, frame(seed + 100)[2], when, poses(), settings)
    return *after, history, interval, features


def test_first_slots_are_the_remembered_instances_with_their_ids() -> None:
    memory, first_ids, history, interval, _ = step(InstanceMemory(), 0, stamps(0.0, 0.0))
    assert history is None and torch.equal(interval, torch.full((2,), 0.5))
    assert sorted(first_ids.flatten().tolist()) == list(range(2 * N))
    kept = memory.instances
    memory, ids, history, interval, features = step(memory, 1, stamps(0.4, 0.6))
    assert torch.equal(ids[:, :M], kept.track_ids) and torch.equal(features[:, :M], kept.features)
    assert ids[:, M:].min() >= 2 * N, "new instances get new ids"
    torch.testing.assert_close(interval, torch.tensor([0.4, 0.6]))


def test_ids_are_never_given_twice() -> None:
    memory, seen, alive = InstanceMemory(), set(), set()
    for t in range(12):
        gap = 5.0 if t in (4, 8) else 0.5
        when = stamps(t * gap + 100 * (t >= 4), t * 0.5)
        if t == 6:
            memory, alive = memory.reset(), set()
        memory, ids, *_ = step(memory, t, when)
        now = set(ids.flatten().tolist())
        assert len(now) == ids.numel()
        assert not (now - alive) & seen, "an id that had died came back"
        seen |= now
        alive = set(memory.instances.track_ids.flatten().tolist())
    assert memory.next_track_id == max(seen) + 1


def test_ids_wait_for_the_threshold() -> None:
    logits = torch.full((1, N, 3), -5.0)
    logits[0, 2, 1] = logits[0, 7, 0] = 1.0
    ids, following = assign_track_ids(logits, None, 40, threshold=0.25)
    assert ids[0].tolist() == [-1, -1, 40, -1, -1, -1, -1, 41, -1, -1] and following == 42


def test_a_long_gap_breaks_one_sample_and_not_the_other() -> None:
    memory, *_ = step(InstanceMemory(), 0, stamps(0.0, 0.0))
    before = memory.instances
    _, ids, history, interval, features = step(memory, 1, stamps(2.0, 2.1))
    assert history.valid.tolist() == [True, False] and interval.tolist() == [2.0, 0.5]
    assert torch.equal(ids[0, :M], before.track_ids[0])
    assert not set(ids[1].tolist()) & set(before.track_ids.flatten().tolist())
    assert torch.equal(features[1], frame(1)[0][1]), "all its instances are fresh"
    fresh = frame(101)[2].amax(-1).sigmoid()
    for stale, same in ((False, True), (True, False)):
        settings = dataclasses.replace(SETTINGS, stale_history=stale, confidence_decay=1.0)
        confidence = decayed_confidence(frame(101)[2], history, settings)
        assert torch.equal(confidence[1], fresh[1]) == same
        assert not torch.equal(confidence[0], fresh[0])


def test_confidence_decays_slowly() -> None:
    memory, *_ = step(InstanceMemory(), 0, stamps(0.0, 0.0))
    history, _ = recall(memory, stamps(0.5, 0.5), poses(), SETTINGS, torch.float32)
    confidence = decayed_confidence(torch.full((2, N, 3), -20.0), history, SETTINGS)
    torch.testing.assert_close(confidence[:, :M], 0.6 * memory.instances.confidence)
    assert confidence[:, M:].max() < 1e-6


def test_time_may_run_backwards_or_stand_still() -> None:
    memory, *_ = step(InstanceMemory(), 0, stamps(10.0, 10.0))
    history, interval = recall(memory, stamps(9.0, 10.0), poses(), SETTINGS, torch.float32)
    assert history.valid.all() and interval.tolist() == [-1.0, 0.5]


def test_stamps_keep_their_precision() -> None:
    """Seconds since 1970 leave no room for milliseconds in float32."""
    memory, *_ = step(InstanceMemory(), 0, stamps(1.7e9, 1.7e9))
    _, interval = recall(memory, stamps(1.7e9 + 0.083, 1.7e9 + 0.5), poses(), SETTINGS, torch.float32)
    torch.testing.assert_close(interval, torch.tensor([0.083, 0.5]), atol=1e-6, rtol=0)


def test_far_from_the_world_origin_anchors_stay_exact() -> None:
    far = 4.0e6
    memory, _ = remember(InstanceMemory(), None, *frame(0), stamps(0.0, 0.0), poses(x=far), SETTINGS)
    history, _ = recall(memory, stamps(0.0, 0.0), poses(x=far + 1.0), SETTINGS, torch.float32)
    kept = memory.instances.anchors
    torch.testing.assert_close(history.anchors[..., 0], kept[..., 0] - 1.0, atol=1e-6, rtol=0)


def test_nothing_is_changed_in_place_and_nothing_keeps_the_graph() -> None:
    memory, *_ = step(InstanceMemory(), 0, stamps(0.0, 0.0))
    copies = [getattr(memory.instances, f.name).clone() for f in dataclasses.fields(memory.instances)]
    step(memory, 1, stamps(0.5, 0.5))
    for field, copy in zip(dataclasses.fields(memory.instances), copies, strict=True):
        assert torch.equal(getattr(memory.instances, field.name), copy)
    with pytest.raises(dataclasses.FrozenInstanceError):
        memory.next_track_id = 3
    features, anchors, logits = (x.requires_grad_() for x in frame(2))
    learned, _ = remember(InstanceMemory(), None, features, anchors, logits, stamps(0, 0), poses(), SETTINGS)
    assert not any(getattr(learned.instances, n).requires_grad for n in ("features", "anchors", "confidence"))


def test_another_batch_is_refused() -> None:
    memory, *_ = step(InstanceMemory(), 0, stamps(0.0, 0.0))
    with pytest.raises(ValueError, match=r"memory.reset\(\)"):
        recall(memory, stamps(0.5), poses(1), SETTINGS, torch.float32)
