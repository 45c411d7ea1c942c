"""Texts that look equal become equal, columns as single texts do, and nothing changes twice."""

import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.arrow import text

ONE_BY_ONE = {
    text.normalize_ids: text.normalize_id,
    text.normalize_texts: text.normalize_text,
    text.normalize_categories: text.normalize_category,
}
_ODD = " \t\xa0\u3000\ufeff\u200b\u200c\u200d\xad&;#>amp\u0301e\u212b\u1100\u1161\u0327x服👩0"
TEXTS = st.lists(st.one_of(st.none(), st.text(st.sampled_from(_ODD), max_size=8), st.text(max_size=6)), max_size=8)


@given(TEXTS)
def test_columns_equal_the_texts_one_by_one_and_a_second_time_changes_nothing(texts):
    for normalize_column, normalize_one in ONE_BY_ONE.items():
        expected = [None if value is None else normalize_one(value) for value in texts]
        for type_ in (pa.string(), pa.large_string()):
            column = pa.chunked_array([texts[:3], texts[3:]], type_)
            result = normalize_column(column)
            assert result.type == type_
            assert result.to_pylist() == expected
            assert normalize_column(result) is result
            assert list(text.find_changed(column, result)) == [a != b for a, b in zip(texts, expected, strict=True)]


@pytest.mark.slow
def test_the_search_for_odd_texts_misses_no_character_of_unicode():
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    for normalize_column, normalize_one in ONE_BY_ONE.items():
        for form in ("{}", "a{}", "{}b", "가{}b"):
            texts = [form.format(character) for character in characters]
            assert normalize_column(pa.array(texts)).to_pylist() == [normalize_one(value) for value in texts]
    assert all(text.normalize_id_list([one])[0] == text.normalize_id(one) for one in characters)


def test_ids_that_look_equal_become_one():
    odd = ["p48 ", "\ufeffp48", "p\u200b48", "\xa0p48\u3000", "p48\r\n", "p4\u20608", "p48\x00", "  p48", "p48"]
    assert set(text.normalize_ids(pa.array(odd)).to_pylist()) == {"p48"}
    assert text.normalize_id(unicodedata.normalize("NFD", "café-Å")) == "caf\xe9-\xc5"
    assert text.normalize_id("a\xa0b  c\td") == "a b  c d"


def test_ids_keep_entities_case_and_width_and_other_columns_stay_as_they_are():
    assert text.normalize_id("R&amp;D-Ａ") == "R&amp;D-Ａ"
    numbers = pa.array([1, None])
    assert text.normalize_ids(numbers) is numbers


def test_titles_read_as_people_read_them():
    assert text.normalize_text(" Ball &amp;amp; bat\xa0&nbsp; &#x27;set&#39;\u200b ") == "Ball & bat 'set'"
    assert text.normalize_text("Black&notebook &unknown; AT&T &copy 1") == "Black&notebook &unknown; AT&T &copy 1"


def test_joiners_stay_where_they_are_seen_and_only_there():
    family, persian = "👩\u200d👧", "می\u200cخواهم"
    assert text.normalize_text(f"{family} {persian}") == f"{family} {persian}"
    assert text.normalize_text("re\u200dd 服\u200c装 👩\u200d \u200d👧") == "red 服装 👩 👧"
    assert text.normalize_id(family) == "👩👧"


def test_category_paths_lose_blanks_around_separators_and_empty_segments():
    paths = ["服装>裤子 ", "服装 > 裤子", "服装>裤\u200b子", "服装 &gt; 裤子 &gt;", ">服装>>裤子"]
    assert set(text.normalize_categories(pa.array(paths)).to_pylist()) == {"服装>裤子"}
    assert text.normalize_category("Toys &amp; Games  > Toy Cars") == "Toys & Games>Toy Cars"
    assert text.normalize_category(" > ") == ""


def test_a_request_of_plain_ids_is_returned_itself_and_other_values_stay():
    for plain in ([f"p{number}" for number in range(500)], ["caf\xe9", "连衣裙"]):
        assert text.normalize_id_list(plain) is plain
    assert text.normalize_id_list(["p1 ", "p\u200b2", "p3"]) == ["p1", "p2", "p3"]
    assert text.normalize_id_list([7, "p1 ", None, b"p1 "]) == [7, "p1", None, b"p1 "]


def test_counts_name_the_column_and_show_what_cannot_be_seen():
    blocks = [["p1", "p2\u200b", None], ["p3"], ["cafe\u0301", "p5 "]]
    counted = [
        text.count_normalized("product_id", pa.array(block), text.normalize_ids(pa.array(block))) for block in blocks
    ]
    assert [str(one) for one in text.sum_normalized(counted)] == [
        r"normalized 3: product_id, such as 'p2\u200b' to 'p2'"
    ]
    assert text.quote_text("cafe\u0301") == r"'cafe\u0301'"
