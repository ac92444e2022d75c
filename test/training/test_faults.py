"""What goes wrong in training is named, and costs as little as it must."""

import errno
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file
from test_resume import environment

import dualview
from dualview.errors import BagError, ConfigError
from dualview.training import callbacks
from dualview.training.bag_index import IndexSettings, find_recordings, index_recordings
from dualview.training.lightning import lightning
from dualview.training.module import TrainingDivergedError
from dualview.training.recipe import recipe_from_dict
from dualview.training.trainer import train
from dualview.training.write_errors import CheckpointError


class PoisonedBatch(lightning().Callback):
    """Calibrations that aren't numbers, in the batches given: they reach the depth network's batch
    statistics.
    """

    def __init__(self, *batches: int) -> None:
        self.batches = batches

    def on_train_batch_start(self, trainer, module, batch, index) -> None:
        if module.batches_seen in self.batches:
            batch.inputs.intrinsics[:] = float("nan")


class Steps(lightning().Callback):
    def __init__(self) -> None:
        self.weights: list[torch.Tensor] = []
        self.statistics: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer, module, *unused) -> None:
        self.weights.append(module.detector.decoder.initial_anchors.detach().clone())
        self.statistics.append(module.detector.bev_branch.depth_net.camera_norm.running_mean.clone())


def test_a_batch_that_is_not_finite_is_named_and_passed_over(small_recipe, tmp_path, capsys) -> None:
    seen = Steps()
    recipe = recipe_from_dict({**small_recipe, "steps": 4})
    result = train(recipe, tmp_path / "run", callbacks=(PoisonedBatch(1), seen), progress_bar=False)
    said = capsys.readouterr().out
    assert "step 1: not finite:" in said and "drive" in said and "slot 0" in said and "passed over" in said
    assert torch.equal(seen.weights[0], seen.weights[1]) and not torch.equal(seen.weights[1], seen.weights[2])
    assert torch.equal(seen.statistics[0], seen.statistics[1])  # nor did its statistics stay
    assert not torch.equal(seen.statistics[1], seen.statistics[2])
    assert result.steps == 4 and all(v.isfinite().all() for v in load_file(result.weights).values())


def test_too_many_of_them_end_the_run_with_a_sentence(small_recipe, tmp_path) -> None:
    recipe = recipe_from_dict({**small_recipe, "steps": 6, "max_bad_steps": 2})
    with pytest.raises(TrainingDivergedError, match=r"3 steps weren't finite.*learning_rate"):
        train(recipe, tmp_path / "run", callbacks=(PoisonedBatch(1, 2, 3),), progress_bar=False)


def test_a_run_without_one_finite_step_is_not_called_done(small_recipe, tmp_path) -> None:
    recipe = recipe_from_dict({**small_recipe, "steps": 2})
    with pytest.raises(TrainingDivergedError, match="none of the 2 steps was finite"):
        train(recipe, tmp_path / "run", callbacks=(PoisonedBatch(0, 1),), progress_bar=False)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="this machine has a GPU")
def test_gpus_that_are_not_there_are_told_before_anything_runs(small_recipe, tmp_path) -> None:
    recipe = recipe_from_dict({**small_recipe, "accelerator": "gpu"})
    with pytest.raises(ConfigError, match="accelerator: gpu, but torch finds none here"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


class SmallFiles(lightning().Callback):
    """From step 4 on, files can't grow beyond 20 kB: writing fails in the middle, as on a full disk."""

    def on_train_batch_start(self, trainer, module, batch, index) -> None:
        if trainer.global_step == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))


