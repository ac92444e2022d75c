"""mRR and mCE against published rows and by hand; corrupted evaluation against evaluating corrupted copies."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

import dualview
from dualview.cli import main
from dualview.detectors.checkpoint import build_detector, save_checkpoint
from dualview.detectors.lidar_presets import centerpoint_tiny
from dualview.detectors.session import TrackingSession
from dualview.errors import ConfigError
from dualview.evaluation import robustness, run
from dualview.evaluation.robustness import (
    DETR3D,
    Baseline,
    CorruptedScore,
    corruption_error,
    parse_corruptions,
    parse_severities,
    read_baseline,
    resilience_rate,
    robustness_headline,
    robustness_section,
    robustness_summary,
)
from dualview.evaluation.run import detect, threshold_overrides
from dualview.networks.image_backbone import ImageBackbone
from dualview.scene.bag_writer import BagWriter
from dualview.scene.corruptions.catalogue import CORRUPTIONS, SEVERITIES
from dualview.scene.corruptions.corruption import Corruption
from dualview.scene.corruptions.encoded import corrupt_closed
from dualview.scene.corruptions.recording import corrupt_recording
from dualview.scene.frame import Annotations
from dualview.scene.rig import load_rig

sys.path.insert(0, str(Path(__file__).parents[1] / "ros"))  # the small drive and detector of the ROS tests
from ros_detector import save_smallest_detector
from ros_drive import Drive, rig_dict, write_rig

# RoboBEV's row of BEVDet (R50): clean NDS, then the mean over severities of each corruption, and what it publishes
BEVDET_CLEAN = 0.3770
BEVDET = {
    "camera_crash": 0.2486, "frame_lost": 0.1924, "color_quant": 0.2408, "motion_blur": 0.2061,
    "brightness": 0.2565, "low_light": 0.1102, "fog": 0.2461, "snow": 0.0625,
}  # fmt: skip
BEVDET_MCE, BEVDET_MRR = 115.12, 51.83


def scores_with(means: dict[str, float], spread: float = 0.01) -> list[CorruptedScore]:
    """Severities around each mean, the harder the worse."""
    return [
        CorruptedScore(Corruption(name, severity), mean + step * spread, mean / 2, mean + step * spread + 0.1)
        for name, mean in means.items()
        for severity, step in zip(SEVERITIES, (1, 0, -1), strict=True)
    ]


def test_the_published_row_of_bevdet_comes_out() -> None:
    summary = robustness_summary(BEVDET_CLEAN, None, scores_with(BEVDET))
    assert summary["mRR"] == pytest.approx(BEVDET_MRR, abs=0.01)
    assert summary["mCE"] == pytest.approx(BEVDET_MCE, abs=0.01)
    assert (
        summary["complete"]
        and summary["mRR_present"] is None
        and list(summary["per_corruption"]) == list(CORRUPTIONS)
    )


def test_the_baseline_compared_with_itself_is_100() -> None:
    summary = robustness_summary(0.4224, None, scores_with(DETR3D))
    assert summary["mCE"] == pytest.approx(100)
    # mean of the eight NDS 0.298925 / 0.4224
    assert summary["mRR"] == pytest.approx(70.768, abs=0.001)


def test_numbers_by_hand() -> None:
    assert resilience_rate(0.5, [0.4, 0.3, 0.05]) == pytest.approx(50.0)
    assert corruption_error([0.4, 0.3, 0.2], 0.44) == pytest.approx(125.0)
    assert resilience_rate(0.0, [0.0]) is None
    fog = [
        CorruptedScore(Corruption("fog", s), v, v, v + 0.1)
        for s, v in zip(SEVERITIES, (0.4, 0.3, 0.2), strict=True)
    ]
    snow = [
        CorruptedScore(Corruption("snow", s), v, 0.0, v + 0.1)
        for s, v in zip(SEVERITIES, (0.2, 0.1, 0.0), strict=True)
    ]
    summary = robustness_summary(0.5, 0.8, snow + fog, Baseline("mine", {"fog": 0.44, "snow": 0.1}))
    rows = summary["per_corruption"]
    assert rows["fog"]["RR"] == pytest.approx(60) and rows["snow"]["RR"] == pytest.approx(20)
    assert rows["fog"]["CE"] == pytest.approx(125) and rows["snow"]["CE"] == pytest.approx(100)
    assert summary["mRR"] == pytest.approx(40) and summary["mCE"] == pytest.approx(112.5)
    assert summary["mRR_present"] == pytest.approx((50 + 25) / 2)
    assert rows["fog"]["NDS"] == pytest.approx(0.3) and rows["fog"]["severities"]["hard"]["NDS"] == 0.2
    assert not summary["complete"] and summary["baseline"] == "mine"
    assert dict(robustness_headline(summary)) == {
        "mRR (2 of 8 corruptions, easy, moderate, hard)": "40.0 %",
        "mCE (2 of 8 corruptions, easy, moderate, hard)": "112.5 % of mine",
    }
    text = robustness_section(json.loads(json.dumps(summary)))
    assert "| Fog | 60.0 | 125.0 | 0.300 | 0.300 | 0.400 | 0.300 | 0.200 |" in text


def test_without_comparable_severities_there_is_no_mce_and_without_clean_boxes_no_mrr() -> None:
    hard = [CorruptedScore(Corruption("fog", "hard"), 0.2, 0.1)]
    summary = robustness_summary(0.4, 0.4, hard)
    assert summary["mRR"] == pytest.approx(50) and summary["mCE"] is None and summary["baseline"] is None
    assert summary["mRR_present"] is None and "| Fog | 50.0 | – |" in robustness_section(summary)
    assert robustness_summary(0.0, 0.0, hard)["mRR"] is None
    with pytest.raises(ValueError, match="each corruption at each severity once"):
        robustness_summary(0.4, None, [*hard, CorruptedScore(Corruption("snow", "easy"), 0.1, 0.1)])


def test_names_are_checked_and_ordered() -> None:
    assert parse_corruptions("all") == CORRUPTIONS
    assert parse_corruptions("snow, camera-crash") == ("camera_crash", "snow")
    assert parse_severities("hard,easy") == ("easy", "hard")
    with pytest.raises(ConfigError, match="no corruption 'hail': choose 'all' or some of camera_crash"):
        parse_corruptions("fog,hail")
    with pytest.raises(ConfigError, match="no severity 'mid'"):
        parse_severities("mid")


# ---- a detector on a recording


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """(recording, rig file, weights): the labels are the detector's own boxes in clean images, a little beside them."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("robustness")
    rig_file, weights = folder / "rig.yaml", save_smallest_detector(folder / "smallest.safetensors")
    rig = write_rig(rig_file, rig_dict(3, annotations_topic="/annotations"))
    drive, path = Drive(rig), folder / "clean.mcap"
    drive.write(folder / "bare.mcap", 5)
    found = detect(folder / "bare.mcap", rig, a_session(weights))
    drive.write(path, 5)
    with BagWriter(folder / "labelled.mcap", rig) as bag:
        from dualview.scene.bag_reader import BagReader

        with BagReader(path) as given:
            for m in given.messages(raw=True):
                bag.write_raw(m.topic, m.type, m.message, m.log_time_ns)
        for prediction in found.predictions:
            boxes = prediction.boxes[:20:2]
            boxes = replace(boxes, center=boxes.center + 0.2, score=torch.ones(len(boxes)))
            count = len(boxes)
            ids = tuple(map(str, boxes.track_id.tolist()))
            bag.annotations(
                Annotations(
                    prediction.stamp_ns,
                    boxes,
                    prediction.class_names,
                    ids,
                    torch.full((count,), 9),
                    torch.ones(count),
                )
            )
    return folder / "labelled.mcap", rig_file, weights


