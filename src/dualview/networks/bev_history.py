"""BEV history: the maps of earlier moments that the next frame is fused with.

A value, like the instance memory: functions take one and return the next, nothing is changed in place. Maps stay on the
grid of their own moment, beside the pose they were made at, and are warped from there to the present each time; so they
are resampled once, however old they get.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dualview.geometry.bev_grid import BevGrid
from dualview.geometry.rigid import invert_rigid
from dualview.networks.bev_warp import planar, warp_bev

_SLACK = 0.98  # of an interval: rates jitter, and stamps carry rounding; a map a little early is still taken


@dataclass(frozen=True)
class BevHistory:
    """T maps of each of B samples, detached, the latest first.

    maps [B, T, C, Y, X]; stamps [B, T] float64 s; world_from_working [B, T, 4, 4] float64; valid bool [B, T]: there is
    such a map. The numbers of a map that isn't there are zero, its pose is the identity.
    """

    maps: Tensor
    stamps: Tensor
    world_from_working: Tensor
    valid: Tensor

    def restarted(self, samples: Tensor) -> BevHistory:
        """The history with nothing remembered of `samples` (bool [B]); their numbers are zeroed, so that no NaN
        stays.
        """
        gone = samples[:, None]
        identity = torch.eye(4, dtype=torch.float64, device=samples.device)
        return BevHistory(
            torch.where(gone[..., None, None, None], 0, self.maps),
            torch.where(gone, 0.0, self.stamps),
            torch.where(gone[..., None, None], identity, self.world_from_working),
            self.valid & ~gone,
        )

    def broken(self) -> Tensor:
        """bool [B]: samples whose maps aren't finite."""
        return ~self.maps.isfinite().flatten(1).all(1)


@dataclass(frozen=True)
class BevHistoryConfig:
    """How earlier maps are kept and fused.

    frames: earlier maps that are fused with the present one. interval (s): the least time between two maps that are
    kept; BEVNeXt's are keyframes, half a second apart, whatever the cameras' rate. max_gap (s): a longer pause since
    the latest kept map breaks the history. scales: groups of neighbouring moments that are joined first
    (frames + 1 must be a multiple). added: see `Res2Fusion`.

    kept_per_interval: with 1, as in BEVNeXt, the latest kept map is anything between new and one interval old, which is much the
    same to a network that sees many. One that tells speeds from one or two earlier maps needs them at a steady age: with
    n > 1, n maps are kept in each interval, and the k-th that is fused is the youngest that is k intervals old, so
    its age varies by an n-th of an interval only.
    """

    frames: int = 8
    interval: float = 0.4
    max_gap: float = 2.0
    scales: int = 3
    added: bool = False
    kept_per_interval: int = 1

    def __post_init__(self) -> None:
        if self.kept_per_interval < 1:
            raise ValueError(f"history.kept_per_interval is {self.kept_per_interval}: give 1 or more")
        if self.frames < 1 or self.scales < 2 or (self.frames + 1) % self.scales:
            raise ValueError(
                f"history.frames {self.frames} with the present one must be a multiple of history.scales "
                f"{self.scales} >= 2: 8 frames and 3 scales, say"
            )
        if not 0 <= self.interval < self.max_gap:
            raise ValueError(
                f"history.interval {self.interval} s must be shorter than history.max_gap {self.max_gap} s"
            )

    @property
    def kept(self) -> int:
        """Maps that are kept in all. Of a steady age, one more: the latest may be new, and the oldest must still be old enough."""
        return self.frames * self.kept_per_interval + (self.kept_per_interval > 1)


def recall_maps(
    history: BevHistory | None,
    present: Tensor,
    stamps: Tensor,
    world_from_working: Tensor,
    grid: BevGrid,
    config: BevHistoryConfig,
    corner_aligned: bool = False,
) -> Tensor:
    """Earlier maps on the grid of the present, [B, T, C, Y, X], the latest first, without gradient.

    present [B, C, Y, X] at stamps [B] (float64 s) and world_from_working [B, 4, 4] (float64). Where nothing is
    remembered the present map stands in, as in BEVNeXt's first frames: nothing has moved, then. corner_aligned: see `warp_bev`.

    Raises ValueError if the batch isn't the remembered one.
    """
    present = present.detach().unsqueeze(1).expand(-1, config.frames, -1, -1, -1)
    if history is None:
        return present
    _check_batch(history, present)
    working_from_world = invert_rigid(history.world_from_working)
    remembered_from_present = working_from_world @ world_from_working.double().unsqueeze(1)  # [B, T, 4, 4]
    maps, (chosen, usable) = history.maps, chosen_maps(history, stamps, config)
    if config.kept_per_interval > 1:
        sample = torch.arange(len(chosen), device=chosen.device).unsqueeze(1)
        maps, remembered_from_present = maps[sample, chosen], remembered_from_present[sample, chosen]
    warped = warp_bev(maps.flatten(0, 1), planar(remembered_from_present).flatten(0, 1), grid, corner_aligned)
    return torch.where(usable[..., None, None, None], warped.unflatten(0, usable.shape).to(present.dtype), present)


