"""One training run, from recipe to checkpoint: `dualview train` and tests call `train`."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from dualview.detectors.backbone_weights import load_backbone_weights
from dualview.detectors.checkpoint import (
    DISTILLATION_PREFIX,
    build_detector,
    find_checkpoint,
    load_weights,
    overridden,
    read_tensors,
    resolve_precision,
)
from dualview.detectors.detector import Detector, Settings
from dualview.detectors.neck_weights import load_neck_weights
from dualview.errors import ConfigError
from dualview.scene.rig import load_rig
from dualview.training.anchors import clustered_anchors, load_anchors
from dualview.training.callbacks import LAST, WEIGHTS, Checkpoints, LossLog
from dualview.training.data_module import StreamingData
from dualview.training.drive_store import DriveSummary
from dualview.training.feature_store import known_features
from dualview.training.frozen import freeze_detector
from dualview.training.labelled_drives import training_drives
from dualview.training.lightning import lightning
from dualview.training.module import DetectorTraining, TrainingDivergedError
from dualview.training.objectives import build_objectives, joined_needs
from dualview.training.pictures import Pictures
from dualview.training.recipe import Recipe, recipe_from_dict, recipe_to_dict
from dualview.training.run_lock import run_lock
from dualview.training.stop_signals import StopOnSignal, TrainingStoppedError
from dualview.training.write_errors import make_folder, named_write_errors


@dataclass(frozen=True)
class TrainingResult:
    """weights: the file to load; steps: optimiser steps of the whole run; losses: the last step's terms."""

    weights: Path
    steps: int
    losses: dict[str, float]


def train(
    recipe: Recipe,
    folder: Path,
    resume: bool = False,
    tell: Callable[[str], None] = print,
    callbacks: tuple[Any, ...] = (),
    progress_bar: bool = True,
) -> TrainingResult:
    """Train `recipe` and keep everything in `folder`: recipe.yaml, last.ckpt, weights.safetensors,
    losses.csv, pictures.

    resume: go on from last.ckpt, exactly as if the run hadn't stopped. Raises ConfigError if the folder holds
    another run, one is at work there or it can't be made, the recipe isn't the one that the run began with, or asks for GPUs that aren't
    there; BagError and WeightsError as their parts do; TrainingDivergedError if steps aren't finite; TrainingStoppedError,
    with everything kept, if SIGINT or SIGTERM ended it early.
    """
    _check_devices(recipe)
    _check_folder(recipe, folder, resume)
    make_folder(folder)  # what can't be made is told before the long part
    with run_lock(folder):
        return _train(recipe, folder, resume, tell, callbacks, progress_bar)


def _train(
    recipe: Recipe, folder: Path, resume: bool, tell: Callable[[str], None], callbacks: tuple[Any, ...], progress_bar: bool
) -> TrainingResult:
    config = overridden(recipe.detector_config(), {"camera_names": list(load_rig(_rig_of(recipe)).camera_names)})
    objectives = build_objectives(recipe, config, tell)
    needs = joined_needs(objectives, config)
    drives = training_drives(recipe, config, tell, needs.lidar is not None)
    labelled = sum(int(drive.labelled.sum()) for drive in drives)
    tell(f"{len(drives)} drives, {labelled} labelled frames")
    if recipe.precision == "bf16" and _emulates_bfloat16(recipe.accelerator):
        tell("this CPU has no bfloat16 instructions and emulates them, which is several times slower: set precision=fp32")
    detector = initial_detector(recipe, config, drives, tell)
    with named_write_errors(folder):
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe_to_dict(recipe), sort_keys=False))
    if not resume and (folder / "losses.csv").exists():
        (folder / "losses.csv").unlink()
    freeze_detector(detector, recipe)
    known = known_features(recipe, detector, drives, tell)
    if known is not None:
        objectives.append(known)
        needs = joined_needs(objectives, config)
    module = DetectorTraining(recipe, detector, objectives)
    data = StreamingData(recipe, config, drives, needs)
    stop = StopOnSignal()
    trainer = make_trainer(recipe, folder, config, (*callbacks, stop), progress_bar)
    with warnings.catch_warnings(), named_write_errors(folder):
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings(
            "ignore", message=".*number of training batches.*smaller than the logging interval.*"
        )
        warnings.filterwarnings("ignore", message="Found .* module.* in eval mode")  # frozen parts, on purpose
        warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.* is deprecated")  # Lightning's own, on torch's
        try:
            trainer.fit(module, datamodule=data, ckpt_path=str(folder / LAST) if resume else None, weights_only=True)
        finally:
            data.close()
    if module.bad_steps >= trainer.global_step > 0:
        raise TrainingDivergedError(
            f"none of the {trainer.global_step} steps was finite, so nothing is learned: look at the recordings named, or lower "
            "optimizer.learning_rate"
        )
    if stop.number is not None and trainer.global_step < recipe.steps:
        raise TrainingStoppedError(
            f"stopped after {trainer.global_step} of {recipe.steps} steps, all kept in {folder}: go on with --resume",
            stop.number if trainer.is_global_zero else None,
        )
    return TrainingResult(folder / WEIGHTS, trainer.global_step, module.last_losses)


