"""Writes features: one file per step of `produce`.

    cli.py         the command line; commands/ has a file for each subcommand
    shop/          a generated shop whose truth is known
    imports/       real data sets, brought into the same shape
    catalogue.py   the day's products compared with what is known: the increment
    arriving.py    a block of them checked
    versions.py    what is known of products, by digests
    digests.py     digests of columns and rows, without an object per value
    content_hash.py  the hash by which a picture or a title is known again
    image_hashes.py  pictures hashed, as few read as possible
    images.py      pictures decoded, the unusable refused
    picture_store.py pictures in an LMDB
    pack.py        a shop's pictures put into one
    encoders/      image and text to vectors
    encoder.py     an encoder trained on a catalogue
    clicks.py      the clicks that it may be aligned with
    evaluation.py  designs held out, and recall on them
    word_oracle.py how far words alone could bring that recall
    export.py      the encoder for other runtimes: ONNX, Triton
    made.py        which versions have a row of embeddings, and of which contents it came
    plan.py        which versions, and which contents of them, are to be encoded
    contents.py    vectors of what has been encoded, by its hash
    assembly.py    fresh and known vectors put together to rows
    embeddings.py  the catalogue to `product_embedding`
    handover.py    the same on a machine without the store: what goes out, what comes back
    captions.py    pictures to `product_caption`
    tags.py        vectors to `product_tags`
    taggers/       labels, splits, classifiers and their calibration
    log.py         the log of impressions as codes and times
    product_versions.py  what was known of products when they were shown
    codes.py       vectors to `product_codes`: semantic IDs
    codebook.py    residual k-means, how good it is, where it lies
    interests.py   clicks to `user_interest`
    interest_rows.py  its rows, and back
    neighbours.py  the log to `product_neighbours`
    nearest.py     the nearest products with a history, kept up to date
    product_changes.py  what changes of products over time
    streaming/     products and clicks as they come
    ledger.py      every run: what went in, what came of it, how it ended
    locks.py       one run of a step at a time
    upkeep.py      products and users forgotten, corrected rows dropped, files removed

Imports `feature_repo`, never `consumers`.
"""
