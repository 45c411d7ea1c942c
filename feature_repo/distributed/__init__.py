"""The offline side's work on more than one machine, by Ray Data: shuffled by join key, each key's rows in one task.

cluster.py      which cluster, and what to say when Ray or the cluster is not there
shuffle.py      rows to the task that has all rows of their key
join.py         the as-of join
materialize.py  the newest row of each entity, packed and sent where it is read

The tables must lie where every machine finds them under the same path. Only this package and
`producers/encoders/on_ray.py` import Ray, and only where a cluster is named.
"""
