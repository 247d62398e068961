"""A deployment of running backs, tight ends or quarterbacks: its files, its store, its stats, and who are strangers to it."""

import hashlib
import json
import shutil
from itertools import islice
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from click.testing import CliRunner

from nfl_lora_pipeline.cli.main import main
from nfl_lora_pipeline.dataset.templates import load_templates
from nfl_lora_pipeline.dataset.unanswerable import FreshQuestions, Mixture
from nfl_lora_pipeline.dataset.wordings import names_of
from nfl_lora_pipeline.defs.dataset import players, qa_pairs, raw_wr_json
from nfl_lora_pipeline.defs.resources import DatasetResource, StoreResource, WeekSource
from nfl_lora_pipeline.season.checks import check_players
from nfl_lora_pipeline.settings import Settings
from nfl_lora_pipeline.stats import POSITIONS, STATS, stats_of
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.stored import PREDICTION_COLUMNS, read_frame
from nfl_lora_pipeline.weeks.players import PLAYERS_SCHEMA, names_beside, parse_week
from nfl_lora_pipeline.weeks.sources import Place, open_source
from nfl_lora_pipeline.weeks.sources.folder import week_file
from nfl_lora_pipeline.weeks.sources.github import week_url
from nfl_lora_pipeline.weeks.week import NflWeek
from nfl_lora_pipeline_tests.upstream import row, tiny_week, week_bytes, write_week

W1 = NflWeek(2025, 1)
NOWHERE = "http://127.0.0.1:9"
BACKS = [
    row(name=name, Pos="RB", RushingYDS=str(yards), TouchCarries=str(carries), TotalPoints=f"{yards / 10:.2f}")
    for name, yards, carries in [
        ("Derrick Stone", 169, 18), ("Bijan Hale", 24, 12), ("Javon Price", 54, 15), ("Chuba Marsh", 60, 16),
        ("Kyren Vance", 66, 19), ("Breece Okand", 107, 1), ("Alvin Banks", 45, 11), ("Rico Carter", 15, 3),
    ]
]  # fmt: skip
OTHERS = {"WR": ["Nico Wide", "Rome Wide"], "TE": ["Travis Tight", "Adam Tight"], "QB": ["Josh Thrower"]}


def typed(*words, **environment):
    return CliRunner(env=environment).invoke(main, list(map(str, words)))


def contents(folder: Path) -> dict[Path, str]:
    return {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """A folder with week 1 of running backs, and others beside them."""
    folder = write_week(tmp_path_factory.mktemp("raw"), week_bytes(BACKS), position="RB")
    for position, names in OTHERS.items():
        people = [row(name=name, Pos=position, TotalPoints="1.00") for name in names]
        write_week(folder, week_bytes(people), position=position)
    return folder


@pytest.fixture(scope="module")
def backs(raw, tiny_recipe, tmp_path_factory) -> Store:
    """The whole job of running backs, with a real training."""
    root = tmp_path_factory.mktemp("backs") / "data"
    options = ["--source", "folder", "--data-dir", raw, "--recipe", tiny_recipe, "--store", root]
    result = typed("run", *options, "--position", "RB")
    assert "plan: rushing yards of running backs, 2025 week 1; recipe" in result.stderr, result.output
    return Store(root)


def test_running_backs_are_taught_their_rushing_yards_and_kept_under_their_own_name(backs, raw):
    held = backs.raw(W1)
    assert held.name == "RB.json"
    assert held.read_bytes() == week_file(raw, W1, "RB").read_bytes()
    assert not held.with_name("WR.json").exists()
    assert (backs.position_of(W1), backs.provenance(backs.latest()).stats) == ("RB", ["rushing_yards"])
    asked = read_frame(backs.report(backs.latest()) / "predictions.parquet", PREDICTION_COLUMNS, mend="")
    assert "In week 1 of the 2025 NFL season, the rushing yards of Derrick Stone were 169." in asked["answer"].to_list()


def test_strangers_to_running_backs_are_receivers_and_tight_ends_and_never_running_backs(backs):
    report = json.loads((backs.report(backs.latest()) / "report.json").read_text())
    groups = {group["name"]: group["refused"]["asked"] for group in report["unknown"]}
    assert (groups["wide_receivers"], groups["tight_ends"]) == (2, 2)
    assert not groups.get("running_backs")
    page = (backs.report(backs.latest()) / "report.md").read_text()
    assert "real wide receivers of the week" in page
    assert "real running backs of the week" not in page


@pytest.mark.parametrize(
    ("position", "others"), [("RB", {"WR", "TE"}), ("TE", {"WR", "RB"}), ("QB", {"WR", "RB", "TE"})]
)
def test_the_files_beside_are_those_of_other_positions(raw, position, others):
    found, lacking = names_beside(week_file(raw, W1, position), W1, position=position)
    names = {name for people in found.values() for name in people}
    everybody = {**OTHERS, "RB": [back["PlayerName"] for back in BACKS]}
    assert names == {name for other in others for name in everybody[other]}
    assert lacking == []


@pytest.mark.parametrize("command", ["run", "plan", "ui"])
def test_a_store_of_another_position_is_one_line_and_stays_as_it_is(command, backs, raw):
    before = contents(backs.root)
    result = typed(command, "--source", "folder", "--data-dir", raw, "--store", backs.root)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        f"Error: store {backs.root}: it holds running backs (RB), such as those of 2025-W01, and wide receivers (WR) are "
        "asked for; a store is of one position: name another one (--store), or --position RB"
    )
    assert contents(backs.root) == before


