"""Detector checkpoints: one .safetensors file with the weights, and the configuration as JSON in its
metadata.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dualview.detectors.bev_colors import COLORS_KEY, BevColors
from dualview.detectors.detector import Detector, Settings, with_score_threshold
from dualview.detectors.json_config import override
from dualview.detectors.presets import PRESETS, preset_config
from dualview.detectors.systems import make_detector, settings_from_json
from dualview.errors import ConfigError, WeightsError, did_you_mean
from dualview.networks.fold_norms import fold_batch_norms, same_numbers
from dualview.networks.symmetric_padding import pad_symmetrically
from dualview.resources import find_directories

CONFIG_KEY = "dualview_config"
DISTILLATION_PREFIX = "distillation_head."  # weights that only training used; no detector has them
_BF16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16")  # of a CPU; on the latter the tiny detector's step takes 0.7 of float32's time
_OUR_NETWORKS = ("feature_pyramid", "bev_branch", "center_head")  # parts with norms that name their layers in order
_LARGE = 8192  # numbers: from here on a tensor is worth storing in half precision
_NEARLY = 0.8  # how like a checkpoint's name a wrong one is: many begin alike, so more than is usual
_PICKLE_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".pkl")


def shipped_checkpoints() -> dict[str, Path]:
    """Name -> file of every checkpoint in the models folders; where a name occurs twice the first folder
    wins.
    """
    found: dict[str, Path] = {}
    for folder in find_directories("models"):
        for path in sorted(folder.glob("*.safetensors")):
            found.setdefault(path.stem, path)
    return found


def find_checkpoint(name_or_path: str | Path) -> Path:
    """The file that is meant: a path (with ~ and $VARIABLES), or a name in models/ where no such file is. It may not be there."""
    path = Path(os.path.expandvars(str(name_or_path))).expanduser()
    return path if path.is_file() else shipped_checkpoints().get(str(name_or_path), path)


def close_checkpoint(name: str, also: Iterable[str] = (), otherwise: str = "") -> str:
    """ "did you mean '…'?" where a checkpoint in models/, or one of `also`, is nearly `name`; else `otherwise`."""
    return did_you_mean(name, sorted({*also, *shipped_checkpoints()}), otherwise, _NEARLY)


def load_detector(
    name_or_path: str | Path,
    device: str | torch.device = "auto",
    seed: int = 0,
    overrides: Mapping[str, Any] | None = None,
    precision: str = "fp32",
) -> Detector:
    """A detector, ready for `step`: a checkpoint by path or by its name in models/, or a preset with random
    weights.

    device: "auto" takes the GPU if there is one. seed: of a preset's random weights. overrides: config fields
    by dotted path, such as {"max_tracks": 100}; "score_threshold" stands for all fields that decide from which score
    on a track is reported. precision: see `resolve_precision`.

    Raises WeightsError if the file can't be found or doesn't fit, ConfigError for an unknown name or
    override.
    """
    name = str(name_or_path)
    path = find_checkpoint(name)
    if path.suffix in _PICKLE_SUFFIXES:
        raise WeightsError(
            f"'{name}' is a pickled checkpoint, which can run any code when it is read: turn it into a "
            ".safetensors file with `dualview import-weights` once, if you trust it"
        )
    if path.suffix == ".safetensors" or path.is_file():
        detector = load_checkpoint(path, overrides)
    elif name in PRESETS:
        detector = build_detector(overridden(preset_config(name), overrides), seed)
    else:
        known = sorted({*PRESETS, *shipped_checkpoints()})
        meant = close_checkpoint(name, PRESETS, f"by name there are {', '.join(known)}")
        raise ConfigError(f"'{name}' is neither a file nor a detector by name; {meant}")
    detector = fold_for_inference(detector).to(resolve_device(device))
    detector.precision = resolve_precision(precision, detector.device)
    return detector


def resolve_device(device: str | torch.device) -> torch.device:
    """The device that "auto", "cpu" or "cuda" stands for. Raises ConfigError if it isn't there."""
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"'{device}' is no device: say auto, cpu or cuda") from error
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"device '{device}' was asked for, but torch {torch.__version__} sees no GPU: use auto or cpu"
        )
    return resolved


