"""Whatever is augmented, a box still projects onto the pixels that show it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dualview.geometry.boxes import Boxes3D
from dualview.geometry.rigid import invert_rigid
from dualview.scene.augmentation.bev import BevAugmentation, BevAugmentationSettings
from dualview.scene.augmentation.image import ImageAugmentation, ImageAugmentationSettings
from dualview.scene.frame import SurroundFrame

SIZE = (64, 96)

image_augmentations = st.builds(
    lambda resize, offset, flip, rotate: ImageAugmentation.of(SIZE, resize, offset, flip, rotate),
    st.floats(0.8, 1.3), st.floats(0, 1), st.booleans(), st.floats(-0.2, 0.2),
)  # fmt: skip
bev_augmentations = st.builds(
    lambda rotate, scale, x, y: BevAugmentation.of(rotate, scale, x, y),
    st.floats(-math.pi, math.pi), st.floats(0.8, 1.25), st.booleans(), st.booleans(),
)  # fmt: skip
angles = st.floats(-math.pi, math.pi)


def rigid(x: float, y: float, z: float, yaw: float, pitch: float = 0.0) -> torch.Tensor:
    turn = torch.eye(4, dtype=torch.float64)
    cy, sy, cp, sp = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    about_z = torch.tensor([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]], dtype=torch.float64)
    about_y = torch.tensor([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]], dtype=torch.float64)
    turn[:3, :3] = about_z @ about_y
    turn[:3, 3] = torch.tensor([x, y, z], dtype=torch.float64)
    return turn


def frame_at(yaw: float, speed: float, images: torch.Tensor | None = None) -> SurroundFrame:
    """Two cameras (ahead, behind) that fire at different places of a moving, turning vehicle."""
    optical = torch.tensor([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]], dtype=torch.float64)
    anchor = rigid(1000.0, -500.0, 3.0, yaw, 0.02)
    intrinsics = torch.tensor([[60.0, 0, 48], [0, 60, 32], [0, 0, 1]]).repeat(2, 1, 1)
    return SurroundFrame(
        stamp_ns=10**9,
        images=torch.zeros(2, 3, *SIZE, dtype=torch.uint8) if images is None else images,
        camera_stamps_ns=torch.tensor([10**9, 10**9 + 30_000_000]),
        intrinsics=intrinsics,
        ego_from_camera=torch.stack(
            [rigid(1.5, 0.1, 1.5, 0) @ optical, rigid(-1, 0, 1.6, math.pi) @ optical]
        ).float(),
        world_from_ego=torch.stack([anchor, anchor @ rigid(speed * 0.03, 0, 0, 0.004)]),
        world_from_ego_anchor=anchor,
        camera_mask=torch.ones(2, dtype=torch.bool),
    )


def some_boxes(seed: int) -> Boxes3D:
    random = np.random.default_rng(seed)
    count = 6
    return Boxes3D(
        center=torch.from_numpy(random.uniform([-30, -20, -1], [30, 20, 2], (count, 3))),
        size=torch.from_numpy(random.uniform([3, 1, 1], [10, 3, 3], (count, 3))),
        yaw=torch.from_numpy(random.uniform(-math.pi, math.pi, count)),
        velocity=torch.from_numpy(random.uniform(-10, 10, (count, 3))),
        label=torch.zeros(count, dtype=torch.int64),
        score=torch.ones(count, dtype=torch.float64),
        track_id=torch.arange(count),
    )


def project(image_from_points: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """points [P, 3] -> pixels [V, P, 2] and depth [V, P]."""
    homogeneous = torch.cat([points, torch.ones_like(points[:, :1])], -1)
    projected = torch.einsum("vij,pj->vpi", image_from_points, homogeneous)
    return projected[..., :2] / projected[..., 2:3], projected[..., 2]


def corner_set(boxes: Boxes3D) -> torch.Tensor:
    return boxes.corners().flatten(0, 1)


@given(image_augmentations, bev_augmentations, angles, st.floats(-20, 20), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_augmented_boxes_project_where_augmented_projections_lie(image, bev, yaw, speed, seed) -> None:
    frame, boxes = frame_at(yaw, speed), some_boxes(seed)
    pixels, depth = project(frame.image_from_ego_anchor(), corner_set(boxes))
    expected = image.pixels(pixels)

    augmented = image.apply(frame)
    matrices = bev.projection(augmented.image_from_ego_anchor())
    # A mirrored box has its corners in another order: compare them where the augmentation moved each.
    moved = bev.points(corner_set(boxes))
    found, found_depth = project(matrices, moved)
    seen = depth > 0.5
    assert torch.allclose(found[seen], expected[seen], atol=2e-2, rtol=1e-4)  # intrinsics are float32
    assert torch.allclose(found_depth, depth, atol=1e-6)  # depth along the optical axis stays in metres

    corners = corner_set(bev.boxes(boxes)).unflatten(0, (-1, 8))
    nearest = torch.cdist(moved.unflatten(0, (-1, 8)), corners).amin(-1)
    assert float(nearest.max()) < 1e-6


@given(bev_augmentations, angles, angles, st.floats(-15, 15), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_still_objects_stay_still_in_the_augmented_world(bev, first_yaw, second_yaw, distance, seed) -> None:
    first, second = rigid(100, 50, 0, first_yaw), rigid(100 + distance, 52, 0, second_yaw)
    in_first = some_boxes(seed)
    in_second = in_first.transformed(invert_rigid(second) @ first)
    motion = invert_rigid(bev.pose(second)) @ bev.pose(first)
    carried = bev.boxes(in_first).transformed(motion)
    wanted = bev.boxes(in_second)
    assert torch.allclose(carried.center, wanted.center, atol=1e-6)
    assert torch.allclose(carried.velocity, wanted.velocity, atol=1e-6)
    assert torch.allclose((carried.yaw - wanted.yaw).cos(), torch.ones(6, dtype=torch.float64))
    rotation = bev.pose(first)[:3, :3]
    assert torch.allclose(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), atol=1e-9)
    assert float(rotation.det()) == pytest.approx(1.0)


@given(bev_augmentations, st.integers(0, 1000), st.floats(0.05, 1.0))
@settings(max_examples=30, deadline=None)
def test_velocity_is_the_motion_of_the_centre(bev, seed, elapsed) -> None:
    boxes = some_boxes(seed)
    later = BevAugmentation.boxes(
        bev, boxes.__class__(**{**boxes.__dict__, "center": boxes.center + elapsed * boxes.velocity})
    )
    now = bev.boxes(boxes)
    assert torch.allclose(later.center, now.center + elapsed * now.velocity, atol=1e-9)


@given(image_augmentations, st.floats(20, 76), st.floats(16, 48))
@settings(max_examples=40, deadline=None)
def test_pixels_move_as_the_matrix_says(image, u, v) -> None:
    """The bright spot's centroid in the augmented picture is the augmented centroid, to a tenth of a pixel."""
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]] + 0.5
    blob = 250 * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * 2.5**2))
    picture = torch.from_numpy(np.broadcast_to(blob, (1, 3, *SIZE)).astype(np.uint8).copy())
    target = image.pixels(torch.tensor([u, v], dtype=torch.float64))
    if not (10 < target[0] < SIZE[1] - 10 and 10 < target[1] < SIZE[0] - 10):
        return
    result = image.images(picture)[0, 0].double().numpy()
    source = picture[0, 0].double().numpy()
    before = image.pixels(
        torch.tensor([(source * x).sum() / source.sum(), (source * y).sum() / source.sum()])
    )
    assert (result * x).sum() / result.sum() == pytest.approx(float(before[0]), abs=0.1)
    assert (result * y).sum() / result.sum() == pytest.approx(float(before[1]), abs=0.1)


