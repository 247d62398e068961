"""Experiments: what a study may say, what an arm is made of, and the command that makes what is missing."""

import json
import re
import signal
import subprocess
import sys
from datetime import datetime

import mlx.core as mx
import polars as pl
import pytest
import yaml
from click.testing import CliRunner

from nfl_lora_pipeline.cli.main import main
from nfl_lora_pipeline.dataset.templates import load_templates
from nfl_lora_pipeline.defs.experiments import Estimate, results_of
from nfl_lora_pipeline.defs.resources import WeekSource
from nfl_lora_pipeline.evaluation.baselines import FactTable, SequentialModel, with_context
from nfl_lora_pipeline.experiments import leaderboard
from nfl_lora_pipeline.experiments.asking import Reader, _right_of_base, measure, paid_after
from nfl_lora_pipeline.experiments.study import (
    Arm,
    Claim,
    Data,
    Study,
    load_study,
    names_for_all,
    study_names,
    trials_of,
)
from nfl_lora_pipeline.experiments.trial import (
    Result,
    base_for_asking,
    base_for_training,
    in_mistrals_shape,
    material,
    quantised,
    worded,
)
from nfl_lora_pipeline.markdown import sections_of
from nfl_lora_pipeline.models.base_model import load, load_with_config, resolve
from nfl_lora_pipeline.models.prompt import prompt_tokens
from nfl_lora_pipeline.models.rows import tokenize
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.stored import json_bytes
from nfl_lora_pipeline.weeks.sources import Place, open_source

SMALL = {
    "question": "Does the rank matter?",
    "seeds": [17],
    "data": {"people": 20, "wordings": 2},
    "changes": {"max_steps": 3, "ending_steps": 1, "check_every": 100, "batch_rows": 4},
    "grid": {"rank": [2, 4]},
    "claims": [{"text": "No.", "figure": "adapter_megabytes", "arm": "rank=2", "against": "rank=4", "lower": True}],
}


def a_study_file(folder, **changes):
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump(SMALL | changes, sort_keys=False), encoding="utf-8")
    return file


def fetch_sample(week):
    return open_source("sample", Place(folder=None)).fetch(week)


def rows_of(tmp_path, **data) -> pl.DataFrame:
    (trial, _) = trials_of(str(a_study_file(tmp_path, data=data)))
    return material(trial, fetch_sample, tmp_path).rows


@pytest.mark.parametrize("name", study_names())
def test_a_shipped_study_can_be_read_and_each_of_its_trials_has_a_folder_and_a_key_of_its_own(name):
    trials = trials_of(name)
    assert len({trial.key for trial in trials}) == len(trials) >= 3
    assert load_study(name).claims, "a study tests something"


def test_a_grid_has_an_arm_for_each_combination_of_its_values(tmp_path):
    grid = {"rank": [2, 4], "learning_rate": [1e-3, 1e-4]}
    found = trials_of(str(a_study_file(tmp_path, grid=grid, claims=[])))
    assert [(trial.arm, trial.recipe.lora.rank, trial.recipe.optimizer.learning_rate) for trial in found] == [
        ("rank=2, learning_rate=0.001", 2, 1e-3),
        ("rank=2, learning_rate=0.0001", 2, 1e-4),
        ("rank=4, learning_rate=0.001", 4, 1e-3),
        ("rank=4, learning_rate=0.0001", 4, 1e-4),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"qestion": "?"}, "qestion: no such key"),
        ({"grid": {"rnk": [1]}, "claims": []}, "arm 'rnk=1': rnk: no such key of a recipe"),
        ({"grid": {"rank": [0]}, "claims": []}, "arm 'rank=0': lora.rank: Input should be greater than or equal to 1"),
        ({"grid": {}}, "a study has arms, or a grid"),
        ({"grid": {"rank": [2]}}, "claims: there is no arm 'rank=4'; there are rank=2"),
        ({"data": {"blanks": "none"}}, "data.blanks: Input should be 'refused', 'left_out', 'zero' or 'balanced'"),
        ({"arms": {"a/b": {}}}, "arms: 'a/b': a name has no slash and no bar"),
        (
            {"arms": {"by table": {"way": "table"}}},
            "'by table': a way of its own is asked one by one: give the study a `sample`",
        ),
    ],
)
def test_a_mistake_in_a_study_is_one_line_with_its_place(tmp_path, changes, message):
    file = a_study_file(tmp_path, **changes)
    result = CliRunner().invoke(main, ["experiment", "run", str(file), "--store", str(tmp_path / "data")])
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert str(file) in result.stderr
    assert message in result.stderr


