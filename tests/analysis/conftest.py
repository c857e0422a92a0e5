"""What several tests of the analysis look at."""

import pytest
from fake_records import with_variants


@pytest.fixture(scope="session")
def panel(tmp_path_factory):
    """A panel with variants, trees and learning curves; nothing may change it."""
    return with_variants(tmp_path_factory.mktemp("variants"))
