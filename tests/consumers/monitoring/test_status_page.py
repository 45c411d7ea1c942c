"""The status page: what it shows and loads, and how a browser renders it."""

import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from consumers.monitoring import status_page
from consumers.monitoring.watcher import ReadStates, WatchedCheck, Watcher
from feature_repo.config import Settings
from tests.consumers.monitoring.conftest import NOW, clock, failing
from tests.deployments import run_main

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: Debian's package chromium has it")


def app(read_states: ReadStates, report: Path | None = None, later: timedelta = timedelta(0)) -> FastAPI:
    made = FastAPI()
    made.include_router(status_page.create_router(read_states, lambda: NOW + later, lift_report=report))
    return made


def shown(watcher: Watcher, **options: object) -> str:
    answer = TestClient(app(watcher.states, **options)).get("/status")  # type: ignore[arg-type]
    assert answer.status_code == 200
    return answer.text


def test_the_page_shows_the_checks_the_runs_and_what_to_do_first(watcher: Watcher) -> None:
    text = shown(watcher)
    for part in ("freshness", "consistency", "drift", "runs", "alarms", "first-feature"):
        assert f'id="{part}"' in text
    assert "open some of today&#39;s images" in text
    assert "keys differ from the offline store" in text
    assert "out of labels" in text
    assert 'href="/status/lift"' not in text


def test_alarms_with_one_first_step_are_one_alarm() -> None:
    views = ("catalogue", "embedding", "tags", "codes")
    lines = [f"product_{view}: late; run `produce catalogue` first" for view in views]
    lines += ["online: run `cd feature_repo && feast materialize-incremental X`", "the clock is wrong", "no labels"]
    groups = status_page.group_by_cause("freshness", lines)
    assert [(group.line, group.others) for group in groups] == [
        (lines[0], lines[1:4]),
        *((line, []) for line in lines[4:]),
    ]
    code = f"import json, sys; open(sys.argv[2], 'w').write(json.dumps({{'breaches': {lines[:4]}}}))"
    watching = Watcher([WatchedCheck("late", ("python3", "-c", code), timedelta(minutes=5))], lambda: NOW)
    watching.run_check("late")
    text = shown(watching)
    assert ">1 alarm</b>" in text
    assert "<title>(1) Vitrine status</title>" in text
    assert "3 more with the same first step" in text
    assert all(view in text for view in views)


def test_the_page_shows_the_waiting_times_of_streamed_products_as_bars(watcher: Watcher) -> None:
    result = TestClient(app(watcher.states)).get("/status/figures").json()["freshness"]["figures"]["first_feature"]
    assert result["bounds"] == [0.5, 1.0, 2.0, 5.0, 10.0, 60.0, 300.0]
    assert result["counts"] == [2, 1, 0, 3, 0, 0, 0, 1], "half a second is within half a second; tomorrow is not known"
    text = shown(watcher)
    bars = re.findall(r"<td>(up to [^<]+|longer)</td><td class=\"bar\">(?:<div style=\"width: ([\d.]+)%)?", text)
    assert [(name, float(width or 0)) for name, width in bars][:4] == [
        ("up to 0.5 s", pytest.approx(200 / 3)),
        ("up to 1 s", pytest.approx(100 / 3)),
        ("up to 2 s", 0.0),
        ("up to 5 s", 100.0),
    ]
    assert "7 in 7d; p50 3 s" in text


def test_the_page_escapes_text_from_the_shop(watcher: Watcher) -> None:
    text = shown(watcher)
    assert "&lt;script&gt;alert(1)" in text
    assert "<script>alert(1)" not in text


def test_the_page_loads_no_other_resource_and_forbids_it(watcher: Watcher) -> None:
    answer = TestClient(app(watcher.states)).get("/status")
    assert not re.findall(r"""(?:src|href)=["'](?!/)|url\(|@import|https?://""", answer.text)
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"


def test_the_page_links_to_the_lift_report_if_there_is_one(watcher: Watcher, report: Path) -> None:
    client = TestClient(app(watcher.states, report))
    assert 'href="/status/lift"' in client.get("/status").text
    assert client.get("/status/lift").text == "<h1>lift</h1>"
    report.unlink()
    assert client.get("/status/lift").status_code == 404
    assert TestClient(app(watcher.states)).get("/status/lift").json()["error"] == "NOT_FOUND"


def test_a_failed_check_is_shown_with_its_error(watcher: Watcher) -> None:
    failed = Watcher([failing("drift")], clock)
    failed.run_check("drift")
    text = shown(failed)
    assert "check failed" in text
    assert "the store does not answer" in text
    assert 'id="drift"' not in text, "there are no figures"
    assert TestClient(app(failed.states)).get("/status/figures").json()["drift"]["figures"] is None


def test_a_failure_keeps_the_last_figures_and_shows_their_age(tmp_path: Path) -> None:
    code = """import os, sys
if os.path.exists(sys.argv[1]):
    sys.exit("gone")
open(sys.argv[3], "w").write('{"breaches": ["late"]}')"""
    switch = tmp_path / "gone"
    moments = iter([NOW, NOW + timedelta(minutes=9)])
    watching = Watcher(
        [WatchedCheck("other", ("python3", "-c", code, str(switch)), timedelta(minutes=5))], lambda: next(moments)
    )
    assert watching.run_check("other").breaches == ["late"]
    switch.touch()
    state = watching.run_check("other")
    assert (state.failure, state.breaches, state.refreshed) == ("gone", ["late"], NOW)
    assert "the figures below are from 10m ago" in shown(watching, later=timedelta(minutes=10))


