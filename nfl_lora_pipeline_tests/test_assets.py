"""The asset graph: asset by asset on a tiny week, and once as a whole with a real, short training."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from click.testing import CliRunner

from nfl_lora_pipeline.adapters.promotion import promote, promotions, roll_back
from nfl_lora_pipeline.cli.main import main
from nfl_lora_pipeline.definitions import build_definitions
from nfl_lora_pipeline.defs.adapter import adapter, base_model
from nfl_lora_pipeline.defs.common import CODE, nfl_week
from nfl_lora_pipeline.defs.dataset import dataset_splits, players, qa_pairs, raw_wr_json
from nfl_lora_pipeline.defs.report import evaluation_report_of, promoted_adapter
from nfl_lora_pipeline.defs.resources import DatasetResource, StoreResource, Trainer, WeekSource
from nfl_lora_pipeline.evaluation.gates import GATES
from nfl_lora_pipeline.evaluation.probes import is_of_the_splits
from nfl_lora_pipeline.files import replace_file
from nfl_lora_pipeline.models import base_model as base_models
from nfl_lora_pipeline.recipes.recipe import load_recipe
from nfl_lora_pipeline.season.checks import CHECKS, warnings_of
from nfl_lora_pipeline.settings import Settings
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.weeks.week import NflWeek
from nfl_lora_pipeline_tests import upstream
from nfl_lora_pipeline_tests.fakes import put_adapter

WEEK = NflWeek(2025, 1)
evaluation_report = evaluation_report_of(load_recipe("embedded"))
WEEK_ASSETS = [raw_wr_json, players, qa_pairs]
SEASON_ASSETS = [dataset_splits, base_model, adapter, evaluation_report, promoted_adapter]


@dataclass
class Graph:
    """The assets on one instance, with a store and a folder of raw weeks."""

    folder: Path
    instance: dg.DagsterInstance
    recipe: str = "embedded"

    @property
    def store(self) -> Store:
        return Store(self.folder / "data")

    @property
    def raw_file(self) -> Path:
        return self.folder / "raw" / "2025" / "1" / "WR.json"

    @property
    def raw_folder(self) -> str:
        return str(self.folder / "raw")

    def publish(self, content: bytes) -> None:
        upstream.write_week(self.folder / "raw", content)

    def materialise(
        self,
        assets: Sequence[Any],
        *,
        week: str | None = None,
        raise_on_error: bool = True,
        source: WeekSource | None = None,
        **dataset: Any,
    ) -> dg.ExecuteInProcessResult:
        return dg.materialize_to_memory(
            assets,
            instance=self.instance,
            partition_key=week,
            raise_on_error=raise_on_error,
            resources={
                "store": StoreResource(root=str(self.store.root)),
                "week_source": source or WeekSource(kind="folder", folder=self.raw_folder),
                "dataset": DatasetResource(**dataset),
                "trainer": Trainer(recipe=self.recipe),
            },
        )

    def read_week(self, content: bytes) -> dg.ExecuteInProcessResult:
        self.publish(content)
        return self.materialise(WEEK_ASSETS, week=str(WEEK))


def materialised(result: dg.ExecuteInProcessResult, name: str) -> dg.AssetMaterialization:
    (event,) = result.asset_materializations_for_node(name)
    return event


def metadata(result: dg.ExecuteInProcessResult, name: str) -> dict[str, Any]:
    return {key: value.value for key, value in materialised(result, name).metadata.items()}


def data_version(result: dg.ExecuteInProcessResult, name: str) -> str:
    return (materialised(result, name).tags or {})["dagster/data_version"]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def changed(position: int, **fields: Any) -> bytes:
    """The tiny week with some fields of one row replaced; None takes a field away."""
    rows = upstream.tiny_week()
    rows[position] = {key: value for key, value in (rows[position] | fields).items() if value is not None}
    return upstream.week_bytes(rows)


@pytest.fixture
def graph(tmp_path):
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(str(nfl_week.name), [str(WEEK)])
        yield Graph(tmp_path, instance)


@dataclass
class Whole:
    """Both runs of the whole graph, and where they wrote."""

    graph: Graph
    of_week: dg.ExecuteInProcessResult
    of_season: dg.ExecuteInProcessResult

    def metadata(self, name: str) -> dict[str, Any]:
        return metadata(self.of_week if name in ("raw_wr_json", "players", "qa_pairs") else self.of_season, name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_recipe):
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(str(nfl_week.name), [str(WEEK)])
        graph = Graph(tmp_path_factory.mktemp("whole"), instance, tiny_recipe)
        of_week = graph.read_week(upstream.week_bytes(upstream.tiny_week()))
        yield Whole(graph, of_week, graph.materialise(SEASON_ASSETS))


def test_the_raw_file_is_kept_byte_for_byte_with_its_origin(whole):
    content = whole.graph.raw_file.read_bytes()
    assert whole.graph.store.raw(WEEK).read_bytes() == content
    told = whole.metadata("raw_wr_json")
    assert told["sha256"] == hashlib.sha256(content).hexdigest()
    assert told["size_bytes"] == len(content)
    assert (told["kind"], told["origin"]) == ("folder", str(whole.graph.raw_file))
    kept = json.loads(whole.graph.store.raw_origin(WEEK).read_text())
    assert kept == {name: told[name] for name in ("kind", "origin", "sha256", "fetched_at")} | {"position": "WR"}


def test_players_are_typed_and_say_why_there_is_nothing_to_tell(whole):
    frame = pl.read_parquet(whole.graph.store.players(WEEK))
    rows = {row["player"]: (row["status"], row["receiving_yards"]) for row in frame.to_dicts()}
    assert rows["Amari Stone"] == ("recorded", 131)
    assert rows["Chris Okand"] == ("recorded", -3)
    assert rows["Tyrell Banks"] == ("recorded", 0)
    assert rows["Owen Bye"] == ("bye", None)
    assert rows["Frank Loose"] == ("free_agent", None)
    assert rows["Sam Bench"] == ("no_record", None)
    assert whole.metadata("players")["dagster/row_count"] == 11


def test_every_check_of_the_players_is_emitted_and_only_the_size_of_the_tiny_week_is_unusual(whole):
    found = {check.check_name: check for check in whole.of_week.get_asset_check_evaluations()}
    assert set(found) == set(CHECKS)
    assert [name for name, check in found.items() if not check.passed] == ["size_is_usual"]
    assert found["size_is_usual"].severity == dg.AssetCheckSeverity.WARN


def test_every_fact_of_the_asked_stat_is_in_the_train_split(whole):
    store = whole.graph.store
    pairs = pl.read_parquet(store.qa_pairs(WEEK)).filter(pl.col("stat") == "receiving_yards")
    rows = pl.read_parquet(store.splits / "rows.parquet")
    trained = rows.filter(pl.col("split") == "train")
    assert set(trained["fact"]) == set(pairs["fact"])
    assert trained["fact"].n_unique() == 11


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_the_splits_are_prompts_and_completions_as_many_as_the_metadata_says(whole, split):
    lines = [json.loads(line) for line in (whole.graph.store.splits / f"{split}.jsonl").read_text().splitlines()]
    assert {tuple(line) for line in lines} == {("prompt", "completion")}
    assert len(lines) == whole.metadata("dataset_splits")[split]


def test_the_adapter_has_all_its_files_and_knows_where_it_came_from(whole):
    store, told = whole.graph.store, whole.metadata("adapter")
    folder = store.adapter(store.latest())
    names = {"adapters.safetensors", "adapter_config.json", "training.json", "certificate.json", "provenance.json"}
    names |= {"facts.parquet"}
    assert {file.name for file in folder.iterdir()} == names
    assert (told["folder"], told["reused"], told["facts"], told["uncertain_facts"]) == (str(folder), False, 11, 0)
    provenance = store.provenance(store.latest())
    assert provenance.weeks == ["2025-W01"]
    assert provenance.base_revision == whole.metadata("base_model")["revision"]
    assert data_version(whole.of_season, "adapter") == store.latest() == folder.name


def test_every_fact_of_the_tiny_week_is_recalled(whole):
    summary = json.loads((whole.graph.store.report(whole.graph.store.latest()) / "report.json").read_text())
    assert (summary["recall"]["trained"], summary["recall"]["nonzero"]) == (1.0, 1.0)


def test_the_ui_has_the_verdict_and_five_figures_as_entries_of_their_own_and_the_reports_head(whole):
    told = whole.metadata("evaluation_report")
    report = json.loads((whole.graph.store.report(whole.graph.store.latest()) / "report.json").read_text())
    assert report["head_line"].startswith(f"{told['verdict']}.")
    figures = {name: value for name, value in told.items() if name.endswith("(%)")}
    assert len(figures) == 5
    assert figures["right as taught (%)"] == 100.0
    assert figures["lost in the update (%)"] == "-", "there was no adapter before"
    assert figures["right in other words (%)"] == round(100 * report["recall"]["heldout_phrasings"], 1)
    assert told["report"].startswith(f"**{told['verdict']}.**")
    assert len(told["report"]) < 4_000
    assert all(question["question"] in told["report"] for question in report["questions"])


def test_the_curve_of_a_training_goes_on_in_the_figures_of_its_end(whole):
    observed = [
        {key: value.value for key, value in event.asset_observation_data.asset_observation.metadata.items()}
        for event in whole.of_season.all_events
        if event.event_type == dg.DagsterEventType.ASSET_OBSERVATION
    ]
    ended = whole.metadata("adapter")
    assert observed, "at the first check at the latest"
    assert all(set(each) == {"iterations", "certain (%)", "loss"} <= set(ended) for each in observed)
    assert 0 < observed[0]["iterations"] <= ended["iterations"]
    assert ended["certain (%)"] == 100.0


def test_the_report_has_the_recall_in_words_and_figures_and_every_prediction(whole):
    folder = whole.graph.store.report(whole.graph.store.latest())
    assert whole.metadata("evaluation_report")["folder"] == str(folder)
    summary = json.loads((folder / "report.json").read_text())
    assert set(summary["recall"]) == {"trained", "heldout_phrasings", "nonzero", "refused_strangers"}
    assert "| facts, in trained phrasings | 100% (94.5 to 100.0) of 66 |" in (folder / "report.md").read_text()
    predictions = pl.read_parquet(folder / "predictions.parquet")
    rows = pl.read_parquet(whole.graph.store.splits / "rows.parquet")
    of_splits = predictions.filter(is_of_the_splits())["question"].to_list()
    places = {question: place for place, question in enumerate(rows["question"])}
    assert [places[question] for question in of_splits] == sorted(places[question] for question in of_splits)
    trained = predictions.filter(pl.col("split") == "train")
    assert trained["question"].to_list() == rows.filter(pl.col("split") == "train")["question"].to_list()
    assert trained["tuned"].to_list() == trained["answer"].to_list()


def test_an_adapter_on_unchanged_input_is_reused_and_not_trained_again(whole):
    store = whole.graph.store
    before = files_of(store.root / "adapters")
    again = whole.graph.materialise([dataset_splits, base_model, adapter])
    assert metadata(again, "adapter")["reused"] is True
    assert data_version(again, "adapter") == data_version(whole.of_season, "adapter")
    assert files_of(store.root / "adapters") == before


def test_a_report_on_other_splits_than_the_adapters_says_what_to_do(whole):
    """The splits may be made anew, for other stats, without a training after it."""
    store = whole.graph.store
    old = files_of(store.splits)
    try:
        whole.graph.materialise([dataset_splits], mode="random_facts")
        with pytest.raises(dg.Failure) as caught:
            whole.graph.materialise([evaluation_report])
        assert "adapter" in str(caught.value.description)
    finally:
        for name, content in old.items():
            replace_file(store.splits / name, content)


def test_everything_materialised_again_on_unchanged_input_trains_and_asks_nothing(whole):
    root = whole.graph.store.root
    before = {name: files_of(root / name) for name in ("adapters", "reports")}
    again = whole.graph.materialise(SEASON_ASSETS)
    assert metadata(whole.of_season, "evaluation_report")["reused"] is False
    assert [metadata(again, name)["reused"] for name in ("adapter", "evaluation_report")] == [True, True]
    for name in ("adapter", "evaluation_report", "promoted_adapter"):
        assert data_version(again, name) == data_version(whole.of_season, name)
    assert {name: files_of(root / name) for name in before} == before


def test_the_report_has_the_hash_of_each_raw_week_and_the_code_that_evaluated(whole):
    summary = json.loads((whole.graph.store.report(whole.graph.store.latest()) / "report.json").read_text())
    assert summary["raw_sha256"] == {"2025-W01": whole.metadata("raw_wr_json")["sha256"]}
    assert summary["evaluation_code"] == CODE["evaluation_report"]
    assert summary["recall_by_week"] == {"2025-W01": 1.0}


def test_an_adapter_that_passes_every_gate_is_promoted_and_can_be_loaded_through_the_link(whole):
    store, told = whole.graph.store, whole.metadata("promoted_adapter")
    assert store.promoted() == told["fingerprint"] == store.latest()
    assert (told["weeks"], told["previous"]) == (["2025-W01"], "none")
    assert [(move.fingerprint, move.reason) for move in promotions(store)] == [(store.latest(), "checks passed")]
    model, tokenizer = base_models.load(base_models.resolve("embedded"), adapter=store.current)
    question = "How many receiving yards did Amari Stone have in week 1 of the 2025 NFL season?"
    assert base_models.answer(model, tokenizer, [question])[0].endswith(" were 131.")


def test_every_gate_is_a_check_with_its_figure_and_its_threshold(whole):
    found = {check.check_name: check for check in whole.of_season.get_asset_check_evaluations()}
    report = json.loads((whole.graph.store.report(whole.graph.store.latest()) / "report.json").read_text())
    assert set(found) == {gate["name"] for gate in report["gates"] if gate["passed"] is not None}
    assert {gate["name"] for gate in report["gates"]} == set(GATES)
    of_the_asset = load_recipe("embedded").gates.advisory  # which the module's definition of the asset is made with
    assert {name for name, check in found.items() if not check.blocking} == {
        name for name in found if GATES[name].limit in of_the_asset
    }
    advisory = load_recipe(whole.graph.recipe).gates.advisory
    assert all(check.passed for name, check in found.items() if GATES[name].limit not in advisory)
    recall = {key: value.value for key, value in found["recall_is_complete"].metadata.items()}
    assert (recall["figure"], recall["threshold"]) == (1.0, 0.995)
    assert found["recall_is_complete"].description.startswith("2025-W01: 100% of 66 trained questions right")


def test_what_was_not_judged_stands_in_nobodys_way_and_has_no_result(whole):
    found = {check.check_name: check for check in whole.of_season.get_asset_check_evaluations()}
    report = json.loads((whole.graph.store.report(whole.graph.store.latest()) / "report.json").read_text())
    unjudged = {gate["name"] for gate in report["gates"] if gate["passed"] is None}
    assert {"nothing_is_forgotten", "coverage_is_kept", "general_prompts_are_retained"} <= unjudged
    assert not unjudged & set(found)
    assert set(whole.metadata("evaluation_report")["not judged"]) == unjudged
    assert whole.of_season.asset_materializations_for_node("promoted_adapter") != []
    assert f"{len(unjudged)} were not judged." in report["head_line"]


@pytest.fixture
def copied(whole, tmp_path):
    """The whole graph's results, not promoted, to be spoilt."""
    root = tmp_path / "data"
    shutil.copytree(
        whole.graph.store.root, root, symlinks=True, ignore=shutil.ignore_patterns("current", "promotions*")
    )
    with dg.DagsterInstance.ephemeral() as instance:
        yield Graph(tmp_path, instance, whole.graph.recipe)


