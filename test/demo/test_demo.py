"""The demo in real processes on a tiny drive whose labels are the detector's own boxes, so that there is something to score."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import av
import pytest
import torch
from ros_detector import save_smallest_detector
from ros_drive import Drive, rig_dict, write_rig

import dualview
from dualview.detectors.session import TrackingSession
from dualview.evaluation.run import detect, threshold_overrides
from dualview.scene.bag_reader import BagReader
from dualview.scene.bag_writer import BagWriter
from dualview.scene.frame import Annotations
from dualview.scene.recorded import read_bev_images, read_tracks
from dualview.scene.rig import load_rig

FRAMES = 10
SUMMARY_KEYS = {
    "frames_in",
    "frames_processed",
    "frames_dropped",
    "tracks",
    "latency_ms",
    "scores",
    "weights",
    "commit",
    "machine",
}


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "dualview", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=170,
    )


def write_labelled(path: Path, unlabelled: Path, rig_file: Path, weights: Path) -> None:
    """The drive again, with every second of the detector's best boxes as labels, a little beside them."""
    rig = load_rig(rig_file)
    torch.set_num_threads(1)
    session = TrackingSession(dualview.load(weights, device="cpu", overrides=threshold_overrides(0.0), precision="auto"))
    found = detect(unlabelled, rig, session)
    drive = Drive(rig)
    with BagWriter(path, rig) as bag:
        bag.static_transforms(drive.stamp(0, 0) - 60_000_000, drive.mountings())
        bag.ego_pose(drive.stamp(0, 0) - 50_000_000, drive.pose(drive.stamp(0, 0) - 50_000_000))
        for frame, prediction in enumerate(found.predictions):
            for index, camera in enumerate(rig.cameras):
                stamp = drive.stamp(frame, index)
                bag.ego_pose(stamp, drive.pose(stamp))
                bag.camera_info(camera.name, stamp, drive.calibration(index))
                bag.image(camera.name, stamp, drive.jpeg(frame, index))
            between = drive.stamp(frame, 0) + 50_000_000
            bag.ego_pose(between, drive.pose(between))
            boxes = prediction.boxes[:20:2]
            boxes = replace(boxes, center=boxes.center + 0.3, score=torch.ones(len(boxes)))
            count = len(boxes)
            bag.annotations(Annotations(prediction.stamp_ns, boxes, prediction.class_names, tuple(map(str, boxes.track_id.tolist())),
                                        torch.full((count,), 9), torch.ones(count)))  # fmt: skip


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """(folder, the finished command, drive, rig file, weights)."""
    folder = tmp_path_factory.mktemp("demo")
    rig_file = folder / "rig.yaml"
    rig = write_rig(rig_file, rig_dict(3, annotations_topic="/annotations"))
    weights = save_smallest_detector(folder / "smallest.safetensors")
    Drive(rig).write(folder / "unlabelled.mcap", FRAMES)
    write_labelled(folder / "drive.mcap", folder / "unlabelled.mcap", rig_file, weights)
    done = command("demo", folder / "drive.mcap", "--rig", rig_file, "--weights", weights, "--device", "cpu", "--rate", 0.25,
                   "--score-threshold", 0.0, "--out", folder / "out")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done, folder / "drive.mcap", rig_file, weights


def test_every_frame_is_processed_and_counted_from_the_recorded_messages(played):
    folder, _, _, rig_file, weights = played
    summary = json.loads((folder / "out" / "summary.json").read_text())
    assert summary.keys() >= SUMMARY_KEYS
    with BagReader(folder / "out" / "output.mcap") as bag:
        tracks, maps = read_tracks(bag, load_rig(rig_file)), read_bev_images(bag)
        assert (
            bag.topics["/dualview_node/detections"].count
            == bag.topics["/dualview_node/markers"].count
            == len(tracks)
        )
    assert summary["frames_in"] == FRAMES
    assert summary["frames_processed"] == len(tracks) == FRAMES and summary["frames_dropped"] == {}
    assert summary["tracks"] == len({i for t in tracks for i in t.boxes.track_id.tolist()}) > 0
    assert maps.keys() == {t.stamp_ns for t in tracks}
    for stage in ("age_at_arrival", "assemble", "preprocess", "network", "publish", "total"):
        times = summary["latency_ms"][stage]
        assert 0 <= times["p50"] <= times["p95"] <= times["p99"]
    assert weights.stem in summary["weights"] and "weights_note" not in summary
    assert summary["machine"]["cores"] >= 1 and summary["commit"]


def test_what_it_prints_says_where_things_are_and_which_weights(played):
    _, done, *_ = played
    for words in (
        "weights",
        "smallest",
        "frames",
        f"{FRAMES} of {FRAMES} processed",
        "output.mcap",
        "summary.json",
        "mAP",
        "AMOTA",
    ):
        assert words in done.stdout, done.stdout


