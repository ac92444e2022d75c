import torch

from dualview.networks.refinement import Refinement

DIMS = 8


def example(**options) -> tuple[Refinement, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    features, embedding = torch.randn(2, 2, 5, DIMS)
    return Refinement(DIMS, 3, **options), features, torch.randn(2, 5, 11), embedding


def test_velocity_residual_is_a_displacement() -> None:
    module, features, anchors, embedding = example()
    slow = module(features, anchors, embedding, torch.tensor([1.0, 2.0])).anchors
    fast = module(features, anchors, embedding, 0.5).anchors
    torch.testing.assert_close(slow[..., :8], fast[..., :8])
    change = (slow - anchors)[..., 8:10] * torch.tensor([1.0, 2.0]).view(2, 1, 1)
    torch.testing.assert_close(change, (fast - anchors)[..., 8:10] * 0.5)


def test_vertical_velocity_is_zero_unless_free() -> None:
    module, *arguments = example()
    assert not module(*arguments, 0.5).anchors[..., 10].any()
    free, *arguments = example(free_vertical_velocity=True)
    assert free(*arguments, 0.5).anchors[..., 10].all()


def test_classes_come_from_the_feature_alone() -> None:
    module, features, anchors, embedding = example()
    first, second = (module(features, anchors, embedding + shift, 0.5) for shift in (0.0, 1.0))
    assert torch.equal(first.class_logits, second.class_logits)
    assert not torch.allclose(first.anchors, second.anchors) and not torch.allclose(
        first.quality, second.quality
    )


def test_starts_out_believing_in_nothing() -> None:
    module, features, anchors, embedding = example()
    module.classes[-1].weight.data.zero_()
    torch.testing.assert_close(
        module(features, anchors, embedding, 0.5).class_logits.sigmoid(), torch.full((2, 5, 3), 0.01)
    )
    assert module(features, anchors, embedding, 0.5, with_classes=False).class_logits is None


def test_yaw_may_be_normalised() -> None:
    module, *arguments = example(normalize_yaw=True)
    heading = module(*arguments, 0.5).anchors[..., 6:8]
    torch.testing.assert_close(heading.norm(dim=-1), torch.ones(2, 5))