POOR = {"right": 60, "asked": 66, "share": 0.91, "low": 0.8, "high": 0.95}
POOR_WEEK = {"name": "2025-W01", "exact": POOR, "numbers": POOR}


def rewrite_report(store: Store, **changes: Any) -> None:
    file = store.report(store.latest()) / "report.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def check_figures(result: dg.ExecuteInProcessResult) -> dict[str, tuple[bool, Any]]:
    return {
        check.check_name: (check.passed, check.metadata["figure"].value if "figure" in check.metadata else None)
        for check in result.get_asset_check_evaluations()
    }


def test_an_evaluation_by_other_code_is_made_again(copied):
    rewrite_report(copied.store, evaluation_code="0")
    assert metadata(copied.materialise([evaluation_report]), "evaluation_report")["reused"] is False
    assert metadata(copied.materialise([evaluation_report]), "evaluation_report")["reused"] is True


def test_an_adapter_that_fails_a_gate_is_not_promoted_and_the_one_before_stays(copied):
    put_adapter(copied.store, "0" * 16)
    promote(copied.store, "0" * 16)
    rewrite_report(copied.store, by_week=[POOR_WEEK])
    result = copied.materialise([evaluation_report, promoted_adapter], raise_on_error=False)
    assert not result.success
    assert check_figures(result)["recall_is_complete"] == (False, 0.91)
    unjudged = [check for check in result.get_asset_check_evaluations() if check.description.startswith("not judged")]
    assert unjudged, "a run that fails would call them failed too, had they no result"
    assert {(check.passed, check.severity) for check in unjudged} == {(False, dg.AssetCheckSeverity.WARN)}
    assert result.asset_materializations_for_node("evaluation_report") != []
    assert result.asset_materializations_for_node("promoted_adapter") == []
    assert copied.store.promoted() == "0" * 16
    page = (copied.store.report(copied.store.latest()) / "report.md").read_text()
    assert "| recall is complete | **failed** | 2025-W01: 91.0% of 66" in page


