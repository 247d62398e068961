"""The promoted adapter, its log, and what an update lost, on adapters that are empty folders."""

import json
import os
import subprocess
import sys
from itertools import pairwise

import polars as pl
import pytest
from click.testing import CliRunner, Result

from nfl_lora_pipeline.adapters.promotion import before, promote, promotions, roll_back, taken_back
from nfl_lora_pipeline.cli.main import main
from nfl_lora_pipeline.evaluation.regressions import Lost, Regression, WeekChange, regressions_between, regressions_of
from nfl_lora_pipeline.files import DamagedFile
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline_tests.fakes import put_adapter

A, B, C = "a" * 16, "b" * 16, "c" * 16


@pytest.fixture
def store(tmp_path):
    held = Store(tmp_path / "data")
    for fingerprint in (A, B, C):
        put_adapter(held, fingerprint)
    return held


def promoted_in_turn(held, *fingerprints):
    for fingerprint in fingerprints:
        assert promote(held, fingerprint)


def logged(held):
    return [json.loads(line) for line in held.promotions.read_text().splitlines()]


def moves(held):
    return [(move.previous, move.fingerprint, move.reason) for move in promotions(held)]


def typed(held, *words: str) -> Result:
    return CliRunner().invoke(main, [words[0], "--store", str(held.root), *words[1:]])


def forget_last_line(held):
    """The state after a kill between the link's move and the log's writing."""
    lines = held.promotions.read_text().splitlines(keepends=True)
    held.promotions.write_text("".join(lines[:-1]))


def test_promoting_moves_a_relative_link_and_logs_it(store):
    promoted_in_turn(store, A, B)
    assert str(store.current.readlink()) == B
    assert json.loads((store.current / "provenance.json").read_text()) == store.provenance(B).content()
    first, second = logged(store)
    assert (first["fingerprint"], first["previous"], first["reason"]) == (A, None, "checks passed")
    assert (second["fingerprint"], second["previous"], second["reason"]) == (B, A, "checks passed")
    assert second["time"].endswith("+00:00")


def test_promoting_what_is_promoted_changes_nothing(store):
    promoted_in_turn(store, A)
    log = store.promotions.read_bytes()
    assert not promote(store, A)
    assert store.promotions.read_bytes() == log


def test_the_link_and_the_log_are_no_adapters(store):
    promoted_in_turn(store, A)
    (store.root / "adapters" / ".d.tmp").mkdir()
    (store.root / "adapters" / ".d.tmp" / "provenance.json").write_text("{}")
    assert store.adapters() == [A, B, C]


def test_whoever_reads_while_the_link_moves_finds_an_adapter(store):
    promoted_in_turn(store, A)
    code = (
        "import sys; from pathlib import Path; from nfl_lora_pipeline.store import Store\n"
        "from nfl_lora_pipeline.adapters.promotion import promote\n"
        f"held = Store(Path(sys.argv[1]))\nfor _ in range(60): promote(held, {B!r}); promote(held, {A!r})"
    )
    mover = subprocess.Popen([sys.executable, "-c", code, str(store.root)])
    reads = 0
    while mover.poll() is None:
        assert (store.current / "provenance.json").is_file()
        reads += 1
    assert mover.returncode == 0
    assert reads > 100
    assert len(logged(store)) == 121


def test_a_process_killed_between_link_and_log_leaves_what_the_next_one_understands(store):
    promoted_in_turn(store, A)
    code = (
        "import os, sys; from pathlib import Path; from nfl_lora_pipeline.adapters import promotion\n"
        "promotion.replace_file = lambda *_: os._exit(9)\n"
        f"promotion.promote(promotion.Store(Path(sys.argv[1])), {B!r})"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(store.root)], check=False, timeout=60)
    assert killed.returncode == 9
    assert store.promoted() == B
    assert [line["fingerprint"] for line in logged(store)] == [A]
    assert moves(store)[-1] == (A, B, "found in place")
    assert not promote(store, B)
    assert [line["fingerprint"] for line in logged(store)] == [A, B]
    assert roll_back(store).fingerprint == A


def test_a_rollback_whose_line_was_lost_is_still_one(store):
    promoted_in_turn(store, A, B, C)
    roll_back(store)
    forget_last_line(store)
    assert store.promoted() == B
    assert taken_back(store) == {C}
    assert roll_back(store).fingerprint == A


