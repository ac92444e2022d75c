"""Strided convolutions with TensorFlow's "same" padding as plain ones: the same numbers without a padded copy of the input.

"Same" padding of a strided convolution is one row and one column wider at the end than at the start, which no convolution
of PyTorch does by itself: timm writes a padded copy first, and that costs more than the convolution. A kernel with one more
row and column at its start, all zeros, needs the same padding on both sides.
"""

from __future__ import annotations

import torch
from torch import nn


def pad_symmetrically(network: nn.Module) -> None:
    """Replace, in place, timm's padding convolutions of stride 2 and odd kernel that don't see all input channels at once.

    For inference, and for maps of even height and width only, such as an image size that is a multiple of the network's
    stride gives. Whoever uses it compares the two networks (see `same_numbers`).
    """
    for name, child in network.named_children():
        if _pads_first(child):
            setattr(network, name, _with_wider_kernel(child))
        else:
            pad_symmetrically(child)


def _pads_first(module: nn.Module) -> bool:
    if not isinstance(module, nn.Conv2d) or type(module).__name__ != "Conv2dSame":
        return False
    odd = module.kernel_size[0] == module.kernel_size[1] and module.kernel_size[0] % 2 == 1
    # A dense kernel's zeros would be multiplied, which costs more than the copy.
    return odd and module.stride == (2, 2) and module.dilation == (1, 1) and module.groups == module.in_channels


def _with_wider_kernel(narrow: nn.Module) -> nn.Conv2d:
    """A kernel k reads k - 2 beyond an even map, (k - 3) / 2 of them at the start; the wider one reads (k - 1) / 2 at either
    end.
    """
    assert isinstance(narrow, nn.Conv2d)
    size = narrow.kernel_size[0]
    wide = nn.Conv2d(
        narrow.in_channels, narrow.out_channels, size + 1, 2, (size - 1) // 2,
        groups=narrow.groups, bias=narrow.bias is not None, device=narrow.weight.device, dtype=narrow.weight.dtype,
    )  # fmt: skip
    with torch.no_grad():
        wide.weight.zero_()
        wide.weight[..., 1:, 1:] = narrow.weight
        if wide.bias is not None and narrow.bias is not None:
            wide.bias.copy_(narrow.bias)
    return wide