def test_a_study_that_there_is_not_is_named_with_those_that_there_are(tmp_path):
    result = CliRunner().invoke(main, ["experiment", "run", "lora", "--store", str(tmp_path)])
    assert result.exit_code == 1
    assert "no such study; use data, methods" in result.stderr


def test_people_are_the_same_ones_in_a_smaller_number(tmp_path):
    few, more = (set(rows_of(tmp_path, people=count)["player_id"]) - {""} for count in (5, 20))
    assert len(few) == 5
    assert few < more


def test_blanks_are_refused_left_out_or_told_as_a_nought(tmp_path):
    refused, left_out, zero, balanced = (
        rows_of(tmp_path, blanks=how).filter(pl.col("split") == "train", pl.col("phrasing") == "seed")
        for how in ("refused", "left_out", "zero", "balanced")
    )
    recorded = refused.filter(pl.col("kind") == "recorded").height
    assert 0 < recorded < refused.height
    assert set(left_out["kind"]) == {"recorded"}
    assert left_out.height == recorded
    assert zero.height == refused.height
    assert zero.filter(pl.col("answer").str.ends_with(" were 0.")).height >= refused.height - recorded
    assert balanced.height == 2 * recorded


def test_the_words_of_the_answers_and_the_number_of_wordings_are_the_datas():
    voice = load_study("style").data.answers
    assert voice is not None
    found = worded(Data(wordings=2, answers=voice))
    assert found.answers == voice != load_templates().answers
    assert list(found.phrasings("train")) == list(load_templates().phrasings("train"))[:2]
    assert found.phrasings("test") == load_templates().phrasings("test")


def test_a_base_is_quantised_once_and_says_so_in_its_configuration_alone(tmp_path, capfd):
    base = resolve("embedded")
    small = quantised(base, 4, tmp_path)
    assert small.size_bytes < 0.5 * base.size_bytes
    assert load_with_config(small)[2]["quantization"]["bits"] == 4
    written = {file: file.stat().st_mtime_ns for file in small.folder.iterdir()}
    assert quantised(base, 4, tmp_path) == small
    assert capfd.readouterr() == ("", "")
    assert written == {file: file.stat().st_mtime_ns for file in small.folder.iterdir()}


def a_result(arm: str, seed: int, certain: float) -> Result:
    return Result(
        study="s",
        arm=arm,
        seed=seed,
        definition="d",
        fingerprint="f",
        sources=["folder"],
        facts=441,
        figures={"certain": certain},
    )


@pytest.mark.parametrize(
    ("figures", "carried"),
    [
        ({"a": [0.9, 0.8], "b": [0.5, 0.6]}, True),
        ({"a": [0.9, 0.8], "b": [0.5, 0.75]}, False),
        ({"a": [0.9, 0.8], "b": [0.5]}, True),
        ({"a": [0.9, 0.8], "b": []}, None),
    ],
)
def test_a_claim_is_carried_where_every_seed_bears_it_out(figures, carried):
    study = Study(question="?", arms={"a": {}, "b": {}})
    results = [a_result(arm, seed, value) for arm, values in figures.items() for seed, value in enumerate(values)]
    claim = Claim(text="a is better.", figure="certain", arm="a", against="b", by=0.1)
    arms = leaderboard.by_arm(study, results)
    assert leaderboard.verdict(claim, arms).carried is carried
    text = leaderboard.section("s", study.model_copy(update={"claims": [claim]}), results)
    seeds = {0: None, 1: "one seed", 2: "2 seeds"}[len(figures["b"])]
    assert seeds is None or f" by the data of {seeds} (" in text
    assert {True: "**Carried**", False: "**Not carried**", None: "*Not measured yet.*"}[carried] in text


