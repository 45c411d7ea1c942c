"""The as-of join and materialization on several machines, with Ray Data. Rows are shuffled by join key.

    cluster.py      connect to a Ray cluster; errors if Ray or the cluster is missing
    shuffle.py      send rows to the task that handles their key
    join.py         the as-of join
    materialize.py  write the newest row of each entity to the online store

Every machine must find the tables under the same path. Only this package and `producers/encoders/on_ray.py` import
Ray, and only if a cluster is configured.
"""
