"""`produce forget`."""

from typing import Annotated

import typer

from feature_repo import config
from feature_repo.console import StoreOption


def forget(
    product: Annotated[list[str] | None, typer.Option(help="A product to forget; repeat for more.")] = None,
    user: Annotated[list[str] | None, typer.Option(help="A user to forget; repeat for more.")] = None,
    store: StoreOption = None,
) -> None:
    """Delete every row of some products and users, offline and online.

    `produce vacuum` then takes the offline bytes off the disk; ids stay in the tables' logs for 30 days, until the next
    vacuum after them.
    """
    from producers import maintenance

    if not product and not user:
        raise typer.BadParameter("name at least one --product or --user")
    forgotten = maintenance.forget(config.load(store), products=product or [], users=user or [])
    for table, rows in forgotten.offline.items():
        typer.echo(f"{table}: {rows:,} rows deleted")
    for view, rows in forgotten.online.items():
        typer.echo(f"{view}, online: {rows:,} rows deleted")
    if forgotten.remembered_by:
        typer.echo(
            f"user_interest: {forgotten.remembered_by:,} users clicked it: ids in their last clicks and its share in "
            "their means stay. To make them anew: take its rows out of the log, `produce forget --user` those users, "
            "and run `produce interests` and `cd feature_repo && feast materialize-incremental TIME`"
        )
    if not forgotten.offline and not forgotten.online:
        typer.echo("there is no row of them, offline or online")
