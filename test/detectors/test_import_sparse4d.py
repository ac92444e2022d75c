"""A published Sparse4Dv3 checkpoint becomes ours: every key has a use or a reason, whatever fits not is
named.

No published checkpoint is at hand: its list of 819 names and shapes (golden case 8) is filled with random
numbers.
"""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from detector_frames import surround_frame
from safetensors.torch import save_file

import dualview
from dualview.cli import main
from dualview.detectors.import_sparse4d import (
    LIDAR_TOP_FROM_EGO,
    decoder_config,
    import_sparse4dv3,
    map_keys,
    published_config,
)
from dualview.errors import WeightsError
from dualview.networks.reference_quirks import ReferenceQuirks

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def published():
    """Description of the published state_dict (keys.json)."""
    root = (REPOSITORY / os.environ.get("DUALVIEW_PARITY", "../shared/parity")).resolve()
    path = root / "sparse4d/8_state_dict/keys.json"
    if not path.is_file():
        pytest.skip(f"no golden case {path}: set DUALVIEW_PARITY to the folder that holds sparse4d/")
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def state(published):
    """Random numbers under the published names."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for entry in published["keys"]:
        if entry["dtype"].endswith("int64"):
            tensors[entry["key"]] = torch.tensor(7)
        else:
            tensors[entry["key"]] = 0.02 * torch.randn(entry["shape"], generator=generator)
            if entry["key"].endswith("running_var"):
                tensors[entry["key"]] = tensors[entry["key"]].abs() + 1.0
    return tensors


def test_parity_state_dict_every_key_has_a_use_or_a_reason(published, state):
    assert len(state) == published["num_keys"]
    detector, report = import_sparse4dv3(state)
    assert set(report.used) | set(report.dropped) == set(state) and not set(report.used) & set(report.dropped)
    assert list(report.dropped) == ["head.instance_bank.anchor_handler.fix_scale"]
    ours = detector.state_dict()
    assert sorted(report.used.values()) == sorted(ours)  # each of ours exactly once
    for key, name in report.used.items():
        assert torch.equal(ours[name], state[key]), key
    head = published["model_config"]["head"] | {
        "decoder": {"score_threshold": 0.25}
    }  # ours, where theirs is None
    theirs = decoder_config(head, ReferenceQuirks.reference_compatible())
    assert detector.config.decoder == replace(
        theirs, camera_count=None
    )  # any number, thanks to the camera embedding


def test_never_trained_parameters_are_not_trainable_here(published, state):
    detector, report = import_sparse4dv3(state)
    trainable = {name for name, p in detector.named_parameters() if p.requires_grad}
    for entry in published["keys"]:
        if entry["key"] in report.used and entry["kind"] == "parameter":
            assert (report.used[entry["key"]] in trainable) == entry["requires_grad"], entry["key"]


def test_names_and_shapes_that_do_not_fit_are_named(state):
    with pytest.raises(WeightsError, match=r"1 keys of the checkpoint are unknown: img_depth\.weight"):
        import_sparse4dv3({**state, "img_depth.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"head\.layers\.99\.weight"):
        import_sparse4dv3({**state, "head.layers.99.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"have no place in sparse4d-r50: img_backbone\.fc\.weight"):
        import_sparse4dv3({**state, "img_backbone.fc.weight": torch.zeros(1000, 2048)})
    with pytest.raises(
        WeightsError, match=r"head\.instance_bank\.anchor is \[800, 11\], should be \[900, 11\]"
    ):
        import_sparse4dv3({**state, "head.instance_bank.anchor": torch.zeros(800, 11)})
    fewer = {key: value for key, value in state.items() if key != "img_neck.lateral_convs.2.conv.bias"}
    with pytest.raises(WeightsError, match=r"lacks 1 weights .*feature_pyramid\.lateral\.2\.bias"):
        import_sparse4dv3(fewer)
    with pytest.raises(WeightsError, match="lacks"):
        import_sparse4dv3({})
    prefixed = map_keys(state, published_config())
    assert import_sparse4dv3({f"module.{k}": v for k, v in state.items()})[1] == prefixed


def run_command(*arguments: object) -> int:
    return main(["import-weights", "sparse4dv3", *map(str, arguments)])


def test_the_command_imports_both_kinds_of_files(tmp_path, state, capsys):
    save_file(state, tmp_path / "published.safetensors")
    torch.save(
        {"meta": {"epoch": 100}, "state_dict": state, "optimizer": {"lr": 1e-4}}, tmp_path / "published.pth"
    )
    outputs = [tmp_path / "one.safetensors", tmp_path / "new" / "two.safetensors"]

    assert run_command(tmp_path / "published.safetensors", outputs[0]) == 0
    printed = capsys.readouterr().out
    assert "818 of 819 keys used, 1 dropped" in printed and "anchor_handler.fix_scale: " in printed
    assert run_command(tmp_path / "published.pth", outputs[1]) == 1
    assert "--allow-pickle" in capsys.readouterr().err and not outputs[1].exists()
    assert run_command(tmp_path / "published.pth", outputs[1], "--allow-pickle") == 0
    assert run_command(tmp_path / "published.safetensors", tmp_path / "out.pth") == 1
    assert "must end in .safetensors" in capsys.readouterr().err

    first, second = (dualview.load(path, device="cpu") for path in outputs)
    assert first.config == published_config() == second.config
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )

    detector = dualview.load(
        outputs[0], device="cpu", overrides={"image_size": [64, 192], "track_threshold": 0.0}
    )
    output, _ = detector.step(surround_frame(detector.config, cameras=2), detector.initial_state())
    assert output.tracks.center.isfinite().all()


def test_the_frame_of_published_weights():
    """LIDAR_TOP: x to the right, y forward, z up, above the rear axle's ground point."""
    ego = torch.tensor([[10.943713, 0.0, 1.84023, 1.0], [0.943713, 5.0, 1.84023, 1.0]], dtype=torch.float64)
    lidar = ego @ torch.tensor(LIDAR_TOP_FROM_EGO, dtype=torch.float64).T
    assert torch.allclose(
        lidar[:, :3], torch.tensor([[0.0, 10, 0], [-5.0, 0, 0]], dtype=torch.float64), atol=1e-6
    )
    quirks = published_config().decoder.quirks
    assert quirks.swapped_yaw and quirks.stale_history and quirks.border_rule == "strict_inside"