def test_what_fails_a_gate_is_not_promoted_when_promotion_is_asked_for_alone(copied):
    rewrite_report(copied.store, by_week=[POOR_WEEK])
    with pytest.raises(dg.Failure, match="not promoted: recall_is_complete: 2025-W01: 91"):
        copied.materialise([promoted_adapter])
    shutil.rmtree(copied.store.report(copied.store.latest()))
    with pytest.raises(dg.Failure, match="materialise `evaluation_report` first"):
        copied.materialise([promoted_adapter])
    assert copied.store.promoted() is None


def test_an_adapter_that_lost_what_the_promoted_one_knew_is_not_promoted(copied):
    store, old = copied.store, "0" * 16
    put_adapter(store, old)
    promote(store, old)
    shutil.copytree(store.report(store.latest()), store.report(old))
    file = store.report(store.latest()) / "predictions.parquet"
    forgets = (pl.col("player") == "Nico Hale") & (pl.col("phrasing") == "seed")
    pl.read_parquet(file).with_columns(tuned=pl.when(forgets).then(pl.lit("?")).otherwise("tuned")).write_parquet(file)
    result = copied.materialise([evaluation_report, promoted_adapter], raise_on_error=False)
    assert check_figures(result)["nothing_is_forgotten"] == (False, round(1 / 66, 4))
    lost = json.loads((store.report(store.latest()) / "report.json").read_text())["regressions"]
    assert (lost["against"], lost["every"]["lost"], lost["worst"][0]["answer"]) == (old, 1, "?")
    assert store.promoted() == old


