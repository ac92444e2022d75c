"""A published BEVFormer-tiny checkpoint becomes ours: every key has a use or a reason, whatever fits not is named.

No published checkpoint is at hand: its names and shapes are written down here (those of the parts in the golden case
bevformer_tiny are compared with it) and filled with random numbers.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import torch
from detector_frames import surround_frame
from safetensors import safe_open
from safetensors.torch import save_file

import dualview
from dualview.cli import main
from dualview.detectors.import_bevformer import import_bevformer, map_keys, published_config
from dualview.errors import WeightsError
from dualview.networks.image_backbone import ImageBackbone

REPOSITORY = Path(__file__).parents[2]
HEAD = "pts_bbox_head."
DIMS, QUERIES, CELLS = 256, 900, 50


def linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm(name: str) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (DIMS,), f"{name}.bias": (DIMS,)}


def attention(name: str, inputs: int, points: int, output: bool = True) -> dict[str, tuple[int, ...]]:
    """points: of all heads and maps."""
    shapes = linear(f"{name}.sampling_offsets", 2 * points, inputs) | linear(
        f"{name}.attention_weights", points, inputs
    )
    shapes |= linear(f"{name}.value_proj", DIMS, DIMS)
    return shapes | (linear(f"{name}.output_proj", DIMS, DIMS) if output else {})


def feed_forward(name: str) -> dict[str, tuple[int, ...]]:
    return linear(f"{name}.ffns.0.layers.0.0", 512, DIMS) | linear(f"{name}.ffns.0.layers.1", DIMS, 512)


def head_shapes(levels: int = 4) -> dict[str, tuple[int, ...]]:
    """The head and the transformer. levels: of the level embeddings, of which the tiny network uses the first."""
    shapes: dict[str, tuple[int, ...]] = {
        "code_weights": (10,), "bev_embedding.weight": (CELLS**2, DIMS), "query_embedding.weight": (QUERIES, 2 * DIMS),
        "positional_encoding.row_embed.weight": (CELLS, DIMS // 2),
        "positional_encoding.col_embed.weight": (CELLS, DIMS // 2),
        "transformer.level_embeds": (levels, DIMS), "transformer.cams_embeds": (6, DIMS),
    }  # fmt: skip
    shapes |= linear("transformer.reference_points", 3, DIMS)
    shapes |= linear("transformer.can_bus_mlp.0", DIMS // 2, 18) | linear(
        "transformer.can_bus_mlp.2", DIMS, DIMS // 2
    )
    shapes |= norm("transformer.can_bus_mlp.norm")
    for layer in range(6):
        branch = f"cls_branches.{layer}"
        shapes |= linear(f"{branch}.0", DIMS, DIMS) | norm(f"{branch}.1") | linear(f"{branch}.3", DIMS, DIMS)
        shapes |= norm(f"{branch}.4") | linear(f"{branch}.6", 10, DIMS)
        branch = f"reg_branches.{layer}"
        shapes |= (
            linear(f"{branch}.0", DIMS, DIMS)
            | linear(f"{branch}.2", DIMS, DIMS)
            | linear(f"{branch}.4", 10, DIMS)
        )
        inside = f"transformer.decoder.layers.{layer}"
        shapes |= {
            f"{inside}.attentions.0.attn.in_proj_weight": (3 * DIMS, DIMS),
            f"{inside}.attentions.0.attn.in_proj_bias": (3 * DIMS,),
        }
        shapes |= linear(f"{inside}.attentions.0.attn.out_proj", DIMS, DIMS)
        shapes |= attention(f"{inside}.attentions.1", DIMS, 8 * 4) | feed_forward(inside)
        for index in range(3):
            shapes |= norm(f"{inside}.norms.{index}")
    for layer in range(3):
        inside = f"transformer.encoder.layers.{layer}"
        shapes |= attention(f"{inside}.attentions.0", 2 * DIMS, 8 * 2 * 4)
        shapes |= attention(f"{inside}.attentions.1.deformable_attention", DIMS, 8 * 8, output=False)
        shapes |= linear(f"{inside}.attentions.1.output_proj", DIMS, DIMS) | feed_forward(inside)
        for index in range(3):
            shapes |= norm(f"{inside}.norms.{index}")
    return shapes


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """Random numbers under the published names; the ResNet's are torchvision's."""
    generator = torch.Generator().manual_seed(0)
    tensors = {
        HEAD + name: 0.05 * torch.randn(shape, generator=generator) for name, shape in head_shapes().items()
    }
    for name, value in ImageBackbone("resnet50", (32,)).body.state_dict().items():
        random = (
            0.02 * torch.randn(value.shape, generator=generator) if value.is_floating_point() else value + 7
        )
        tensors[f"img_backbone.{name}"] = random.abs() + 1 if name.endswith("running_var") else random
    for name, shape in (
        ("lateral_convs.0.conv", (DIMS, 2048, 1, 1)),
        ("fpn_convs.0.conv", (DIMS, DIMS, 3, 3)),
    ):
        tensors[f"img_neck.{name}.weight"] = 0.02 * torch.randn(shape, generator=generator)
        tensors[f"img_neck.{name}.bias"] = 0.02 * torch.randn(DIMS, generator=generator)
    return tensors


def test_parity_names_of_the_golden_case() -> None:
    """Every name of the case's weights is one of those written down here, with the published sizes for its own."""
    root = (REPOSITORY / os.environ.get("DUALVIEW_PARITY", "../shared/parity")).resolve()
    folder = root / "bev/bevformer_tiny"
    if not (folder / "weights.safetensors").is_file():
        pytest.skip(f"no golden case {folder}: set DUALVIEW_PARITY to the folder that holds bev/")
    config = json.loads((folder / "config.json").read_text())
    sizes = {
        config["embed"]: DIMS, 2 * config["embed"]: 2 * DIMS, config["embed"] // 2: DIMS // 2, config["num_query"]: QUERIES,
        config["bev"][0] ** 2: CELLS**2,
    }  # fmt: skip
    expected = head_shapes(levels=1)
    with safe_open(str(folder / "weights.safetensors"), "pt") as file:
        names = list(file.keys())
        shapes = {name: file.get_slice(name).get_shape() for name in names}
    assert len(names) == 68
    for name in names:
        published = name.removeprefix("head.")
        assert published in expected, name
        # widths that depend on nothing but points, heads and numbers of outputs are the published ones already
        for ours, theirs in zip(expected[published], shapes[name], strict=True):
            assert (
                ours == theirs or ours == sizes.get(theirs) or re.search(r"ffns|offsets|weights\.", name)
            ), name


