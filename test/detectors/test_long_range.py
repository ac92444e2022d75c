"""Argoverse 2's presets: instances to 150 m beside a map of 51.2 m."""

from dataclasses import replace

import pytest
import torch
from detector_frames import small_config, surround_frame

from dualview.detectors.checkpoint import build_detector
from dualview.detectors.inputs import inputs_from_frames
from dualview.detectors.presets import preset_config
from dualview.geometry.bev_grid import BevGrid
from dualview.networks.bev_aggregation import BevAggregation
from dualview.networks.box_state import planar_distance, spiral_anchors
from dualview.networks.decoder_config import DecoderConfig
from dualview.scene.class_maps import ARGOVERSE2_CLASSES
from dualview.scene.rig import load_rig
from dualview.supervision.ground_truth import GroundTruth
from dualview.training.losses import LossPlan
from dualview.training.recipe import load_recipe
from dualview.training.recipe_settings import LossSettings

PRESETS = ("dualview-r50-argoverse2", "dualview-tiny-argoverse2")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_argoverses_cameras_classes_and_reach(name: str) -> None:
    config = preset_config(name)
    assert config.class_names == ARGOVERSE2_CLASSES and config.decoder.class_count == 26
    assert config.camera_names == load_rig("argoverse2").camera_names
    assert config.bev.grid == BevGrid.centered(51.2, 0.8) and config.decoder.bev_validity_mask
    with torch.device("meta"):
        detector = build_detector(config, 0)
    assert detector.decoder.initial_anchors.shape == (config.decoder.num_anchors, 11)
    distance = planar_distance(spiral_anchors(config.decoder.num_anchors, config.decoder.anchor_range))
    assert 150.0 < distance.max() < 152.4, "anchors reach where labels are"
    assert (distance > 51.2 * 2**0.5).float().mean() > 0.5, "most of them begin off the map"


def test_the_published_sizes() -> None:
    config = preset_config("dualview-r50-argoverse2")
    assert (config.image_size, config.decoder.num_anchors, config.decoder.num_temporal) == (
        (640, 960),
        1800,
        1200,
    )
    assert (config.bev.image_stride, config.bev.depth_bins.count) == (16, 118)


def test_the_range_of_untrained_anchors_is_a_setting() -> None:
    assert DecoderConfig().anchor_range == 55.0, "presets that exist keep their weights"
    near, far = (
        build_detector(
            replace(small_config(), decoder=replace(small_config().decoder, anchor_range=reach)), 0
        )
        for reach in (55.0, 152.4)
    )
    count = small_config().decoder.num_anchors
    assert torch.equal(near.decoder.initial_anchors, spiral_anchors(count))
    assert torch.equal(far.decoder.initial_anchors, spiral_anchors(count, 152.4))
    with pytest.raises(ValueError, match="anchor_range 0 must be above zero"):
        DecoderConfig(anchor_range=0.0)


def far_detector(config, bias: float = 0.5):
    """All anchors between 60 and 150 m, off the map of +-24 m; the BEV views have a bias that would show."""
    detector = build_detector(config, 0).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in detector.modules():
            if isinstance(module, BevAggregation):
                module.output_projection.bias.fill_(bias)
                module.weights.weight.normal_(generator=generator)
        anchors = detector.decoder.initial_anchors
        angle = torch.linspace(0, 6.2, len(anchors))
        radius = torch.linspace(60.0, 150.0, len(anchors))
        anchors[:, 0], anchors[:, 1] = radius * angle.cos(), radius * angle.sin()
    return detector


def decoded(detector, config, seed: int = 0, change=None):
    """Two frames; `change` makes another BEV map of the branch's."""
    hook = None
    if change is not None:
        hook = detector.bev_branch.register_forward_hook(
            lambda _module, _given, found: replace(found, features=change(found.features))
        )
    memory, outputs = detector.decoder.initial_memory(), []
    for index in range(2):
        frame = surround_frame(config, cameras=6, seconds=0.5 * index, seed=seed + index)
        prediction = detector(inputs_from_frames([frame], config.image_size), memory)
        memory = prediction.memory
        outputs.append(prediction.decoder)
    if hook is not None:
        hook.remove()
    return outputs


