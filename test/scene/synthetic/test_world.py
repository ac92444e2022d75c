"""The world behind synthetic drives, without a renderer: shapes, streets, traffic, options."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from dualview.cli import main
from dualview.errors import ConfigError
from dualview.scene.synthetic.actors import Actor, Pose, velocity
from dualview.scene.synthetic.catalogue import build_catalogue
from dualview.scene.synthetic.city import signal_state
from dualview.scene.synthetic.collisions import overlapping
from dualview.scene.synthetic.curves import EvenCurve
from dualview.scene.synthetic.domains import CROWDED, DEFAULT, SHIFTED, Domain, find_domain
from dualview.scene.synthetic.labels import silhouette, visible_boxes
from dualview.scene.synthetic.meshes import box
from dualview.scene.synthetic.object_model import CLASS_NAMES, Part, model_from_parts
from dualview.scene.synthetic.options import DriveOptions
from dualview.scene.synthetic.renderer import View
from dualview.scene.synthetic.rig_layouts import LAYOUTS, find_layout
from dualview.scene.synthetic.world import World, build_world


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(2, 2.0, CROWDED)


def test_every_class_has_shapes_of_plausible_size() -> None:
    catalogue = build_catalogue(0)
    assert set(Counter(m.class_name for m in catalogue.models)) == set(CLASS_NAMES)
    length = {
        name: np.mean([m.size[0] for m in catalogue.models if m.class_name == name]) for name in CLASS_NAMES
    }
    width = {
        name: np.mean([m.size[1] for m in catalogue.models if m.class_name == name]) for name in CLASS_NAMES
    }
    height = {
        name: np.mean([m.size[2] for m in catalogue.models if m.class_name == name]) for name in CLASS_NAMES
    }
    assert 4.3 < length["car"] < 5.0 and 1.8 < width["car"] < 2.05 and 1.4 < height["car"] < 1.9
    assert 1.4 < height["pedestrian"] < 1.8 and width["pedestrian"] < 0.8
    assert width["barrier"] > 3 * length["barrier"]  # as nuScenes labels them
    larger = build_catalogue(0, SHIFTED.size_factor)
    assert np.mean([m.size[2] for m in larger.models]) > 1.04 * np.mean([m.size[2] for m in catalogue.models])


def test_boxes_hold_their_shapes() -> None:
    for model in build_catalogue(1).models:
        points = np.concatenate([p.mesh.vertices.reshape(-1, 3) for p in model.parts if p.counts])
        assert (np.abs(points[:, :2]) <= np.array(model.size[:2]) / 2 + 1e-6).all(), model.name
        assert points[:, 2].min() > -0.08 and points[:, 2].max() <= model.size[2] + 1e-6, model.name


def test_nobody_drives_through_anybody(world: World) -> None:
    everyone = [world.ego, *world.actors]
    for time in np.linspace(0, 2.0, 9):
        for a, b in overlapping(everyone, float(time), slack=0.3):
            first, second = everyone[a], everyone[b]
            people = first.model.class_name == second.model.class_name == "pedestrian"
            assert (
                people or (first.group and first.group == second.group) or not (first.moving or second.moving)
            ), (first.name, second.name, time)


def test_traffic_moves_smoothly(world: World) -> None:
    vehicles = [a for a in world.actors if a.moving and a.crossings is None]
    assert len(vehicles) > 20
    speeds = np.array([[np.hypot(*velocity(a, t)[:2]) for t in (0.5, 0.7)] for a in vehicles])
    assert (speeds > 1.0).mean() > 0.2 and speeds.max() < 25
    assert np.abs(np.diff(speeds, axis=1)).max() / 0.2 < 9.0  # m/s^2
    walking = [a for a in world.actors if a.moving and a.crossings is not None]
    assert len(walking) > 20 and max(np.hypot(*velocity(a, 1.0)[:2]) for a in walking) < 2.6


def test_lights_take_turns(world: World) -> None:
    for time in np.arange(0, 30, 0.5):
        states = [signal_state(world.city, 1, 1, along_v, float(time)) for along_v in (True, False)]
        assert "red" in states


def test_worlds_repeat_and_differ() -> None:
    one, same, other = (build_world(seed, 0.2, DEFAULT) for seed in (5, 5, 6))
    place = [[(a.name, a.model.name, a.pose(0.1)) for a in w.actors] for w in (one, same, other)]
    assert place[0] == place[1] and place[0] != place[2]
    assert np.allclose(one.weather.sun, same.weather.sun) and not np.allclose(
        one.weather.sun, other.weather.sun
    )


def test_even_curve_is_smooth_and_straight_beyond_its_ends() -> None:
    x = np.arange(0, 3.01, 0.1)
    curve = EvenCurve(0.0, 0.1, np.sin(x), np.cos(x))
    for at in (0.03, 1.27, 2.9):
        assert abs(curve(at) - np.sin(at)) < 1e-5 and abs(curve.slope(at) - np.cos(at)) < 1e-3
    assert curve(-1.0) == pytest.approx(-1.0) and curve.slope(5.0) == pytest.approx(np.cos(3.0))


def test_silhouette_of_a_box_has_its_area() -> None:
    model = model_from_parts("box", "car", [Part(box((2.0, 2.0, 2.0), (0, 0, 1.0)))])
    camera = np.array(
        [[0, 0, 1.0, -20], [-1, 0, 0, 0], [0, -1, 0, 1.0], [0, 0, 0, 1]]
    )  # 20 m behind, looking along +x
    view = View(np.array([[500.0, 0, 200], [0, 500, 150], [0, 0, 1]]), 400, 300, camera)
    pixels, inside = silhouette(model, Pose(0, 0, 0, 0), view)
    assert pixels == pytest.approx((500 * 2 / 19) ** 2, rel=0.04) and inside == pytest.approx(1.0)
    pixels, inside = silhouette(
        model, Pose(0, 8.0, 0, 0), view
    )  # its middle is at the left edge, 200 px from the principal point
    assert 0.3 < inside < 0.7 and pixels < 0.75 * (500 * 2 / 19) * (500 * 2 / 19 + 25)
    assert silhouette(model, Pose(-40, 0, 0, 0), view) == (0.0, 0.0)


def test_visible_boxes_span_whole_pixels() -> None:
    picture = np.full((6, 8), -1, np.int32)
    picture[1:3, 2:5] = 4
    picture[5, 7] = 0
    assert visible_boxes(picture) == {4: (6, (2, 1, 5, 3)), 0: (1, (7, 5, 8, 6))}


def test_cameras_look_where_their_names_say() -> None:
    forward = {c.name: c.ego_from_camera()[:3, 2] for c in find_layout("nuscenes").cameras}
    assert forward["cam_front"][0] > 0.99 and forward["cam_back"][0] < -0.99
    assert forward["cam_front_left"][1] > 0.7 and forward["cam_back_right"][1] < -0.7
    for layout in LAYOUTS.values():
        for camera in layout.cameras:
            assert camera.ego_from_camera()[2, 1] < -0.99  # y points down
            np.testing.assert_allclose(np.linalg.det(camera.ego_from_camera()[:3, :3]), 1.0)


def test_what_makes_no_drive_is_refused() -> None:
    refused = {
        "seconds": 0.0, "seed": -1, "camera_rate": 0.0, "annotation_rate": 20.0, "quality": "best", "image_size": (10, 10),
        "jpeg_quality": 3, "lidar_rate": -1.0,
    }  # fmt: skip
    for name, value in refused.items():
        with pytest.raises(ConfigError):
            DriveOptions(**{name: value})
    with pytest.raises(ConfigError, match="shifted"):
        find_domain("mars")
    with pytest.raises(ConfigError, match="nuscenes"):
        find_layout("bicycle")
    assert find_domain("city-b") is SHIFTED


def test_command_line_says_what_is_wrong(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["synth", str(tmp_path / "drive"), "--seconds", "1"]) == 1
    assert ".mcap" in capsys.readouterr().err
    assert main(["synth", str(tmp_path / "drive.mcap"), "--seconds", "-2"]) == 1
    assert "seconds" in capsys.readouterr().err
    (tmp_path / "drive.mcap").touch()
    assert main(["synth", str(tmp_path / "drive.mcap")]) == 1
    assert "exists" in capsys.readouterr().err


def test_who_never_comes_near_is_left_out() -> None:
    wide, seconds = replace(DEFAULT, reach=(140.0, 140.0)), 3.0
    near, all_of_them = (build_world(4, seconds, domain) for domain in (DEFAULT, wide))

    def nearest(actor: Actor) -> float:
        times = np.arange(0.0, seconds + 0.5, 0.5)
        poses = [(actor.pose(t), all_of_them.ego.pose(t)) for t in times]
        return min(np.hypot(a.x - e.x, a.y - e.y) for a, e in poses)

    expected = {a.name for a in all_of_them.actors if nearest(a) < (30.0 if a.moving else 20.0)}
    assert {a.name for a in near.actors} == expected
    assert 0 < len(expected) < len(all_of_them.actors) / 2


def test_kerbs_of_the_crowded_city_are_fuller() -> None:
    def parked(domain: Domain) -> int:
        world = build_world(4, 1.0, replace(domain, reach=(140.0, 140.0)))
        return sum(not a.moving and a.model.class_name in ("car", "truck", "trailer", "bus") for a in world.actors)

    assert parked(CROWDED) > parked(DEFAULT) > 0
