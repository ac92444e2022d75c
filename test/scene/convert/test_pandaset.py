"""PandaSet: a real drive lines up with its images, and gaps in the source are passed over."""

import gzip
import json
import pickle
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from dualview.cli import main
from dualview.errors import BagError
from dualview.geometry.boxes import Boxes3D
from dualview.scene.assembler import CameraInput, ClosedFrame
from dualview.scene.bag_messages import points_from_message
from dualview.scene.bag_reader import BagReader
from dualview.scene.convert.pandaset import convert_pandaset, ground_height
from dualview.scene.convert.summary import ConversionSummary
from dualview.scene.frame import Annotations
from dualview.scene.messages import stamp_ns, transform_from_message
from dualview.scene.offline import iterate_frames
from dualview.scene.rig import load_rig

pandas = pytest.importorskip("pandas", reason="PandaSet's files are pandas pickles")
RIG = load_rig("pandaset")

# ---- the real drive -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drive:
    """A converted recording, read once: frames, labels and sweeps (world points [P, 3]) by stamp."""

    path: Path
    summary: ConversionSummary
    frames: list[ClosedFrame]
    labels: list[Annotations]
    sweeps: dict[int, np.ndarray]


@pytest.fixture(scope="module")
def source(real_data: Path) -> Path:
    return real_data / "pandaset" / "002"


