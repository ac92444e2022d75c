"""Two-stage pooling by hand, and warping a map against warping the points."""

import math

import pytest
import torch

from dualview.geometry.bev_grid import BevGrid
from dualview.scene.augmentation.bev import BevAugmentation
from dualview.teachers.bev_pooling import BevLabel, join_sums, pool_to_bev, pool_voxels, sum_voxels
from dualview.teachers.feature_cloud import FeatureCloud
from dualview.teachers.label_store import dense_label
from dualview.teachers.label_warp import DenseLabel, warp_label

GRID = BevGrid(-2.0, -1.0, 1.0, 4, 2, z_min=-1.0, z_max=1.0)


def cloud(rows: list[tuple[float, ...]]) -> FeatureCloud:
    """Rows of x, y, z, count, features."""
    table = torch.tensor(rows, dtype=torch.float64)
    return FeatureCloud(table[:, :3], table[:, 4:].float(), table[:, 3].float())


def test_mean_in_voxels_then_mean_of_voxels() -> None:
    label = pool_to_bev(
        cloud(
            [
                (-1.5, 0.5, -0.9, 1, 2.0, 0.0),  # row 1, column 0: ground voxel ...
                (-1.2, 0.1, -0.6, 3, 6.0, 4.0),  # ... whose mean is (5, 3), weighted by the counts
                (-1.9, 0.9, 0.1, 1, 1.0, 9.0),  # one return above it counts as much as the whole ground voxel
                (1.5, -0.5, 0.0, 1, 7.0, 7.0),  # row 0, column 3
                (2.0, 0.5, 0.0, 1, 99.0, 99.0),  # on the far border: outside
                (0.5, 0.5, 1.0, 1, 99.0, 99.0),  # above
                (0.5, -1.1, 0.0, 1, 99.0, 99.0),  # beside
            ]
        ),
        GRID,
        0.5,
    )
    assert label.cells.tolist() == [3, 4]
    torch.testing.assert_close(label.features, torch.tensor([[7.0, 7.0], [3.0, 6.0]]))
    assert label.points.tolist() == [1, 5]


def test_sums_of_parts_are_the_sum() -> None:
    random = torch.Generator().manual_seed(0)
    xyz = torch.rand(500, 3, generator=random, dtype=torch.float64) * 6 - 3
    whole = FeatureCloud(
        xyz, torch.randn(500, 5, generator=random), torch.randint(1, 9, (500,), generator=random).float()
    )
    parts = [sum_voxels(whole[index], GRID, 0.5) for index in torch.arange(500).split(120)]
    joined, direct = pool_voxels(join_sums(parts)), pool_to_bev(whole, GRID, 0.5)
    assert joined.cells.tolist() == direct.cells.tolist()
    torch.testing.assert_close(joined.features, direct.features)
    torch.testing.assert_close(joined.points, direct.points)


def test_nothing_gives_an_empty_map() -> None:
    label = pool_to_bev(FeatureCloud.empty(3), GRID)
    assert len(label) == 0
    dense = dense_label(label, GRID)
    assert dense.features.shape == (3, 2, 4) and not dense.mask.any()


def test_dense_rows_are_y_and_columns_x() -> None:
    label = BevLabel(torch.tensor([4]), torch.tensor([[1.5, -2.0]]), torch.ones(1))
    dense = dense_label(label, GRID)
    assert dense.features.dtype == torch.float16 and dense.mask.nonzero().tolist() == [[1, 0]]
    assert dense.features[:, 1, 0].tolist() == [1.5, -2.0] and dense.features.abs().sum() == 3.5


SQUARE = BevGrid.centered(8.0, 0.5, z_min=-100.0, z_max=100.0)


def field(xy: torch.Tensor) -> torch.Tensor:
    """Two features with gradients of length 0.1 and 0.2 per m."""
    return torch.stack([0.1 * xy[:, 0], 0.12 * xy[:, 0] - 0.16 * xy[:, 1]], 1).float()


def points_of_field(count: int = 60000) -> FeatureCloud:
    xyz = (torch.rand(count, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 0.5) * 24
    xyz[:, 2] = 0
    return FeatureCloud(xyz, field(xyz), torch.ones(count))


def pooled(points: FeatureCloud, augmentation: BevAugmentation) -> DenseLabel:
    moved = FeatureCloud(augmentation.points(points.xyz), points.features, points.count)
    return dense_label(pool_to_bev(moved, SQUARE, 200.0), SQUARE)


@pytest.mark.parametrize(
    "augmentation",
    [BevAugmentation.of(flip_x=True), BevAugmentation.of(flip_y=True), BevAugmentation.of(rotate=math.pi / 2),
     BevAugmentation.of(rotate=math.pi, flip_x=True)],
)  # fmt: skip
def test_warp_by_mirrors_and_quarter_turns_is_exact(augmentation: BevAugmentation) -> None:
    points = points_of_field()
    expected = pooled(points, augmentation)
    warped = warp_label(pooled(points, BevAugmentation.identity()), SQUARE, augmentation.matrix)
    assert bool((warped.mask == expected.mask).all())
    torch.testing.assert_close(warped.features, expected.features, rtol=0, atol=1e-3)  # float16


@pytest.mark.parametrize("rotate, scale, flip", [(0.39, 1.05, True), (-0.2, 0.95, False), (0.05, 1.0, False)])
def test_warp_is_within_half_a_diagonal_of_augmenting_the_points(
    rotate: float, scale: float, flip: bool
) -> None:
    """Both values are means of a field over a cell's area. The places of the cells are half a diagonal apart
    at most (as seen before the augmentation), and the mean of random points is off its centre by their noise.
    """
    augmentation = BevAugmentation.of(rotate, scale, flip)
    points = points_of_field()
    before, expected = pooled(points, BevAugmentation.identity()), pooled(points, augmentation)
    warped = warp_label(before, SQUARE, augmentation.homogeneous)
    both = warped.mask & expected.mask
    center = SQUARE.cell_centers().double() @ torch.linalg.inv(augmentation.matrix)[:2, :2].T
    inside = (center.abs() < 8.0 - 1e-6).all(-1)
    assert bool((warped.mask == (inside & warped.mask)).all()) and both[inside].float().mean() > 0.999
    half_diagonal = 0.5 * SQUARE.resolution * 2**0.5
    noise = 0.12  # m; means of about 26 (at least 8) points spread over 0.5 m
    for channel, gradient in ((0, 0.1), (1, 0.2)):
        error = (warped.features[channel] - expected.features[channel]).abs()[both].float()
        assert error.max() <= gradient * (half_diagonal + noise) + 1e-3
        assert error.mean() <= 0.5 * gradient * half_diagonal * 1.2  # and half of that on average


def test_a_single_cell_lands_where_its_centre_goes() -> None:
    """Against a sign or transposition error: one hot cell, a turn to the left, a shift."""
    hot = DenseLabel(torch.zeros(1, 32, 32).half(), torch.zeros(32, 32, dtype=torch.bool))
    hot.features[0, 16, 28], hot.mask[16, 28] = 3.0, True  # x = 6.25, y = 0.25
    turned = warp_label(hot, SQUARE, BevAugmentation.of(rotate=math.pi / 2).matrix)
    assert turned.mask.nonzero().tolist() == [[28, 15]]  # x = -0.25, y = 6.25
    shift = torch.eye(4, dtype=torch.float64)
    shift[0, 3] = -2.0
    assert warp_label(hot, SQUARE, shift).mask.nonzero().tolist() == [[16, 24]]
    shift[0, 3] = 2.0
    assert not warp_label(hot, SQUARE, shift).mask.any()
