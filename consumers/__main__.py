"""The entry of `consume`, which imports it where Ctrl-C is listened to; also `python -m consumers`."""

from feature_repo import interruption


def main() -> None:
    """Entry point of the console script."""
    interruption.run_interruptible(_command_line)


def _command_line() -> None:
    from consumers import cli

    cli.main()


if __name__ == "__main__":
    main()
