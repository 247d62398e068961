"""What is promoted over what, as whoever types `nfl-lora run` sees it."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from click.testing import CliRunner

from nfl_lora_pipeline.cli.main import main
from nfl_lora_pipeline.evaluation.probes import is_of_the_splits
from nfl_lora_pipeline.recipes.recipe import load_recipe
from nfl_lora_pipeline.season.checks import SAMPLE_WARNING
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.weeks.sources import folder as folder_source
from nfl_lora_pipeline.weeks.sources.folder import week_file
from nfl_lora_pipeline.weeks.week import NflWeek
from nfl_lora_pipeline_tests import upstream


@dataclass(frozen=True)
class Run:
    """What one run printed, and what was promoted after it."""

    exit_code: int
    output: str
    log: str
    promoted: str | None

    @property
    def summary(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.output.splitlines()[-1])
        return content

    @property
    def coverage(self) -> dict[str, Any]:
        (gate,) = [gate for gate in self.summary["gates"] if gate["name"] == "coverage_is_kept"]
        found: dict[str, Any] = gate
        return found


def run(store: Path, *options: str, recipe: str, folder: Path | None = None) -> Run:
    words = ["run", "--store", str(store), "--recipe", recipe, "--json"]
    words += ["--source", "folder", "--data-dir", str(folder)] if folder else []
    done = CliRunner().invoke(main, [*words, *options])
    return Run(done.exit_code, done.stdout, done.stderr, Store(store).promoted())


@pytest.fixture(scope="module")
def two_weeks(tmp_path_factory) -> Path:
    """A folder with two tiny weeks."""
    folder = tmp_path_factory.mktemp("raw")
    rows = upstream.tiny_week()
    other = [row | ({"ReceivingYDS": str(30 + place)} if place < 8 else {}) for place, row in enumerate(rows)]
    upstream.write_week(folder, upstream.week_bytes(rows))
    return upstream.write_week(folder, upstream.week_bytes(other), 2)


@dataclass(frozen=True)
class Season:
    """Runs in one store, in turn."""

    store: Path
    both: Run
    fewer: Run
    replaced: Run


@dataclass(frozen=True)
class Later:
    """Further runs in the same store."""

    other_stat: Run
    again: Run
    bare: Run


@pytest.fixture(scope="module")
def season(tmp_path_factory, two_weeks, hasty_recipe) -> Season:
    store = tmp_path_factory.mktemp("season") / "data"
    fewer = {"recipe": hasty_recipe, "folder": two_weeks}
    both = run(store, "--weeks", "1-2", **fewer)
    assert both.exit_code == 0, both.log
    return Season(
        store,
        both,
        run(store, "--weeks", "1", **fewer),
        run(store, "--weeks", "1", "--replace", **fewer),
    )


@pytest.fixture(scope="module")
def later(season, two_weeks, hasty_recipe) -> Later:
    same = {"recipe": hasty_recipe, "folder": two_weeks}
    again = run(season.store, "--weeks", "1", **same)
    bare = run(season.store, **same)
    return Later(run(season.store, "--weeks", "1-2", "--stats", "receptions", **same), again, bare)


def test_fewer_weeks_are_not_promoted_over_more_and_what_is_given_up_is_named(season):
    known = season.both.promoted
    assert season.both.summary["adapter"] == known
    assert season.fewer.promoted == known
    assert not season.fewer.coverage["passed"]
    assert season.fewer.coverage["explanation"].startswith(
        f"given up of what the adapter {known} knows: week 2 of 2025 (11 facts); teach that too"
    )
    assert "Not promoted: coverage_is_kept: given up of what" in " ".join(season.fewer.output.split())
    assert "--replace" in season.fewer.output
    failed = [gate["name"] for gate in season.fewer.summary["gates"] if gate["passed"] is False]
    assert failed == ["coverage_is_kept"]


def test_what_the_base_answered_before_is_not_asked_again_and_that_is_said(season):
    assert "have its answer from an earlier report" not in season.both.log
    assert "have its answer from an earlier report" in season.fewer.log


@pytest.mark.slow
def test_another_stat_is_not_promoted_over_the_one_that_is_known(season, later):
    assert later.other_stat.promoted == season.both.promoted
    assert "receiving yards (22 facts)" in later.other_stat.coverage["explanation"]


def test_the_report_says_what_is_given_up(season):
    page = Path(season.fewer.summary["report"]).read_text()
    assert "week 2 of 2025 (11 facts)" in page[: page.index("## ")]
    section = page.partition("## What is given up\n")[2].partition("\n## ")[0]
    assert "was taught 11 facts that this one was not" in section


def test_who_wants_it_promotes_less_knowledge_over_more_and_is_told(season):
    assert season.replaced.promoted == season.replaced.summary["adapter"] == season.fewer.summary["adapter"]
    assert season.replaced.coverage["passed"]
    assert "week 2 of 2025 (11 facts); as --replace wants" in season.replaced.output


@pytest.mark.slow
def test_what_was_promoted_on_purpose_passes_when_it_is_run_again(season, later):
    assert later.again.promoted == season.replaced.promoted
    assert later.again.coverage["passed"]


@pytest.mark.slow
def test_a_run_without_weeks_takes_every_week_in_the_store(season, later):
    assert later.bare.summary["weeks"] == ["2025-W01", "2025-W02"]
    assert later.bare.promoted == season.both.promoted
    assert later.bare.coverage["passed"]


def test_the_weeks_given_up_are_still_answered_by_what_stays_promoted(season):
    report = Store(season.store).report(str(season.both.promoted))
    (row,) = (
        pl.read_parquet(report / "predictions.parquet")
        .filter(week=2, kind="recorded", phrasing="seed")
        .head(1)
        .to_dicts()
    )
    result = CliRunner().invoke(main, ["ask", "--store", str(season.store), row["question"]])
    assert result.stdout.splitlines()[-1] == f"tuned: {row['tuned']}"


def test_every_warning_is_a_line_of_the_run_an_entry_of_the_report_and_in_the_json(season):
    size = "2025-W01: 11 rows; a full week has 300 to 700 (size_is_usual)"
    for one in (season.both, season.replaced):  # also where the weeks are reused
        assert size in one.summary["warnings"]
        assert [line for line in one.output.splitlines()[:-1] if size in line] == [f"Beware: {size}"]
        page = Path(one.summary["report"]).read_text()
        assert f"- {size}" in page[: page.index("## ")].splitlines()


@dataclass(frozen=True)
class Mixed:
    """The sample first, then real weeks in the same store, then the sample again, at last with `--replace`."""

    store: Path
    sample: Run
    real: Run
    sample_again: Run


@pytest.fixture(scope="module")
def small_sample(tmp_path_factory) -> Iterator[None]:
    """A dozen of the sample's people in place of all: who they are matters here, not how many."""
    rows = json.loads(week_file(folder_source.SAMPLE_FOLDER, NflWeek(2025, 2)).read_bytes())[:12]
    few = upstream.write_week(tmp_path_factory.mktemp("sample"), upstream.week_bytes(rows), 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder_source, "SAMPLE_FOLDER", few)
        yield