@pytest.fixture(scope="module")
def drive(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Drive:
    path = tmp_path_factory.mktemp("pandaset") / "002.mcap"
    summary = convert_pandaset(source, path)
    with BagReader(path) as bag:
        assert bag.check_rig(RIG) == ()
        frames = list(iterate_frames(bag, RIG))
        labels = bag.annotations(RIG)
        (static,) = bag.messages(["/tf_static"])
        mountings = {t.child_frame_id: transform_from_message(t)[3] for t in static.message.transforms}
        poses = {
            m.log_time_ns: transform_from_message(m.message.transforms[0])[3] for m in bag.messages(["/tf"])
        }
        sweeps: dict[int, list[np.ndarray]] = {}
        for m in bag.messages(RIG.lidar_topics):
            matrix = poses[stamp_ns(m.message.header.stamp)] @ mountings[m.message.header.frame_id]
            points = points_from_message(m.message)[:, :3].astype(np.float64)
            sweeps.setdefault(m.log_time_ns, []).append(points @ matrix[:3, :3].T + matrix[:3, 3])
    assert all(isinstance(frame, ClosedFrame) for frame in frames)
    return Drive(path, summary, frames, labels, {s: np.concatenate(p) for s, p in sweeps.items()})  # type: ignore[arg-type]


def project(camera: CameraInput, world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [P, 2] and depths [P] (m) of world points [P, 3] in a camera of a closed frame."""
    assert camera.calibration is not None
    matrix = np.linalg.inv(camera.world_from_ego @ camera.ego_from_camera)
    points = world @ matrix[:3, :3].T + matrix[:3, 3]
    pixels = points @ camera.calibration.intrinsics.T
    return pixels[:, :2] / np.where(np.abs(points[:, 2:]) < 1e-6, 1e-6, points[:, 2:]), points[:, 2]


def test_everything_is_written(drive: Drive) -> None:
    assert drive.summary.written == {"images": 300, "sweeps": 50, "keyframes": 50, "boxes": 4680}
    assert not drive.summary.passed_over
    assert len(drive.labels) == len(drive.sweeps) == 50


def test_a_frame_for_every_front_image_with_all_cameras(drive: Drive) -> None:
    assert len(drive.frames) == 50
    assert all(not frame.problems for frame in drive.frames)


def test_lidar_boxes_and_images_line_up(drive: Drive) -> None:
    """At least 95 % of the cars with 50 points or more have their points' median pixel inside their projected box.

    All goes over the recording alone: points by tf at the sweep's stamp, boxes from /annotations, cameras by the
    assembler. A car whose points aren't where its label says counts as a miss. What this can't judge, since any
    camera projects a box's points into the box, is judged against PandaSet's own matrices in the test below.
    """
    inside = outside = unseen = 0
    for labels in drive.labels:
        frame = min(drive.frames, key=lambda f: abs(f.stamp_ns - labels.stamp_ns))
        cars = (labels.boxes.label == labels.class_names.index("car")) & (labels.num_lidar_points >= 50)
        boxes = labels.boxes[cars]
        corners = boxes.corners().numpy().astype(np.float64)
        sweep = drive.sweeps[labels.stamp_ns]
        sweep = sweep[np.argsort(sweep[:, 0])]
        start = np.searchsorted(sweep[:, 0], corners[..., 0].min(1))
        stop = np.searchsorted(sweep[:, 0], corners[..., 0].max(1))
        for i in range(len(boxes)):
            near = sweep[start[i] : stop[i]]
            points = near[boxes[i : i + 1].contains(torch.from_numpy(near))[0].numpy()]
            verdict = _median_in_box(frame, points, corners[i])
            inside, outside = inside + (verdict is True), outside + (verdict is False)
            unseen += verdict is None
    print(
        f"{inside} of {inside + outside} cars: {inside / (inside + outside):.2%}; {unseen} not whole in one camera"
    )
    assert inside + outside > 1000 > unseen, "too few cars were judged"
    assert inside / (inside + outside) >= 0.95


def _median_in_box(frame: ClosedFrame, points: np.ndarray, corners: np.ndarray) -> bool | None:
    """In the camera that shows most of the points; False if the points aren't where the label says that they are."""
    if len(points) < 50:
        return False
    best: tuple[int, bool] | None = None
    for camera in frame.cameras:
        assert camera.calibration is not None
        pixels, depth = project(camera, points)
        box, box_depth = project(camera, corners)
        size = (camera.calibration.width, camera.calibration.height)
        shown = (depth > 1) & (pixels >= 0).all(1) & (pixels < size).all(1)
        if (box_depth < 0.5).any() or shown.sum() < len(points) / 2:
            continue
        hull = cv2.convexHull(box.astype(np.float32))
        u, v = np.median(pixels[shown], axis=0)
        verdict = cv2.pointPolygonTest(hull, (float(u), float(v)), False) >= 0
        if best is None or shown.sum() > best[0]:
            best = (int(shown.sum()), verdict)
    return best[1] if best else None


def test_pixels_equal_those_of_pandasets_own_matrices(drive: Drive, source: Path) -> None:
    """The source's points, projected by the source's camera-to-world poses, land where the recording's points land.

    This judges what the test above can't (any camera projects a box's points into the box): mountings, ego poses between sweeps,
    base_link, stamps. The mountings are means over the drive and the poses interpolated, which costs a few pixels of 1920.
    """
    errors = []
    for frame in drive.frames[::7]:
        number = drive.frames.index(frame)
        table = pandas.read_pickle(source / "lidar" / f"{number:02d}.pkl.gz")
        world = table[["x", "y", "z"]].to_numpy(np.float64)[::50]
        world = world[np.linalg.norm(world - frame.world_from_ego[:3, 3], axis=1) > 5]
        for camera in frame.cameras:
            assert camera.image is not None and camera.calibration is not None
            folder = source / "camera" / camera.name
            stamps = (
                np.round(np.array(json.loads((folder / "timestamps.json").read_text())) * 1e6).astype(
                    np.int64
                )
                * 1000
            )
            index = int(np.flatnonzero(stamps == camera.image.stamp_ns)[0])
            assert bytes(camera.image.data) == (folder / f"{index:02d}.jpg").read_bytes()  # type: ignore[call-overload]
            pose = json.loads((folder / "poses.json").read_text())[index]
            k = json.loads((folder / "intrinsics.json").read_text())
            rotation = Rotation.from_quat([pose["heading"][a] for a in "xyzw"]).as_matrix()
            local = (world - [pose["position"][a] for a in "xyz"]) @ rotation
            local_u = local[:, 0] / local[:, 2] * k["fx"] + k["cx"]
            local_v = local[:, 1] / local[:, 2] * k["fy"] + k["cy"]
            seen = (local[:, 2] > 2) & (local_u > 0) & (local_u < 1920) & (local_v > 0) & (local_v < 1080)
            pixels, _ = project(camera, world)
            errors.append(np.hypot(pixels[:, 0] - local_u, pixels[:, 1] - local_v)[seen])
    error = np.concatenate(errors)
    assert len(error) > 5000
    print(
        f"pixel difference: median {np.median(error):.2f}, 99 % {np.percentile(error, 99):.2f}, max {error.max():.2f}"
    )
    assert np.median(error) < 1.0 and np.percentile(error, 99) < 5.0 and error.max() < 10.0


def test_points_survive_the_way_through_the_lidar_frame(drive: Drive, source: Path) -> None:
    table = pandas.read_pickle(source / "lidar" / "49.pkl.gz")
    world = table[["x", "y", "z"]].to_numpy(np.float64)
    read = drive.sweeps[drive.labels[49].stamp_ns]
    order = np.argsort(table["d"].to_numpy(), kind="stable")  # the recording has one topic for each LiDAR
    assert np.abs(read - world[order]).max() < 1e-3


def test_base_link_lies_on_the_ground_and_looks_ahead(drive: Drive) -> None:
    for frame in drive.frames[::10]:
        stamp = min(drive.sweeps, key=lambda s: abs(s - frame.stamp_ns))
        world = drive.sweeps[stamp]
        local = (world - frame.world_from_ego[:3, 3]) @ frame.world_from_ego[:3, :3]
        near = local[
            (np.abs(local[:, 0]) < 10) & (np.abs(local[:, 1]) < 3) & (np.hypot(local[:, 0], local[:, 1]) > 4)
        ]
        ground = near[near[:, 2] < np.percentile(near[:, 2], 30)]
        assert abs(np.median(ground[:, 2])) < 0.15
        # the cameras' names say where they look
        ahead = {c.name: c.ego_from_camera[:3, 2] for c in frame.cameras}
        assert ahead["front_camera"][0] > 0.99 and ahead["back_camera"][0] < -0.99
        assert ahead["left_camera"][1] > 0.99 and ahead["right_camera"][1] < -0.99
        assert all(abs(c.ego_from_camera[2, 3] - 1.9) < 0.3 for c in frame.cameras), "roof height"


def test_the_vehicle_drives_forwards(drive: Drive) -> None:
    with BagReader(drive.path) as bag:
        speeds = [m.message.twist.twist.linear for m in bag.messages(["/odom"])]
    assert abs(speeds[5].x) < 0.2, "it stands at first"
    assert speeds[-1].x > 2.0 and abs(speeds[-1].y) < 0.5, "then it pulls away, forwards"


def test_headings_and_velocities_agree(drive: Drive) -> None:
    """A car that moves does so along its heading, whatever the source's yaw means."""
    cosines = []
    for labels in drive.labels[5:45]:
        cars = labels.boxes[labels.boxes.label == 0]
        fast = cars.velocity[:, :2].norm(dim=1) > 3
        heading = torch.stack([cars.yaw.cos(), cars.yaw.sin()], 1)[fast]
        cosines.append((heading * cars.velocity[fast, :2]).sum(1) / cars.velocity[fast, :2].norm(dim=1))
        assert (cars.size[:, 0] > cars.size[:, 1]).all(), "cars are longer than wide"
    cosine = torch.cat(cosines)
    assert len(cosine) > 50 and cosine.median() > 0.99 and (cosine > 0.9).float().mean() > 0.95


def test_twins_of_the_second_sensor_are_dropped(drive: Drive, source: Path) -> None:
    table = pandas.read_pickle(source / "annotations" / "cuboids" / "00.pkl.gz")
    assert len(drive.labels[0].boxes) == (table["cuboids.sensor_id"] != 1).sum() < len(table)
    assert len(set(drive.labels[0].instance_ids)) == len(drive.labels[0].boxes)


def test_track_ids_stay_with_their_instances(drive: Drive) -> None:
    names: dict[int, str] = {}
    for labels in drive.labels:
        for number, name in zip(labels.boxes.track_id.tolist(), labels.instance_ids, strict=True):
            assert names.setdefault(number, name) == name
    assert len(set(names.values())) == len(names)


# ---- gaps and damage, on a small made-up sequence -------------------------------------------------------------


def write_sequence(folder: Path, frames: int = 4) -> Path:
    """Two cameras and a LiDAR on a vehicle that drives along world x; a car ahead, its twin, and a bird."""
    (folder / "lidar").mkdir(parents=True)
    (folder / "annotations" / "cuboids").mkdir(parents=True)
    stamps = [1.0e9 + 0.1 * i for i in range(frames)]
    turned = Rotation.from_euler(
        "z", -90, degrees=True
    ).as_quat()  # PandaSet's y axis (forward) along world x

    def pose(x: float, q: np.ndarray, y: float = 0.0, z: float = 0.0) -> dict:
        return {"position": {"x": x, "y": y, "z": z}, "heading": dict(zip("xyzw", q.tolist(), strict=True))}

    (folder / "lidar" / "timestamps.json").write_text(json.dumps(stamps))
    (folder / "lidar" / "poses.json").write_text(json.dumps([pose(float(i), turned) for i in range(frames)]))
    jpeg = cv2.imencode(".jpg", np.full((108, 192, 3), 99, np.uint8))[1].tobytes()
    looks = {
        "front_camera": [[0, 0, 1], [-1, 0, 0], [0, -1, 0]],
        "left_camera": [[1, 0, 0], [0, 0, 1], [0, -1, 0]],
    }
    for name, columns in looks.items():
        camera = folder / "camera" / name
        camera.mkdir(parents=True)
        q = Rotation.from_matrix(np.array(columns, dtype=float)).as_quat()
        (camera / "timestamps.json").write_text(json.dumps([s - 0.05 for s in stamps]))
        (camera / "poses.json").write_text(json.dumps([pose(i - 0.5 + 1.0, q, z=1.5) for i in range(frames)]))
        (camera / "intrinsics.json").write_text(
            json.dumps({"fx": 200.0, "fy": 201.0, "cx": 96.0, "cy": 54.0})
        )
        for i in range(frames):
            (camera / f"{i:02d}.jpg").write_bytes(jpeg)
    random = np.random.default_rng(0)
    for i in range(frames):
        ground = np.concatenate([random.uniform(-12, 12, (4000, 2)) + [i, 0], np.full((4000, 1), -0.4)], 1)
        car = random.uniform(-0.5, 0.5, (100, 3)) * [4, 1.8, 1.5] + [20 + 2 * i, 0, 0.4]
        points = np.concatenate([ground, car])
        table = pandas.DataFrame(points, columns=["x", "y", "z"]).assign(i=7.0, d=0)
        table.to_pickle(folder / "lidar" / f"{i:02d}.pkl.gz")
        row = {"uuid": "c", "label": "Car", "yaw": -np.pi / 2, "position.x": 20.0 + 2 * i, "position.y": 0.0, "position.z": 0.4,
               "dimensions.x": 1.8, "dimensions.y": 4.0, "dimensions.z": 1.5, "cuboids.sensor_id": -1,
               "attributes.object_motion": "Moving"}  # fmt: skip
        rows = [row, {**row, "uuid": "twin", "cuboids.sensor_id": 1}, {**row, "uuid": "b", "label": "Animals - Bird"},
                {**row, "uuid": "p", "label": "Pedestrian", "position.y": 50.0}]  # fmt: skip
        pandas.DataFrame(rows).to_pickle(folder / "annotations" / "cuboids" / f"{i:02d}.pkl.gz")
    return folder


@pytest.fixture
def sequence(tmp_path: Path) -> Path:
    return write_sequence(tmp_path / "777")


def test_what_is_known_of_the_made_up_drive(sequence: Path, tmp_path: Path) -> None:
    summary = convert_pandaset(sequence, tmp_path / "a.mcap")
    assert summary.written == {"images": 8, "sweeps": 4, "keyframes": 4, "boxes": 8}
    assert summary.passed_over["boxes of class 'Animals - Bird', which isn't one of the ten classes"] == 4
    assert summary.passed_over["cameras without poses, stamps, intrinsics or images"] == 4, (
        "four of six aren't there"
    )
    with BagReader(tmp_path / "a.mcap") as bag:
        labels = bag.annotations(RIG)
        frames = [f for f in iterate_frames(bag, RIG) if isinstance(f, ClosedFrame)]
        odometry = [m.message for m in bag.messages(["/odom"])]
    boxes = labels[1].boxes
    assert labels[1].instance_ids == ("c", "p") and labels[1].attributes == (("vehicle.moving",), ())
    assert boxes.center[0].tolist() == [22.0, 0.0, 0.4] and boxes.size[0].tolist() == pytest.approx(
        [4.0, 1.8, 1.5]
    )
    assert float(boxes.yaw[0]) == pytest.approx(0.0, abs=1e-6), (
        "PandaSet's yaw of -90 degrees is straight ahead"
    )
    assert boxes.velocity[0].tolist() == pytest.approx([20.0, 0.0, 0.0], abs=1e-3)
    assert labels[1].num_lidar_points.tolist() == [100, 0]
    front = frames[1].cameras[0]
    # the vehicle is 1 m further every 0.1 s, base_link 0.4 m below PandaSet's frame
    assert front.world_from_ego[:3, 3] == pytest.approx([0.5, 0.0, -0.4], abs=0.02)
    assert front.world_from_ego[:3, :3] == pytest.approx(np.eye(3), abs=1e-6)
    assert front.ego_from_camera[:3, 3] == pytest.approx([1.0, 0.0, 1.9], abs=0.02)
    assert front.ego_from_camera[:3, 2] == pytest.approx([1.0, 0.0, 0.0], abs=1e-6)
    assert odometry[1].twist.twist.linear.x == pytest.approx(10.0, abs=1e-3)


def test_gaps_are_reported_and_passed_over(sequence: Path, tmp_path: Path) -> None:
    (sequence / "lidar" / "01.pkl.gz").unlink()
    (sequence / "lidar" / "02.pkl.gz").write_bytes(b"broken")
    (sequence / "camera" / "front_camera" / "02.jpg").unlink()
    (sequence / "camera" / "front_camera" / "00.jpg").write_bytes(b"")
    (sequence / "annotations" / "cuboids" / "03.pkl.gz").unlink()
    summary = convert_pandaset(sequence, tmp_path / "a.mcap")
    assert summary.written == {"images": 6, "sweeps": 2, "keyframes": 3, "boxes": 6}
    for what in (
        "missing sweeps",
        "unreadable sweeps",
        "missing images",
        "images that are not JPEG",
        "missing label files",
    ):
        assert summary.passed_over[what] == 1, what
    assert "01.pkl.gz" in str(summary) and "front_camera 02" in str(summary)
    with BagReader(tmp_path / "a.mcap") as bag:
        labels = bag.annotations(RIG)
    assert labels[1].num_lidar_points.tolist() == [-1, -1], "without a sweep nobody knows"
    assert labels[0].num_lidar_points.tolist() == [100, 0]


def test_pickles_outside_the_folder_are_not_opened(sequence: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "sprung",))

    with gzip.open(tmp_path / "trap.pkl.gz", "wb") as file:
        pickle.dump(Trap(), file)
    (sequence / "lidar" / "01.pkl.gz").unlink()
    (sequence / "lidar" / "01.pkl.gz").symlink_to(tmp_path / "trap.pkl.gz")
    summary = convert_pandaset(sequence, tmp_path / "a.mcap")
    assert not (tmp_path / "sprung").exists()
    assert summary.passed_over["sweeps linked from outside the folder, which are refused"] == 1


def test_frames_can_be_picked(sequence: Path, tmp_path: Path) -> None:
    summary = convert_pandaset(sequence, tmp_path / "a.mcap", frames=range(1, 3))
    assert summary.written == {"images": 4, "sweeps": 2, "keyframes": 2, "boxes": 4}
    with pytest.raises(BagError, match="none of the frames"):
        convert_pandaset(sequence, tmp_path / "b.mcap", frames=range(9, 11))


def test_what_is_no_sequence_is_said_so(sequence: Path, tmp_path: Path) -> None:
    with pytest.raises(BagError, match="name one of its sequences: 777"):
        convert_pandaset(sequence.parent, tmp_path / "x.mcap")
    with pytest.raises(BagError, match=r"it needs lidar/poses\.json"):
        convert_pandaset(tmp_path / "nowhere", tmp_path / "x.mcap")
    (sequence / "lidar" / "poses.json").write_text("[{]")
    with pytest.raises(BagError, match=r"poses\.json"):
        convert_pandaset(sequence, tmp_path / "x.mcap")
    assert not (tmp_path / "x.mcap").exists()


def test_command_line(sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "pandaset", str(sequence), str(tmp_path / "a.mcap"), "--frames", "0:2"]) == 0
    assert "4 images" in capsys.readouterr().out
    assert main(["bag", "info", str(tmp_path / "a.mcap"), "--rig", "pandaset"]) == 1, "four cameras miss"
    assert "camera 'back_camera': no topic" in capsys.readouterr().out