def chosen_maps(history: BevHistory, stamps: Tensor, config: BevHistoryConfig) -> tuple[Tensor, Tensor]:
    """Which kept map (int64 [B, frames]) is fused as the first, second, ...; and whether there is one (bool [B, frames]).

    stamps [B] float64 s, of the present.
    """
    usable = _usable(history, stamps, config)
    if config.kept_per_interval > 1:
        return _at_steady_age(history.stamps, usable, stamps, config)
    return torch.arange(usable.shape[1], device=usable.device).expand_as(usable), usable


def _at_steady_age(kept: Tensor, usable: Tensor, stamps: Tensor, config: BevHistoryConfig) -> tuple[Tensor, Tensor]:
    """Which kept map [B, frames] is fused as the first, second, ...: the youngest that is so many intervals old; and whether
    there is one. kept [B, T] stamps, the latest first (where maps are there).
    """
    age = (stamps.double().unsqueeze(1) - kept).abs()
    wanted = config.interval * torch.arange(1, config.frames + 1, dtype=age.dtype, device=age.device)
    old_enough = usable.unsqueeze(1) & (age.unsqueeze(1) >= _SLACK * wanted.unsqueeze(-1))  # [B, frames, T]
    return old_enough.int().argmax(-1), old_enough.any(-1)  # argmax: the first, which is the youngest


def remember_map(
    history: BevHistory | None,
    present: Tensor,
    stamps: Tensor,
    world_from_working: Tensor,
    config: BevHistoryConfig,
) -> BevHistory:
    """The history for the next frame. A sample takes up the present map only if it lies `interval` from its latest
    one; then the oldest falls out.
    """
    present = present.detach().unsqueeze(1)
    stamps, world_from_working = stamps.double(), world_from_working.double()
    if history is None:
        history = _empty(present, config.kept)
    _check_batch(history, present)
    usable = _usable(history, stamps, config)
    spacing = config.interval / config.kept_per_interval
    due = ~usable[:, 0] | ((stamps - history.stamps[:, 0]).abs() >= _SLACK * spacing)

    everywhere = bool(due.all())  # as at most rates: spares a copy of all maps

    def pushed(newest: Tensor, kept: Tensor) -> Tensor:
        shifted = torch.cat([newest.to(kept.dtype), kept[:, :-1]], 1)
        return shifted if everywhere else torch.where(due.view(-1, *[1] * (kept.dim() - 1)), shifted, kept)

    return BevHistory(
        pushed(present, history.maps),
        pushed(stamps[:, None], history.stamps),
        pushed(world_from_working[:, None], history.world_from_working),
        pushed(torch.ones_like(usable[:, :1]), usable),
    )


def _usable(history: BevHistory, stamps: Tensor, config: BevHistoryConfig) -> Tensor:
    """bool [B, T]: maps that are there, in samples whose history has no gap up to now (either way: training also plays
    drives backwards).
    """
    near = (stamps.double() - history.stamps[:, 0]).abs() <= config.max_gap
    return history.valid & near[:, None]


def _empty(present: Tensor, frames: int) -> BevHistory:
    batch, device = len(present), present.device
    return BevHistory(
        present.new_zeros(batch, frames, *present.shape[2:]),
        torch.zeros(batch, frames, dtype=torch.float64, device=device),
        torch.eye(4, dtype=torch.float64, device=device).repeat(batch, frames, 1, 1),
        torch.zeros(batch, frames, dtype=torch.bool, device=device),
    )


def _check_batch(history: BevHistory, present: Tensor) -> None:
    """present [B, ..., C, Y, X]."""
    if len(history.maps) != len(present) or history.maps.shape[2:] != present.shape[2:]:
        raise ValueError(
            f"the BEV history holds {list(history.maps.shape)} (samples, maps, C, Y, X), the frame "
            f"{list(present.shape)}: start without one when the batch or the detector changes"
        )