def a_session(weights: Path) -> TrackingSession:
    return TrackingSession(dualview.load(weights, device="cpu", overrides=threshold_overrides(0.0)))


@pytest.mark.parametrize("name", ["camera_crash", "snow"])
def test_corrupting_on_the_fly_gives_the_boxes_of_a_corrupted_copy(labelled, tmp_path: Path, name: str):
    bag, rig_file, weights = labelled
    rig, corruption = load_rig(rig_file), Corruption(name, "hard", 5)
    corrupt_recording(bag, tmp_path / "copy.mcap", rig, corruption)
    direct = detect(bag, rig, a_session(weights), alter=partial(corrupt_closed, corruption=corruption))
    copy = detect(tmp_path / "copy.mcap", rig, a_session(weights))
    clean = detect(bag, rig, a_session(weights))
    assert len(direct.predictions) == len(copy.predictions) == len(clean.predictions) == 5
    for one, other in zip(direct.predictions, copy.predictions, strict=True):
        assert one.stamp_ns == other.stamp_ns
        for field in ("center", "size", "score", "track_id"):
            assert torch.equal(getattr(one.boxes, field), getattr(other.boxes, field))
    last, plain = direct.predictions[-1].boxes, clean.predictions[-1].boxes
    assert len(last) != len(plain) or not torch.equal(last.score, plain.score)


