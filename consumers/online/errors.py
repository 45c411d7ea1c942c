"""What a store may lack: the errors of `OnlineReader` beside those of feature_repo/errors.py."""

from feature_repo.errors import IncompleteStoreError, NotFoundError


class UnknownFeaturesError(NotFoundError):
    """The store has no feature service, feature view or feature of that name. The message lists those it has."""


class NoServicesError(IncompleteStoreError):
    """The store has no service or view of that name, and no services at all. Perhaps `feast apply` has not run."""
