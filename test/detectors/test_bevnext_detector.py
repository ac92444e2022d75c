"""BEVNeXt's branch inside the detector: step is forward, the state is a value, slots restart alone, masks hold."""

from dataclasses import replace

import pytest
import torch
from detector_frames import bev_only, small_config, surround_frame

from dualview.detectors.checkpoint import build_detector, fold_for_inference, load_checkpoint, save_checkpoint
from dualview.detectors.inputs import image_colors, inputs_from_frames, normalize_images
from dualview.detectors.json_config import override
from dualview.detectors.presets import preset_config
from dualview.errors import ConfigError
from dualview.networks.bev_history import BevHistoryConfig
from dualview.networks.conditional_random_field_depth import DepthFieldConfig
from dualview.networks.dual_memory import DualMemory
from dualview.networks.perspective_refinement import PerspectiveRefinementConfig
from dualview.training.stream_state import StreamState, from_plain, to_plain

PARTS = {
    "depth_field": {"depth_field": DepthFieldConfig(3, weight=0.1)},
    "history": {"history": BevHistoryConfig(frames=2, interval=0.2)},
    "refinement": {"refinement": PerspectiveRefinementConfig(heads=2, points=4, heights=2)},
    "res2": {"encoder_style": "res2", "encoder_channels": (16, 32), "context_deformable": True},
}
PARTS["all"] = {name: value for part in PARTS.values() for name, value in part.items()}
SECONDS = (0.0, 0.25, 0.35, 0.6, 0.9)


def with_parts(name: str, config=None):
    config = config or small_config()
    return replace(config, bev=replace(config.bev, **PARTS[name]))


