"""Anchor encoder: from a box state to its embedding (Sparse4Dv3, arXiv 2311.11722, section 3.2; widths from
its config)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dualview.networks.box_state import CENTER, HEADING, LOG_SIZE


@dataclass(frozen=True)
class AnchorEncoderConfig:
    """Widths and form of the encoder.

    dims: output widths for position, size, heading, velocity. mode "cat" concatenates the four parts, "add"
    sums them (all widths equal). velocity_components: 0 leaves velocity out. output_layer: one more block on
    the result.
    """

    dims: tuple[int, int, int, int] = (128, 32, 32, 64)
    mode: str = "cat"
    velocity_components: int = 3
    output_layer: bool = False
    in_loops: int = 1
    out_loops: int = 4

    def __post_init__(self) -> None:
        if self.mode not in ("cat", "add"):
            raise ValueError(f'the anchor encoder\'s mode must be "cat" or "add", got "{self.mode}"')
        if self.mode == "add" and len(set(self.dims)) != 1:
            raise ValueError(f'an anchor encoder in mode "add" needs four equal widths, got {self.dims}')

    @property
    def output_dims(self) -> int:
        """Width of the embedding."""
        if self.mode == "add":
            return self.dims[0]
        return sum(self.dims) if self.velocity_components else sum(self.dims[:3])


def linear_relu_norm(
    in_loops: int, out_loops: int, dims: int, input_dims: int | None = None
) -> nn.Sequential:
    """`out_loops` times (`in_loops` times (Linear, ReLU), LayerNorm), all `dims` wide; the first Linear takes
    `input_dims`."""
    layers: list[nn.Module] = []
    width = dims if input_dims is None else input_dims
    for _ in range(out_loops):
        for _ in range(in_loops):
            layers += [nn.Linear(width, dims), nn.ReLU(inplace=True)]
            width = dims
        layers.append(nn.LayerNorm(dims))
    return nn.Sequential(*layers)


class AnchorEncoder(nn.Module):
    """anchors [B, N, 11] -> embedding [B, N, output_dims]. Position, size, heading and velocity have their
    own small networks."""

    def __init__(self, config: AnchorEncoderConfig) -> None:
        super().__init__()
        self.config = config

        def block(input_dims: int, dims: int) -> nn.Sequential:
            return linear_relu_norm(config.in_loops, config.out_loops, dims, input_dims)

        self.position = block(3, config.dims[0])
        self.size = block(3, config.dims[1])
        self.heading = block(2, config.dims[2])
        self.velocity = (
            block(config.velocity_components, config.dims[3]) if config.velocity_components else None
        )
        width = config.output_dims
        self.output = block(width, width) if config.output_layer else None

    def forward(self, anchors: Tensor) -> Tensor:
        # 50 m in bfloat16 is rounded to 25 cm, so the encoder keeps full precision under autocast.
        with torch.autocast(anchors.device.type, enabled=False):
            parts = [
                self.position(anchors[..., CENTER]),
                self.size(anchors[..., LOG_SIZE]),
                self.heading(anchors[..., HEADING]),
            ]
            if self.velocity is not None:
                parts.append(self.velocity(anchors[..., 8 : 8 + self.config.velocity_components]))
            embedding = torch.cat(parts, -1) if self.config.mode == "cat" else sum(parts[1:], parts[0])
            return embedding if self.output is None else self.output(embedding)
