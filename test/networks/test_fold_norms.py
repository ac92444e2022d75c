"""Folding batch norms changes the time, not the numbers."""

import pytest
import torch
from torch import nn

from dualview.networks.bev_encoder import BevEncoder
from dualview.networks.depth_net import CAMERA_NUMBERS, DepthNet
from dualview.networks.fold_norms import fold_batch_norms, same_numbers
from dualview.networks.image_backbone import ImageBackbone


def shaken(network: nn.Module) -> nn.Module:
    """Batch norms as after training: no two channels alike."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return network.eval()


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50", "efficientnet_lite0", "mobilenetv3_small_100", "ese_vovnet19b_dw"]
)
def test_backbones(name):
    backbone = shaken(ImageBackbone(name, (8, 16, 32)))
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    folded = fold_batch_norms(backbone)
    assert norms(backbone) > 10 and norms(folded) == 0
    assert same_numbers(backbone, folded, torch.randn(2, 3, 64, 96), tolerance=1e-4)
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_our_own_networks():
    encoder = shaken(BevEncoder(6, 5, (8, 8, 8), preprocess_blocks=1))
    bev = torch.randn(2, 6, 16, 16)
    assert torch.allclose(fold_batch_norms(encoder)(bev), encoder(bev), atol=1e-4)
    net = shaken(DepthNet(8, 16, 6, 4))
    features, camera = torch.randn(2, 8, 6, 10), torch.randn(2, CAMERA_NUMBERS)
    folded = fold_batch_norms(net)
    assert norms(folded) == 0 and isinstance(folded.camera_norm, nn.BatchNorm1d)
    assert torch.allclose(folded(features, camera).logits, net(features, camera).logits, atol=1e-4)


class OutOfOrder(nn.Module):
    """Names its layers in another order than it uses them."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.convolution(self.norm(x).relu())]


def test_a_network_that_folding_would_break_is_noticed():
    network = shaken(OutOfOrder())
    assert not same_numbers(network, fold_batch_norms(network), torch.randn(2, 3, 4, 4))