def test_the_command_reports_corrupted_scores(labelled, tmp_path: Path, capsys):
    bag, rig_file, weights = labelled
    shared = [str(bag), "--rig", str(rig_file), "--weights", str(weights), "--device", "cpu", "--score-threshold", "0",
              "--precision", "fp32", "--pictures", "0"]  # fmt: skip
    only = ["--corruptions", "snow,camera_crash", "--severities", "easy,hard", "--corruption-seed", "2"]
    assert main(["evaluate", *shared, *only, "--report", str(tmp_path / "first")]) == 0
    printed = capsys.readouterr()
    assert "mRR (2 of 8 corruptions, easy, hard)" in printed.out and "snow, hard" in printed.err
    metrics = json.loads((tmp_path / "first" / "metrics.json").read_text())
    found = metrics["robustness"]
    assert list(found["per_corruption"]) == ["camera_crash", "snow"] and found["seeds"] == [2]
    nds = [v["NDS"] for row in found["per_corruption"].values() for v in row["severities"].values()]
    assert metrics["NDS"] > 0 and all(0 <= v < metrics["NDS"] for v in nds)
    rates = [100 * (nds[i] + nds[i + 1]) / 2 / metrics["NDS"] for i in (0, 2)]
    assert found["mRR"] == pytest.approx(sum(rates) / 2) and found["mCE"] is None
    assert "## Corrupted images" in (tmp_path / "first" / "report.md").read_text()
    baseline = tmp_path / "first" / "metrics.json"
    again = [*only, "--mce-baseline", str(baseline), "--report", str(tmp_path / "second")]
    assert main(["evaluate", *shared, *again]) == 0
    second = json.loads((tmp_path / "second" / "metrics.json").read_text())["robustness"]
    assert (
        second["mCE"] == pytest.approx(100) and second["mRR"] == found["mRR"]
    )  # the same seed, the same detector
    assert read_baseline(baseline).nds["snow"] == found["per_corruption"]["snow"]["NDS"]
    capsys.readouterr()
    for path, others, message in (
        (bag, ["--corruptions", "snow,fog", "--severities", "easy,hard"], "has no fog: ask for camera_crash, snow alone"),
        (bag, ["--corruptions", "snow", "--severities", "hard"], "ask for --severities easy,hard"),
        ("missing.mcap", only, "is of other recordings (labelled, missing in one of the two alone)"),
        (bag, only[:-1] + ["0"], "ask for --corruption-seed 2"),
    ):  # before anything is run
        assert main(["evaluate", str(path), "--report", "unused", *others, "--mce-baseline", str(baseline)]) == 1
        assert message in capsys.readouterr().err


def test_a_cache_changes_no_score_and_spares_backbone_and_corruption(labelled, tmp_path: Path, monkeypatch) -> None:
    bag, rig_file, weights = labelled
    shared = [str(bag), "--rig", str(rig_file), "--weights", str(weights), "--device", "cpu", "--score-threshold", "0",
              "--precision", "fp32", "--pictures", "0", "--corruptions", "snow,camera_crash", "--severities", "hard"]  # fmt: skip
    cached = [*shared, "--cache", str(tmp_path / "cache")]
    corrupted, images = [], []
    corrupt, see = robustness.corrupt_encoded, ImageBackbone.forward
    monkeypatch.setattr(robustness, "corrupt_encoded", lambda *of: (corrupted.append(1), corrupt(*of))[1])
    monkeypatch.setattr(ImageBackbone, "forward", lambda *of: (images.append(1), see(*of))[1])
    scores, work = [], []
    for name, command in (("without", shared), ("first", cached), ("again", cached)):
        before = len(corrupted), len(images)
        assert main(["evaluate", *command, "--report", str(tmp_path / name)]) == 0
        metrics = json.loads((tmp_path / name / "metrics.json").read_text())
        scores.append((metrics["mAP"], metrics["NDS"], metrics["robustness"]))
        assert metrics["latency_ms"].keys() == {"preprocess"} | ({"network"} if name == "without" else set())
        work.append((len(corrupted) - before[0], len(images) - before[1]))
    assert scores[0] == scores[1] == scores[2]
    loading = 2  # the backbone's folded batch norms are compared with the plain ones
    assert work[0] == work[1] and work[1][1] > loading and work[2] == (0, loading)