def test_a_full_disk_leaves_the_former_checkpoint_whole(small_recipe, tmp_path) -> None:
    recipe = recipe_from_dict({**small_recipe, "steps": 9, "checkpoint_every": 3})
    folder = tmp_path / "run"
    try:
        with pytest.raises(
            CheckpointError, match=r"checkpoint of step 6 can't be written.* former checkpoint is untouched"
        ):
            train(recipe, folder, callbacks=(SmallFiles(),), progress_bar=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert not list(folder.glob(".*partial"))
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == 3
    assert dualview.load(folder / "weights.safetensors", device="cpu").config.image_size == (64, 96)
    assert train(recipe, folder, resume=True, progress_bar=False).steps == 9


def test_a_run_that_ends_between_its_two_files_has_the_weights_of_its_last_step(small_recipe, tmp_path, monkeypatch) -> None:
    recipe, folder = recipe_from_dict({**small_recipe, "steps": 4, "checkpoint_every": 2}), tmp_path / "run"
    put_in_place, written = callbacks._put_in_place, []

    def ended(temporary: Path, path: Path) -> None:
        written.append(path.name)
        if len(written) == 4:
            raise RuntimeError("the process ends")
        put_in_place(temporary, path)

    monkeypatch.setattr(callbacks, "_put_in_place", ended)
    with pytest.raises(RuntimeError, match="the process ends"):
        train(recipe, folder, progress_bar=False)
    monkeypatch.undo()
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == 2
    result = train(recipe, folder, resume=True, progress_bar=False)
    with safe_open(result.weights, "pt") as file:
        assert result.steps == 4 and file.metadata()["trained_steps"] == "4"


def test_one_process_at_a_time_trains_in_a_folder(small_recipe, tmp_path) -> None:
    holder = "import sys, fcntl; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None and other.stdout.readline()
        with pytest.raises(ConfigError, match="another process is training in"):
            train(recipe_from_dict(small_recipe), tmp_path)
        other.communicate()
    assert train(recipe_from_dict({**small_recipe, "steps": 1}), tmp_path, progress_bar=False).steps == 1


class FullDisk(lightning().Callback):
    """From step 4 on, nothing can be written into the run's folder any more, the log's next line first of all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_start(self, trainer, module, batch, index) -> None:
        if trainer.global_step == 4:
            size = (self.folder / "losses.csv").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 40, resource.RLIM_INFINITY))


def test_a_full_disk_at_the_log_ends_the_run_with_a_sentence(small_recipe, tmp_path, capsys) -> None:
    from dualview.cli import main

    recipe = recipe_from_dict({**small_recipe, "steps": 9, "checkpoint_every": 3})
    folder = tmp_path / "run"
    try:
        with pytest.raises(CheckpointError, match=r"can't write to .*run: .*last checkpoint is untouched: make room"):
            train(recipe, folder, callbacks=(FullDisk(folder),), progress_bar=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    # what its message says to do: the recipe that it wrote, another place for the drives, and go on
    changes = [f"data.cache={tmp_path / 'elsewhere'}", "--out", str(folder), "--resume", "--quiet"]
    assert main(["train", str(folder / "recipe.yaml"), *changes]) == 0
    lines = (folder / "losses.csv").read_text().splitlines()
    assert [int(line.split(",")[0]) for line in lines[1:]] == list(range(1, 10))


def test_what_goes_wrong_in_another_process_is_named(small_recipe, tmp_path) -> None:
    """The second process alone sees numbers that aren't; what the first one prints names that batch."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**small_recipe, "steps": 2, "batch_size": 1, "devices": 2}))
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("ddp_run.py")), str(recipe), str(tmp_path / "run"), "poison"],
        env=environment(), capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"step 1: not finite: .* of .*slot 1.*passed over", done.stdout), done.stdout
    assert "finite losses, but" not in done.stdout


def test_a_full_disk_while_indexing_is_said_so(drives, small_recipe, tmp_path, monkeypatch) -> None:
    recipe = recipe_from_dict(small_recipe)
    from dualview.scene.rig import load_rig
    from dualview.training import bag_index
    from dualview.training.data_module import index_settings

    def full(*arguments, **named):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bag_index.np, "savez", full)
    settings = index_settings(recipe.detector_config(), recipe.data)
    with pytest.raises(BagError, match="no room left"):
        index_recordings(
            find_recordings([str(drives)]), load_rig(recipe.data.rig), settings, tmp_path, "skip"
        )
    assert [path.name for path in tmp_path.iterdir()] == [".locks"]


@pytest.fixture
def with_truncated(drives, tmp_path) -> Path:
    folder = tmp_path / "some"
    folder.mkdir()
    good = (drives / "drive0.mcap").read_bytes()
    (folder / "a_whole.mcap").write_bytes(good)
    (folder / "b_truncated.mcap").write_bytes(good[: len(good) * 2 // 3])
    return folder


def test_a_truncated_recording_stops_or_is_left_out(small_recipe, with_truncated, tmp_path) -> None:
    from dualview.scene.rig import load_rig

    rig = load_rig(small_recipe["data"]["rig"])
    settings = IndexSettings((64, 96), ("car", "pedestrian"))
    found = find_recordings([str(with_truncated)])
    with pytest.raises(BagError, match="b_truncated"):
        index_recordings(found, rig, settings, tmp_path / "cache")
    said: list[str] = []
    drives = index_recordings(found, rig, settings, tmp_path / "cache", "skip", said.append)
    assert [Path(d.source).name for d in drives] == ["a_whole.mcap"]
    assert any(re.search("left out: .*b_truncated", line) for line in said)
    assert [path.name for path in (tmp_path / "cache").glob(".*")] == [".locks"]
