"""Entry point of `produce` and of `python -m producers`.

It imports the command line only after it handles Ctrl-C, because the import takes a noticeable time.
"""

from feature_repo import cores, interruption


def main() -> None:
    """Run `produce`."""
    cores.limit_thread_pools()
    interruption.run_interruptible(_run_command_line)


def _run_command_line() -> None:
    from producers import cli

    cli.main()


if __name__ == "__main__":
    main()