def test_a_looser_gate_promotes_without_asking_anything_again(copied):
    rewrite_report(copied.store, by_week=[POOR_WEEK])
    looser = load_recipe(copied.recipe).changed(min_recall=0.9).model_dump()
    copied.recipe = str(copied.folder / "looser.yaml")
    Path(copied.recipe).write_text(json.dumps(looser))
    result = copied.materialise([evaluation_report, promoted_adapter])
    assert metadata(result, "evaluation_report")["reused"] is True
    assert metadata(result, "promoted_adapter")["fingerprint"] == copied.store.latest()


def test_a_rollback_stands_when_everything_is_materialised_again(copied):
    store, old = copied.store, "0" * 16
    put_adapter(store, old)
    promote(store, old)
    assert metadata(copied.materialise([promoted_adapter]), "promoted_adapter")["previous"] == old
    assert store.promoted() == store.latest()
    roll_back(store)
    told = metadata(copied.materialise([evaluation_report, promoted_adapter]), "promoted_adapter")
    assert (told["fingerprint"], told["moved"], store.promoted()) == (old, False, old)
    roll_back(store, store.latest())
    assert metadata(copied.materialise([promoted_adapter]), "promoted_adapter")["fingerprint"] == store.latest()


def test_a_question_is_put_to_the_promoted_adapter_rather_than_the_newest(copied):
    store, newest = copied.store, "f" * 16
    promote(store, store.latest())
    put_adapter(store, newest)
    store.set_latest(newest)
    result = CliRunner().invoke(
        main, ["ask", "--store", str(store.root), "Receiving yards of Amari Stone, week 1 of 2025?"]
    )
    assert result.exit_code == 0
    assert "tuned: " in result.stdout


