"""Image backbones: any network of timm that gives feature maps, addressed by name and by stride."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dualview.networks.torchvision_shim import import_timm

_RESNET_LAYERS = {
    "18": (2, 2, 2, 2),
    "34": (3, 4, 6, 3),
    "50": (3, 4, 6, 3),
    "101": (3, 4, 23, 3),
    "152": (3, 8, 36, 3),
}


class ImageBackbone(nn.Module):
    """Feature maps of images at chosen strides.

    name: a timm model ("resnet50", "ese_vovnet99b", "efficientnet_lite0", "mobilenetv3_small_100", ...).
    strides: which of its feature maps are returned, e.g. (4, 8, 16, 32). `channels` are theirs. `widths`
    (stem, first stage) makes a ResNet of another width, e.g. (4, 4): everything else of the architecture
    stays.

    Weights are random: pretrained ones come with our checkpoints, never from the network.
    """

    def __init__(
        self,
        name: str,
        strides: tuple[int, ...] = (4, 8, 16, 32),
        widths: tuple[int, int] | None = None,
        recompute: bool = False,
    ) -> None:
        """recompute: trade time for memory in training by recomputing activations (gradient checkpointing).

        Raises ValueError for a name that timm doesn't know (close names are listed) and for a stride that the
        network doesn't have.
        """
        super().__init__()
        timm = import_timm()
        if widths is None and not timm.is_model(name):
            close = timm.list_models(f"*{name.split('_')[0].rstrip('0123456789')}*")[:8]
            hint = f"; close names are {', '.join(close)}" if close else ""
            raise ValueError(f"timm has no backbone '{name}'{hint}")
        with torch.device("meta"):  # takes no memory: only its list of feature maps is wanted
            probe = timm.create_model(name, pretrained=False, features_only=True)
        available = probe.feature_info.reduction()
        missing = [stride for stride in strides if stride not in available]
        if missing:
            raise ValueError(
                f"backbone '{name}' has no feature map of stride {missing[0]}; it has {available}"
            )
        # The last map of a stride is the deepest one.
        picked = tuple(max(i for i, s in enumerate(available) if s == stride) for stride in strides)
        if widths is None:
            self.body = timm.create_model(name, pretrained=False, features_only=True, out_indices=picked)
        else:
            self.body = timm.models.FeatureListNet(_resnet_of_width(name, *widths), out_indices=picked)
        self.strides = tuple(strides)
        self.channels = tuple(self.body.feature_info.channels())
        self.recompute = recompute

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images [M, 3, H, W] -> one map [M, channels[i], H / strides[i], W / strides[i]] per
        stride.
        """
        if self.recompute and self.training and torch.is_grad_enabled():
            return list(checkpoint(self.body, images, use_reentrant=False))
        return list(self.body(images))


def backbone_maps(
    backbone: Callable[[Tensor], Sequence[Tensor]], images: Tensor, known: Sequence[Tensor] | None
) -> list[Tensor]:
    """The backbone's maps [B * N, C_i, h_i, w_i] of normalised images [B, N, 3, H, W], fine to coarse, channels last in memory on
    the way in; `known` [B, N, C_i, h_i, w_i] in their place, if they are known already.
    """
    given = [maps.flatten(0, 1).contiguous(memory_format=torch.channels_last) for maps in known or (images,)]
    return given if known else list(backbone(given[0]))


def _resnet_of_width(name: str, stem_width: int, first_stage_width: int) -> nn.Module:
    """timm's ResNet with another width.

    timm's plain stem is 64 wide whatever is asked, so the layers that touch the stem are made anew.
    """
    from timm.models.resnet import BasicBlock, Bottleneck, ResNet

    depth = name.removeprefix("resnet")
    if depth not in _RESNET_LAYERS:
        raise ValueError(
            f"widths can be set for {', '.join('resnet' + d for d in _RESNET_LAYERS)}, not for '{name}'"
        )
    block: Any = BasicBlock if depth in ("18", "34") else Bottleneck
    widths = tuple(first_stage_width * 2**i for i in range(4))
    network: Any = ResNet(block, _RESNET_LAYERS[depth], channels=widths, num_classes=0)
    network.conv1 = nn.Conv2d(3, stem_width, 7, stride=2, padding=3, bias=False)
    network.bn1 = nn.BatchNorm2d(stem_width)
    first = network.layer1[0]
    first.conv1 = nn.Conv2d(
        stem_width, first.conv1.out_channels, first.conv1.kernel_size, padding=first.conv1.padding, bias=False
    )
    out_channels = widths[0] * block.expansion
    needs_projection = stem_width != out_channels
    first.downsample = (
        nn.Sequential(nn.Conv2d(stem_width, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
        if needs_projection
        else None
    )
    for layer in (network.conv1, first.conv1, *(first.downsample or ())):
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    network.feature_info[0]["num_chs"] = stem_width
    return network
