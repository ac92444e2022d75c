"""How the learning rate, and with it AdamW's momentum, moves through a run."""

from __future__ import annotations

import math

from dualview.training.recipe_settings import OptimizerSettings

_RISE = 0.4  # of a cyclic run: until here the rate rises (CenterPoint's)
_BOTTOM = 0.1  # of the rate: where a cycle begins
_STEP = 0.1  # factor at each step down
_LEAST_MOMENTUM = 0.85 / 0.95  # of a cyclic run, at the peak of the rate (CenterPoint's)


def learning_rate_factor(step: int, steps: int, settings: OptimizerSettings) -> float:
    """Factor on the learning rate at `step` of `steps`; see `OptimizerSettings.schedule`."""
    done = min(step / steps, 1.0)
    if settings.schedule == "cyclic":
        if done < _RISE:
            return _between(_BOTTOM, 1.0, done / _RISE)
        return _between(1.0, settings.final_factor, (done - _RISE) / (1 - _RISE))
    begin = settings.warmup_from
    warm = min(1.0, begin + (1 - begin) * step / max(settings.warmup_steps, 1))
    if settings.schedule == "steps":
        return warm * _STEP ** sum(done >= place for place in settings.decay_at)
    return warm * _between(1.0, settings.final_factor, done)


def momentum_factor(step: int, steps: int, settings: OptimizerSettings) -> float:
    """Factor on AdamW's first beta at `step` of `steps`: of a cyclic run it falls while the rate rises, and rises while that
    falls, as CenterPoint is trained; of the others it is 1.
    """
    if settings.schedule != "cyclic":
        return 1.0
    done = min(step / steps, 1.0)
    if done < _RISE:
        return _between(1.0, _LEAST_MOMENTUM, done / _RISE)
    return _between(_LEAST_MOMENTUM, 1.0, (done - _RISE) / (1 - _RISE))


def _between(begin: float, end: float, done: float) -> float:
    """Half a cosine from `begin` to `end`."""
    return end + (begin - end) * 0.5 * (1 + math.cos(math.pi * done))
