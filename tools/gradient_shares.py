"""How hard each loss term of a recipe pulls: the norm of its gradient at the BEV map and on the parameters, beside detection's.

    python tools/gradient_shares.py bevdet_tiny_rayd3d [KEY=VALUE…] --bags DRIVES [--every 20] --out DIR

Trains the recipe in DIR as `dualview train` does and prints the means over every 20th step. Two numbers tell what to do with a term's
weight: at the map, how much it asks of the features that the heads read; on the parameters, how much of the clipped gradient it takes.
`start_from=RUN/weights.safetensors steps=40` looks at a trained detector in the place of one that learns from nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from dualview.errors import DualViewError
from dualview.training.lightning import lightning
from dualview.training.recipe import load_recipe, parse_changes
from dualview.training.trainer import train

_TAUGHT = ("tig/", "ray/", "response", "maps/", "image")  # how terms of objectives begin; all others are detection's


class GradientShares(lightning().Callback):  # type: ignore[misc]
    """Collects, every `every` steps, value and gradient norms of each term and of detection's terms together."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.rows: dict[str, list[tuple[float, float, float]]] = defaultdict(list)

    def on_before_backward(self, trainer: Any, module: Any, loss: Tensor) -> None:
        """Before the step's own backward pass, whose graph stays."""
        if trainer.global_step % self.every:
            return
        terms = dict(module.last_terms)
        detection = [v for name, v in terms.items() if not name.startswith(_TAUGHT)]
        terms["all of detection's"] = torch.stack(detection).sum()
        prediction = module.last_prediction
        features = None if prediction.bev is None else prediction.bev.features
        parameters = [p for p in module.detector.parameters() if p.requires_grad]
        for name, value in terms.items():
            if value.requires_grad:
                at_map = 0.0 if features is None else _norm(value, [features])
                self.rows[name].append((float(value.detach()), at_map, _norm(value, parameters)))


def _norm(value: Tensor, inputs: list[Tensor]) -> float:
    found = torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True)
    squares = [g.float().square().sum() for g in found if g is not None]
    return float(torch.stack(squares).sum().sqrt()) if squares else 0.0


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--bags", nargs="+", required=True)
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True, help="folder of the training run")
    arguments = parser.parse_args(given)
    recipe = load_recipe(arguments.recipe, {"data.train": arguments.bags, **parse_changes(arguments.changes)})
    shares = GradientShares(max(arguments.every, 1))
    train(recipe, arguments.out, callbacks=(shares,))
    print("| term | value | gradient at the map | on the parameters |\n|---|---|---|---|")
    for name, rows in sorted(shares.rows.items(), key=lambda item: -item[1][-1][2]):
        value, at_map, on_parameters = torch.tensor(rows).mean(0).tolist()
        print(f"| {name} | {value:.3g} | {at_map:.3g} | {on_parameters:.3g} |")
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except DualViewError as error:
        raise SystemExit(f"error: {error}") from None
