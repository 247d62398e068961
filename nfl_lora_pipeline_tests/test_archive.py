"""A store's versions in a folder and in object storage: who publishes, who fetches, and what may come between."""

import os
import shutil
import time

import pytest
from upath import UPath

from benchmarks import two_writers
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.stored import Latest, Provenance, json_bytes
from nfl_lora_pipeline.tenants.archive import (
    COPY_OF,
    PART_BYTES,
    Archive,
    Conflict,
    DamagedObject,
    UnreachableArchive,
    _reached,
)
from nfl_lora_pipeline_tests.object_storage import lacking, object_storage

BUCKET = "teams"
FIRST, SECOND = "1a" * 8, "2b" * 8
ME = {"by": "the first machine", "token": "17"}


@pytest.fixture(scope="module")
def storage_settings():
    with object_storage(BUCKET) as settings:
        yield settings


@pytest.fixture(params=["file", "s3"])
def place(request, tmp_path, monkeypatch):
    """The address of an empty archive."""
    if request.param != "s3":
        return f"file://{tmp_path}/archive"
    if missing := lacking():
        pytest.skip(f"no object storage on this machine: {missing} is not installed")
    for name, value in request.getfixturevalue("storage_settings").items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{tmp_path.name}"


@pytest.fixture
def archive(place):
    return Archive.at(place)


def a_store(folder, *fingerprints):
    """A store with so many adapters, the last of which is promoted and the newest, and with what is not archived."""
    files = {f"adapters/{each}/adapters.safetensors": each.encode() * 999 for each in fingerprints}
    files |= {f"adapters/{each}/provenance.json": provenance(each) for each in fingerprints}
    files |= {
        "weeks/2025-W01/WR.json": b"[]",
        "weeks/2025-W01/players.json": b"{}",
        "dagster/history/runs.db": b"sqlite",
    }
    files |= {"dagster/history/runs.db-wal": b"ahead", "locks/promotions": b"", "weeks/.raw.json.00.tmp": b"half"}
    latest = Latest(schema_version=1, adapter=fingerprints[-1], base_model="embedded", previous=None)
    for name, content in (files | {"latest.json": json_bytes(latest.content())}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "adapters" / "current").symlink_to(fingerprints[-1])
    return folder


def provenance(fingerprint):
    fields = {"weeks": ["2025-W01"], "stats": [], "base_model": "embedded", "base_revision": "1", "recipe": "embedded"}
    return json_bytes(Provenance(**fields, rows=fingerprint).content())