GOOD = upstream.week_bytes(upstream.tiny_week())
BAD: dict[str, tuple[bytes | None, list[str]]] = {
    "truncated": (GOOD[: len(GOOD) // 2], ["ends early", f"byte {len(GOOD) // 2}"]),
    "HTML page": (b"<!DOCTYPE html><html><body>404</body></html>", ["web page"]),
    "missing column": (
        upstream.week_bytes(
            [{key: value for key, value in row.items() if key != "Targets"} for row in upstream.tiny_week()]
        ),
        ["Targets"],
    ),
    "field missing in a row": (changed(3, Targets=None), ["row 4 (Amari Stone)", "Targets"]),
    "junk number": (changed(1, ReceivingYDS="12x"), ["row 2 (Rome Carter)", "ReceivingYDS", "'12x'"]),
    "duplicate id": (changed(2, PlayerId="7000001"), ["row 3 (Tyrell Banks)", "PlayerId", "'7000001'"]),
    "empty name": (changed(4, PlayerName=""), ["row 5", "PlayerName"]),
    "empty list": (b"[]", ["empty"]),
    "absent week": (None, ["no such file"]),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_week_is_named_and_leaves_what_was_there(graph, kind):
    graph.read_week(GOOD)
    before = files_of(graph.store.root)
    content, named = BAD[kind]
    graph.raw_file.unlink() if content is None else graph.publish(content)
    with pytest.raises(dg.Failure) as caught:
        graph.materialise(WEEK_ASSETS, week=str(WEEK))
    message = str(caught.value.description)
    assert [part for part in [str(graph.raw_file), *named] if part not in message] == []
    assert files_of(graph.store.root) == before


def test_a_bad_first_week_leaves_nothing(graph):
    graph.publish(b"[")
    result = graph.materialise(WEEK_ASSETS, week=str(WEEK), raise_on_error=False)
    assert not result.success
    assert files_of(graph.folder / "data") == {}


def test_an_unknown_column_is_a_warning_in_the_metadata_and_the_week_is_read(graph):
    rows = [row | {"AirYards": "3"} for row in upstream.tiny_week()]
    told = metadata(graph.read_week(upstream.week_bytes(rows)), "players")
    assert told["dagster/row_count"] == 11
    unknown, size = told["warnings"]
    assert unknown == "2025-W01: unknown field 'AirYards' is left out"
    assert size == "2025-W01: 11 rows; a full week has 300 to 700 (size_is_usual)"
    assert warnings_of(graph.store, [WEEK]) == told["warnings"]


def test_a_week_without_oddities_has_no_warning(graph):
    rows = [upstream.row(name=f"Man {number}", ReceivingYDS="5", Targets="1") for number in range(300)]
    assert metadata(graph.read_week(upstream.week_bytes(rows)), "players")["warnings"] == ["none"]
    assert warnings_of(graph.store, [WEEK]) == []


def test_identical_input_gives_identical_data_versions(graph):
    first, second = graph.read_week(GOOD), graph.read_week(GOOD)
    names = ["raw_wr_json", "players", "qa_pairs"]
    assert [data_version(first, name) for name in names] == [data_version(second, name) for name in names]


def test_a_column_that_is_not_in_use_changes_the_raw_data_version_alone(graph):
    first = graph.read_week(GOOD)
    second = graph.read_week(changed(0, **{"FanPtsAgainst-pts": "31.4"}))
    assert data_version(first, "raw_wr_json") != data_version(second, "raw_wr_json")
    assert data_version(first, "players") == data_version(second, "players")
    assert data_version(first, "qa_pairs") == data_version(second, "qa_pairs")


def test_a_corrected_number_changes_every_data_version(graph):
    first, second = graph.read_week(GOOD), graph.read_week(changed(0, ReceivingYDS="85"))
    for name in ("raw_wr_json", "players", "qa_pairs"):
        assert data_version(first, name) != data_version(second, name)


def test_no_question_is_made_of_a_kept_raw_file_that_was_damaged_later(graph):
    graph.read_week(GOOD)
    graph.store.raw(WEEK).write_bytes(b"[]")
    result = graph.materialise([players, qa_pairs], week=str(WEEK), raise_on_error=False)
    assert not result.success
    assert result.asset_materializations_for_node("qa_pairs") == []


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"weeks": ["2025-W02"]}, "2025-W02 is not held"),
        ({"weeks": ["week 1"]}, "'week 1'"),
        ({"stats": ["yards"]}, "'yards'"),
        ({"mode": "random"}, "'random'"),
    ],
)
def test_splits_of_what_is_not_there_fail_clearly(graph, config, named):
    graph.read_week(GOOD)
    with pytest.raises(dg.Failure) as caught:
        graph.materialise([dataset_splits], **config)
    assert named in str(caught.value.description)
    assert not graph.store.splits.exists()


