"""The detector frame by frame: state as a value, identities, masks, any number of cameras, frames of
reference.
"""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from detector_frames import bev_only, perspective_only, small_config, surround_frame

from dualview.detectors.checkpoint import build_detector
from dualview.detectors.greedy_tracker import GreedyTrackingConfig, Tracks, track
from dualview.detectors.import_sparse4d import LIDAR_TOP_FROM_EGO
from dualview.detectors.inputs import inputs_from_frames
from dualview.detectors.settings_base import IDENTITY
from dualview.errors import ConfigError

FORMS = {"dual": lambda c: c, "perspective": perspective_only, "bev": bev_only}


def detector_of(config=None, seed=0):
    """Random weights, with everything that starts at zero or one shaken, so that all parts have a say."""
    detector = build_detector(config or small_config(), seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in detector.named_parameters():
            if name != "decoder.initial_anchors":
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return detector


def run(detector, frames, state=None):
    state = detector.initial_state() if state is None else state
    outputs = []
    for frame in frames:
        output, state = detector.step(frame, state)
        outputs.append(output)
    return outputs, state


def drive(config, count=3, **options):
    return [surround_frame(config, seconds=0.1 * i, seed=i, **options) for i in range(count)]


def assert_same(first, second, atol=0.0):
    assert first.track_id.tolist() == second.track_id.tolist()
    for name in ("center", "velocity", "score"):
        assert torch.allclose(getattr(first, name), getattr(second, name), atol=atol, rtol=0), name
    assert torch.allclose(first.size.log(), second.size.log(), atol=atol, rtol=0)
    assert torch.allclose((first.yaw - second.yaw).sin(), torch.zeros(len(first)), atol=max(atol, 1e-7))


@pytest.mark.parametrize("form", FORMS)
def test_step_gives_tracks_and_a_map(form):
    config = FORMS[form](small_config())
    detector = detector_of(config)
    (output, *_), state = run(detector, drive(config))
    tracks = output.tracks
    assert len(tracks) == config.decoder.num_anchors
    assert tracks.score.diff().le(0).all() and tracks.velocity[:, 2].eq(0).all()
    assert sorted(tracks.track_id.tolist()) == list(range(24)) and tracks.label.max() < 3
    assert output.age.shape == output.camera_count.shape == (24,)
    assert output.camera_count.max() >= 1 and output.camera_count.max() <= 3
    assert (output.bev is None) == (form == "perspective")
    if output.bev is not None:
        assert output.bev.features.shape == (32, 24, 24) and output.bev.valid.shape == (24, 24)
        assert 0.5 < output.bev.valid.float().mean() < 1.0
    assert output.times.total > 0 and state.next_track_id >= 24


def test_without_the_map_the_tracks_are_the_same():
    detector = detector_of()
    frame = drive(detector.config)[0]
    whole, _ = detector.step(frame, detector.initial_state())
    tracks_only, _ = detector.step(frame, detector.initial_state(), with_bev_map=False)
    assert whole.bev is not None and tracks_only.bev is None
    assert_same(whole.tracks, tracks_only.tracks)


def test_state_is_a_value():
    detector = detector_of()
    frames = drive(detector.config, 4)
    _, state = run(detector, frames[:2])
    before = state.memory.instances.features.clone()
    first, _ = detector.step(frames[2], state)
    detector.step(frames[3], detector.initial_state())  # another vehicle in between
    second, _ = detector.step(frames[2], state)
    assert_same(first.tracks, second.tracks)
    assert torch.equal(state.memory.instances.features, before)
    assert torch.equal(first.bev.features, second.bev.features)


def test_identities_go_on_and_are_never_used_twice():
    detector = detector_of()
    outputs, state = run(detector, drive(detector.config, 5))
    seen: set[int] = set()
    for previous, output in pairwise(outputs):
        seen |= set(previous.tracks.track_id.tolist())
        kept = [i for i in output.tracks.track_id.tolist() if i in set(previous.tracks.track_id.tolist())]
        assert len(kept) == 12  # as many as are remembered
        fresh = set(output.tracks.track_id.tolist()) - set(kept)
        assert not fresh & seen
    everything = seen | set(outputs[-1].tracks.track_id.tolist())
    assert state.next_track_id > max(everything)
    after_reset, _ = run(detector, drive(detector.config, 2), detector.initial_state(state.next_track_id))
    assert not everything & {i for o in after_reset for i in o.tracks.track_id.tolist()}


def test_age_counts_frames():
    detector = detector_of()
    outputs, _ = run(detector, drive(detector.config, 5))
    born: dict[int, int] = {}
    for index, output in enumerate(outputs):
        for identity, age in zip(output.tracks.track_id.tolist(), output.age.tolist(), strict=True):
            assert age == index - born.setdefault(identity, index)
    assert outputs[-1].age.max() >= 2


def test_identities_may_come_from_the_greedy_tracker():
    """The same boxes, with ids that follow from where they are in the world, from no instance's memory."""
    published = detector_of(small_config())
    following = detector_of(small_config(tracking=GreedyTrackingConfig()))
    frames = drive(published.config, 4)
    expected, _ = run(published, frames)
    outputs, state = run(following, frames)
    for one, other in zip(expected, outputs, strict=True):
        first, second = (o.tracks[o.tracks.center[:, 0].argsort()] for o in (one, other))
        assert torch.equal(first.center, second.center) and torch.equal(first.label, second.label)
        assert len(set(other.tracks.track_id.tolist())) == len(other.tracks)
    tracks = Tracks()
    for frame, output in zip(frames, outputs, strict=True):
        pose = frame.world_from_ego_anchor
        names = following.config.class_names
        again, tracks = track(tracks, output.tracks, pose, frame.stamp_ns, names, GreedyTrackingConfig())
        assert torch.equal(again.boxes.track_id, output.tracks.track_id) and torch.equal(again.age, output.age)
    assert outputs[-1].age.max() >= 1
    everything = {i for output in outputs for i in output.tracks.track_id.tolist()}
    assert state.next_track_id == max(everything) + 1
    after_reset, _ = run(following, frames, following.initial_state(state.next_track_id))
    assert not everything & {i for o in after_reset for i in o.tracks.track_id.tolist()}


def test_only_confident_instances_get_an_identity():
    config = small_config()
    detector = detector_of(config)
    with torch.no_grad():
        inputs = inputs_from_frames(drive(config, 1), config.image_size)
        logits = detector(inputs, detector.decoder.initial_memory()).decoder.class_logits
    threshold = (
        float(logits.amax(-1).sigmoid().median()) + 1e-6
    )  # lies between the 12th and the 13th of 24 instances
    strict = detector_of(replace(config, decoder=replace(config.decoder, id_threshold=0.9999)))
    (output,), state = run(strict, drive(config, 1))
    assert len(output.tracks) == 0 and state.next_track_id == 0 and output.age.shape == (0,)
    reporting = detector_of(replace(config, track_threshold=threshold))
    (output,), state = run(reporting, drive(config, 1))
    assert len(output.tracks) == 12 and state.next_track_id == 24


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("cameras", [1, 2, 7])
def test_any_number_of_cameras(form, cameras):
    config = FORMS[form](small_config())
    outputs, _ = run(detector_of(config), drive(config, 2, cameras=cameras))
    assert all(o.tracks.center.isfinite().all() and o.camera_count.max() <= cameras for o in outputs)


@pytest.mark.parametrize("form", FORMS)
def test_a_masked_camera_does_not_matter(form):
    """Whatever a masked slot holds, the result is that of the rig without it."""
    config = FORMS[form](small_config())
    detector = detector_of(config)
    frame = surround_frame(config, cameras=3, mask=[True, False, True])
    noise = torch.randint(0, 255, frame.images[1].shape, dtype=torch.uint8)
    broken = replace(frame, images=frame.images.clone(), intrinsics=frame.intrinsics.clone())
    broken.images[1], broken.intrinsics[1] = noise, float("nan")
    kept = [0, 2]
    fields = ("images", "camera_stamps_ns", "intrinsics", "ego_from_camera", "world_from_ego", "camera_mask")
    without = replace(frame, **{f: getattr(frame, f)[kept] for f in fields}, camera_names=("a", "b"))
    (masked,), _ = run(detector, [frame])
    (noisy,), _ = run(detector, [broken])
    (fewer,), _ = run(detector, [without])
    assert_same(masked.tracks, noisy.tracks)
    assert_same(masked.tracks, fewer.tracks, atol=2e-4)
    assert masked.camera_count.tolist() == fewer.camera_count.tolist()


def test_all_cameras_masked_is_survived():
    config = small_config()
    frames = [
        *drive(config, 2),
        surround_frame(config, seconds=0.2, mask=[False] * 3),
        surround_frame(config, seconds=0.3),
    ]
    outputs, _ = run(detector_of(config), frames)
    assert all(o.tracks.center.isfinite().all() for o in outputs)
    assert outputs[2].camera_count.eq(0).all() and not outputs[2].bev.valid.any()


def test_the_order_of_the_cameras_does_not_matter():
    config = small_config()
    detector, frame = detector_of(config), surround_frame(config, cameras=4)
    order = [2, 0, 3, 1]
    fields = ("images", "camera_stamps_ns", "intrinsics", "ego_from_camera", "world_from_ego", "camera_mask")
    shuffled = replace(frame, **{f: getattr(frame, f)[order] for f in fields})
    (first,), _ = run(detector, [frame])
    (second,), _ = run(detector, [shuffled])
    assert_same(first.tracks, second.tracks, atol=2e-4)
    assert torch.allclose(first.bev.features, second.bev.features, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_a_batch_is_the_same_as_one_by_one(form):
    config = FORMS[form](small_config())
    detector = detector_of(config)
    frames = [surround_frame(config, seconds=s, seed=i) for i, s in enumerate((0.0, 3.0))]
    with torch.no_grad():
        batch = detector(inputs_from_frames(frames, config.image_size), detector.decoder.initial_memory())
        for index, frame in enumerate(frames):
            single = detector(
                inputs_from_frames([frame], config.image_size), detector.decoder.initial_memory()
            )
            assert torch.allclose(batch.decoder.anchors[index], single.decoder.anchors[0], atol=2e-4)
            assert torch.allclose(
                batch.decoder.class_logits[index], single.decoder.class_logits[0], atol=2e-4
            )


def test_the_working_frame_is_only_a_point_of_view():
    """With another working frame the network sees a vehicle whose ego frame is that frame; results come back
    in ego.
    """
    config = perspective_only(small_config())
    inside = replace(config, working_from_ego=LIDAR_TOP_FROM_EGO)
    frames = drive(config, 3)
    working = inside.working_from_ego_matrix
    seen_from_there = [
        replace(
            f,
            ego_from_camera=(working @ f.ego_from_camera.double()).float(),
            world_from_ego=f.world_from_ego @ torch.linalg.inv(working),
            world_from_ego_anchor=f.world_from_ego_anchor @ torch.linalg.inv(working),
        )
        for f in frames
    ]
    ours, _ = run(detector_of(inside), frames)
    theirs, _ = run(detector_of(config), seen_from_there)
    for first, second in zip(ours, theirs, strict=True):
        assert_same(first.tracks, second.tracks.transformed(torch.linalg.inv(working)), atol=1e-3)
        assert first.camera_count.tolist() == second.camera_count.tolist()


def test_a_still_world_stays_still_while_the_vehicle_drives():
    """Remembered instances are carried by the ego motion: with refinement switched off they keep their place
    in the world.
    """
    config = small_config()
    detector = detector_of(config)
    with torch.no_grad():
        for layer in detector.decoder.layers:
            layer.refinement.box[-1].scale.zero_()
    frames = drive(config, 3)
    outputs, _ = run(detector, frames)
    places: dict[int, torch.Tensor] = {}
    compared = 0
    for frame, output in zip(frames, outputs, strict=True):
        world = output.tracks.transformed(frame.world_from_ego_anchor).center
        for identity, center in zip(output.tracks.track_id.tolist(), world, strict=True):
            compared += identity in places
            assert torch.allclose(places.setdefault(identity, center), center, atol=2e-3)
    assert compared >= 20


def test_training_reaches_every_parameter():
    config = small_config()
    detector = build_detector(config).train()
    frames = [drive(config, 2), drive(config, 2, cameras=3)]
    memory = detector.decoder.initial_memory()
    for pair in zip(*frames, strict=True):
        prediction = detector(inputs_from_frames(pair, config.image_size), memory)
        memory = prediction.memory
    loss = prediction.bev.depth_logits.square().mean() + sum(
        d.log().square().mean() for d in prediction.dense_depth
    )
    for layer in prediction.decoder.layers:
        loss = (
            loss
            + layer.anchors.square().mean()
            + layer.class_logits.square().mean()
            + layer.quality.square().mean()
        )
    loss.backward()
    # The temporal attention of the single-frame layer doesn't exist; everything that does must learn.
    idle = [name for name, p in detector.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not idle, idle
    with pytest.raises(ValueError, match=r"call detector.eval\(\) first"):
        detector.step(frames[0][0], detector.initial_state())


def test_rigs_that_cannot_be_served_are_refused():
    config = small_config()
    detector = detector_of(config)
    state = detector.initial_state()
    with pytest.raises(ConfigError, match="no cameras"):
        detector.step(surround_frame(config, cameras=0), state)
    with pytest.raises(ConfigError, match=r"images are 64x64 .* works at 64x96: build frames with"):
        detector.step(surround_frame(replace(config, image_size=(64, 64))), state)
    frame = surround_frame(config)
    frame.intrinsics[1] = float("nan")
    with pytest.raises(ConfigError, match="camera camera_1 isn't finite: mask this camera"):
        detector.step(frame, state)
    frame = surround_frame(config)
    frame.world_from_ego_anchor[0, 3] = float("inf")
    with pytest.raises(ConfigError, match="finite"):
        detector.step(frame, state)
    with pytest.raises(ConfigError, match="can't share a batch"):
        inputs_from_frames([surround_frame(config), surround_frame(config, cameras=2)], config.image_size)


def test_a_plan_for_a_fixed_rig_can_be_given():
    config = small_config()
    detector = detector_of(config)
    inputs = inputs_from_frames([surround_frame(config)], config.image_size)
    plan = detector.bev_plan(inputs)
    with torch.no_grad():
        given = detector(inputs, detector.decoder.initial_memory(), plan=plan)
        made = detector(inputs, detector.decoder.initial_memory())
    assert torch.equal(given.bev.features, made.bev.features)


def test_exposure_times_are_compensated():
    """A point that stands still lands on its pixel although the camera fires 5 ms and more after the anchor
    stamp.
    """
    config = small_config()
    frame = surround_frame(config, cameras=3, seconds=2.0)
    inputs = inputs_from_frames([frame], config.image_size)
    point = frame.world_from_ego_anchor @ torch.tensor([-6.0, 8.0, 1.0, 1.0], dtype=torch.float64)
    camera = 1
    in_camera = (
        torch.linalg.inv(frame.world_from_ego[camera] @ frame.ego_from_camera[camera].double()) @ point
    )
    expected = frame.intrinsics[camera].double() @ in_camera[:3]
    ego = torch.linalg.inv(frame.world_from_ego_anchor) @ point
    assert torch.allclose((inputs.image_from_working[0, camera] @ ego)[:3], expected, atol=1e-6)
    assert config.working_from_ego == IDENTITY
    assert torch.allclose(inputs.focal_length[0], frame.intrinsics[:, 0, 0])
