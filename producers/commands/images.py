"""`produce images`."""

import ipaddress
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feature_repo import console
from feature_repo.console import StoreOption
from feature_repo.errors import UsageError
from feature_repo.table_options import with_table_options

if TYPE_CHECKING:
    from feature_repo.images.picture_folders import BucketFolder
    from feature_repo.table_format import TableFormat


class ImageStoreFormat(StrEnum):
    """Formats of a store that images can be copied to. LMDB is one memory-mapped file that many processes read."""

    LMDB = "lmdb"
    BUCKET = "bucket"


@with_table_options
def images(
    products: Annotated[Path, typer.Option(help="Parquet or CSV with one row for each product, as for `catalogue`.")],
    output: Annotated[
        Path,
        typer.Option("--output", "--out", file_okay=False, help="Folder for the images and for products.parquet."),
    ],
    to: Annotated[
        ImageStoreFormat,
        typer.Option(
            help="lmdb: an LMDB in the folder; bucket: objects below `offline_store.pictures` of the deployment."
        ),
    ] = ImageStoreFormat.LMDB,
    download: Annotated[
        bool,
        typer.Option(
            "--download", help="Download images that are named by an http or https URL and were not downloaded yet."
        ),
    ] = False,
    revalidate: Annotated[
        bool,
        typer.Option("--revalidate", help="Also check whether downloaded images have changed. Implies --download."),
    ] = False,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Maximum number of downloads at the same time.")] = 16,
    per_host: Annotated[
        int, typer.Option(min=1, max=64, help="Maximum number of downloads at the same time from one host.")
    ] = 4,
    host_delay: Annotated[
        float, typer.Option(min=0.0, max=60.0, help="Minimum number of seconds between two requests to one host.")
    ] = 0.05,
    allow_network: Annotated[
        list[str] | None,
        typer.Option(help="Network, such as 10.1.0.0/16, to download from besides public addresses; repeatable."),
    ] = None,
    max_lost_share: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Largest share of the URLs that may fail. If more fail, the rest is written and the exit code is 1.",
        ),
    ] = console.MAX_LOST_SHARE,
    store: StoreOption = None,
    *,
    table_format: "TableFormat",
) -> None:
    """Copy the images of a products table into one LMDB or a bucket, each content once; write a table that names them.

    Give the written table to `produce catalogue`: it recognizes images by their keys and does not read them again.
    """
    from producers.catalogue.pack import pack_images

    folder = _open_bucket_folder(store) if to == ImageStoreFormat.BUCKET else None
    downloads = None
    if download or revalidate:
        from producers.downloads.fetch import FetchLimits
        from producers.downloads.run import DownloadOptions, download_images

        try:
            networks = tuple(ipaddress.ip_network(text) for text in allow_network or ())
        except ValueError as error:
            raise UsageError(f"--allow-network: {error}; expected a network such as 10.1.0.0/16") from error
        limits = FetchLimits(allowed=networks, connections_per_host=per_host)
        options = DownloadOptions(workers=workers, per_host=per_host, delay_seconds=host_delay, limits=limits)
        with console.make_progress_bar() as bar:
            task = bar.add_task("download images", total=None)
            downloads = download_images(
                products,
                output,
                datetime.now(UTC),
                options,
                revalidate=revalidate,
                progress=lambda urls: bar.update(task, completed=urls),
                table_format=table_format,
                folder=folder,
            )
        typer.echo(downloads)
    with console.make_progress_bar() as bar:
        task = bar.add_task("copy images", total=None)
        summary = pack_images(
            products, output, datetime.now(UTC), lambda rows: bar.update(task, completed=rows), table_format, folder
        )
    typer.echo(summary)
    if downloads is not None:
        downloads.require_downloaded(products, max_lost_share)


def _open_bucket_folder(store: Path | None) -> "BucketFolder":
    from feature_repo import config
    from feature_repo.images.picture_folders import BucketFolder

    settings = config.load(store)
    if settings.pictures is None:
        raise UsageError(f"--to bucket: {settings.file} has no offline_store.pictures; set it to s3://BUCKET/PREFIX")
    return BucketFolder(settings.pictures)