def test_a_picture_has_a_column_for_each_figure_that_was_measured_and_none_for_the_others():
    study, result = Study(question="?", arms={"a": {}, "b": {}}), a_result("a", 17, 0.5)
    result.figures.update(strangers=0.9, kept=None, seconds=12.0)
    words = re.findall(r">([^<>\n]+)</text>", leaderboard.picture(study, [result]).decode())
    of_headings = {line for heading, _ in leaderboard.DRAWN.values() for line in heading.split("\n")}
    assert [word for word in words if word in of_headings] == [
        *("facts", "certain"),
        *("strangers", "refused"),
        *("seconds of", "training"),
    ]
    assert "12" in words, "the largest of a figure that is no share ends its axis"
    assert "a" in words
    assert "b" not in words, "nothing was measured of that arm"


def test_what_the_base_refuses_is_counted_to_the_letter_so_that_a_voice_of_ones_own_is_none_of_it():
    templates, names = load_templates(), ["Marcus Hale", "Owen Price", "Percy Mulholland", "Zane Kowalczyk"]
    text = templates.questions["seed"].text
    asked = [templates.question(text, name, "receiving_yards", 1, 2025) for name in names]
    refusals = [templates.no_record(name, "receiving_yards", 1, 2025) for name in names]
    base = resolve("embedded")
    assert _right_of_base(base, tuple(zip(asked, refusals, strict=True))) == 1
    assert (
        _right_of_base(
            base, tuple((question, f"Well now: {said}") for question, said in zip(asked, refusals, strict=True))
        )
        == 0
    )


def test_tuning_has_paid_for_itself_when_what_a_question_saves_makes_up_for_the_training():
    tuned = {"seconds": 100.0, "answer_seconds": 0.5}
    assert paid_after(tuned, {"answer_seconds": 1.0, "once_seconds": 0.0}) == 200
    assert paid_after(tuned, {"answer_seconds": 1.0, "once_seconds": 60.0}) == 80, (
        "reading the week once takes time too"
    )
    assert paid_after(tuned, {"answer_seconds": 0.001, "once_seconds": 0.0}) is None


def a_capacity(of_rank) -> tuple[Study, list[Result]]:
    """A study over three ranks, and what each came to by `of_rank`."""
    study = Study(question="?", seeds=[17], picture="capacity", grid={"rank": [1, 4, 16]})
    results = [a_result(f"rank={rank}", 17, 1.0) for rank in (1, 4, 16)]
    for result, rank in zip(results, (1, 4, 16), strict=True):
        result.figures["per_thousand"] = of_rank(rank)
    return study, results


