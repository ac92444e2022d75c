"""The RViz configuration shows topics that exist, with types and QoS that match."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from dualview.ros.outputs import TOPICS
from dualview.ros.player import qos_for
from dualview.scene.rig import load_rig

ROOT = Path(__file__).resolve().parents[2]
CONFIG = yaml.safe_load((ROOT / "config/rviz/dualview.rviz").read_text())["Visualization Manager"]
DISPLAYS: list[dict[str, Any]] = CONFIG["Displays"]
TYPES = {  # what each display subscribes to
    "rviz_default_plugins/Image": {"Image", "CompressedImage"},  # the latter through image_transport
    "rviz_default_plugins/MarkerArray": {"MarkerArray"},
    "rviz_default_plugins/PointCloud2": {"PointCloud2"},
}
RELIABILITY = {"Reliable": ReliabilityPolicy.RELIABLE, "Best Effort": ReliabilityPolicy.BEST_EFFORT}
DURABILITY = {"Volatile": DurabilityPolicy.VOLATILE, "Transient Local": DurabilityPolicy.TRANSIENT_LOCAL}


def published() -> dict[str, tuple[str, QoSProfile]]:
    """Topic -> type and QoS of everything that the node publishes and that a recording of the shipped rigs holds."""
    topics = {t.name.replace("~", "/dualview_node"): (t.type.__name__, t.qos) for t in TOPICS}
    rig = load_rig("nuscenes")
    for camera in rig.cameras:
        topics[camera.image_topic] = (
            "CompressedImage" if camera.compressed else "Image",
            qos_for(camera.image_topic),
        )
    for lidar in rig.lidar_topics:
        topics[lidar] = ("PointCloud2", qos_for(lidar))
    return topics


def with_topics() -> list[dict[str, Any]]:
    return [d for d in DISPLAYS if "Topic" in d]


def test_all_that_is_to_be_seen_is_there() -> None:
    classes = [d["Class"].split("/")[1] for d in DISPLAYS]
    assert {"Grid", "TF", "MarkerArray", "PointCloud2"} <= set(classes) and classes.count("Image") == 3
    assert CONFIG["Global Options"]["Fixed Frame"] == "odom"
    markers = next(d for d in DISPLAYS if d["Class"].endswith("MarkerArray"))
    from dualview.ros.markers import NAMESPACES

    assert set(markers["Namespaces"]) == set(NAMESPACES)


@pytest.mark.parametrize("display", with_topics(), ids=lambda d: d["Name"])
def test_topic_type_and_qos_fit(display: dict[str, Any]) -> None:
    topics = published()
    topic = display["Topic"]
    assert topic["Value"] in topics
    kind, offered = topics[topic["Value"]]
    assert kind in TYPES[display["Class"]]
    reliability, durability = RELIABILITY[topic["Reliability Policy"]], DURABILITY[topic["Durability Policy"]]
    # a subscriber must not ask for more than the publisher offers
    assert reliability == ReliabilityPolicy.BEST_EFFORT or offered.reliability == ReliabilityPolicy.RELIABLE
    assert durability == DurabilityPolicy.VOLATILE or offered.durability == DurabilityPolicy.TRANSIENT_LOCAL
    if display["Class"].endswith("Image"):
        assert reliability == ReliabilityPolicy.BEST_EFFORT
    assert topic["History Policy"] == "Keep Last" and 1 <= topic["Depth"] <= 10


def test_the_same_topics_serve_the_synthetic_rig() -> None:
    nuscenes, synthetic = load_rig("nuscenes"), load_rig("synthetic")
    assert {c.image_topic for c in nuscenes.cameras} == {c.image_topic for c in synthetic.cameras}
    assert set(nuscenes.lidar_topics) == set(synthetic.lidar_topics)
