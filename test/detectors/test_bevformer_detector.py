"""BEVFormer frame by frame: state as a value, reset, step equals forward, masks, rigs, frames of reference, training."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from detector_frames import perspective_only, seen_from, small_config, surround_frame

from dualview.detectors.bevformer import BevFormer
from dualview.detectors.bevformer_config import BevFormerDetectorConfig
from dualview.detectors.bevformer_decoding import decode_queries
from dualview.detectors.checkpoint import build_detector, load_checkpoint, load_detector, save_checkpoint
from dualview.detectors.config import NUSCENES_CAMERAS, BackboneConfig
from dualview.detectors.import_sparse4d import LIDAR_TOP_FROM_EGO
from dualview.detectors.inputs import inputs_from_frames
from dualview.detectors.presets import PRESETS, preset_config
from dualview.detectors.systems import settings_from_json
from dualview.errors import ConfigError
from dualview.geometry.bev_grid import BevGrid
from dualview.networks.bevformer_config import BevFormerConfig
from dualview.scene.rig import load_rig
from dualview.supervision.ground_truth import GroundTruth
from dualview.training.losses import LossPlan
from dualview.training.recipe_settings import LossSettings
from dualview.training.stream_state import StreamState, from_plain, to_plain


def bevformer_config(**changes) -> BevFormerDetectorConfig:
    """A complete BEVFormer that steps in a few milliseconds; its images need padding (60 x 90 -> 64 x 96)."""
    network = BevFormerConfig(
        class_count=3, embed_dims=32, grid=BevGrid.centered(24.0, 2.0), heads=2, encoder_layers=2, decoder_layers=2,
        feedforward_dims=32, num_levels=2, heights=2, camera_points=4, num_queries=24, camera_count=None,
    )  # fmt: skip
    config = BevFormerDetectorConfig(
        name="small-bevformer",
        image_size=(60, 90),
        backbone=BackboneConfig("resnet18", (8, 16), widths=(8, 8)),
        network=network,
        class_names=("car", "truck", "pedestrian"),
        track_threshold=0.0,
        max_tracks=20,
    )
    return replace(config, **changes)


def detector_of(config: BevFormerDetectorConfig | None = None) -> BevFormer:
    """Random weights, shaken, so that all parts have a say."""
    detector = build_detector(config or bevformer_config())
    assert isinstance(detector, BevFormer)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return detector.eval()


def drive(config, seconds, **options):
    return [surround_frame(config, seconds=s, seed=round(10 * s), **options) for s in seconds]


def run(detector, frames, state=None):
    state = detector.initial_state() if state is None else state
    outputs = []
    for frame in frames:
        output, state = detector.step(frame, state)
        outputs.append(output)
    return outputs, state


def assert_same(first, second, atol=0.0):
    assert torch.equal(first.tracks.track_id, second.tracks.track_id)
    assert torch.allclose(first.tracks.center, second.tracks.center, atol=atol, rtol=0)
    assert torch.allclose(first.tracks.score, second.tracks.score, atol=atol, rtol=0)
    assert torch.allclose((first.tracks.yaw - second.tracks.yaw).sin(), torch.zeros(()), atol=max(atol, 1e-7))


def test_steps() -> None:
    detector = detector_of()
    outputs, state = run(detector, drive(detector.config, [0.0, 0.1, 0.2]))
    for output in outputs:
        tracks = output.tracks
        assert len(tracks) == 20 and tracks.score.diff().le(0).all()
        assert len(set(tracks.track_id.tolist())) == 20 and (tracks.track_id >= 0).all()
        assert output.age.shape == output.camera_count.shape == (20,)
        assert output.bev.features.shape == (32, 24, 24) and 0.5 < output.bev.valid.float().mean() < 1
    assert state.next_track_id > max(int(o.tracks.track_id.max()) for o in outputs)
    assert outputs[-1].age.max() >= 1 and outputs[-1].times.total > 0


@torch.no_grad()
def test_step_equals_forward() -> None:
    """Two frames, the first of which is remembered: the same boxes and the same map by either door."""
    config = bevformer_config()
    detector = detector_of(config)
    frames = drive(config, [0.0, 0.4])
    outputs, state = run(detector, frames)
    memory = detector.initial_memory()
    for frame, output in zip(frames, outputs, strict=True):
        prediction = detector(inputs_from_frames([frame], config.image_size), memory)
        memory = prediction.memory
        (boxes,) = decode_queries(
            prediction.decoder.class_logits, prediction.decoder.anchors, config.max_tracks, 0.0
        )
        assert torch.allclose(boxes.boxes[:, :3], output.tracks.center, atol=1e-5)
        assert torch.allclose(boxes.scores, output.tracks.score, atol=1e-6)
        assert torch.equal(boxes.labels, output.tracks.label)
        assert torch.allclose(prediction.bev.features[0], output.bev.features, atol=1e-6)
        assert prediction.bev.depth_logits is None
    assert torch.allclose(memory.map.features, state.memory.map.features, atol=1e-6)
    resting = detector(inputs_from_frames(frames[:1], config.image_size), None, with_instances=False)
    assert resting.decoder is None and resting.memory.map is not None


def test_state_is_a_value_and_a_reset_forgets_all_but_the_ids() -> None:
    detector = detector_of()
    frames = drive(detector.config, [0.0, 0.1, 0.2, 0.3])
    (first, *_), state = run(detector, frames[:2])
    before = state.memory.map.features.clone()
    third, _ = detector.step(frames[2], state)
    detector.step(frames[3], detector.initial_state())  # another vehicle in between
    again, _ = detector.step(frames[2], state)
    assert_same(third, again)
    assert torch.equal(state.memory.map.features, before)
    restarted, _ = detector.step(frames[0], detector.initial_state(state.next_track_id))
    assert torch.equal(restarted.tracks.center, first.tracks.center)
    assert int(restarted.tracks.track_id.min()) == state.next_track_id and not restarted.age.any()


def test_the_previous_map_matters_unless_it_is_too_old() -> None:
    detector = detector_of()
    soon, late = drive(detector.config, [0.2]), drive(detector.config, [5.0])
    _, state = run(detector, drive(detector.config, [0.0]))
    for frames, matters in ((soon, True), (late, False)):
        (with_history,), _ = run(detector, frames, state)
        (alone,), _ = run(detector, frames)
        difference = (with_history.bev.features - alone.bev.features).abs().max()
        assert (difference > 1e-3) == matters


def test_any_number_of_cameras_and_masked_ones() -> None:
    config = bevformer_config()
    detector = detector_of(config)
    for cameras in (1, 2, 7):
        outputs, _ = run(detector, drive(config, [0.0, 0.1], cameras=cameras))
        assert all(o.tracks.center.isfinite().all() and o.camera_count.max() <= cameras for o in outputs)
    frame = surround_frame(config, cameras=3, mask=[True, False, True])
    broken = replace(frame, images=frame.images.clone(), intrinsics=frame.intrinsics.clone())
    broken.images[1], broken.intrinsics[1] = 255, float("nan")
    fields = ("images", "camera_stamps_ns", "intrinsics", "ego_from_camera", "world_from_ego", "camera_mask")
    without = replace(frame, **{f: getattr(frame, f)[[0, 2]] for f in fields}, camera_names=("a", "b"))
    (masked,), _ = run(detector, [frame])
    assert_same(masked, run(detector, [broken])[0][0])
    assert_same(masked, run(detector, [without])[0][0], atol=2e-4)
    (blind, after), _ = run(detector, [surround_frame(config, mask=[False] * 3), *drive(config, [0.1])])
    assert (
        blind.camera_count.eq(0).all() and not blind.bev.valid.any() and after.tracks.center.isfinite().all()
    )


def test_rigs_that_cannot_be_served_are_refused() -> None:
    config = bevformer_config()
    config = replace(config, network=replace(config.network, camera_count=2))
    detector = detector_of(config)
    with pytest.raises(ConfigError, match="has 3 cameras, small-bevformer learned 2"):
        detector.step(surround_frame(config), detector.initial_state())
    in_order = replace(config, camera_names=("a", "b", "c"), network=replace(config.network, camera_count=3))
    ordered = detector_of(in_order)
    for names, served in ((("a", "b", "c"), True), (("x", "y", "z"), True), (("b", "a", "c"), False)):
        frame = replace(surround_frame(config), camera_names=names)
        if served:
            ordered.step(frame, ordered.initial_state())
        else:
            with pytest.raises(ConfigError, match="tells its cameras apart by their order, which is a, b, c"):
                ordered.step(frame, ordered.initial_state())
    # as presets and rigs write them, in capitals here and in small letters there
    assert [name.lower() for name in NUSCENES_CAMERAS] == list(load_rig("nuscenes").camera_names)
    capitals = detector_of(replace(in_order, camera_names=("A", "B", "C")))
    capitals.step(replace(surround_frame(config), camera_names=("a", "b", "c")), capitals.initial_state())
    with pytest.raises(ConfigError, match="which is A, B, C"):
        capitals.step(replace(surround_frame(config), camera_names=("c", "b", "a")), capitals.initial_state())
    with pytest.raises(ConfigError, match="works at 60x90"):
        detector.step(
            surround_frame(replace(config, image_size=(64, 96)), cameras=2), detector.initial_state()
        )
    with pytest.raises(ValueError, match=r"call detector.eval\(\) first"):
        detector.train().step(surround_frame(config, cameras=2), detector.initial_state())
    with pytest.raises(ValueError, match="quarter turns"):
        tilted = ((0.8, -0.6, 0.0, 0.0), (0.6, 0.8, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))
        bevformer_config(working_from_ego=tilted)
    with pytest.raises(ValueError, match="num_levels is 2"):
        bevformer_config(backbone=BackboneConfig("resnet18", (16,), widths=(8, 8)))


def test_the_working_frame_is_only_a_point_of_view() -> None:
    """Inside LIDAR_TOP's frame the network sees a vehicle whose ego frame is that frame; boxes and map come back in ego."""
    config = bevformer_config()
    inside = replace(config, working_from_ego=LIDAR_TOP_FROM_EGO)
    frames = drive(config, [0.0, 0.1, 0.2])
    working = inside.working_from_ego_matrix
    seen_from_there = [seen_from(f, working) for f in frames]
    # ids depend on pairings that may tip over by rounding: boxes in the order of their scores are compared
    ours, _ = run(detector_of(inside), frames)
    theirs, _ = run(detector_of(config), seen_from_there)
    for first, second in zip(ours, theirs, strict=True):
        expected = second.tracks.transformed(torch.linalg.inv(working))
        assert torch.allclose(first.tracks.center, expected.center, atol=2e-3)
        assert torch.allclose(first.tracks.score, second.tracks.score, atol=1e-4)
        assert first.camera_count.tolist() == second.camera_count.tolist()
        # a cell of the ego map holds what the working map holds at the same place
        there, here = config.network.grid.cell_centers().double(), first.bev.grid
        for row, column in ((0, 0), (3, 20), (17, 5)):
            place = torch.cat([there[row, column], torch.tensor([0.0, 1.0])])
            x, y = (torch.linalg.inv(working) @ place)[:2].tolist()
            i, j = round((y - here.y_min) / 2 - 0.5), round((x - here.x_min) / 2 - 0.5)
            assert torch.allclose(first.bev.features[:, i, j], second.bev.features[:, row, column], atol=1e-3)
            assert first.bev.valid[i, j] == second.bev.valid[row, column] or here.rows != 24


