"""The assembled encoder beside the small one, on the sets of a folder."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from tests.benchmarks.harness import RecordOption
from tests.benchmarks.photographs import report, retrieval, sets, tags
from tests.benchmarks.photographs.encoders import Train, train_assembled, train_assembled_with_words, train_small
from tests.benchmarks.photographs.report import PairedFigure
from tests.benchmarks.photographs.retrieval import RetrievalResult


def measure_flipkart(data: Path, work: Path, folds: int) -> list[PairedFigure]:
    """Search for names."""
    products = sets.read_products("flipkart_1050", data)
    return compare_encoders(
        "flipkart_1050",
        "name to its own picture",
        "names",
        lambda train: retrieval.measure_names(products, train, work / "flipkart_1050", folds),
    )


def measure_categories(data: Path, work: Path, folds: int) -> list[PairedFigure]:
    """Predict categories."""
    return tags.measure_tags(sets.read_products("flipkart_1050", data), work / "flipkart_1050", folds)


def measure_grocery(data: Path, work: Path, folds: int) -> list[PairedFigure]:
    """Search for descriptions of classes."""
    photos = sets.read_grocery(data)
    what = "description of a class to its photos"
    return compare_encoders(
        "grocery", what, "classes", lambda train: retrieval.measure_classes(photos, train, work / "grocery", folds)
    )


def measure_beibei(data: Path, work: Path, folds: int) -> list[PairedFigure]:
    """Search for Chinese names, by the words of the shop alone."""
    products = sets.read_products("beibei_zh", data)
    return compare_encoders(
        "beibei_zh",
        "Chinese name to its own picture, words without a text tower",
        "names",
        lambda train: retrieval.measure_names(products, train, work / "beibei_zh", folds),
        ours=train_assembled_with_words,
    )


MEASURES: dict[str, Callable[[Path, Path, int], list[PairedFigure]]] = {
    "flipkart_1050": measure_flipkart,
    "flipkart_1050_tags": measure_categories,
    "grocery": measure_grocery,
    "beibei_zh": measure_beibei,
}


def compare_encoders(
    name: str, what: str, queries: str, measure: Callable[[Train], RetrievalResult], ours: Train = train_assembled
) -> list[PairedFigure]:
    """Measure the small and the assembled encoder on the same folds."""
    small, assembled = measure(train_small), measure(ours)
    seconds = f"CPU seconds of a training: small {small.seconds:.0f}, heads {assembled.seconds:.1f}"
    return [
        PairedFigure(
            name,
            f"{what}, {measure_name}",
            f"small {other.mean():.3f}",
            f"{own.mean():.3f}",
            report.format_difference(own, other, assembled.clusters),
            f"{len(own):,} {queries}",
            seconds,
        )
        for measure_name, own in assembled.values.items()
        for other in [small.values[measure_name]]
    ]


def quality(
    data: Annotated[Path, typer.Option(help="Folder of the sets, one folder each.")],
    work: Annotated[
        Path | None,
        typer.Option(
            help="Folder for checkpoints and outputs of towers; those of an earlier run are used again.",
            show_default="a temporary folder",
        ),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="One measure, named by its set; can be repeated. All by default.")
    ] = None,
    folds: Annotated[
        int, typer.Option(min=1, max=sets.FOLDS, help="Folds that are held out and measured, one at a time.")
    ] = sets.FOLDS,
    record: RecordOption = False,
) -> None:
    """Search and tag products that the encoders have not seen."""
    figures = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in only or MEASURES:
            figures += MEASURES[name](data, work or Path(temporary), folds)
    print("\n".join(figure.render() for figure in figures))
    if record:
        report.record(figures)
