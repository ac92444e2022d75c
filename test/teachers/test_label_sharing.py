"""One folder of label maps for recordings that change, rigs that change, and several processes at once."""

import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from label_world import RIG, write_recording

from dualview.cli import main
from dualview.errors import ConfigError
from dualview.teachers import label_lift, label_maker
from dualview.teachers.folder_lock import FOLDER_LOCK, locked
from dualview.teachers.label_jobs import own_device, run_jobs, run_lift
from dualview.teachers.label_maker import LabelEngine, make_label_maps
from dualview.teachers.label_plan import rig_key
from dualview.teachers.label_settings import LabelSettings
from dualview.teachers.label_store import SET_FILE, LabelMaps

QUIET = LabelEngine(quiet=True)


def test_a_recording_made_anew_at_the_same_path_is_another(settings: LabelSettings, tmp_path: Path) -> None:
    path = tmp_path / "drive.mcap"
    stamps = {}
    for seconds in (0.4, 0.8, 0.6):  # whichever name comes last in the folder
        path.unlink(missing_ok=True)
        write_recording(path, seconds)
        make_label_maps([path], RIG, settings, tmp_path / "out", QUIET)
        stamps[seconds] = LabelMaps(tmp_path / "out").stamps(path).tolist()
    assert [len(s) for s in stamps.values()] == [2, 4, 3]
    path.unlink()
    write_recording(path, 0.3)
    assert LabelMaps(tmp_path / "out").stamps(path).tolist() == []  # there are none of this one
    path.unlink()
    assert LabelMaps(tmp_path / "out").folder_of(path) is None  # who could say which of the three


def test_labels_are_found_by_path_where_the_recording_is_gone(
    settings: LabelSettings, tmp_path: Path
) -> None:
    path = write_recording(tmp_path / "drive.mcap", 0.2)
    (folder,) = make_label_maps([path], RIG, settings, tmp_path / "out", QUIET)
    path.unlink()
    assert LabelMaps(tmp_path / "out").folder_of(path) == folder


def test_another_rig_takes_nothing_over(
    recording: Path, settings: LabelSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    front = replace(RIG, name="front only", cameras=RIG.cameras[:1])
    renamed = replace(RIG, name="renamed", class_names=("pedestrian",))
    assert rig_key(RIG) == rig_key(renamed) != rig_key(front)
    with monkeypatch.context() as patch:
        patch.setattr(label_maker, "run_gather", lambda job: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            make_label_maps([recording], RIG, settings, tmp_path, QUIET)
    lifted: list[Any] = []
    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(label_lift, "run_lift", lambda job: lifted.append(job) or run_lift(job))
        engine = LabelEngine(quiet=True, tell=said.append)
        make_label_maps([recording], front, settings, tmp_path, engine)
    assert len(lifted) == 3 and any("begun with another rig" in line for line in said)
    with pytest.raises(ConfigError, match="made with another rig \\('front only'"):
        make_label_maps([recording], RIG, settings, tmp_path, QUIET)
    make_label_maps([recording], replace(front, name="the same"), settings, tmp_path, QUIET)


def test_two_processes_share_one_basis(
    recording: Path, settings: LabelSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one makes it, the other waits, and takes it over."""
    small = replace(settings, components=8)
    (tmp_path / "first").mkdir()
    make_label_maps(
        [write_recording(tmp_path / "other.mcap", 0.3, seed=1)], RIG, small, tmp_path / "first", QUIET
    )
    basis = (tmp_path / "first/basis.safetensors").read_bytes()
    out, waits = tmp_path / "second", threading.Event()

    def tell(line: str) -> None:
        if "waiting" in line:
            waits.set()

    with ThreadPoolExecutor(1) as pool:
        with locked(out / FOLDER_LOCK, lambda: None):
            shutil.copy(tmp_path / "first" / SET_FILE, out)
            work = pool.submit(
                make_label_maps, [recording], RIG, small, out, LabelEngine(quiet=True, tell=tell)
            )
            assert waits.wait(60)
            (out / "basis.safetensors").write_bytes(basis)
        work.result()
    assert (out / "basis.safetensors").read_bytes() == basis


def test_every_device_gets_a_process(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Or more, if the command says so, but not less."""
    engines: list[LabelEngine] = []

    def make(recordings: list[Path], rig: Any, settings: Any, directory: Path, engine: LabelEngine) -> None:
        engines.append(engine)
        raise ConfigError("enough")

    monkeypatch.setattr(label_maker, "make_label_maps", make)
    arguments = ["label-maps", str(recording), "--out", str(tmp_path), "--devices", "cpu", "cpu", "cpu"]
    for more in ([], ["--workers", "4"]):
        assert main([*arguments, *more]) == 1
    assert [engine.workers for engine in engines] == [3, 4] and engines[0].devices == ("cpu",) * 3
    capsys.readouterr()
    assert main([*arguments, "--workers", "2"]) == 1
    assert "--workers 2 can't use 3 devices" in capsys.readouterr().err


def test_a_process_keeps_its_device() -> None:
    def work(devices: tuple[str, ...]) -> tuple[int, str]:
        time.sleep(0.05)
        return os.getpid(), own_device(devices)

    assert work(("a", "b"))[1] == "a"  # a command with one process
    done = set(run_jobs(work, [("a", "b")] * 40, 2, 40, "work", True))
    assert len(done) == 2 and {device for _, device in done} == {"a", "b"}
