"""Writes features: a file or a folder per step of `produce`, in the order of the chain.

    cli.py         the command line; commands/ has a file for each subcommand
    catalogue/     the day's products compared with what is known; pictures decoded
    encoders/      image and text to vectors; runs where there is neither Feast nor a store
    learning/      an encoder learnt from a shop, judged, and exported
    embeddings/    the catalogue to `product_embedding`, nothing encoded twice
    codes/         vectors to `product_codes`: semantic IDs
    behaviour/     the log of impressions to `user_interest` and `product_neighbours`
    streaming/     products and clicks as they come
    maintenance.py  products and users forgotten, corrected rows dropped, files removed

Imports `feature_repo`, never `consumers`.
"""
