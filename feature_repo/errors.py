"""The errors that a user can cause and mend."""


class VitrineError(Exception):
    """One line: what was wrong, where, what was expected, and what to do. Ends a command with exit code 1."""


class UsageError(VitrineError):
    """A value on the command line that can mean nothing, whatever the tables hold. Ends it with exit code 2."""
