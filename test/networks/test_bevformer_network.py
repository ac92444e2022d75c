"""BEVFormer's attention, memory and decoder: brute-force definitions, ego motion, batches, masks, gradients."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dualview.geometry.bev_grid import BevGrid
from dualview.networks.bevformer_camera_attention import (
    SpatialCrossAttention,
    bevformer_pillars,
    seen_first,
    view_pillars,
)
from dualview.networks.bevformer_config import BevFormerConfig, BevFormerQuirks
from dualview.networks.bevformer_decoder import BevFormerDecoder, inverse_sigmoid
from dualview.networks.bevformer_encoder import BevFormerEncoder
from dualview.networks.bevformer_memory import (
    BevMemory,
    RememberedMap,
    motion_vector,
    quaternion,
    recall_bev,
    turn_map,
)
from dualview.networks.pillar_attention import PillarViews
from dualview.networks.temporal_self_attention import TemporalSelfAttention

GRID = BevGrid.centered(8.0, 2.0)
OURS = BevFormerQuirks()
EGO = torch.eye(4, dtype=torch.float64)


def shaken(module, seed=0):
    """Random weights everywhere, so that nothing hides behind a zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def sampled(image: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Bilinear value [C] of image [C, h, w] at (x, y) in 0..1, zero outside."""
    rows, columns = image.shape[1:]
    x, y = x * columns - 0.5, y * rows - 0.5
    left, top = int(torch.floor(x)), int(torch.floor(y))
    value = torch.zeros(len(image), dtype=image.dtype)
    for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        if 0 <= column < columns and 0 <= row < rows:
            value += image[:, row, column] * (1 - (x - column).abs()) * (1 - (y - row).abs())
    return value


@torch.no_grad()
def test_camera_attention_is_the_definition() -> None:
    """Every camera, head, level and point by itself; samples of a batch see different queries."""
    torch.manual_seed(0)
    batch, cameras, queries, dims, heads, points, heights = 2, 3, 5, 8, 2, 4, 2
    module = shaken(SpatialCrossAttention(dims, heads, 2, points, heights))
    features = [torch.randn(batch, cameras, dims, 4, 6), torch.randn(batch, cameras, dims, 2, 3)]
    views = PillarViews(
        torch.rand(batch, cameras, queries, heights, 2), torch.rand(batch, cameras, queries, heights) > 0.6
    )
    query = torch.randn(batch, queries, dims)
    found = module(query, features, views)
    seen_by = views.visible.any(-1)
    assert seen_by[0].tolist() != seen_by[1].tolist() and not seen_by.all() and seen_by.any(1).any()
    width = dims // heads
    for b in range(batch):
        for q in range(queries):
            offsets = module.offsets(query[b, q]).view(heads, 2, points, 2)
            weights = module.weights(query[b, q]).view(heads, -1).softmax(-1).view(heads, 2, points)
            total = torch.zeros(dims)
            for v in range(cameras):
                if not seen_by[b, v, q]:
                    continue
                for h in range(heads):
                    for level, maps in enumerate(features):
                        image = module.value(maps[b, v].permute(1, 2, 0)).permute(2, 0, 1)
                        image = image[h * width : (h + 1) * width]
                        for p in range(points):
                            place = views.locations[b, v, q, p % heights]
                            x = place[0] + offsets[h, level, p, 0] / maps.shape[-1]
                            y = place[1] + offsets[h, level, p, 1] / maps.shape[-2]
                            value = sampled(image, x, y) * weights[h, level, p]
                            total[h * width : (h + 1) * width] += value
            total = total / max(int(seen_by[b, :, q].sum()), 1)
            torch.testing.assert_close(found[b, q], query[b, q] + module.output(total), atol=2e-5, rtol=1e-5)


@torch.no_grad()
def test_temporal_attention_is_the_definition() -> None:
    torch.manual_seed(1)
    batch, rows, columns, dims, heads, points = 2, 2, 3, 8, 2, 3
    queries = rows * columns
    module = shaken(TemporalSelfAttention(dims, heads, points))
    query, previous, current = (torch.randn(batch, queries, dims) for _ in range(3))
    position, references = torch.randn(1, queries, dims), torch.rand(batch, 2, queries, 2)
    found = module(query, position, previous, current, references, (rows, columns))
    width = dims // heads
    for b in range(batch):
        for q in range(queries):
            seen = torch.cat([previous[b, q], query[b, q] + position[0, q]])
            offsets = module.offsets(seen).view(heads, 2, points, 2)
            weights = module.weights(seen).view(heads, 2, points).softmax(-1)
            total = torch.zeros(dims)
            for index, tokens in enumerate((previous, current)):
                image = module.value(tokens[b]).view(rows, columns, dims).permute(2, 0, 1)
                for h in range(heads):
                    own = slice(h * width, (h + 1) * width)
                    for p in range(points):
                        x = references[b, index, q, 0] + offsets[h, index, p, 0] / columns
                        y = references[b, index, q, 1] + offsets[h, index, p, 1] / rows
                        total[own] += sampled(image[own], x, y) * weights[h, index, p] / 2
            torch.testing.assert_close(found[b, q], query[b, q] + module.output(total), atol=2e-5, rtol=1e-5)


def test_seen_first() -> None:
    order, valid = seen_first(torch.tensor([[False, True, False, True], [False, False, True, False]]))
    assert order[0].tolist() == [1, 3] and valid.tolist() == [[True, True], [True, False]]
    assert order[1, 0] == 2
    order, valid = seen_first(torch.zeros(2, 3, dtype=torch.bool))
    assert order.shape == (2, 1) and not valid.any()


def test_pillars_are_seen_strictly_inside_and_in_front() -> None:
    """A camera at the origin that looks along x: cells behind it and a masked camera see nothing."""
    points = bevformer_pillars(GRID, 4)
    assert points.shape == (64, 4, 3)
    torch.testing.assert_close(points[0, :, 2], torch.tensor([-4.5, -4.5 + 7 / 3, -4.5 + 14 / 3, 2.5]))
    torch.testing.assert_close(points[9, 0, :2], torch.tensor([-5.0, -5.0]))
    camera_from_ego = torch.tensor([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    intrinsics = torch.tensor([[40.0, 0, 40, 0], [0, 40, 20, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    matrix = (intrinsics @ camera_from_ego).expand(1, 2, 4, 4)
    views = view_pillars(points, matrix, torch.tensor([[True, False]]), (40, 80))
    assert not views.visible[0, 1].any()
    ahead = points[..., 0] > 0
    expected = ahead & (points[..., 1].abs() < points[..., 0]) & (points[..., 2].abs() < points[..., 0] / 2)
    assert torch.equal(views.visible[0, 0], expected) and expected.any()
    assert views.locations.isfinite().all()


# The previous map.


def pose(x: float, y: float, yaw: float) -> Tensor:
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:2, :2] = torch.tensor([[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]])
    matrix[0, 3], matrix[1, 3] = x, y
    return matrix


def landmarks(grid: BevGrid, world_from_ego: Tensor, world: Tensor) -> Tensor:
    """A map [1, 1, Y, X] of a smooth still world: Gaussian bumps (2.5 m) at world points [K, 2]."""
    cells = grid.cell_centers().double()
    places = cells @ world_from_ego[:2, :2].T + world_from_ego[:2, 3]
    distance = (places.unsqueeze(2) - world).norm(dim=-1)
    return (-(distance**2) / (2 * 2.5**2)).exp().sum(-1)[None, None].float()


@pytest.mark.parametrize("motion", [(1.0, 0.0, 0.0), (0.0, -1.5, 0.0), (0.0, 0.0, 0.3), (2.0, 0.5, -0.4)])
def test_a_still_world_stays_in_place(motion) -> None:
    """Reading the turned map at cell + shift gives the present map, whatever the heading in the world."""
    grid = BevGrid.centered(20.0, 1.0)
    world = torch.tensor([[3.0, 2.0], [-4.0, 5.0], [1.0, -6.0]], dtype=torch.float64)
    before = pose(0.5, -0.5, 2.2)
    now = before @ pose(*motion)
    memory = BevMemory(
        RememberedMap(landmarks(grid, before, world), torch.zeros(1, dtype=torch.float64), before[None])
    )
    stamps = torch.full((1,), 0.4, dtype=torch.float64)
    previous = recall_bev(memory, stamps, now[None], grid, 2.0, OURS)
    assert previous.valid.all()
    turned = previous.tokens.transpose(1, 2).unflatten(2, (grid.rows, grid.columns))
    cells = grid.normalized(grid.cell_centers()) + previous.shift[0]
    read = torch.nn.functional.grid_sample(turned, 2 * cells[None] - 1, align_corners=False)
    expected = landmarks(grid, now, world)
    inner = slice(8, -8)
    error = (read - expected)[..., inner, inner].abs().max()
    unmoved = (memory.map.features - expected)[..., inner, inner].abs().max()
    assert error < 0.06 and unmoved > 3 * error


def test_turning_by_a_quarter_moves_cells_exactly() -> None:
    values = torch.randn(1, 2, 8, 8)
    for quirks in (OURS, replace(OURS, nearest_rotation=True)):
        turned = turn_map(values, torch.tensor([math.pi / 2]), GRID, quirks)
        # what lay to the left is ahead after a left turn: out(x, y) = in(-y, x)
        torch.testing.assert_close(turned, values.rot90(1, (-2, -1)), atol=1e-5, rtol=0)
    aside = turn_map(values, torch.tensor([math.pi / 2]), GRID, replace(OURS, rotation_center=(100.0, 100.0)))
    assert not aside.any()  # the published centre lies far outside such a grid


def test_memory_that_is_too_old_or_restarted_is_not_used() -> None:
    features = torch.randn(2, 4, 8, 8)
    poses = torch.stack([pose(0, 0, 0), pose(5, 0, 0.1)])
    memory = BevMemory(RememberedMap(features, torch.tensor([0.0, 9.0], dtype=torch.float64), poses))
    stamps = torch.tensor([10.0, 10.0], dtype=torch.float64)
    previous = recall_bev(memory, stamps, poses, GRID, 2.0, OURS)
    assert previous.valid.tolist() == [False, True]
    assert not previous.tokens[0].any() and previous.tokens[1].any() and not previous.shift.any()

    spoilt = BevMemory(replace(memory.map, features=features.clone()))
    spoilt.map.features[1, 0, 0, 0] = torch.nan
    assert spoilt.broken().tolist() == [False, True] and BevMemory().broken() is None
    fresh = spoilt.restarted(torch.tensor([False, True]))
    assert fresh.map.features.isfinite().all() and torch.equal(fresh.map.features[0], features[0])
    assert not recall_bev(fresh, stamps, poses, GRID, 20.0, OURS).valid[1]
    assert spoilt.restarted(torch.tensor([False, False])) is spoilt
    with pytest.raises(ValueError, match="holds 2 samples but the frame has 1"):
        recall_bev(memory, stamps[:1], poses[:1], GRID, 2.0, OURS)


def test_motion_is_told_relative_to_the_vehicle() -> None:
    before, step = pose(100.0, 50.0, 1.0), pose(2.0, 0.1, 0.2)
    stamps = torch.tensor([0.5], dtype=torch.float64)

    def vector(start: Tensor, quirks: BevFormerQuirks) -> Tensor:
        memory = BevMemory(
            RememberedMap(torch.zeros(1, 1, 8, 8), torch.zeros(1, dtype=torch.float64), start[None])
        )
        return motion_vector(memory, stamps, (start @ step)[None], EGO, 2.0, quirks)[0]

    ours = vector(before, OURS)
    torch.testing.assert_close(ours, vector(pose(-7, 3, -2.0), OURS), atol=1e-4, rtol=0)
    along = torch.tensor([2 * math.cos(0.2) + 0.1 * math.sin(0.2), 0.1 * math.cos(0.2) - 2 * math.sin(0.2)])
    torch.testing.assert_close(ours[:2], along, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours[13:15], along / 0.5, atol=1e-4, rtol=0)
    assert ours[17] == pytest.approx(math.degrees(0.2), abs=1e-4) and ours[12] == pytest.approx(0.4, abs=1e-5)
    published = vector(before, replace(OURS, world_motion=True))
    moved = (before @ step)[:2, 3] - before[:2, 3]
    torch.testing.assert_close(published[:2], moved.float(), atol=1e-4, rtol=0)
    assert published[16] == pytest.approx(1.2, abs=1e-5)
    # the published vector is the ego frame's, whatever the working frame
    from_ego = torch.linalg.inv(pose(0.9, 0.0, math.pi / 2))
    seen = BevMemory(
        RememberedMap(
            torch.zeros(1, 1, 8, 8),
            torch.zeros(1, dtype=torch.float64),
            (before @ torch.linalg.inv(from_ego))[None],
        )
    )
    world_from_working = (before @ step @ torch.linalg.inv(from_ego))[None]
    elsewhere = motion_vector(
        seen, stamps, world_from_working, from_ego, 2.0, replace(OURS, world_motion=True)
    )
    torch.testing.assert_close(elsewhere[0], published, atol=1e-4, rtol=0)
    first = motion_vector(BevMemory(), stamps, before[None], EGO, 2.0, OURS)[0]
    assert first.nonzero().flatten().tolist() == [3]  # the quaternion of no rotation


def test_quaternions() -> None:
    from scipy.spatial.transform import Rotation

    rotations = Rotation.random(20, random_state=0)
    matrices = torch.eye(4, dtype=torch.float64).repeat(20, 1, 1)
    matrices[:, :3, :3] = torch.from_numpy(rotations.as_matrix())
    expected = torch.from_numpy(rotations.as_quat(canonical=True))[:, [3, 0, 1, 2]]
    torch.testing.assert_close(quaternion(matrices), expected, atol=1e-7, rtol=0)


# Encoder and decoder.


def small(**changes) -> BevFormerConfig:
    values = {
        "class_count": 3, "embed_dims": 16, "grid": GRID, "heads": 2, "encoder_layers": 2, "decoder_layers": 2,
        "feedforward_dims": 16, "num_levels": 2, "heights": 2, "camera_points": 4, "num_queries": 6, "camera_count": None,
    }  # fmt: skip
    return BevFormerConfig(**(values | changes))


def arguments(batch: int, cameras: int = 3, dims: int = 16, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    features = [torch.randn(batch, cameras, dims, *size, generator=generator) for size in ((4, 6), (2, 3))]
    matrix = torch.tensor([[-40.0, -40, 0, 5], [-20, 0, -40, 3], [-1, 0, 0, 9], [0, 0, 0, 1]])
    matrix = matrix + 0.3 * torch.randn(batch, cameras, 4, 4, generator=generator)
    matrix[..., 3, :] = torch.tensor([0.0, 0, 0, 1])
    mask = torch.ones(batch, cameras, dtype=torch.bool)
    return features, matrix, mask, (40, 80), torch.randn(batch, 18, generator=generator)


def history(batch: int, valid: list[bool], dims: int = 16):
    stamps = torch.where(torch.tensor(valid), 0.0, -100.0).double()
    poses = torch.stack([pose(i, 0, 0.1 * i) for i in range(batch)])
    memory = BevMemory(RememberedMap(torch.randn(batch, dims, 8, 8), stamps, poses))
    now = torch.full((batch,), 0.3, dtype=torch.float64)
    return recall_bev(memory, now, poses @ pose(1.0, 0.1, 0.1), GRID, 2.0, OURS)


@torch.no_grad()
def test_samples_of_a_batch_do_not_mix() -> None:
    """Also where only one of them has a previous map, and where the cameras are placed differently."""
    encoder = shaken(BevFormerEncoder(small()))
    features, matrix, mask, size, motion = arguments(2)
    previous = history(2, [True, False])
    both = encoder(features, matrix, mask, size, motion, previous)
    one = replace(previous, tokens=previous.tokens[:1], shift=previous.shift[:1], valid=previous.valid[:1])
    alone = [
        encoder([f[i : i + 1] for f in features], matrix[i : i + 1], mask[i : i + 1], size, motion[i : i + 1], kept)
        for i, kept in enumerate((one, None))
    ]  # fmt: skip
    torch.testing.assert_close(both, torch.cat(alone), atol=2e-5, rtol=1e-4)
    without = encoder(features, matrix, mask, size, motion, None)
    assert (both[0] - without[0]).abs().max() > 1e-2  # the previous map has a say


@torch.no_grad()
def test_a_masked_camera_and_their_order_do_not_matter() -> None:
    encoder = shaken(BevFormerEncoder(small()))
    features, matrix, mask, size, motion = arguments(1)
    mask[0, 1] = False
    masked = encoder(features, matrix, mask, size, motion, None)
    kept = [2, 0]
    fewer = encoder([f[:, kept] for f in features], matrix[:, kept], mask[:, kept], size, motion, None)
    torch.testing.assert_close(masked, fewer, atol=2e-5, rtol=1e-4)


def test_camera_embeddings_limit_the_number_of_cameras() -> None:
    encoder = BevFormerEncoder(small(camera_count=2)).eval()
    features, matrix, mask, size, motion = arguments(1)
    with pytest.raises(ValueError, match="3 cameras, this encoder has embeddings for 2"):
        encoder(features, matrix, mask, size, motion, None)


def test_training_reaches_every_parameter() -> None:
    config = small(camera_count=3)
    encoder, decoder = BevFormerEncoder(config), BevFormerDecoder(config)
    features, matrix, mask, size, motion = arguments(2)
    bev = encoder(features, matrix, mask, size, motion, history(2, [True, True]))
    found = decoder(bev, all_classes=True)
    loss = sum(layer.anchors.square().mean() + layer.class_logits.square().mean() for layer in found.layers)
    loss.backward()
    named = [*encoder.named_parameters(), *decoder.named_parameters()]
    assert not [name for name, p in named if p.grad is None or not p.grad.isfinite().all()]


@torch.no_grad()
def test_boxes_lie_in_the_range_of_the_grid_and_refine_a_detached_reference() -> None:
    decoder = shaken(BevFormerDecoder(small()))
    found = decoder(torch.randn(2, 16, 8, 8))
    assert found.layers[0].class_logits is None and found.class_logits.shape == (2, 6, 3)
    for layer in found.layers:
        assert layer.anchors.shape == (2, 6, 11) and not layer.anchors[..., 10].any()
        assert (layer.anchors[..., :2].abs() <= 8).all()
        assert ((layer.anchors[..., 2] >= -5) & (layer.anchors[..., 2] <= 3)).all()
    with torch.no_grad():
        for branch in decoder.box_branches:
            branch[-1].weight.zero_()
            branch[-1].bias.zero_()
    still = decoder(torch.randn(2, 16, 8, 8))
    torch.testing.assert_close(still.layers[0].anchors, still.layers[1].anchors, atol=1e-4, rtol=0)
    ends = inverse_sigmoid(torch.tensor([-0.5, 0.0, 0.5, 1.0]))
    assert ends.isfinite().all() and ends[2] == 0 and ends[3] == -ends[1]


def test_configurations_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of the 3 heights"):
        small(heights=3)
    with pytest.raises(ValueError, match="embed_dims 18"):
        small(embed_dims=18)
    with pytest.raises(ValueError, match="camera_count"):
        small(camera_count=0)