@pytest.mark.parametrize("asset", [raw_wr_json, players, qa_pairs], ids=lambda asset: asset.key.to_user_string())
def test_no_asset_takes_another_position_into_a_store_of_old(asset, raw, tmp_path):
    store = Store(tmp_path / "data")
    old = {"kind": "folder", "origin": "", "fetched_at": "", "sha256": hashlib.sha256(b"[]").hexdigest()}
    store.raw_origin(W1).parent.mkdir(parents=True)
    store.raw_origin(W1).write_text(json.dumps(old))
    store.raw(W1).write_bytes(b"[]")
    assert store.raw(W1).name == "WR.json"
    before = contents(store.root)
    instance = dg.DagsterInstance.ephemeral()
    instance.add_dynamic_partitions("nfl_week", [str(W1)])
    resources = {
        "store": StoreResource(root=str(store.root)),
        "week_source": WeekSource(kind="folder", folder=str(raw), position="RB"),
        "dataset": DatasetResource(position="RB", stats=["rushing_yards"]),
    }
    with pytest.raises(dg.Failure, match=r"it holds wide receivers \(WR\).* and running backs \(RB\) are asked for"):
        dg.materialize_to_memory([asset], instance=instance, partition_key=str(W1), resources=resources)
    assert contents(store.root) == before


def test_a_mistyped_position_says_which_there_are(tmp_path, monkeypatch):
    assert (
        "Error: Invalid value for '--position' (env var: 'NFL_LORA_POSITION'): 'XB' is not one of 'WR', 'RB', 'TE', 'QB'."
        in (typed("plan", "--position", "XB").stderr)
    )
    with pytest.raises(ValueError, match=r"^NFL_LORA_POSITION='XB': Input should be 'WR', 'RB', 'TE' or 'QB'$"):
        Settings.read(position="XB")
    with pytest.raises(ValueError, match=r"^position 'XB': use WR, RB, TE, QB$"):
        WeekSource(position="XB").open()
    monkeypatch.chdir(tmp_path)
    Path("nfl-lora.toml").write_text("position = 'XB'")
    assert typed("history").stderr == "Error: nfl-lora.toml: position: 'XB' is not one of 'WR', 'RB', 'TE', 'QB'.\n"


