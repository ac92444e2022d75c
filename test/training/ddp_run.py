"""Steps of a recipe, without dropout and with fixed batch statistics; the gradients go to a file. Run by
test_distributed.py. With "poison" in the place of the file, the second process's second batch isn't of numbers (test_faults.py).
"""

import sys
from pathlib import Path

import torch

from dualview.training.lightning import lightning
from dualview.training.recipe import load_recipe, parse_changes
from dualview.training.trainer import train


class Gradients(lightning().Callback):
    def __init__(self, path: Path) -> None:
        self.path, self.steps = path, []

    def on_train_batch_start(self, trainer, module, batch, index) -> None:
        for part in module.detector.modules():
            if isinstance(part, torch.nn.modules.batchnorm._BatchNorm | torch.nn.Dropout):
                part.eval()
            for name in ("dropout", "point_dropout", "attention_dropout"):
                if isinstance(getattr(part, name, None), float):
                    setattr(part, name, 0.0)

    def on_before_optimizer_step(self, trainer, module, optimizer) -> None:
        named = module.detector.named_parameters()
        self.steps.append({name: p.grad.clone() for name, p in named if p.grad is not None})

    def on_train_end(self, trainer, module) -> None:
        if trainer.is_global_zero:
            torch.save(self.steps, self.path)


class PoisonedProcess(lightning().Callback):
    def on_train_batch_start(self, trainer, module, batch, index) -> None:
        if trainer.global_rank == 1 and module.batches_seen == 1:
            batch.inputs.intrinsics[:] = float("nan")


if __name__ == "__main__":
    torch.set_num_threads(1)
    recipe, folder, path, *changes = sys.argv[1:]
    train(
        load_recipe(recipe, parse_changes(changes)),
        Path(folder),
        callbacks=(PoisonedProcess() if path == "poison" else Gradients(Path(path)),),
        progress_bar=False,
    )
