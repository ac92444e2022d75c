"""TiG-BEV's depth network: the matrices that it is told, which branch they gate, and the published sizes."""

import torch

from dualview.networks.bevdet_branch import BevDetBranch, BevDetBranchConfig
from dualview.networks.bevdet_depth_net import CAMERA_MATRIX_NUMBERS, BevDetDepthNet, camera_matrices
from dualview.networks.depth_net import CAMERA_NUMBERS, camera_vector


def test_the_matrices_are_those_of_the_vector() -> None:
    """Intrinsics, image augmentation, and the pose in the world as it was turned, scaled and mirrored."""
    torch.manual_seed(0)
    intrinsics = torch.eye(3).repeat(2, 6, 1, 1)
    intrinsics[..., :2, 2], intrinsics[..., 0, 0], intrinsics[..., 1, 1] = torch.rand(2, 6, 2), 3.0, 4.0
    image = torch.eye(3).repeat(2, 6, 1, 1)
    image[..., :2, :] = torch.rand(2, 6, 2, 3)
    bev = torch.eye(3).repeat(2, 1, 1) * 1.05
    bev[:, :2, :2] = torch.rand(2, 2, 2)
    pose = torch.eye(4).repeat(2, 6, 1, 1)
    pose[..., :3, :] = torch.rand(2, 6, 3, 4)
    found = camera_matrices(camera_vector(intrinsics, pose, image, bev))
    linear = image.clone()
    linear[..., :2, 2] = 0
    shift = torch.cat([image[..., :2, 2], torch.zeros(2, 6, 1)], -1)
    turned = bev[:, None] @ pose[..., :3, :3]
    moved = (bev[:, None] @ pose[..., :3, 3:])[..., 0]
    wanted = torch.cat([intrinsics.flatten(2), linear.flatten(2), shift, turned.flatten(2), moved], -1)
    assert found.shape[-1] == CAMERA_MATRIX_NUMBERS
    torch.testing.assert_close(found, wanted)


def test_the_camera_gates_depth_alone() -> None:
    torch.manual_seed(0)
    net = BevDetDepthNet(16, 8, 12, 5).eval()
    features, camera = torch.randn(2, 16, 4, 6), torch.randn(2, CAMERA_NUMBERS)
    first, second = net(features, camera), net(features, camera.flip(0))
    assert first.logits.shape == (2, 12, 4, 6) and first.context.shape == (2, 5, 4, 6)
    assert torch.equal(first.context, second.context)
    assert (first.logits - second.logits).abs().max() > 1e-3
    torch.testing.assert_close(net(features[:1], camera[:1]).logits, first.logits[:1])


def test_all_parameters_learn() -> None:
    net = BevDetDepthNet(8, 8, 6, 4)
    prediction = net(torch.randn(4, 8, 4, 6), torch.randn(4, CAMERA_NUMBERS))
    (prediction.logits.square().mean() + prediction.context.square().mean()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_published_sizes() -> None:
    """1x1 512 -> 64 and 512 -> 256, one linear layer of 33 numbers, three blocks of 256, DCNv2 with 27 offsets, 59 bins."""
    with torch.device("meta"):
        net = BevDetBranch(BevDetBranchConfig(camera_aware=True, depth_network="bevdet", depth_channels=256), 512).depth_net
    shapes = {name: tuple(p.shape) for name, p in net.named_parameters() if p.dim() > 1}
    assert shapes["context_output.weight"] == (64, 512, 1, 1) and shapes["reduce.weight"] == (256, 512, 1, 1)
    assert shapes["gate.1.weight"] == (256, 33) and shapes["depth_output.weight"] == (59, 256, 1, 1)
    assert shapes["deformable.0.weight"] == (256, 256, 3, 3) and shapes["deformable.0.offset.weight"] == (27, 256, 3, 3)
    assert sum(name.startswith("depth_blocks") and name.endswith("conv1.weight") for name in shapes) == 3