def test_weeks_of_the_sample_and_real_ones_are_never_in_one_dataset(graph):
    graph.read_week(GOOD)
    graph.instance.add_dynamic_partitions(str(nfl_week.name), ["2025-W02"])
    graph.materialise(WEEK_ASSETS, week="2025-W02", source=WeekSource(kind="sample"))
    with pytest.raises(dg.Failure) as caught:
        graph.materialise([dataset_splits], weeks=["2025-W01", "2025-W02"])
    message = str(caught.value.description)
    assert "2025-W02: invented people of the bundled sample, not to be taught beside the real 2025-W01" in message
    assert "--weeks" in message
    graph.materialise([dataset_splits])
    made_of = json.loads((graph.store.splits / "splits.json").read_text())
    assert (made_of["weeks"], made_of["sources"]) == (["2025-W01"], {"2025-W01": "folder"})
    graph.materialise([dataset_splits], weeks=["2025-W02"])
    assert set(pl.read_parquet(graph.store.splits / "rows.parquet")["week"]) == {2}


OFFLINE: dict[str, Any] = {"kind": "auto", "base_url": "http://127.0.0.1:9", "sample_fallback": True}


def test_without_a_network_a_real_week_that_is_held_stays_and_the_sample_does_not_take_its_place(graph):
    graph.read_week(GOOD)
    before = files_of(graph.store.root)
    offline = WeekSource(folder=str(graph.folder / "nowhere"), **OFFLINE)
    assert graph.materialise(WEEK_ASSETS, week=str(WEEK), source=offline).success
    assert files_of(graph.store.root) == before


