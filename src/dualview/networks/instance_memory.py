"""Instance memory: the instances of the last frame that the next one starts from (Sparse4D v2, arXiv
2305.14018, section 3.2).

A value, not a module: functions take a memory and return the next one, nothing is changed in place. Slots
keep their order, so the first M instances of a frame with history are the remembered ones, with their track
ids; identities come from that alone, without a tracker (Sparse4Dv3, arXiv 2311.11722, section 3.3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dualview.geometry.rigid import invert_rigid
from dualview.networks.box_state import project_anchors
from dualview.networks.duplicates import inherit_ids, silent

_LONG_AGO = -1e6  # s; further back than any history may reach


@dataclass(frozen=True)
class CachedInstances:
    """The M most confident instances of a frame, detached, most confident first.

    features [B, M, C], anchors [B, M, 11] (that frame's working frame), confidence [B, M], track_ids [B, M]
    int64 (-1 = none), stamps [B] float64 s, world_from_working [B, 4, 4] float64.
    """

    features: Tensor
    anchors: Tensor
    confidence: Tensor
    track_ids: Tensor
    stamps: Tensor
    world_from_working: Tensor


@dataclass(frozen=True)
class InstanceMemory:
    """What the decoder knows before a frame. `next_track_id` outlives resets, so an id is never given
    twice."""

    next_track_id: int = 0
    instances: CachedInstances | None = None

    def reset(self) -> InstanceMemory:
        """Forget the instances, keep the count of ids."""
        return replace(self, instances=None)

    def restarted(self, samples: Tensor) -> InstanceMemory:
        """The memory with nothing remembered of `samples` (bool [B]).

        A sample forgets by having its memory lie too long ago to count; its numbers are zeroed so that nothing
        (not even a NaN) of it can leak through the arithmetic.
        """
        instances = self.instances
        if instances is None:
            return self
        identity = torch.eye(4, dtype=torch.float64, device=samples.device)
        blank = replace(
            instances,
            features=_zeroed(instances.features, samples),
            anchors=_zeroed(instances.anchors, samples),
            confidence=_zeroed(instances.confidence, samples),
            track_ids=torch.where(samples[:, None], -1, instances.track_ids),
            stamps=torch.where(samples, _LONG_AGO, instances.stamps),
            world_from_working=torch.where(samples[:, None, None], identity, instances.world_from_working),
        )
        return replace(self, instances=blank)

    def broken(self) -> Tensor | None:
        """bool [B]: samples whose memory isn't finite. None without memory."""
        instances = self.instances
        if instances is None:
            return None
        numbers = [instances.features, instances.anchors, instances.confidence]
        return torch.stack([~value.isfinite().flatten(1).all(1) for value in numbers]).any(0)


@dataclass(frozen=True)
class MemorySettings:
    """num_temporal: M. Intervals in s: a gap above `max_interval` breaks the history of that sample.
    `id_threshold`: confidence at which an instance gets an identity (None: at once)."""

    num_temporal: int = 600
    default_interval: float = 0.5
    max_interval: float = 2.0
    confidence_decay: float = 0.6
    id_threshold: float | None = 0.25
    swapped_yaw: bool = False
    stale_history: bool = False


@dataclass(frozen=True)
class History:
    """The memory seen from the current frame: anchors [B, M, 11] moved to here and now; valid bool [B]: the
    gap is short enough.

    target_from_source [B, 4, 4] (current from remembered working frame) and elapsed [B] (s) moved the
    anchors.
    """

    features: Tensor
    anchors: Tensor
    confidence: Tensor
    track_ids: Tensor
    valid: Tensor
    target_from_source: Tensor
    elapsed: Tensor
    all_valid: bool  # of `valid`, known to the host: read back from the device once a frame
    any_valid: bool


def recall(
    memory: InstanceMemory,
    stamps: Tensor,
    world_from_working: Tensor,
    settings: MemorySettings,
    dtype: torch.dtype,
) -> tuple[History | None, Tensor]:
    """The history for a frame at `stamps` [B] (float64 s) and `world_from_working` [B, 4, 4] (float64), and
    the interval [B] (s).

    The interval is what a displacement is divided by: the true gap, or `default_interval` where there is no
    valid history or no time has passed. Raises ValueError if the batch isn't the remembered one.
    """
    cached = memory.instances
    if cached is None:
        return None, torch.full((len(stamps),), settings.default_interval, dtype=dtype, device=stamps.device)
    if len(stamps) != len(cached.stamps):
        raise ValueError(
            f"the memory holds {len(cached.stamps)} samples but the frame has {len(stamps)}; "
            "start with memory.reset() when the batch changes"
        )
    elapsed = (stamps.double() - cached.stamps).to(dtype)
    valid = elapsed.abs() <= settings.max_interval
    current_from_cached = (invert_rigid(world_from_working.double()) @ cached.world_from_working).to(dtype)
    anchors = project_anchors(cached.anchors, current_from_cached, elapsed, settings.swapped_yaw)
    history = History(
        features=cached.features,
        anchors=anchors,
        confidence=cached.confidence,
        track_ids=cached.track_ids,
        valid=valid,
        target_from_source=current_from_cached,
        elapsed=elapsed,
        all_valid=bool(valid.all()),
        any_valid=bool(valid.any()),
    )
    return history, torch.where(valid & (elapsed != 0), elapsed, settings.default_interval)


def merge_history(
    features: Tensor, anchors: Tensor, class_logits: Tensor, history: History | None
) -> tuple[Tensor, Tensor]:
    """After the single-frame layers: remembered instances first, then the best fresh ones; features [B, N,
    C], anchors [B, N, 11].

    A sample without valid history keeps all its fresh instances.
    """
    if history is None:
        return features, anchors
    kept = features.shape[1] - history.features.shape[1]
    best = class_logits.amax(-1).topk(kept, dim=1).indices
    merged_features = torch.cat([history.features.to(features.dtype), _pick(features, best)], 1)
    merged_anchors = torch.cat([history.anchors, _pick(anchors, best)], 1)
    valid = history.valid[:, None, None]
    return torch.where(valid, merged_features, features), torch.where(valid, merged_anchors, anchors)


def decayed_confidence(class_logits: Tensor, history: History | None, settings: MemorySettings) -> Tensor:
    """Confidence [B, N]: best class probability, for remembered instances at least `confidence_decay` times
    the former one."""
    confidence = class_logits.detach().float().amax(-1).sigmoid()
    if history is None:
        return confidence
    remembered = history.confidence.shape[1]
    floor = history.confidence * settings.confidence_decay
    if not settings.stale_history:
        floor = torch.where(history.valid.unsqueeze(1), floor, 0.0)
    return torch.cat([torch.maximum(confidence[:, :remembered], floor), confidence[:, remembered:]], 1)


def known_track_ids(history: History, count: int) -> Tensor:
    """Identities [B, count] int64 (-1 = none) that a frame's instances have from the last one."""
    ids = history.track_ids.new_full((len(history.track_ids), count), -1)
    ids[:, : history.track_ids.shape[1]] = torch.where(history.valid.unsqueeze(1), history.track_ids, -1)
    return ids


def assign_track_ids(
    class_logits: Tensor, known: Tensor | None, next_track_id: int, threshold: float | None
) -> tuple[Tensor, int]:
    """Identities [B, N] int64 of a frame's instances (-1 = none yet), and the next free id.

    Those of `known` [B, N] stay; the others get new ones, counted through the batch row by row, once their class
    probability reaches `threshold`.
    """
    ids = torch.full(class_logits.shape[:2], -1, dtype=torch.int64, device=class_logits.device)
    if known is not None:
        ids = known.clone()
    fresh = ids < 0
    if threshold is not None:
        fresh &= class_logits.float().amax(-1).sigmoid() >= threshold
    created = int(fresh.sum())
    ids[fresh] = torch.arange(next_track_id, next_track_id + created, device=ids.device)
    return ids, next_track_id + created


def remember(
    memory: InstanceMemory,
    history: History | None,
    features: Tensor,
    anchors: Tensor,
    class_logits: Tensor,
    stamps: Tensor,
    world_from_working: Tensor,
    settings: MemorySettings,
    with_ids: bool = True,
    better: Tensor | None = None,
) -> tuple[InstanceMemory, Tensor]:
    """The memory for the next frame, and the track ids [B, N] of this one (all -1 unless `with_ids`). better int64 [B, N]: who
    speaks for each instance (see `find_better`); who doesn't speak for itself is forgotten.
    """
    confidence = decayed_confidence(class_logits, history, settings)
    known = None if history is None else known_track_ids(history, class_logits.shape[1])
    if better is not None:
        if known is not None:
            known = inherit_ids(known, better, confidence)
        confidence = confidence.masked_fill(silent(better), 0.0)
    next_track_id = memory.next_track_id
    if with_ids:
        ids, next_track_id = assign_track_ids(class_logits, known, next_track_id, settings.id_threshold)
    else:
        ids = torch.full(confidence.shape, -1, dtype=torch.int64, device=confidence.device)
    kept, index = confidence.topk(settings.num_temporal, dim=1)
    instances = CachedInstances(
        features=_pick(features.detach(), index),
        anchors=_pick(anchors.detach(), index),
        confidence=kept,
        track_ids=ids.gather(1, index),
        stamps=stamps.double(),
        world_from_working=world_from_working.double(),
    )
    return InstanceMemory(next_track_id, instances), ids


def _pick(values: Tensor, index: Tensor) -> Tensor:
    """values [B, N, D] at index [B, K] -> [B, K, D]."""
    return values.gather(1, index.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


def _zeroed(values: Tensor, samples: Tensor) -> Tensor:
    return torch.where(samples.view(-1, *[1] * (values.dim() - 1)), 0, values)
