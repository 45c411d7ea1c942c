"""Feast's command line with a faster start: `python -P -m producers.pipeline.feast_command materialize-incremental`.

-P: the working folder is that of the feature views, whose modules must not be taken for others of their name.
"""

import sys
from contextlib import nullcontext

from feature_repo import feast_import

READING = ("materialize", "materialize-incremental")
"""Commands that define no objects of Feast but read them from the registry."""


def main() -> None:
    """Run `feast` with the arguments of this process."""
    feast_import.defer_torch()
    with feast_import.without_type_checks() if sys.argv[1:2] and sys.argv[1] in READING else nullcontext():
        from feast.cli.cli import cli
    cli(prog_name="feast")


if __name__ == "__main__":
    main()
