"""Res2Fusion and Res2 stages: what each moment reaches, shapes, and that all of it learns."""

import pytest
import torch

from dualview.networks.fold_norms import fold_batch_norms
from dualview.networks.res2_stages import Res2Block, Res2Stages
from dualview.networks.temporal_bev_fusion import Res2Fusion


def shaken(network: torch.nn.Module) -> torch.nn.Module:
    """Evaluation mode with statistics that aren't zero and one."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
    return network.eval()


def test_the_older_a_moment_the_wider_it_reaches() -> None:
    torch.manual_seed(0)
    fusion = shaken(Res2Fusion(8, 6, 3))
    maps = torch.randn(1, 6, 8, 11, 11)
    with torch.no_grad():
        whole = fusion(maps)
        for moment, reach in enumerate((0, 0, 1, 1, 2, 2)):
            changed = maps.clone()
            changed[0, moment, :, 5, 5] += 3.0
            touched = (fusion(changed) - whole).abs().amax((0, 1)) > 1e-7
            rows, columns = touched.nonzero(as_tuple=True)
            spread = max((rows - 5).abs().max(), (columns - 5).abs().max())
            assert int(spread) == reach, f"moment {moment} reaches {int(spread)} cells"


def test_an_added_fusion_begins_as_nothing_and_learns() -> None:
    torch.manual_seed(0)
    fusion, maps = Res2Fusion(16, 2, 2, added=True), torch.randn(2, 2, 16, 12, 10)
    assert torch.equal(fusion(maps), maps[:, 0])
    optimizer = torch.optim.SGD(fusion.parameters(), 0.1)
    for _ in range(2):  # the second step reaches what lies before the layer of zeros
        before = {name: value.clone() for name, value in fusion.named_parameters()}
        fusion(maps).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert all(not torch.equal(value, before[name]) for name, value in fusion.named_parameters())


def test_shapes_gradients_and_folding() -> None:
    torch.manual_seed(0)
    fusion, stages = Res2Fusion(16, 9), Res2Stages(16, (32, 64), (1, 2), (2, 1))
    maps = torch.randn(2, 9, 16, 12, 10)
    fused = fusion(maps)
    fine, coarse = stages(fused)
    assert fused.shape == (2, 16, 12, 10) and fine.shape == (2, 32, 12, 10) and coarse.shape == (2, 64, 6, 5)
    (fine.square().mean() + coarse.square().mean()).backward()
    for name, parameter in [*fusion.named_parameters(), *stages.named_parameters()]:
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    both = shaken(torch.nn.Sequential(fusion, stages))
    with torch.no_grad():
        for folded, plain in zip(fold_batch_norms(both)(maps), both(maps), strict=True):
            assert torch.allclose(folded, plain, atol=1e-5)


def test_what_can_not_be_cut_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of the groups"):
        Res2Fusion(16, 4, 3)
    with pytest.raises(ValueError, match="multiple of 8"):
        Res2Block(16, 4)
