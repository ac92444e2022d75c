"""Networks of the transformers library, small and with random weights, from a local folder: the roads, not the results."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dualview.errors import ConfigError, WeightsError
from dualview.scene.depth_labels.job import DepthRequest
from dualview.scene.images import EncodedImage
from dualview.scene.rig import rig_from_dict
from dualview.teachers.hub import import_transformers, open_pipeline
from dualview.teachers.monocular_depth import TransformersDepth
from dualview.teachers.object_detector import (
    Found,
    PseudoLabelRule,
    open_object_detector,
    pseudo_labels,
)

RIG = rig_from_dict(
    {"cameras": [{"name": name, "image_topic": f"/{name}/image"} for name in ("front", "rear")]}, "two", "two"
)


@pytest.fixture(scope="module")
def library() -> object:
    if "transformers" not in sys.modules and not _installed():
        pytest.skip(
            "the transformers library is not installed; it is needed for depth and 2D detection networks only"
        )
    return import_transformers()


def _installed() -> bool:
    import importlib.util

    return importlib.util.find_spec("transformers") is not None


@pytest.fixture(scope="module")
def depth_model(library: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = library.DPTConfig(  # type: ignore[attr-defined]
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, is_hybrid=False,
        reassemble_factors=[4, 2, 1, 0.5], initializer_range=0.3,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("dpt")
    library.DPTForDepthEstimation(config).save_pretrained(folder)  # type: ignore[attr-defined]
    library.DPTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)  # type: ignore[attr-defined]
    return folder


@pytest.fixture(scope="module")
def detection_model(library: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = library.YolosConfig(  # type: ignore[attr-defined]
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=[64, 96],
        patch_size=16, num_detection_tokens=12, id2label={0: "person", 1: "car", 2: "kite"},
        label2id={"person": 0, "car": 1, "kite": 2}, use_mid_position_embeddings=False,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("yolos")
    library.YolosForObjectDetection(config).save_pretrained(folder)  # type: ignore[attr-defined]
    processor = library.YolosImageProcessor(size={"height": 64, "width": 96})  # type: ignore[attr-defined]
    processor.save_pretrained(folder)
    return folder


def request(height: int = 48, width: int = 80, seed: int = 0) -> DepthRequest:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return DepthRequest(
        "front", 5, EncodedImage(5, pixels.tobytes(), "rgb8", False, "", height, width, 3 * width)
    )


def test_a_relative_network_gives_maps_of_the_image(depth_model: Path) -> None:
    network = TransformersDepth(str(depth_model))
    assert network.kind == "inverse" and "relative inverse depth" in network.source(384).description
    one, other = network([request(), request(seed=1)])
    assert one.kind == "inverse" and one.values.shape == (48, 80) and np.isfinite(one.values).all()
    (alone,) = network([request()])
    assert np.allclose(alone.values, one.values, rtol=1e-3, atol=1e-4)
    assert not np.allclose(alone.values, other.values, rtol=1e-2)
    metric = TransformersDepth(str(depth_model), kind="metric")
    assert (
        metric([request()])[0].kind == "metric" and "m along the optical axis" in metric.source(1).description
    )


def test_a_detector_s_boxes(detection_model: Path) -> None:
    detector = open_object_detector(str(detection_model))
    found = detector(request().pixels, 0.01)
    assert found and {f.name for f in found} <= {"person", "car", "kite"}
    assert all(0.01 <= f.score <= 1 and f.box[0] <= f.box[2] and f.box[1] <= f.box[3] for f in found)
    assert detector(request().pixels, 0.999) == []


def test_what_cannot_be_opened_is_said(depth_model: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="can't be opened for depth-estimation"):
        open_pipeline("depth-estimation", str(tmp_path))
    with pytest.raises(WeightsError, match="is a DPTForDepthEstimation"):
        open_pipeline("object-detection", str(depth_model))


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        sys.modules, "transformers", None
    )  # what Python itself does for a module that must not be imported
    with pytest.raises(WeightsError, match="pip install"):
        TransformersDepth("dpt-hybrid")


def test_pseudo_labels_and_doubt(tmp_path: Path) -> None:
    """A detector made by hand: sure boxes become labels, doubtful ones ignored places, classes without a place are counted."""
    from dualview.scene.bag_messages import raw_image_message
    from dualview.scene.bag_reader import BagReader
    from dualview.scene.bag_writer import BagWriter

    with BagWriter(tmp_path / "a.mcap", RIG) as bag:
        for k in range(4):
            bag.raw_image("front", 10**18 + k * 10**8, np.full((20, 30, 3), 10 * k, np.uint8))
        broken = raw_image_message(10**18 + 5 * 10**8, "front", np.zeros((20, 30, 3), np.uint8), "yuv999")
        bag.message("/front/image", broken, 10**18 + 5 * 10**8)

    def detect(image: np.ndarray, threshold: float) -> list[Found]:
        assert threshold == 0.2 and image.shape == (20, 30, 3)
        if image[0, 0, 0] == 0:
            return []
        return [
            Found("person", 0.9, (-3.0, 2, 10, 12)),
            Found("car", 0.3, (4.0, 4, 90, 9)),
            Found("kite", 0.8, (1.0, 1, 2, 2)),
            Found("car", 0.9, (31.0, 4, 40, 9)),
        ]

    with BagReader(tmp_path / "a.mcap") as bag:
        labels, others = pseudo_labels(
            bag, RIG, detect, {"person": "pedestrian", "car": "car"}, PseudoLabelRule(every_s=0.2)
        )
    assert labels["rear"] == {} and list(labels["front"]) == [10**18, 10**18 + 2 * 10**8]
    assert labels["front"][10**18] == []
    found = [(x.class_name, x.score, x.box) for x in labels["front"][10**18 + 2 * 10**8]]
    assert found == [("pedestrian", 0.9, (0.0, 2, 10, 12)), ("ignore", 0.3, (4.0, 4, 30, 9))]
    assert others == {"kite": 1, "images that can't be decoded": 1}
    with pytest.raises(ConfigError, match="doubt"):
        PseudoLabelRule(score=0.2, doubt=0.5)


def test_commands_with_local_networks(
    depth_model: Path, detection_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """label-depth and label-2d --detector from the command line, over a recording of two cameras."""
    import yaml

    from dualview.cli import main
    from dualview.scene.bag_reader import BagReader
    from dualview.scene.bag_writer import BagWriter
    from dualview.scene.depth_labels.store import DepthStore, depth_folder
    from dualview.scene.labels_2d.labels import read_labels_2d

    recording = tmp_path / "drive.mcap"
    with BagWriter(recording, RIG) as bag:
        for k in range(3):
            for name in RIG.camera_names:
                pixels = np.random.default_rng(k).integers(0, 255, (48, 80, 3), dtype=np.uint8)
                bag.raw_image(name, 10**18 + k * 10**8, pixels)
    rig = tmp_path / "two.yaml"
    rig.write_text(
        yaml.safe_dump({"cameras": [{"name": c.name, "image_topic": c.image_topic} for c in RIG.cameras]})
    )
    common = ["--rig", str(rig), "--quiet"]
    depth = [
        "label-depth",
        str(recording),
        "--model",
        str(depth_model),
        "--width",
        "40",
        "--batch",
        "4",
        *common,
    ]
    assert main(depth) == 0
    told = capsys.readouterr().out
    assert "6 maps made, 0 there already" in told and "the depth is relative" in told
    store = DepthStore(depth_folder(recording, str(depth_model)))
    assert store.read("rear", 10**18).values.shape == (24, 40)
    assert main(depth) == 0 and "0 maps made, 6 there already" in capsys.readouterr().out
    out = tmp_path / "out.mcap"
    labels = [
        "label-2d",
        str(recording),
        "--detector",
        str(detection_model),
        "--score",
        "0.05",
        "--doubt",
        "0.01",
    ]
    assert main([*labels, "--out", str(out), *common]) == 0
    told = capsys.readouterr().out
    assert "which nobody checked" in told
    assert "labels_2d.classes=[bicycle, bus, car, motorcycle, pedestrian, truck]" in told
    with BagReader(out) as bag:
        found = read_labels_2d(bag, RIG)
    assert len(found["front"]) == len(found["rear"]) == 3
