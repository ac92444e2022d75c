"""Samples a second of the loader alone, beside what training takes from it.

    python tools/loader_speed.py dualview_tiny [KEY=VALUE…] --bags DRIVES [--batches 40] [--losses runs/…/losses.csv]

Reads the drives as training does (index, clips, augmentation, worker processes), but only looks at the batches. Training's own rate is
in the `frames_per_second` column of a run's losses.csv, over all its processes.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from dualview.training.data_module import StreamingData
from dualview.training.labelled_drives import training_drives
from dualview.training.recipe import load_recipe, parse_changes


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--bags", nargs="+", required=True)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--losses", type=Path, help="losses.csv of a run, for comparison")
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe, {"data.train": arguments.bags, **parse_changes(arguments.changes)})
    config = recipe.detector_config()
    batches = iter(StreamingData(recipe, config, training_drives(recipe, config)).train_dataloader())
    next(batches)  # the workers have started
    begin = time.perf_counter()
    count = sum(len(batch.truths) for batch in islice(batches, arguments.batches))
    rate = count / (time.perf_counter() - begin)
    print(f"loader alone, one process with {recipe.data.workers} worker(s): {rate:.1f} samples/s over {count} samples")
    if arguments.losses is not None:
        with arguments.losses.open() as file:
            rates = sorted(float(row["frames_per_second"]) for row in csv.DictReader(file))
        print(f"training, all its processes: {rates[len(rates) // 2]:.2f} samples/s (median of {len(rates)} entries)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
