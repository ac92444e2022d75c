"""Perspective aggregation: instances read the camera images at their keypoints (Sparse4Dv3, arXiv 2311.11722,
figure 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dualview.networks.anchor_encoder import linear_relu_norm
from dualview.networks.keypoints import FIXED_KEYPOINTS, KeypointGenerator
from dualview.ops.deformable_aggregation import OUTSIDE, deformable_aggregation

MIN_DEPTH = 1e-5  # m; points at or behind the image plane are invisible


@dataclass(frozen=True)
class CameraViews:
    """What the cameras saw, once a frame for all decoder layers.

    features: L maps [B, V, C, h_l, w_l]. projection [B, V, 4, 4]: working frame -> (u z, v z, z, 1), px of
    the network's images. image_size: (height, width) px of those images. camera_mask bool [B, V], False =
    this camera must not count; None = all do.
    """

    features: Sequence[Tensor]
    projection: Tensor
    image_size: tuple[int, int]
    camera_mask: Tensor | None = None


def project_to_images(
    points: Tensor, projection: Tensor, image_size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Where points [B, N, K, 3] (m) appear in V images: locations [B, V, N, K, 2] and in_front bool [B, V, N,
    K].

    Locations are (u / width, v / height). They mean nothing where `in_front` is False.
    """
    matrix = projection.to(points.dtype)[:, :, None, None]  # [B, V, 1, 1, 4, 4]
    projected = (matrix[..., :3, :3] * points[:, None, ..., None, :]).sum(-1) + matrix[..., :3, 3]
    depth = projected[..., 2:]
    height, width = image_size
    locations = projected[..., :2] / depth.clamp(min=MIN_DEPTH) / points.new_tensor([width, height])
    return locations, depth[..., 0] > MIN_DEPTH


class PerspectiveAggregation(nn.Module):
    """Features [B, N, C] of instances, enriched by what the images show at their keypoints.

    The weights of all cameras, levels and keypoints of a group share one softmax; masked cameras leave it, so
    the others take over their share. With `camera_embedding` the module serves any number of cameras; without
    it, the number is fixed (`camera_count`). residual "cat" returns [B, N, 2 C] = (aggregated, features),
    "add" returns their sum [B, N, C].
    """

    def __init__(
        self,
        dims: int,
        groups: int = 8,
        levels: int = 4,
        fixed_keypoints: tuple[tuple[float, float, float], ...] = FIXED_KEYPOINTS,
        learned_keypoints: int = 6,
        camera_embedding: bool = True,
        camera_count: int | None = None,
        residual: str = "cat",
        point_dropout: float = 0.15,
        border_rule: str = "grid_sample",
        random_fixed_keypoints: bool = False,
    ) -> None:
        super().__init__()
        if dims % groups:
            raise ValueError(f"{dims} channels can't be cut into {groups} groups; choose a divisor")
        cameras = 1 if camera_embedding else camera_count
        if cameras is None:
            raise ValueError("without a camera embedding the weights need a fixed camera_count; give one")
        if residual not in ("cat", "add"):
            raise ValueError(f'residual must be "cat" or "add", got "{residual}"')
        self.groups, self.levels, self.residual = groups, levels, residual
        self.point_dropout, self.border_rule = point_dropout, border_rule
        self.keypoints = KeypointGenerator(dims, fixed_keypoints, learned_keypoints, random_fixed_keypoints)
        self.camera_encoder = linear_relu_norm(1, 2, dims, 12) if camera_embedding else None
        self.weights = nn.Linear(dims, groups * cameras * levels * self.keypoints.count)
        self.output_projection = nn.Linear(dims, dims)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform attention at first; Xavier for the rest (as published)."""
        if self.camera_encoder is not None:
            for layer in self.camera_encoder:
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)
        nn.init.xavier_uniform_(self.output_projection.weight)
        nn.init.zeros_(self.output_projection.bias)
        self.keypoints.reset_parameters()

    def forward(self, features: Tensor, anchors: Tensor, embedding: Tensor, views: CameraViews) -> Tensor:
        """features, embedding [B, N, C], anchors [B, N, 11]."""
        locations, visible = project_to_images(
            self.keypoints(anchors, features), views.projection, views.image_size
        )
        if self.border_rule == "strict_inside":
            visible = visible & (locations > 0).all(-1) & (locations < 1).all(-1)
        if views.camera_mask is not None:
            visible = visible & views.camera_mask[:, :, None, None]
        locations = torch.where(visible.unsqueeze(-1), locations, OUTSIDE)
        weights = self.attention_weights(features, embedding, views)
        gathered = deformable_aggregation(views.features, locations, weights)
        output = self.output_projection(gathered)
        return (
            torch.cat([output, features.to(output.dtype)], -1)
            if self.residual == "cat"
            else output + features
        )

    def attention_weights(self, features: Tensor, embedding: Tensor, views: CameraViews) -> Tensor:
        """Weights [B, N, V, L, K, G], summing to one over V, L and K (before the training-time drop of
        points)."""
        batch, instances = features.shape[:2]
        cameras = views.projection.shape[1]
        logits = self.weights(features + embedding)
        if self.camera_encoder is not None:
            # Linear(instance + camera) = Linear(instance) + camera @ W: the wide product runs once, not for
            # every camera.
            per_camera = nn.functional.linear(
                self.camera_embedding(views.projection, self.camera_encoder), self.weights.weight
            )  # [B, V, L K G]
            logits = logits.unsqueeze(2) + per_camera.unsqueeze(1)
        if logits.numel() != batch * instances * cameras * self.levels * self.keypoints.count * self.groups:
            raise ValueError(
                f"this network was built without camera embedding for a fixed number of cameras, "
                f"not for {cameras}; give it that rig, or build it with a camera embedding"
            )
        logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        logits = logits.reshape(batch, instances, cameras, self.levels * self.keypoints.count, self.groups)
        mask = None if views.camera_mask is None else views.camera_mask[:, None, :, None, None]
        if mask is not None:
            # A finite floor: with every camera masked the softmax stays finite and the product below makes it
            # zero.
            logits = logits.masked_fill(~mask, torch.finfo(logits.dtype).min / 2)
        weights = logits.flatten(2, 3).softmax(2).unflatten(2, (cameras, -1))
        if mask is not None:
            weights = weights * mask
        weights = weights.unflatten(3, (self.levels, -1))
        if self.training and self.point_dropout > 0:
            keep = (
                torch.rand(batch, instances, cameras, 1, self.keypoints.count, 1, device=weights.device)
                > self.point_dropout
            )
            weights = weights * keep / (1 - self.point_dropout)
        return weights

    def camera_embedding(self, projection: Tensor, encoder: nn.Module) -> Tensor:
        """Embedding [B, V, C] of the cameras from the upper three rows of their projection [B, V, 4, 4]."""
        # Numbers in the hundreds, to be told apart: full precision under autocast.
        with torch.autocast(projection.device.type, enabled=False):
            rows = projection[..., :3, :].flatten(-2).to(self.weights.weight.dtype)
            return encoder(rows)
