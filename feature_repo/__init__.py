"""The contract between the producers that write features and the consumers that read them.

    definitions.py       all Feast objects, from entities.py, sources.py, views/ and services.py; Feast reads it only
    schema.py            table names, column names and Arrow schemas
    features/            definitions of the computed features, shared by producers and consumers
    arrow/               Arrow columns to NumPy arrays and back
    offline/             Delta tables, validation, point-in-time joins
    online/              packed rows in LMDB or Redis
    index/               products of one encoder version by vector, words and filters
    exported/            an encoder that `produce export` wrote, used without torch
    files/               write files whole, lock them, export CSV
    images/              decode, convert, resize and store pictures
    evaluation/          measures and formats of evaluations
    pairs/               what two products have in common, and whether they are the same
    server/              HTTP servers: connections, access, errors, request log
    web/                 pages for people: sessions, templates, assets
    distributed/         the join and materialization on several machines
    stores/              Feast's plug-in points, thin
    tables/              deprecated module names

    age_scale.py         the stages of child ages: values with ranges of months
    config.py            the deployment's configuration: feature_store.yaml, read without Feast
    bucket_url.py        the spellings of a bucket's URL, made one
    location.py          where tables are: a folder, or a prefix of a bucket
    bucket.py            open a prefix of a bucket, read single objects
    errors.py            error classes by cause
    feast_import.py      import Feast without torch
    extras.py            optional dependencies and the command that installs each
    gate_report.py       whether the candidate of an encoder upgrade may go into production
    run_log.py           one row for each run of a producer: inputs, counts, outcome
    table_format.py      how a shop's table is written: encoding, separator, names of columns, time zone
    table_options.py     the options of every command that reads one
    console.py           both command lines: options, one-line errors, progress bars
    interruption.py      exit on Ctrl-C with one line
    durations.py         durations and timestamps on command lines: 90m, 2026-03-01T12:00Z
    cores.py             run a function on all cores
    memory.py            memory settings of long-running processes
    vocabulary.py        find attribute values in a line of text
    fusion.py            vectors of a product from those of its image and its title
    content_hash.py      the hash that identifies an image or a title
    auth.py              access to a server: address, bearer token, TLS certificate
    serving_limits.py    request limits of a server
    server_options.py    the options of every command that starts one

Imports neither `producers` nor `consumers`.
"""