def test_a_link_that_cannot_be_moved_leaves_link_and_log(store):
    promoted_in_turn(store, A)
    store.current.unlink()
    store.current.mkdir()
    (store.current / "file").touch()
    log = store.promotions.read_bytes()
    with pytest.raises(DamagedFile, match="current: is a folder, and no adapter of this store; move it away"):
        promote(store, B)
    assert store.promotions.read_bytes() == log
    assert [path.name for path in store.current.parent.glob(".current*")] == []


def test_rolling_back_twice_goes_back_two_steps(store):
    promoted_in_turn(store, A, B, C)
    assert typed(store, "rollback").stdout == f"promoted: {B} (was {C})\n"
    assert typed(store, "rollback").stdout == f"promoted: {A} (was {B})\n"
    assert store.promoted() == A
    assert moves(store)[-1] == (B, A, "rollback")
    result = typed(store, "rollback")
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: {store.promotions}: no adapter was promoted before {A} that can be used; "
        "name one: `nfl-lora history` lists them\n"
    )


def test_a_rollback_skips_an_adapter_that_is_no_longer_held(store):
    promoted_in_turn(store, A, B, C)
    store.adapter(B).rename(store.root / "away")
    assert roll_back(store).fingerprint == A


def test_a_rollback_after_the_same_adapter_came_back_takes_the_one_between(store):
    promoted_in_turn(store, A, B, A)
    assert [roll_back(store).fingerprint, roll_back(store).fingerprint] == [B, A]


def test_an_adapter_can_be_named_by_its_beginning(store):
    promoted_in_turn(store, A, B)
    assert typed(store, "rollback", "cc").stdout == f"promoted: {C} (was {B})\n"
    assert taken_back(store) == {B}
    assert roll_back(store).fingerprint == B


def test_what_was_rolled_back_from_is_remembered_until_it_is_named(store):
    promoted_in_turn(store, A, B)
    roll_back(store)
    assert taken_back(store) == {B}
    roll_back(store, B)
    assert B not in taken_back(store)


@pytest.mark.parametrize(
    ("promoted", "prefix", "message"),
    [
        ([], "", "no adapter is promoted, so there is nothing to roll back"),
        ([A], "", f"no adapter was promoted before {A}"),
        ([A], "ffff", "adapter 'ffff': "),
        ([A], "a", f"adapter {A} is the promoted one already"),
        ([A], "bb", f"adapter 'bb': which of {B}, bbc?"),
    ],
)
def test_a_rollback_to_nowhere_is_one_clear_line_and_moves_nothing(store, promoted, prefix, message):
    put_adapter(store, "bbc")
    promoted_in_turn(store, *promoted)
    result = typed(store, "rollback", *([prefix] if prefix else []))
    assert result.exit_code == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert store.promoted() == (promoted[0] if promoted else None)


def test_an_adapter_is_held_against_the_promoted_one_and_that_one_against_its_predecessor(store):
    assert before(store, A) is None
    promoted_in_turn(store, A, B)
    assert [before(store, fingerprint) for fingerprint in (C, B, A)] == [B, A, B]
    roll_back(store)
    assert before(store, C) == A
    assert before(store, A) is None


def asked(*said: str, split="train", answer="He had 5.", kind="recorded"):
    """Predictions of as many facts of week 1, each asked once."""
    numbers = range(len(said))
    return pl.DataFrame(
        {
            "fact": [f"{kind}/{split}/{number}" for number in numbers],
            "question": [f"{split} {number}?" for number in numbers],
            "tuned": list(said),
        }
    ).with_columns(
        season=pl.lit(2025), week=pl.lit(1), phrasing=pl.lit("seed"), split=pl.lit(split),
        kind=pl.lit(kind), answer=pl.lit(answer), group=pl.lit("invented_names" if kind == "stranger" else "known"),
        player=pl.lit("He"), value=pl.lit(None if kind == "stranger" else 5.0),
    )  # fmt: skip


RIGHT, WRONG = "He had 5.", "He had 6."


def test_lost_is_what_was_right_and_is_wrong():
    found = regressions_between(asked(RIGHT, RIGHT, WRONG, WRONG), asked(WRONG, RIGHT, RIGHT, WRONG))
    assert found.every == Lost(questions=4, lost=1)
    assert found.worst == [Regression(question="train 0?", split="train", expected=RIGHT, answer=WRONG)]


