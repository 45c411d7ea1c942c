"""A fetch of two hops in one pipeline: some entities, and other entities that one of their rows names."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from feature_repo.errors import NotFoundError
from feature_repo.online.decode import DecodedRows
from feature_repo.online.feature_batch import FeatureBatch, ViewRows
from feature_repo.online.request_plan import Ids, PlannedRequest, RequestPlan
from feature_repo.online.table import RequestPipeline, ViewRequest


@dataclass(frozen=True)
class Link:
    """The second hop of `OnlineReader.fetch_linked`: entities that a row of the first hop names."""

    view: str
    """The view of the first request whose rows name the entities, by its name in the service."""
    ids: Callable[[ViewRows], Ids]
    """Called once with that view's rows, one for each distinct entity; returns the ids of the second request, in the
    order that its rows shall have. An empty sequence means no second request."""
    name: str
    """The feature service or view to fetch for them."""


def fetch_two_hops(
    pipeline: RequestPipeline, first: PlannedRequest, link: Link, second_plan: RequestPlan
) -> tuple[FeatureBatch, FeatureBatch | None]:
    """Fetch the first hop and, for the entities that it names, the second.

    The link's view and the views that only the first hop reads are requested at once. When the link's rows are there,
    the other views are requested: a view of both hops with one request, the keys of the first hop before those of the
    second.

    Args:
        pipeline: reads the rows.
        first: the request of the first hop.
        link: which rows name the entities of the second hop.
        second_plan: the plan of the second hop, from the same catalog as that of the first.

    Returns:
        The batches of both hops; None for the second if the link names no entities.

    Raises:
        NotFoundError: the service of the first hop lacks the link's view.
    """
    views = first.plan.views
    second_index = {view.view.name: index for index, view in enumerate(second_plan.views)}
    link_index = next((index for index, view in enumerate(views) if view.name == link.view), None)
    if link_index is None:
        names = ", ".join(view.name for view in views)
        raise NotFoundError(f"`{first.plan.name}` has no view `{link.view}` that names the second hop; it has {names}")
    early = [i for i in first.plan.read_order if i == link_index or views[i].view.name not in second_index]
    early.sort(key=lambda i: i != link_index)
    for index in early:
        pipeline.send(first.view_request(index))
    first_rows = {link_index: pipeline.receive()}

    ids = link.ids(first.view_rows(link_index, first_rows[link_index]))
    second = second_plan.bind(ids, {}) if len(ids) else None
    late = {i: first.view_request(i) for i in first.plan.read_order if i not in early}
    second_requests = dict(enumerate(second.view_requests())) if second else {}
    shared = {i: second_index[views[i].view.name] for i in late} if second else {}
    only_second = [i for i in second_requests if i not in shared.values()]
    for index, request in late.items():
        pipeline.send(_join_requests(request, second_requests[shared[index]]) if shared else request)
    for index in only_second:
        pipeline.send(second_requests[index])

    first_rows |= {index: pipeline.receive() for index in early[1:]}
    second_rows: dict[int, DecodedRows] = {}
    for index, request in late.items():
        rows, count = pipeline.receive(), len(request.keys)
        first_rows[index] = rows.slice_rows(request.fields, slice(count))
        if shared:
            other = shared[index]
            second_rows[other] = rows.slice_rows(second_requests[other].fields, slice(count, None))
    second_rows |= {index: pipeline.receive() for index in only_second}
    return (
        first.build_batch([first_rows[index] for index in sorted(first_rows)]),
        second.build_batch([second_rows[index] for index in sorted(second_rows)]) if second else None,
    )


def _join_requests(first: ViewRequest, second: ViewRequest) -> ViewRequest:
    """Return one request for the keys of both requests of a view, and for the fields of either."""
    fields = dict.fromkeys((*first.fields, *second.fields))
    return replace(first, fields=tuple(fields), keys=[*first.keys, *second.keys])
