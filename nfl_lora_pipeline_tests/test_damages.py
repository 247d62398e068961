"""Lost and damaged files of a store: a share of the campaign `damages`, and what reading them says."""

import json
import os
import shutil
from pathlib import Path

import polars as pl
import pytest

from nfl_lora_pipeline.adapters.history import history_of, problems_of
from nfl_lora_pipeline.adapters.promotion import before, promote, promotions, roll_back
from nfl_lora_pipeline.files import DamagedFile, read_file, replace_file
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.stored import Provenance, read_frame, read_json
from nfl_lora_pipeline.weeks.week import NflWeek
from nfl_lora_pipeline_tests.damages import DAMAGES, GoodStore, follow_link
from nfl_lora_pipeline_tests.fakes import put_adapter

A, B, C = "a" * 16, "b" * 16, "c" * 16


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> GoodStore:
    return GoodStore.make(tmp_path_factory.mktemp("damages"))


@pytest.fixture
def store(tmp_path) -> Store:
    """Three adapters, promoted one after the other."""
    held = Store(tmp_path / "data")
    for fingerprint in (A, B, C):
        put_adapter(held, fingerprint, rows=fingerprint)
        promote(held, fingerprint)
    return held


@pytest.mark.parametrize(
    ("path", "name", "command"),
    [
        ("weeks/2025-W01/qa_pairs.parquet", "lost", "run"),
        ("adapters/NEW/adapter_config.json", "lost", "ask"),
        ("adapters/current", "leads to itself", "export"),
        ("adapters/NEW/provenance.json", "a list", "history"),
        ("adapters/OLD/adapters.safetensors", "lost", "rollback"),
        ("reports/NEW/report.json", "cut in the middle", "verify"),
        ("dagster/history/runs.db", "garbage", "run"),
        ("dagster/dagster.yaml", "garbage", "run"),
        pytest.param("reports/NEW/report.md", "empty", "run", marks=pytest.mark.slow),
        pytest.param("adapters/current", "a folder, by cp -rL", "run", marks=pytest.mark.slow),
        pytest.param("weeks/2025-W01/players.parquet", "cut in the middle", "run", marks=pytest.mark.slow),
        pytest.param("latest.json", "a folder in its place", "run", marks=pytest.mark.slow),
        pytest.param("adapters/NEW/facts.parquet", "garbage", "run", marks=pytest.mark.slow),
        pytest.param("adapters/NEW/adapters.safetensors", "cut in the middle", "run", marks=pytest.mark.slow),
    ],
)
def test_a_damaged_store_is_made_whole_or_the_file_is_named(good, path, name, command):
    (damage,) = [one for one in DAMAGES if (one.path, one.name) == (path, name)]
    assert good.case(damage, command).problems == ()


def test_there_are_75_damages_each_another():
    assert len({(damage.path, damage.name) for damage in DAMAGES}) == 75


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]", b"null", b"[" * 100_000, b'{"weeks": "2025-W01"}'])
def test_what_is_wrong_with_a_json_file_is_one_line_with_its_path_and_the_mend(tmp_path, content):
    file = tmp_path / "provenance.json"
    file.write_bytes(content)
    with pytest.raises(DamagedFile) as error:
        read_json(file, Provenance, mend="make it anew")
    assert str(error.value).startswith(f"{file}: is damaged (")
    assert str(error.value).endswith("; make it anew")
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" * 99, bytes(2000)])
def test_what_is_no_parquet_is_named(tmp_path, content):
    file = tmp_path / "players.parquet"
    file.write_bytes(content)
    with pytest.raises(DamagedFile, match=r"players\.parquet: is damaged \(no Parquet: .*\); make it anew$"):
        read_frame(file, [], mend="make it anew")


def test_a_column_that_is_missing_or_of_another_type_is_damage(tmp_path):
    file = tmp_path / "x.parquet"
    pl.DataFrame({"week": [1]}).write_parquet(file)
    with pytest.raises(DamagedFile, match="no column season"):
        read_frame(file, ["season", "week"], mend="")
    with pytest.raises(DamagedFile, match="week is Int64, not Int8"):
        read_frame(file, {"week": pl.Int8()}, mend="")


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "latest.json")
    with pytest.raises(DamagedFile, match=r"latest\.json: is no file that can be read"):
        Store(tmp_path).latest()


