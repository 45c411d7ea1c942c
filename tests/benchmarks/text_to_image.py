"""Pictures that are as asked: a small model on the generated shop, before and after its text encoder is swapped.

    python -m tests.benchmarks.text_to_image --folder FOLDER --record

Makes a shop of the demo's size; trains a text-to-image model on English sentences from random weights; swaps its text
encoder for that of the shop's encoder, which reads Chinese; trains that to match, then by the denoising loss; and
judges the pictures of held-out combinations of category, colour and pattern. A second run in the folder goes on with
what is there. About 90 minutes of one core. --record writes the figures to TEXT_TO_IMAGE.md.
"""

import argparse
import dataclasses
import json
import os
import resource
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from producers.evaluation.encoding import open_text_image_encoder
from producers.evaluation.run import EvaluationRun, format_measure
from producers.text_to_image.judging.judge import judge_pictures, prepare_real_pictures
from producers.text_to_image.judging.pictures import read_attributed_pictures, read_size
from tests.benchmarks import harness

ROOT = Path(__file__).parent.parent.parent
TABLE = Path(__file__).parent / "TEXT_TO_IMAGE.md"
ATTRIBUTES = ("colour", "category", "pattern")
MODELS = {
    "original": ("original", "en"),
    "swapped, not trained": ("swapped", "zh"),
    "matched": ("matched", "zh"),
    "matched, then denoised": ("denoised", "zh"),
}
"""Name in the table -> folder of the checkpoint, and the language of its sentences."""
VARIED = 25
"""Number of sentences that get several pictures each, to measure diversity."""
PICTURES_OF_VARIED = 4


def run_once(folder: Path, output: str, command: str) -> None:
    """Run a `produce` command in the folder unless its output is there, and note its CPU seconds in seconds.json."""
    if (folder / output).exists():
        return
    print(f"produce {command}", flush=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "producers", *shlex.split(command)], cwd=folder, check=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = read_seconds(folder) | {output: after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime}
    (folder / "seconds.json").write_text(json.dumps(seconds, indent=1) + "\n")


def read_seconds(folder: Path) -> dict[str, float]:
    file = folder / "seconds.json"
    return json.loads(file.read_text()) if file.exists() else {}


def train_models(folder: Path, products: int, steps: int) -> None:
    run_once(folder, "shop", f"shop --output shop --products {products} --seed 0")
    for language in ("en", "zh"):
        run_once(
            folder, f"pairs-{language}", f"picture pairs --shop shop --output pairs-{language} --language {language}"
        )
    run_once(folder, "original", "picture pretrain --data pairs-en/train --output original")
    run_once(folder, "encoder", "encoder --data shop --output encoder")
    run_once(folder, "swapped", "picture swap --model original --text-encoder encoder --output swapped")
    options = f"--steps {steps} --learning-rate 1e-3 --precision bfloat16"
    match = "picture match --model swapped --original original --data pairs-zh/train --output matched"
    run_once(folder, "matched", f"{match} {options}")
    denoise = "picture train --model matched --data pairs-zh/train --output denoised"
    run_once(folder, "denoised", f"{denoise} --steps {steps // 2}")


