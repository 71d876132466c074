"""`vds download --no-index`: a version out of the container alone."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from azure.storage.blob import ContainerSasPermissions, generate_container_sas

from tests.cli.conftest import Cli
from tests.support import read_tree
from tests.unit.store.trees import write_tree
from vds.blobs.credential import choose_credential
from vds.blobs.location import AZURITE_ACCOUNT, AzureLocation, parse_location
from vds.store import connect

FILES = {"a.txt": b"one", "sub/b.txt": b"two", "empty": b""}


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A store whose embedded index is gone: team/raw has two versions, customers:prod shows the first."""
    cli = Cli(tmp_path_factory.mktemp("lost"))
    (cli.directory / ".git").mkdir()
    cli.write("vds.toml", 'store = "./store"\n')
    with connect(cli.directory / "store", create=True) as store:
        namespace = store.namespace("team/raw")
        first = namespace.upload(write_tree(cli.directory / "out", FILES), show_progress=False).version
        store.dataset("customers").register(first, tags=["prod"])
        namespace.upload(write_tree(cli.directory / "out", {**FILES, "a.txt": b"newer"}), show_progress=False)
    shutil.rmtree(cli.directory / "store/.vds-index")
    return cli


class TestDownload:
    def test_a_store_that_lost_its_index(self, lost: Cli) -> None:
        failed = lost("download", "customers:prod", "never")
        assert (failed.code, (lost.directory / "never").exists()) == (9, False)
        outcome = lost.ok("download", "--no-index", "customers:prod", "copy")
        assert outcome.out.splitlines()[-1] == "vds://team/raw@1/"
        assert read_tree(lost.directory / "copy") == FILES
        assert lost.ok("download", "--no-index", "team/raw", "copy", "-q").out == "vds://team/raw@2/\n"
        assert read_tree(lost.directory / "copy") == {**FILES, "a.txt": b"newer"}
        assert not (lost.directory / "store/.vds-index").exists()

    def test_a_part_of_it_and_its_plan(self, lost: Cli) -> None:
        document = lost.ok("download", "--no-index", "team/raw@2/sub", "part", "--dry-run", "--json").document
        assert (document["files"], document["placed"], document["dry_run"]) == (1, 1, True)
        assert not (lost.directory / "part").exists()
        lost.ok("download", "--no-index", "team/raw@2", "part", "--allow", "*.txt", "--ignore", "a*")
        assert read_tree(lost.directory / "part") == {"sub/b.txt": b"two"}

    @pytest.mark.parametrize("address", ["postgresql://nobody:hunter2@127.0.0.1:9/vds", "nonsense://x"])
    def test_whatever_index_is_named_elsewhere_does_not_matter(self, lost: Cli, address: str) -> None:
        outcome = lost("download", "--no-index", "team/raw@1", f"copy-{len(address)}", environ={"VDS_INDEX": address})
        assert outcome.code == 0, outcome
        assert "hunter2" not in outcome.out + outcome.err

    @pytest.mark.parametrize(
        ("arguments", "code", "said"),
        [
            (["team/raw@9"], 3, "has no version 9, its latest is 2"),
            (["team/raw@1", "--locked"], 2, "--no-index goes with neither"),
            (["team/raw@1", "--index", "embedded"], 2, "--no-index goes with neither"),
            (["team/raw@1", "--store", "./none"], 3, "is not a vds store"),
        ],
    )
    def test_what_cannot_be(self, lost: Cli, arguments: list[str], code: int, said: str) -> None:
        ref, *options = arguments
        outcome = lost("download", "--no-index", ref, "nothing", *options)
        assert (outcome.code, said in outcome.err) == (code, True), outcome
        assert not (lost.directory / "nothing").exists()

    def test_a_damaged_record_is_named(self, lost: Cli, tmp_path: Path) -> None:
        shutil.copytree(lost.directory / "store", tmp_path / "store")
        [record] = [path for path in (tmp_path / "store/journal").rglob("*1") if path.is_file()]
        body = json.loads(record.read_text(encoding="utf-8"))
        record.chmod(0o644)
        record.write_text(json.dumps({**body, "author": "eve"}), encoding="utf-8")
        outcome = lost("download", "--no-index", "team/raw@1", "nothing", "--store", str(tmp_path / "store"), "--json")
        assert (outcome.code, outcome.error["kind"]) == (5, "corruption")
        assert record.relative_to(tmp_path / "store").as_posix() in outcome.error["message"]


@pytest.mark.services
def test_a_reader_of_a_container_whose_database_is_gone(tmp_path: Path, container_url: str, database_url: str) -> None:
    vds = Cli(tmp_path)
    large = b"large" * 1_000_000
    source = write_tree(tmp_path / "out", {**FILES, "large": large})
    with connect(container_url, index=database_url, create=True) as store:
        version = store.namespace("team/raw").upload(source, show_progress=False).version
        with store.namespace("team/raw").transaction() as tx, tx.open("stream", "wb") as file:
            file.write(large[1:])
        store.dataset("customers").register(version, tags=["prod"])
    location = parse_location(container_url)
    assert isinstance(location, AzureLocation)
    sas = generate_container_sas(
        AZURITE_ACCOUNT,
        container_url.rpartition("/")[2],
        account_key=choose_credential(location, None, {}).key,
        permission=ContainerSasPermissions(read=True, list=True),
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )
    away = {"VDS_INDEX": "postgresql://vds:hunter2@127.0.0.1:9/vds", "AZURE_STORAGE_SAS_TOKEN": sas, "VDS_STORE": container_url}
    assert vds("download", "customers:prod", "copy", environ=away).code == 6
    outcome = vds("download", "--no-index", "customers:prod", "copy", environ=away)
    assert outcome.code == 0, outcome
    assert read_tree(tmp_path / "copy") == {**FILES, "large": large}
    assert sas.split("sig=")[1][:10] not in outcome.out + outcome.err
    outcome = vds("download", "--no-index", "team/raw", "latest", environ=away)
    assert outcome.code == 0, outcome
    assert read_tree(tmp_path / "latest") == {**FILES, "large": large, "stream": large[1:]}