def test_checkpoints_and_presets(tmp_path) -> None:
    detector = detector_of()
    save_checkpoint(detector, tmp_path / "b.safetensors")
    loaded = load_checkpoint(tmp_path / "b.safetensors")
    assert isinstance(loaded, BevFormer) and loaded.config == detector.config
    quick = load_detector(
        tmp_path / "b.safetensors", device="cpu", overrides={"score_threshold": 0.0, "max_tracks": 5}
    )
    frames = drive(detector.config, [0.0])
    ours, _ = run(detector, frames)
    theirs, _ = run(quick, frames)
    assert torch.allclose(ours[0].tracks.center[:5], theirs[0].tracks.center, atol=1e-3)
    for name in ("bevformer-tiny", "bevformer-lite"):
        assert name in PRESETS
        config = preset_config(name)
        assert settings_from_json(config.to_json()) == config
    assert preset_config("bevformer-tiny").padded_size == (480, 800)


def test_a_few_steps_of_training_lower_the_loss_in_streams() -> None:
    """Two slots whose memory goes on from frame to frame and restarts, with the trainer's own losses."""
    config = bevformer_config()
    detector = build_detector(config).train()
    plan = LossPlan.of(config, LossSettings())
    assert plan.detection.dimension_weights == (1.0,) * 8 + (0.2, 0.2)
    truth = GroundTruth(
        torch.tensor([[6.0, 2.0, 0.0, 4.0, 2.0, 1.5, 0.3, 1.0, 0.0], [-5.0, -7.0, 0.0, 0.8, 0.8, 1.8, 0.0, torch.nan, torch.nan]]),
        torch.tensor([0, 2]),
    )  # fmt: skip
    empty = GroundTruth(torch.zeros(0, 9), torch.zeros(0, dtype=torch.int64))
    optimizer = torch.optim.AdamW(detector.parameters(), 3e-3)
    stream = StreamState(detector.initial_memory())
    totals = []
    for step in range(60):
        frames = [surround_frame(config, seconds=0.1 * step, seed=s) for s in (0, 1)]
        inputs = inputs_from_frames(frames, config.image_size)
        prediction = detector(inputs, stream.memory)
        losses = plan.losses(prediction, [truth, empty], torch.zeros(2, 3, *config.image_size))
        assert set(losses) == {f"layer{i}/{term}" for i in (0, 1) for term in ("class", "box")}
        total = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        total.backward()
        if step == 0:
            idle = [
                n for n, p in detector.named_parameters() if p.grad is None or not p.grad.isfinite().all()
            ]
            assert not idle, idle
        optimizer.step()
        totals.append(float(total.detach()))
        assert not prediction.memory.map.features.requires_grad
        saved = to_plain(StreamState(prediction.memory))
        stream = from_plain(StreamState, saved)
        assert torch.equal(stream.memory.map.features, prediction.memory.map.features)
        if step == 5:
            stream = stream.restarted(torch.tensor([True, False]))
            assert not stream.memory.map.features[0].any() and stream.memory.map.features[1].any()
            assert not stream.broken_slots().any()
    assert sum(totals[-3:]) < 0.5 * sum(totals[:3]), totals


def test_other_detectors_keep_their_loss_weights() -> None:
    plan = LossPlan.of(perspective_only(small_config()), LossSettings())
    assert plan.detection.dimension_weights[:3] == (2.0, 2.0, 2.0)
    assert plan.detection.matching.dimension_weights[3] == 0.5
