"""The options of an upgrade, as the store records them."""

import pytest

from feature_repo.errors import CorruptDataError
from producers.upgrade.versions import UpgradeOptions


@pytest.mark.parametrize("options", [{}, {"encoder": "x", "former_encoder": None, "steps": 3}, []])
def test_options_of_an_upgrade_that_cannot_be_read_are_one_error(options: object) -> None:
    with pytest.raises(CorruptDataError, match="roll the upgrade back and start it again"):
        UpgradeOptions.from_json(options)


def test_options_are_read_as_they_were_recorded() -> None:
    options = UpgradeOptions("x", None, (("tags", "--labels", "l.parquet"),))
    assert UpgradeOptions.from_json(options.to_json()) == options
