"""The demo's tests use the small drive and the smallest detector of the tests of ROS processes."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "ros"))
