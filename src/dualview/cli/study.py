"""Run an ablation: every row of a study with every seed, on the same drives, scored on others; then its table.

Example: dualview study views --train drives/train --test drives/test --out studies/views --jobs 2
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

HELP = "run an ablation and write its table"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("study", help="a study's name in config/studies, or a YAML file")
    parser.add_argument("--train", nargs="+", metavar="BAG", required=True, help="drives to train on")
    parser.add_argument("--test", nargs="+", metavar="BAG", required=True, help="other drives, to score")
    parser.add_argument(
        "--also", action="append", default=[], metavar="NAME=BAGS",
        help="a further test set, a folder or pattern, for metrics called NAME:... (repeatable); only the set called transductive may hold "
        "drives whose 2D labels were used",
    )  # fmt: skip
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="change a key of the recipe in all rows, such as start_from=WEIGHTS or target=BAGS (repeatable)",
    )  # fmt: skip
    parser.add_argument(
        "--rows", nargs="+", metavar="ROW", help="these rows of the study alone, its baseline among them (default: all)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the study (default: studies/<study>)"
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time (default 1)")


def run(arguments: argparse.Namespace) -> int:
    """Check the study, run what is missing, print and write the table."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from tqdm import tqdm

    from dualview.errors import ConfigError
    from dualview.training.bag_index import find_recordings
    from dualview.training.recipe import parse_changes
    from dualview.training.study import load_study
    from dualview.training.study_folder import StudyFolder, read_scores
    from dualview.training.study_run import run_study
    from dualview.training.study_table import study_table

    if arguments.jobs < 1:
        raise ConfigError(f"--jobs must be at least 1, got {arguments.jobs}")
    study = load_study(arguments.study, parse_changes(arguments.set))
    if arguments.rows:
        study = study.only(arguments.rows)
    folder = arguments.out or Path("studies") / Path(arguments.study).stem
    train, test = ([str(p) for p in find_recordings(bags)] for bags in (arguments.train, arguments.test))
    also: dict[str, list[str]] = {}
    for given in arguments.also:
        name, sign, pattern = given.partition("=")
        if not (name and sign and pattern):
            raise ConfigError(f"--also '{given}' isn't NAME=BAGS, such as source=drives/city1_test")
        also[name] = [*also.get(name, []), *(str(p) for p in find_recordings([pattern]))]

    def tell(line: str) -> None:
        bar.write(line)
        sys.stdout.flush()
        scores = read_scores(study, StudyFolder(folder))
        table = study_table(scores, study.baseline, study.metrics, study.compare)
        (folder / "table.md").write_text(table, encoding="utf-8")

    def show(made: int, of: int, at: str) -> None:
        if bar.total is None:
            bar.total, bar.initial = of, made  # what was made before says nothing of the time that is left
        bar.n = made
        bar.set_postfix_str(at)

    # What it started ends with it, in order.
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    with tqdm(unit="step", disable=None) as bar:
        try:
            run_study(study, folder, train, test, arguments.jobs, tell, also, None if bar.disable else show)
        except KeyboardInterrupt:
            bar.write("stopped: the same command goes on")
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    print((folder / "table.md").read_text(encoding="utf-8"), end="")
    return 0
