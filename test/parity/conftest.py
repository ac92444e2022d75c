"""Every parity test carries what it compared, from whichever process it ran in, to the table at the end (../conftest.py)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import pytest
from golden import RECORDED


@pytest.fixture(autouse=True)
def compared_tensors(request: pytest.FixtureRequest) -> Iterator[None]:
    RECORDED.clear()
    yield
    request.node.user_properties += [("parity", asdict(error)) for error in RECORDED]
