"""Depthwise convolutions in mixed precision on a CPU: forward in bfloat16, backward in float32.

oneDNN has no fast bfloat16 gradient for depthwise convolutions: measured on one core, 24 maps of 144 x 35 x
91, 5x5, stride 2, channels last: backward 252 ms in bfloat16, 47 ms in float32. Everything else of a backbone
is faster in bfloat16.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class _DepthwiseConvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any,
        images: Tensor,
        weight: Tensor,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
    ) -> Tensor:
        images = images.to(torch.bfloat16)
        context.save_for_backward(images, weight)
        context.geometry = stride, padding, dilation
        with torch.autocast(images.device.type, enabled=False):
            return torch.conv2d(
                images, weight.to(torch.bfloat16), None, stride, padding, dilation, len(weight)
            )

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        images, weight = context.saved_tensors
        gradient, images = (
            t.float().contiguous(memory_format=torch.channels_last) for t in (gradient, images)
        )
        wanted = [context.needs_input_grad[0], context.needs_input_grad[1], False]
        to_images, to_weight, _ = torch.ops.aten.convolution_backward(
            gradient, images, weight.float(), None, *context.geometry, False, [0, 0], len(weight), wanted
        )
        to_images = None if to_images is None else to_images.to(torch.bfloat16)
        return to_images, to_weight, None, None, None


class QuickDepthwise(TorchFunctionMode):
    """Inside this context, depthwise convolutions of tensors on the CPU under bfloat16 autocast use the
    faster gradient.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.conv2d and torch.is_autocast_enabled("cpu"):
            found = _depthwise_arguments(*args, **(kwargs or {}))
            if found is not None:
                return _DepthwiseConvolution.apply(*found)
        return function(*args, **(kwargs or {}))


def _depthwise_arguments(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> tuple[Any, ...] | None:
    """The arguments of a depthwise convolution, None if it isn't one that we take."""
    plain = bias is None and not isinstance(padding, str) and torch.is_grad_enabled()
    if (
        not plain
        or groups == 1
        or groups != images.shape[1]
        or len(weight) != groups
        or images.device.type != "cpu"
    ):
        return None
    pair = [[v, v] if isinstance(v, int) else list(v) for v in (stride, padding, dilation)]
    return images, weight, *pair