def resolve_precision(precision: str, device: torch.device) -> Literal["fp32", "bf16"]:
    """Of what numbers the network is computed: "fp32", "bf16" (bfloat16 with float32 sums; boxes and geometry stay
    float32), or "auto": bf16 on a CPU with instructions for it (AMX or AVX-512 BF16), else fp32. Raises ConfigError for anything else.
    """
    if precision not in ("auto", "fp32", "bf16"):
        raise ConfigError(f"precision '{precision}' is unknown: say auto, fp32 or bf16")
    if precision == "auto":
        known = torch.cpu.get_capabilities() if device.type == "cpu" else {}
        return "bf16" if any(known.get(name, False) for name in _BF16_INSTRUCTIONS) else "fp32"
    return "bf16" if precision == "bf16" else "fp32"


def overridden(config: Settings, overrides: Mapping[str, Any] | None) -> Settings:
    """`config` with fields changed by dotted path; "score_threshold" as in `load_detector`. Raises ConfigError."""
    return override(config, with_score_threshold(config, overrides or {}))


def set_score_threshold(detector: Detector, own: Settings, score_threshold: float | None) -> None:
    """From the next frame on `detector` reports what scores at least this; None: as its own configuration, `own`, says."""
    config = overridden(own, {"score_threshold": score_threshold})
    detector.config = config
    if config.decoder is not None and "decoder.id_threshold" in config.score_keys:
        detector.decoder.config = config.decoder


def build_detector(config: Settings, seed: int = 0, anchors: Tensor | None = None) -> Detector:
    """A detector with random weights that only `seed` decides; the global random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        detector = make_detector(config, anchors)
    detector.weights_description = f"untrained (seed {seed})"
    return detector


def fold_for_inference(detector: Detector) -> Detector:
    """The detector in evaluation mode with its batch norms folded away; it steps faster and can't be trained
    or saved.
    """
    detector.eval()
    if detector.image_backbone is not None:
        backbone = fold_batch_norms(detector.image_backbone)
        if not any(edge % max(detector.config.pyramid_strides) for edge in detector.config.image_size):
            pad_symmetrically(backbone)  # all maps are even
        example = torch.linspace(-2, 2, 3 * 64 * 64).view(1, 3, 64, 64)
        if same_numbers(detector.image_backbone, backbone, example):  # any of timm's networks may be in there
            detector.image_backbone = backbone
    for name in _OUR_NETWORKS:
        if getattr(detector, name, None) is not None:
            setattr(detector, name, fold_batch_norms(getattr(detector, name)))
    detector.folded = True
    return detector


def save_checkpoint(detector: Detector, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write weights and configuration to `path` (.safetensors); `metadata`: further strings to keep beside
    them.

    Raises ValueError for a detector that was folded for inference.
    """
    if detector.folded:
        raise ValueError(
            "a detector from dualview.load has its batch norms folded: save one from load_checkpoint"
        )
    weights = {name: value.detach().cpu().contiguous() for name, value in detector.state_dict().items()}
    strings = {**(metadata or {}), CONFIG_KEY: detector.config.to_json()}
    if detector.bev_colors is not None:
        strings[COLORS_KEY] = detector.bev_colors.to_json()
    _write(weights, Path(path), strings)


