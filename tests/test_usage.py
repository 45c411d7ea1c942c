"""Invalid options exit with code 2 and a reason before any work; other errors exit with 1 and one line."""

import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from consumers import cli as consume
from feature_repo import console
from producers import cli as produce

FOLDER = Path(__file__).parent

REFUSED = {
    "produce shop --out new --products 0": "--products is 0",
    "produce shop --output new --products 99999999999999999999": "'--products'",
    "produce shop --output new --users -1": "--users is -1",
    "produce shop --output new --days 0": "--days is 0",
    "produce shop --output new --days 99999999999": "'--days'",
    "produce shop --output new --seed -1": "--seed is -1",
    "produce shop --output new --language fr": "--language is 'fr'",
    "produce import nothing --from . --output new": "no data set `nothing`",
    "produce images --products p.parquet --output new --to zip": "'--to'",
    "produce encoder --data . --output new --pairs 0": "--pairs is '0'",
    "produce encoder --data . --output new --pairs labels.csv": "a file of labels needs --task",
    "produce encoder --data . --output new --task ranking --from x": "--task is 'ranking'",
    "produce encoder --data . --output new --task matching": "name it by --from",
    "produce encoder --data . --output new --task matching --from x --batch 9": "--batch is for other trainings",
    "produce encoder --data . --output new --tag-labels labels.parquet": "give --task matching or selection",
    "produce encoder --data . --output new --seed -1": "'--seed'",
    "produce embeddings --encoder . --engine spark": "'--engine'",
    "produce picture pairs --shop . --output new --hold-out 0": "'--hold-out'",
    "produce tags --labels labels.parquet --abstain 1.5": "'--abstain'",
    "produce tags --labels labels.parquet --abstain nan": "'--abstain'",
    "produce runs --last 0": "'--last'",
    "produce forget": "--product or --user",
    "produce vacuum --grace-hours -1": "'--grace-hours'",
    "produce vacuum --grace-hours 99999999999999": "'--grace-hours'",
    "consume lift --impressions log.parquet --test-days 0": "'--test-days'",
    "consume lift --impressions log.parquet --test-days nan": "'--test-days'",
    "consume lift --impressions log.parquet --test-days inf": "'--test-days'",
    "consume export-training --impressions log.parquet": "'--output'",
    "consume lift --impressions log.parquet --seeds 0": "'--seeds'",
    "consume lift --impressions log.parquet --permutations 0": "'--permutations'",
    "consume lift --impressions log.parquet --ladder-rows 10": "'--ladder-rows'",
    "consume lift --impressions log.parquet --ranker forest": "'--ranker'",
    "consume lift --impressions log.parquet --replicates 1": "'--replicates'",
    f"consume lift --impressions log.parquet --json {FOLDER}": "'--json'",
    f"consume lift --impressions log.parquet --report {FOLDER}": "'--report'",
    "consume tags-report --seed -1": "'--seed'",
    "consume freshness --now 2026-03-01T12:00": "without an offset from UTC: '2026-03-01T12:00'",
    "consume freshness --now 2026-03-01": "without an offset from UTC: '2026-03-01'",
    "consume freshness --now yesterday": "not a timestamp: 'yesterday'",
    "consume freshness --max-age soon": "not a duration: 'soon'",
    "consume freshness --max-age 0d": "not a duration: '0d'",
    "consume freshness --max-age -1h": "not a duration: '-1h'",
    "consume freshness --max-age 99999999999d": "not a duration: '99999999999d'",
    "consume freshness --shop x": "--shop",
    "consume serve --host 0.0.0.0": "without a token",
    "consume serve --flight-port -1 --http-port -1": "give a port to at least one of them",
    "consume serve --flight-port 9000 --http-port 9000": "--http-port 9000 is one of Flight's ports",
    "consume serve --flight-port 9000 --http-port 9002 --processes 3": "--http-port 9002 is one of Flight's ports",
    "consume serve --flight-port 65535 --processes 2": "needs ports above 65535",
    "consume serve --tls-key key.pem": "give --tls-certificate and --tls-key together",
    "consume serve --max-ids 0": "'--max-ids'",
    'produce shop --output ""': "the value of --output is empty",
    'produce --quiet upgrade start --encoder ""': "the value of --encoder is empty",
    "produce catalogue --products=": "the value of --products is empty",
    "produce": "",
    "consume nothing": "nothing",
}


@pytest.mark.parametrize("line", REFUSED)
def test_an_invalid_option_value_exits_with_2_and_a_reason(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", shlex.split(line))
    with pytest.raises(SystemExit) as ended:
        console.run_command_line((produce if line.startswith("produce") else consume).app)
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert REFUSED[line] in said
    if said.startswith("error:"):
        assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_error_that_quotes_a_broken_file_is_one_line_without_control_characters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    header = "product_id,title,image,category,brand,price,updated_at\n"
    (tmp_path / "products.csv").write_text(header + "\x1b[2J\x07\n")
    (tmp_path / "feature_store.yaml").write_text("project: shop\noffline_store:\n  path: tables\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["produce", "catalogue", "--products", "products.csv"])
    with pytest.raises(SystemExit) as ended:
        console.run_command_line(produce.app)
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert "\ufffd[2J" in said
    assert "\x1b[2J" not in said
    assert said.count("\n") == 1


def test_a_file_that_cannot_be_written_exits_with_1_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "taken").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["produce", "shop", "--output", "taken/shop", "--products", "3"])
    with pytest.raises(SystemExit) as ended:
        console.run_command_line(produce.app)
    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: taken/shop/images: Not a directory; correct the path\n"


def test_an_unwritable_json_path_is_reported_before_the_work_begins(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "taken").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["consume", "lift", "--impressions", "none.parquet", "--json", "taken/lift.json"])
    with pytest.raises(SystemExit) as ended:
        console.run_command_line(consume.app)
    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: taken: File exists; name another path, or remove what is there\n"


def test_a_file_with_two_columns_of_one_name_raises_an_error_with_the_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    table = pa.table([["a"], ["b"], ["c"]], names=["product_id", "title", "title"])
    pq.write_table(table, tmp_path / "products.parquet")
    (tmp_path / "products.csv").write_text("product_id,title,title\na,b,c\n")
    (tmp_path / "feature_store.yaml").write_text("project: shop\noffline_store:\n  path: tables\n")
    monkeypatch.chdir(tmp_path)
    for name in ("products.parquet", "products.csv"):
        monkeypatch.setattr(sys, "argv", ["produce", "catalogue", "--products", name])
        with pytest.raises(SystemExit) as ended:
            console.run_command_line(produce.app)
        assert ended.value.code == 1
        said = capsys.readouterr().err
        assert said == f"error: {name}: there is more than one column title; remove or rename all but one\n"


def test_a_character_outside_of_the_terminals_encoding_is_replaced(tmp_path: Path) -> None:
    code = "import typer; from feature_repo import console; app = typer.Typer(); app.command()(lambda: print('女童…'))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; console.run_command_line(app)"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(FOLDER.parent)},
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "???\n", "")


def test_a_metrics_port_in_use_is_one_line_that_names_the_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "feature_store.yaml").write_text("project: shop\noffline_store:\n  path: tables\n")
    monkeypatch.chdir(tmp_path)
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(sys, "argv", ["produce", "stream", "--encoder", ".", "--metrics-port", str(port)])
        with pytest.raises(SystemExit) as ended:
            console.run_command_line(produce.app)
    for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
        signal.signal(number, handler)
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert f"error: metrics cannot be served at 127.0.0.1:{port} (Address already in use)" in said
    assert "--metrics-port" in said