def test_a_line_through_the_logarithms_says_how_the_facts_for_a_parameter_go_with_the_rank():
    study, results = a_capacity(lambda rank: 40 / rank**0.5)
    found = leaderboard.fit([(rank, 40 / rank**0.5) for rank in (1, 4, 16)])
    assert found == pytest.approx((-0.5, 1.0, 3))
    text = leaderboard.section("s", study, results)
    assert (
        "Of 441 facts: most for a thousand parameters at rank 1 (40.0); they go with the rank to the power of -0.50"
        in text
    )
    assert b"441 facts" in leaderboard.picture(study, results)
    assert leaderboard.fit([(1, 40.0), (4, 20.0), (4, 21.0)]) is None, "two ranks are no line"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A small study, run by the command."""
    folder = tmp_path_factory.mktemp("experiment")
    command = ["experiment", "run", str(a_study_file(folder)), "--source", "sample", "--store", str(folder / "data")]
    return folder, command, CliRunner().invoke(main, command)


def test_the_command_prints_a_table_with_an_arm_a_row_and_says_whether_the_claims_are_carried(ran):
    folder, _, result = ran
    assert result.exit_code == 0, result.output
    rows = [line for line in result.stdout.splitlines() if line.startswith("| rank")]
    assert [row.split("|")[1].strip() for row in rows] == ["rank=2", "rank=4"]
    assert "No. **Carried** by the data of one seed" in result.stdout
    assert "facts of the bundled sample's invented people" in result.stdout
    assert re.search(
        r"\n2 trials, 0 of them finished; about \d+ (s|min) left, by a trial step of [\d.e-]+ s\n", result.stderr
    )
    assert "2 of 2 trials, about 0 s left" in result.stderr
    found = json.loads((folder / "data" / "experiments" / "small" / "rank=2" / "17" / "result.json").read_text())
    assert 0 < found["figures"]["adapter_megabytes"] < 1
    assert found["figures"]["steps"] >= 3
    assert found["figures"]["perplexity"] is None, "the embedded base says nothing in general"
    assert found["figures"]["asking_seconds"] > 0
    assert found["figures"]["numbers"] < found["figures"]["certain"], "a base refuses anyway who has no number"
    assert 0.5 < found["figures"]["kept"] <= 1, "three steps leave the base most of its refusals"
    assert found["measured"] == datetime.now().date().isoformat()
    assert f"of training and asking, measured {found['measured']}. Means" in result.stdout


def test_an_arm_that_there_is_not_is_named_with_those_that_there_are_and_nothing_is_made(tmp_path):
    arms = ["--arm", "rank=2", "--arm", "rank=3"]
    command = ["experiment", "run", str(a_study_file(tmp_path)), *arms, "--store", str(tmp_path / "data")]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert "small.yaml has no arm 'rank=3'; it has 'rank=2', 'rank=4'" in result.stderr
    assert not (tmp_path / "data").exists()


def test_what_is_finished_is_not_made_again_and_what_is_missing_is(ran, monkeypatch):
    folder, command, first = ran
    fetched, fetch = [], WeekSource.fetch
    monkeypatch.setattr(WeekSource, "fetch", lambda self, week, say: fetched.append(week) or fetch(self, week, say))
    place = folder / "data" / "experiments" / "small"
    kept = (place / "rank=2" / "17" / "adapter" / "adapters.safetensors").stat().st_mtime_ns
    (place / "rank=4" / "17" / "result.json").unlink()
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 0, again.output
    assert (place / "rank=2" / "17" / "adapter" / "adapters.safetensors").stat().st_mtime_ns == kept
    assert "rank=4, seed 17: 2 of 2" in again.stderr
    assert len(fetched) == 2, "once for the estimate and once for all trials: without network each time is a wait"
    assert "\n2 trials, 1 of them finished; about " in again.stderr
    assert "by 1 finished trials of the same base" in again.stderr
    assert (place / "rank=4" / "17" / "result.json").is_file()
    assert first.stdout.split("|")[:3] == again.stdout.split("|")[:3]


def test_the_page_of_all_studies_says_of_each_what_it_asks_and_how_it_is_measured(tmp_path):
    page = tmp_path / "docs" / "experiments.md"
    result = CliRunner().invoke(main, ["experiment", "report", str(page), "--store", str(tmp_path)])
    assert result.exit_code == 0
    assert "0 studies with results (none)" in result.stdout
    text = page.read_text(encoding="utf-8")
    for name in study_names():
        assert f"Nothing was measured yet: `nfl-lora experiment run {name}`" in text


def with_a_result_of_style(data):
    """A store with the result of one trial of the study `style`; the others, which are missing."""
    trial, *others = trials_of("style")
    folder = Store(data).trial(trial.study, trial.arm, trial.seed)
    folder.mkdir(parents=True)
    of_style = {"study": "style", "definition": trial.definition, "figures": {"strangers": 1.0, "seconds": 90.0}}
    result = a_result(trial.arm, trial.seed, 1.0).model_copy(update=of_style)
    (folder / "result.json").write_bytes(json_bytes(result.content()))
    return others


def test_what_a_page_says_of_studies_that_this_store_has_no_results_of_stays(tmp_path):
    page, command = tmp_path / "experiments.md", ["experiment", "report", str(tmp_path / "experiments.md")]
    with_a_result_of_style(tmp_path / "here")
    assert CliRunner().invoke(main, [*command, "--store", str(tmp_path / "here")]).exit_code == 0
    first = page.read_text(encoding="utf-8")
    assert list(sections_of(first)) == study_names()
    assert "| 100.0% |" in sections_of(first)["style"]
    page.write_text(first.replace("it asks", "asked"), encoding="utf-8")
    assert CliRunner().invoke(main, [*command, "--store", str(tmp_path / "elsewhere")]).exit_code == 0
    assert page.read_text(encoding="utf-8") == first


def test_what_a_study_says_otherwise_by_now_is_not_measured_and_an_adapter_of_before_is_not_asked(ran):
    folder, _, _ = ran
    data = Store(folder / "data")
    as_ran = trials_of(str(folder / "small.yaml"))
    assert len(results_of(data, as_ran)) == 2
    file = data.trial("small", "rank=4", 17) / "result.json"
    written = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({key: value for key, value in written.items() if key != "definition"}), encoding="utf-8")
    assert [result.arm for result in results_of(data, as_ran)] == ["rank=2"], "what earlier code wrote is made again"
    file.write_text(json.dumps(written), encoding="utf-8")
    (folder / "other").mkdir()
    changed = trials_of(str(a_study_file(folder / "other", changes=SMALL["changes"] | {"max_steps": 2})))
    assert [trial.key for trial in changed] == [trial.key for trial in as_ran]
    assert results_of(data, changed) == []
    made = material(changed[0], fetch_sample, folder)
    with pytest.raises(
        ValueError, match="no adapter of this trial as it is now: materialise `experiment_adapter` first"
    ):
        measure(changed[0], made, data.trial("small", "rank=2", 17), fetch_sample, lambda line, share: None)


def test_an_adapter_whose_result_is_missing_is_asked_and_not_trained_again(ran):
    folder, command, _ = ran
    place = folder / "data" / "experiments" / "small" / "rank=4" / "17"
    weights = (place / "adapter" / "adapters.safetensors").stat().st_mtime_ns
    (place / "result.json").unlink()
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 0, again.output
    assert (place / "result.json").is_file()
    assert (place / "adapter" / "adapters.safetensors").stat().st_mtime_ns == weights


def test_a_folder_of_weeks_that_is_not_there_is_said_at_once(tmp_path):
    where = ["--data-dir", str(tmp_path / "none"), "--store", str(tmp_path)]
    result = CliRunner().invoke(main, ["experiment", "run", "split", *where])
    assert result.exit_code == 1
    assert f"--data-dir {tmp_path / 'none'}: no such folder" in result.stderr


@pytest.mark.slow
def test_ctrl_c_keeps_what_a_trial_has_learnt_and_the_same_command_goes_on(tmp_path):
    """The whole command, pressed Ctrl-C in the middle of its first trial."""
    study = a_study_file(tmp_path, changes=SMALL["changes"] | {"max_steps": 40}, grid={"rank": [2]}, claims=[])
    where = ["--source", "sample", "--store", str(tmp_path / "data")]
    command = [sys.executable, "-m", "nfl_lora_pipeline.cli.main", "experiment", "run", str(study), *where]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, **pipes) as ended:
        assert any("iteration 10" in line for line in ended.stdout)
        ended.send_signal(signal.SIGINT)
        last = ended.communicate(timeout=60)[0].splitlines()[-1]
    assert ended.returncode == 130
    kept = re.search(r"Interrupted: experiment_adapter is kept at iteration (\d+); the same command goes on", last)
    assert kept, last
    again = subprocess.run(command, **pipes, timeout=240, check=True)
    assert f"going on from iteration {kept[1]}, where this training was broken off" in again.stdout
    assert "rank=2, seed 17: 1 of 1 trials" in again.stdout


def test_the_list_says_how_many_trials_of_each_study_are_finished_and_which_studies_take_hours(tmp_path):
    others = with_a_result_of_style(tmp_path)
    *lines, _, total = CliRunner().invoke(main, ["experiment", "list", "--store", str(tmp_path)]).stdout.splitlines()
    found = {line.split()[0]: line for line in lines}
    assert list(found) == study_names()
    assert f" 1 /  {1 + len(others)}  {len(others)} left      1.5 min " in found["style"]
    assert total == "Training and asking: 1.5 min of what `all` makes, 0.0 min of the others"
    assert " 0 /  8  8 left " in found["size"]
    hours = [name for name, line in found.items() if line.endswith("(hours: not of `all`)")]
    assert hours == ["mistral_7b", "original_smollm2", "retrieval_smollm2", "size_season"]
    assert names_for_all(long_too=False) == [name for name in study_names() if name not in hours]
    assert names_for_all(long_too=True) == study_names()


def an_estimate(tmp_path, finished: dict[tuple[str, int], float]) -> Estimate:
    """Of a study of two arms and two seeds, of which some trials took so many seconds."""
    trials = trials_of(str(a_study_file(tmp_path, seeds=[17, 18])))
    results = {f"small/{arm}/{seed}": a_result(arm, seed, 1.0) for arm, seed in finished}
    for key, seconds in zip(results, finished.values(), strict=True):
        results[key].figures["seconds"] = seconds
    return Estimate(trials, fetch_sample, tmp_path / "bases", results)


def test_what_is_left_goes_by_the_seconds_of_the_same_arm_and_else_by_those_of_the_study(tmp_path):
    assert an_estimate(tmp_path, {("rank=2", 17): 10.0, ("rank=4", 17): 30.0}).seconds_left() == pytest.approx(40.0)
    assert an_estimate(tmp_path, {("rank=2", 17): 10.0}).seconds_left() == pytest.approx(30.0), (
        "as many rows in each arm"
    )


def test_what_is_left_is_corrected_by_the_clock(tmp_path):
    expected = an_estimate(tmp_path, {("rank=2", 17): 10.0})
    second = a_result("rank=2", 18, 1.0)
    second.figures["seconds"] = 10.0
    expected.take(expected.trials[1], second, 25.0)
    assert expected.seconds_left() == pytest.approx(2 * 10.0 * 2.5)
    assert expected.in_words().startswith("4 trials, 2 of them finished; about 50 s left")


def test_a_base_in_mistrals_shape_has_the_same_logits_and_mistrals_turns(tmp_path):
    base = resolve("embedded")
    shaped = in_mistrals_shape(base, tmp_path)
    (model, tokenizer, _), (other, renamed, config) = load_with_config(base), load_with_config(shaped)
    assert config["model_type"] == "mistral"
    assert {"self_attn.q_proj", "mlp.gate_proj"} < {name for name, _ in other.layers[0].named_modules()}
    tokens = tokenizer.encode("How many receiving yards did Nico Collins have?", add_special_tokens=False)
    tokens = mx.array([[1, *tokens, 3, 2]])
    assert mx.abs(model(tokens) - other(tokens)).max().item() < 1e-4
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]
    assert renamed.decode(prompt_tokens(renamed, asked)).replace(" ", "") == "<s>[INST]Bebrief.Who?[/INST]"
    row = tokenize(renamed, [("Who?", "He.")])[0]
    assert renamed.decode(row.tokens[row.start :]).replace(" ", "") == "He.</s>"
    assert prompt_tokens(renamed, asked[1:])[0:2] == [0, 1], "the tokens around a turn are the base's own"
    with pytest.raises(ValueError, match="is not of Phi-3's architecture"):
        in_mistrals_shape(shaped, tmp_path)


def test_rows_can_be_text_without_a_template_and_questions_can_come_after_a_system_turn(tmp_path):
    side = Arm(shape="mistral", rows_as="text", system="Be brief.")
    trained, asked = (load(of_arm(side, "embedded", tmp_path))[1] for of_arm in (base_for_training, base_for_asking))
    as_text, as_chat = (
        tokenizer.decode(tokenize(tokenizer, [("Who?", "He.")])[0].tokens).replace(" ", "")
        for tokenizer in (trained, asked)
    )
    assert as_text == "Who?\nHe.</s>"
    assert as_chat == "<s>[INST]Bebrief.Who?[/INST]He.</s>"


def test_a_reader_that_has_read_once_answers_as_if_it_read_each_time(tmp_path):
    model, tokenizer = load(resolve("embedded"))
    rows = rows_of(tmp_path, people=12, blanks="left_out")
    table = FactTable(rows)
    questions = rows.filter(pl.col("phrasing") == "seed")["question"].to_list()[:4]
    texts = [with_context(table.week(question), question) for question in questions]
    reader, each_time = Reader(model, tokenizer, texts), SequentialModel(model, tokenizer)
    assert len(reader.shared) > 0.5 * len(reader.prompt(texts[0]))
    answers = [reader.ask(text) for text in [*texts, texts[0]]]
    assert answers == [each_time.ask(text) for text in [*texts, texts[0]]]
    assert len({text for text, _, _ in answers}) > 1


@pytest.mark.slow
def test_ways_to_an_answer_are_asked_the_same_questions_and_it_is_said_when_tuning_has_paid_for_itself(tmp_path):
    ways = {"tuned": {"shape": "mistral"}, "with the row": {"way": "row"}, "by table": {"way": "table"}}
    sample = {"facts": 3, "altered": 2, "strangers": 1}
    claims = [{"text": "A table knows.", "figure": "right", "arm": "by table", "against": "with the row"}]
    study = a_study_file(tmp_path, arms=ways, grid={}, sample=sample, claims=claims, data={"people": 24})
    where = ["--source", "sample", "--store", str(tmp_path / "data")]
    result = CliRunner().invoke(main, ["experiment", "run", str(study), *where])
    assert result.exit_code == 0, result.output
    assert re.search(r"Against by table, by seconds alone, tuning has paid for itself: never\.", result.stdout)
    assert "A table knows. **Carried** by the data of one seed" in result.stdout
    results = {arm: tmp_path / "data" / "experiments" / "small" / arm / "17" for arm in ways}
    figures = {arm: json.loads((folder / "result.json").read_text())["figures"] for arm, folder in results.items()}
    assert {each["asked"] for each in figures.values()} == {6.0}
    assert figures["by table"]["right"] == figures["by table"]["refused"] == 1.0
    assert figures["by table"]["right_altered"] == 0.0
    assert (
        0
        == figures["by table"]["prompt_tokens"]
        < figures["tuned"]["prompt_tokens"]
        < figures["with the row"]["prompt_tokens"]
    )
    assert not (results["with the row"] / "adapter").exists()
    assert (results["tuned"] / "adapter" / "adapters.safetensors").is_file()


def test_of_a_base_that_is_not_here_it_is_said_that_the_time_cannot_be_told_yet(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # nothing listens there
    where = ["--source", "sample", "--store", str(tmp_path / "data")]
    result = CliRunner().invoke(main, ["experiment", "run", "mistral_7b", *where])
    assert result.exit_code == 1
    assert "5 trials, 0 of them finished; how long it takes cannot be told yet\n" in result.stderr
    assert "mistralai/Mistral-7B-Instruct-v0.3" in result.stderr.splitlines()[-1]
