"""What a batch of slots carries from step to step: a value, detached, reset slot by slot, saved with the
checkpoint.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from types import UnionType
from typing import Any

import torch
from torch import Tensor

from dualview.detectors.state import SlotMemory
from dualview.networks.instance_memory import InstanceMemory
from dualview.supervision.denoising import DenoisingMemory


@dataclass(frozen=True)
class StreamState:
    """What the network remembers of each slot, and the denoising groups of the same frame."""

    memory: SlotMemory = field(default_factory=InstanceMemory)
    denoising: DenoisingMemory | None = None

    def restarted(self, slots: Tensor) -> StreamState:
        """The state with nothing remembered in `slots` (bool [B])."""
        if self.memory is None or not bool(slots.any()):
            return self
        denoising = self.denoising
        if denoising is not None:
            denoising = replace(
                denoising,
                features=_zeroed(denoising.features, slots),
                anchors=_zeroed(denoising.anchors, slots),
                valid=denoising.valid & ~slots[:, None, None],
            )
        return StreamState(self.memory.restarted(slots), denoising)

    def broken_slots(self) -> Tensor | None:
        """bool [B]: slots whose memory isn't finite. None without memory."""
        broken = None if self.memory is None else self.memory.broken()
        if broken is None or self.denoising is None:
            return broken
        numbers = [self.denoising.features.flatten(1, 2), self.denoising.anchors.flatten(1, 2)]
        return torch.stack([broken, *(~value.isfinite().flatten(1).all(1) for value in numbers)]).any(0)

    def to(self, device: torch.device | str) -> StreamState:
        """The same state on another device."""
        return typing.cast(StreamState, map_tensors(self, lambda tensor: tensor.to(device)))


def to_plain(value: Any) -> Any:
    """A (nested) dataclass of tensors and numbers as plain dicts, which `torch.load(weights_only=True)` reads
    back.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in fields(value)}
    return value.detach().cpu() if isinstance(value, Tensor) else value


def from_plain(kind: Any, value: Any) -> Any:
    """The dataclass that `to_plain` took apart; of several that it may be, the one with the same fields."""
    if isinstance(value, dict) and typing.get_origin(kind) in (typing.Union, UnionType):
        (kind,) = [k for k in typing.get_args(kind) if is_dataclass(k) and {f.name for f in fields(k)} == set(value)]
    if value is None or not is_dataclass(kind):
        return value
    hints = typing.get_type_hints(kind)
    return kind(**{f.name: from_plain(hints[f.name], value[f.name]) for f in fields(kind)})  # type: ignore[operator]


def _zeroed(values: Tensor, slots: Tensor) -> Tensor:
    return torch.where(slots.view(-1, *[1] * (values.dim() - 1)), 0, values)


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A (nested) dataclass, list or tuple with every tensor in it changed."""
    if isinstance(value, Tensor):
        return change(value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: map_tensors(getattr(value, f.name), change) for f in fields(value)})
    if isinstance(value, list | tuple):
        return type(value)(map_tensors(item, change) for item in value)
    return value
