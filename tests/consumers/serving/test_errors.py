"""Every error class has a code, and an error that the caller causes is never reported as the server's."""

import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import consumers.online
import feature_repo
from feature_repo.errors import (
    ConflictError,
    CorruptDataError,
    EncoderMismatchError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    UsageError,
    VitrineError,
)
from feature_repo.server.errors import CALLER_ERRORS, CODES, ErrorCode, RequestError, code_of

STATUS = {
    InvalidInputError: 400,
    UsageError: 400,
    NotFoundError: 404,
    ConflictError: 409,
    UnavailableError: 503,
    EncoderMismatchError: 503,
    CorruptDataError: 500,
    VitrineError: 500,
}


def import_all() -> None:
    """Import every module that a request can run through, so that all their error classes are defined."""
    for package in (feature_repo, consumers.online):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.startswith("feature_repo.distributed"):  # needs Ray
                importlib.import_module(module.name)


def subclasses(error: type[VitrineError]) -> Iterator[type[VitrineError]]:
    for subclass in error.__subclasses__():
        yield subclass
        yield from subclasses(subclass)


def test_every_error_class_has_the_code_of_its_cause() -> None:
    import_all()
    classes = {*subclasses(VitrineError)}
    assert STATUS.keys() - {VitrineError} <= classes
    for error in classes:
        assert any(base in CODES for base in error.__mro__ if base is not VitrineError), f"{error} has no cause"


def test_an_error_of_the_caller_is_never_a_5xx_and_another_one_always_is() -> None:
    import_all()
    for error in subclasses(VitrineError):
        is_callers = issubclass(error, CALLER_ERRORS)
        assert (400 <= code_of(error).value < 500) == is_callers, error


@pytest.mark.parametrize(("error", "status"), STATUS.items())
def test_classes_have_their_documented_status(error: type[VitrineError], status: int) -> None:
    assert RequestError.from_error(error("redis://secret:6379 is gone")).status == status


@pytest.mark.parametrize("error", [UnavailableError, CorruptDataError, VitrineError])
def test_the_message_of_a_server_error_stays_in_the_log(
    error: type[VitrineError], caplog: pytest.LogCaptureFixture
) -> None:
    response = RequestError.from_error(error("redis://secret:6379 is gone"))
    assert "secret" not in response.message
    assert caplog.messages == ["redis://secret:6379 is gone"]


def test_callers_get_the_message_of_their_own_errors_and_the_names_of_mixed_encoders() -> None:
    for error in (*CALLER_ERRORS, EncoderMismatchError):
        assert RequestError.from_error(error("say what was wrong")).message == "say what was wrong"


def test_http_statuses_of_codes_are_distinct() -> None:
    assert len({code.value for code in ErrorCode}) == len(ErrorCode)
