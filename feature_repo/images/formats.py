"""Recognize file formats by their first bytes, and name those that are not read as pictures."""

import re

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""Formats that are decoded, as Pillow names them. A closed list: Pillow runs other programs for some formats (EPS)."""

_READ_STARTS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}
_UNREAD_STARTS = {
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\x01\0": "ICO",
    b"8BPS": "Photoshop",
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"%PDF": "PDF",
    b"\x1aE\xdf\xa3": "Matroska or WebM",
    b"FLV": "Flash video",
    b"\0\0\x01\xba": "MPEG",
    b"\0\0\x01\xb3": "MPEG",
    b"OggS": "Ogg",
    b"fLaC": "FLAC",
    b"ID3": "MP3",
    b"PK\x03\x04": "ZIP",
    b"\x1f\x8b": "gzip",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "RAR",
    b"version https://git-lfs": "Git LFS pointer",
}
_RIFF_FORMATS = {b"WEBP": "WEBP", b"WAVE": "WAV", b"AVI ": "AVI"}
"""Formats by the bytes 8 to 12 of a RIFF file."""
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC"),
    b"qt  ": "QuickTime",
    b"crx ": "Canon CR3",
    b"jxl ": "JPEG XL",
}
"""Formats by the major brand of an ISO media file (`ftyp`). Files of any other brand are videos or sound."""
_GENERIC_BRANDS = (b"mif1", b"msf1")
"""Major brands of both AVIF and HEIC: there the compatible brands decide."""
_MARKUP = {
    rb"<!doctype html|<html|<head|<body": "HTML",
    rb"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!doctype svg[^>]*>\s*)?<svg": "SVG",
    rb"<\?xml|<error": "XML",
    rb"[{\[]\s*[\"{\[}\]]": "JSON",
}


def recognize_format(content: bytes) -> str | None:
    """Return the name of a file's format by its first bytes; None if they are of no format that is known here.

    Pictures that are decoded have a name of FORMATS. Whether the rest of the file is of that format is not checked.

    Args:
        content: the file, or at least its first 512 bytes; may be empty.
    """
    for start, name in (_READ_STARTS | _UNREAD_STARTS).items():
        if content.startswith(start):
            return name
    if content.startswith(b"RIFF"):
        return _RIFF_FORMATS.get(content[8:12], "RIFF")
    if content[4:8] == b"ftyp":
        brand, compatible = content[8:12], content[16 : max(16, int.from_bytes(content[:4]))][:256]
        if brand in _GENERIC_BRANDS and b"avif" in compatible:
            return "AVIF"
        return _BRANDS.get(brand, "MP4")
    text = content[:512].removeprefix(b"\xef\xbb\xbf").lstrip()
    for pattern, name in _MARKUP.items():
        if re.match(pattern, text, re.IGNORECASE | re.DOTALL):
            return name
    return None
