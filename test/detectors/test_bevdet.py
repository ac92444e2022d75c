"""The BEVDet family: steps, states, what the previous map does, and that nothing of it needs special care."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from center_frames import FAMILY, small_bevdet
from detector_frames import seen_from, surround_frame

from dualview.detectors.bevdet import BevDet
from dualview.detectors.checkpoint import build_detector, load_checkpoint, load_detector, save_checkpoint
from dualview.detectors.import_sparse4d import LIDAR_TOP_FROM_EGO
from dualview.detectors.inputs import inputs_from_frames
from dualview.detectors.presets import PRESETS, preset_config
from dualview.detectors.systems import make_detector, settings_from_json
from dualview.errors import ConfigError
from dualview.geometry.bev_grid import BevGrid
from dualview.networks.bev_history import BevHistory, recall_maps, remember_map
from dualview.networks.bevdet_branch import elapsed_seconds

GRID = BevGrid.centered(2.0, 1.0)


def detector_of(kind: str) -> BevDet:
    detector = build_detector(small_bevdet(*FAMILY[kind]), seed=1)
    assert isinstance(detector, BevDet)
    return detector.eval()


def run(detector: BevDet, seconds: list[float], state=None):
    state = detector.initial_state() if state is None else state
    outputs = []
    for moment in seconds:
        frame = surround_frame(detector.config, seconds=moment, seed=round(10 * moment))
        output, state = detector.step(frame, state)
        outputs.append(output)
    return outputs, state


@pytest.mark.parametrize("kind", FAMILY)
def test_steps(kind: str) -> None:
    outputs, state = run(detector_of(kind), [0.0, 0.1, 0.2])
    for output in outputs:
        tracks = output.tracks
        assert 0 < len(tracks) <= 20
        assert torch.equal(tracks.score, tracks.score.sort(descending=True).values)
        assert bool((tracks.track_id >= 0).all()) and len(set(tracks.track_id.tolist())) == len(tracks)
        assert output.age.shape == output.camera_count.shape == tracks.track_id.shape
        assert output.bev.features.shape == (8, 24, 24) and output.bev.valid.any()
    assert state.next_track_id > int(max(o.tracks.track_id.max() for o in outputs))
    assert (state.memory is not None) == FAMILY[kind][1]


@pytest.mark.parametrize("kind", FAMILY)
def test_a_reset_forgets_all_but_the_ids(kind: str) -> None:
    detector = detector_of(kind)
    (first, *_), state = run(detector, [0.0, 0.1, 0.2])
    (again,), after = run(detector, [0.0], detector.initial_state(next_track_id=state.next_track_id))
    assert torch.equal(again.tracks.center, first.tracks.center)
    assert torch.equal(again.tracks.score, first.tracks.score)
    assert int(again.tracks.track_id.min()) == state.next_track_id
    assert not again.age.any() and after.next_track_id > state.next_track_id


def test_stopping_and_going_on_changes_nothing() -> None:
    detector = detector_of("bevdepth4d")
    whole, _ = run(detector, [0.0, 0.1, 0.2, 0.3])
    _, state = run(detector, [0.0, 0.1])
    rest, _ = run(detector, [0.2, 0.3], state)
    for one, other in zip(whole[2:], rest, strict=True):
        assert torch.equal(one.tracks.center, other.tracks.center)
        assert torch.equal(one.tracks.track_id, other.tracks.track_id)


def test_the_previous_map_matters_only_where_there_is_one() -> None:
    frame_at = [0.0, 0.2]
    for kind, (_, temporal) in FAMILY.items():
        detector = detector_of(kind)
        outputs, _ = run(detector, frame_at)
        (alone,), _ = run(detector, frame_at[1:])
        same = torch.equal(outputs[1].bev.features, alone.bev.features)
        assert same != temporal, kind


def test_a_map_from_long_ago_is_not_used() -> None:
    detector = detector_of("bevdet4d")
    outputs, _ = run(detector, [0.0, 5.0])
    (alone,), _ = run(detector, [5.0])
    assert torch.equal(outputs[1].bev.features, alone.bev.features)


@pytest.mark.parametrize("rate", [2.0, 10.0, 12.0, 25.0])
@pytest.mark.parametrize("name", ["bevdet4d-r50", "bevdepth4d-r50"])
def test_the_keyframe_beside_the_present_is_as_old_at_any_rate(name: str, rate: float) -> None:
    """Trained at 2 Hz, run at the cameras' rate: the speeds that two maps tell must not depend on it."""
    config = preset_config(name).bev.history
    history, pose = None, torch.eye(4, dtype=torch.float64)[None]
    for index in range(int(3 * rate)):
        stamps = torch.tensor([1.7e9 + index / rate], dtype=torch.float64)
        elapsed = float(elapsed_seconds(history, stamps, config)[0])
        present = torch.full((1, 1, 4, 4), index / rate)
        recalled = float(recall_maps(history, present, stamps, pose, GRID, config)[0, 0, 0, 2, 2])
        assert elapsed == pytest.approx(index / rate - recalled, abs=1e-4)  # of the map that is taken, not of the latest
        if index / rate > 1.0:
            assert 0.44 <= elapsed <= 0.6
        history = remember_map(history, present, stamps, pose, config)


