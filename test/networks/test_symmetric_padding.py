"""Strided convolutions with symmetric padding: the same numbers as with TensorFlow's."""

import pytest
import torch
from torch import nn

from dualview.networks.fold_norms import same_numbers
from dualview.networks.image_backbone import ImageBackbone
from dualview.networks.symmetric_padding import pad_symmetrically
from dualview.networks.torchvision_shim import import_timm

Conv2dSame = import_timm().layers.Conv2dSame


@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize("bias", [True, False])
def test_the_same_numbers_on_even_maps(size: int, bias: bool) -> None:
    network = nn.Sequential(Conv2dSame(4, 4, size, 2, groups=4, bias=bias))
    image = torch.randn(2, 4, 10, 14)
    expected = network(image)
    pad_symmetrically(network)
    assert type(network[0]) is nn.Conv2d
    torch.testing.assert_close(network(image), expected)


def test_others_stay() -> None:
    """Dense ones, whose zeros would cost more than the copy; of other strides; and those that pad evenly anyway."""
    layers = [
        Conv2dSame(4, 4, 3, 2), Conv2dSame(4, 4, 3, 1, groups=4), Conv2dSame(4, 4, 2, 2, groups=4),
        Conv2dSame(4, 4, 3, 2, dilation=2, groups=4), nn.Conv2d(4, 4, 3, 2, groups=4),
    ]  # fmt: skip
    network = nn.Sequential(*layers)
    pad_symmetrically(network)
    assert list(network) == layers


def test_a_whole_backbone() -> None:
    backbone = ImageBackbone("tf_efficientnet_lite0", (8, 16, 32)).eval()
    padded = ImageBackbone("tf_efficientnet_lite0", (8, 16, 32)).eval()
    padded.load_state_dict(backbone.state_dict())
    pad_symmetrically(padded)
    counts = [sum(isinstance(m, Conv2dSame) for m in network.modules()) for network in (backbone, padded)]
    assert counts == [5, 1]
    assert same_numbers(backbone, padded, torch.randn(1, 3, 64, 96), tolerance=1e-4)
