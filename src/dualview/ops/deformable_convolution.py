"""Deformable convolution (Dai et al. 2017, arXiv 1703.06211, equation 2): each kernel tap reads at a learned offset; in its second
version (Zhu et al. 2019, arXiv 1811.11168, equation 1) what it reads has a learned weight too.

Plain PyTorch, differentiable in everything; the compiled operator of torchvision isn't needed.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def deformable_convolution(
    features: Tensor,
    offsets: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    modulation: Tensor | None = None,
) -> Tensor:
    """Convolve `features` [M, C, H, W] with `weight` [C_out, C / groups, kH, kW], each tap displaced by its
    offset.

    offsets [M, 2 kH kW, H_out, W_out]: (dy, dx) in pixels of `features` for each tap, taps row by row; the
    same for all channels. modulation [M, kH kW, H_out, W_out]: factor on what each tap reads (None: 1). Reading is
    bilinear and gives zero outside the image. Returns [M, C_out, H_out, W_out].

    Raises ValueError if the shapes don't agree.
    """
    count, channels, height, width = features.shape
    out_channels, group_channels, kernel_height, kernel_width = weight.shape
    taps = kernel_height * kernel_width
    out_height = (height + 2 * padding - dilation * (kernel_height - 1) - 1) // stride + 1
    out_width = (width + 2 * padding - dilation * (kernel_width - 1) - 1) // stride + 1
    if channels != group_channels * groups or out_channels % groups:
        raise ValueError(
            f"weight {list(weight.shape)} with {groups} groups doesn't fit {channels} input channels"
        )
    if offsets.shape != (count, 2 * taps, out_height, out_width):
        raise ValueError(
            f"offsets must be {[count, 2 * taps, out_height, out_width]}, got {list(offsets.shape)}"
        )
    if modulation is not None and modulation.shape != (count, taps, out_height, out_width):
        raise ValueError(
            f"modulation must be {[count, taps, out_height, out_width]}, got {list(modulation.shape)}"
        )

    # Places are never rounded below float32: half precision knows no quarter of a pixel beyond the 32nd.
    exact = torch.promote_types(offsets.dtype, torch.float32)
    offsets = offsets.to(exact)

    def count_to(stop: int) -> Tensor:
        return torch.arange(stop, device=features.device, dtype=exact)

    tap_y, tap_x = torch.meshgrid(
        count_to(kernel_height) * dilation, count_to(kernel_width) * dilation, indexing="ij"
    )
    row, column = count_to(out_height) * stride - padding, count_to(out_width) * stride - padding
    offsets = offsets.view(count, taps, 2, out_height, out_width)
    y = row[:, None] + tap_y.reshape(taps, 1, 1) + offsets[:, :, 0]  # [M, taps, H_out, W_out]
    x = column + tap_x.reshape(taps, 1, 1) + offsets[:, :, 1]
    grid = torch.stack(
        [(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1
    )  # pixel centres, align_corners=False
    samples = functional.grid_sample(
        features.to(exact),
        grid.flatten(1, 2),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    ).to(features.dtype)  # [M, C, taps * H_out, W_out]
    if modulation is not None:
        samples = samples * modulation.reshape(count, 1, taps * out_height, out_width)
    samples = samples.view(count, groups, group_channels * taps, out_height * out_width)
    kernel = weight.view(groups, out_channels // groups, group_channels * taps)
    output = torch.einsum("goc,mgcp->mgop", kernel, samples).reshape(
        count, out_channels, out_height, out_width
    )
    return output if bias is None else output + bias.view(1, -1, 1, 1)
