"""Writes features: one folder per step of `produce`, in the order of the chain.

    cli.py          the command line; commands/ has one file per subcommand
    datasets/       a generated shop, and importers of public data sets
    catalogue/      the day's products, compared with the stored ones, to `product_catalogue`
    downloads/      images from the URLs of a products table, to the LMDB of `produce images`
    encoders/       images and text to vectors; runs without Feast and without a store
    learning/       an encoder trained on a shop, evaluated and exported
    evaluation/     how well an encoder retrieves: MUGE, folders of pictures, TREC judgements
    embeddings/     the catalogue to `product_embedding`; nothing is encoded twice
    tags/           vectors to `product_tags`: labels, classifiers, calibration
    codes/          vectors to `product_codes`: semantic IDs
    groups/         vectors and judged pairs to `product_group`: offers of the same product
    behaviour/      the impression log to `user_interest` and `product_neighbours`
    index/          vectors, titles, prices and tags to an index for search
    captions/       images to `product_caption`
    text_to_image/  pictures from sentences
    studio/         captions and generated pictures for merchants, over HTTP and as pages
    streaming/      products and clicks as they arrive
    upgrade/        replaces the encoder in production while readers are served
    pipeline/       `produce day`: the steps of a deployment in order
    maintenance.py  forget products and users, drop corrected rows, remove files
    input_digest.py what a derived row was made from, as 64 bits
    stored_rows.py  the rows that a derived table has, and which of them are up to date

Imports `feature_repo`, never `consumers`.
"""
