"""What happens beside the training steps: logs that survive a kill, checkpoints that are whole or not there,
pictures.
"""

from __future__ import annotations

import contextlib
import csv
import os
import time
from pathlib import Path
from typing import Any

from dualview.detectors.checkpoint import save_checkpoint
from dualview.errors import DualViewError
from dualview.training.lightning import lightning
from dualview.training.map_colors import colors_of_batch
from dualview.training.recipe import Recipe
from dualview.training.samples import TrainingBatch
from dualview.training.write_errors import CheckpointError, reason_not_written

LAST = "last.ckpt"
WEIGHTS = "weights.safetensors"


class LossLog(lightning().Callback):  # type: ignore[misc]
    """`losses.csv`: one line every `log_every` steps, flushed at once, and the same numbers for TensorBoard.

    Losses are those of the first process's last batch. A run that goes on keeps the lines up to its checkpoint and
    drops the later ones, which it will write again.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self._path, self._every = folder / "losses.csv", every
        self._columns: list[str] = []
        self._began = time.perf_counter()
        self._logged_step = 0

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Drop lines of steps that will be made again."""
        self._began, self._logged_step = time.perf_counter(), trainer.global_step
        if trainer.is_global_zero and self._path.is_file():
            with self._path.open(newline="") as file:
                rows = list(csv.DictReader(file))
            self._columns = list(rows[0]) if rows else []
            whole = [row for row in rows if None not in row.values()]  # a full disk cuts off the last one
            kept = [row for row in whole if row.get("step") and int(row["step"]) <= trainer.global_step]
            self._write_all(kept)

    def on_train_batch_end(self, trainer: Any, module: Any, *unused: Any) -> None:
        """Write a line if it is time."""
        step = trainer.global_step
        if step == self._logged_step or step % self._every:
            return
        elapsed = time.perf_counter() - self._began
        speed = (
            (step - self._logged_step)
            * module.recipe.batch_size
            * module.recipe.accumulate
            / max(elapsed, 1e-9)
        )
        self._began, self._logged_step = time.perf_counter(), step
        values = {"step": step, "frames_per_second": round(speed * trainer.world_size, 3)}
        values |= {"learning_rate": trainer.optimizers[0].param_groups[-1]["lr"], **module.last_losses}
        for logger in trainer.loggers:
            logger.log_metrics({name: value for name, value in values.items() if name != "step"}, step)
        if trainer.is_global_zero:
            self._write(values)

    def _write(self, values: dict[str, Any]) -> None:
        if set(values) - set(self._columns):  # a term that wasn't there before: the table gets a column
            with contextlib.suppress(FileNotFoundError), self._path.open(newline="") as file:
                rows = list(csv.DictReader(file))
            self._columns += [name for name in values if name not in self._columns]
            self._write_all(rows if self._path.is_file() else [])
        with self._path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns, restval="").writerow(
                {k: _exact(v) for k, v in values.items()}
            )

    def _write_all(self, rows: list[dict[str, Any]]) -> None:
        temporary = self._path.with_suffix(".partial")
        with temporary.open("w", newline="") as file:
            if self._columns:
                writer = csv.DictWriter(file, self._columns, restval="")
                writer.writeheader()
                writer.writerows(rows)
        os.replace(temporary, self._path)


def _exact(value: Any) -> Any:
    return repr(value) if isinstance(value, float) else value


class Checkpoints(lightning().Callback):  # type: ignore[misc]
    """`last.ckpt` (everything, to go on) and `weights.safetensors` (the detector, to use) every so many steps
    and at the end.

    Files get their name only when they are complete and on the disk; a full disk stops the run with a
    sentence and leaves the former checkpoint as it was. With `keep_every`, the weights of these steps stay
    under their number.
    """

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self._folder, self._recipe = folder, recipe
        self._saved_step = -1
        self._batch: TrainingBatch | None = None

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Nothing to save before the first new step."""
        self._saved_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: TrainingBatch, index: int
    ) -> None:
        """Save if it is time, or the run is about to stop here."""
        self._batch = batch
        if trainer.global_step % self._recipe.checkpoint_every == 0 or trainer.should_stop:
            self.save(trainer, module)

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Save the last step."""
        self.save(trainer, module)

    def save(self, trainer: Any, module: Any) -> None:
        """Write both files, if this step isn't saved already. Raises CheckpointError."""
        step = trainer.global_step
        if step == self._saved_step:
            return
        temporary = self._folder / f".{LAST}.partial"
        with _named_write_errors(self._folder, step, (temporary, self._folder / f".{WEIGHTS}.partial")):
            trainer.save_checkpoint(temporary)  # on every process: it gathers what their slots remember
            if trainer.is_global_zero:
                # The weights first: a run whose last.ckpt says that it is done has them.
                self.save_weights(module, self._folder / WEIGHTS, step)
                _put_in_place(temporary, self._folder / LAST)
                if self._recipe.keep_every and step % self._recipe.keep_every == 0:
                    self.save_weights(module, self._folder / f"weights-{step}.safetensors", step)
        trainer.strategy.barrier()  # where another process ends, launchers end the first one too
        self._saved_step = step

    def save_weights(self, module: Any, path: Path, step: int) -> None:
        """The averaged weights, with the colours of their BEV map, as a checkpoint that `dualview.load` reads."""
        temporary = path.with_name(f".{WEIGHTS}.partial")
        detector = module.best_weights()
        detector.bev_colors = None if self._batch is None else colors_of_batch(module, self._batch)
        save_checkpoint(detector, temporary, {"trained_steps": str(step), "seed": str(self._recipe.seed)})
        _put_in_place(temporary, path)


def _put_in_place(temporary: Path, path: Path) -> None:
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


@contextlib.contextmanager
def _named_write_errors(folder: Path, step: int, temporaries: tuple[Path, ...]) -> Any:
    """Turn a failure to write into a sentence, with nothing half-written left."""
    try:
        yield
    except Exception as error:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)
        if isinstance(error, DualViewError):
            raise
        reason = reason_not_written(error)
        if reason is None and not isinstance(error, OSError) and "write" not in str(error).lower():
            raise
        raise CheckpointError(
            f"the checkpoint of step {step} can't be written to {folder}: {reason or error}. The former checkpoint is untouched: "
            "make room and go on with --resume"
        ) from error
