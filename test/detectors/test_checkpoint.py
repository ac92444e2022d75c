"""Checkpoints and `dualview.load`."""

import json
import pickle
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from detector_frames import small_config, surround_frame
from safetensors.torch import load_file, save_file

import dualview
from dualview.cli import main
from dualview.detectors import checkpoint
from dualview.detectors.catalogue import catalogue
from dualview.detectors.checkpoint import (
    build_detector,
    load_checkpoint,
    read_tensors,
    save_checkpoint,
    sha256_of,
)
from dualview.detectors.presets import PRESETS
from dualview.errors import ConfigError, WeightsError


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "small.safetensors"
    save_checkpoint(build_detector(small_config(), seed=3), path, {"note": "a test"})
    return path


def test_there_and_back(saved):
    detector, original = load_checkpoint(saved).eval(), build_detector(small_config(), seed=3).eval()
    assert detector.config == original.config
    frame = surround_frame(detector.config)
    ours, _ = detector.step(frame, detector.initial_state())
    theirs, _ = original.step(frame, original.initial_state())
    assert torch.equal(ours.tracks.center, theirs.tracks.center)
    assert torch.equal(ours.bev.features, theirs.bev.features)
    assert detector.weights_description == f"small.safetensors sha256 {sha256_of(saved)[:16]}"
    assert checkpoint.read_metadata(saved)["note"] == "a test"


def test_loading_for_inference_folds_the_batch_norms(saved, tmp_path):
    detector, original = dualview.load(saved, device="cpu"), load_checkpoint(saved).eval()
    assert detector.folded and not detector.training
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in detector.modules())
    states = [detector.initial_state(), original.initial_state()]
    for index in range(3):
        frame = surround_frame(detector.config, seconds=0.1 * index, seed=index)
        ours, states[0] = detector.step(frame, states[0])
        theirs, states[1] = original.step(frame, states[1])
        assert ours.tracks.track_id.tolist() == theirs.tracks.track_id.tolist()
        assert torch.allclose(ours.tracks.center, theirs.tracks.center, atol=1e-3)
        assert torch.allclose(ours.bev.features, theirs.bev.features, atol=1e-4)
    with pytest.raises(ValueError, match="batch norms are folded away: train one from"):
        detector.train()
    with pytest.raises(ValueError, match="save one from load_checkpoint"):
        save_checkpoint(detector, tmp_path / "again.safetensors")


