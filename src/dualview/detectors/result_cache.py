"""What a frozen network, or any fixed computation, makes of an input, kept on disk by the input's content.

Runs of a study ask the same of the same frames again and again: the maps of a frozen backbone, of a LiDAR teacher, corrupted
images. What comes out of the cache is what was computed, bit for bit.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dualview.errors import ConfigError


class ResultCache:
    """Results of one computation in `folder`, a file for each input; several processes may share it."""

    def __init__(self, folder: Path, about: str) -> None:
        """about: all that the results depend on beside the inputs: weights, settings, a version.

        Raises ConfigError if the folder can't be made.
        """
        self._folder = folder / hashlib.blake2b(about.encode(), digest_size=8).hexdigest()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"the cache {folder} can't be made ({error.strerror or error}): name another folder") from error

    def __call__(self, given: Tensor, compute: Callable[[], Sequence[Tensor]], detail: str = "") -> list[Tensor]:
        """`compute()`, or what it said before of `given` and `detail`; on the device of `given`.

        Raises ConfigError if there is no room for a new result.
        """
        name = f"{_digest(given, detail)}.safetensors"
        path = self._folder / name[:2] / name
        try:
            found = load_file(path, device=str(given.device))
            return [found[str(index)] for index in range(len(found))]
        except (OSError, SafetensorError):  # not there, or cut off by a crash of the machine: computed anew
            results = [tensor.detach().contiguous() for tensor in compute()]
        try:
            self._save(path, results)
        except OSError as error:
            raise ConfigError(
                f"the cache {self._folder.parent} can't be written ({error.strerror or error}): make room, or leave the cache out"
            ) from error
        return results

    def _save(self, path: Path, results: list[Tensor]) -> None:
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            save_file({str(index): tensor.cpu() for index, tensor in enumerate(results)}, temporary)
            os.replace(temporary, path)
        except SafetensorError as error:  # how safetensors reports a full disk
            raise OSError(str(error)) from error
        finally:
            temporary.unlink(missing_ok=True)


class CachedNetwork(nn.Module):
    """A frozen network that looks each input up before it computes; parameters and their names are under `network`."""

    def __init__(self, network: nn.Module, folder: Path) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self._cache = ResultCache(folder, f"{network_digest(network, repr(network))} torch {torch.__version__}")

    def forward(self, given: Tensor) -> list[Tensor]:
        """What the network says of one tensor, as a list (one entry where it says one tensor)."""
        kind = given.device.type
        mixed = str(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else "as given"
        found = self._cache(given, lambda: _as_list(self.network(given)), f"{kind} {mixed}")
        if given.dim() == 4 and given.is_contiguous(memory_format=torch.channels_last):  # as the network's own would lie in memory
            return [tensor.contiguous(memory_format=torch.channels_last) for tensor in found]
        return found


def network_digest(network: nn.Module, about: str) -> str:
    """What tells two networks apart, in 16 hexadecimal digits: their weights, and `about` in words."""
    digest = hashlib.sha256(about.encode())
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(_bytes(value))
    return digest.hexdigest()[:16]


def _as_list(said: Tensor | Sequence[Tensor]) -> list[Tensor]:
    return [said] if isinstance(said, Tensor) else list(said)


def _digest(given: Tensor, detail: str) -> str:
    digest = hashlib.blake2b(f"{given.dtype} {list(given.shape)} {detail}".encode(), digest_size=16)
    digest.update(_bytes(given))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