def test_an_empty_folder_makes_place_for_a_file_and_a_full_one_is_named(tmp_path):
    (tmp_path / "latest.json").mkdir()
    replace_file(tmp_path / "latest.json", b"{}")
    assert read_file(tmp_path / "latest.json", mend="") == b"{}"
    (tmp_path / "other.json" / "mine").mkdir(parents=True)
    with pytest.raises(DamagedFile, match=r"other\.json: is a folder with something in it, not a file; move it away"):
        replace_file(tmp_path / "other.json", b"{}")
    assert (tmp_path / "other.json" / "mine").is_dir()


def test_a_copied_store_whose_link_is_a_folder_is_read_as_before_and_gets_its_link_back(store):
    follow_link(store.current)
    assert store.promoted() == C
    assert store.adapters() == [A, B, C]
    assert [entry.promoted for entry in history_of(store)].count(True) == 1
    assert not promote(store, C)
    assert store.current.readlink() == Path(C)
    follow_link(store.current)
    assert roll_back(store).fingerprint == B
    assert store.current.readlink() == Path(B)


def test_a_copy_of_the_link_with_other_weights_is_not_removed(store):
    follow_link(store.current)
    (store.current / "adapters.safetensors").write_bytes(b"better")
    with pytest.raises(DamagedFile, match=f"current: has other weights than {C}"):
        promote(store, B)
    assert (store.current / "adapters.safetensors").read_bytes() == b"better"


@pytest.mark.parametrize("target", ["d" * 16, "current", "current/x", "/tmp", "../../elsewhere"])
def test_a_link_that_leads_to_no_adapter_promotes_none_and_a_rollback_mends_it(store, target):
    store.current.unlink()
    store.current.symlink_to(target)
    assert store.promoted() is None
    assert f"{store.current}: is a link to {target}" in problems_of(store)[0]
    assert roll_back(store).fingerprint == C
    assert problems_of(store) == []


@pytest.mark.parametrize("line", ['{"time": "20', "garbage", "[]", '{"time": 1, "fingerprint": "x"}', "\0\0\0"])
def test_a_line_of_the_log_that_cannot_be_read_hides_no_other_and_is_kept_aside(store, line):
    first, *others = store.promotions.read_text().splitlines()
    damaged = "\n".join([first, line, *others]) + "\n"
    store.promotions.write_text(damaged)
    assert [move.fingerprint for move in promotions(store)] == [A, B, C]
    assert "promotions.jsonl: line 2 cannot be read" in problems_of(store)[0]
    assert roll_back(store).fingerprint == B
    assert problems_of(store) == []
    assert store.promotions.with_suffix(".damaged").read_text() == damaged


def test_a_rollback_passes_a_damaged_adapter_over_and_takes_none_that_is_named(store):
    (store.adapter(B) / "adapters.safetensors").write_bytes(b"{")
    with pytest.raises(DamagedFile, match=r"b/adapters\.safetensors: is damaged"):
        roll_back(store, B)
    assert roll_back(store).fingerprint == A


def test_what_a_damaged_adapter_knew_is_not_compared_with(store):
    (store.adapter(B) / "provenance.json").write_text("{")
    assert before(store, C) == A


def test_history_lists_a_damaged_adapter_and_every_other(store):
    (store.adapter(A) / "provenance.json").unlink()
    (store.adapter(B) / "training.json").write_text("{}")
    entries = {entry.fingerprint: entry for entry in history_of(store)}
    assert entries[A].damage.startswith(f"{store.adapter(A) / 'provenance.json'}: is lost")
    assert "training.json: is damaged (iterations: Field required)" in entries[B].damage
    assert (entries[C].damage, entries[C].weeks) == ("", ["2025-W01"])


def test_a_week_of_invented_people_is_known_by_its_record_where_its_origin_is_lost(tmp_path):
    week = NflWeek(2025, 1)
    record = {"source": "sample", "warnings": [], "accepted": False}
    replace_file(Store(tmp_path).players_record(week), json.dumps(record).encode())
    assert Store(tmp_path).is_invented(week)


def test_a_copy_of_a_weeks_folder_is_no_week(tmp_path):
    for name in ("2025-W01", "2025-W01 (copy)"):
        replace_file(tmp_path / "weeks" / name / "qa_pairs.parquet", b"")
    assert Store(tmp_path).weeks() == [NflWeek(2025, 1)]


def test_a_raw_file_that_is_not_what_was_fetched_is_damage(good, tmp_path):
    shutil.copytree(good.store / "weeks", tmp_path / "weeks")
    held, week = Store(tmp_path), NflWeek(2025, 1)
    held.raw(week).write_bytes(held.raw(week).read_bytes().replace(b"84", b"85"))
    with pytest.raises(
        DamagedFile, match=r"WR\.json: is damaged \(not what .*raw\.json says was fetched\); fetch the week"
    ):
        held.read_raw(week)
