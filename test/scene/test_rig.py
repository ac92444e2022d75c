"""Rig files: what ships reads, what is wrong is named."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from dualview.detectors.config import ARGOVERSE2_CAMERAS
from dualview.errors import ConfigError
from dualview.scene.class_maps import ARGOVERSE2_CLASS_MAP, ARGOVERSE2_CLASSES, ARGOVERSE2_UNSCORED
from dualview.scene.convert.labels import DETECTION_CLASSES
from dualview.scene.rig import CameraSpec, Rig, known_rigs, load_rig, rig_from_dict

SMALL = {
    "cameras": [
        {"name": "front", "image_topic": "/front/image/compressed"},
        {"name": "rear", "image_topic": "/rear/raw"},
    ]
}


def test_shipped_rigs_are_the_promised_ones() -> None:
    shipped = {"nuscenes", "nuscenes2bag", "pandaset", "argoverse2", "argoverse2_nuscenes", "synthetic", "waymo"}
    assert set(known_rigs()) == shipped


def test_rigs_of_argoverse_2_have_its_cameras_and_classes() -> None:
    """The same recordings with Argoverse's 26 classes, or nuScenes' ten by name."""
    own, ten = load_rig("argoverse2"), load_rig("argoverse2_nuscenes")
    assert own.cameras == ten.cameras and own.camera_names == ARGOVERSE2_CAMERAS
    assert own.class_names == ARGOVERSE2_CLASSES and len(set(ARGOVERSE2_CLASSES)) == 26
    assert ten.class_names == DETECTION_CLASSES and dict(ten.class_map) == dict(ARGOVERSE2_CLASS_MAP)
    assert set(ARGOVERSE2_CLASS_MAP) <= {*ARGOVERSE2_CLASSES, *ARGOVERSE2_UNSCORED}
    assert set(ARGOVERSE2_CLASS_MAP.values()) <= set(DETECTION_CLASSES)


@pytest.mark.parametrize("name", sorted(known_rigs()))
def test_every_shipped_rig_can_be_used(name: str) -> None:
    rig = load_rig(name)
    assert rig.name == name
    assert rig.anchor in rig.camera_names
    for camera in rig.cameras:  # a calibration has to come from somewhere
        assert camera.camera_info_topic or camera.calibration
        assert camera.compressed == camera.image_topic.endswith("/compressed")


def test_template_reads_and_shows_the_defaults() -> None:
    path = next(iter(known_rigs().values())).parent / "template.yaml"
    template, plain = load_rig(path), rig_from_dict({"cameras": SMALL["cameras"]}, "plain")
    for key in ("ego_frame", "world_frame", "odometry_topic", "annotations_topic", "annotations_2d_topic"):
        assert getattr(template, key) == getattr(plain, key), (
            f"template.yaml claims another default for {key}"
        )
    ahead = template.camera("rear").ego_from_camera[:3, :3] @ [0.0, 0.0, 1.0]
    assert np.allclose(ahead, [-1, 0, 0]), "the template says that its rear camera looks straight back"


def test_order_and_defaults() -> None:
    rig = rig_from_dict(SMALL, "test", "small")
    assert rig.camera_names == ("front", "rear") and rig.anchor == "front" and rig.name == "small"
    assert [c.compressed for c in rig.cameras] == [True, False]
    assert rig.camera("front").frame == "front_optical_frame"
    assert rig.annotations_2d_topic_of("rear") == "/rear/annotations_2d"


def test_path_wins_over_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(SMALL))
    assert load_rig(file).name == load_rig(str(file)).name == "mine"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"camera": []}, ["unknown key 'camera'", "did you mean 'cameras'"]),
        ({"cameras": []}, ["no cameras"]),
        ({"cameras": SMALL["cameras"] * 2}, ["camera front, rear more than once"]),
        ({"cameras": [SMALL["cameras"][0], {"name": "b", "image_topic": "/front/image/compressed"}]}, ["topic /front/image/compressed"]),
        ({"anchor": "side"}, ["'side'", "front, rear"]),
        ({"cameras": [{"name": "a"}]}, ["missing image_topic", "camera 1"]),
        ({"cameras": [{"name": "a", "image_topic": "/a", "optical_fram": "x"}]}, ["optical_fram", "optical_frame"]),
        ({"cameras": [{"name": "a", "image_topic": "/a", "compressed": "yes please"}]}, ["'compressed' must be of type bool"]),
        ({"assembler": {"max_skw": 1.0}}, ["max_skw", "max_skew"]),
        ({"assembler": {"max_skew": True}}, ["max_skew"]),
        ({"class_names": ["car", 3]}, ["class_names", "3"]),
    ],
)  # fmt: skip
def test_mistakes_are_named(change: dict, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        rig_from_dict({**SMALL, **change}, "my.yaml")
    for word in ["my.yaml", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("calibration", "word"),
    [
        ({"width": 10, "height": 10, "intrinsics": [1, 1, 5]}, "4 or 9"),
        ({"width": 10, "height": 10, "intrinsics": [0, 0, 5, 5]}, "focal"),
        ({"width": 10, "intrinsics": [1, 1, 5, 5]}, "height"),
        ({"width": 10, "height": 10, "intrinsics": [1, 1, 5, 5], "distortion_model": "omni", "distortion": [1]}, "omni"),
    ],
)  # fmt: skip
def test_bad_calibrations_name_the_camera(calibration: dict, word: str) -> None:
    camera = {"name": "front", "image_topic": "/front", "calibration": calibration}
    with pytest.raises(ConfigError, match="front") as caught:
        rig_from_dict({"cameras": [camera]}, "my.yaml")
    assert word in str(caught.value)


def test_zero_quaternion_is_refused() -> None:
    extrinsic = {"translation": [0, 0, 0], "rotation_xyzw": [0, 0, 0, 0]}
    with pytest.raises(ConfigError, match="quaternion"):
        rig_from_dict(
            {"cameras": [{"name": "a", "image_topic": "/a", "ego_from_camera": extrinsic}]}, "my.yaml"
        )


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"did you mean .nuscenes.\?.*pandaset"):
        load_rig("nuscene")


def test_key_given_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "twice.yaml"
    file.write_text(
        "anchor: a\nanchor: b\ncameras: [{name: a, image_topic: /a}, {name: b, image_topic: /b}]\n"
    )
    with pytest.raises(ConfigError, match="'anchor' is given twice"):
        load_rig(file)


@pytest.mark.parametrize("content", ["cameras: [", "just words", "- 1\n- 2\n", ""])
def test_what_is_not_a_rig_is_said_so(tmp_path: Path, content: str) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        load_rig(file)


def test_rig_checks_itself_when_made_in_code() -> None:
    with pytest.raises(ConfigError, match="more than once"):
        Rig("r", (CameraSpec("a", "/a", True), CameraSpec("a", "/b", True)))
