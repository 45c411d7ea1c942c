"""The contract between those who write features and those who read them.

    definitions.py  gathers entities.py, sources.py, views/ and services.py: the only file Feast reads
    schema.py       table names, column names and Arrow schemas of every table
    config.py       the deployment's settings, read from feature_store.yaml without Feast
    errors.py       error classes
    extras.py       optional dependencies and the command that installs each
    features/       definitions of the computed features, shared by writers and readers
    arrow/          Arrow columns and NumPy arrays
    offline/        Delta tables, validation, point-in-time joins
    online/         packed rows in LMDB or Redis
    distributed/    the join and the materialization on several machines
    tables/         deprecated module names
    stores/         Feast's plug-in points, thin
    run_log.py      every run of a producer: its input, its result, how it ended
    atomic_write.py files and folders that appear whole or not at all
    locks.py        one run of a step at a time
    vocabulary.py   attribute values that a line of text names
    durations.py    durations and timestamps as people write them: 90m, 2026-03-01T12:00Z
    cores.py        work on every core
    lmdb_environment.py  open LMDB files; environments that threads share and forks survive
    memory.py       how a long-lived process keeps its memory
    console.py      one-line errors and progress bars of the command lines
    interruption.py  the end of a command line by Ctrl-C
    images.py       images decoded; unusable ones refused
    image_store.py  images in an LMDB
    auth.py         access to a server: address, bearer token, TLS certificate
    serving_limits.py  request limits of a server
    content_hash.py  the hash that identifies an image or a title

Imports neither `producers` nor `consumers`.
"""