def _write(weights: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Not by save_file, whose files only their owner may read: a node often runs as another user than who trains."""
    path.write_bytes(save(dict(weights), dict(metadata)))


def export_half(
    source: Path, target: Path, colors: BevColors | None = None, overrides: Mapping[str, Any] | None = None
) -> float:
    """Copy a checkpoint with its large tensors in float16, metadata as they are; it loads like any other. colors: of its
    BEV map, to replace those that it has. overrides: settings by dotted path that the copy shall have, such as its
    thresholds.

    Small tensors (norms, biases, anchors) stay in float32: they take no room, and rounding them would move
    boxes. Returns the largest relative error among weights that float16 holds as normal numbers. Raises
    WeightsError if the source can't be read or a weight is beyond float16, ConfigError for settings that it hasn't.
    """
    metadata, weights = read_metadata(source), read_tensors(source)
    if overrides:
        metadata[CONFIG_KEY] = load_checkpoint(source, overrides).config.to_json()
    if colors is not None:
        metadata[COLORS_KEY] = colors.to_json()
    halved, largest = {}, 0.0
    for name, value in weights.items():
        halved[name] = value
        small = value.dim() < 2 or value.numel() < _LARGE or name.endswith("initial_anchors")
        if value.dtype != torch.float32 or small:
            continue
        half = value.half()
        if not bool(half.isfinite().all()):
            raise WeightsError(f"'{source}': {name} holds numbers beyond float16; share it as it is")
        normal = value.abs() >= torch.finfo(torch.float16).tiny
        error = ((half.float() - value).abs() / value.abs())[normal]
        largest = max(largest, float(error.max())) if error.numel() else largest
        halved[name] = half
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.partial")
    try:
        _write(halved, temporary, metadata)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return largest


def read_metadata(path: Path) -> dict[str, str]:
    """The strings beside the weights of a .safetensors file, among them the configuration's JSON.

    Raises WeightsError if the file can't be read.
    """
    try:
        with safe_open(str(path), "pt") as file:
            return dict(file.metadata() or {})
    except FileNotFoundError as error:
        raise WeightsError(f"there is no checkpoint '{path}'") from error
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"'{path}' is not a readable .safetensors file ({error}): fetch or write it again"
        ) from error


def load_checkpoint(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Detector:
    """The detector that `save_checkpoint` wrote; every weight must be there and fit.

    Raises WeightsError naming what is missing, unexpected or of another shape.
    """
    path = Path(path)
    metadata = read_metadata(path)
    if CONFIG_KEY not in metadata:
        raise WeightsError(
            f"'{path}' holds weights without a dualview configuration: if they are another project's, "
            "import them with `dualview import-weights`"
        )
    config = overridden(settings_from_json(metadata[CONFIG_KEY]), overrides)
    detector = build_detector(config)
    load_weights(detector, read_tensors(path), str(path))
    if COLORS_KEY in metadata:
        detector.bev_colors = BevColors.from_json(metadata[COLORS_KEY])
    detector.weights_description = f"{path.name} sha256 {sha256_of(path)[:16]}"
    return detector


def load_weights(detector: torch.nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load `weights` strictly; a distillation head among them (`DISTILLATION_PREFIX`) is left out, with a warning that says
    so. Raises WeightsError naming every parameter that is missing, unexpected or of another shape.
    """
    wanted = detector.state_dict()
    heads = [name for name in weights if name.startswith(DISTILLATION_PREFIX)]
    if heads:
        weights = {name: value for name, value in weights.items() if name not in heads}
        warnings.warn(
            f"{source} holds the distillation head of its training ({', '.join(heads)}): the detector doesn't use it, it is ignored",
            stacklevel=2,
        )
    faults = [f"missing {name}" for name in wanted if name not in weights]
    faults += [f"unexpected {name}" for name in weights if name not in wanted]
    faults += [
        f"{name} is {list(weights[name].shape)}, should be {list(value.shape)}"
        for name, value in wanted.items()
        if name in weights and weights[name].shape != value.shape
    ]
    if faults:
        more = f"; and {len(faults) - 20} more" if len(faults) > 20 else ""
        raise WeightsError(f"the weights in {source} don't fit the network: {'; '.join(faults[:20])}{more}")
    detector.load_state_dict(weights, strict=True)


def read_tensors(path: Path, allow_pickle: bool = False) -> dict[str, Tensor]:
    """All tensors of a .safetensors file, or with `allow_pickle` of a pickled checkpoint (its `state_dict` if
    it has one).

    Pickles are read with `torch.load(weights_only=True)`, which builds tensors and plain containers and
    nothing else.

    Raises WeightsError if the file isn't there, can't be read, is a pickle that wasn't allowed, or holds no
    tensors.
    """
    if not path.is_file():
        raise WeightsError(f"there is no checkpoint '{path}'")
    if path.suffix == ".safetensors":
        try:
            with safe_open(str(path), "pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"'{path}' is not a readable .safetensors file ({error})") from error
    if not allow_pickle:
        raise WeightsError(
            f"'{path}' looks like a pickled checkpoint, which can run code when it is read: pass --allow-pickle "
            "if you trust its source"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"'{path}' can't be read as plain tensors ({reason}): export its state_dict with the code that "
            "wrote it"
        ) from error
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"'{path}' holds no state_dict of tensors")
    return dict(state)


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
