"""One decoder layer: instances attend to each other and to the past, look at BEV map and images, and refine
their boxes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dualview.networks.attention import InstanceAttention, SharedProjections
from dualview.networks.bev_aggregation import BevAggregation, BevView
from dualview.networks.decoder_config import DecoderConfig
from dualview.networks.feed_forward import AsymmetricFeedForward
from dualview.networks.instance_memory import History
from dualview.networks.perspective_aggregation import CameraViews, PerspectiveAggregation
from dualview.networks.refinement import Refinement


class DecoderLayer(nn.Module):
    """temporal attention, attention, norm, BEV aggregation, norm, perspective aggregation, feed-forward, norm
    (then `refine`).

    DualViewDistill (arXiv 2510.10287), figure 2; parts that a layer lacks are None (see
    `DecoderConfig.operations`).
    """

    def __init__(self, config: DecoderConfig, index: int) -> None:
        super().__init__()
        dims, parts = config.embed_dims, config.operations(index)
        self.stale_history = config.quirks.stale_history

        def attention() -> InstanceAttention:
            return InstanceAttention(
                dims, config.attention_heads, config.attention_dropout, config.decouple_attention
            )

        self.temporal_attention = attention() if "temp_gnn" in parts else None
        self.self_attention = attention() if "gnn" in parts else None
        self.attention_norm = nn.LayerNorm(dims) if "gnn" in parts else None
        self.bev_aggregation = self._bev_aggregation(config) if config.use_bev else None
        self.bev_norm = nn.LayerNorm(dims) if config.use_bev and config.use_perspective else None
        self.perspective_aggregation = (
            self._perspective_aggregation(config) if config.use_perspective else None
        )
        self.feed_forward = AsymmetricFeedForward(
            config.feedforward_input_dims, dims, config.feedforward_dims, config.feedforward_dropout
        )
        self.output_norm = nn.LayerNorm(dims)
        self.refinement = Refinement(
            dims,
            config.class_count,
            with_quality=config.with_quality,
            refine_yaw=config.refine_yaw,
            normalize_yaw=config.normalize_yaw,
            free_vertical_velocity=config.quirks.free_vertical_velocity,
        )

    @staticmethod
    def _bev_aggregation(config: DecoderConfig) -> BevAggregation:
        return BevAggregation(
            config.embed_dims,
            groups=config.num_groups,
            fixed_keypoints=config.fixed_keypoints,
            learned_keypoints=config.learned_keypoints,
            point_dropout=config.point_dropout,
            validity_mask=config.bev_validity_mask,
        )

    @staticmethod
    def _perspective_aggregation(config: DecoderConfig) -> PerspectiveAggregation:
        return PerspectiveAggregation(
            config.embed_dims,
            groups=config.num_groups,
            levels=config.num_levels,
            fixed_keypoints=config.fixed_keypoints,
            learned_keypoints=config.learned_keypoints,
            camera_embedding=config.camera_embedding,
            camera_count=config.camera_count,
            residual=config.perspective_residual,
            point_dropout=config.point_dropout,
            border_rule=config.quirks.border_rule,
            random_fixed_keypoints=config.quirks.random_fixed_keypoints,
        )

    def forward(
        self,
        features: Tensor,
        anchors: Tensor,
        embedding: Tensor,
        views: CameraViews | None,
        bev: BevView | None,
        history: History | None,
        history_embedding: Tensor | None,
        shared: SharedProjections | None,
        blocked: Tensor | None,
    ) -> Tensor:
        """Features [B, N, C] of the instances after everything but the refinement."""
        if self.temporal_attention is not None:
            features = self._attend_history(
                self.temporal_attention, features, embedding, history, history_embedding, shared, blocked
            )
        if self.self_attention is not None and self.attention_norm is not None:
            features = self.attention_norm(self.self_attention(features, embedding, shared, blocked))
        if self.bev_aggregation is not None:
            features = self.bev_aggregation(features, anchors, embedding, bev)
        if self.bev_norm is not None:
            features = self.bev_norm(features)
        if self.perspective_aggregation is not None:
            features = self.perspective_aggregation(features, anchors, embedding, views)
        return self.output_norm(self.feed_forward(features))

    def _attend_history(
        self,
        attention: InstanceAttention,
        features: Tensor,
        embedding: Tensor,
        history: History | None,
        history_embedding: Tensor | None,
        shared: SharedProjections | None,
        blocked: Tensor | None,
    ) -> Tensor:
        """Attention to the remembered instances; a sample without valid history is treated as on its first
        frame."""
        usable = history is not None and (self.stale_history or history.any_valid)
        if history is None or history_embedding is None or not usable:
            return attention.without_history(features, embedding, shared, blocked)
        remembered = attention.toward(features, embedding, history.features, history_embedding, shared)
        if self.stale_history or history.all_valid:
            return remembered
        alone = attention.without_history(features, embedding, shared, blocked)
        return torch.where(history.valid[:, None, None], remembered, alone)