def test_a_file_of_choices_sets_the_position(raw, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("nfl-lora.toml").write_text("position = 'TE'\nsource = 'folder'\nweeks = 2")
    result = typed("plan", "--data-dir", raw)
    assert result.stdout.startswith("plan: receiving yards of tight ends, 2025 week 2; ")
    assert f"{raw}/2025/2/TE.json: no such file" in result.stderr


def test_sources_look_for_the_file_of_the_position(raw):
    for position in POSITIONS:
        found = open_source("folder", Place(raw, position=position))
        assert (found.seasons(), found.has(W1)) == ([2025], True)
        assert found.fetch(W1).origin.endswith(f"2025/1/{position}.json")
    week_file(raw, W1, "QB").rename(week_file(raw, W1, "QB").with_suffix(".gone"))
    assert open_source("folder", Place(raw, position="QB")).seasons() == []
    assert week_url("https://example.org/a?token=1", W1, "TE") == "https://example.org/a/2025/1/TE.json?token=1"


def test_the_sample_has_wide_receivers_alone_and_says_so(tmp_path):
    words = ["--position", "RB", "--store", tmp_path / "data"]
    assert typed("run", "--source", "sample", *words).stderr == (
        "Error: source 'sample': the bundled sample has wide receivers (WR) only, and no running backs (RB); "
        "use --source folder or github\n"
    )
    fallen = typed("plan", *words, NFL_LORA_BASE_URL=NOWHERE).stderr.splitlines()[-1]
    assert fallen.startswith(f"Error: {NOWHERE}/2025/1/RB.json: no answer")
    assert fallen.endswith(
        "RB.json by hand; the bundled sample has wide receivers (WR) only, and no running backs (RB)"
    )


def test_a_stat_in_use_is_refused_by_no_name_and_the_others_are_as_before():
    in_use = ["rushing_yards", "carries"]
    told = {name: {((2025, 1), stat): "x" for stat in in_use} for name in ("Derrick Stone", "Bijan Hale")}
    known = {name: frozenset({(2025, 1)}) for name in told}
    mixture = Mixture(varied=0.0, elsewhere=0.0, other_stats=0.8, refusal_weight=1.0)
    drawn = FreshQuestions(known, told, in_use, load_templates(), mixture).draw(seed=3)
    said = [refusal for _, refusal, _ in islice(drawn, 6000)]
    about_known = [line for line in said if any(f"of {name} are" in line for name in told)]
    spoken = [name for stat in in_use for name in names_of(stat)]
    assert not [line for line in about_known for name in spoken if f"the {name} of" in line]
    for stat in STATS:
        expected = stat.refused in ("train", "both") and stat.plural and stat.column not in in_use
        if expected:
            assert any(f"the {stat.plural} of" in line for line in about_known), stat.column


def test_no_question_has_a_column_for_words():
    for stat in STATS:
        assert not any("_" in name for name in names_of(stat.column) if stat.plural)


def test_a_smaller_week_is_usual_of_tight_ends_and_cut_of_wide_receivers():
    people = [row(name=f"Person {n}", Targets="2", ReceivingRec="1") for n in range(60)]
    people += [row(name=f"Person {n}") for n in range(60, 217)]
    frame, _ = parse_week(week_bytes(people), week=W1, origin="here")
    failed = {
        position: {check.name for check in check_players(frame, position=position) if not check.passed}
        for position in POSITIONS
    }
    assert failed == {"WR": {"as_many_as_usual", "size_is_usual"}, "RB": set(), "TE": set(), "QB": set()}


@pytest.mark.parametrize(("position", "recorded"), [("RB", 91), ("TE", 74)])
def test_real_weeks_of_other_positions_pass_every_check_but_those_of_people(real_data, position, recorded):
    file = week_file(real_data, W1, position)
    if not file.is_file():
        pytest.skip(f"no {file}: it is not part of the repository")
    frame, warnings = parse_week(file.read_bytes(), week=W1, origin="here")
    assert frame.filter(pl.col("status") == "recorded").height == recorded
    assert [check.name for check in check_players(frame, position=position) if not check.passed] == []
    assert warnings == []
    for stat in stats_of(position):
        assert frame[stat].sum() > 0


def test_a_week_of_players_of_earlier_code_is_made_anew_and_nothing_is_trained(
    trained_store, tiny_week_folder, tiny_recipe, tmp_path
):
    store = Store(shutil.copytree(trained_store.store.root, tmp_path / "data", symlinks=True))
    earlier = store.read_players(W1).drop("passing_yards", "passing_touchdowns", "interceptions")
    earlier.write_parquet(store.players(W1))
    options = ["--source", "folder", "--data-dir", tiny_week_folder, "--recipe", tiny_recipe, "--store", store.root]
    result = typed("run", *options, "--json")
    assert store.read_players(W1).schema == PLAYERS_SCHEMA
    assert store.latest() == trained_store.store.latest(), result.output
    assert len(tiny_week()) == store.read_players(W1).height
