"""online.

reader.py  the fast reader for ranking services
affinity.py  the same with how close candidates are to what their user clicked
encoder_guard.py  no answer with vectors of two encoders
coverage.py  what is not known of candidates, as features
linked.py  and of entities that a row names, in one conversation
"""

from consumers.online.linked import Link
from consumers.online.reader import NoServices, OnlineReader, UnknownFeatures
from feature_repo.online.decode import Status
from feature_repo.online.feature_batch import Block

__all__ = ["Block", "Link", "NoServices", "OnlineReader", "Status", "UnknownFeatures"]
