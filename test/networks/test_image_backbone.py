"""Backbones by name and stride."""

import pytest
import torch

from dualview.networks.image_backbone import ImageBackbone


@pytest.mark.parametrize("name", ["efficientnet_lite0", "mobilenetv3_small_100", "resnet18"])
def test_maps_have_the_strides_and_channels_that_are_promised(name):
    backbone = ImageBackbone(name, (8, 16, 32)).eval()
    features = backbone(torch.zeros(1, 3, 64, 96))
    assert [tuple(f.shape) for f in features] == [
        (1, c, 64 // s, 96 // s) for c, s in zip(backbone.channels, backbone.strides, strict=True)
    ]


def test_width_changes_only_the_width():
    full, narrow = ImageBackbone("resnet18", widths=(64, 64)), ImageBackbone("resnet18", widths=(8, 16))
    assert list(full.state_dict()) == [k for k in narrow.state_dict() if ".layer1.0.downsample" not in k]
    assert narrow.channels == (16, 32, 64, 128)
    assert narrow(torch.zeros(1, 3, 64, 64))[0].shape == (1, 16, 16, 16)


def test_recomputing_gives_the_same_gradients():
    torch.manual_seed(0)
    plain = ImageBackbone("resnet18", (32,), widths=(8, 8))
    saving = ImageBackbone("resnet18", (32,), widths=(8, 8), recompute=True)
    saving.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 64, 64)
    for backbone in (plain, saving):
        backbone(images)[0].square().sum().backward()
    pairs = zip(plain.parameters(), saving.parameters(), strict=True)
    assert all(torch.allclose(a.grad, b.grad, atol=1e-6) for a, b in pairs)


def test_unknown_names_and_strides_are_named():
    with pytest.raises(ValueError, match=r"no backbone 'resnet5000'; close names are .*resnet"):
        ImageBackbone("resnet5000")
    with pytest.raises(ValueError, match="no feature map of stride 64"):
        ImageBackbone("resnet18", (64,))
    with pytest.raises(ValueError, match="widths can be set for"):
        ImageBackbone("efficientnet_lite0", widths=(4, 4))
