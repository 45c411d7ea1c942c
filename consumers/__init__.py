"""Reads features: training sets and their lift, tag quality, freshness; serves them.

    cli.py        the command line; commands/ has a file for each subcommand
    online.py     the fast reader for ranking services
    linked.py     and of entities that a row names, in one conversation
    one_encoder.py  no answer with vectors of two encoders
    affinity.py   the same with how close candidates are to what their user clicked
    missing.py    what is not known of candidates, as features
    ranking/      training set, rankers, metrics, lift
    tagging/      how good the predicted tags are
    captions/     how good the written captions are
    monitoring/   freshness, drift, online against offline; metrics and the page of the one on call
    served_log.py  a sample of what was served, byte for byte
    serving/      features over Arrow Flight and HTTP

Imports `feature_repo`, never `producers`.
"""
