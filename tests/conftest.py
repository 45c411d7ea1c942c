"""What all tests share."""

from hypothesis import settings

# Shared machines stall; how long an example takes says nothing of its correctness.
settings.register_profile("vitrine", deadline=None)
settings.load_profile("vitrine")
