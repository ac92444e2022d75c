"""The instance decoder: N boxes that look, remember, and refine themselves (Sparse4Dv3, arXiv 2311.11722,
figure 3; with the BEV aggregation of DualViewDistill, arXiv 2510.10287, figure 2).

    anchors + remembered instances
        |
    layer 1           look -> refine                              the frame on its own
        |             remembered instances take the first M slots
    layers 2..L       attend to the past, to each other, look -> refine
        |
    M most confident instances -> memory, with their track ids
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from dualview.networks.anchor_encoder import AnchorEncoder
from dualview.networks.attention import SharedProjections
from dualview.networks.bev_aggregation import BevView
from dualview.networks.box_state import STATE_SIZE, spiral_anchors
from dualview.networks.class_evidence import ClassEvidence
from dualview.networks.decoder_config import DecoderConfig
from dualview.networks.decoder_layer import DecoderLayer
from dualview.networks.denoising_queries import DenoisingQueries, merge_denoising_history
from dualview.networks.duplicates import find_better, silent
from dualview.networks.instance_memory import (
    InstanceMemory,
    merge_history,
    recall,
    remember,
)
from dualview.networks.perspective_aggregation import CameraViews
from dualview.networks.refinement import Refined


@dataclass(frozen=True)
class DenoisingOutput:
    """What became of the denoising queries: every layer's results, and the final state that the next frame
    may start from."""

    layers: tuple[Refined, ...]
    features: Tensor  # [B, G S, C]
    anchors: Tensor  # [B, G S, 11]


@dataclass(frozen=True)
class DecoderOutput:
    """layers: every layer's anchors [B, N, 11], class logits [B, N, classes] and quality logits [B, N, 2]
    (both None where not computed: in evaluation only the last single-frame layer and the last layer do).
    features [B, N, C]: the last layer's. track_ids [B, N] int64, -1 = none. history_valid bool [B]: whose
    memory was used. denoising: None without denoising queries."""

    layers: tuple[Refined, ...]
    features: Tensor
    track_ids: Tensor
    history_valid: Tensor
    memory: InstanceMemory
    denoising: DenoisingOutput | None = None

    @property
    def anchors(self) -> Tensor:
        """Final box states [B, N, 11], working frame."""
        return self.layers[-1].anchors

    @property
    def class_logits(self) -> Tensor:
        """Final class logits [B, N, classes]."""
        return self.layers[-1].computed_class_logits

    @property
    def quality(self) -> Tensor | None:
        """Final (centerness, yawness) logits [B, N, 2]."""
        return self.layers[-1].quality


class Decoder(nn.Module):
    """Sparse4Dv3's head, with the views that its configuration names.

    `anchors` [N, 11]: where the learnable anchors start (k-means centres of the training boxes; an even
    spiral if not given).
    """

    initial_features: Tensor

    def __init__(self, config: DecoderConfig, anchors: Tensor | None = None) -> None:
        super().__init__()
        self.config = config
        if anchors is None:
            anchors = spiral_anchors(config.num_anchors, config.anchor_range)
        anchors = anchors.float()
        if tuple(anchors.shape) != (config.num_anchors, STATE_SIZE):
            raise ValueError(
                f"anchors must be [{config.num_anchors}, {STATE_SIZE}], got {list(anchors.shape)}"
            )
        self.initial_anchors = nn.Parameter(anchors.clone())
        self.register_buffer(
            "initial_features", torch.zeros(config.num_anchors, config.embed_dims)
        )  # never trained
        self.anchor_encoder = AnchorEncoder(config.anchor_encoder)
        self.shared_projections = SharedProjections(config.embed_dims) if config.decouple_attention else None
        self.layers = nn.ModuleList(DecoderLayer(config, index) for index in range(config.num_layers))

    def start_from_what_is_known(self) -> None:
        """Let untrained layers leave boxes and `evidence` as they come."""
        for layer in cast("Iterable[DecoderLayer]", self.layers):
            layer.refinement.start_from_what_is_known()

    def initial_memory(self, next_track_id: int = 0) -> InstanceMemory:
        """The memory of a decoder that has seen nothing."""
        return InstanceMemory(next_track_id)

    def forward(
        self,
        views: CameraViews | None,
        bev: BevView | None,
        stamps: Tensor,
        world_from_working: Tensor,
        memory: InstanceMemory,
        denoising: DenoisingQueries | None = None,
        proposals: Tensor | None = None,
        evidence: ClassEvidence | None = None,
    ) -> DecoderOutput:
        """One frame.

        views, bev: what the configuration reads, in the working frame at this instant. stamps [B] float64 (s;
        any epoch that the memory shares) and world_from_working [B, 4, 4] float64 relate this frame to the
        remembered one. denoising: training only. proposals [B, P, 11]: box states where P instances start in
        this frame, in place of learned anchors. evidence: what is known of the classes beforehand. Track ids
        are given in evaluation mode only. Raises ValueError if a view is missing or the memory is of another
        batch.
        """
        config = self.config
        self._check_views(views, bev)
        history, interval = recall(
            memory, stamps, world_from_working, config.memory, self.initial_anchors.dtype
        )
        batch, count = len(stamps), config.num_anchors
        features = self.initial_features.expand(batch, -1, -1)
        anchors: Tensor = self.initial_anchors.expand(batch, -1, -1)
        if proposals is not None:  # they take the places of the last learned anchors
            learned = count - proposals.shape[1]
            anchors = torch.cat([anchors[:, :learned], proposals.to(anchors)], 1)
        blocked = None
        if denoising is not None:
            blank = features.new_zeros(batch, denoising.anchors.shape[1], config.embed_dims)
            features, anchors = torch.cat([features, blank], 1), torch.cat([anchors, denoising.anchors], 1)
            blocked = denoising.blocked(count)
        embedding = self.anchor_encoder(anchors)
        history_embedding = None if history is None else self.anchor_encoder(history.anchors)

        results: list[Refined] = []
        for index, layer in enumerate(cast("Iterable[DecoderLayer]", self.layers)):
            features = layer(
                features,
                anchors,
                embedding,
                views,
                bev,
                history,
                history_embedding,
                self.shared_projections,
                blocked,
            )
            joins = index == config.num_single_frame_layers - 1
            last = index == config.num_layers - 1
            with_classes = self.training or joins or last
            known = evidence.at(anchors) if evidence is not None and with_classes else None
            refined = layer.refinement(features, anchors, embedding, interval, with_classes, known)
            results.append(refined)
            anchors = refined.anchors
            if joins:
                logits = refined.computed_class_logits[:, :count]
                merged = merge_history(features[:, :count], anchors[:, :count], logits, history)
                if denoising is not None:
                    noisy = merge_denoising_history(
                        features[:, count:], anchors[:, count:], denoising, history, config.quirks.swapped_yaw
                    )
                    merged = torch.cat([merged[0], noisy[0]], 1), torch.cat([merged[1], noisy[1]], 1)
                features, anchors = merged
            if not last:
                embedding = self.anchor_encoder(anchors)
            if not joins and index >= config.num_single_frame_layers and history is not None:
                # The remembered instances are the first M queries now: their keys follow the refined boxes.
                history_embedding = embedding[:, : config.num_temporal]

        free = tuple(_part(refined, slice(count)) for refined in results)
        better = None
        if config.duplicate_distance is not None and not self.training:
            # By what each says now, which is what is reported: one that remembers an object it no longer sees must not hide
            # another that sees it.
            better = find_better(free[-1], config.duplicate_distance)
            free = (*free[:-1], free[-1].without(silent(better)))
        next_memory, track_ids = remember(
            memory, history, features[:, :count], anchors[:, :count], free[-1].computed_class_logits, stamps,
            world_from_working, config.memory, with_ids=not self.training, better=better,
        )  # fmt: skip
        return DecoderOutput(
            layers=free,
            features=features[:, :count],
            track_ids=track_ids,
            history_valid=torch.zeros_like(stamps, dtype=torch.bool) if history is None else history.valid,
            memory=next_memory,
            denoising=None if denoising is None else DenoisingOutput(
                tuple(_part(refined, slice(count, None)) for refined in results),
                features[:, count:],
                anchors[:, count:],
            ),
        )  # fmt: skip

    def _check_views(self, views: CameraViews | None, bev: BevView | None) -> None:
        if self.config.use_perspective and views is None:
            raise ValueError(
                "this decoder reads the cameras: give CameraViews, or configure use_perspective=False"
            )
        if self.config.use_bev and bev is None:
            raise ValueError("this decoder reads a BEV map: give a BevView, or configure use_bev=False")


def _part(refined: Refined, part: slice) -> Refined:
    """The instances that `part` picks."""
    return replace(
        refined,
        anchors=refined.anchors[:, part],
        class_logits=None if refined.class_logits is None else refined.class_logits[:, part],
        quality=None if refined.quality is None else refined.quality[:, part],
    )
