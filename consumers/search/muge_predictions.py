"""The products for each query of MUGE, as its submission wants them."""

from collections.abc import Callable
from pathlib import Path

from consumers.search.calibration import SearchCalibration
from consumers.search.selection import check_versions, search_products
from consumers.search.sentence import parse_sentence
from feature_repo.errors import InvalidInputError
from feature_repo.evaluation import muge
from feature_repo.evaluation.muge import TOP_K, Query
from feature_repo.exported.encoder import ExportedEncoder
from feature_repo.files.json_lines import Malformed, refuse_line, require_well_formed
from feature_repo.index.filters import ProductFilter
from feature_repo.index.product_index import ProductIndex
from feature_repo.schema import PRODUCT_ID


def read_searchable_queries(file: Path, index: ProductIndex, encoder: ExportedEncoder) -> list[Query]:
    """Return the queries of a file, after checking that each can be searched for.

    Raises:
        InvalidInputError: a line is malformed, or its text is no sentence that index or encoder understand; or there is
            no query.
        OSError: the file cannot be read.
    """
    malformed: Malformed = []
    queries = muge.read_queries(file, malformed)
    require_well_formed(malformed)
    for number, query in enumerate(queries, start=1):  # one query a line, because no line is malformed
        try:
            parse_sentence(query.text, index, encoder)
        except InvalidInputError as error:
            malformed.append(refuse_line(file, number, str(error), query.text))
    require_well_formed(malformed)
    if not queries:
        raise InvalidInputError(f"{file}: no query")
    return queries


def predict_images(
    index: ProductIndex,
    encoder: ExportedEncoder,
    queries: list[Query],
    *,
    where: ProductFilter,
    calibration: SearchCalibration | None,
    progress: Callable[[int], None],
) -> dict[int, list[int]]:
    """Return the TOP_K image ids of each query, best first. Cut-offs do not shorten them.

    Args:
        index: of the shop that `produce import muge` wrote, so that product ids are image ids.
        encoder: encodes the queries.
        queries: from `read_searchable_queries`.
        where: which products may be returned.
        calibration: weights; None takes the default ones.
        progress: called with the number of queries done.

    Raises:
        InvalidInputError: fewer than TOP_K products can be returned, or a product id is no image id of MUGE.
        NotFoundError: no product passes the filter.
        EncoderMismatchError: index, encoder or calibration are of different encoder versions.
    """
    check_versions(index, encoder, calibration)
    ranked: dict[int, list[int]] = {}
    for done, query in enumerate(queries, start=1):
        result = search_products(
            index, encoder, query.text, where=where, top_k=TOP_K, calibration=calibration, ends_at_cutoff=False
        )
        ids = result.products[PRODUCT_ID].to_pylist()
        if len(ids) < TOP_K:
            raise InvalidInputError(f"query {query.id}: {len(ids)} products are found; a submission needs {TOP_K}")
        if wrong := [one for one in ids if not one.isdecimal()]:
            raise InvalidInputError(
                f"product {wrong[0]} is no image of MUGE, whose ids are integers; import it with produce import muge"
            )
        ranked[query.id] = [int(one) for one in ids]
        progress(done)
    return ranked
