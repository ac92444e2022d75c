"""The `dualview` command as a whole: help, errors that we mean, and readers that leave early."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dualview.cli import command_modules, ending_in_order, main
from dualview.scene.bag_writer import BagWriter
from dualview.scene.rig import load_rig


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert len(command_modules()) >= 15
    assert all(name in printed for name in command_modules())


def test_an_error_of_ours_is_one_sentence_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bag", "info", "no_such.mcap"]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("dualview bag: ") and "no_such.mcap" in printed.err
    assert printed.err.count("\n") == 1


def test_a_reader_that_leaves_early_is_no_error() -> None:
    """As `dualview parameters --markdown | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "dualview", "parameters", "--markdown"], stdout=writer, stderr=subprocess.PIPE, text=True
        )
    finally:
        os.close(writer)
    assert ended.returncode == 141
    assert "Traceback" not in ended.stderr and "BrokenPipe" not in ended.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_ended_clears_up(number: int, tmp_path: Path) -> None:
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit) as end, ending_in_order(), BagWriter(tmp_path / "a.mcap", load_rig("synthetic")):
            assert list(tmp_path.iterdir())
            signal.raise_signal(number)
        assert end.value.code == 128 + number and not list(tmp_path.iterdir())
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)
