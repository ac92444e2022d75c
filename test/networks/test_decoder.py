import copy
import dataclasses

import pytest
import torch
from rig_example import BATCH, DIMS, ring_views
from torch import Tensor

from dualview.geometry.bev_grid import BevGrid
from dualview.networks.anchor_encoder import AnchorEncoderConfig
from dualview.networks.bev_aggregation import BevView
from dualview.networks.box_state import STATE_SIZE, spiral_anchors
from dualview.networks.class_evidence import ClassEvidence
from dualview.networks.decoder import Decoder, DecoderOutput
from dualview.networks.decoder_config import DecoderConfig
from dualview.networks.denoising_queries import DenoisingQueries
from dualview.networks.instance_memory import InstanceMemory
from dualview.networks.perspective_aggregation import CameraViews
from dualview.networks.reference_quirks import ReferenceQuirks

CONFIG = DecoderConfig(
    class_count=3,
    embed_dims=DIMS,
    num_groups=4,
    num_levels=2,
    num_anchors=20,
    num_temporal=12,
    num_layers=3,
    feedforward_dims=32,
    attention_heads=4,
    anchor_encoder=AnchorEncoderConfig(dims=(8, 2, 2, 4)),
    id_threshold=None,
)
VARIANTS = {
    "both": CONFIG,
    "perspective": dataclasses.replace(CONFIG, use_bev=False),
    "bev": dataclasses.replace(CONFIG, use_perspective=False),
    "added": dataclasses.replace(CONFIG, perspective_residual="add"),
    "coupled": dataclasses.replace(CONFIG, decouple_attention=False),
    "two single-frame layers": dataclasses.replace(CONFIG, num_single_frame_layers=2),
}


def build(config: DecoderConfig = CONFIG) -> Decoder:
    torch.manual_seed(0)
    decoder = Decoder(config, spiral_anchors(config.num_anchors, 25.0)).eval()
    for name, parameter in decoder.named_parameters():
        if name.endswith("weights.weight"):  # zero at the start: then no attention would depend on anything
            torch.nn.init.normal_(parameter, std=0.3)
    return decoder


def bev_view(seed: int = 0) -> BevView:
    generator = torch.Generator().manual_seed(seed)
    return BevView(torch.randn(BATCH, DIMS, 40, 40, generator=generator), BevGrid.centered(20.0, 1.0))


def pose(x: float = 0.0) -> Tensor:
    world_from_working = torch.eye(4, dtype=torch.float64).repeat(BATCH, 1, 1)
    world_from_working[:, 0, 3] = x
    return world_from_working


def run(
    decoder: Decoder,
    memory: InstanceMemory,
    when: list[float],
    seed: int = 0,
    views: CameraViews | None = None,
    **more,
) -> DecoderOutput:
    views = ring_views(3, seed) if views is None else views
    stamps = torch.tensor(when, dtype=torch.float64)
    return decoder(views, bev_view(seed), stamps, pose(), memory, **more)


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_variants_run_over_frames(config) -> None:
    decoder, memory = build(config), InstanceMemory()
    for t in range(3):
        output = run(decoder, memory, [0.5 * t] * BATCH, seed=t)
        memory = output.memory
        assert output.anchors.shape == (BATCH, 20, 11) and output.anchors.isfinite().all()
        given = [layer.class_logits is not None for layer in output.layers]
        joins = config.num_single_frame_layers - 1
        assert given == [index in (joins, config.num_layers - 1) for index in range(config.num_layers)]
        assert memory.instances.features.shape == (BATCH, 12, DIMS)
        assert bool(output.history_valid.all()) == (t > 0)


def test_the_order_of_the_paper() -> None:
    first = ("deformable_bev", "norm", "deformable", "ffn", "norm", "refine")
    assert CONFIG.operations(0) == first
    assert CONFIG.operations(1) == ("temp_gnn", "gnn", "norm", *first)
    perspective = VARIANTS["perspective"]
    assert perspective.operations(1) == ("temp_gnn", "gnn", "norm", "deformable", "ffn", "norm", "refine")
    assert VARIANTS["bev"].operations(0) == ("deformable_bev", "ffn", "norm", "refine")


@pytest.mark.parametrize("name", ["both", "perspective", "bev"])
def test_reads_exactly_the_views_it_is_configured_for(name) -> None:
    decoder = build(VARIANTS[name])
    stamps = torch.zeros(BATCH, dtype=torch.float64)

    def boxes(views: CameraViews | None, bev: BevView | None) -> Tensor:
        return decoder(views, bev, stamps, pose(), InstanceMemory()).anchors

    plain = boxes(ring_views(3), bev_view())
    assert torch.equal(plain, boxes(ring_views(3, seed=5), bev_view())) == (name == "bev")
    assert torch.equal(plain, boxes(ring_views(3), bev_view(5))) == (name == "perspective")
    if name != "bev":
        with pytest.raises(ValueError, match="give CameraViews"):
            boxes(None, bev_view())
    if name != "perspective":
        with pytest.raises(ValueError, match="give a BevView"):
            boxes(ring_views(3), None)