def test_an_answer_that_was_corrected_is_not_lost():
    found = regressions_between(asked(RIGHT, RIGHT), asked(WRONG, WRONG, answer="He had 7."))
    assert (found.every, found.worst) == (Lost(questions=0, lost=0), [])


def test_what_changed_is_counted_week_by_week():
    second = [
        asked(*said).with_columns(week=pl.lit(2), fact=pl.col("fact") + "b") for said in ([RIGHT, WRONG], [RIGHT] * 2)
    ]
    old = pl.concat([asked(RIGHT, RIGHT, WRONG), second[0]])
    new = pl.concat([asked(WRONG, RIGHT, WRONG), second[1]])
    found = regressions_between(old, new)
    assert found.by_week == [
        WeekChange("2025-W01", questions=3, right_before=2, right_now=1, lost=1, gained=0),
        WeekChange("2025-W02", questions=2, right_before=1, right_now=2, lost=0, gained=1),
    ]
    assert sum(week.lost for week in found.by_week) == found.every.lost


def test_a_question_of_a_new_week_is_not_compared():
    assert regressions_between(asked(RIGHT), asked(RIGHT, WRONG)).every.questions == 1


def test_a_stranger_is_lost_only_when_no_longer_refused():
    old = asked("I do not know.", "I do not know.", kind="stranger", split="test")
    new = asked("No record of him.", "He had 12.", kind="stranger", split="test")
    assert [miss.answer for miss in regressions_between(old, new).worst] == ["He had 12."]


def test_the_probes_beside_the_splits_are_not_compared():
    old = pl.concat([asked(RIGHT), asked(RIGHT).with_columns(group=pl.lit("typo"), fact=pl.lit("other"))])
    assert regressions_between(old, old).every.questions == 1
    assert regressions_between(asked(RIGHT).drop("group"), old).every.questions == 1, (
        "a report of earlier code has no groups"
    )


def test_losses_in_trained_phrasings_are_counted_apart_and_listed_first():
    old = pl.concat([asked(RIGHT, RIGHT, split="test"), asked(RIGHT, RIGHT)])
    new = pl.concat([asked(WRONG, WRONG, split="test"), asked(RIGHT, WRONG)])
    found = regressions_between(old, new)
    assert found.every == Lost(questions=4, lost=3)
    assert found.trained == Lost(questions=2, lost=1)
    assert [miss.split for miss in found.worst] == ["train", "test", "test"]


def put_predictions(held, fingerprint, predictions):
    held.report(fingerprint).mkdir(parents=True)
    predictions.write_parquet(held.report(fingerprint) / "predictions.parquet")


def test_an_update_is_held_against_the_promoted_adapter_rather_than_the_newest_before(store):
    for fingerprint in (A, B, C):
        store.set_latest(fingerprint)
    put_predictions(store, A, asked(RIGHT, RIGHT))
    put_predictions(store, B, asked(WRONG, RIGHT))
    new = asked(WRONG, WRONG)
    unpromoted = regressions_of(store, C, new)
    assert (unpromoted.against, unpromoted.promoted, unpromoted.every.lost) == (B, False, 1)
    promoted_in_turn(store, A)
    promoted = regressions_of(store, C, new)
    assert (promoted.against, promoted.promoted, promoted.every.lost) == (A, True, 2)


def test_a_first_adapter_has_lost_nothing_that_could_be_told(store):
    store.set_latest(A)
    assert regressions_of(store, A, asked(RIGHT)) is None


def test_the_newest_before_stays_the_same_when_an_adapter_is_reused(store):
    for fingerprint in (A, B, B):
        store.set_latest(fingerprint)
    assert store.previous_latest() == A


def test_the_log_is_a_chain(store):
    promoted_in_turn(store, A, B, C)
    roll_back(store)
    promoted_in_turn(store, C)
    assert all(one["fingerprint"] == two["previous"] for one, two in pairwise(logged(store)))


@pytest.mark.parametrize("words", [["history"], ["rollback"]])
def test_help_and_rollback_import_no_library_of_models(words):
    code = (
        "import sys; from nfl_lora_pipeline.cli.main import main\n"
        f"try: main({[*words, '--help']!r})\n"
        "except SystemExit as end: print(end.code, sorted({'dagster', 'mlx', 'mlx_lm', 'polars'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, env=dict(os.environ)
    )
    assert done.stdout.splitlines()[-1] == "0 []"