@pytest.mark.parametrize("slope", [0.0, 0.05])
def test_ground_is_found_below_cars(slope: float) -> None:
    random = np.random.default_rng(3)
    ground = np.concatenate([random.uniform(-15, 15, (5000, 2)), np.zeros((5000, 1))], 1)
    ground[:, 2] = -1.7 + slope * ground[:, 0] + random.normal(0, 0.02, 5000)
    cars = np.concatenate([random.uniform(-2, 2, (2000, 2)) + [6, 5], random.uniform(-1.4, 0, (2000, 1))], 1)
    height = ground_height([np.concatenate([ground, cars])])
    assert height == pytest.approx(1.7, abs=0.07)
    assert ground_height([np.zeros((0, 3))]) is None and ground_height([]) is None


def test_corner_order_does_not_matter_to_the_measure() -> None:
    """The measure of alignment can fail: a box that is 3 m off doesn't hold its points' median."""
    box = Boxes3D(torch.tensor([[10.0, 0, 0]]), torch.tensor([[4.0, 2, 1.5]]), torch.zeros(1), torch.zeros(1, 3),
                  torch.zeros(1).long(), torch.ones(1), torch.zeros(1).long())  # fmt: skip
    from dualview.scene.calibration import CameraCalibration

    mounting = np.eye(4)
    mounting[:3, :3] = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    calibration = CameraCalibration(200, 100, np.array([[100.0, 0, 100], [0, 100, 50], [0, 0, 1]]))
    camera = CameraInput("front", None, calibration, mounting, np.eye(4))
    frame = ClosedFrame(0, (camera,), np.eye(4), {})
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (100, 3)) * [4, 2, 1.5] + [10, 0, 0]
    corners = box.corners().numpy()[0].astype(np.float64)
    assert _median_in_box(frame, points, corners) is True
    assert _median_in_box(frame, points, corners + [0, 3, 0]) is False
    assert _median_in_box(frame, points - [50, 0, 0], corners - [50, 0, 0]) is None, "behind the camera"
