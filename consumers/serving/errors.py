"""Why a request is not answered, in the words of both protocols.

Arrow Flight knows few of gRPC's codes, and whatever else a Python server raises it sends with the traceback. So every
refusal is one of pyarrow's own errors, the nearest there is, its message begins with gRPC's word for it, and its
`extra_info` is that word alone:

    word                 HTTP  Flight                      gRPC as sent
    INVALID_ARGUMENT     422   FlightServerError           UNKNOWN
    NOT_FOUND            404   FlightServerError           UNKNOWN
    UNAUTHENTICATED      401   FlightUnauthenticatedError  UNAUTHENTICATED
    RESOURCE_EXHAUSTED   429   FlightUnavailableError      UNAVAILABLE, which clients try again
    DEADLINE_EXCEEDED    504   FlightTimedOutError         DEADLINE_EXCEEDED
    UNAVAILABLE          503   FlightUnavailableError      UNAVAILABLE
    CANCELLED            499   FlightCancelledError        CANCELLED; the caller is gone, and so it is for the log
    UNIMPLEMENTED        501   FlightServerError           UNKNOWN
    INTERNAL             500   FlightInternalError         INTERNAL

A body that is too long for HTTP is an INVALID_ARGUMENT by 413, one that does not come a DEADLINE_EXCEEDED by 408.
"""

from enum import Enum


class Code(Enum):
    """Why, and the status by which HTTP says it."""

    INVALID_ARGUMENT = 422
    NOT_FOUND = 404
    UNAUTHENTICATED = 401
    RESOURCE_EXHAUSTED = 429
    DEADLINE_EXCEEDED = 504
    UNAVAILABLE = 503
    CANCELLED = 499
    UNIMPLEMENTED = 501
    INTERNAL = 500


class Refused(Exception):
    """A request that is not answered.

    Args:
        code: why.
        message: what the caller is told: nothing of this machine, its store, its files.
        status: HTTP's, where it has a more exact one than the code's.
    """

    def __init__(self, code: Code, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status or code.value
