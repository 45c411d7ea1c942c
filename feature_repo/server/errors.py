"""Error responses: how each cause is reported over HTTP and Arrow Flight.

Every error has one of gRPC's status words. Over HTTP the word is in the body, beside the status code. Arrow Flight's
Python server cannot send all of gRPC's codes, and it sends the traceback of an exception that is not its own. So every
error is raised as the closest pyarrow class, the message starts with the word, and `extra_info` is the word alone:

    word                 HTTP  Flight                      gRPC as sent
    INVALID_ARGUMENT     400   FlightServerError           UNKNOWN
    NOT_FOUND            404   FlightServerError           UNKNOWN
    ABORTED              409   FlightServerError           UNKNOWN
    UNAUTHENTICATED      401   FlightUnauthenticatedError  UNAUTHENTICATED
    RESOURCE_EXHAUSTED   429   FlightUnavailableError      UNAVAILABLE, which clients retry
    DEADLINE_EXCEEDED    504   FlightTimedOutError         DEADLINE_EXCEEDED
    UNAVAILABLE          503   FlightUnavailableError      UNAVAILABLE
    CANCELLED            499   FlightCancelledError        CANCELLED; the caller has disconnected, only the log shows it
    UNIMPLEMENTED        501   FlightServerError           UNKNOWN
    INTERNAL             500   FlightInternalError         INTERNAL

Two cases have another HTTP status: a body that is too long is INVALID_ARGUMENT with 413, and a body that does not
arrive in time is DEADLINE_EXCEEDED with 408.
"""

import logging
from enum import Enum

from feature_repo.errors import (
    ConflictError,
    CorruptDataError,
    EncoderMismatchError,
    IncompleteStoreError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    VitrineError,
)

_log = logging.getLogger(__name__)


class ErrorCode(Enum):
    """The cause of an error response: the name is gRPC's status word, the value is the HTTP status."""

    INVALID_ARGUMENT = 400
    NOT_FOUND = 404
    ABORTED = 409
    UNAUTHENTICATED = 401
    RESOURCE_EXHAUSTED = 429
    DEADLINE_EXCEEDED = 504
    UNAVAILABLE = 503
    CANCELLED = 499
    UNIMPLEMENTED = 501
    INTERNAL = 500


CODES: dict[type[VitrineError], ErrorCode] = {
    InvalidInputError: ErrorCode.INVALID_ARGUMENT,
    NotFoundError: ErrorCode.NOT_FOUND,
    ConflictError: ErrorCode.ABORTED,
    UnavailableError: ErrorCode.UNAVAILABLE,
    EncoderMismatchError: ErrorCode.UNAVAILABLE,  # clients retry while the new encoder's vectors are materialized
    CorruptDataError: ErrorCode.INTERNAL,
    VitrineError: ErrorCode.INTERNAL,
}
"""The code of each error class. A subclass that is not listed has the code of its nearest base class."""
CALLER_ERRORS = (InvalidInputError, NotFoundError, ConflictError)
"""Classes whose cause lies with the caller. Their messages are sent to the caller."""

NAMED_ERRORS = (EncoderMismatchError, IncompleteStoreError)
"""Classes whose cause lies with the deployment. Their messages hold no address or path, and are sent to the caller."""


class RequestError(Exception):
    """A request that gets an error instead of features. The arguments are kept as attributes.

    Args:
        code: the cause.
        message: text for the caller. It must not reveal addresses, paths or other internals of the server.
        status: the HTTP status; None takes the code's.
    """

    def __init__(self, code: ErrorCode, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status or code.value

    @classmethod
    def from_error(cls, error: VitrineError) -> "RequestError":
        """Return, but do not raise, the response to an error.

        It has the error's own message if the class is one of CALLER_ERRORS or NAMED_ERRORS, or a subclass. The message
        of any other error is logged, and replaced by one that reveals nothing.
        """
        code = code_of(type(error))
        if isinstance(error, (*CALLER_ERRORS, *NAMED_ERRORS)):
            return cls(code, str(error))
        _log.error("%s", error)
        if code is ErrorCode.UNAVAILABLE:
            return cls(code, "the online store is not available; the server's log has the reason")
        return cls(code, "the server cannot answer this request; its log has the reason")


def code_of(error: type[VitrineError]) -> ErrorCode:
    """Return the code of an error class: its own in CODES, or else that of its nearest base class there."""
    return next(CODES[base] for base in error.__mro__ if base in CODES)