def contents(folder):
    """What of a folder is archived: a text a link, bytes a file."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    shown = {name: path for name, path in paths.items() if not name.startswith("locks") and "/." not in f"/{name}"}
    links = {name: str(path.readlink()) for name, path in shown.items() if path.is_symlink()}
    return links | {name: path.read_bytes() for name, path in shown.items() if path.is_file() and name not in links}


def objects(archive):
    """The objects of an archive: their keys, and how each is reached."""
    return {
        str(found.path).partition(f"{archive.root.path}/")[2]: found
        for found in archive.root.rglob("*")
        if found.is_file()
    }


def blob(archive, number, name):
    sha256 = archive.manifest(number).files[name].sha256
    return archive.root / "blobs" / sha256[:2] / sha256


def with_checkpoint(folder, fingerprint, content):
    file = Store(folder).unfinished(fingerprint) / "checkpoint.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def test_an_empty_archive_gives_an_empty_folder(archive, tmp_path):
    assert (archive.newest(), archive.fetch(tmp_path / "copy")) == (0, 0)
    assert contents(tmp_path / "copy") == {}


def test_what_is_fetched_is_a_working_store_and_has_nothing_of_one_machine_alone(archive, tmp_path):
    store = a_store(tmp_path / "store", FIRST, SECOND)
    assert archive.publish(store, after=0, **ME) == archive.newest() == 1
    assert archive.fetch(tmp_path / "copy") == 1
    assert contents(tmp_path / "copy") == contents(store)
    assert Store(tmp_path / "copy").promoted() == Store(tmp_path / "copy").latest() == SECOND
    assert (
        not (tmp_path / "copy" / "locks").exists() and not (tmp_path / "copy" / "weeks" / ".raw.json.00.tmp").exists()
    )
    manifest = archive.manifest(1)
    assert (manifest.by, manifest.token, manifest.before, manifest.promoted) == ("the first machine", "17", 0, SECOND)
    assert (manifest.links, manifest.schema_version) == ({"adapters/current": SECOND}, 1)


def test_a_copy_becomes_what_the_version_is_and_only_what_differs_is_fetched(archive, tmp_path):
    store = a_store(tmp_path / "store", FIRST)
    archive.publish(store, after=0, **ME)
    archive.fetch(tmp_path / "copy")
    same, gone = (tmp_path / "copy" / "adapters" / FIRST / name for name in ("adapters.safetensors", "more.json"))
    same_file, same_blob = same.stat().st_ino, blob(archive, 1, f"adapters/{FIRST}/adapters.safetensors")
    gone.write_text("not of the version")
    (tmp_path / "copy" / "experiments" / "one").mkdir(parents=True)
    (tmp_path / "copy" / "experiments" / "one" / "result.json").write_text("{}")
    (tmp_path / "copy" / "locks").mkdir()
    same_blob.unlink()  # not asked for
    a_store(tmp_path / "other", FIRST, SECOND)
    assert archive.fetch(tmp_path / "copy") == 1
    assert contents(tmp_path / "copy") == contents(store)
    assert (same.stat().st_ino, gone.exists(), (tmp_path / "copy" / "experiments").exists()) == (
        same_file,
        False,
        False,
    )
    assert (tmp_path / "copy" / "locks").is_dir()


def test_the_link_to_the_promoted_adapter_moves_with_the_version(archive, tmp_path):
    archive.publish(a_store(tmp_path / "store", FIRST), after=0, **ME)
    archive.fetch(tmp_path / "copy")
    shutil.rmtree(tmp_path / "store")
    archive.publish(a_store(tmp_path / "store", FIRST, SECOND), after=1, **ME)
    assert (archive.fetch(tmp_path / "copy"), Store(tmp_path / "copy").promoted()) == (2, SECOND)
    assert (archive.fetch(tmp_path / "copy", 1), Store(tmp_path / "copy").promoted()) == (1, FIRST)
    assert Store(tmp_path / "copy").adapters() == [FIRST]


def test_who_has_worked_on_an_older_version_is_told_who_was_before(archive, tmp_path):
    store = a_store(tmp_path / "store", FIRST)
    archive.publish(store, after=0, **ME)
    with pytest.raises(
        Conflict, match=r"the second machine has worked on version 0, and the first machine has published"
    ):
        archive.publish(store, after=0, by="the second machine", token="18")
    with pytest.raises(Conflict, match=r"version 5, and the newest is 1"):
        archive.publish(store, after=5, **ME)
    assert archive.publish(store, after=1, by="the second machine", token="18") == 2


def test_a_put_whose_answer_was_lost_is_no_conflict(archive, tmp_path):
    class Lossy:
        """Says after each creation that there was something, as a retry of a put that had come through does."""

        def __init__(self, storage):
            self.storage = storage

        def __getattr__(self, name):
            return getattr(self.storage, name)

        def create(self, key, content):
            self.storage.create(key, content)
            if self.fails and key.startswith("versions/"):
                raise UnreachableArchive("no answer")
            return False

    lossy = Lossy(archive._storage)
    object.__setattr__(archive, "_storage", lossy)
    store = a_store(tmp_path / "store", FIRST)
    for lossy.fails, after in ((False, 0), (True, 1)):
        assert archive.publish(store, after=after, **ME) == after + 1


def test_a_storage_that_lets_a_second_writer_replace_a_version_is_refused(archive, tmp_path):
    class Careless:
        def __init__(self, storage):
            self.storage = storage

        def __getattr__(self, name):
            return getattr(self.storage, name)

        def create(self, key, content):
            return True

    object.__setattr__(archive, "_storage", Careless(archive._storage))
    with pytest.raises(UnreachableArchive, match=r"ignores `If-None-Match`.*; use a storage with conditional writes"):
        archive.publish(a_store(tmp_path / "store", FIRST), after=0, **ME)


@pytest.mark.parametrize("damage", ["damaged", "lost"])
def test_a_damaged_object_is_named_before_anything_is_touched_and_a_publish_mends_it(archive, tmp_path, damage):
    store = a_store(tmp_path / "store", FIRST)
    archive.publish(store, after=0, **ME)
    archive.fetch(tmp_path / "copy")
    shutil.rmtree(store)
    archive.publish(a_store(store, FIRST, SECOND), after=1, **ME)
    before, bad = contents(tmp_path / "copy"), blob(archive, 2, f"adapters/{SECOND}/adapters.safetensors")
    bad.write_bytes(b"something else") if damage == "damaged" else bad.unlink()
    with pytest.raises(
        DamagedObject, match=rf"{bad.name}: is {damage}.*; remove it and publish from a folder that has"
    ):
        archive.fetch(tmp_path / "copy")
    assert contents(tmp_path / "copy") == before
    bad.unlink(missing_ok=True)
    assert archive.publish(store, after=2, **ME) == archive.fetch(tmp_path / "copy") == 3
    assert contents(tmp_path / "copy") == contents(store)


WRONG_MANIFESTS = {
    "newer": (
        b'{"schema_version": 9}',
        "is of schema version 9, which newer code has written; .*update nfl_lora_pipeline, or",
    ),
    "garbage": (b"\x00half of", "is damaged .*put it back from a copy of the storage, or remove it"),
    "another": (None, "it says that it is version 1"),
    "outside": (b'"../../etc/passwd": {"sha256"', "is no path of a store"),
}


@pytest.mark.parametrize("wrong", WRONG_MANIFESTS)
def test_a_manifest_that_cannot_be_read_is_named_with_the_mend(archive, tmp_path, wrong):
    archive.publish(a_store(tmp_path / "store", FIRST), after=0, **ME)
    content, message = WRONG_MANIFESTS[wrong]
    good = (archive.root / "versions" / "00000001.json").read_bytes()
    if wrong == "outside":
        content = good.replace(b'"number": 1', b'"number": 2').replace(b'"latest.json": {\n      "sha256"', content)
    (archive.root / "versions" / "00000002.json").write_bytes(content or good)
    with pytest.raises(DamagedObject, match=rf"versions/00000002\.json: .*{message}"):
        archive.fetch(tmp_path / "copy")
    assert archive.fetch(tmp_path / "copy", 1) == 1


def test_what_is_no_version_among_the_versions_is_named(archive, tmp_path):
    archive.publish(a_store(tmp_path / "store", FIRST), after=0, **ME)
    with pytest.raises(DamagedObject, match=r"00000007\.json: is not there; use another version"):
        archive.manifest(7)
    (archive.root / "versions" / "00000001 (1).json").write_bytes(b"")
    with pytest.raises(DamagedObject, match=r"versions/00000001 \(1\)\.json: is no version; move it away"):
        archive.newest()


def test_a_training_goes_on_on_another_machine_and_its_end_removes_the_checkpoint(archive, tmp_path):
    one, other = a_store(tmp_path / "one", FIRST), tmp_path / "other"
    archive.publish(one, after=0, **ME)
    for content in (b"iteration 48", b"iteration 96"):
        with_checkpoint(one, SECOND, content)
        assert archive.keep_checkpoint(one) == [SECOND]
    with_checkpoint(other, "3c" * 8, b"of a training that was ended elsewhere")
    assert archive.fetch(other) == 1
    assert [folder.name for folder in Store(other).all_unfinished()] == [f".{SECOND}.unfinished"]
    assert (Store(other).unfinished(SECOND) / "checkpoint.safetensors").read_bytes() == b"iteration 96"
    shutil.rmtree(other)
    assert archive.publish(a_store(other, FIRST, SECOND), after=1, **ME) == 2
    archive.fetch(one)
    assert (Store(one).all_unfinished(), Store(one).promoted()) == ([], SECOND)
    assert [key for key in objects(archive) if key.startswith("checkpoints")] == []


def test_a_publish_without_a_new_adapter_leaves_a_checkpoint(archive, tmp_path):
    store = a_store(tmp_path / "store", FIRST)
    archive.publish(store, after=0, **ME)
    file = with_checkpoint(store, SECOND, b"iteration 48")
    archive.keep_checkpoint(store)
    (store / "weeks" / "2025-W01" / "raw.json").write_text("{}")
    archive.publish(store, after=1, **ME)
    file.unlink()
    archive.fetch(store)
    assert file.read_bytes() == b"iteration 48"


def test_a_damaged_checkpoint_is_named(archive, tmp_path):
    store = a_store(tmp_path / "store", FIRST)
    with_checkpoint(store, SECOND, b"iteration 48")
    archive.keep_checkpoint(store)
    (key,) = objects(archive)
    (archive.root / key).write_bytes(b"half")
    with pytest.raises(
        DamagedObject, match=rf"checkpoints/{SECOND}/.*: is damaged.*; remove it; that training begins anew"
    ):
        archive.fetch(tmp_path / "copy")


def test_tidying_leaves_the_newest_versions_whole_and_what_is_young(archive, tmp_path):
    store = a_store(tmp_path / "store", FIRST)
    for number in range(4):
        (store / "latest.json").write_text(f"{number}")
        archive.publish(store, after=number, **ME)
    (archive.root / "blobs" / "00" / ("0" * 64)).parent.mkdir(parents=True, exist_ok=True)
    (archive.root / "blobs" / "00" / ("0" * 64)).write_bytes(b"of a publish that was killed")
    assert archive.tidy(2) == []
    time.sleep(1.1)  # object storage counts in seconds
    old = blob(archive, 1, "latest.json").name
    removed = archive.tidy(2, grace_seconds=0)
    assert {key.rpartition("/")[2] for key in removed} >= {"00000001.json", "00000002.json", old, "0" * 64}
    assert len(removed) == 5
    for number in (3, 4):
        assert archive.fetch(tmp_path / "copy", number) == number
        assert (tmp_path / "copy" / "latest.json").read_text() == f"{number - 1}"
    (store / "latest.json").write_text("0")
    assert archive.publish(store, after=4, **ME) == archive.fetch(tmp_path / "copy") == 5
    with pytest.raises(ValueError, match="keep 1 at least"):
        archive.tidy(0)


def test_a_store_of_its_own_is_not_taken_for_an_old_copy(archive, place, tmp_path):
    store = a_store(tmp_path / "store", FIRST)
    before = contents(store)
    with pytest.raises(ValueError, match=r"is a store of its own .*; publish it first, or name another folder"):
        archive.fetch(store)
    assert (contents(store), (store / COPY_OF).exists()) == (before, False)
    archive.publish(store, after=0, **ME)
    assert archive.fetch(store) == Archive.at(f"{place}/").fetch(store) == 1


def test_an_archive_that_is_not_mounted_is_not_taken_for_an_empty_one(tmp_path):
    place, folder = tmp_path / "archive", tmp_path / "copy"
    archive = Archive.at(place)
    a_store(folder, FIRST)
    archive.publish(folder, after=0, **ME)
    place.rename(tmp_path / "elsewhere")
    with pytest.raises(
        UnreachableArchive, match=r"has no version, and .* is a copy of version 1; see whether it is mounted"
    ):
        archive.fetch(folder)
    assert Store(folder).promoted() == FIRST, "and nothing is removed"
    (tmp_path / "elsewhere").rename(place)
    assert archive.fetch(folder) == 1


def test_a_file_that_is_sent_in_parts_comes_whole(archive, tmp_path):
    store = a_store(tmp_path / "store", FIRST)
    (store / "adapters" / FIRST / "adapters.safetensors").write_bytes(os.urandom(2 * PART_BYTES + 1))
    archive.publish(store, after=0, **ME)
    archive.fetch(tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(store)


def test_nothing_and_a_link_that_leads_out_of_the_store_are_not_published(archive, tmp_path):
    with pytest.raises(ValueError, match="holds nothing to publish"):
        archive.publish(tmp_path / "not_there", after=0, **ME)
    store = a_store(tmp_path / "store", FIRST)
    (store / "weeks" / "2025-W02").symlink_to(tmp_path)
    with pytest.raises(ValueError, match=r"2025-W02: is a link out of the store.*; put what it leads to in its place"):
        archive.publish(store, after=0, **ME)
    assert archive.newest() == 0


def test_of_two_writers_at_once_exactly_one_wins_each_version(place, tmp_path):
    outcome = two_writers.race(place, tmp_path, tries=8)
    assert (outcome.published, outcome.conflicts, outcome.wrong) == (8, 8, [])


def test_a_publisher_that_is_killed_leaves_a_whole_version_and_the_way_free(place, tmp_path):
    outcome = two_writers.kills(place, tmp_path, times=4, seed=17)
    assert (outcome.killed, outcome.wrong) == (4, [])


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("memory://here", "is not known to create an object only where there is none"),
        ("nonsense://here", "is no address of an archive"),
        ("", "names no folder"),
    ],
)
def test_an_address_that_cannot_be_an_archive_is_refused(address, message):
    with pytest.raises(UnreachableArchive, match=rf"{message}.*; use a path, file:///folder or s3://bucket/prefix"):
        Archive.at(address)


def test_a_missing_bucket_and_a_storage_out_of_reach_are_one_line(request, monkeypatch):
    if missing := lacking():
        pytest.skip(f"no object storage on this machine: {missing} is not installed")
    for name, value in request.getfixturevalue("storage_settings").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        UnreachableArchive, match=r"^s3://nowhere/x: there is no such bucket; make it, or name another$"
    ):
        Archive.at("s3://nowhere/x").newest()
    alone = {"endpoint_url": "http://127.0.0.1:9", "config_kwargs": {"retries": {"max_attempts": 0}}}
    with pytest.raises(
        UnreachableArchive, match=r"^s3://teams/x: cannot be reached .*; see whether the address is right"
    ):
        Archive(UPath("s3://teams/x", **alone)).newest()


def test_without_s3fs_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("upath.UPath.fs", property(lambda path: (_ for _ in ()).throw(ImportError("Install s3fs"))))
    with pytest.raises(UnreachableArchive, match=r"needs the package s3fs; install it: .*nfl-lora-pipeline\[deploy\]"):
        Archive.at("s3://teams/x")


def test_an_access_that_is_refused_is_one_line():
    with (
        pytest.raises(
            UnreachableArchive, match=r"^s3://teams/x: access is refused \(Access Denied\); give this process the"
        ),
        _reached(UPath("s3://teams/x")),
    ):
        raise PermissionError("Access Denied")


def test_a_plain_path_and_its_address_are_the_same_archive(tmp_path):
    store = a_store(tmp_path / "store", FIRST)
    Archive.at(tmp_path / "archive").publish(store, after=0, **ME)
    assert Archive.at(f"file://{tmp_path}/archive").fetch(store) == 1
