"""movielens: ratings of films, to the second, as impressions: a rating of 4 or more is a click.

A film's version begins with its first rating: from then on the log itself shows that it was listed; the year of its
release would place it earlier than the service knew it. The rating is not a column of the impressions, for it says
what the click says. The set's free tags are not read: each is known only from its own time on.
"""

from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import schema
from feature_repo.offline import input_files, validation
from feature_repo.offline.quarantine import RejectedRow
from feature_repo.offline.validation import Check
from producers.datasets.imports import folder
from producers.datasets.imports.folder import ImportedTables

RATINGS = ("userId", "movieId", "rating", "timestamp")
MOVIES = ("movieId", "title", "genres")
CLICK = 4.0
NO_GENRE = "(no genres listed)"

BAD_RATING = "rating is none of 0.5 to 5"
NO_TIME = "timestamp is no number of seconds"
NO_FILM = "film is not in movies.csv"
STRAY = "value in a column without a name: ignored, row kept"
NEVER = "film was never rated: dated to the last rating of the log, row kept"


def read(source: Path, now: datetime) -> ImportedTables:
    """Read the set; no demographics are known, so ages and genders are null."""
    del now  # a time in the future is for the reader of the impressions to refuse
    ratings_file, movies_file = source / "ratings.csv", source / "movies.csv"
    ratings, movies = input_files.read_table(ratings_file, RATINGS), input_files.read_table(movies_file, MOVIES)
    refused = _stray_values(ratings)
    ratings = ratings.select([name for name in ratings.column_names if name])
    validation.require_columns(ratings, RATINGS, ratings_file)
    validation.require_columns(movies, MOVIES, movies_file)
    ratings = ratings.select(list(RATINGS))
    pairs = pc.binary_join_element_wise(ratings["userId"], ratings["movieId"], "-")
    names = validation.name_rows(pairs)
    stars = validation.parse_numbers(ratings, "rating", ratings_file)
    seconds = validation.parse_numbers(ratings, "timestamp", ratings_file)
    in_range = pc.and_(pc.greater_equal(stars, 0.5), pc.less_equal(stars, 5.0))
    has_film = pc.is_in(ratings["movieId"], value_set=_values(movies["movieId"]))
    passed, left_out = validation.apply_checks(
        ratings,
        names,
        [
            Check("rating", BAD_RATING, ~validation.to_mask(in_range)),
            Check("timestamp", NO_TIME, ~validation.to_mask(pc.is_finite(seconds))),
            Check("movieId", NO_FILM, ~validation.to_mask(has_film)),
        ],
    )
    keep = pa.array(passed)
    ratings, stars = ratings.filter(keep), stars.filter(keep)
    moments = pc.multiply(seconds.filter(keep).cast(pa.int64()), 1_000_000).cast(schema.TIMESTAMP)
    products, never = _products(movies, ratings["movieId"], moments)
    refused += [*left_out, *never]
    impressions = pa.table(
        [
            pairs.filter(keep),
            ratings["userId"],
            ratings["movieId"],
            moments,
            pc.greater_equal(stars, CLICK).cast(pa.int8()),
        ],
        schema=schema.IMPRESSIONS,
    )
    users = pc.unique(ratings["userId"])
    nothing = pa.nulls(len(users), pa.date32()), pa.nulls(len(users), pa.string())
    return ImportedTables(
        {
            "products": products,
            "impressions": _without_children(impressions),
            "users": pa.table([users, *nothing], schema=folder.USERS),
        },
        refused,
        [f"{int(pc.sum(impressions['clicked']).as_py() or 0):,} clicks: ratings of {CLICK:g} or more"],
    )


def _products(movies: pa.Table, rated: pa.ChunkedArray, moments: pa.ChunkedArray) -> tuple[pa.Table, list[RejectedRow]]:
    first = pa.table({"film": rated, "moment": moments}).group_by("film").aggregate([("moment", "min")])
    since = first["moment_min"].take(pc.index_in(movies["movieId"], value_set=_values(first["film"])))
    never = Check("movieId", NEVER, validation.to_mask(pc.is_null(since)))
    last = pc.max(moments)
    nothing = pa.nulls(movies.num_rows, pa.string())
    columns = {
        schema.PRODUCT_ID: movies["movieId"],
        "title": movies["title"],
        "image": nothing,
        "category": pc.if_else(pc.equal(movies["genres"], NO_GENRE), None, movies["genres"]),
        "brand": nothing,
        "price": pa.nulls(movies.num_rows, pa.float64()),
        "updated_at": pc.fill_null(since, last) if last.is_valid else since,
    }
    return pa.table(columns, schema=schema.PRODUCTS), validation.list_failures(movies, movies["movieId"], never)


def _stray_values(ratings: pa.Table) -> list[RejectedRow]:
    """The set's file has cells without a header, a few of them filled."""
    found = []
    for column in range(len(RATINGS), ratings.num_columns):
        rows = np.flatnonzero(validation.to_mask(pc.is_valid(ratings.column(column))))
        for row, value in zip(rows, ratings.column(column).take(pa.array(rows)).to_pylist(), strict=True):
            found.append(RejectedRow(f"row {row + 1}", f"column {column + 1}", STRAY, str(value)))
    return found


def _without_children(impressions: pa.Table) -> pa.Table:
    with_age = impressions.append_column("child_age_months", pa.nulls(impressions.num_rows, pa.float32()))
    return with_age.append_column("child_gender", pa.nulls(impressions.num_rows, pa.string()))


def _values(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks()
