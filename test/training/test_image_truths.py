"""2D labels follow the image augmentation, and what it cuts away is ignored, not background."""

import math

import numpy as np
import torch

from dualview.scene.augmentation.image import ImageAugmentation
from dualview.scene.labels_2d.labels import NetworkLabels
from dualview.training.image_truths import image_truth, move_rectangles

SIZE = (64, 160)


def labels() -> NetworkLabels:
    return NetworkLabels(
        torch.tensor([[20.0, 10, 40, 30], [100.0, 30, 110, 60], [158.0, 20, 160, 21]]), torch.tensor([1, 0, 2]),
        torch.arange(3), torch.tensor([[0.0, 0, 10, 10]]),
    )  # fmt: skip


def test_no_augmentation_leaves_all_but_specks() -> None:
    truth = image_truth(labels(), torch.tensor([9.0, math.nan, 4.0]), torch.eye(3), SIZE)
    assert truth.rectangles.tolist() == [[20, 10, 40, 30], [100, 30, 110, 60], [158, 20, 160, 21]]
    assert truth.labels.tolist() == [1, 0, 2] and truth.depth[0] == 9 and truth.depth[1].isnan()
    assert truth.ignored.tolist() == [[0, 0, 10, 10]]
    halved = torch.tensor([[0.5, 0, 0], [0, 0.5, 0], [0, 0, 1.0]])
    assert image_truth(labels(), torch.zeros(3), halved, SIZE).labels.tolist() == [1, 0], (
        "half a pixel is no label"
    )


def test_doubtful_labels_are_ignored() -> None:
    truth = image_truth(
        labels(), torch.tensor([9.0, 8, 4]), torch.eye(3), SIZE, doubtful=torch.tensor([True, False, False])
    )
    assert truth.labels.tolist() == [0, 2] and truth.depth.tolist() == [8, 4]
    assert truth.ignored.tolist() == [[0, 0, 10, 10], [20, 10, 40, 30]]


def test_mirrored_zoomed_and_cut() -> None:
    """Twice the size around x = 30, mirrored: u' = 160 - 2 (u + 10), v' = 2 v - 20."""
    matrix = torch.tensor([[-2.0, 0, 140], [0, 2.0, -20], [0, 0, 1]])
    truth = image_truth(labels(), torch.tensor([9.0, 20, 4]), matrix, SIZE)
    assert truth.rectangles.tolist() == [[60, 0, 100, 40]] and truth.depth.tolist() == [9.0]
    assert truth.ignored.tolist() == [], "what left the image altogether is neither"
    up = torch.tensor([[1.0, 0, 0], [0, 1, -26], [0, 0, 1]])
    cut = image_truth(labels(), torch.zeros(3), up, SIZE)
    assert cut.labels.tolist() == [1, 0] and [20, 0, 40, 4] in cut.rectangles.tolist(), (
        "a fifth of it is left"
    )
    up[1, 2] = -27.0
    cut = image_truth(labels(), torch.zeros(3), up, SIZE)
    assert cut.labels.tolist() == [0] and cut.ignored.tolist() == [[20, 0, 40, 3]]


def test_rectangles_move_as_the_pixels_of_the_augmentation() -> None:
    augmentation = ImageAugmentation.identity()
    assert torch.allclose(
        move_rectangles(labels().rectangles, augmentation.augmented_from_original), labels().rectangles
    )
    angle = np.radians(90)
    turn = torch.tensor([[np.cos(angle), -np.sin(angle), 64], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    assert torch.allclose(
        move_rectangles(torch.tensor([[10.0, 20, 30, 25]]), turn), torch.tensor([[39.0, 10, 44, 30]])
    )
