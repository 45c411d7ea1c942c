"""The features of some entities and of others that a row of theirs names, in one conversation with the store.

    asked at once        the row that names the others, and the views that are wanted of the first entities alone
    when that is read    the views that are wanted of both: one request each, of the first entities and then the others

The former are unpacked while the store looks for the latter, and what two requests would have brought is unpacked once.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from feature_repo.online.feature_batch import Block
from feature_repo.online.request import Ids, Plan, Question
from feature_repo.online.table import Request, Talk
from feature_repo.online.view_rows import ViewRows


@dataclass(frozen=True)
class Link:
    """Entities that a row of the first ones names, and what is asked of them."""

    view: str
    """Of the first ones: its rows are read first of all."""
    ids: Callable[[ViewRows], Ids]
    """The entities, from those rows."""
    name: str
    """A feature service or view."""


def fetch_linked(talk: Talk, question: Question, link: Link, plan: Plan) -> tuple[Block, Block | None]:
    """What a question asks, and what `plan` asks of the entities that are named; None if there are none.

    Args:
        question: of the first entities; the link's view is among its own.
        plan: of what the link asks.
    """
    parts = question.plan.parts
    also = {part.view.name: number for number, part in enumerate(plan.parts)}
    naming = next(number for number, part in enumerate(parts) if part.name == link.view)
    early = [n for n in question.plan.order if n == naming or parts[n].view.name not in also]
    early.sort(key=lambda n: n != naming)
    for number in early:
        talk.ask(question.request(number))
    found = {naming: talk.hear()}

    named = link.ids(question.view(naming, found[naming]))
    others = plan.ask(named, {}) if len(named) else None
    mine = {n: question.request(n) for n in question.plan.order if n not in early}
    theirs = dict(enumerate(others.requests())) if others else {}
    shared = {n: also[parts[n].view.name] for n in mine} if others else {}
    apart = [n for n in theirs if n not in shared.values()]
    for number, request in mine.items():
        talk.ask(_joined(request, theirs[shared[number]]) if shared else request)
    for number in apart:
        talk.ask(theirs[number])

    found |= {number: talk.hear() for number in early[1:]}
    of_others = {}
    for number, request in mine.items():
        rows, count = talk.hear(), len(request.keys)
        found[number] = rows.slice_rows(request.fields, slice(count))
        if shared:
            other = shared[number]
            of_others[other] = rows.slice_rows(theirs[other].fields, slice(count, None))
    of_others |= {number: talk.hear() for number in apart}
    second = others.answer([of_others[number] for number in sorted(of_others)]) if others else None
    return question.answer([found[number] for number in sorted(found)]), second


def _joined(first: Request, second: Request) -> Request:
    """What two requests ask of one view, as one."""
    fields = dict.fromkeys((*first.fields, *second.fields))
    return replace(first, fields=tuple(fields), keys=[*first.keys, *second.keys])
