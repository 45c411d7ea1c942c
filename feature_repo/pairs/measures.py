"""Measures that a title states: pack size, stage, volume, weight, storage, length and age.

Two products that state one measure differently are not the same product, even if everything else is equal: 6 bottles
are not 12. `find_conflicts` names such measures. A conflict in VETO_MEASURES decides alone; ages and lengths are only
features of the verifier, because sellers add ages that do not apply, to be found by more words.
"""

import re
import unicodedata

VETO_MEASURES = ("pack", "stage", "volume", "weight", "storage")
"""Measures whose conflict means that two products are not the same."""
MEASURES = (*VETO_MEASURES, "length", "age")

Values = frozenset[float]

_NUMBER = r"(?<![\d.,])(\d+(?:\.\d+)?)"
_PATTERNS: dict[str, list[tuple[str, float]]] = {
    # measure: (pattern with one group, factor to the measure's unit)
    "pack": [
        (_NUMBER + r"\s*[- ]?\s*(?:packs?|pk|pcs|pieces?|count|ct|rolls|sheets)\b", 1),
        (r"\b(?:pack|set|box) of (\d+)\b", 1),
        (_NUMBER + r"\s*(?:片|包|抽|卷|支|袋|罐|件套|只装|个装|瓶装|盒装)", 1),
    ],
    "stage": [(_NUMBER + r"\s*段", 1), (r"\bstage\s*(\d)\b", 1)],
    "volume": [
        (_NUMBER + r"\s*(?:ml|毫升)(?![a-z])", 1),
        (_NUMBER + r"\s*(?:l|liters?|litres?|升)(?![a-z])", 1000),
        (_NUMBER + r"\s*(?:fl\.?\s*oz)(?![a-z])", 29.57),
    ],
    "weight": [(_NUMBER + r"\s*(?:kg|公斤|千克)(?![a-z])", 1000), (_NUMBER + r"\s*(?:g|克)(?![a-z])", 1)],
    "storage": [(_NUMBER + r"\s*gb\b", 1), (_NUMBER + r"\s*tb\b", 1000), (_NUMBER + r"\s*mb\b", 0.001)],
    "length": [(_NUMBER + r"\s*(?:''|\"|'|inch(?:es)?|in\.|寸)", 2.54), (_NUMBER + r"\s*(?:cm|厘米)(?![a-z])", 1)],
}
_COMPILED = {name: [(re.compile(p), factor) for p, factor in patterns] for name, patterns in _PATTERNS.items()}
_AGE = re.compile(r"(\d+)\s*[-~至到]\s*(\d+)\s*(个月|月|months?|m\b|岁|years?|y\b)")


def extract_measures(text: str | None) -> dict[str, Values]:
    """Return the values of each measure that a text states, in one unit a measure; measures without any are left out.

    Units: pieces, number of the stage, millilitres, grams, gigabytes, centimetres. An age range is every month in it.
    """
    if not text:
        return {}
    text = unicodedata.normalize("NFKC", text).lower()
    values = {
        name: frozenset(
            round(float(match) * factor, 3) for pattern, factor in patterns for match in pattern.findall(text)
        )
        for name, patterns in _COMPILED.items()
    }
    months: set[float] = set()
    for start, end, unit in _AGE.findall(text):
        factor = 12 if unit[0] in "岁y" else 1
        months.update(range(int(start) * factor, min(int(end) * factor, 216)))
    values["age"] = frozenset(months)
    return {name: stated for name, stated in values.items() if stated}


def find_conflicts(left: dict[str, Values], right: dict[str, Values]) -> list[str]:
    """Return the measures that both sides state with no value in common, in the order of MEASURES."""
    return [name for name in MEASURES if name in left and name in right and not left[name] & right[name]]
