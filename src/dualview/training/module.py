"""The training step: a detector, its losses, its optimiser, and the state that every slot of the batch
carries on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import chain
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from dualview.detectors.detector import Detector
from dualview.detectors.inputs import DetectorInputs, normalize_images
from dualview.detectors.prediction import Prediction
from dualview.errors import DualViewError
from dualview.supervision.denoising import (
    DenoisingTargets,
    make_denoising,
    remember_denoising,
    temporal_targets,
)
from dualview.training.depthwise import QuickDepthwise
from dualview.training.frozen import freeze_detector, frozen_parts, keep_statistics
from dualview.training.lightning import lightning
from dualview.training.losses import LossPlan
from dualview.training.objectives import Objective
from dualview.training.optimizer import growing_average, parameter_groups, set_momentum
from dualview.training.recipe import Recipe
from dualview.training.samples import TrainingBatch
from dualview.training.schedule import learning_rate_factor, momentum_factor
from dualview.training.stream_state import StreamState, from_plain, map_tensors, to_plain


class TrainingDivergedError(DualViewError):
    """Too many steps gave losses or gradients that aren't numbers."""


class DetectorTraining(lightning().LightningModule):  # type: ignore[misc]
    """Trains `detector` by `recipe`. Everything that a step depends on is in the weights, the optimiser,
    `stream` and `batches_seen`; random numbers of a step follow from the seed and the number of the batch, so
    a resumed run repeats exactly.
    """

    def __init__(self, recipe: Recipe, detector: Detector, objectives: Sequence[Objective] = ()) -> None:
        """objectives: what the detector learns from beside its labels (see `objectives.py`)."""
        super().__init__()
        self.recipe = recipe
        self.detector = detector
        self.objectives = nn.ModuleList(objectives)
        freeze_detector(detector, recipe)
        self.loss_plan = LossPlan.of(detector.config, recipe.losses)
        decay = recipe.optimizer.ema
        self.averaged = None
        if decay > 0:
            self.averaged = AveragedModel(detector, multi_avg_fn=growing_average(decay), use_buffers=True)
            self.averaged.requires_grad_(False)
        self.stream = StreamState(detector.initial_memory())
        self.batches_seen = 0
        self.bad_steps = 0
        self.last_losses: dict[str, float] = {}
        self.last_terms: dict[str, Tensor] = {}  # with their graph, as the prediction has its own
        self.last_prediction: Prediction | None = None
        self._buffers_before: list[Tensor] = []
        self._sources: list[str] = []
        self._bad_batches: list[str] = []
        self.train()  # Lightning leaves every part in the mode it finds it in

    # ---- a step
    # -------------------------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> DetectorTraining:
        """Training mode; the averaged weights, frozen parts, and if so asked the backbone's batch statistics, stay as
        they are.
        """
        super().train(mode)
        if self.averaged is not None:
            self.averaged.eval()
        backbone = self.detector.image_backbone
        if mode and backbone is not None:
            keep_statistics(
                backbone.body, self.recipe.freeze_batch_norm, self.recipe.freeze_stages
            )
        for part in frozen_parts(self.detector, self.recipe.frozen if mode else ()):
            part.eval()
        return self

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> Tensor:
        """The sum of all loss terms of one batch; what each slot remembers moves on."""
        torch.manual_seed(_step_seed(self.recipe.seed, self.batches_seen, self.global_rank))
        self._keep_buffers()
        state = self.stream.to(self.device).restarted(batch.first)
        inputs = self.detector_inputs(batch)
        config = self.recipe.losses.denoising
        made = None
        resting = self.batches_seen < self.recipe.dense_steps * self.recipe.accumulate
        if config is not None and not resting and self.detector.takes_queries:
            made = make_denoising(batch.truths, config, self.loss_plan.detection.matching, state.denoising)
        mixed = torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16")
        quick = (
            QuickDepthwise()
            if self.recipe.precision == "bf16" and self.device.type == "cpu"
            else nullcontext()
        )
        with mixed, quick:
            prediction = self.detector(
                inputs, state.memory, made[0] if made else None, with_instances=not resting
            )
        targets, remembered = self._denoising_targets(prediction, made, state)
        finite = is_finite(prediction)
        # Losses may stop the process on numbers that aren't (a GPU's assertions can't be caught); every
        # process must compute them, since they count over all. So they are computed on something, and the sum
        # is spoilt afterwards.
        judged = prediction if finite else map_tensors(prediction, torch.nan_to_num)
        losses = self.loss_plan.losses(judged, batch.truths, batch.depth, targets, batch.boxed)
        for objective in cast("Iterable[Objective]", self.objectives):
            losses |= objective.losses(judged, batch)
        total = torch.stack(list(losses.values())).sum()
        if not finite:
            total = total * torch.nan
        values = torch.stack([*losses.values(), total]).detach().tolist()  # one wait for the GPU
        self.last_losses = dict(zip([*losses, "total"], values, strict=True))
        self.last_terms, self.last_prediction = losses, prediction
        self.stream = StreamState(prediction.memory, remembered)
        self._forget_broken()
        self.batches_seen += 1
        self._sources += batch.sources
        if not math.isfinite(self.last_losses["total"]):
            self._bad_batches += self._named_faults(batch)
        self.log("loss", self.last_losses["total"], prog_bar=True, batch_size=len(batch.first), logger=False)
        return total

    def detector_inputs(self, batch: TrainingBatch) -> DetectorInputs:
        """What the detector is given of a batch: normalised images, and what objectives add."""
        inputs = replace(batch.inputs, images=normalize_images(batch.inputs.images))
        for objective in cast("Iterable[Objective]", self.objectives):
            inputs = objective.complete(inputs, batch)
        return inputs

    def _denoising_targets(
        self, prediction: Prediction, made: Any, state: StreamState
    ) -> tuple[tuple[DenoisingTargets, DenoisingTargets] | None, Any]:
        """Targets of single-frame and of later layers, and the denoising memory for the next frame."""
        config = self.recipe.losses.denoising
        decoder = prediction.decoder
        if made is None or config is None or decoder is None or decoder.denoising is None:
            return None, None
        later = temporal_targets(made[1], state.denoising, decoder.history_valid)
        return (made[1], later), remember_denoising(decoder.denoising, later, config)

    def _forget_broken(self) -> None:
        """A slot whose memory isn't finite starts anew, so that one bad frame doesn't spoil the rest of its
        drive.
        """
        broken = self.stream.broken_slots()
        if broken is not None and bool(broken.any()):
            self.stream = self.stream.restarted(broken)

    def _named_faults(self, batch: TrainingBatch) -> list[str]:
        faults = [
            name for name, value in self.last_losses.items() if not math.isfinite(value) and name != "total"
        ]
        return [f"{', '.join(faults[:4]) or 'predictions'} of {source}" for source in batch.sources]

    # ---- around the optimiser
    # ------------------------------------------------------------------------------------------

    def configure_gradient_clipping(self, optimizer: Any, *unused: Any, **unused_too: Any) -> None:
        """Clip the gradient; if it isn't finite, drop it, name the batch, put back the batch statistics and
        count.
        """
        trained = chain(self.detector.parameters(), self.objectives.parameters())
        parameters = [p for p in trained if p.grad is not None]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.recipe.optimizer.clip)
        self.last_losses["gradient_norm"] = float(norm)
        if bool(norm.isfinite()):
            self._sources, self._bad_batches = [], []
            return
        for parameter in parameters:
            parameter.grad = None
        self._restore_buffers()
        self.bad_steps += 1
        bad, sources = self._of_all_processes(self._bad_batches), self._of_all_processes(self._sources)
        named = "; ".join(bad) or "finite losses, but a gradient that isn't, of " + "; ".join(sources)
        self._sources, self._bad_batches = [], []
        message = f"step {self.global_step}: not finite: {named}. The step is passed over"
        self.print(message)
        if self.bad_steps > self.recipe.max_bad_steps:
            raise TrainingDivergedError(
                f"{self.bad_steps} steps weren't finite, more than max_bad_steps {self.recipe.max_bad_steps}; the last was {message}. "
                "Lower optimizer.learning_rate or optimizer.clip, or look at the recordings named"
            )

    def _of_all_processes(self, lines: list[str]) -> list[str]:
        """The lines of every process, which all must ask for at the same time; gradients are the same in all."""
        if self.trainer.world_size == 1:
            return lines
        found: list[list[str]] = [[] for _ in range(self.trainer.world_size)]
        torch.distributed.all_gather_object(found, lines)
        return [line for own in found for line in own]

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        """One step with the momentum that belongs to it, then the averaged weights follow."""
        factor = momentum_factor(self.global_step, self.recipe.steps, self.recipe.optimizer)
        set_momentum(self.optimizers(use_pl_optimizer=False), factor)
        super().optimizer_step(*arguments, **named)
        if self.averaged is not None:
            self.averaged.update_parameters(self.detector)

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW with its own rates for the backbone, the neck and the BEV branch, and a schedule by steps."""
        settings = self.recipe.optimizer
        optimizer = torch.optim.AdamW(
            parameter_groups(self.detector, settings, self.objectives.parameters()),
            weight_decay=settings.weight_decay,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, self.recipe.steps, settings)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _keep_buffers(self) -> None:
        """Remember the batch statistics, which a frame that isn't finite would spoil for good."""
        buffers = self._statistics()
        if self.batches_seen % self.recipe.accumulate and self._buffers_before:
            return
        if len(self._buffers_before) != len(buffers):
            self._buffers_before = [b.detach().clone() for b in buffers]
        else:
            _copy_all(self._buffers_before, buffers)

    def _restore_buffers(self) -> None:
        _copy_all(self._statistics(), self._buffers_before)

    def _statistics(self) -> list[Tensor]:
        return [*self.detector.buffers(), *self.objectives.buffers()]

    # ---- what a checkpoint holds
    # ---------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Beside weights and optimiser: what every slot of every process remembers, and the counters."""
        streams = [to_plain(self.stream)]
        if self.trainer.world_size > 1:
            streams = [None] * self.trainer.world_size  # type: ignore[list-item]
            torch.distributed.all_gather_object(streams, to_plain(self.stream))
        checkpoint["dualview"] = {
            "streams": streams, "batches_seen": self.batches_seen, "bad_steps": self.bad_steps,
            "detector": self.detector.config.to_json(),
        }  # fmt: skip

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The other way round. Raises DualViewError if the run had another number of processes."""
        saved = checkpoint["dualview"]
        if len(saved["streams"]) != self.trainer.world_size:
            raise DualViewError(
                f"the run was saved by {len(saved['streams'])} processes and would go on with {self.trainer.world_size}: use as "
                "many, or start a new run from its weights (start_from)"
            )
        self.stream = from_plain(StreamState, saved["streams"][self.global_rank])
        self.batches_seen, self.bad_steps = int(saved["batches_seen"]), int(saved["bad_steps"])

    def best_weights(self) -> Detector:
        """The detector to keep: averaged weights if there are any."""
        return self.detector if self.averaged is None else cast(Detector, self.averaged.module)


def is_finite(prediction: Prediction) -> bool:
    """Whether the numbers that losses judge are all finite."""
    judged = [task.heatmap for task in prediction.center]
    if prediction.decoder is not None:
        last = prediction.decoder.layers[-1]
        judged += [last.computed_class_logits, last.anchors]
    if prediction.bev is not None and prediction.bev.depth_logits is not None:
        judged.append(prediction.bev.depth_logits)
    return bool(torch.stack([value.isfinite().all() for value in judged]).all())


def _step_seed(seed: int, batch: int, rank: int) -> int:
    return (seed * 1_000_003 + batch) * 4096 + rank


@torch.no_grad()
def _copy_all(targets: list[Tensor], sources: list[Tensor]) -> None:
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)