def test_every_key_has_a_use_or_a_reason(state) -> None:
    detector, report = import_bevformer(state)
    levels = f"{HEAD}transformer.level_embeds"
    assert set(report.used) | set(report.dropped) == {*state, f"{levels}[1:]"}
    assert sorted(report.dropped) == [f"{HEAD}code_weights", f"{levels}[1:]"]
    ours = detector.state_dict()
    assert sorted(report.used.values()) == sorted(ours)  # each of ours exactly once
    for key, name in report.used.items():
        if key == levels:
            assert torch.equal(ours[name], state[key][:1])
        elif re.fullmatch(r".*reg_branches\.\d\.4\..*", key):
            assert torch.equal(ours[name][3], state[key][3]) and torch.equal(ours[name][6], -state[key][7])
            assert torch.equal(ours[name][2], state[key][4]) and torch.equal(ours[name][7], -state[key][6])
            assert torch.equal(
                ours[name].abs().sum(0), state[key][[0, 1, 4, 3, 2, 5, 7, 6, 8, 9]].abs().sum(0)
            )
        else:
            assert torch.equal(ours[name], state[key]), key
    quirks = published_config().network.quirks
    assert quirks.rotation_center == (100.0, 100.0) and quirks.nearest_rotation and quirks.world_motion
    prefixed, again = import_bevformer({f"module.{k}": v for k, v in state.items()})
    assert again == report
    assert all(torch.equal(a, b) for a, b in zip(prefixed.state_dict().values(), ours.values(), strict=True))


def test_names_and_shapes_that_do_not_fit_are_named(state) -> None:
    wrong = f"{HEAD}transformer.encoder.layers.0.attentions.1.deformable_attention.output_proj.weight"
    with pytest.raises(
        WeightsError, match=r"1 keys of the checkpoint are unknown: .*deformable_attention\.output_proj"
    ):
        import_bevformer({**state, wrong: torch.zeros(1)})
    with pytest.raises(
        WeightsError, match=r"are unknown: head\.layers\.0\.weight; is it a BEVFormer-tiny checkpoint"
    ):
        map_keys([*state, "head.layers.0.weight"])
    with pytest.raises(
        WeightsError, match=r"have no place in bevformer-tiny: pts_bbox_head\.cls_branches\.6\.0\.bias"
    ):
        import_bevformer({**state, f"{HEAD}cls_branches.6.0.bias": torch.zeros(DIMS)})
    with pytest.raises(
        WeightsError, match=r"query_embedding\.weight is \[300, 512\], should be \[900, 512\]"
    ):
        import_bevformer({**state, f"{HEAD}query_embedding.weight": torch.zeros(300, 512)})
    fewer = {k: v for k, v in state.items() if not k.endswith("can_bus_mlp.norm.bias")}
    with pytest.raises(WeightsError, match=r"lacks 1 weights .*encoder\.motion\.norm\.bias"):
        import_bevformer(fewer)


def test_the_command_imports(tmp_path, state, capsys) -> None:
    save_file(state, tmp_path / "published.safetensors")
    output = tmp_path / "ours.safetensors"
    assert (
        main(["import-weights", "bevformer-tiny", str(tmp_path / "published.safetensors"), str(output)]) == 0
    )
    printed = capsys.readouterr().out
    assert f"{len(state) - 1} of {len(state)} keys used" in printed
    assert "dropped pts_bbox_head.code_weights: " in printed and "level_embeds[1:]: " in printed
    # smaller images, so that a step costs little; nothing of the network depends on their size
    detector = dualview.load(
        output, device="cpu", overrides={"image_size": [90, 160], "track_threshold": 0.0}
    )
    assert detector.config.working_from_ego == published_config().working_from_ego
    found, _ = detector.step(surround_frame(detector.config, cameras=6), detector.initial_state())
    assert found.tracks.center.isfinite().all() and found.bev.features.shape == (256, 50, 50)
    # LIDAR_TOP's origin lies 0.94 m ahead of the ego origin, so the map does too
    assert found.bev.grid.x_min == pytest.approx(-51.2 + 0.943713) and found.bev.grid.y_min == pytest.approx(
        -51.2
    )
