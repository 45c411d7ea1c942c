"""The licence of a checkpoint is found where it is stated, and goes with the vectors to the store."""

from pathlib import Path

import pytest

from producers.encoders.licence import combine_licences, read_licence, write_licence


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\ntags: [a]\n---\n# Model\n", "apache-2.0"),
        ("---\nlicense:\n- mit\n- other\n---\n", "mit, other"),
        ("---\ntags: [a]\n---\nlicense: mit\n", None),
        ("# Model\nlicense: mit\n", None),
        ("---\nlicense: [\n---\n", None),
        ("---\nlicense: mit\n", None),
        ("", None),
        ("---\n- license\n---\n", None),
    ],
)
def test_the_front_matter_of_a_model_card_states_the_licence(card: str, licence: str | None, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(card)
    assert read_licence(str(tmp_path)) == licence


def test_the_licence_file_goes_before_the_model_card_and_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    write_licence(tmp_path, "ours,\n only here")
    assert read_licence(str(tmp_path)) == "ours, only here"
    write_licence(tmp_path, None)
    assert read_licence(str(tmp_path)) == "mit"


def test_an_unknown_name_has_no_licence() -> None:
    assert read_licence("nobody/nothing") is None
    assert read_licence("not a hub name!") is None


def test_licences_of_towers_are_combined(tmp_path: Path) -> None:
    assert combine_licences(["efficientnet-lite0", "minilm"]) == "efficientnet-lite0 Apache-2.0, minilm Apache-2.0"
    (tmp_path / "tower").mkdir()
    assert combine_licences([str(tmp_path / "tower")]) is None
    assert combine_licences(["minilm", str(tmp_path / "tower")]) == "minilm Apache-2.0, tower not stated"
