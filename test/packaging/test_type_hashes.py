"""The messages that rosidl has generated here are, byte for byte on the wire, those of the ROS machines that we talk to.

ROS 2 peers refuse a type whose RIHS01 hash is another, so `compat/` must give the hashes of the upstream packages.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from dualview.resources import share_directories
from dualview.scene.message_types import message_typestore

REPOSITORY = Path(__file__).resolve().parents[2]

UPSTREAM = {
    "tf2_msgs/msg/TFMessage": "e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087",
    "vision_msgs/msg/ObjectHypothesis": "51da43cec11c01957a64d1e05a24acd18aae7745ec30b74348ad5f6d634f7f90",
    "vision_msgs/msg/ObjectHypothesisWithPose": "41c12344c0396c48b81df12467c192d99b2a0eb1463c5c37194e4223251c80bc",
    "vision_msgs/msg/BoundingBox3D": "bbb73a65c163d7f9bb29009c7bde9f7faa576bd2d23299c4511d19230dab4698",
    "vision_msgs/msg/Detection3D": "ddd703be132ab0b69d33121f1bb034132bfbb3b0ac5f9fb1516005ba1c8a265b",
    "vision_msgs/msg/Detection3DArray": "793f5eab9595ac1c0da07873cc859db42eae51f0ee76056db8562515d830e018",
    "vision_msgs/msg/Point2D": "eab0e83f44ab4de92ceaf76dd7d0e7638f2bdd1d16ffbe16c7a136c48e407247",
    "vision_msgs/msg/Pose2D": "b0b5d1d7b4c20dd4fcde3ed1d4b289a919290572007d67a97043814db25d3648",
    "vision_msgs/msg/BoundingBox2D": "008eacbb0cf8f26e83795547bed013eec3675485ef386ec056d80eaaf1c1ce2f",
    "vision_msgs/msg/Detection2D": "0d12b69df5c593b3455b7346fac8205437a7d4bcb09b9e0e0b2dde787ded38ea",
    "vision_msgs/msg/Detection2DArray": "214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968",
}
OURS = tuple(f"dualview/msg/{path.stem}" for path in sorted((REPOSITORY / "msg").glob("*.msg")))


def generated_hash(name: str) -> str:
    """The hash that rosidl computed for a message type when it was generated: share/<package>/msg/<Type>.json."""
    package, _, kind = name.split("/")
    for share in share_directories(package):
        description = share / "msg" / f"{kind}.json"
        if description.is_file():
            hashes = {
                entry["type_name"]: entry["hash_string"]
                for entry in json.loads(description.read_text())["type_hashes"]
            }
            return hashes[name].removeprefix("RIHS01_")
    pytest.fail(f"{name} has not been generated in {sys.prefix}: run `make venv`")


@pytest.mark.parametrize("name", UPSTREAM)
def test_compat_has_the_upstream_hash(name: str) -> None:
    assert generated_hash(name) == UPSTREAM[name]


@pytest.mark.parametrize("name", [*UPSTREAM, *OURS])
def test_bags_are_written_with_the_hash_of_the_generated_type(name: str) -> None:
    """rosbags computes the hash by itself from the .msg files; what it writes must be what rosidl says."""
    assert message_typestore().hash_rihs01(name).removeprefix("RIHS01_") == generated_hash(name)


@pytest.mark.parametrize("name", [*UPSTREAM, *OURS])
def test_generated_class_has_the_fields_of_the_definition(name: str) -> None:
    package, _, kind = name.split("/")
    fields = getattr(importlib.import_module(f"{package}.msg"), kind).get_fields_and_field_types()
    assert list(fields) == [field for field, _ in message_typestore().fielddefs[name][1]]


def test_compat_holds_just_these_types() -> None:
    defined = {f"{path.parts[-3]}/msg/{path.stem}" for path in (REPOSITORY / "compat").glob("*/msg/*.msg")}
    assert defined == set(UPSTREAM)


def test_compat_stays_off_ros_machines() -> None:
    assert (REPOSITORY / "compat" / "COLCON_IGNORE").is_file()
