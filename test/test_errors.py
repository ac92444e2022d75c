"""Names that are nearly right are told."""

from dualview.errors import did_you_mean


def test_the_nearest_name_is_meant() -> None:
    assert did_you_mean("stepz", ["seed", "step", "rows"]) == "did you mean 'step'?"


def test_nothing_near_is_told_otherwise() -> None:
    assert did_you_mean("colour", ["steps", "seed"], "known are steps, seed") == "known are steps, seed"
    assert did_you_mean("stepz", ["steps"], cutoff=0.9) == ""
