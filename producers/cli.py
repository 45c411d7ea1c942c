"""`produce`: the command line of those who write features.

A command parses, calls the one function that does the work, and prints what came of it; heavy libraries are imported
inside it, so that `produce --help` answers at once.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from feature_repo import console, settings

app = typer.Typer(
    help="Turn a catalogue's images and titles into features.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store",
        envvar=settings.ENVIRONMENT_VARIABLE,
        help="The deployment's feature_store.yaml.",
        show_default="feature_repo/feature_store.yaml",
    ),
]


@app.callback()
def _root() -> None:
    """Turn a catalogue's images and titles into features."""


@app.command()
def shop(
    out: Annotated[Path, typer.Option(help="Folder to write; an earlier shop in it is replaced.")],
    products: Annotated[int, typer.Option(help="Products for sale.")] = 8000,
    users: Annotated[int, typer.Option(help="Users who visit.")] = 1500,
    days: Annotated[int, typer.Option(max=36_500, help="Days of impressions, from 2026-01-01.")] = 60,
    seed: Annotated[int, typer.Option(help="Another seed is another shop of the same kind.")] = 0,
    language: Annotated[str, typer.Option(help="Of titles, brands and categories: zh or en.")] = "zh",
    impressions_per_user: Annotated[int, typer.Option(help="Impressions per user, about, over all days.")] = 600,
) -> None:
    """Generate a mother-and-baby shop whose truth is known: products, pictures, users, impressions, labels."""
    from producers.shop.write import make_shop

    made = make_shop(
        out,
        products=products,
        users=users,
        days=days,
        seed=seed,
        language=language,
        impressions_per_user=impressions_per_user,
    )
    typer.echo(
        f"{out}: {made.products:,} products of {made.designs:,} designs, {made.impressions:,} impressions, "
        f"{made.clicks:,} clicks ({made.clicks / max(made.impressions, 1):.1%})"
    )


@app.command("import")
def import_(
    name: Annotated[str, typer.Argument(help="flipkart_1050, grocery, beibei_zh, mum_baby, movielens or abt_buy.")],
    source: Annotated[Path, typer.Option("--from", help="Folder that holds the set's own files; it is only read.")],
    out: Annotated[Path, typer.Option(help="Folder to write; an earlier import in it is replaced.")],
) -> None:
    """Bring a public data set into the shape of a shop: products, impressions, users, labels, as far as it has them.

    Pictures stay where they lie. What was left out or mended stands in OUT/refused.parquet with its reason.
    """
    from producers.imports.sets import bring_in

    typer.echo(bring_in(name, source, out, datetime.now(UTC)))


@app.command()
def catalogue(
    products: Annotated[Path, typer.Option(help="Parquet or CSV with one row per product.")],
    store: StoreOption = None,
) -> None:
    """Check the products of a shop and add what is new or changed to the catalogue.

    Bad rows go to the quarantine table with their reason; the rest goes on.
    """
    from producers.catalogue import take_in

    typer.echo(take_in(settings.load(store), products, datetime.now(UTC)))


@app.command()
def encoder(
    data: Annotated[Path, typer.Option(help="Folder whose products.parquet has titles and pictures to learn from.")],
    out: Annotated[Path, typer.Option(help="Folder to write the checkpoint to.")],
    pairs: Annotated[
        int, typer.Option(min=1, help="Image-text pairs to learn from, repeats included; a minute on 2 cores.")
    ] = 60_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the weights, the order and the crops.")] = 0,
) -> None:
    """Train a small image-text encoder on a catalogue, from nothing.

    The outcome is an ordinary transformers checkpoint; `produce embeddings` takes it, or any CLIP, as --encoder.
    """
    from producers.encoder import train_encoder

    with console.progress_bar() as bar:
        task = bar.add_task("train encoder", total=None)
        made = train_encoder(
            data,
            out,
            pairs_seen=pairs,
            seed=seed,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    typer.echo(
        f"{out}: learnt from {made.pairs:,} products in {made.steps:,} steps, loss {made.loss:.3f}; "
        f"{made.left_out:,} products left out, without a title or a usable picture"
    )


@app.command()
def embeddings(
    encoder: Annotated[
        str,
        typer.Option(help="A CLIP, Chinese-CLIP, SigLIP or sentence-encoder checkpoint: a directory or a hub name."),
    ],
    store: StoreOption = None,
) -> None:
    """Turn every product's image and title into vectors, except those that this encoder has seen before.

    Unusable pictures go to the quarantine table with their reason; such a product goes on with its title.
    """
    from producers.embeddings import embed_catalogue

    with console.progress_bar() as bar:
        task = bar.add_task("encode products", total=None)
        done = embed_catalogue(
            settings.load(store),
            encoder,
            now=datetime.now(UTC),
            progress=lambda so_far, total: bar.update(task, completed=so_far, total=total),
        )
    typer.echo(done)


@app.command()
def tags(
    labels: Annotated[
        Path,
        typer.Option(help="Parquet: product_id, tag, value, and optionally group (products of one design share it)."),
    ],
    encoder_version: Annotated[
        str | None, typer.Option(help="Whose vectors to use.", show_default="the newest")
    ] = None,
    abstain: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="A label less probable than this is stored as unknown.")
    ] = 0.5,
    store: StoreOption = None,
) -> None:
    """Tag every product with child age, child gender and category, learned from labelled ones."""
    from producers.tags import tag_products

    done = tag_products(
        settings.load(store),
        labels,
        encoder_version=encoder_version,
        abstain=abstain,
        now=datetime.now(UTC),
        track=lambda fits: console.track(fits, "fit taggers"),
    )
    typer.echo(
        f"{done.tagger_version}: {done.rows} rows added to product_tags, {done.predictions} to tag_predictions; "
        f"learned from {done.labels} labels on vectors of {done.encoder_version}; {done.refused} labels quarantined"
    )
    for tag in done.unlearnt:
        typer.echo(f"{tag}: not tagged, the training split shows fewer than two of its labels")


@app.command()
def forget(
    product: Annotated[list[str] | None, typer.Option(help="A product to forget; repeat for more.")] = None,
    user: Annotated[list[str] | None, typer.Option(help="A user to forget; repeat for more.")] = None,
    store: StoreOption = None,
) -> None:
    """Delete every row of some products and users, offline and online.

    `produce vacuum` then takes the offline bytes off the disk.
    """
    from producers import upkeep

    if not product and not user:
        raise typer.BadParameter("name at least one --product or --user")
    forgotten = upkeep.forget(settings.load(store), products=product or [], users=user or [])
    for table, rows in forgotten.offline.items():
        typer.echo(f"{table}: {rows:,} rows deleted")
    for view, rows in forgotten.online.items():
        typer.echo(f"{view}, online: {rows:,} rows deleted")
    if not forgotten.offline and not forgotten.online:
        typer.echo("there is no row of them, offline or online")


@app.command()
def vacuum(
    grace_hours: Annotated[
        int,
        typer.Option(
            min=0, max=87_600, help="Leave files let go within these hours: readers may still have them open."
        ),
    ] = 1,
    store: StoreOption = None,
) -> None:
    """Drop rows corrected longer ago than `retention_days`, join small files, remove files that no row lies in."""
    from producers import upkeep

    done = upkeep.vacuum(settings.load(store), now=datetime.now(UTC), grace=timedelta(hours=grace_hours))
    for each in done:
        typer.echo(f"{each.table}: {each.rows_dropped:,} corrected rows dropped, {each.files_removed:,} files removed")


def main() -> None:
    """Entry point of the console script."""
    console.run(app)


if __name__ == "__main__":
    main()