def test_figures_older_than_two_intervals_are_overdue(watcher: Watcher) -> None:
    assert "overdue" not in shown(watcher, later=timedelta(minutes=10))
    assert shown(watcher, later=timedelta(minutes=12)).count("overdue") == 2, "drift is looked at less often"


def test_a_check_without_a_result_does_not_show_zero_alarms() -> None:
    text = shown(Watcher([failing("freshness")], clock))
    assert "first run in progress" in text
    assert "0 alarms" not in text


def test_the_results_are_available_as_json(watcher: Watcher) -> None:
    result = TestClient(app(watcher.states)).get("/status/figures").json()
    assert result["consistency"]["refreshed"] == NOW.isoformat()
    assert result["freshness"]["figures"]["slices"]


def test_checks_repeat_and_end_with_the_watcher(tmp_path: Path) -> None:
    count = tmp_path / "count"
    code = "import sys; open(sys.argv[1], 'a').write('.'); open(sys.argv[3], 'w').write('{\"breaches\": []}')"
    slow = WatchedCheck("slow", ("sleep", "60"), timedelta(hours=1))
    check = WatchedCheck("counted", ("python3", "-c", code, str(count)), timedelta(milliseconds=1))
    with Watcher([check], clock) as watching:
        until(lambda: count.exists() and len(count.read_text()) >= 3)
        assert watching.states()[0].figures == {"breaches": []}
    began = time.monotonic()
    with Watcher([slow], clock):
        time.sleep(0.3)
    assert time.monotonic() - began < 5, "a check under way is stopped"


def test_a_check_that_cannot_be_started_is_a_failure_and_the_others_go_on(tmp_path: Path) -> None:
    code = "import sys; open(sys.argv[2], 'w').write('{\"breaches\": []}')"
    checks = [
        WatchedCheck("missing", (str(tmp_path / "no-such-program"),), timedelta(hours=1)),
        WatchedCheck("sound", ("python3", "-c", code), timedelta(hours=1)),
    ]
    with Watcher(checks, clock) as watching:
        until(lambda: watching.states()[1].figures)
        assert watching.states()[0].failure == f"{checks[0].command[0]}: cannot be run: No such file or directory"


def until(holds: object, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.05)


@contextmanager
def served(made: FastAPI) -> Iterator[str]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(made, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        until(lambda: server.started)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@needs_chromium
def test_a_browser_shows_the_page_on_a_phone_and_reloads_it(watcher: Watcher) -> None:
    from playwright.sync_api import sync_playwright

    changing = {state.check.name: state for state in watcher.states()}
    with served(app(lambda: list(changing.values()))) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        try:
            for width in (1280, 390):
                tab = browser.new_page(viewport={"width": width, "height": 844})
                requested, errors = [], []
                tab.on("request", lambda request, requested=requested: requested.append(request.url))
                tab.on("console", lambda message, errors=errors: errors.append(message.text))
                tab.goto(f"{url}/status")
                assert tab.locator("#alarms li").count() >= 2
                assert tab.locator("#check-drift").inner_text().startswith("drift")
                assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
                small = tab.evaluate(
                    "[...document.querySelectorAll('p, td, li, b')].filter(e => e.offsetParent"
                    " && parseFloat(getComputedStyle(e).fontSize) < 12).length"
                )
                assert small == 0, "readable without a magnifying glass"
                tab.locator("#freshness summary").click()
                assert tab.locator("#freshness details table").is_visible()
                changing["drift"] = Watcher([failing("drift")], clock).run_check("drift")
                tab.evaluate("reload()")
                tab.locator("#check-drift", has_text="check failed").wait_for(timeout=5000)
                assert tab.locator("#freshness details table").is_visible(), "what was opened stays open"
                assert all(one.startswith(url) for one in requested)
                assert [one for one in errors if "favicon" not in one] == []
                changing |= {state.check.name: state for state in watcher.states()}
                tab.close()
        finally:
            browser.close()


def test_the_server_shows_the_page_and_the_metrics_of_its_deployment(shop: Settings) -> None:
    command = [sys.executable, "-m", "consumers.cli", "serve", "--store", str(shop.file), "--flight-port", "-1"]
    command += ["--http-port", "0", "--access-log", "", "--watch", "10m"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as service:
        try:
            assert service.stderr is not None
            url = service.stderr.readline().split()[-1]
            assert urllib.request.urlopen(f"{url}/status").read().startswith(b"<!doctype html>")
            text = urllib.request.urlopen(f"{url}/metrics").read().decode()
            assert 'vitrine_check_failed{check="drift"} 0.0' in text
            assert "vitrine_serving_in_work" in text
        finally:
            service.terminate()
    assert service.returncode in (0, -15)


def test_objectives_without_watch_are_an_error(shop: Settings) -> None:
    done = run_main("consume", "serve", "--store", str(shop.file), "--objectives", "any.toml")
    assert (done.returncode, done.stderr.strip().count("\n")) == (2, 0)
    assert "need --watch, for example --watch 5m" in done.stderr
