"""What of the predictions is right."""

import polars as pl

from nfl_lora_pipeline.evaluation.answer_parsing import Names, is_refusal, is_right_number, numbers_in
from nfl_lora_pipeline.evaluation.probes import ALTERED


def exact_or_refused(predictions: pl.DataFrame) -> pl.Series:
    """Whether each answer is the reference answer to the letter, or of a stranger a refusal in any words.

    Args:
        predictions: `kind`, `answer` and `tuned`, one row a question.
    """
    exact = predictions["tuned"].str.strip_chars() == predictions["answer"]
    stranger = predictions["kind"] == "stranger"
    right = [
        is_exact or (is_stranger and is_refusal(answer))
        for is_exact, is_stranger, answer in zip(exact, stranger, predictions["tuned"], strict=True)
    ]
    return pl.Series("right", right, dtype=pl.Boolean)


def with_verdict(predictions: pl.DataFrame) -> pl.DataFrame:
    """Predictions with four verdicts on the tuned model's answers.

    Args:
        predictions: `group`, `kind`, `player_id`, `player`, `value`, `answer` and `tuned`, one row a question.

    Returns:
        Them, with Boolean `right` (`exact_or_refused`; of a fact in altered words, the right number), `number_right`
        (the right number and no other, about the right player or without a name; null where no number is right),
        `refused`, and `invented` (a number is given where there is none to give; null where there is one).
    """
    return predictions.with_columns(
        exact_or_refused(predictions),
        number_right(predictions, "tuned"),
        refusals(predictions, "tuned"),
        inventions(predictions, "tuned"),
    ).with_columns(right=pl.when(pl.col("group").is_in(ALTERED)).then("number_right").otherwise("right"))


def number_right(predictions: pl.DataFrame, column: str) -> pl.Series:
    """Whether each answer in `column` gives the fact's number and no other; null where there is none, or no answer.

    A person may be named in any of the ways that the questions have for the same id.
    """
    known = Names.of(predictions["player"].unique())
    names = dict(
        predictions.filter(pl.col("player_id") != "").group_by("player_id").agg(pl.col("player").unique()).iter_rows()
    )
    rows = predictions.select("player_id", "player", "value", "answer", column).iter_rows()
    verdicts = [
        None
        if value is None or answer is None
        else answer == reference
        or any(is_right_number(answer, value, name, known) for name in names.get(person, [player]))
        for person, player, value, reference, answer in rows
    ]
    return pl.Series("number_right", verdicts, dtype=pl.Boolean)


def refusals(predictions: pl.DataFrame, column: str) -> pl.Series:
    """Whether each answer in `column` is a refusal in any words; null where there is none."""
    verdicts = [None if answer is None else is_refusal(answer) for answer in predictions[column]]
    return pl.Series("refused", verdicts, dtype=pl.Boolean)


def inventions(predictions: pl.DataFrame, column: str) -> pl.Series:
    """Whether each answer in `column` gives a number though there is none; null where there is one, or no answer."""
    rows = predictions.select("value", column).iter_rows()
    verdicts = [None if value is not None or answer is None else bool(numbers_in(answer)) for value, answer in rows]
    return pl.Series("invented", verdicts, dtype=pl.Boolean)
