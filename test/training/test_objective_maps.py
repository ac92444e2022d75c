"""Label maps as an objective: they follow the augmentation, teach any BEV map, and leave nothing in the detector."""

from __future__ import annotations

import pickle
import warnings
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from map_world import CHANNELS, GRID, ramp, write_maps
from safetensors.torch import load_file, save_file
from small_world import START_NS
from students import recipe_of

from dualview.detectors.checkpoint import build_detector, load_detector, read_metadata
from dualview.detectors.prediction import Prediction
from dualview.detectors.session import TrackingSession
from dualview.detectors.systems import bev_channels
from dualview.errors import ConfigError
from dualview.geometry.bev_grid import BevGrid
from dualview.networks.bev_branch import BevPrediction
from dualview.scene.assembler import ClosedFrame
from dualview.scene.augmentation.bev import BevAugmentation
from dualview.scene.bag_reader import BagReader
from dualview.scene.offline import iterate_frames
from dualview.scene.rig import load_rig
from dualview.supervision.map_distillation import cosine_distance
from dualview.teachers.bev_pooling import BevLabel
from dualview.teachers.label_store import LabelMaps
from dualview.teachers.label_warp import warp_label
from dualview.training.clips import FrameRequest
from dualview.training.data_module import prepare_drives
from dualview.training.drive_store import Drive
from dualview.training.objective_maps import (
    EXTRA,
    LabelMapInput,
    LabelMapReader,
    MapDistillation,
    build_map_objective,
    stacked_labels,
)
from dualview.training.objectives import build_objectives
from dualview.training.recipe import recipe_from_dict
from dualview.training.samples import FrameDataset, collate
from dualview.training.trainer import train

MODELS = ["dualview-tiny", "bevdepth-tiny", "bevformer-lite", "centerpoint-tiny"]
FINE = BevGrid(-32.0, -32.0, 0.5, 128, 128)


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory, drives: Path) -> Path:
    """Of two of the three drives, and of every other frame."""
    bags = [drives / "drive0.mcap", drives / "drive1.mcap"]
    return write_maps(tmp_path_factory.mktemp("maps"), bags, frames=range(0, 24, 2))


def content(
    small_recipe: dict, maps: Path, model: str = "dualview-tiny", weight: float = 7.0, **changes
) -> dict:
    section = {"labels": str(maps), "weight": weight}
    return {**recipe_of(small_recipe, model), "map_distillation": section, **changes}


def quietly(recipe: dict, folder: Path, **options):
    return train(recipe_from_dict(recipe), folder, tell=lambda line: None, progress_bar=False, **options)


