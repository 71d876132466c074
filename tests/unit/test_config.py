"""Where the store, the settings and the data directory are found."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vds import config
from vds.config import StoreSettings, find_store_settings, write_store_settings
from vds.errors import ConflictError, InvalidInputError, NotFoundError


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home directory of its own, beside the work directory."""
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A work directory inside a repository, so that the search ends there."""
    (tmp_path / "repository" / ".git").mkdir(parents=True)
    (tmp_path / "repository" / "deep" / "down").mkdir(parents=True)
    return tmp_path / "repository" / "deep" / "down"


def find(work: Path, home: Path, name: str | None = None, index: str | None = None, **environ: str) -> StoreSettings:
    return find_store_settings(name, index, environ={"HOME": str(home), **environ}, cwd=work)


def settings_file(directory: Path, text: str) -> Path:
    path = directory / "vds.toml"
    path.write_text(text, encoding="utf-8")
    return path


def user_file(home: Path, text: str) -> Path:
    path = config.user_settings_file({"HOME": str(home)})
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "text", ["az://data@account", "https://a.b/c", "./x", "../x", "~/x", "a/b", "C:\\data", "c:data", "a\\b", "."]
)
def test_locations(text: str) -> None:
    assert config.is_location(text)


@pytest.mark.parametrize("text", ["prod", "my-store", "team.raw"])
def test_bare_words_are_no_locations(text: str) -> None:
    assert not config.is_location(text)


def test_nothing_configured_is_never_a_default(work: Path, home: Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        find(work, home)
    assert "vds init" in caught.value.hint


def test_call_wins_over_variable_over_file_over_user(work: Path, home: Path) -> None:
    user_file(home, 'store = "memory://user"')
    assert find(work, home).url == "memory://user"
    settings_file(work.parent.parent, 'store = "memory://file"')
    assert find(work, home).url == "memory://file"
    assert find(work, home, VDS_STORE="memory://variable").url == "memory://variable"
    found = find(work, home, "memory://call", VDS_STORE="memory://variable")
    assert (found.url, found.source) == ("memory://call", "the call")


def test_nearest_file_counts(work: Path, home: Path) -> None:
    settings_file(work.parent.parent, 'store = "memory://root"')
    near = settings_file(work.parent, 'store = "memory://near"')
    assert find(work, home) == StoreSettings("memory://near", None, str(near.resolve()))


def test_search_ends_at_the_repository(work: Path, home: Path, tmp_path: Path) -> None:
    settings_file(tmp_path, 'store = "memory://outside"')
    with pytest.raises(NotFoundError):
        find(work, home)


def test_empty_variable_is_an_error_not_another_store(work: Path, home: Path) -> None:
    settings_file(work, 'store = "memory://file"')
    with pytest.raises(InvalidInputError, match="VDS_STORE is empty"):
        find(work, home, VDS_STORE="")


def test_a_broken_file_does_not_hinder_who_needs_none(work: Path, home: Path) -> None:
    settings_file(work, "not toml")
    assert find(work, home, "memory://x").url == "memory://x"
    with pytest.raises(InvalidInputError):
        find(work, home, "prod")


def test_index_falls_back_to_variable_then_file(work: Path, home: Path) -> None:
    settings_file(work, 'store = "memory://x"\nindex = "embedded"')
    assert find(work, home).index == "embedded"
    assert find(work, home, VDS_INDEX="postgresql://h/v").index == "postgresql://h/v"
    assert find(work, home, index="postgresql://h/call", VDS_INDEX="postgresql://h/v").index == "postgresql://h/call"
    assert find(work, home, "memory://other").index is None, "the file's index belongs to the file's store"


def test_names(work: Path, home: Path) -> None:
    user_file(home, '[stores.mine]\nurl = "memory://mine"\n[stores.prod]\nurl = "memory://users-prod"')
    settings_file(work, 'store = "prod"\n[stores.prod]\nurl = "az://data@account"\nindex = "postgresql://h/v"')
    for found in (find(work, home), find(work, home, "prod"), find(work, home, VDS_STORE="prod")):
        assert (found.url, found.index) == ("az://data@account", "postgresql://h/v")
    assert find(work, home, "mine").url == "memory://mine"
    with pytest.raises(NotFoundError, match="configured: mine, prod"):
        find(work, home, "prd")


def test_file_with_names_only_leaves_the_default_to_the_user(work: Path, home: Path) -> None:
    settings_file(work, '[stores.prod]\nurl = "memory://prod"')
    user_file(home, 'store = "memory://user"')
    assert find(work, home).url == "memory://user"


def test_relative_places_are_beside_the_file(work: Path, home: Path) -> None:
    settings_file(work.parent, 'store = "./store"\nindex = "sqlite:///index.db"')
    found = find(work, home)
    beside = work.parent.resolve()
    assert Path(found.url) == beside / "store"
    assert found.index == f"sqlite:///{(beside / 'index.db').as_posix()}"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("store = ", "not TOML"),
        ('stroe = "memory://x"', "'stroe'"),
        ("store = 3", "'store'"),
        ('store = ""', "'store'"),
        ('index = "embedded"', "'store' is missing"),
        ('[stores.prod]\nurls = "memory://x"', "'urls'"),
        ('[stores.prod]\nindex = "embedded"', "'url' is missing"),
        ('stores = "prod"', "tables"),
        ('store = "https://a.blob.core.windows.net/c?sv=1&sig=abc"', "secret"),
        ('store = "memory://x"\nindex = "postgresql://user:hunter2@h/v"', "secret"),
        ('store = "memory://x"\nindex = "postgresql://h/v?password=hunter2"', "secret"),
    ],
)
def test_bad_files_are_refused_by_name(work: Path, home: Path, text: str, named: str) -> None:
    path = settings_file(work, text)
    with pytest.raises(InvalidInputError) as caught:
        find(work, home)
    assert str(path.resolve()) in caught.value.message
    assert named.strip("'") in caught.value.message
    assert "hunter2" not in caught.value.message


def test_write_then_find(work: Path, home: Path) -> None:
    environ = {"HOME": str(home)}
    path = write_store_settings("./store", "postgresql://me:hunter2@h/v", environ=environ, cwd=work)
    assert path.read_text(encoding="utf-8") == 'store = "./store"\nindex = "postgresql://me@h/v"\n'
    assert Path(find(work, home).url) == work.resolve() / "store"
    assert write_store_settings("./store", "postgresql://me@h/v", environ=environ, cwd=work) == path, "again is harmless"
    with pytest.raises(ConflictError, match="names another store"):
        write_store_settings("./other", None, environ=environ, cwd=work)
    assert "./store" in path.read_text(encoding="utf-8")


def test_written_url_has_no_signature(work: Path) -> None:
    path = write_store_settings("https://a.blob.core.windows.net/c?sv=1&sig=abc", None, cwd=work)
    assert path.read_text(encoding="utf-8") == 'store = "https://a.blob.core.windows.net/c"\n'


def test_write_for_the_user_is_absolute(work: Path, home: Path) -> None:
    path = write_store_settings("./store", None, user=True, environ={"HOME": str(home)}, cwd=work)
    assert path == config.user_settings_file({"HOME": str(home)})
    assert Path(find(home, home).url) == work / "store"


def test_a_name_cannot_be_written(work: Path) -> None:
    with pytest.raises(InvalidInputError, match="not a location"):
        write_store_settings("prod", None, cwd=work)


def test_write_keeps_odd_characters(work: Path, home: Path) -> None:
    odd = 'C:\\da"ta\\ü'
    write_store_settings(odd, None, environ={"HOME": str(home)}, cwd=work)
    assert find(work, home).url == odd


@pytest.mark.skipif(sys.platform == "win32", reason="the paths of another system are compared as text")
def test_user_directories_of_each_system() -> None:
    home = {"HOME": "/home/me"}
    assert config.user_settings_file(home, "linux") == Path("/home/me/.config/vds/config.toml")
    assert config.data_directory(home, "linux") == Path("/home/me/.local/share/vds")
    assert config.data_directory(home, "darwin") == Path("/home/me/Library/Application Support/vds")
    assert config.user_settings_file({"APPDATA": "/r", **home}, "win32") == Path("/r/vds/config.toml")
    assert config.data_directory({"LOCALAPPDATA": "/l", **home}, "win32") == Path("/l/vds")
    assert config.data_directory({"XDG_DATA_HOME": "/x", **home}, "darwin") == Path("/x/vds")
    assert config.data_directory({"XDG_DATA_HOME": "relative", **home}, "linux") == Path("/home/me/.local/share/vds")


@pytest.mark.skipif(sys.platform == "win32", reason="the paths of another system are compared as text")
def test_cache_directories_of_each_system(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = {"HOME": "/home/me"}
    assert config.cache_directory(home, "linux") == Path("/home/me/.cache/vds")
    assert config.cache_directory({"XDG_CACHE_HOME": "/x", **home}, "linux") == Path("/x/vds")
    assert config.cache_directory({"XDG_CACHE_HOME": "relative", **home}, "linux") == Path("/home/me/.cache/vds")
    assert config.cache_directory(home, "darwin") == Path("/home/me/Library/Caches/vds")
    assert config.cache_directory({"XDG_CACHE_HOME": "/x", **home}, "darwin") == Path("/x/vds")
    windows = {"LOCALAPPDATA": "/l", **home}
    assert config.cache_directory(windows, "win32") == Path("/l/vds/cache")
    assert config.cache_directory(windows, "win32") != config.data_directory(windows, "win32")
    assert config.cache_directory({"VDS_CACHE": "/c", "XDG_CACHE_HOME": "/x", **home}, "linux") == Path("/c")
    assert config.cache_directory({"VDS_CACHE": "", **home}, "linux") == Path("/home/me/.cache/vds")
    monkeypatch.chdir(work)
    assert config.cache_directory({"VDS_CACHE": "c"}, "linux") == work / "c"
    assert list(work.iterdir()) == [], "asking makes nothing"


def test_a_user_without_a_home_has_no_cache_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert config.cache_directory({}, "linux") is None


MOUNTINFO = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 27 0:40 / /mnt/share\\040one rw,relatime shared:2 master:3 - nfs4 server:/x rw,vers=4.2
41 27 0:41 / /mnt/azure rw - fuse.blobfuse2 blobfuse2 rw
42 40 254:1 / /mnt/share\\040one/local rw - xfs /dev/vdb rw
43 27 0:43 / /mnt/twice rw - tmpfs tmpfs rw
44 27 0:44 / /mnt/twice rw - cifs //server/share rw
45 27 0:45 / /merged rw - fuse.mergerfs a:b rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me", None),
        ("/mnt/share one/x/y", "nfs4"),
        ("/mnt/share one", "nfs4"),
        ("/mnt/share one/local/x", None),
        ("/mnt/share oneself", None),
        ("/mnt/azure/x", "fuse.blobfuse2"),
        ("/mnt/twice/x", "cifs"),
        ("/merged/x", None),
    ],
)
def test_network_mounts_of_linux(path: str, kind: str | None) -> None:
    assert config.network_type(path, config.parse_mountinfo(MOUNTINFO)) == kind


MOUNT_OUTPUT = """\
/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)
//me@server/share on /Volumes/My (old) share (smbfs, nodev, nosuid, mounted by me)
server:/export on /Volumes/nfs (nfs)
"""


def test_network_mounts_of_macos() -> None:
    mounts = config.parse_mount_output(MOUNT_OUTPUT)
    assert mounts == [("/", "apfs"), ("/Volumes/My (old) share", "smbfs"), ("/Volumes/nfs", "nfs")]
    assert config.network_type("/Volumes/nfs/x", mounts) == "nfs"
    assert config.network_type("/Users/me", mounts) is None


def test_odd_mount_lines_are_skipped() -> None:
    assert config.parse_mountinfo("\nnonsense\n1 2 - x\n") == []


def test_file_systems_of_this_machine_answer(tmp_path: Path) -> None:
    assert config.is_network_file_system(tmp_path / "not" / "there") in (None, config.is_network_file_system(tmp_path))
