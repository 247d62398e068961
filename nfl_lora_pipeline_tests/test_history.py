"""`nfl-lora history`, as whoever types it sees it."""

import json

import pytest
from click.testing import CliRunner

from nfl_lora_pipeline.adapters.history import history_of
from nfl_lora_pipeline.adapters.promotion import promote
from nfl_lora_pipeline.cli.main import main
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.weeks.week import spoken_weeks
from nfl_lora_pipeline_tests.fakes import put_adapter

OLD, NEW = "0" * 16, "f" * 16
RECALL = {"trained": 0.9991, "nonzero": 1.0, "heldout_phrasings": None, "refused_strangers": 0.92}


def put_report(held, fingerprint, **changes):
    held.report(fingerprint).mkdir(parents=True)
    content = {"recall": RECALL, "raw_sha256": {"2025-W01": "ab" * 32}} | changes
    (held.report(fingerprint) / "report.json").write_text(json.dumps(content))


@pytest.fixture
def store(tmp_path):
    held = Store(tmp_path / "data")
    put_adapter(held, NEW, written_at=1_760_000_000, weeks=["2025-W01", "2025-W02"], parent=OLD)
    put_adapter(held, OLD, written_at=1_750_000_000, recipe="/some/where/own.yaml")
    return held


def history(held, *options):
    result = CliRunner().invoke(main, ["history", "--store", str(held.root), *options])
    assert result.exit_code == 0
    return result.stdout


def test_the_table_has_every_adapter_the_newest_first_with_what_it_knows_and_recalls(store):
    put_report(store, NEW)
    promote(store, NEW)
    lines = history(store).splitlines()
    rows = {name: next(n for n, line in enumerate(lines) if name in line) for name in (NEW, OLD)}
    assert rows[NEW] < rows[OLD]
    first, second = lines[rows[NEW]].split(), lines[rows[NEW] + 1].split()
    data = history_of(store)[0].data
    assert first == ["*", NEW, "2025-10-09", "08:53", "2025", "1-2", "embedded", data, "99.9%", "100%", "-", "92.0%"]
    assert second == ["from", OLD[:8], "312", "steps,", "40", "s", "receiving_yards", "embedded"]


def test_adapters_stand_in_the_order_of_their_records_whatever_became_of_the_files_times(tmp_path):
    copied = Store(tmp_path / "data")
    put_adapter(copied, NEW, written_at=1_750_000_000, trained_at="2026-02-03T04:05:06+00:00")
    put_adapter(copied, OLD, written_at=1_760_000_000, trained_at="2026-01-02T03:04:05+00:00")
    first, second = [line for line in history(copied).splitlines() if NEW in line or OLD in line]
    assert first.split()[:3] == [NEW, "2026-02-03", "04:05"]
    assert second.split()[:3] == [OLD, "2026-01-02", "03:04"]


def test_a_training_writes_down_when_it_ended(trained_store):
    (entry,) = history_of(trained_store.store)
    assert entry.trained_at == trained_store.store.provenance(entry.fingerprint).trained_at
    assert entry.trained_at.endswith("+00:00")


def test_where_nothing_is_promoted_there_is_no_star(store):
    put_report(store, NEW)
    assert "*" not in history(store)
    assert "none is promoted" in history(store)


def test_an_adapter_without_a_report_says_so(store):
    put_report(store, NEW)
    (line,) = [line for line in history(store).splitlines() if OLD in line]
    assert "no report" in line
    assert "*" not in line


def test_json_has_the_hash_of_every_week_and_the_mark(store):
    put_report(store, NEW, raw_sha256={"2025-W01": "ab" * 32, "2025-W02": "cd" * 32})
    promote(store, NEW)
    new, old = json.loads(history(store, "--json"))
    assert new["raw_sha256"] == {"2025-W01": "ab" * 32, "2025-W02": "cd" * 32}
    assert (new["fingerprint"], new["parent"], new["promoted"], new["recall"]) == (NEW, OLD, True, RECALL)
    assert (old["promoted"], old["recall"], old["raw_sha256"], old["data"]) == (False, None, None, None)
    assert (old["parent"], old["trained_at"]) == (None, "2025-06-15T15:06:40+00:00")


def test_other_data_has_another_short_hash(store):
    put_report(store, NEW)
    put_report(store, OLD, raw_sha256={"2025-W01": "ac" * 32})
    new, old = history_of(store)
    assert new.data != old.data


def test_an_empty_store_says_what_to_do(tmp_path):
    assert "run `nfl-lora run`" in history(Store(tmp_path))
    assert history(Store(tmp_path), "--json") == "[]\n"


@pytest.mark.parametrize(
    ("keys", "spoken"),
    [
        (["2025-W01"], "2025 1"),
        ([f"2025-W{week:02d}" for week in range(1, 10)], "2025 1-9"),
        (["2025-W03", "2025-W01", "2024-W18", "2024-W17"], "2024 17-18, 2025 1, 3"),
    ],
)
def test_weeks_are_told_in_short(keys, spoken):
    assert spoken_weeks(keys) == spoken