@pytest.fixture(scope="module")
def taught(small_recipe: dict, maps: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with label maps."""
    folder = tmp_path_factory.mktemp("taught") / "run"
    quietly(content(small_recipe, maps, steps=4, checkpoint_every=2), folder)
    return folder


@pytest.mark.parametrize("model", MODELS)
def test_every_bev_map_is_taught(
    model: str, small_recipe: dict, drives: Path, tmp_path: Path
) -> None:
    grid = recipe_from_dict(recipe_of(small_recipe, model)).detector_config().bev_grid
    assert grid is not None
    every = write_maps(tmp_path / "maps", sorted(drives.glob("*.mcap")), grid)  # of all frames, whichever are drawn
    recipe = recipe_from_dict(content(small_recipe, every, model, steps=1))
    result = train(recipe, tmp_path / "run", tell=lambda line: None, progress_bar=False)
    assert 0.3 * 7 < result.losses["maps/cosine"] < 1.7 * 7  # a random head: near 1, times lambda
    kept = torch.load(tmp_path / "run/last.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    head = kept["objectives.0.distillation_head.weight"]
    assert head.shape == (CHANNELS, bev_channels(recipe.detector_config()))
    assert not [name for name in load_file(result.weights) if "distillation" in name]
    load_detector(result.weights, "cpu")


def test_samples_without_a_label_and_with_augmentation(small_recipe: dict, drives: Path, maps: Path) -> None:
    recipe = recipe_from_dict(content(small_recipe, maps))
    config = recipe.detector_config()
    summaries = prepare_drives(recipe, config)
    store = LabelMaps(maps)
    reader = pickle.loads(pickle.dumps(LabelMapReader(store)))  # loaders hand it to their processes
    dataset = FrameDataset(summaries, recipe.augmentation, recipe.data, readers=[(EXTRA, reader)])
    seen = 0
    for number, drive in enumerate(summaries):
        name = Path(drive.source).name
        for frame in (2, 3, 6):
            request = FrameRequest(number, frame, (0, 0, frame), 0)
            sample = dataset[request]
            label = sample.extras[EXTRA]
            index = round((int(drive.stamps[frame]) - START_NS) / 1e8)
            if name == "drive2.mcap" or index % 2:
                assert label is None
                continue
            seen += 1
            matrix = sample.inputs.bev_augmentation[0].double()
            plain = store.dense(drives / name, int(drive.stamps[frame]))
            expected = warp_label(plain, GRID, matrix)
            mask = torch.zeros(GRID.rows * GRID.columns, dtype=torch.bool)
            mask[label.cells] = True
            assert torch.equal(mask.view(GRID.rows, GRID.columns), expected.mask)
            assert torch.equal(label.features.T, expected.features[:, expected.mask])
    assert seen >= 2


def test_the_label_of_an_object_stays_with_it_under_augmentation(
    small_recipe: dict, drives: Path, tmp_path: Path
) -> None:
    """Labels are laid at the boxes' centres; the augmented sample has them where its augmented boxes are."""
    recipe = recipe_from_dict(content(small_recipe, tmp_path))
    summaries = prepare_drives(recipe, recipe.detector_config())
    bag = drives / "drive0.mcap"
    (number,) = [i for i, s in enumerate(summaries) if Path(s.source).name == "drive0.mcap"]
    drive = Drive(summaries[number].folder)

    def at_boxes(recording: Path, frame: int) -> BevLabel:
        (index,) = [
            i for i in range(len(drive)) if int(summaries[number].stamps[i]) == START_NS + frame * 100_000_000
        ]
        boxes = drive.frame(index).boxes
        place = (FINE.normalized(boxes.center) * 128).floor().long()
        inside = ((place >= 0) & (place < 128)).all(1)
        cells, order = (place[inside, 1] * 128 + place[inside, 0]).sort()
        coded = torch.nn.functional.one_hot(boxes.track_id[inside][order], 6).float()
        return BevLabel(cells, coded, torch.ones(len(cells)))

    write_maps(tmp_path / "maps", [bag], FINE, 6, label_at=at_boxes, frames=range(0, 24, 4))
    reader = LabelMapReader(LabelMaps(tmp_path / "maps"))
    dataset = FrameDataset(summaries, recipe.augmentation, recipe.data, readers=[(EXTRA, reader)])
    checked, turned = 0, 0
    for clip in range(6):
        sample = dataset[FrameRequest(number, 4 * (clip % 3), (0, 1, clip), 0)]
        label = sample.extras[EXTRA]
        matrix = sample.inputs.bev_augmentation[0]
        turned += not torch.allclose(matrix.abs(), torch.eye(3), atol=0.1)
        centers = FINE.cell_centers().view(-1, 2)[label.cells]
        for box, track in zip(sample.truth.boxes, sample.truth.track_ids, strict=True):
            own = centers[label.features[:, int(track)] > 0.5]
            if len(own):  # a shrunken map may pass over a cell
                checked += 1
                assert (own - box[:2]).norm(dim=1).min() < 0.5 * 2**0.5 * 1.1
    assert checked > 10 and turned > 2


def test_the_loss_of_a_batch_counts_labelled_cells_and_reaches_the_images(
    small_recipe: dict, maps: Path
) -> None:
    recipe = recipe_from_dict(content(small_recipe, maps))
    config = recipe.detector_config()
    (objective,) = build_objectives(recipe, config)
    assert isinstance(objective, MapDistillation)
    summaries = prepare_drives(recipe, config)
    dataset = FrameDataset(summaries, recipe.augmentation, recipe.data, readers=objective.needs.readers)
    requests = [FrameRequest(i, 4, (0, 0, 7), 0) for i in range(3)]
    batch = collate([dataset[request] for request in requests])
    detector = build_detector(config, 0)
    inputs = batch.inputs.__class__(**{**vars(batch.inputs), "images": batch.inputs.images.float() / 255})
    prediction = detector(inputs, detector.initial_memory(), with_instances=False)
    losses = objective.losses(prediction, batch)
    assert list(losses) == ["maps/cosine"]
    distances = []
    for features, label in zip(prediction.bev.features, batch.extras[EXTRA], strict=True):
        if label is not None:
            cells = features.flatten(1).T[label.cells]
            distances.append(cosine_distance(objective.distillation_head(cells), label.features))
    assert 1 <= len(distances) < 3
    torch.testing.assert_close(losses["maps/cosine"], 7.0 * torch.cat(distances).mean())
    losses["maps/cosine"].backward()
    for part in (detector.image_backbone, detector.bev_branch.depth_net, detector.bev_branch.encoder):
        assert sum(float(p.grad.abs().sum()) for p in part.parameters() if p.grad is not None) > 0


def test_a_linear_head_learns_a_map_that_is_there(maps: Path) -> None:
    """Features that hold the label up to a linear map: the loss starts near 1 and falls."""
    torch.manual_seed(0)
    label = ramp(GRID, CHANNELS, 0)
    objective = MapDistillation(LabelMaps(maps), 12, 1.0)
    features = torch.zeros(1, 12, 256)
    features[0][:, label.cells] = torch.randn(12, CHANNELS) @ label.features.T
    prediction = Prediction(None, BevPrediction(features.view(1, 12, 16, 16), None))
    target, mask = stacked_labels([label, None], GRID, CHANNELS)
    assert mask.shape == (2, 16, 16) and int(mask.sum()) == len(target) == 128 and not mask[1].any()

    class Batch:
        extras, sources = {EXTRA: [label]}, ("a frame",)

    optimizer = torch.optim.Adam(objective.parameters(), 0.05)
    values = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = objective.losses(prediction, Batch)["maps/cosine"]  # type: ignore[arg-type]
        loss.backward()
        optimizer.step()
        values.append(float(loss.detach()))
    assert values[0] > 0.6 and values[-1] < 0.1


def test_no_weight_no_objective(small_recipe: dict, maps: Path) -> None:
    said: list[str] = []
    recipe = recipe_from_dict(content(small_recipe, maps, weight=0))
    assert build_map_objective(recipe, recipe.detector_config(), said.append) is None
    assert said == ["map_distillation: the weight is 0, label maps aren't read"]
    plain = recipe_from_dict(recipe_of(small_recipe, "dualview-tiny"))
    assert build_map_objective(plain, plain.detector_config(), said.append) is None


def test_what_is_said_and_refused(small_recipe: dict, maps: Path, drives: Path, tmp_path: Path) -> None:
    def build(changes: dict, labels: Path = maps, model: str = "dualview-tiny") -> str:
        said: list[str] = []
        recipe = recipe_from_dict({**content(small_recipe, labels, model), **changes})
        build_map_objective(recipe, recipe.detector_config(), said.append)
        return said[-1]

    assert build({}) == "label maps of 2 of 3 drives, 6 channels; without: drive2.mcap"
    alone = {"data": {**small_recipe["data"], "train": [str(drives / "drive2.mcap")]}}
    with pytest.raises(
        ConfigError, match=r"holds label maps of none of the 1 training drives \(drive2\.mcap\): make"
    ):
        build(alone)
    with pytest.raises(ConfigError, match=r"holds no label maps .*dualview label-maps BAG --out DIR"):
        build({}, tmp_path / "nowhere")
    other = write_maps(tmp_path / "other", [drives / "drive0.mcap"], BevGrid(-32.0, -32.0, 2.0, 32, 32))
    with pytest.raises(
        ConfigError, match=r"another grid \(32 x 32 cells of 2 m .*--half-range 32 --resolution 4"
    ):
        build({}, other)
    blind = {**small_recipe["overrides"], "bev": None, "center_head": None, "decoder.use_bev": False}
    blind = {k: v for k, v in blind.items() if not k.startswith("bev.")}
    decoder = {**small_recipe["overrides"]["decoder"], "use_bev": False}
    blind = {**{k: v for k, v in blind.items() if k != "decoder.use_bev"}, "decoder": decoder}
    with pytest.raises(ConfigError, match="dualview-tiny has no bird's-eye-view map to teach"):
        build({"overrides": blind})
    with pytest.raises(ConfigError, match="weight is -2"):
        build({"map_distillation": {"labels": str(maps), "weight": -2.0}})


def test_maps_of_other_frames_are_named(maps: Path) -> None:
    said: list[str] = []
    objective = MapDistillation(LabelMaps(maps), 4, 7.0, said.append)
    prediction = Prediction(None, BevPrediction(torch.randn(2, 4, 16, 16, requires_grad=True), None))

    class Batch:
        extras, sources = {EXTRA: [None, None]}, ("drive frame 3",)

    for _ in range(60):
        loss = objective.losses(prediction, Batch)["maps/cosine"]  # type: ignore[arg-type]
        assert loss == 0
    loss.backward()
    assert len(said) == 1 and "0 of the first 100 frames have a label map (last: drive frame 3)" in said[0]


def test_an_oracle_refuses_drives_most_of_whose_frames_have_no_map(maps: Path) -> None:
    known = LabelMaps(maps)
    (label,) = known.examples(1)
    half, enough = (
        SimpleNamespace(extras={EXTRA: labels}, sources=("drive frame 3",)) for labels in ([label, None], [label] * 9 + [None])
    )
    for batch, refused in ((half, True), (enough, False)):
        coverage = LabelMapInput(known)._coverage
        for _ in range(49):
            coverage.count(batch)
        with pytest.raises(ConfigError, match=r"50 of the first 100 frames .* empty") if refused else nullcontext():
            coverage.count(batch)


def outputs(weights: Path, drives: Path, rig: Path) -> list:
    """Everything that a detector says of ten frames."""
    session = TrackingSession(load_detector(weights, "cpu", overrides={"score_threshold": 0.0}))
    with BagReader(drives / "drive2.mcap") as bag:
        closed = [c for c in iterate_frames(bag, load_rig(str(rig))) if isinstance(c, ClosedFrame)][:10]
    return [session.process(c).output for c in closed]


def test_inference_is_bit_identical_with_the_head_in_the_file(
    taught: Path, small_recipe: dict, maps: Path, drives: Path, small_rig: Path, tmp_path: Path
) -> None:
    weights = taught / "weights.safetensors"
    head = torch.load(taught / "last.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    prefix = "objectives.0."
    more = {name.removeprefix(prefix): value for name, value in head.items() if name.startswith(prefix)}
    assert sorted(more) == ["distillation_head.bias", "distillation_head.weight"]
    larger = tmp_path / "with_head.safetensors"
    save_file({**load_file(weights), **more}, larger, read_metadata(weights))
    with pytest.warns(UserWarning, match="distillation head of its training.*ignored"):
        theirs = outputs(larger, drives, small_rig)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = outputs(weights, drives, small_rig)
    assert len(ours) == 10 and sum(len(o.tracks) for o in ours) > 0
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a.bev.features, b.bev.features) and torch.equal(a.age, b.age)
        for name, value in vars(a.tracks).items():
            assert torch.equal(value, getattr(b.tracks, name)), name
    fine = content(small_recipe, maps, steps=1, start_from=str(larger))
    with pytest.warns(UserWarning, match="distillation head"):
        quietly(fine, tmp_path / "fine")


def test_a_stopped_run_goes_on_as_if_it_had_not(
    taught: Path, small_recipe: dict, maps: Path, tmp_path: Path
) -> None:
    class Stop(Exception):
        pass

    class StopAfterTwo(pytest.importorskip("lightning").pytorch.Callback):  # type: ignore[misc]
        def on_train_batch_start(self, trainer, module, batch, index) -> None:
            if trainer.global_step == 2:
                raise Stop

    recipe = content(small_recipe, maps, steps=4, checkpoint_every=2)
    with pytest.raises(Stop):
        quietly(recipe, tmp_path / "part", callbacks=(StopAfterTwo(),))
    quietly(recipe, tmp_path / "part", resume=True)
    whole, part = (
        torch.load(folder / "last.ckpt", map_location="cpu", weights_only=True)["state_dict"]
        for folder in (taught, tmp_path / "part")
    )
    assert set(whole) == set(part) and "objectives.0.distillation_head.weight" in whole
    for name, value in whole.items():
        assert torch.equal(value, part[name]), name


def test_colours_come_with_the_weights_and_leave_the_training_alone(
    small_recipe: dict, maps: Path, tmp_path: Path
) -> None:
    """Also without averaged weights, where they are found on the very network that trains."""
    kept = []
    for every in (1, 3):
        recipe = content(small_recipe, maps, "bevdepth-tiny", checkpoint_every=every)
        recipe["optimizer"] = {**recipe["optimizer"], "ema": 0.0}
        result = quietly(recipe, tmp_path / str(every))
        kept.append(load_file(result.weights))
        colors = load_detector(result.weights, "cpu").bev_colors
        assert colors is not None and colors.channels == 8
    for name, value in kept[0].items():
        assert torch.equal(value, kept[1][name]), name


def test_augmented_labels_of_mirrored_axes_are_exact(maps: Path, drives: Path) -> None:
    store = LabelMaps(maps)
    plain = store.dense(drives / "drive0.mcap", START_NS)
    mirrored = store.dense(
        drives / "drive0.mcap", START_NS, BevAugmentation.of(flip_x=True, flip_y=True).matrix
    )
    assert plain is not None and mirrored is not None
    assert torch.equal(mirrored.features, plain.features.flip(1, 2))
