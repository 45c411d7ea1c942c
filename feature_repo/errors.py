"""Error classes. Every message is one line: what was wrong, where, what was expected, and what to do.

    VitrineError              the base; a command that raises it exits with 1
        InvalidInputError     a value, a file or a row that the caller gave is not acceptable
            UsageError        an option, or the file it names, is invalid whatever the data; exits with 2
        NotFoundError         a table, view, service, feature, product or file that was named does not exist
        ConflictError         another writer or run got there first; running again can succeed
        UnavailableError      a store or a database does not answer
            IncompleteStoreError  a store answers, but lacks views or services
        CorruptDataError      stored bytes are damaged or incomplete
        EncoderMismatchError  vectors of two encoder versions would be mixed

`feature_repo/server/errors.py` maps these classes to HTTP and Flight status codes.
"""


class VitrineError(Exception):
    """Base class of the errors that a user can cause or repair.

    A command that raises one prints its message and exits with 1; for UsageError it exits with 2.
    """


class InvalidInputError(VitrineError):
    """An argument, a file or a row from the caller is not acceptable. Over HTTP it is status 400."""


class UsageError(InvalidInputError):
    """A command-line option, or the settings file that it names, is invalid whatever the data.

    The command exits with 2.
    """


class NotFoundError(VitrineError):
    """A table, view, service, feature, product or file that the caller named does not exist. Over HTTP: status 404."""


class ConflictError(VitrineError):
    """Another writer or run was first. Running again can succeed. Over HTTP it is status 409."""


class UnavailableError(VitrineError):
    """A store, a database or a cluster does not answer, or something cannot be written. Over HTTP it is status 503."""


class IncompleteStoreError(UnavailableError):
    """The store answers, but lacks views or services that readers need. The message names them, and no address."""


class CorruptDataError(VitrineError):
    """Stored bytes, such as a file of a table or a row of the online store, are damaged or incomplete.

    Over HTTP it is status 500.
    """


class EncoderMismatchError(VitrineError):
    """Vectors of two encoder versions would be compared, joined or served together. Over HTTP it is status 503."""