def _rig_of(recipe: Recipe) -> str:
    """The rig whose cameras a detector learns from, in whose order some tell them apart."""
    labels = recipe.labels_2d
    return recipe.data.rig if recipe.data.train or labels is None else labels.rig or recipe.data.rig


def _emulates_bfloat16(accelerator: str) -> bool:
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.accelerator.is_available())
    return on_cpu and resolve_precision("auto", torch.device("cpu")) == "fp32"


def initial_detector(
    recipe: Recipe, config: Settings, drives: list[DriveSummary], tell: Callable[[str], None] = print
) -> Detector:
    """The detector before its first step: anchors, pretrained backbone, or a whole checkpoint to start from."""
    decoder_is_new = recipe.start_from is None or "decoder" in recipe.fresh
    anchors = _anchors(recipe, config, drives, tell) if decoder_is_new else None
    detector = build_detector(config, recipe.seed, anchors)
    if recipe.start_from is not None:
        path = find_checkpoint(recipe.start_from)
        weights = _with_fresh(read_tensors(path), detector, recipe.fresh)
        load_weights(detector, _without_parts_turned_off(weights, detector, tell), str(path))
        tell(f"starting from {path}")
    elif recipe.backbone_weights is not None:
        name, backbone = config.image_backbone_name, detector.image_backbone
        if backbone is None or name is None:
            raise ConfigError(f"{config.name} has no image backbone: leave backbone_weights out of the recipe")
        tell(load_backbone_weights(backbone, name, recipe.backbone_weights))
    if recipe.neck_weights is not None:
        tell(load_neck_weights(detector, recipe.neck_weights))
    return detector


def _anchors(
    recipe: Recipe, config: Settings, drives: list[DriveSummary], tell: Callable[[str], None]
) -> Tensor | None:
    """Where a new decoder's instances begin, [N, 11]; None: where the preset has them, or there is no decoder."""
    count = 0 if config.decoder is None else config.decoder.num_anchors
    if not count or recipe.anchors == "preset":
        return None
    if recipe.anchors != "k-means":
        return load_anchors(Path(recipe.anchors).expanduser(), count)
    assert config.decoder is not None
    anchors, boxes = clustered_anchors(recipe, drives, count, config.decoder.anchor_range)
    tell(f"{count} anchors from {boxes} boxes")
    return anchors


def _with_fresh(weights: dict[str, Tensor], detector: Detector, fresh: tuple[str, ...]) -> dict[str, Tensor]:
    """The weights with the detector's own for the parts that `fresh` names. Raises ConfigError for a part that it hasn't got."""
    own = detector.state_dict()
    for part in fresh:
        named = {name: value for name, value in own.items() if name == part or name.startswith(f"{part}.")}
        if not named:
            raise ConfigError(f"fresh: {detector.config.name} has no part '{part}', as its weights name it")
        weights = {name: value for name, value in weights.items() if not name.startswith(f"{part}.")} | named
    return weights


def _without_parts_turned_off(
    weights: dict[str, Tensor], detector: Detector, tell: Callable[[str], None]
) -> dict[str, Tensor]:
    """The weights without those of whole parts ("center_head") that the detector, whose config is the checkpoint's own with the
    recipe's overrides, hasn't got.
    """
    parts = {name.partition(".")[0] for name in detector.state_dict()}
    surplus = {name.partition(".")[0] for name in weights if not name.startswith(DISTILLATION_PREFIX)} - parts
    for part in sorted(surplus):
        tell(f"leaving out the weights of {part}, which the recipe turns off")
    return {name: value for name, value in weights.items() if name.partition(".")[0] not in surplus}


