"""Depth network: the camera's numbers, the light form, and independence of images from each other."""

import pytest
import torch

from dualview.networks.bevdet_depth_net import BevDetDepthNet
from dualview.networks.depth_net import CAMERA_NUMBERS, DepthNet, camera_vector


def test_camera_vector_order():
    intrinsics = torch.tensor([[1.0, 0, 3], [0, 2, 4], [0, 0, 1]]).view(1, 1, 3, 3)
    image = torch.tensor([[5.0, 6, 7], [8, 9, 10], [0, 0, 1]]).view(1, 1, 3, 3)
    bev = torch.tensor([[11.0, 12, 0], [13, 14, 0], [0, 0, 15]]).view(1, 3, 3)
    ego_from_camera = torch.eye(4).view(1, 1, 4, 4).clone()
    ego_from_camera[0, 0, :3] = torch.arange(16.0, 28.0).view(3, 4)
    assert camera_vector(intrinsics, ego_from_camera, image, bev).flatten().tolist() == list(
        range(1, CAMERA_NUMBERS + 1)
    )
    plain = camera_vector(intrinsics, ego_from_camera).flatten()
    assert plain[4:15].tolist() == [1, 0, 0, 0, 1, 0, 1, 0, 0, 1, 1]


def test_light_form():
    net = DepthNet(16, 8, 12, 5, blocks=1, pooled_context=False, deformable=False).eval()
    prediction = net(torch.randn(3, 16, 4, 6), torch.randn(3, CAMERA_NUMBERS))
    assert prediction.logits.shape == (3, 12, 4, 6) and prediction.context.shape == (3, 5, 4, 6)
    assert torch.allclose(prediction.probability().sum(1), torch.ones(3, 4, 6))


def test_camera_numbers_matter_and_images_do_not_mix():
    torch.manual_seed(0)
    net = DepthNet(16, 16, 12, 5, blocks=1).eval()
    features, camera = torch.randn(2, 16, 4, 6), torch.randn(2, CAMERA_NUMBERS)
    both = net(features, camera)
    alone = net(features[:1], camera[:1])
    assert torch.allclose(both.logits[:1], alone.logits, atol=1e-5)
    assert not torch.allclose(net(features, camera.flip(0)).logits, both.logits, atol=1e-3)


def test_all_parameters_learn():
    net = DepthNet(8, 8, 6, 4)
    prediction = net(torch.randn(4, 8, 4, 6), torch.randn(4, CAMERA_NUMBERS))
    (prediction.logits.square().mean() + prediction.context.square().mean()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.parametrize("kind", [DepthNet, BevDetDepthNet])
def test_half_precision_learns_the_same_statistics_of_cameras(kind):
    """Focal lengths that all cameras share and that half precision can't hold, as of a rig of equal cameras."""
    torch.manual_seed(0)
    net = kind(8, 8, 6, 4)
    features, camera = torch.randn(6, 8, 4, 6), torch.randn(6, CAMERA_NUMBERS)
    camera[:, 0] = camera[:, 1] = 457.3
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(60):
            net(features, camera)
    net.eval()
    whole = net(features, camera).logits
    with torch.autocast("cpu", torch.bfloat16):
        half = net(features, camera).logits
    torch.testing.assert_close(half.float(), whole, atol=0.05, rtol=0.05)
    norm = net.camera_norm if kind is DepthNet else net.gate[0]
    focal = norm.running_mean[0]
    assert abs(float(focal) - 457.3) < 1.0  # 0.9 ** 60 of where it began is left


@pytest.mark.parametrize("kind", [DepthNet, BevDetDepthNet])
def test_one_image_teaches(kind):
    """A vehicle with one camera and a batch of one."""
    net = kind(8, 8, 6, 4)
    prediction = net(torch.randn(1, 8, 4, 6), torch.randn(1, CAMERA_NUMBERS))
    (prediction.logits.square().mean() + prediction.context.square().mean()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
    assert all(b.isfinite().all() for b in net.buffers())