@pytest.mark.parametrize("kind", ["bevdepth", "bevdet4d"])
def test_the_working_frame_is_only_a_point_of_view(kind: str) -> None:
    """Inside LIDAR_TOP's frame the network sees a vehicle whose ego frame is that frame; boxes and map come back in ego."""
    plain = small_bevdet(*FAMILY[kind])
    inside = build_detector(replace(plain, working_from_ego=LIDAR_TOP_FROM_EGO), seed=1).eval()
    outside, working = build_detector(plain, seed=1).eval(), inside.config.working_from_ego_matrix
    states = [inside.initial_state(), outside.initial_state()]
    for moment in (0.0, 0.1, 0.2):
        frame = surround_frame(plain, seconds=moment, seed=round(10 * moment))
        ours, states[0] = inside.step(frame, states[0])
        theirs, states[1] = outside.step(seen_from(frame, working), states[1])
        expected = theirs.tracks.transformed(torch.linalg.inv(working))
        assert torch.allclose(ours.tracks.score, expected.score, atol=1e-4)
        assert torch.allclose(ours.tracks.center, expected.center, atol=2e-3)
        assert ours.camera_count.tolist() == theirs.camera_count.tolist() and ours.camera_count.any()
        # A quarter turn: a cell of the ego map holds what the working map holds at the same place.
        assert torch.allclose(ours.bev.features, theirs.bev.features.rot90(1, (-2, -1)), atol=1e-4)
        assert torch.equal(ours.bev.valid, theirs.bev.valid.rot90(1, (-2, -1))) and not ours.bev.valid.all()
        assert ours.bev.grid.x_min == pytest.approx(-24.0 + 0.943713)
    tilted = ((0.8, -0.6, 0.0, 0.0), (0.6, 0.8, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))
    with pytest.raises(ValueError, match="quarter turns"):
        replace(plain, working_from_ego=tilted)


def test_a_masked_camera_is_not_looked_at() -> None:
    detector = detector_of("bevdet")
    frame = surround_frame(detector.config, mask=[True, False, True])
    changed = replace(frame, images=frame.images.clone())
    changed.images[1] = 255
    first, _ = detector.step(frame, detector.initial_state())
    second, _ = detector.step(changed, detector.initial_state())
    assert torch.equal(first.tracks.center, second.tracks.center)
    assert torch.equal(first.bev.features, second.bev.features)


def test_slots_of_a_batch_do_not_mix() -> None:
    detector = detector_of("bevdepth4d")
    config = detector.config
    frames = [[surround_frame(config, seconds=s, seed=seed) for seed in (1, 2)] for s in (0.0, 0.1)]
    with torch.no_grad():
        memory = detector.initial_memory()
        for pair in frames:
            both = detector(inputs_from_frames(pair, config.image_size), memory)
            memory = both.memory
        memory = detector.initial_memory()
        for pair in frames:
            single = detector(inputs_from_frames(pair[1:], config.image_size), memory)
            memory = single.memory
    assert torch.allclose(both.bev.features[1:], single.bev.features, atol=1e-5)
    assert isinstance(memory, BevHistory)


def test_only_the_supervised_lift_has_a_loss() -> None:
    for kind, (camera_aware, _) in FAMILY.items():
        assert (small_bevdet(*FAMILY[kind]).lift is not None) == camera_aware


@pytest.mark.parametrize("kind", ["bevdet", "bevdepth4d"])
def test_checkpoint(kind: str, tmp_path) -> None:
    detector = detector_of(kind)
    save_checkpoint(detector, tmp_path / "weights.safetensors")
    loaded = load_checkpoint(tmp_path / "weights.safetensors")
    assert (
        loaded.config == detector.config and settings_from_json(detector.config.to_json()) == detector.config
    )
    folded = load_detector(tmp_path / "weights.safetensors", "cpu", overrides={"score_threshold": 0.0})
    (plain,), _ = run(detector, [0.0])
    (quick,), _ = run(folded, [0.0])  # type: ignore[arg-type]
    assert torch.allclose(plain.bev.features, quick.bev.features, atol=1e-4)
    assert (
        load_detector(
            tmp_path / "weights.safetensors", "cpu", overrides={"score_threshold": 0.6}
        ).config.track_threshold
        == 0.6
    )


def test_presets_build() -> None:
    for name in PRESETS:
        if name.startswith("bevde"):
            with torch.device("meta"):
                make_detector(preset_config(name))
            assert settings_from_json(preset_config(name).to_json()) == preset_config(name)


def test_what_can_not_be() -> None:
    config = small_bevdet()
    with pytest.raises(ValueError, match="labels of all 3 class_names"):
        replace(config, center_head=replace(config.center_head, tasks=((0, 1),)))
    with pytest.raises(ValueError, match="finest of the strides"):
        replace(config, bev=replace(config.bev, image_stride=32))
    with pytest.raises(ValueError, match="same stages"):
        replace(config.bev, encoder_strides=(2,))
    with pytest.raises(ValueError, match="same stages"):
        replace(config.bev, encoder_channels=(), encoder_strides=(), encoder_blocks=())
    with pytest.raises(ValueError, match="depth_channels 66"):
        replace(config.bev, camera_aware=True, deformable=True, depth_channels=66)
    with pytest.raises(ConfigError, match="isn't known here"):
        settings_from_json('{"format": "dualview-bevdat-1"}')
    with pytest.raises(ValueError, match="evaluation mode"):
        detector = detector_of("bevdet").train()
        detector.step(surround_frame(config), detector.initial_state())