def test_labels_are_read_once_for_all_corruptions(labelled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bag, rig_file, weights = labelled
    read, reads = run.read_labels, []

    def counted(path, *others):
        reads.append(path)
        return read(path, *others)

    monkeypatch.setattr(run, "read_labels", counted)
    options = ["--rig", str(rig_file), "--weights", str(weights), "--device", "cpu", "--pictures", "0",
               "--corruptions", "camera_crash,brightness", "--severities", "easy,hard"]  # fmt: skip
    assert main(["evaluate", str(bag), *options, "--report", str(tmp_path / "report")]) == 0
    assert reads == [str(bag)]


def test_a_detector_may_be_given_the_labelled_frames_alone(labelled, tmp_path: Path, capsys) -> None:
    bag, rig_file, weights = labelled
    options = ["--rig", str(rig_file), "--weights", str(weights), "--device", "cpu", "--pictures", "0", "--report", str(tmp_path)]
    found = []
    for more in ([], ["--labelled-frames"], ["--labelled-frames", "--keyframe-interval", "0.2"]):  # labels come at 10 Hz
        assert main(["evaluate", str(bag), *options, *more]) == 0
        metrics = json.loads((tmp_path / "metrics.json").read_text())
        found.append((metrics["frames"], metrics["keyframes"], metrics["keyframes_without_output"]))
    assert found == [(5, 5, 0), (5, 5, 0), (3, 3, 0)]
    capsys.readouterr()
    assert main(["evaluate", str(bag), "--rig", str(rig_file), "--tracks", "x.mcap", "--labelled-frames", "--report", str(tmp_path)]) == 1
    assert "with --tracks the node has chosen its frames" in capsys.readouterr().err


def test_a_detector_that_sees_no_images_is_not_corrupted(labelled, tmp_path: Path, capsys) -> None:
    bag, rig_file, _ = labelled
    weights = tmp_path / "lidar.safetensors"
    save_checkpoint(build_detector(centerpoint_tiny()), weights)
    options = ["--rig", str(rig_file), "--weights", str(weights), "--device", "cpu", "--corruptions", "fog"]
    assert main(["evaluate", str(bag), *options, "--report", str(tmp_path / "report")]) == 1
    assert "centerpoint-tiny sees no images, so that --corruptions change nothing" in capsys.readouterr().err


@pytest.mark.parametrize("rows", [[], {"fog": {"NDS": None}}, {"fog": {"NDS": 1.0}}, {"fog": 0.3}])
def test_a_baseline_that_cannot_be_compared_with_is_refused(rows: object, tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({"weights": ["a"], "robustness": {"severities": ["hard"], "per_corruption": rows}}))
    with pytest.raises(ConfigError, match=r"isn't the metrics\.json"):
        read_baseline(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--corruptions", "hail"], "no corruption 'hail'"),
        (["--corruptions", "all", "--tracks", "out.mcap"], "needs a detector to run"),
        (["--corruptions", "fog", "--corruption-seed", "-1"], "from 0 on"),
        (["--corruptions", "fog", "--mce-baseline", "none.json"], "isn't the metrics.json"),
        (["--severities", "hard"], "--severities belongs to --corruptions"),
        (["--corruption-seed", "0"], "--corruption-seed belongs to --corruptions"),
        (["--mce-baseline", "metrics.json"], "--mce-baseline belongs to --corruptions"),
        (["./missing.mcap"], "missing.mcap is named twice"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_runs(options, message, capsys) -> None:
    assert main(["evaluate", "missing.mcap", *options, "--report", "unused"]) == 1
    assert message in capsys.readouterr().err