def generate_pictures(folder: Path, sentences: int) -> None:
    lines = (folder / "pairs-zh/held_out/metadata.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines[:sentences]]
    for language, key in (("en", "original_text"), ("zh", "text")):
        asked = [json.dumps(row | {"text": row[key], "zh": row["text"]}, ensure_ascii=False) + "\n" for row in rows]
        (folder / f"{language}.jsonl").write_text("".join(asked))
        (folder / f"{language}-varied.jsonl").write_text("".join(asked[:VARIED]))
    for model, language in MODELS.values():
        generate = f"picture generate --model {model} --batch 50"
        run_once(folder, f"pictures/{model}", f"{generate} --sentences {language}.jsonl --output pictures/{model}")
        varied = f"{generate} --sentences {language}-varied.jsonl --count {PICTURES_OF_VARIED} --seed 1000000"
        run_once(folder, f"varied/{model}", f"{varied} --output varied/{model}")


def judge_models(folder: Path) -> dict[str, EvaluationRun]:
    """Judge each model's pictures, and the real pictures of the same sentences as if they were generated."""
    now = datetime.now(UTC)
    real = read_attributed_pictures(folder / "pairs-zh/train")
    pictures = {name: folder / "pictures" / model for name, (model, _) in MODELS.items()}
    size = read_size(read_attributed_pictures(next(iter(pictures.values()))))
    with open_text_image_encoder(str(folder / "encoder")) as encoder:
        reference = prepare_real_pictures(real, ATTRIBUTES, size, encoder)
        runs = {
            "real pictures of the sentences": judge_pictures(
                read_attributed_pictures(folder / "pairs-zh/held_out"), reference, encoder, now
            )
        }
        for name, (model, _) in MODELS.items():
            run = judge_pictures(read_attributed_pictures(pictures[name], "zh"), reference, encoder, now)
            varied = judge_pictures(read_attributed_pictures(folder / "varied" / model, "zh"), reference, encoder, now)
            diversity = {"diversity": varied.measures["diversity"]}
            runs[name] = dataclasses.replace(run, measures={**run.measures, **diversity})
    return runs


def format_table(runs: dict[str, EvaluationRun], seconds: dict[str, float]) -> list[str]:
    head = ["pictures of", *ATTRIBUTES, "R@1 of the sentence", "Frechet distance", "diversity", "training, CPU minutes"]
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for name, run in runs.items():
        measures = run.measures
        cells = [name]
        for attribute in ATTRIBUTES:
            share, chance = measures[attribute], measures[f"{attribute} chance"]
            interval = f"[{share.low:.3f}, {share.high:.3f}]"
            relative = f"{measures[f'{attribute} relative'].value:.0%} of real, chance {chance.value:.3f}"
            cells.append(f"{share.value:.3f} {interval}, {relative}")
        recall = measures["R@1"]
        cells.append(f"{recall.value:.3f} [{recall.low:.3f}, {recall.high:.3f}]")
        cells += [f"{measures[one].value:.3f}" for one in ("Frechet distance", "diversity")]
        taken = seconds.get(MODELS[name][0]) if name in MODELS else None
        cells.append("" if taken is None else f"{taken / 60:.1f}")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def describe(runs: dict[str, EvaluationRun]) -> list[str]:
    run = runs["original"]
    real = ", ".join(f"{name} {format_measure(run.measures[f'{name} real'])}" for name in ATTRIBUTES)
    recall, distance, diversity = (
        format_measure(run.measures[f"{name} real"]) for name in ("R@1", "Frechet distance", "diversity")
    )
    return [
        f"{run.queries:,} sentences of held-out combinations. The classifier is right on held-out real pictures:",
        f'{real}; "of real" is the share of that. R@1 of as many held-out real pictures {recall},',
        f"their Fréchet distance {distance}, diversity of those with the same attributes {diversity}.",
        "The original reads English, the others Chinese; R@1 finds the Chinese sentence of the same meaning. The",
        "training of the original is that of VAE, UNet and text encoder. The encoder that judges is the one whose text",
        "tower was swapped in, as it was before its training.",
        "",
        *(f"{note}." for note in run.notes),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--products", type=int, default=8000)
    parser.add_argument("--sentences", type=int, default=500)
    parser.add_argument("--steps", type=int, default=1200, help="of matching; half as many of denoising")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    train_models(options.folder, options.products, options.steps)
    generate_pictures(options.folder, options.sentences)
    runs = judge_models(options.folder)
    for run in runs.values():
        print(run)
    lines = [*describe(runs), "", *format_table(runs, read_seconds(options.folder))]
    print("\n".join(lines))
    if options.record:
        heading = f"{options.products:,} products, {options.sentences:,} sentences, {options.steps:,} steps"
        harness.replace_section(TABLE, "Text to image", heading, lines)


if __name__ == "__main__":
    main()
