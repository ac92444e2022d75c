"""What comes out of the cache is what was computed."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dualview.detectors.result_cache import CachedNetwork, ResultCache
from dualview.errors import ConfigError


class Counted(nn.Module):
    """A network that counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 8, 3, padding=1)
        self.asked = 0

    def forward(self, image: Tensor) -> list[Tensor]:
        self.asked += 1
        fine = self.layer(image)
        return [fine, fine[..., ::2, ::2]]


def image(seed: int) -> Tensor:
    drawn = torch.rand(2, 3, 8, 10, generator=torch.Generator().manual_seed(seed))
    return drawn.contiguous(memory_format=torch.channels_last)


def test_an_image_is_computed_once_and_comes_back_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Counted()
    cached = CachedNetwork(network, tmp_path)
    expected = {seed: [m.clone() for m in network(image(seed))] for seed in (1, 2)}
    network.asked = 0
    for seed in (1, 2, 1, 2):
        found = cached(image(seed))
        assert all(torch.equal(a, b) for a, b in zip(found, expected[seed], strict=True))
        assert all(m.is_contiguous(memory_format=torch.channels_last) for m in found)
    assert network.asked == 2
    later = CachedNetwork(network, tmp_path)  # another process
    assert torch.equal(later(image(1))[0], expected[1][0]) and network.asked == 2


def test_other_weights_precision_and_shapes_are_other_results(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Counted()
    first = CachedNetwork(network, tmp_path)(image(1))[0].clone()
    with torch.autocast("cpu", torch.bfloat16):
        assert CachedNetwork(network, tmp_path)(image(1))[0].dtype == torch.bfloat16
    with torch.no_grad():
        network.layer.weight += 0.1
    assert not torch.equal(CachedNetwork(network, tmp_path)(image(1))[0], first)
    assert network.asked == 3
    cache = ResultCache(tmp_path, "flattening")
    assert cache(torch.zeros(2, 3), lambda: [torch.tensor(1)]) == [torch.tensor(1)]
    assert cache(torch.zeros(3, 2), lambda: [torch.tensor(2)]) == [torch.tensor(2)]
    assert cache(torch.zeros(2, 3), lambda: [torch.tensor(3)], "otherwise") == [torch.tensor(3)]


def test_half_a_file_is_computed_anew(tmp_path: Path) -> None:
    network = Counted()
    cached = CachedNetwork(network, tmp_path)
    expected = cached(image(1))[0].clone()
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(cached(image(1))[0], expected) and network.asked == 2
    assert torch.equal(cached(image(1))[0], expected) and network.asked == 2
    assert not list(tmp_path.rglob("*.partial"))


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="name another folder"):
        ResultCache(tmp_path / "file", "anything")