def test_identity_changes_nothing() -> None:
    frame = frame_at(0.3, 5.0, torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8))
    same = ImageAugmentation.identity().apply(frame)
    assert torch.equal(same.images, frame.images) and torch.equal(same.intrinsics, frame.intrinsics)
    boxes = some_boxes(1)
    assert torch.allclose(BevAugmentation.identity().boxes(boxes).center, boxes.center)


def test_unknown_velocities_stay_unknown() -> None:
    boxes = some_boxes(2)
    boxes.velocity[0] = float("nan")
    velocity = BevAugmentation.of(0.4, 1.1, True).boxes(boxes).velocity
    assert velocity[0].isnan().all() and velocity[1:].isfinite().all()


def test_draws_stay_in_their_ranges_and_follow_the_seed() -> None:
    chosen = BevAugmentationSettings(rotate=10, scale=(0.9, 1.1))
    draws = [BevAugmentation.draw(np.random.default_rng(seed), chosen) for seed in range(200)]
    assert all(0.9 - 1e-9 <= draw.scale <= 1.1 + 1e-9 for draw in draws)
    assert {bool(draw.matrix.det() < 0) for draw in draws} == {True, False}
    image = ImageAugmentationSettings(rotate=0.0, flip=False, resize=(1.0, 1.0))
    still = ImageAugmentation.draw(np.random.default_rng(3), SIZE, image)
    assert torch.allclose(still.augmented_from_original, torch.eye(3, dtype=torch.float64))
    wild = ImageAugmentationSettings()
    first, second = (ImageAugmentation.draw(np.random.default_rng(5), SIZE, wild) for _ in range(2))
    assert torch.equal(first.augmented_from_original, second.augmented_from_original)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="resize"):
        ImageAugmentationSettings(resize=(1.2, 0.9))
    with pytest.raises(ValueError, match="scale"):
        BevAugmentationSettings(scale=(0.0, 1.0))