def make_trainer(
    recipe: Recipe,
    folder: Path,
    config: Settings,
    callbacks: tuple[Any, ...] = (),
    progress_bar: bool = True,
) -> Any:
    """Lightning's trainer for a recipe. Several devices or nodes: its own distributed data parallel strategy."""
    pl = lightning()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    from lightning.pytorch.loggers import TensorBoardLogger

    several = recipe.devices * recipe.nodes > 1
    own = [LossLog(folder, recipe.log_every), Pictures(folder, recipe.picture_every, config)]
    return pl.Trainer(
        accelerator=recipe.accelerator,
        devices=recipe.devices,
        num_nodes=recipe.nodes,
        # First frames don't reach every parameter (nothing is remembered yet).
        strategy="ddp_find_unused_parameters_true" if several else "auto",
        sync_batchnorm=several and torch.cuda.is_available() and recipe.accelerator != "cpu",
        precision="32-true",  # mixed precision is the module's own matter: losses stay in float32
        max_steps=recipe.steps,
        max_epochs=1,
        accumulate_grad_batches=recipe.accumulate,
        gradient_clip_val=recipe.optimizer.clip,
        logger=TensorBoardLogger(str(folder), name="", version="tensorboard"),
        callbacks=[*own, *callbacks, Checkpoints(folder, recipe)],  # the last one: what stops the run is known to it
        enable_checkpointing=False,
        enable_progress_bar=progress_bar,
        enable_model_summary=False,
        log_every_n_steps=recipe.log_every,
        use_distributed_sampler=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        default_root_dir=str(folder),
        benchmark=torch.cuda.is_available(),
    )


def _check_devices(recipe: Recipe) -> None:
    """Raises ConfigError where a recipe asks for GPUs that this machine hasn't."""
    count = torch.accelerator.device_count()
    if recipe.accelerator == "gpu" and not count:
        raise ConfigError("accelerator: gpu, but torch finds none here (a driver, or torch with CUDA?): set accelerator=cpu, or auto")
    if recipe.accelerator != "cpu" and count and recipe.devices > count:
        raise ConfigError(f"devices: {recipe.devices}, but this machine has {count}: set devices={count}, or accelerator=cpu")


def _check_folder(recipe: Recipe, folder: Path, resume: bool) -> None:
    """Raises ConfigError where a run would be overwritten, or would go on as another one."""
    last, written = folder / LAST, folder / "recipe.yaml"
    if not resume:
        if last.exists():
            raise ConfigError(
                f"{folder} holds a run already: say --resume to go on with it, or choose another folder"
            )
        return
    if not last.exists():
        raise ConfigError(f"{folder} holds no {LAST} to go on from: leave out --resume to begin")
    before = _without_place(_completed(yaml.safe_load(written.read_text())) if written.is_file() else {})
    now = _without_place(yaml.safe_load(yaml.safe_dump(recipe_to_dict(recipe))))
    free = {"log_every", "picture_every", "checkpoint_every", "keep_every", "max_bad_steps"}
    changed = [k for k in now if k in before and k not in free and before[k] != now[k]]
    if changed:
        raise ConfigError(
            f"the recipe differs from the one that {folder} began with in {', '.join(changed)}: a run goes on with its own recipe "
            f"(dualview train {written} --out {folder} --resume), or begins anew from its weights (start_from)"
        )


def _without_place(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe without what says where and by how many processes its drives are kept and read, which changes no number."""
    data = {key: value for key, value in (recipe.get("data") or {}).items() if key not in ("cache", "workers")}
    return {**recipe, "data": data} if "data" in recipe else recipe


def _completed(written: dict[str, Any]) -> dict[str, Any]:
    """A recipe that an earlier version wrote, with what its sections have gained since at the defaults, which change nothing."""
    try:
        whole = yaml.safe_load(yaml.safe_dump(recipe_to_dict(recipe_from_dict(written))))
    except ConfigError:
        return written
    return {key: whole[key] for key in written}
