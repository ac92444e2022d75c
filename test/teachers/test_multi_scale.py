"""Crops at several scales come back exactly where they were cut."""

import torch
from torch import Tensor
from torch.nn import functional

from dualview.teachers.multi_scale import EnsembleSettings, ensemble_features, window_starts


class PatchMeans:
    """A teacher whose features are the mean colour of each patch."""

    channels, stride = 3, 4

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def __call__(self, images: Tensor, /) -> Tensor:
        self.seen.append(tuple(images.shape))
        return functional.avg_pool2d(images, self.stride)


def test_windows_of_the_published_size() -> None:
    assert window_starts(896, 1) == [0]
    assert window_starts(896, 2) == [0, 224, 448]
    assert window_starts(1596, 2) == [0, 399, 798]
    assert window_starts(896, 3) == [-1, 149, 299, 449, 599]  # 299 px windows, 150 apart, 3 px of padding
    assert EnsembleSettings((1, 2, 3)).passes() == 35


def test_windows_tile_the_image() -> None:
    for length in range(24, 120, 7):
        for scale in (1, 2, 3, 4):
            starts, window = window_starts(length, scale), -(-length // scale)
            covered = {p for start in starts for p in range(start, start + window)}
            assert covered >= set(range(length))
            low, high = -starts[0], starts[-1] + window - length
            assert low >= 0 and 0 <= high - low <= 1  # the same on both sides, but for an odd pixel


def test_a_ramp_comes_back_as_a_ramp() -> None:
    """Every scale and crop of an image that is linear in place must give the value at the cell's centre."""
    height, width = 48, 96
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    image = torch.stack([x, y, 0 * x + 7.0])
    for scales in ((1,), (2,), (1, 2), (3,)):
        teacher = PatchMeans()
        features = ensemble_features(teacher, image, EnsembleSettings(scales, batch=3))
        assert features.shape == (3, 24, 48)
        assert {shape[2:] for shape in teacher.seen} == {(48, 96)} and max(s[0] for s in teacher.seen) <= 3
        inner = (slice(4, -4), slice(4, -4))  # at a crop's edge there is nothing to interpolate with
        center_x, center_y = (torch.arange(48) + 0.5) * 2, (torch.arange(24) + 0.5) * 2
        if scales == (1,):
            torch.testing.assert_close(features[0][inner], center_x.expand(24, 48)[inner])
            torch.testing.assert_close(features[1][inner], center_y[:, None].expand(24, 48)[inner])
        else:  # crops overlap everywhere inside, so an edge cell (off by at most a pixel) is averaged in
            assert (features[0] - center_x).abs()[inner].max() <= 1.0
            assert (features[1] - center_y[:, None]).abs()[inner].max() <= 1.0
            assert (features[0] - center_x).mean().abs() < 0.05  # and no shift
        torch.testing.assert_close(features[2][inner], torch.full((16, 40), 7.0))


def test_scales_are_averaged_not_summed() -> None:
    image = torch.randn(3, 48, 96, generator=torch.Generator().manual_seed(0))
    one, two, both = (
        ensemble_features(PatchMeans(), image, EnsembleSettings(scales)) for scales in ((1,), (2,), (1, 2))
    )
    torch.testing.assert_close(both, (one + two) / 2)