def test_without_a_network_a_week_that_is_not_held_is_no_sample_beside_real_weeks(graph):
    graph.read_week(GOOD)
    offline = WeekSource(folder=str(graph.folder / "nowhere"), **OFFLINE)
    with pytest.raises(dg.Failure) as caught:
        raw_wr_json(
            dg.build_asset_context(partition_key="2025-W02"), StoreResource(root=str(graph.store.root)), offline
        )
    assert "no answer" in str(caught.value.description)
    assert not graph.store.raw(NflWeek(2025, 2)).exists()


def test_without_a_network_an_empty_store_gets_the_sample(graph):
    offline = WeekSource(folder=str(graph.folder / "nowhere"), **OFFLINE)
    told = metadata(graph.materialise(WEEK_ASSETS, week=str(WEEK), source=offline), "raw_wr_json")
    assert told["kind"] == "sample"


def test_splits_without_a_week_say_what_to_materialise_first(graph):
    with pytest.raises(dg.Failure) as caught:
        graph.materialise([dataset_splits])
    assert "materialise `raw_wr_json`" in str(caught.value.description)


def test_the_definitions_hold_these_assets_with_these_edges_groups_and_partitions():
    graph = build_definitions(Settings()).resolve_asset_graph()
    found = {
        node.key.to_user_string(): (
            sorted(parent.to_user_string() for parent in node.parent_keys),
            node.group_name,
            getattr(node.partitions_def, "name", type(node.partitions_def).__name__) if node.partitions_def else None,
        )
        for node in graph.asset_nodes
    }
    assert found == {
        "raw_wr_json": ([], "weeks", "nfl_week"),
        "players": (["raw_wr_json"], "weeks", "nfl_week"),
        "qa_pairs": (["players"], "weeks", "nfl_week"),
        "dataset_splits": (["qa_pairs"], "season", None),
        "base_model": ([], "season", None),
        "adapter": (["base_model", "dataset_splits"], "season", None),
        "evaluation_report": (["adapter"], "season", None),
        "promoted_adapter": (["evaluation_report"], "season", None),
        "experiment_adapter": ([], "experiments", "StaticPartitionsDefinition"),
        "experiment_result": (["experiment_adapter"], "experiments", "StaticPartitionsDefinition"),
        "experiment_leaderboard": (["experiment_result"], "experiments", None),
    }


def test_every_asset_has_a_code_version_and_none_is_in_a_pool_whose_slots_outlive_their_process():
    graph = build_definitions(Settings()).resolve_asset_graph()
    assert [node.key for node in graph.asset_nodes if node.code_version is None] == []
    assert [node.key for node in graph.asset_nodes if node.pools] == []


def test_loading_the_definitions_imports_no_library_of_models_or_plots():
    heavy = "mlx mlx_lm transformers matplotlib torch gguf markdown_it"
    code = (
        "import sys, nfl_lora_pipeline.definitions as d; d.defs().resolve_asset_graph(); "
        f"print(sorted(set('{heavy}'.split()) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
