"""Deprecated names, kept for one version.

activity.py  use feature_repo.offline.versions
"""
