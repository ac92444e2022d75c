"""Adapters between student and teacher maps, and maps brought to another grid."""

import pytest
import torch
from torch.nn import functional

from dualview.geometry.bev_grid import BevGrid
from dualview.networks.distillation_adapter import DistillationAdapters, resample_bev

GRID = BevGrid(-8.0, -6.0, 1.0, 16, 12)


def test_adapters_change_channels_only():
    adapters = DistillationAdapters(4, 6)
    assert adapters.embed(torch.zeros(5, 4, 3, 3)).shape == (5, 6, 3, 3)
    assert adapters.imitate(torch.zeros(2, 4, 12, 16)).shape == (2, 6, 12, 16)
    assert adapters.imitate(torch.randn(2, 4, 12, 16)).min() < 0  # no activation at the end


def test_what_is_not_asked_for_has_no_weights():
    assert not list(DistillationAdapters(4, 6, embed=False, imitate=False).parameters())
    assert all(name.startswith("embed.") for name in DistillationAdapters(4, 6, imitate=False).state_dict())


def test_equal_grids_leave_the_map_alone():
    bev = torch.randn(1, 2, 12, 16)
    assert resample_bev(bev, GRID, BevGrid(-8.0, -6.0, 1.0, 16, 12)) is bev


def test_a_finer_grid_is_bilinear_interpolation():
    bev = torch.randn(2, 3, 12, 16, dtype=torch.float64)
    fine = BevGrid(-8.0, -6.0, 0.5, 32, 24)
    expected = functional.interpolate(bev, scale_factor=2, mode="bilinear", align_corners=False)
    assert torch.allclose(resample_bev(bev, GRID, fine), expected, atol=1e-6)


def test_a_smaller_range_reads_its_own_place():
    places = GRID.cell_centers().permute(2, 0, 1)[None]
    part = BevGrid(-2.0, 1.0, 0.5, 8, 6)
    assert torch.allclose(
        resample_bev(places, GRID, part)[0].permute(1, 2, 0), part.cell_centers(), atol=1e-5
    )


def test_a_larger_range_and_a_foreign_grid_are_refused():
    with pytest.raises(ValueError, match="beyond"):
        resample_bev(torch.zeros(1, 2, 12, 16), GRID, BevGrid.centered(10.0, 1.0))
    with pytest.raises(ValueError, match="own grid"):
        resample_bev(torch.zeros(1, 2, 16, 16), GRID, GRID)
