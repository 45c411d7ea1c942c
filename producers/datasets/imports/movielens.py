"""movielens: ratings of films with timestamps, as impressions. A rating of 4 or more is a click.

A film's version starts at its first rating, because the log proves only then that the film was listed. The rating is
not a column of the impressions, because it would reveal the click. The set's free tags are not read, because each is
known only from its own time on.
"""

from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import schema
from feature_repo.offline import input_files, validation
from feature_repo.offline.quarantine import RejectedRow
from feature_repo.offline.validation import RowCheck
from producers.datasets.imports import folder
from producers.datasets.imports.folder import ImportedTables

RATINGS = ("userId", "movieId", "rating", "timestamp")
MOVIES = ("movieId", "title", "genres")
MIN_CLICK_RATING = 4.0
NO_GENRE = "(no genres listed)"

INVALID_RATING = "rating is not between 0.5 and 5"
INVALID_TIMESTAMP = "timestamp is not a number of seconds"
UNKNOWN_FILM = "film is not in movies.csv"
UNNAMED_COLUMN = "value in a column without a name: ignored, row kept"
NEVER_RATED = "film was never rated: dated to the last rating of the log, row kept"


def read(source: Path, now: datetime) -> ImportedTables:
    """Read ratings.csv and movies.csv. The set has no demographics, so ages and genders are null.

    A rating is refused if it is not in [0.5, 5], if its timestamp is not a number, or if its film is not in movies.csv.
    An impression's id is `USER-FILM`; if a user rated a film twice, both rows have it. A film that was never rated is
    kept, dated to the last valid rating, and listed as refused.

    Args:
        source: the folder with the two files.
        now: not used: the reader of impressions refuses times in the future.

    Returns:
        The tables `products`, in the order of movies.csv; `impressions`, in the order of ratings.csv; and `users`, each
        user with a valid rating once, in the order of their first one in ratings.csv.

    Raises:
        NotFoundError: one of the files does not exist.
        InvalidInputError: one cannot be read, is empty, lacks a column or has a column of a wrong type.
    """
    del now  # the reader of impressions refuses times in the future
    ratings_file, movies_file = source / "ratings.csv", source / "movies.csv"
    ratings, movies = input_files.read_table(ratings_file, RATINGS), input_files.read_table(movies_file, MOVIES)
    refused = _find_unnamed_values(ratings)
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
    is_valid, rejected_rows = validation.apply_checks(
        ratings,
        names,
        [
            RowCheck("rating", INVALID_RATING, ~validation.to_mask(in_range)),
            RowCheck("timestamp", INVALID_TIMESTAMP, ~validation.to_mask(pc.is_finite(seconds))),
            RowCheck("movieId", UNKNOWN_FILM, ~validation.to_mask(has_film)),
        ],
    )
    keep = pa.array(is_valid)
    ratings, stars = ratings.filter(keep), stars.filter(keep)
    timestamps = pc.multiply(seconds.filter(keep).cast(pa.int64()), 1_000_000).cast(schema.TIMESTAMP)
    products, never_rated = _build_products(movies, ratings["movieId"], timestamps)
    refused += [*rejected_rows, *never_rated]
    impressions = pa.table(
        [
            pairs.filter(keep),
            ratings["userId"],
            ratings["movieId"],
            timestamps,
            pc.greater_equal(stars, MIN_CLICK_RATING).cast(pa.int8()),
        ],
        schema=schema.IMPRESSIONS,
    )
    users = pc.unique(ratings["userId"])
    no_children = pa.nulls(len(users), pa.date32()), pa.nulls(len(users), pa.string())
    return ImportedTables(
        {
            "products": products,
            "impressions": _add_null_children(impressions),
            "users": pa.table([users, *no_children], schema=folder.USERS),
        },
        refused,
        [f"{int(pc.sum(impressions['clicked']).as_py() or 0):,} clicks: ratings of {MIN_CLICK_RATING:g} or more"],
    )


def _build_products(
    movies: pa.Table, rated_films: pa.ChunkedArray, timestamps: pa.ChunkedArray
) -> tuple[pa.Table, list[RejectedRow]]:
    """Return the films as schema.PRODUCTS, in their order, and a note for each film that was never rated.

    Args:
        movies: the films.
        rated_films: the film of each valid rating.
        timestamps: the time of each valid rating.
    """
    first = pa.table({"film": rated_films, "timestamp": timestamps}).group_by("film").aggregate([("timestamp", "min")])
    since = first["timestamp_min"].take(pc.index_in(movies["movieId"], value_set=_values(first["film"])))
    never_rated = RowCheck("movieId", NEVER_RATED, validation.to_mask(pc.is_null(since)))
    last = pc.max(timestamps)
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
    return pa.table(columns, schema=schema.PRODUCTS), validation.list_failures(movies, movies["movieId"], never_rated)


def _find_unnamed_values(ratings: pa.Table) -> list[RejectedRow]:
    """Return the values in columns after the named ones, which have no name; the set's file has a few."""
    rejected = []
    for column in range(len(RATINGS), ratings.num_columns):
        rows = np.flatnonzero(validation.to_mask(pc.is_valid(ratings.column(column))))
        for row, value in zip(rows, ratings.column(column).take(pa.array(rows)).to_pylist(), strict=True):
            rejected.append(RejectedRow(f"row {row + 1}", f"column {column + 1}", UNNAMED_COLUMN, str(value)))
    return rejected


def _add_null_children(impressions: pa.Table) -> pa.Table:
    """Return the impressions with the columns for the child's age and gender, both null."""
    with_age = impressions.append_column("child_age_months", pa.nulls(impressions.num_rows, pa.float32()))
    return with_age.append_column("child_gender", pa.nulls(impressions.num_rows, pa.string()))


def _values(column: pa.ChunkedArray) -> pa.Array:
    """Return the column as one array, as a set of values to look up in."""
    return column.combine_chunks()
