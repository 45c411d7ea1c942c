"""What a store may lack: the errors of `OnlineReader` beside those of feature_repo/errors.py."""

from feature_repo.errors import NotFoundError, UnavailableError


class UnknownFeaturesError(NotFoundError):
    """The store has no feature service, feature view or feature of that name. The message lists those it has."""


class IncompleteStoreError(UnavailableError):
    """The store answers, but lacks views or services that readers need. The message names them, and no address."""


class NoServicesError(IncompleteStoreError):
    """The store has no service or view of that name, and no services at all. Perhaps `feast apply` has not run."""
