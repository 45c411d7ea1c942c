"""Reads features: training sets and their lift, tag quality, freshness; serves them.

    cli.py        the command line; commands/ has a file for each subcommand
    ranking/      training set, rankers, metrics, lift
    tagging/      how good the predicted tags are
    captions/     how good the written captions are
    monitoring/   freshness, drift, online against offline; metrics and the page of the one on call
    serving/      features over Arrow Flight and HTTP

Imports `feature_repo`, never `producers`.
"""
