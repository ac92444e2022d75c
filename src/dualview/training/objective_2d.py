"""Learning from rectangles in the images, as an objective: "2D supervised fine-tuning", section III.

What a sample brings is read here: its images' 2D labels by camera and exposure, the depth inside them, both as the image augmentation
left them. What is made of it is `image_box_loss`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dualview.detectors.bevformer_config import BevFormerDetectorConfig
from dualview.detectors.config import DetectorConfig
from dualview.detectors.detector import Settings
from dualview.detectors.prediction import Prediction
from dualview.errors import ConfigError
from dualview.scene.calibration import CameraCalibration
from dualview.scene.labels_2d.labels import NetworkLabels, network_labels
from dualview.scene.preprocess import ImageMapping
from dualview.supervision.image_box_loss import ImageLayer, image_box_losses
from dualview.supervision.image_box_matching import ImageBoxTruth
from dualview.training.clips import target_slots
from dualview.training.image_truths import image_truth
from dualview.training.label_distance import label_distance
from dualview.training.labels_2d_settings import Labels2DSettings
from dualview.training.labels_2d_store import LabelCache
from dualview.training.objectives import Objective, SampleNeeds
from dualview.training.offline_depth import DepthStores
from dualview.training.recipe import Recipe
from dualview.training.samples import FrameView, TrainingBatch

EXTRA = "labels_2d"


def build_image_box_objective(
    recipe: Recipe, detector: Settings, tell: Callable[[str], None] = lambda line: None
) -> ImageBoxObjective | None:
    """The objective of a recipe's `labels_2d`, None without. Raises ConfigError for a detector without decoder layers, classes that it
    hasn't got, a share that leaves one side without slots, or no recordings at all.
    """
    settings = recipe.labels_2d
    if settings is None:
        return None
    if not isinstance(detector, DetectorConfig | BevFormerDetectorConfig):
        raise ConfigError(
            f"labels_2d: {detector.name} has no decoder whose layers say where boxes are, and 2D labels teach nothing else: fine-tune a "
            "DualView, Sparse4D or BEVFormer detector, or leave labels_2d out"
        )
    strange = sorted(set(settings.classes or ()) - set(detector.class_names))
    if strange:
        raise ConfigError(
            f"labels_2d.classes names {', '.join(strange)}, which {detector.name} doesn't know: its classes are "
            f"{', '.join(detector.class_names)}; a rig's class_map renames those of the labels"
        )
    if not settings.train and not settings.on_source:
        raise ConfigError(
            "labels_2d names no recordings: set labels_2d.train (target=PATH on the command line), or labels_2d.on_source: true to use "
            "the 2D labels of data.train"
        )
    if settings.train and recipe.data.train:
        target_slots(settings.share, recipe.batch_size * recipe.devices * recipe.nodes)
    if settings.train and recipe.start_from is None:
        tell(
            "labels_2d fine-tunes, but there is no start_from: the detector starts from random weights, which rectangles alone teach "
            "little (start_from=WEIGHTS)"
        )
    decoder = detector.decoder
    repeats: tuple[int, ...] = ()
    if decoder is not None:
        repeats = (recipe.losses.one_to_many,) * decoder.num_single_frame_layers
    return ImageBoxObjective(settings, detector.class_names, detector.image_size, recipe.data.max_range, repeats)


class ImageTruthReader:
    """Reads what 2D labels say of a sample: for each camera an `ImageBoxTruth`, None where that image isn't labelled or is masked; None
    for a recording whose 2D labels aren't used. What lies beyond max_range (m) is ignored, not background. Raises BagError for files that
    are damaged.
    """

    def __init__(
        self,
        settings: Labels2DSettings,
        class_names: tuple[str, ...],
        image_size: tuple[int, int],
        max_range: float,
    ) -> None:
        self._settings, self._class_names, self._image_size = settings, class_names, image_size
        self._max_range = max_range
        self._heights = torch.tensor([settings.class_heights.get(name, torch.nan) for name in class_names])
        self._labels = LabelCache()
        self._depth = DepthStores(settings)
        self._looked_for = None
        if settings.classes is not None:
            self._looked_for = torch.tensor([name in settings.classes for name in class_names])

    def __call__(self, view: FrameView) -> list[ImageBoxTruth | None] | None:
        """The truths of one sample."""
        drive, frame = view.drive, view.labelled.frame
        if drive.labels_2d is None:
            return None
        stored = self._labels(drive.folder / drive.labels_2d)
        names = frame.camera_names
        assert names is not None  # stored drives name their cameras
        truths: list[ImageBoxTruth | None] = []
        for index, camera in enumerate(names):
            stamp = int(frame.camera_stamps_ns[index])
            found, calibration = stored.labels.get(camera, {}).get(stamp), stored.calibrations.get(camera)
            if found is None or calibration is None or not view.inputs.camera_mask[0, index]:
                truths.append(None)
                continue
            labels = network_labels(
                found, self._class_names, calibration, self._image_size, self._settings.min_score
            )
            boxes = np.array([found[i].box for i in labels.source.tolist()], np.float64).reshape(-1, 4)
            depth = self._box_depth(
                drive.source, camera, stamp, boxes, (calibration.height, calibration.width)
            )
            beyond = self._beyond(labels, depth, calibration)
            matrix = view.draw.image.augmented_from_original
            delay = (stamp - frame.stamp_ns) * 1e-9
            truths.append(
                image_truth(labels, depth, matrix, self._image_size, self._looked_for, beyond, delay=delay)
            )
        return truths

    def _beyond(self, labels: NetworkLabels, depth: Tensor, calibration: CameraCalibration) -> Tensor:
        """bool [n]: objects farther away than those that the 3D losses take."""
        mapping = ImageMapping.covering((calibration.height, calibration.width), self._image_size)
        distance = label_distance(
            labels.rectangles,
            self._heights[labels.labels],
            depth,
            torch.from_numpy(mapping.intrinsics(calibration)),
            self._image_size[0],
        )
        return distance > self._max_range

    def _box_depth(
        self, recording: str, camera: str, stamp_ns: int, boxes: np.ndarray, image_size: tuple[int, int]
    ) -> Tensor:
        """Depth [n] (m, NaN = not known) of boxes [n, 4] of the recorded image."""
        if self._settings.depth is None or not len(boxes):
            return torch.full((len(boxes),), torch.nan)
        return torch.from_numpy(
            self._depth(recording).box_depth(camera, stamp_ns, boxes, image_size, self._settings.metric)
        ).float()


class ImageBoxObjective(Objective):
    """The 2D losses of all decoder layers, on the samples that have 2D labels; terms "image{layer}/class|box|giou"."""

    def __init__(
        self,
        settings: Labels2DSettings,
        class_names: tuple[str, ...],
        image_size: tuple[int, int],
        max_range: float,
        repeats: tuple[int, ...] = (),
    ) -> None:
        """max_range: m, beyond which labels count no more. repeats: of the first layers, how many instances the 3D losses let answer
        for one object."""
        super().__init__()
        self._settings, self._repeats = settings, repeats
        self._reader = ImageTruthReader(settings, class_names, image_size, max_range)

    @property
    def needs(self) -> SampleNeeds:
        """The truths of every image."""
        return SampleNeeds(readers=((EXTRA, self._reader),))

    def losses(self, prediction: Prediction, batch: TrainingBatch) -> dict[str, Tensor]:
        """Weighted terms; none while the decoder rests."""
        if prediction.decoder is None:
            return {}
        inputs = batch.inputs
        cameras = inputs.image_from_working.shape[1]
        found: list[Any] = batch.extras[EXTRA]
        truths = [sample if sample is not None else [None] * cameras for sample in found]
        layers = [ImageLayer.of_refined(layer) for layer in prediction.decoder.layers]
        terms, _ = image_box_losses(
            layers, inputs.image_from_working, inputs.image_size, truths, self._settings.loss, self._repeats
        )
        return {name: value * self._settings.weight for name, value in terms.items()}
