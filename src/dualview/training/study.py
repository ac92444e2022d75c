"""Studies (ablations): the same drives, budget and seeds for every row; only what the row names differs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from dualview.detectors.json_config import from_dict
from dualview.errors import ConfigError, did_you_mean
from dualview.resources import find_directories
from dualview.training.recipe import Recipe, load_recipe


@dataclass(frozen=True)
class Study:
    """recipe: name or file that all rows start from. changes: laid over it in all rows, by dotted path. rows: name -> further
    changes. baseline: the row that the others are compared with, seed by seed. compare: further pairs (row, other) to compare so,
    such as each part of a method with the row before. seeds: of weights and of the order of clips. metrics: dotted paths into
    metrics.json; "source:NDS" is NDS on the further test set that the command names "source". evaluate: further arguments of
    `dualview evaluate`; evaluate_also: those for one further test set alone, by its name. unchanged: a row that isn't trained: what
    `start_from` is before, the same for every seed.
    """

    recipe: str
    rows: dict
    baseline: str
    changes: dict = field(default_factory=dict)
    compare: tuple[tuple[str, str], ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    metrics: tuple[str, ...] = ("mAP", "NDS", "AMOTA")
    evaluate: tuple[str, ...] = ()
    evaluate_also: dict = field(default_factory=dict)
    unchanged: str | None = None

    def __post_init__(self) -> None:
        named = {
            "baseline": [self.baseline],
            "compare": list(chain(*self.compare)),
            "unchanged": [] if self.unchanged is None else [self.unchanged],
        }
        for key, rows in named.items():
            unknown = [row for row in rows if row not in self.rows]
            if unknown:
                raise ValueError(f"{key} '{unknown[0]}' is none of the rows {', '.join(self.rows)}")
        unasked = [name for name in self.evaluate_also if name not in self.test_sets]
        if unasked:
            raise ValueError(f"evaluate_also names '{unasked[0]}', but no metric is called {unasked[0]}:...")
        if len(set(self.seeds)) != len(self.seeds) or not self.seeds:
            raise ValueError(f"seeds {list(self.seeds)} must name each seed once")

    def only(self, rows: Collection[str]) -> Study:
        """The study with these rows alone, in its own order, and the comparisons among them. Raises ConfigError on
        an unknown row, or one without which the others can't be compared.
        """
        unknown = [row for row in rows if row not in self.rows]
        if unknown:
            raise ConfigError(f"there is no row '{unknown[0]}'; rows are {', '.join(self.rows)}")
        if self.baseline not in rows:
            raise ConfigError(f"rows are compared with '{self.baseline}': name it too")
        return replace(
            self,
            rows={row: changes for row, changes in self.rows.items() if row in rows},
            compare=tuple(pair for pair in self.compare if set(pair) <= set(rows)),
            unchanged=self.unchanged if self.unchanged in rows else None,
        )

    def recipe_of(self, row: str, seed: int, drives: list[str]) -> Recipe:
        """What one run trains: on `drives`, unless its row names others. Raises ConfigError naming a wrong key of the study."""
        changes: dict[str, Any] = {
            "data.train": drives,
            **self.changes,
            **(self.rows[row] or {}),
            "seed": seed,
        }
        return load_recipe(self.recipe, changes)

    @property
    def test_sets(self) -> tuple[str, ...]:
        """Names of the further test sets that the metrics ask for."""
        return tuple(dict.fromkeys(name.partition(":")[0] for name in self.metrics if ":" in name))

    def evaluation(self, test_set: str = "") -> list[str]:
        """Further arguments of `dualview evaluate` for the test drives, or for a further test set."""
        return [*self.evaluate, *map(str, self.evaluate_also.get(test_set, ()))]

    def runs(self) -> list[tuple[str, int]]:
        """(row, seed) of all runs: every row once, then again with the next seed, so that a study that is
        stopped half way can be compared; the unchanged row once alone.
        """
        return [(row, seed) for seed in self.seeds for row in self.rows if self.seed_of(row, seed) == seed]

    def seed_of(self, row: str, seed: int) -> int:
        """The seed of the run that stands for `row` with `seed`: the unchanged row has one run for all."""
        return self.seeds[0] if row == self.unchanged else seed


def known_studies() -> dict[str, Path]:
    """Name -> file of all studies that come with the package."""
    found: dict[str, Path] = {}
    for folder in find_directories("config/studies"):
        for file in sorted(folder.glob("*.yaml")):
            found.setdefault(file.stem, file)
    return found


def load_study(name_or_path: str, changes: Mapping[str, Any] | None = None) -> Study:
    """A study by name or path, with `changes` laid over what all rows share; all its recipes are checked. Raises ConfigError."""
    path = Path(name_or_path).expanduser()
    if not path.is_file():
        studies = known_studies()
        if name_or_path not in studies:
            meant = did_you_mean(name_or_path, studies, f"studies are {', '.join(studies) or 'none'}")
            raise ConfigError(f"there is no study '{name_or_path}', neither a file nor by name: {meant}")
        path = studies[name_or_path]
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} isn't YAML: {error}") from error
    study = from_dict(Study, content, path.name)
    study = replace(study, changes={**study.changes, **(changes or {})})
    for row in study.rows:
        try:
            study.recipe_of(row, study.seeds[0], ["unknown"])
        except ConfigError as error:
            raise ConfigError(f"{path.name}, row '{row}': {error}") from error
    return study
