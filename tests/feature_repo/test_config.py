"""Reading feature_store.yaml without Feast."""

from pathlib import Path

import pytest

from feature_repo import config
from feature_repo.errors import VitrineError

GOOD = "project: shop\noffline_store:\n  path: tables\n"


def written(folder: Path, content: str | bytes) -> Path:
    file = folder / "feature_store.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    found = config.load(written(tmp_path, GOOD))
    assert (found.project, found.offline) == ("shop", tmp_path / "tables")
    assert found.table("product_tags") == tmp_path / "tables" / "product_tags"


def test_environment_variables_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITRINE_TEST_TABLES", "/elsewhere")
    file = written(tmp_path, GOOD.replace("tables", "${VITRINE_TEST_TABLES}"))
    assert config.load(file).offline == Path("/elsewhere")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "- a\n- b\n",
        "just words",
        "project: [",
        "\tproject: x",
        b"\xff\xfe project",
        "project: shop\n",
        "project: shop\noffline_store: tables\n",
        "project: shop\noffline_store: [tables]\n",
        "project: shop\noffline_store: 7\n",
        "project: shop\noffline_store:\n",
        *(GOOD.replace("tables", wrong) for wrong in ("7", "", "[tables]", "{a: b}", "true", "2026-01-01", "'  '")),
        GOOD.replace("tables", "${VITRINE_NEVER_SET}/tables"),
        *(GOOD.replace("shop", wrong) for wrong in ("7", "", "[shop]", "1.5")),
    ],
)
def test_an_invalid_file_raises_one_line_that_names_it(content: str | bytes, tmp_path: Path) -> None:
    file = written(tmp_path, content)
    with pytest.raises(VitrineError, match=r"feature_store.yaml: .*(project|offline_store.path)") as caught:
        config.load(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        GOOD + "online_store:\n  connection_string: 'host,password=h0ney\n",
        GOOD + "online_store: {connection_string: host,password=h0ney: x: y\n",
        GOOD.replace("tables", "/h0ney/${VITRINE_NEVER_SET}"),
        GOOD.replace("tables", "{password: h0ney}"),
    ],
)
def test_an_invalid_file_is_not_quoted(content: str, tmp_path: Path) -> None:
    with pytest.raises(VitrineError) as caught:
        config.load(written(tmp_path, content))
    assert "h0ney" not in str(caught.value)


def test_a_missing_file_raises_one_line_that_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(VitrineError, match=r"no feature_store.yaml at .*--store"):
        config.load(tmp_path / "nothing.yaml")


def test_the_owner_is_that_of_the_deployment_and_empty_if_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "feature_store.yaml"
    monkeypatch.setenv(config.ENVIRONMENT_VARIABLE, str(file))
    assert config.find_owner() == ""
    for content, owner in (("owner: team@shop.example\n", "team@shop.example"), ("", ""), ("owner:\n", "")):
        file.write_text(f"{content}project: shop\noffline_store:\n  path: tables\n")
        assert config.find_owner() == owner
    file.write_text("owner: [")
    assert config.find_owner() == ""