def test_a_sample_after_a_long_gap_starts_afresh() -> None:
    """Boxes, features and confidences equal those of a decoder that has seen nothing; ids go on counting."""
    decoder = build()
    memory = run(decoder, InstanceMemory(), [0.0, 0.0]).memory
    mixed = run(decoder, memory, [0.5, 9.0], seed=1)
    fresh = run(decoder, InstanceMemory(), [0.5, 9.0], seed=1)
    assert mixed.history_valid.tolist() == [True, False]
    torch.testing.assert_close(mixed.anchors[1], fresh.anchors[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(
        mixed.memory.instances.confidence[1], fresh.memory.instances.confidence[1], atol=1e-6, rtol=0
    )
    assert not torch.allclose(mixed.anchors[0], fresh.anchors[0], atol=1e-2)
    assert mixed.track_ids[1].min() >= memory.next_track_id
    both = run(decoder, memory, [9.0, 9.0], seed=1)
    torch.testing.assert_close(both.anchors, fresh.anchors, atol=1e-5, rtol=0)
    quirks = ReferenceQuirks(stale_history=True)
    stale = build(dataclasses.replace(CONFIG, quirks=quirks))
    assert not torch.allclose(run(stale, memory, [0.5, 9.0], seed=1).anchors[1], fresh.anchors[1], atol=1e-3)


def test_samples_of_a_batch_are_independent() -> None:
    decoder = build()
    memory = run(decoder, InstanceMemory(), [0.0, 0.0]).memory
    together = run(decoder, memory, [0.5, 0.6], seed=1)
    views, bev = ring_views(3, 1), bev_view(1)
    for b in range(BATCH):
        part = slice(b, b + 1)
        instances = memory.instances
        own = InstanceMemory(
            7,
            type(instances)(
                **{f.name: getattr(instances, f.name)[part] for f in dataclasses.fields(instances)}
            ),
        )
        alone = decoder(
            CameraViews([level[part] for level in views.features], views.projection[part], views.image_size),
            BevView(bev.features[part], bev.grid),
            torch.tensor([0.5 + 0.1 * b], dtype=torch.float64),
            pose()[part],
            own,
        )
        torch.testing.assert_close(alone.anchors[0], together.anchors[b], atol=1e-4, rtol=0)


def test_order_of_the_cameras_does_not_matter() -> None:
    views, order = ring_views(4), [2, 0, 3, 1]
    shuffled = CameraViews(
        [level[:, order] for level in views.features], views.projection[:, order], views.image_size
    )
    decoder = build()
    first = run(decoder, InstanceMemory(), [0.0, 0.0], views=views)
    second = run(decoder, InstanceMemory(), [0.0, 0.0], views=shuffled)
    torch.testing.assert_close(first.anchors, second.anchors, atol=1e-4, rtol=0)


def test_no_state_hides_in_the_module() -> None:
    """The same memory and frame give the same result, whatever the decoder did in between."""
    decoder = build()
    before = copy.deepcopy(decoder.state_dict())
    memory = run(decoder, InstanceMemory(), [0.0, 0.0]).memory
    first = run(decoder, memory, [0.5, 0.5], seed=1)
    run(decoder, first.memory, [1.0, 1.0], seed=2)
    again = run(decoder, memory, [0.5, 0.5], seed=1)
    assert torch.equal(first.anchors, again.anchors) and torch.equal(first.track_ids, again.track_ids)
    assert first.memory.next_track_id == again.memory.next_track_id
    assert all(torch.equal(value, before[name]) for name, value in decoder.state_dict().items())


def noisy(decoder: Decoder, groups: int = 3, size: int = 4) -> DenoisingQueries:
    return DenoisingQueries(spiral_anchors(groups * size, 15.0).expand(BATCH, -1, -1).clone(), groups)


@pytest.mark.parametrize("with_memory", [False, True])
def test_denoising_groups_stay_among_themselves(with_memory) -> None:
    """Another group's anchors change neither this group's output nor the ordinary instances'."""
    decoder = build(
        dataclasses.replace(CONFIG, attention_dropout=0.0, feedforward_dropout=0.0, point_dropout=0.0)
    )
    decoder.train()
    memory = run(decoder, InstanceMemory(), [0.0, 0.0]).memory if with_memory else InstanceMemory()
    queries = noisy(decoder)
    disturbed = queries.anchors.clone()
    disturbed[:, 4:8] += 2.0
    plain = run(decoder, memory, [0.5, 0.5], denoising=queries)
    other = run(decoder, memory, [0.5, 0.5], denoising=dataclasses.replace(queries, anchors=disturbed))
    without = run(decoder, memory, [0.5, 0.5])
    for layer, changed, alone in zip(plain.layers, other.layers, without.layers, strict=True):
        torch.testing.assert_close(layer.anchors, changed.anchors, atol=1e-5, rtol=0)
        torch.testing.assert_close(layer.anchors, alone.anchors, atol=1e-4, rtol=0)
    first, second = plain.denoising.anchors, other.denoising.anchors
    torch.testing.assert_close(first[:, [*range(4), *range(8, 12)]], second[:, [*range(4), *range(8, 12)]])
    assert not torch.allclose(first[:, 4:8], second[:, 4:8], atol=0.1)


def test_training_gives_every_layer_and_gradients_to_every_parameter() -> None:
    decoder = build().train()
    memory = run(decoder, InstanceMemory(), [0.0, 0.0]).memory
    assert (memory.instances.track_ids == -1).all() and memory.next_track_id == 0
    output = run(decoder, memory, [0.5, 0.5], seed=1)
    loss = sum(
        layer.anchors.sum() + layer.class_logits.sum() + layer.quality.sum() for layer in output.layers
    )
    loss.backward()
    missing = [
        name for name, p in decoder.named_parameters() if p.grad is None or not p.grad.isfinite().all()
    ]
    assert not missing


def test_masked_camera_changes_nothing_whatever_it_shows() -> None:
    decoder = build(VARIANTS["perspective"])
    mask = torch.tensor([[True, False, True]] * BATCH)

    def boxes(filling: float) -> Tensor:
        views = ring_views(3)
        for level in views.features:
            level[:, 1] = filling
        masked = CameraViews(views.features, views.projection, views.image_size, mask)
        return run(decoder, InstanceMemory(), [0.0, 0.0], views=masked).anchors

    assert torch.equal(boxes(0.0), boxes(1e4)) and torch.equal(boxes(0.0), boxes(float("nan")))


def test_autocast_keeps_boxes_in_full_precision() -> None:
    decoder = build()
    exact = run(decoder, InstanceMemory(), [0.0, 0.0])
    with torch.autocast("cpu", torch.bfloat16):
        rounded = run(decoder, InstanceMemory(), [0.0, 0.0])
        run(decoder, rounded.memory, [0.5, 0.5], seed=1)
    assert rounded.anchors.dtype == torch.float32
    assert (rounded.anchors - exact.anchors).abs().max() < 0.25


def test_impossible_configurations_are_refused() -> None:
    for change, message in (
        ({"use_perspective": False, "use_bev": False}, "must read something"),
        ({"num_temporal": 20}, "num_temporal"),
        ({"num_single_frame_layers": 4}, "num_single_frame_layers"),
        ({"embed_dims": 32}, "anchor encoder"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(CONFIG, **change)
    with pytest.raises(ValueError, match=r"anchors must be \[20, 11\]"):
        Decoder(CONFIG, torch.zeros(5, 11))


def test_one_instance_speaks_for_a_place_and_keeps_its_id() -> None:
    """Three instances start at one object in every frame, beside the remembered one."""
    decoder = build(dataclasses.replace(CONFIG, duplicate_distance=1.0, id_threshold=0.3))
    decoder.start_from_what_is_known()
    heat = torch.full((BATCH, 3, 40, 40), -9.0)
    heat[:, 1, 20:22, 10:12] = 2.0
    evidence = ClassEvidence(heat, BevGrid.centered(20.0, 1.0))
    proposals = torch.zeros(BATCH, 3, STATE_SIZE)
    proposals[..., :2] = torch.tensor([[-9.0, 1.0], [-9.2, 1.1], [-8.8, 0.9]])
    proposals[..., 3:6] = torch.tensor([4.0, 2.0, 1.5]).log()
    proposals[..., 7] = 1.0
    found, memory = [], InstanceMemory()
    for t in range(4):
        output = run(decoder, memory, [0.5 * t] * BATCH, seed=t, proposals=proposals, evidence=evidence)
        memory = output.memory
        sure = output.class_logits.amax(-1).sigmoid() > 0.3
        assert (sure.sum(1) == 1).all()
        found.append(output.track_ids[sure])
    assert (found[0] >= 0).all() and len(set(found[0].tolist())) == BATCH
    assert all(torch.equal(ids, found[0]) for ids in found)

    silent = dataclasses.replace(decoder.config, duplicate_distance=None)
    decoder.config = silent
    output = run(decoder, InstanceMemory(), [0.0] * BATCH, proposals=proposals, evidence=evidence)
    assert ((output.class_logits.amax(-1).sigmoid() > 0.3).sum(1) == 3).all()
