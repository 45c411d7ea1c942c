"""`produce forget`."""

from typing import Annotated

import typer

from feature_repo import config
from feature_repo.console import StoreOption


def forget(
    product: Annotated[list[str] | None, typer.Option(help="A product id; may be repeated.")] = None,
    user: Annotated[list[str] | None, typer.Option(help="A user id; may be repeated.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be deleted, and delete nothing.")
    ] = False,
    store: StoreOption = None,
) -> None:
    """Delete every row of the given products and users, offline and online.

    `produce vacuum` then removes the bytes, and 26 hours later the ids in the tables' logs; with --grace-hours 0 at
    once.
    """
    from producers import maintenance

    if not product and not user:
        raise typer.BadParameter("give at least one --product or --user")
    summary = maintenance.forget(config.load(store), products=product or [], users=user or [], dry_run=dry_run)
    if dry_run:
        typer.echo("dry run, nothing is deleted; the run would report:")
    for table, rows in summary.offline.items():
        typer.echo(f"{table}: {rows:,} rows deleted")
    for view, rows in summary.online.items():
        typer.echo(f"{view}, online: {rows:,} rows deleted")
    if summary.pictures:
        typer.echo(f"pictures of `produce images`: {summary.pictures:,} deleted")
    if summary.contents:
        typer.echo(f"caches of encoders: {summary.contents:,} vectors and tower outputs deleted")
    if summary.users_with_clicks:
        typer.echo(
            f"user_interest: {summary.users_with_clicks:,} users clicked it: ids in their last clicks and its share in "
            "their means stay. To rebuild these users: remove the product's rows from the log, run `produce forget "
            "--user` for them, then `produce interests` and `cd feature_repo && feast materialize-incremental TIME`"
        )
    if not summary.offline and not summary.online:
        typer.echo("there is no row of them, offline or online")
