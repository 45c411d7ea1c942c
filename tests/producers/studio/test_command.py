"""`produce studio` as a process: it starts, answers, and ends on SIGTERM; its mistakes get one line."""

import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.deployments import ROOT, clean_environment, run_main
from tests.producers.studio.world import StudioWorld
from tests.producers.text_to_image.tiny_pipeline import save_tiny_pipeline
from tests.servers import free_port

TOKEN = "a-token-of-many-letters"


@pytest.mark.slow
def test_a_studio_answers_until_sigterm_and_refuses_a_second_one(world: StudioWorld, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    save_tiny_pipeline(tmp_path / "model")
    port = free_port()
    options = ["--encoder", str(world.encoder), "--words", str(world.words), "--labels", str(world.labels)]
    options += ["--picture-model", str(tmp_path / "model"), "--port", str(port), "--store", str(world.settings.file)]
    options += ["--token-file", str(tmp_path / "token")]
    command = [sys.executable, "-m", "producers", "studio", *options]
    with subprocess.Popen(
        command, cwd=ROOT, env=clean_environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr
        for line in process.stderr:
            if f"serving http at http://127.0.0.1:{port}" in line:
                break
        headers = {"authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as client:
            assert client.get("/readyz").json() == {"status": "ok"}
            assert client.post("/v1/captions", json={"product_id": "p000"}).json()["candidates"]
            job = client.post("/v1/pictures", json={"sentence": "a hat", "steps": 100, "count": 8}).json()
            assert job["state"] == "queued"
        second = run_main("produce", "studio", *options[:-2])
        assert second.returncode == 1
        assert "studio-pictures" in second.stderr
        process.send_signal(signal.SIGTERM)
        output = process.stdout.read() if process.stdout else ""
        assert process.wait(30) == 0
    assert '"service": "captions"' in output
    assert [one.name for one in (world.settings.local / "studio" / "pictures").iterdir()] == [job["id"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--words", "nowhere.csv"), "nowhere.csv"),
        (("--host", "0.0.0.0"), "give --token-file"),
        (("--serve-url", "localhost"), "--serve-url is `localhost`"),
        (("--tls-key", "key.pem"), "--tls-certificate and --tls-key together"),
        (("--tags-encoder", "x"), "needs --labels"),
        (("--language", "fr"), "--language is `fr`"),
        (("--picture-model", "nowhere"), "nowhere"),
    ],
)
def test_a_mistake_gets_one_line(world: StudioWorld, options: tuple[str, str], message: str) -> None:
    given = ["--encoder", str(world.encoder), "--words", str(world.words), "--store", str(world.settings.file)]
    ended = run_main("produce", "studio", *given, "--port", "0", *options)
    assert ended.returncode in (1, 2)
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
