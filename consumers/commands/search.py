"""`consume search`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feature_repo import config, console
from feature_repo.console import StoreOption
from feature_repo.errors import UsageError
from feature_repo.files.atomic_write import prepare_output_files

if TYPE_CHECKING:
    from feature_repo.config import Settings
    from feature_repo.index.filters import ProductFilter


def search(
    towers: Annotated[Path, typer.Option(help="Folder that `produce export` wrote, of the encoder of the index.")],
    sentence: Annotated[str | None, typer.Argument(help="What to look for, such as '奶油风 宝宝餐椅'.")] = None,
    category: Annotated[
        list[str] | None, typer.Option(help="A category path, or the name of one level; may be repeated.")
    ] = None,
    brand: Annotated[list[str] | None, typer.Option(help="A brand; may be repeated.")] = None,
    price_min: Annotated[float | None, typer.Option(help="Lowest price, inclusive.")] = None,
    price_max: Annotated[float | None, typer.Option(help="Highest price, inclusive.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="A predicted tag, such as child_age=1-3y; may be repeated.")
    ] = None,
    in_stock: Annotated[bool, typer.Option("--in-stock", help="Only products that the shop has in stock.")] = False,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of products to select.", show_default="200")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write the selection: .csv, or .html for a page of pictures.")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Weights and cut-offs that `consume calibrate-search` wrote.")
    ] = None,
    no_cutoff: Annotated[
        bool, typer.Option("--no-cutoff", help="Keep products below the cut-offs of the calibration.")
    ] = False,
    collapse: Annotated[bool, typer.Option("--collapse", help="Show one of each set of near-duplicates.")] = False,
    save: Annotated[str | None, typer.Option(help="Save the search under this name.")] = None,
    again: Annotated[
        str | None, typer.Option(help="Run a saved search again, and list the products that came and went since.")
    ] = None,
    queries: Annotated[Path | None, typer.Option(help="With --muge: MUGE's queries, such as test_texts.jsonl.")] = None,
    muge: Annotated[
        Path | None, typer.Option(help="Search each of --queries, and write a file as MUGE's submission wants it.")
    ] = None,
    triton: Annotated[
        str | None,
        typer.Option(help="http://HOST:PORT of a Triton server that serves the --towers.", show_default="in-process"),
    ] = None,
    page: Annotated[int, typer.Option(min=1, help="Page of the results to print.")] = 1,
    page_size: Annotated[int, typer.Option(min=1, max=1000, help="Products of a printed page.")] = 20,
    store: StoreOption = None,
) -> None:
    """Select products by a sentence: by their titles, by what their pictures look like, and by vectors.

    Reads the index of `produce index` and an export; needs neither torch nor the encoder. Needs the
    extra `search`.
    """
    from feature_repo.extras import require

    require("search", "bm25s", "rjieba", "faiss", "onnxruntime", "tokenizers")
    from consumers.search import calibration as calibrations
    from consumers.search import contact_sheet, saved, terminal
    from consumers.search.selection import DEFAULT_TOP_K, search_products
    from feature_repo.exported.encoder import open_encoder
    from feature_repo.index import saved_searches
    from feature_repo.index.filters import ProductFilter
    from feature_repo.index.product_index import open_index
    from feature_repo.index.rows import find_folder
    from feature_repo.offline import production

    settings = config.load(store)
    where = ProductFilter(
        tuple(category or ()), tuple(brand or ()), price_min, price_max, parse_tags(tag or []), in_stock
    )
    if again is not None:
        if sentence is not None or not where.is_empty or top_k is not None or collapse or save is not None:
            raise UsageError("--again takes sentence, filter and options from the saved search; give it alone")
        sentence, where, options = saved.read_selection(settings, again)
        top_k, collapse, save = options["top_k"], options["collapse"], again
        calibration = calibration or (Path(options["calibration"]) if options["calibration"] else None)
    if muge is not None or queries is not None:
        if muge is None or queries is None or sentence is not None or output is not None or save is not None:
            raise UsageError("--muge and --queries go together, without a sentence, --output, --save and --again")
        _write_muge(settings, towers, triton, queries, muge, where, calibration)
        return
    if sentence is None:
        raise UsageError("no sentence; give what to look for, or --again NAME")
    if output is not None:
        contact_sheet.check_suffix(output)
        prepare_output_files(output)
    if save is not None:
        saved_searches.check_name(save)
    encoder = open_encoder(towers, triton=triton)
    index = open_index(find_folder(settings, encoder.encoder_version), encoder.encoder_version)
    if (current := production.read_version(settings.offline)) not in (None, encoder.encoder_version):
        message = f"note: {current} is in production; {towers} and its index are of {encoder.encoder_version}"
        typer.echo(message, err=True)
    result = search_products(
        index,
        encoder,
        sentence,
        where=where,
        top_k=top_k or DEFAULT_TOP_K,
        calibration=None if calibration is None else calibrations.read_calibration(calibration),
        collapse=collapse,
        ends_at_cutoff=not no_cutoff,
    )
    console.print_tables(terminal.render_page(result, page, page_size))
    if output is not None:
        contact_sheet.write_selection(settings, result, output)
        typer.echo(f"{output}: {result.products.num_rows:,} products")
    if save is not None:
        options = {
            "top_k": top_k or DEFAULT_TOP_K,
            "collapse": collapse,
            "calibration": None if calibration is None else str(calibration.resolve()),
        }
        changes = saved.save_selection(
            settings, save, result, options, datetime.now(UTC), encoder_version=index.encoder_version
        )
        typer.echo(f"saved as {save}" if changes is None else changes)


def _write_muge(
    settings: "Settings",
    towers: Path,
    triton: str | None,
    queries: Path,
    output: Path,
    where: "ProductFilter",
    calibration: Path | None,
) -> None:
    """Search each query of a file of MUGE, and write the predictions."""
    from consumers.search.calibration import read_calibration
    from consumers.search.muge_predictions import predict_images, read_searchable_queries
    from feature_repo.evaluation.muge import write_predictions
    from feature_repo.exported.encoder import open_encoder
    from feature_repo.index.product_index import open_index
    from feature_repo.index.rows import find_folder

    prepare_output_files(output)
    encoder = open_encoder(towers, triton=triton)
    index = open_index(find_folder(settings, encoder.encoder_version), encoder.encoder_version)
    found = read_searchable_queries(queries, index, encoder)
    with console.make_progress_bar() as bar:
        task = bar.add_task("search", total=len(found))
        ranked = predict_images(
            index,
            encoder,
            found,
            where=where,
            calibration=None if calibration is None else read_calibration(calibration),
            progress=lambda done: bar.update(task, completed=done),
        )
    write_predictions(output, found, ranked)
    typer.echo(f"{output}: {len(found):,} queries")


def parse_tags(texts: list[str]) -> dict[str, str]:
    """Return tags given as NAME=VALUE.

    Raises:
        UsageError: a text has no `=`.
    """
    if wrong := [text for text in texts if "=" not in text]:
        raise UsageError(f"--tag {wrong[0]}: expected NAME=VALUE, such as child_age=1-3y")
    return dict(text.split("=", 1) for text in texts)
