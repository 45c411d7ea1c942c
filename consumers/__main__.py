"""Entry point of `consume` and `python -m consumers`. Ctrl-C is handled from before the imports of the commands on."""

from feature_repo import cores, interruption


def main() -> None:
    """Run the command line."""
    cores.limit_thread_pools()
    interruption.run_interruptible(_command_line)


def _command_line() -> None:
    from consumers import cli

    cli.main()


if __name__ == "__main__":
    main()
