"""Downloads the images that a products table names by URL into the LMDB of `produce images`.

run.py           the URLs of a table: which to ask for, and what became of each
host_queues.py   which URL is asked for next: limits, delays and pauses of each host
fetch.py         one request, bounded in size and time
addresses.py     the addresses that may be connected to: public ones, and those that are allowed
download_log.py  what is known of each URL, in a SQLite file
"""