def test_its_pictures_show_every_frame(played):
    out = played[0] / "out"
    with av.open(str(out / "demo.mp4")) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert len(frames) == FRAMES and frames[0].std() > 20
    assert (out / "strip.png").stat().st_size > 10_000


def test_a_direct_reading_scores_the_same_as_what_was_published(played):
    folder, _, bag, rig_file, weights = played
    shared = ("--rig", rig_file, "--pictures", 0)
    direct = command("evaluate", bag, *shared, "--weights", weights, "--device", "cpu", "--score-threshold", 0.0, "--report",
                     folder / "direct")  # fmt: skip
    assert direct.returncode == 0, direct.stderr
    from_tracks = command(
        "evaluate", bag, *shared, "--tracks", folder / "out" / "output.mcap", "--report", folder / "tracks"
    )
    assert from_tracks.returncode == 0, from_tracks.stderr
    first, second, third = (
        json.loads((folder / name / "metrics.json").read_text())
        for name in ("direct", "tracks", "out/report")
    )
    assert first["mAP"] > 0.05 and first["AMOTA"] > 0  # something is compared
    for key in (
        "mAP",
        "NDS",
        "mATE",
        "mASE",
        "mAOE",
        "mAVE",
        "AMOTA",
        "AMOTP",
        "MOTA",
        "IDS",
        "FP",
        "FN",
        "keyframes",
    ):
        assert second[key] == pytest.approx(first[key], abs=1e-5), key
        assert third[key] == pytest.approx(second[key], abs=1e-12), key
    assert (folder / "direct" / "report.md").is_file()
    summary = json.loads((folder / "out" / "summary.json").read_text())
    assert summary["scores"]["mAP"] == second["mAP"]
    assert summary["scores"]["keyframes_without_output"] == 0


def test_a_recording_without_labels_is_evaluated_without_scores(played):
    folder, _, _, rig_file, _ = played
    done = command("evaluate", folder / "unlabelled.mcap", "--rig", rig_file, "--tracks", folder / "out" / "output.mcap",
                   "--report", folder / "unlabelled")  # fmt: skip
    assert done.returncode == 0, done.stderr
    metrics = json.loads((folder / "unlabelled" / "metrics.json").read_text())
    assert metrics["scored"] is False and "no labels" in metrics["note"] and "mAP" not in metrics
    assert metrics["latency_ms"]["network"]["p50"] > 0
    assert "no labels" in done.stdout and (folder / "unlabelled" / "report.md").is_file()


def test_draw_makes_strips_and_refuses_other_files(played):
    folder, _, bag, rig_file, _ = played
    done = command(
        "draw",
        bag,
        "--rig",
        rig_file,
        "--tracks",
        folder / "out" / "output.mcap",
        "--out",
        folder / "s.png",
        "--frames",
        2,
    )
    assert done.returncode == 0 and (folder / "s.png").is_file(), done.stderr
    refused = command("draw", bag, "--rig", rig_file, "--out", folder / "s.gif")
    assert refused.returncode == 1 and "must end in" in refused.stderr


def test_a_drive_that_is_not_there_or_does_not_fit_is_named(played, tmp_path):
    _, _, bag, _, weights = played
    missing = command("demo", tmp_path / "none.mcap", "--out", tmp_path / "out")
    assert missing.returncode == 1 and "none.mcap" in missing.stderr
    other_rig = command("demo", bag, "--rig", "pandaset", "--weights", weights, "--out", tmp_path / "out")
    assert other_rig.returncode == 1 and "has none of the image topics" in other_rig.stderr
    assert not (tmp_path / "out" / "output.mcap").exists()


@pytest.fixture
def playing(played, tmp_path):
    """(a demo that is playing slowly, its three processes, its log)."""
    _, _, bag, rig_file, weights = played
    log = tmp_path / "log"
    demo = subprocess.Popen(
        [sys.executable, "-m", "dualview", "demo", str(bag), "--rig", str(rig_file), "--weights", str(weights),
         "--device", "cpu", "--rate", "0.01", "--out", str(tmp_path / "out")],
        stdout=log.open("wb"), stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    end = time.monotonic() + 90
    while not (tmp_path / "out" / "logs" / "player.log").is_file() and time.monotonic() < end:
        time.sleep(0.2)
    children = [
        int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and _parent_of(p) == demo.pid
    ]
    yield demo, children, log
    if demo.poll() is None:
        demo.terminate()
        demo.wait(60)


def test_when_the_demo_is_ended_its_processes_end_too(playing):
    demo, children, log = playing
    assert len(children) == 3, log.read_text()  # node, recorder, player
    demo.terminate()
    assert demo.wait(60) == 130
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


@pytest.mark.slow
def test_a_node_that_hangs_is_named(playing):
    demo, children, log = playing
    node = next(pid for pid in children if b"\0run\0" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(node, signal.SIGSTOP)
    assert demo.wait(120) == 1
    assert "the node hangs" in log.read_text() and "node.log" in log.read_text()
    assert not Path(f"/proc/{node}").exists()


def _parent_of(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return -1
