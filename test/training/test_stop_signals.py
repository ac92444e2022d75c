"""A run that is asked to stop keeps the step that it is at, and goes on from there as if it hadn't stopped."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from test_resume import command, environment, rows, same_runs

from dualview.training.lightning import lightning
from dualview.training.recipe import recipe_from_dict
from dualview.training.stop_signals import StopOnSignal, TrainingStoppedError
from dualview.training.study_progress import logged_step
from dualview.training.trainer import train

USUAL = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}


class Signal(lightning().Callback):
    """Sends this process a signal when a batch begins."""

    def __init__(self, number: int, batch: int) -> None:
        self.number, self.batch = number, batch

    def on_train_batch_start(self, trainer, module, *unused) -> None:
        if module.batches_seen == self.batch:
            signal.raise_signal(self.number)


@pytest.fixture(autouse=True)
def usual_signals() -> Iterator[None]:
    """Not those of a process in the background, which ignores SIGINT."""
    before = [(number, signal.signal(number, usual)) for number, usual in USUAL.items()]
    yield
    for number, handler in before:
        signal.signal(number, handler)


def kept_step(folder: Path) -> int:
    return torch.load(folder / "last.ckpt", weights_only=True)["global_step"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_after_its_step_and_it_goes_on_exactly(small_recipe, tmp_path, number, capfd) -> None:
    content = {**small_recipe, "steps": 7, "accumulate": 2}
    recipe, folder = recipe_from_dict(content), tmp_path / "stopped"
    with pytest.raises(TrainingStoppedError, match=r"stopped after 3 of 7 steps, all kept in .*--resume") as stopped:
        train(recipe, folder, callbacks=(Signal(number, 4),), progress_bar=False)
    assert stopped.value.exit_status == 128 + number
    assert "stopping after this step" in capfd.readouterr().out
    assert kept_step(folder) == 3
    assert not isinstance(getattr(signal.getsignal(number), "__self__", None), StopOnSignal), "the signal wasn't given back"
    train(recipe, folder, resume=True, progress_bar=False)
    train(recipe, tmp_path / "whole", progress_bar=False)
    same_runs(tmp_path / "whole", folder, 7)


def stopped_half_way(
    arguments: list[str], runs: list[Path], number: int, *, group: bool, reader: bool = True
) -> subprocess.CompletedProcess:
    """Let a command go on until a few steps of all its runs are logged, then signal the process, or all of its group as a terminal
    does. reader: False ends the reader of its output first.
    """
    process = subprocess.Popen(
        arguments, env=environment(), start_new_session=True, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if reader else subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not all(logged_step(run / "losses.csv") > 2 for run in runs):
        assert time.monotonic() < deadline, "no steps"
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    if not reader:
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
    if group:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, output)


def test_a_signal_to_the_group_reaches_loaders_and_the_reader_of_the_output_too(small_recipe, tmp_path) -> None:
    """As `dualview train … | tee log` has it, and a service that is stopped."""
    content = {**small_recipe, "steps": 400, "data": {**small_recipe["data"], "workers": 2}}
    recipe, folder = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(yaml.safe_dump(content))
    done = stopped_half_way(command(recipe, folder), [folder], signal.SIGTERM, group=True, reader=False)
    assert done.returncode == 143, (folder / "losses.csv").read_text()
    assert kept_step(folder) == len(rows(folder)) < 400


def test_two_processes_stop_at_the_same_step_and_go_on_exactly(small_recipe, tmp_path) -> None:
    content = {**small_recipe, "steps": 20, "batch_size": 1, "devices": 2}
    recipe, folder, whole = tmp_path / "recipe.yaml", tmp_path / "run", tmp_path / "whole"
    recipe.write_text(yaml.safe_dump(content))
    done = stopped_half_way(command(recipe, folder), [folder], signal.SIGTERM, group=False)  # the first one alone is told
    assert done.returncode == 143 and "Traceback" not in done.stdout, done.stdout
    assert kept_step(folder) == len(rows(folder)) < 20
    for arguments in (command(recipe, folder, "--resume"), command(recipe, whole)):
        subprocess.run(arguments, env=environment(), check=True, timeout=240)
    same_runs(whole, folder, 20)


def test_a_study_stops_with_all_its_runs(small_recipe, drives, tmp_path) -> None:
    recipe, file, out = tmp_path / "recipe.yaml", tmp_path / "study.yaml", tmp_path / "out"
    recipe.write_text(yaml.safe_dump({**small_recipe, "steps": 400}))
    rows_of_study = {"plain": {}, "alone": {"losses.one_to_many": 2}, "never": {"losses.one_to_many": 3}}
    content = {"recipe": str(recipe), "rows": rows_of_study, "baseline": "plain", "seeds": [0]}
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    bags = sorted(str(path) for path in drives.glob("*.mcap"))
    arguments = [sys.executable, "-m", "dualview", "study", str(file), "--train", *bags[:2], "--test", bags[2]]
    runs = [out / "plain-0", out / "alone-0"]
    done = stopped_half_way([*arguments, "--jobs", "2", "--out", str(out)], runs, signal.SIGTERM, group=True)
    assert done.returncode == 130 and "stopped: the same command goes on" in done.stdout, done.stdout
    assert all(kept_step(run) == len(rows(run)) < 400 for run in runs) and not (out / "never-0").exists()


def test_a_signal_that_is_ignored_stays_so(small_recipe, tmp_path) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Lightning has a handler of its own for this one
    recipe = recipe_from_dict({**small_recipe, "steps": 3})
    assert train(recipe, tmp_path / "run", callbacks=(Signal(signal.SIGTERM, 1),), progress_bar=False).steps == 3


class FailingBatch(lightning().Callback):
    """The run fails while its loader has workers."""

    def on_train_batch_start(self, trainer, module, batch, index) -> None:
        if module.batches_seen == 1:
            raise RuntimeError("on purpose")


def test_a_run_that_fails_leaves_no_worker(small_recipe, tmp_path) -> None:
    """They don't listen to the signal by which they would be ended otherwise."""
    recipe = recipe_from_dict({**small_recipe, "steps": 3, "data": {**small_recipe["data"], "workers": 2}})
    before = set(multiprocessing.active_children())
    with pytest.raises(RuntimeError, match="on purpose"):
        train(recipe, tmp_path / "run", callbacks=(FailingBatch(),), progress_bar=False)
    assert not set(multiprocessing.active_children()) - before
