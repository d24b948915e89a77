from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.public_door import Door, public_door


@pytest.fixture(scope="module")
def running_door() -> Iterator[Door]:
    with public_door() as door:
        yield door


@pytest.fixture
def door(running_door: Door) -> Door:
    """A door that serves, with nothing recorded yet."""
    running_door.behind.clear()
    return running_door