@pytest.fixture(scope="module")
def mixed(tmp_path_factory, tiny_week_folder, hasty_recipe, small_sample) -> Mixed:
    store = tmp_path_factory.mktemp("mixed") / "data"
    folder = {"recipe": hasty_recipe, "folder": tiny_week_folder}
    sample = ("--source", "sample", "--weeks", "2")
    return Mixed(
        store,
        run(store, *sample, recipe=hasty_recipe),
        run(store, **folder),
        run(store, *sample, recipe=hasty_recipe),
    )


def test_the_invented_sample_is_promoted_where_there_is_nothing_else_and_says_so(mixed):
    assert mixed.sample.promoted == mixed.sample.summary["adapter"]
    assert mixed.sample.summary["warnings"][0] == SAMPLE_WARNING
    assert f"Beware: {SAMPLE_WARNING}" in mixed.sample.output.splitlines()
    page = Path(mixed.sample.summary["report"]).read_text()
    assert page.count("These are invented people") == 1
    assert "These are invented people" in page[: page.index("## ")]


@pytest.mark.slow
def test_an_update_is_held_against_a_report_of_earlier_code(season, tmp_path, two_weeks, hasty_recipe):
    store, recipe = tmp_path / "data", tmp_path / "other.yaml"
    shutil.copytree(season.store, store, symlinks=True, ignore=shutil.ignore_patterns("dagster"))
    file = Store(store).report(str(season.replaced.promoted)) / "predictions.parquet"
    pl.read_parquet(file).filter(is_of_the_splits()).drop("group").write_parquet(file)
    recipe.write_text(yaml.safe_dump(load_recipe(hasty_recipe).changed(max_steps=9).model_dump()))
    second = run(store, "--weeks", "1-2", recipe=str(recipe), folder=two_weeks)
    assert second.exit_code == 0, second.log
    (gate,) = [gate for gate in second.summary["gates"] if gate["name"] == "nothing_is_forgotten"]
    assert gate["figure"] is not None, "what both were asked is compared"


@pytest.mark.slow  # a minute and a half: the first command of the README where there is no network
def test_the_shipped_recipe_promotes_the_bundled_sample(tmp_path):
    made = run(tmp_path / "data", "--source", "sample", recipe="embedded")
    assert made.exit_code == 0, made.output
    assert made.promoted == made.summary["adapter"]
    assert [gate["name"] for gate in made.summary["gates"] if gate["passed"] is False and gate["blocks"]] == []


def test_real_weeks_begin_anew_without_the_samples_people_and_are_promoted_over_it(mixed):
    assert mixed.real.summary["weeks"] == ["2025-W01"], "and not the sample's week 2"
    assert mixed.real.promoted == mixed.real.summary["adapter"] != mixed.sample.promoted
    assert Store(mixed.store).provenance(mixed.real.promoted).parent is None
    assert f"not going on from adapter {mixed.sample.promoted}: " in mixed.real.log
    assert SAMPLE_WARNING not in mixed.real.output


def test_the_sample_is_not_promoted_over_real_weeks(mixed):
    assert mixed.sample_again.promoted == mixed.real.promoted
    assert "all that it knows of real people (11 facts)" in mixed.sample_again.coverage["explanation"]


@pytest.mark.slow
def test_who_wants_it_promotes_the_sample_and_a_run_without_weeks_leaves_its_weeks_out(
    mixed, tiny_week_folder, hasty_recipe, small_sample
):
    sample = ("--source", "sample", "--weeks", "2")
    assert run(mixed.store, *sample, "--replace", recipe=hasty_recipe).promoted == mixed.sample.promoted
    bare = run(mixed.store, recipe=hasty_recipe, folder=tiny_week_folder)
    assert bare.summary["weeks"] == ["2025-W01"]
    assert bare.promoted == mixed.real.promoted