def test_the_seed_alone_decides_untrained_weights():
    state = torch.random.get_rng_state()
    first, second, other = (build_detector(small_config(), seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    pairs = list(zip(first.state_dict().values(), second.state_dict().values(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.feature_pyramid.lateral[0].weight, other.feature_pyramid.lateral[0].weight)
    assert first.weights_description == "untrained (seed 1)"


def rewrite(path, change):
    """Write the checkpoint again with its weights changed in place by `change`."""
    weights, metadata = load_file(path), checkpoint.read_metadata(path)
    change(weights)
    save_file(weights, path, metadata)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("feature_pyramid.lateral.0.bias"), "missing feature_pyramid.lateral.0.bias"),
        (lambda w: w.update({"extra.weight": torch.zeros(1)}), "unexpected extra.weight"),
        (
            lambda w: w.update({"feature_pyramid.lateral.0.bias": torch.zeros(5)}),
            r"feature_pyramid.lateral.0.bias is \[5\], should be \[32\]",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(saved, change, message):
    rewrite(saved, change)
    with pytest.raises(WeightsError, match=message):
        load_checkpoint(saved)


def test_files_that_are_no_checkpoints(tmp_path, saved):
    with pytest.raises(WeightsError, match="there is no checkpoint"):
        dualview.load(tmp_path / "missing.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(saved.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="not a readable"):
        dualview.load(broken)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(1)}, foreign)
    with pytest.raises(WeightsError, match="without a dualview configuration"):
        dualview.load(foreign)
    with pytest.raises(WeightsError, match="pickled checkpoint, which can run any code"):
        dualview.load(tmp_path / "model.pth")
    with pytest.raises(
        ConfigError, match=r"neither a file nor a detector by name; by name there are .*dualview-tiny"
    ):
        dualview.load("dualview-enormous")


class Malicious:
    def __reduce__(self):
        return (print, ("this must never run",))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_pickles_need_permission_and_never_run_code(tmp_path, capsys):
    path = tmp_path / "model.pth"
    torch.save({"state_dict": {"a": torch.ones(2)}, "meta": {"epoch": 3}}, path)
    with pytest.raises(WeightsError, match="--allow-pickle"):
        read_tensors(path)
    assert read_tensors(path, allow_pickle=True)["a"].tolist() == [1, 1]
    path.write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(WeightsError, match="can't be read as plain tensors"):
        read_tensors(path, allow_pickle=True)
    torch.save({"state_dict": {"a": Malicious()}}, path)
    with pytest.raises(WeightsError, match="can't be read as plain tensors"):
        read_tensors(path, allow_pickle=True)
    torch.save({"state_dict": {"a": "text"}}, path)
    with pytest.raises(WeightsError, match="holds no state_dict of tensors"):
        read_tensors(path, allow_pickle=True)
    assert "never" not in capsys.readouterr().out


def test_overrides(saved):
    detector = dualview.load(
        saved, device="cpu", overrides={"track_threshold": 0.7, "decoder.id_threshold": None}
    )
    assert detector.config.track_threshold == 0.7 and detector.decoder.config.id_threshold is None
    with pytest.raises(WeightsError, match="don't fit the network"):
        dualview.load(saved, overrides={"decoder.feedforward_dims": 64})
    with pytest.raises(ConfigError, match="did you mean 'track_threshold'"):
        dualview.load(saved, overrides={"track_treshold": 0.7})


def test_devices(saved):
    assert dualview.load(saved).device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ConfigError, match="is no device"):
        dualview.load(saved, device="abacus")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="sees no GPU"):
            dualview.load(saved, device="cuda")


def test_names_in_the_models_folder_come_before_presets(saved, monkeypatch):
    preset = saved.with_name("dualview-tiny.safetensors")
    saved.rename(preset)
    (preset.parent / "other.safetensors").write_bytes(preset.read_bytes())
    (preset.parent / "stale.safetensors").write_bytes(b"nothing")
    monkeypatch.setattr(checkpoint, "find_directories", lambda relative: [preset.parent])
    assert dualview.load("dualview-tiny", device="cpu").config.name == "small"
    assert dualview.load("other", device="cpu").config.name == "small"
    entries = {entry.name: entry for entry in catalogue()}
    assert entries["dualview-tiny"].weights.startswith("dualview-tiny.safetensors sha256 ")
    assert entries["other"].image_size == (64, 96) and entries["other"].summary == "checkpoint of small"
    assert "can't be loaded" in entries["stale"].summary
    assert set(PRESETS) < set(entries)


def test_the_command_lists_every_preset(capsys):
    assert main(["models"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert set(PRESETS) <= set(lines)
    assert "224x640" in lines["dualview-tiny"] and "M parameters" in lines["dualview-tiny"]


def test_importing_the_package_is_cheap():
    code = "import sys, dualview; print(sorted({'torch', 'timm', 'cv2'} & set(sys.modules)))"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout.strip()
        == "[]"
    )


def test_the_tiny_preset_steps():
    detector = dualview.load("dualview-tiny", device="cpu")
    state = detector.initial_state()
    for index in range(2):
        output, state = detector.step(
            surround_frame(detector.config, cameras=6, seconds=0.1 * index, seed=index), state
        )
    assert output.bev.features.shape == (128, 128, 128)
    assert detector.weights_description.startswith(("untrained", "dualview-tiny"))


@pytest.mark.parametrize("name", ["dualview-r50", "sparse4d-r50", "dualview-r50-bev"])
def test_the_large_presets_step_at_a_reduced_size(name):
    overrides = {
        "image_size": [64, 160],
        "decoder.num_anchors": 90,
        "decoder.num_temporal": 60,
        "decoder.id_threshold": None,
    }
    detector = dualview.load(name, device="cpu", overrides=overrides)
    state = detector.initial_state()
    for index in range(2):
        output, state = detector.step(
            surround_frame(detector.config, cameras=2, seconds=0.1 * index, seed=index), state
        )
        assert output.tracks.center.isfinite().all()
    assert state.next_track_id >= 90
    assert (output.bev is None) == (name == "sparse4d-r50")


def test_configuration_is_readable_beside_the_weights(saved):
    values = json.loads(checkpoint.read_metadata(saved)[checkpoint.CONFIG_KEY])
    assert (
        values["class_names"] == ["car", "truck", "pedestrian"] and values["format"] == "dualview-detector-1"
    )


def test_half_precision_is_half_the_size_and_the_same_detector(saved, tmp_path, capsys):
    half = tmp_path / "half.safetensors"
    assert main(["export", str(saved), str(half)]) == 0
    assert "MiB" in capsys.readouterr().out
    stored, full = load_file(half), load_file(saved)
    assert set(stored) == set(full)
    assert {stored[k].dtype for k in full if full[k].dim() >= 2 and full[k].numel() >= 8192} == {torch.float16}
    many = {**full, "decoder.initial_anchors": torch.full((900, 11), 50.003)}  # as many as the published detector has
    save_file(many, tmp_path / "many.safetensors", checkpoint.read_metadata(saved))
    checkpoint.export_half(tmp_path / "many.safetensors", tmp_path / "few.safetensors")
    kept = load_file(tmp_path / "few.safetensors")["decoder.initial_anchors"]
    assert torch.equal(kept, many["decoder.initial_anchors"]), "anchors are places"
    small = [k for k in full if full[k].dim() < 2 or full[k].numel() < 8192]
    assert all(torch.equal(stored[k], full[k]) for k in small)
    assert checkpoint.read_metadata(half) == checkpoint.read_metadata(saved)
    loaded, original = load_checkpoint(half), load_checkpoint(saved)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    for ours, theirs in zip(loaded.parameters(), original.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=2**-11, atol=6e-8)


def test_an_export_may_have_settings_of_its_own(saved, tmp_path, capsys):
    out = tmp_path / "out.safetensors"
    assert main(["export", str(saved), str(out), "--set", "score_threshold=0.07", "--set", "max_tracks=50"]) == 0
    before, after = load_checkpoint(saved).config, load_checkpoint(out).config
    assert after == replace(before, track_threshold=0.07, max_tracks=50, decoder=replace(before.decoder, id_threshold=0.07))
    assert main(["export", str(saved), str(tmp_path / "wrong.safetensors"), "--set", "max_trakcs=50"]) != 0
    assert "max_tracks" in capsys.readouterr().err
    assert not (tmp_path / "wrong.safetensors").exists()


def test_half_precision_refuses_what_it_would_spoil(saved, tmp_path, capsys):
    weights = load_file(saved)
    name = next(k for k in weights if weights[k].dim() >= 2 and weights[k].numel() >= 8192)
    weights[name] = torch.full_like(weights[name], 1e6)
    large = tmp_path / "large.safetensors"
    save_file(weights, str(large), checkpoint.read_metadata(saved))
    assert main(["export", str(large), str(tmp_path / "out.safetensors")]) != 0
    assert name in capsys.readouterr().err
    assert not list(tmp_path.glob("*out*"))
    assert main(["export", str(large), str(saved)]) != 0
    assert "--overwrite" in capsys.readouterr().err


def test_bfloat16_is_near_float32_and_moves_no_geometry(saved):
    """The network's numbers move by bfloat16's rounding, the maps stay float32, and training isn't touched."""
    exact, mixed = (dualview.load(saved, device="cpu", precision=p) for p in ("fp32", "bf16"))
    frame = surround_frame(exact.config)
    (one, _), (other, _) = (d.step(frame, d.initial_state()) for d in (exact, mixed))
    assert one.bev is not None and other.bev is not None and other.bev.features.dtype == torch.float32
    error = (one.bev.features - other.bev.features).norm() / one.bev.features.norm()
    assert 0 < error < 0.03
    assert torch.equal(one.bev.valid, other.bev.valid)
    assert other.tracks.center.dtype == torch.float32


def test_precision_by_name(saved):
    with pytest.raises(ConfigError, match="say auto, fp32 or bf16"):
        dualview.load(saved, precision="half")
    known = torch.cpu.get_capabilities()
    quick = known.get("amx_bf16", False) or known.get("avx512_bf16", False)
    assert dualview.load(saved, device="cpu", precision="auto").precision == ("bf16" if quick else "fp32")
    assert dualview.load(saved, device="cpu").precision == "fp32"