def detector_of(config, seed: int = 0):
    """Random weights, with everything that starts at zero or one shaken, so that all parts have a say."""
    detector = build_detector(config, seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in detector.named_parameters():
            if name != "decoder.initial_anchors":
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return detector


def frames(config, count: int = 5, first_seed: int = 0, mask=None):
    return [
        surround_frame(config, seconds=s, seed=first_seed + i, mask=mask)
        for i, s in enumerate(SECONDS[:count])
    ]


def maps_of(detector, drive, state=None):
    """BEV maps of a drive by `step`, and the last state."""
    state = detector.initial_state() if state is None else state
    maps = []
    for frame in drive:
        output, state = detector.step(frame, state)
        maps.append(output.bev.features)
    return maps, state


def equal_histories(first, second, atol: float = 0.0) -> bool:
    pairs = zip(to_plain(first).values(), to_plain(second).values(), strict=True)
    return all(torch.allclose(a.double(), b.double(), atol=atol, rtol=0) for a, b in pairs)


@pytest.mark.parametrize("form", ["dual", "bev"])
@pytest.mark.parametrize("name", PARTS)
def test_step_is_forward(name: str, form: str) -> None:
    config = with_parts(name, bev_only(small_config()) if form == "bev" else None)
    detector = detector_of(config)
    maps, state = maps_of(detector, frames(config))
    memory = detector.initial_memory()
    with torch.no_grad():
        for frame, expected in zip(frames(config), maps, strict=True):
            prediction = detector(inputs_from_frames([frame], config.image_size), memory)
            memory = prediction.memory
            assert torch.equal(prediction.bev.features[0], expected)
    assert torch.equal(prediction.memory.instances.anchors, state.memory.instances.anchors)
    history, held = DualMemory.history_of(memory), DualMemory.history_of(state.memory)
    assert (history is not None) == (config.bev.history is not None)
    if history is not None:
        assert equal_histories(history, held) and history.valid.all()
    assert state.next_track_id >= 24


@pytest.mark.parametrize("name", PARTS)
def test_every_part_has_a_say_and_learns(name: str) -> None:
    config = with_parts(name)
    detector = detector_of(config)
    drive = frames(config, 3)
    plain = build_detector(small_config())
    new = set(detector.state_dict()) - set(plain.state_dict())
    assert new and all(key.startswith("bev_branch.") for key in new)
    detector.train()
    memory = detector.initial_memory()
    for frame in drive:
        prediction = detector(inputs_from_frames([frame, frame], config.image_size), memory)
        memory = prediction.memory
    generator = torch.Generator().manual_seed(0)
    judged = (prediction.bev.features, prediction.bev.depth_logits.softmax(2))
    sum((x * torch.randn(x.shape, generator=generator)).sum() for x in judged).backward()
    for key, parameter in detector.bev_branch.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
    touched = sum(bool(p.grad.abs().max() > 0) for p in detector.bev_branch.parameters())
    assert touched >= 0.9 * len(list(detector.bev_branch.parameters()))
    assert all(p.grad is not None for p in detector.image_backbone.parameters())


def test_what_was_seen_before_matters_and_no_gradient_goes_there() -> None:
    config = with_parts("history")
    detector = detector_of(config)
    first, second = frames(config, 2)
    (_, after), _ = maps_of(detector, [first, second])
    (alone,), _ = maps_of(detector, [second])
    assert not torch.allclose(after, alone, atol=1e-3)
    detector.train()
    inputs = [inputs_from_frames([f, f], config.image_size) for f in (first, second)]
    inputs[0].images.requires_grad_()
    memory = detector(inputs[0], detector.initial_memory()).memory
    detector(inputs[1], memory).bev.features.sum().backward()
    assert inputs[0].images.grad is None


def test_state_is_a_value() -> None:
    config = with_parts("all")
    detector = detector_of(config)
    drive = frames(config, 4)
    _, state = maps_of(detector, drive[:3])
    before = DualMemory.history_of(state.memory).maps.clone()
    (first,), _ = maps_of(detector, drive[3:], state)
    maps_of(detector, frames(config, 2, first_seed=50))  # another vehicle in between
    (second,), _ = maps_of(detector, drive[3:], state)
    assert torch.equal(first, second) and torch.equal(DualMemory.history_of(state.memory).maps, before)


def test_a_slot_restarts_alone() -> None:
    """Slots of a stream, one of which starts a new clip: each sees what it would see by itself."""
    config = with_parts("all")
    detector = detector_of(config)
    left, right, fresh = (frames(config, 4, first_seed=s) for s in (0, 20, 40))
    stream = StreamState()
    with torch.no_grad():
        for index in range(4):
            batch = [left[index], right[index] if index < 2 else fresh[index]]
            stream = stream.restarted(torch.tensor([index == 0, index in (0, 2)]))
            prediction = detector(inputs_from_frames(batch, config.image_size), stream.memory)
            stream = StreamState(prediction.memory)
            assert not stream.broken_slots().any()
    (*_, whole), whole_state = maps_of(detector, left)
    (*_, short), short_state = maps_of(detector, fresh[2:])
    assert torch.allclose(prediction.bev.features[0], whole, atol=2e-4)
    assert torch.allclose(prediction.bev.features[1], short, atol=2e-4)
    history = DualMemory.history_of(stream.memory)
    assert history.valid.tolist() == [
        DualMemory.history_of(s.memory).valid[0].tolist() for s in (whole_state, short_state)
    ]


def test_a_slot_that_is_not_finite_is_found_and_forgotten() -> None:
    config = with_parts("history")
    detector = detector_of(config)
    inputs = inputs_from_frames([f for f in frames(config, 1) for _ in range(2)], config.image_size)
    with torch.no_grad():
        memory = detector(inputs, detector.initial_memory()).memory
    DualMemory.history_of(memory).maps[1, 0, 0, 0, 0] = float("inf")
    stream = StreamState(memory)
    assert stream.broken_slots().tolist() == [False, True]
    assert not stream.restarted(stream.broken_slots()).broken_slots().any()


def test_a_stream_survives_a_file(tmp_path) -> None:
    config = with_parts("all")
    detector = detector_of(config)
    inputs = inputs_from_frames(frames(config, 1), config.image_size)
    with torch.no_grad():
        with_maps = StreamState(detector(inputs, detector.initial_memory()).memory)
        # The decoder rests in the first steps of some trainings: then there are maps and no instances.
        resting = StreamState(detector(inputs, detector.initial_memory(), with_instances=False).memory)
    for number, stream in enumerate((with_maps, resting, StreamState())):
        torch.save(to_plain(stream), tmp_path / f"{number}.pt")
        back = from_plain(StreamState, torch.load(tmp_path / f"{number}.pt", weights_only=True))
        assert type(back.memory) is type(stream.memory)
        held, history = DualMemory.history_of(back.memory), DualMemory.history_of(stream.memory)
        assert (held is None) == (history is None) and (held is None or equal_histories(held, history))
        assert (back.memory.instances is None) == (stream.memory.instances is None)


@pytest.mark.parametrize("name", PARTS)
def test_a_masked_camera_does_not_matter(name: str) -> None:
    config = with_parts(name)
    detector = detector_of(config)
    drive = frames(config, 3, mask=[True, False, True])
    broken = []
    for index, frame in enumerate(drive):
        noise = surround_frame(config, seed=99 + index).images[1]
        copy = replace(frame, images=frame.images.clone(), intrinsics=frame.intrinsics.clone())
        copy.images[1], copy.intrinsics[1] = noise, float("nan")
        broken.append(copy)
    kept = [0, 2]
    fields = ("images", "camera_stamps_ns", "intrinsics", "ego_from_camera", "world_from_ego", "camera_mask")
    fewer = [replace(f, **{n: getattr(f, n)[kept] for n in fields}, camera_names=("a", "b")) for f in drive]
    masked, noisy, without = (maps_of(detector, d)[0][-1] for d in (drive, broken, fewer))
    assert torch.equal(masked, noisy) and torch.allclose(masked, without, atol=2e-4)


def test_the_colors_are_those_of_the_images() -> None:
    images = torch.randint(0, 256, (1, 2, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(image_colors(normalize_images(images)), images.float())


def test_the_random_field_takes_the_colors_that_it_is_given() -> None:
    """Training changes the images; the field is told their own colours."""
    config = small_config()
    config = replace(
        config, bev=replace(config.bev, depth_field=DepthFieldConfig(3, color_scale=20.0, weight=0.5))
    )
    detector, (frame,) = detector_of(config), frames(config, 1)
    inputs = inputs_from_frames([frame], config.image_size)

    def depth(given):
        with torch.no_grad():
            return detector.encode_bev(detector.encode_images(inputs.images), given).depth_logits

    plain = depth(inputs)
    assert torch.equal(depth(replace(inputs, colors=image_colors(inputs.images))), plain)
    assert not torch.allclose(
        depth(replace(inputs, colors=torch.zeros_like(inputs.images))), plain, atol=1e-3
    )


def test_a_checkpoint_holds_everything_and_folding_changes_nothing(tmp_path) -> None:
    config = with_parts("all")
    detector = detector_of(config)
    save_checkpoint(detector, tmp_path / "small.safetensors")
    again = load_checkpoint(tmp_path / "small.safetensors").eval()
    assert again.config == config
    drive = frames(config, 3)
    (*_, expected), _ = maps_of(detector, drive)
    (*_, loaded), _ = maps_of(again, drive)
    (*_, folded), _ = maps_of(fold_for_inference(again), drive)
    assert torch.equal(loaded, expected) and torch.allclose(folded, expected, atol=2e-3)


def test_presets_hold_the_parts_and_the_others_do_not() -> None:
    for name in ("dualview-bevnext-r50", "dualview-bevnext-tiny"):
        bev = preset_config(name).bev
        assert bev.depth_field and bev.history and bev.refinement
    paper = preset_config("dualview-bevnext-r50").bev
    assert (paper.context_channels, paper.encoder_channels) == (160, (320, 640, 1280))
    assert paper.history.frames == 8 and paper.depth_field.iterations == 20 and paper.depth_bins.count == 118
    for name in ("dualview-tiny", "dualview-r50"):
        bev = preset_config(name).bev
        assert bev.depth_field is bev.refinement is None and bev.encoder_style == "residual"
        assert not bev.context_deformable
    assert preset_config("dualview-r50").bev.history is None
    assert preset_config("dualview-tiny").bev.history.frames == 1  # speeds need a second moment, no more


def test_what_does_not_go_together_is_named() -> None:
    with pytest.raises(
        ConfigError, match=r"context_channels 8 must be a multiple of twice refinement\.heads"
    ):
        override(small_config(), {"bev.refinement": {"heads": 3}})
    with pytest.raises(ConfigError, match=r"multiple of history\.scales"):
        override(small_config(), {"bev.history": {"frames": 3}})
    detector = detector_of(with_parts("depth_field"))
    inputs = inputs_from_frames(frames(detector.config, 1), detector.config.image_size)
    features = detector.encode_images(inputs.images)[1]
    with pytest.raises(ValueError, match="give it the instant"):
        detector.bev_branch(features, torch.zeros(1, 3, 27), detector.bev_plan(inputs))
