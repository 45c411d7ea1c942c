"""The entry of `produce`, which imports it where Ctrl-C is listened to; also `python -m producers`."""

from feature_repo import interruption


def main() -> None:
    """Entry point of the console script."""
    interruption.run_interruptible(_command_line)


def _command_line() -> None:
    from producers import cli

    cli.main()


if __name__ == "__main__":
    main()