def test_a_detector_whose_instances_are_all_far_away_depends_on_no_map_but_on_the_images() -> None:
    """Through all layers, attention and memory: bit for bit the same with any BEV map, and another with other images."""
    config = small_config()
    detector = far_detector(config)
    with torch.no_grad():
        normal = decoded(detector, config)
        for output in normal:
            edge = 24.0 + 5.0
            assert (output.anchors[..., :2].abs().amax(-1) > edge).all(), (
                "refinement left them all off the map"
            )
        for change in (torch.zeros_like, lambda f: f * 1e4 - 7, lambda f: torch.full_like(f, float("nan"))):
            for before, after in zip(normal, decoded(detector, config, change=change), strict=True):
                assert torch.equal(before.anchors, after.anchors)
                assert torch.equal(before.class_logits, after.class_logits)
        elsewhere = decoded(detector, config, seed=50)
        assert not torch.equal(normal[1].class_logits, elsewhere[1].class_logits)
        masked = replace(config, decoder=replace(config.decoder, bev_validity_mask=False))
        unmasked = far_detector(masked)
        assert not torch.equal(decoded(unmasked, masked)[0].class_logits, normal[0].class_logits), (
            "the mask did it"
        )


@pytest.mark.parametrize("where", ["far", "everywhere"])
def test_training_with_labels_to_150_m_has_finite_gradients(where: str) -> None:
    """Labels at 20, 80 and 140 m. Far instances alone send the BEV branch no gradient at all."""
    config = small_config(dense_depth_levels=0)
    detector = far_detector(config) if where == "far" else build_detector(
        replace(config, decoder=replace(config.decoder, anchor_range=152.4)), 0
    )  # fmt: skip
    detector.train()
    inputs = inputs_from_frames([surround_frame(config, cameras=6)], config.image_size)
    prediction = detector(inputs, detector.decoder.initial_memory())
    boxes = torch.tensor(
        [
            [20.0, 3.0, 0.5, 4.5, 1.9, 1.6, 0.3, 1.0, 0.0],
            [-80.0, 10.0, 0.5, 4.5, 1.9, 1.6, 0.3, 1.0, 0.0],
            [100.0, -98.0, 0.5, 12.0, 2.5, 3.0, -2.3, 0.0, 2.0],
        ]
    )
    truth = GroundTruth(boxes, torch.tensor([0, 0, 1]), torch.tensor([4, 5, 6]))
    plan = LossPlan.of(config, LossSettings(denoising=None, box_threshold=0.0))
    losses = plan.losses(prediction, [truth], torch.zeros(1, 6, *config.image_size))
    total = torch.stack([loss for name, loss in losses.items() if "depth" not in name]).sum()
    total.backward()
    assert total.isfinite()
    gradients = {n: p.grad for n, p in detector.named_parameters() if p.grad is not None}
    assert gradients and all(gradient.isfinite().all() for gradient in gradients.values())
    branch = sum(float(g.abs().sum()) for n, g in gradients.items() if n.startswith("bev_branch"))
    assert (branch == 0.0) == (where == "far")
    assert sum(float(g.abs().sum()) for n, g in gradients.items() if n.startswith("image_backbone")) > 0


def test_bollards_cones_and_barrels_have_no_front() -> None:
    """The classes whose headings the published configuration lets be reversed; nuScenes' barriers stay so."""
    plan = LossPlan.of(preset_config("dualview-tiny-argoverse2"), LossSettings())
    names = {ARGOVERSE2_CLASSES[i] for i in plan.detection.reversible_classes}
    assert names == {"BOLLARD", "CONSTRUCTION_CONE", "CONSTRUCTION_BARREL"}
    plain = LossPlan.of(preset_config("dualview-tiny"), LossSettings())
    assert [preset_config("dualview-tiny").class_names[i] for i in plain.detection.reversible_classes] == [
        "barrier"
    ]


def test_the_recipe_learns_as_far_as_anchors_reach() -> None:
    recipe = load_recipe("dualview_r50_argoverse2")
    assert recipe.data.max_range == recipe.detector_config().decoder.anchor_range
    assert recipe.losses.max_depth == 150.0 and recipe.data.rig == "argoverse2"
    assert set(load_rig(recipe.data.rig).class_names) == set(recipe.detector_config().class_names)
