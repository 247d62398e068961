"""Fixtures that the tests share."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
REAL_DATA = REPOSITORY.parent / "shared" / "nfl-data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real weeks in upstream's layout, which is not part of the repository."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"no real weeks at {REAL_DATA}: they are not part of the repository")
    return REAL_DATA
