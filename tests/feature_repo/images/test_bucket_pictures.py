"""Pictures in a bucket: read whole, in order, a few at a time; what is missing has a reason, an outage ends the run."""

import random
from pathlib import Path

import pytest

from feature_repo.bucket import open_filesystem, read_object_stat
from feature_repo.errors import UnavailableError
from feature_repo.images import decoding, read_ahead
from feature_repo.images.decoding import MISSING, TOO_LARGE, Source, UnusableImageError
from feature_repo.location import REQUESTS, BucketObject, BucketPath, find_object
from tests.servers import free_port


def put(prefix: BucketPath, key: str, content: bytes) -> BucketObject:
    with open_filesystem(prefix).open_output_stream(key) as file:
        file.write(content)
    return BucketObject(prefix, key)


@pytest.mark.parametrize("key", ["a.jpg", "2026/a.jpg", "婴儿 奶瓶.jpg", "a%20b+c?.jpg"])
def test_an_object_of_any_name_is_read_whole(bucket: BucketPath, key: str) -> None:
    content = random.Random(0).randbytes(100_000)
    source = put(bucket, key, content)
    assert find_object(str(source), bucket) == source
    assert decoding.read_bytes(source) == content
    stat = read_object_stat(source)
    assert stat is not None
    assert stat[0] == len(content)


def test_a_missing_and_a_large_object_are_unusable(bucket: BucketPath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_BYTES", 1_000)
    for source, reason in (
        (BucketObject(bucket, "none.jpg"), MISSING),
        (put(bucket, "large.jpg", b"x" * 1_001), TOO_LARGE),
    ):
        with pytest.raises(UnusableImageError) as refused:
            decoding.read_bytes(source)
        assert refused.value.reason == reason
    assert len(decoding.read_bytes(put(bucket, "just.jpg", b"x" * 1_000))) == 1_000
    assert read_object_stat(BucketObject(bucket, "none.jpg")) is None


def test_pictures_are_read_in_order_and_a_bounded_number_ahead(bucket: BucketPath, tmp_path: Path) -> None:
    contents = [bytes([number]) * 10 for number in range(2 * REQUESTS)]
    sources: list[Source] = [put(bucket, f"{number}.jpg", content) for number, content in enumerate(contents)]
    sources[3], sources[5], sources[7] = b"bytes", tmp_path / "file.jpg", BucketObject(bucket, "none.jpg")
    stream = read_ahead.read_ahead(sources)
    assert next(stream) == contents[0]
    last = sources[-1]
    assert isinstance(last, BucketObject)
    open_filesystem(bucket).delete_file(last.key)  # not yet read
    read = [contents[0], *stream]
    assert (read[3], read[5]) == (b"bytes", tmp_path / "file.jpg")
    assert [type(read[row]) for row in (7, -1)] == [UnusableImageError] * 2
    others = [row for row in range(len(sources) - 1) if row not in (3, 5, 7)]
    assert [read[row] for row in others] == [contents[row] for row in others]


def test_only_objects_below_the_prefix_are_read(bucket: BucketPath) -> None:
    beside = f"{bucket.url}-other/a.jpg"
    assert find_object(beside, bucket) == Path(beside)
    assert find_object(f"{bucket.url}/a.jpg", None) == Path(f"{bucket.url}/a.jpg")


def test_a_bucket_that_does_not_answer_is_no_fault_of_the_picture() -> None:
    options = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "hush", "AWS_REGION": "x"}
    source = BucketObject(
        BucketPath("s3://shop/p", options | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"}), "a"
    )
    for read in (decoding.read_bytes, read_object_stat):
        with pytest.raises(UnavailableError, match="does not answer") as refused:
            read(source)
        assert "\n" not in str(refused.value)
        assert "hush" not in str(refused.value)
