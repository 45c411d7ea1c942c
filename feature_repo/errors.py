"""The one error that a user can cause and mend."""


class VitrineError(Exception):
    """One line: what was wrong, where, what was expected, and what to do. Ends a command with exit code 1."""
