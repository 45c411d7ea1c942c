"""The contract between those who write features and those who read them.

    config.py  where this deployment keeps its tables (feature_store.yaml, read without Feast)
    runs.py         the producers' last runs, as their ledger has them
    schema.py       column names and Arrow schemas of every table
    table_names.py  the tables by name
    vocabulary.py  which values of an attribute a line of text names
    durations.py  ages and moments as people write them: 90m, 2026-03-01T12:00Z
    definitions.py  gathers entities.py, sources.py, views/ and services.py: the only file Feast reads
    features/       what the features mean: definitions that writers and readers share, in NumPy
    stores/         Feast's plug-in points: thin adapters over tables/
    cores.py        work on every core
    memory.py       how a process that does the same again and again keeps its memory
    errors.py       what a user can cause and mend
    console.py      what the command lines share: one-line errors, progress bars
    interruption.py  their end by Ctrl-C, from the first moment on
    distributed/  the join and the materialization on more than one machine
    run_log.py  every run: what went in, what came of it, how it ended
    locks.py  one run of a step at a time

Imports neither `producers` nor `consumers`.
"""
