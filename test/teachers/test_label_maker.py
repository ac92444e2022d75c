"""Recordings become label maps: resumable, the same however they are made, and read back by frame."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from label_world import GRID, RIG, RIG_YAML, START, write_recording

from dualview.cli import main
from dualview.errors import BagError, ConfigError
from dualview.scene.augmentation.bev import BevAugmentation
from dualview.teachers import label_lift, label_maker
from dualview.teachers.label_maker import LabelEngine, make_label_maps
from dualview.teachers.label_settings import LabelSettings
from dualview.teachers.label_store import LabelMaps, recording_key
from dualview.teachers.label_warp import warp_label

QUIET = LabelEngine(quiet=True)


@pytest.fixture(scope="module", autouse=True)
def small_chunks() -> Iterator[None]:
    """The recording's three frames with features are gathered in two chunks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_maker, "CHUNK_FRAMES", 2)
        yield


@pytest.fixture(scope="module")
def made(recording: Path, settings: LabelSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The label maps of the recording, made in one go."""
    directory = tmp_path_factory.mktemp("made")
    make_label_maps([recording], RIG, settings, directory, QUIET)
    return directory


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()
    }


def cells(maps: LabelMaps, recording: Path, seconds: float) -> set[tuple[int, int]]:
    """(x, y) in whole m of the occupied cells, ego frame."""
    label = maps.sparse(recording, START + round(seconds * 1e9))
    assert label is not None
    return {(c % 32 - 16, c // 32 - 16) for c in label.cells.tolist()}


def counted(function: Callable[..., Any], calls: dict[str, int], name: str) -> Callable[..., Any]:
    def counting(*arguments: Any) -> Any:
        calls[name] += 1
        return function(*arguments)

    return counting


def test_frames_and_places(made: Path, recording: Path) -> None:
    maps = LabelMaps(made)
    assert maps.channels == 64 and maps.grid == GRID and maps.basis() is None
    assert maps.stamps(recording).tolist() == [START + t * 200_000_000 for t in range(5)]  # 5 Hz of 10
    assert not (made / ".work").exists()
    for seconds in (0.0, 0.4, 0.8):
        ego = 100 + 5 * seconds
        found = cells(maps, recording, seconds)
        moving = {
            (x, y) for x in range(-16, 16) for y in (-1, 0) if abs(108 + 8 * seconds - ego - x - 0.5) < 1.5
        }
        parked = {(x, y) for x in range(-16, 16) for y in (3, 4) if abs(112 - ego - x - 0.5) < 1.5}
        assert moving <= found and parked <= found
    assert maps.sparse(recording, START + 100_000_000) is None  # that frame has none
    assert maps.sparse(recording, START + 201_000_000) is not None  # but a millisecond doesn't matter
    assert maps.dense("another.mcap", START) is None


def test_every_kind_of_accumulation(
    made: Path, recording: Path, settings: LabelSettings, tmp_path: Path
) -> None:
    """Objects only where they are gathered; fewer cells of the road without gathering."""
    for kind in ("static", "none"):
        make_label_maps([recording], RIG, replace(settings, accumulation=kind), tmp_path / kind, QUIET)
    full, static, none = (LabelMaps(d) for d in (made, tmp_path / "static", tmp_path / "none"))
    assert none.stamps(recording).tolist() == [START, START + 400_000_000, START + 800_000_000]
    assert cells(static, recording, 0.4) < cells(full, recording, 0.4)
    assert cells(none, recording, 0.4) < cells(full, recording, 0.4)
    own = full.sparse(recording, START + 400_000_000)
    alone = none.sparse(recording, START + 400_000_000)
    assert own is not None and alone is not None and own.points.sum() > 2 * alone.points.sum()
    # The road's points see other things from elsewhere, but where only this frame's points fall nothing changes.
    assert alone.points.sum() > 100


@pytest.mark.parametrize("stage", ["run_lift", "run_gather", "run_join", "run_pool", "_finish"])
def test_an_interrupted_run_goes_on_and_gives_the_same_files(
    made: Path,
    recording: Path,
    settings: LabelSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
) -> None:
    """It stops at the second frame (or at once) of each stage, then runs again."""
    module = label_lift if stage == "run_lift" else label_maker
    whole: Callable[..., Any] = getattr(module, stage)
    calls = []

    def stops(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == (2 if stage.startswith("run") else 1):
            raise KeyboardInterrupt
        return whole(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, stage, stops)
        with pytest.raises(KeyboardInterrupt):
            make_label_maps([recording], RIG, settings, tmp_path, QUIET)
    assert LabelMaps(tmp_path).stamps(recording).tolist() == []  # what isn't whole isn't there
    left = {p for p in (tmp_path / ".work").rglob("*.safetensors")}
    assert left or stage == "_finish"
    done: dict[str, int] = {"run_lift": 0, "run_gather": 0}
    with monkeypatch.context() as patch:
        for place, name in ((label_lift, "run_lift"), (label_maker, "run_gather")):
            patch.setattr(place, name, counted(getattr(place, name), done, name))
        make_label_maps([recording], RIG, settings, tmp_path, QUIET)
    expected = {"run_lift": (2, 2), "run_gather": (0, 1)}  # of 3 frames and 2 chunks: nothing is done twice
    assert tuple(done.values()) == expected.get(stage, (0, 0))
    assert contents(tmp_path) == contents(made)
    make_label_maps([recording], RIG, settings, tmp_path, QUIET)  # a finished set is left alone
    assert contents(tmp_path) == contents(made)


def test_two_processes_and_little_memory_change_nothing(
    made: Path, recording: Path, settings: LabelSettings, tmp_path: Path
) -> None:
    make_label_maps([recording], RIG, settings, tmp_path, LabelEngine(workers=2, memory_bytes=1, quiet=True))
    there, here = LabelMaps(made), LabelMaps(tmp_path)
    for stamp in there.stamps(recording).tolist():
        a, b = there.sparse(recording, stamp), here.sparse(recording, stamp)
        assert (
            a is not None
            and b is not None
            and torch.equal(a.cells, b.cells)
            and torch.equal(a.points, b.points)
        )
        # other processes may use another number of threads, which rounds otherwise
        torch.testing.assert_close(a.features, b.features, rtol=5e-3, atol=5e-3)


def test_chunks_change_nothing(
    made: Path, recording: Path, settings: LabelSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_maker, "CHUNK_FRAMES", 40)  # all frames in one
    make_label_maps([recording], RIG, settings, tmp_path, QUIET)
    there, here = LabelMaps(made), LabelMaps(tmp_path)
    for stamp in there.stamps(recording).tolist():
        a, b = there.sparse(recording, stamp), here.sparse(recording, stamp)
        assert a is not None and b is not None and torch.equal(a.cells, b.cells)
        assert torch.equal(a.points, b.points)
        torch.testing.assert_close(a.features, b.features, rtol=5e-3, atol=5e-3)


def test_objects_that_no_detector_of_the_rig_knows_leave_no_trail(
    made: Path, recording: Path, settings: LabelSettings, tmp_path: Path
) -> None:
    """Cars are no class of this rig, yet the labels say which points are theirs."""
    make_label_maps([recording], replace(RIG, class_names=("pedestrian",)), settings, tmp_path, QUIET)
    assert contents(tmp_path) == contents(made)


def test_fewer_channels_keep_directions(
    made: Path, recording: Path, settings: LabelSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lifted, lift = [], label_lift.run_lift
    with monkeypatch.context() as patch:
        patch.setattr(label_lift, "run_lift", lambda job: lifted.append(job) or lift(job))
        make_label_maps([recording], RIG, replace(settings, components=32), tmp_path, QUIET)
    assert len(lifted) == 3  # the frames that make the basis are seen once, too
    maps, all_channels = LabelMaps(tmp_path), LabelMaps(made)
    basis = maps.basis()
    assert maps.channels == 32 and basis is not None and basis.matrix.shape == (64, 32)
    stamp = START + 400_000_000
    reduced, whole = maps.sparse(recording, stamp), all_channels.sparse(recording, stamp)
    assert reduced is not None and whole is not None and torch.equal(reduced.cells, whole.cells)
    expected = whole.features.float() @ basis.matrix
    torch.testing.assert_close(reduced.features.float(), expected, atol=0.02, rtol=0.01)
    # A second recording takes the basis over.
    before = (tmp_path / "basis.safetensors").read_bytes()
    other = write_recording(tmp_path / "other.mcap", 0.3, seed=1)
    make_label_maps([other], RIG, replace(settings, components=32), tmp_path, QUIET)
    assert (tmp_path / "basis.safetensors").read_bytes() == before
    assert len(LabelMaps(tmp_path).stamps(other)) == 2 and len(LabelMaps(tmp_path).stamps(recording)) == 5


def test_dense_maps_with_augmentation(made: Path, recording: Path) -> None:
    maps = LabelMaps(made)
    plain, sparse = maps.dense(recording, START), maps.sparse(recording, START)
    assert plain is not None and sparse is not None
    assert plain.features.dtype == torch.float16 and plain.features.shape == (64, 32, 32)
    assert int(plain.mask.sum()) == len(sparse) and not plain.features[:, ~plain.mask].any()
    assert torch.equal(plain.features[:, plain.mask], sparse.features.T)
    augmentation = BevAugmentation.of(rotate=0.3, scale=1.04, flip_y=True)
    augmented = maps.dense(recording, START, augmentation.matrix)
    expected = warp_label(plain, GRID, augmentation.matrix)
    assert augmented is not None and torch.equal(augmented.features, expected.features)


def test_a_copy_elsewhere_is_known_by_its_content(made: Path, recording: Path, tmp_path: Path) -> None:
    copy = tmp_path / recording.name
    copy.write_bytes(recording.read_bytes())
    assert recording_key(copy) == recording_key(recording)
    assert len(LabelMaps(made).stamps(copy)) == 5


def test_refusals(made: Path, recording: Path, settings: LabelSettings, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"made otherwise \(rate: 5.0 there, 1.0 asked\)"):
        make_label_maps([recording], RIG, replace(settings, rate=1.0), made, QUIET)
    blind = write_recording(tmp_path / "blind.mcap", 0.2, lidar=False)
    with pytest.raises(BagError, match="label maps need points"):
        make_label_maps([blind], RIG, settings, tmp_path / "out", QUIET)
    with pytest.raises(ConfigError, match="holds no label maps"):
        LabelMaps(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="rate must be above 0"):
        replace(settings, rate=0.0)
    with pytest.raises(ConfigError, match="long side must be above 0"):
        replace(settings, long_side=-5)
    work = tmp_path / "busy/.work" / recording_key(recording)
    with label_maker._at_work(work, recording), pytest.raises(BagError, match="another process"):
        make_label_maps([recording], RIG, settings, tmp_path / "busy", QUIET)


def test_a_set_is_bound_by_what_is_in_it_alone(made: Path, recording: Path, settings: LabelSettings, tmp_path: Path) -> None:
    """A command that failed before it made anything leaves no settings that the next would have to repeat."""
    with pytest.raises(ConfigError, match="test_vit has 64 channels: --pca must be 1 to 64"):
        make_label_maps([recording], RIG, replace(settings, components=65), tmp_path / "out", QUIET)
    blind = write_recording(tmp_path / "blind.mcap", 0.2, lidar=False)
    with pytest.raises(BagError, match="label maps need points"):
        make_label_maps([blind], RIG, replace(settings, rate=1.0), tmp_path / "out", QUIET)
    work = tmp_path / "out/.work" / recording_key(blind)
    with label_maker._at_work(work, blind), pytest.raises(ConfigError, match="delete it to begin anew"):
        make_label_maps([recording], RIG, settings, tmp_path / "out", QUIET)  # somebody is at work in it
    left = tmp_path / "out/.work" / recording_key(recording)
    left.mkdir(parents=True)
    make_label_maps([recording], RIG, settings, tmp_path / "out", QUIET)
    there = contents(tmp_path / "out")
    assert {name: there[name] for name in contents(made)} == contents(made) and not left.exists()


def test_copies_in_one_command_are_labelled_once(recording: Path, settings: LabelSettings, tmp_path: Path) -> None:
    copy = tmp_path / "copy" / recording.name
    copy.parent.mkdir()
    shutil.copyfile(recording, copy)
    said: list[str] = []
    engine = LabelEngine(quiet=True, tell=said.append)
    first, second = make_label_maps([recording, copy], RIG, settings, tmp_path / "out", engine)
    assert first == second and sum("label maps" in line for line in said) == 1
    (tmp_path / "out/.work" / first.name / "store").mkdir(parents=True)  # stopped while it cleared up
    make_label_maps([recording], RIG, settings, tmp_path / "out", engine)
    assert not (tmp_path / "out/.work").exists() and sum("label maps" in line for line in said) == 1


def test_a_recording_without_boxes(recording: Path, settings: LabelSettings, tmp_path: Path) -> None:
    """Everything counts as street, and the user is told."""
    bare = write_recording(tmp_path / "bare.mcap", 0.3, labels=False)
    said: list[str] = []
    make_label_maps([bare], RIG, settings, tmp_path / "out", LabelEngine(quiet=True, tell=said.append))
    assert any("no boxes" in line for line in said)
    assert len(LabelMaps(tmp_path / "out").stamps(bare)) == 2


def test_command(
    recording: Path, settings: LabelSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rig.yaml").write_text(RIG_YAML)
    arguments = [
        "label-maps", str(recording), "--rig", str(tmp_path / "rig.yaml"), "--teacher", "test_vit", "--weights",
        str(settings.teacher.weights), "--scales", "1", "--long-side", "96", "--half-range", "16", "--resolution", "1",
        "--rate", "5", "--teacher-rate", "2.5", "--out", str(tmp_path / "out"), "--devices", "cpu", "--quiet",
    ]  # fmt: skip
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "5 label maps" in out and "MB a frame" in out
    wrong = {
        "--workers 0 can't use 1 devices": ["--workers", "0"],
        "--memory-gb must be above 0": ["--memory-gb", "-1"],
        "--half-range 16 isn't a whole number of half cells of 0.7 m": ["--resolution", "0.7"],
        "--half-range 16 isn't a whole number of half cells of 200 m": ["--resolution", "200"],
    }
    for message, more in wrong.items():
        assert main([*arguments, *more]) == 1
        assert message in capsys.readouterr().err
    assert main([*arguments[:-1], "--static-only", "--quiet"]) == 1
    assert "made otherwise" in capsys.readouterr().err
