"""`fsck` against Azurite and PostgreSQL: listings in the service's own order, etags and metadata as it keeps them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.damages import RAW, RUN, Sample, digests_of, make_sample, read_all
from tests.support import Place, list_keys
from vds.model.digest import Digest

pytestmark = pytest.mark.services


def test_a_container_that_is_damaged_and_mended(
    container_url: str, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VDS_CACHE_MAX", "0")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    place = Place(container_url, database_url)
    sample: Sample = make_sample(place, tmp_path)
    blobs = place.blobs()
    backup = Place(f"{container_url}-copy").blobs()
    backup.create_container()
    for blob in blobs.list_blobs():
        backup.put_if_absent(blob.key, blobs.read_range(blob.key), blob.metadata)
    with place.connect() as store:
        report = store.fsck(chain=True, full=True, show_progress=False)
        assert (report.ok, report.counts) == (True, {})
        whole = sample.versions[RAW, 1]["whole"]
        (key,) = list_keys(blobs, f"objects/{Digest.of(whole).hex[:2]}/{Digest.of(whole).hex}")
        (stream,) = list_keys(blobs, "objects/~~/")
        blobs.delete_blob(stream)
        body = bytearray(whole)
        body[1000] ^= 1
        blobs.delete_blob(key)
        blobs.put_if_absent(key, body)
        blobs.delete_blob(list_keys(blobs, "changes/")[0])
        blobs.delete_blob(list_keys(blobs, "datasets/")[0])
        seen = store.fsck(show_progress=False)
        assert seen.counts == {"blob-missing": 2, "blob-replaced": 1, "object-damaged": 1, "record-missing": 1}
        read = store.fsck(full=True, show_progress=False)
        assert read.counts == {**seen.counts, "object-damaged": 2}
        assert {touch.path for problem in read.problems for touch in problem.touches} == {"whole", "stream"}
        mended = store.fsck(full=True, repair_from=f"{container_url}-copy", show_progress=False)
        assert mended.ok, mended.problems
        assert store.fsck(chain=True, full=True, show_progress=False).counts == {}
        assert read_all(store, sample.versions) == digests_of(sample.versions)
        assert store.get(f"{RUN}@1").verify(show_progress=False).ok
    blobs.close()
    backup.close()
