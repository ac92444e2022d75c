"""BEV encoder: sizes in and out."""

import pytest
import torch

from dualview.networks.bev_encoder import BevEncoder


@pytest.mark.parametrize("strides", [(1, 2, 2), (2, 2, 2)])
@pytest.mark.parametrize("size", [(16, 16), (20, 12), (15, 17)])
def test_output_has_the_size_of_the_input(strides, size):
    encoder = BevEncoder(6, 5, (8, 8, 8), strides, (1, 1, 1), preprocess_blocks=1).eval()
    assert encoder(torch.randn(2, 6, *size)).shape == (2, 5, *size)


def test_no_preprocessing():
    encoder = BevEncoder(6, 5, (4, 8), (1, 2), (1, 1), preprocess_blocks=0)
    assert encoder.preprocess is None and encoder(torch.randn(2, 6, 8, 8)).shape == (2, 5, 8, 8)
