"""What graded answers come to: shares with intervals, recall and what it is made of, inventions, what the base kept."""

import math
from dataclasses import dataclass, field

import polars as pl

from nfl_lora_pipeline.dataset.people import share
from nfl_lora_pipeline.dataset.templates import ANSWERS_ABOVE, numbers_in
from nfl_lora_pipeline.evaluation.grading import inventions, name_words, name_words_right, number_right, refusals
from nfl_lora_pipeline.evaluation.probes import ALTERED, BESIDE, INVENTED, KNOWN, SHARED, WITHOUT_FACT, wording_text
from nfl_lora_pipeline.markdown import percent
from nfl_lora_pipeline.stored import Miss

Z95 = 1.959964  # the standard normal quantile that leaves 2.5% on either side


def wilson(right: int, asked: int, *, z: float = Z95) -> tuple[float, float] | None:
    """The interval that holds a share with 95% confidence; None where nothing was asked.

    Unlike share +- z * error it stays within 0 to 1, and is of use where all or none are right.

    Args:
        right: how many of `asked` were right.
        asked: how many there were; they count as independent of each other.
        z: the quantile of the standard normal distribution.

    Raises:
        ValueError: `right` is not within 0 to `asked`.

    Source: E. B. Wilson (1927), "Probable inference, the law of succession, and statistical inference".
    """
    if not 0 <= right <= asked:
        raise ValueError(f"{right} of {asked} is no share: expected a number from 0 to {asked}")
    if not asked:
        return None
    share = right / asked
    middle = share + z * z / (2 * asked)
    reach = z * math.sqrt(share * (1 - share) / asked + z * z / (4 * asked * asked))
    scale = 1 + z * z / asked
    low = 0.0 if right == 0 else (middle - reach) / scale
    high = 1.0 if right == asked else (middle + reach) / scale
    return low, high


@dataclass(frozen=True)
class Share:
    """A share of questions, with its 95% interval (`wilson`); the last three are None where nothing was asked."""

    right: int
    asked: int
    share: float | None
    low: float | None
    high: float | None

    @property
    def fraction(self) -> float:
        """The share as a number; 0 where nothing was asked."""
        return self.share or 0.0


def counted(hits: pl.Series) -> Share:
    """The share of hits; Boolean, one a question, without nulls."""
    return share_of(int(hits.sum()), hits.len())


def share_of(right: int, asked: int) -> Share:
    """The same from two numbers."""
    low, high = wilson(right, asked) or (None, None)
    return Share(right, asked, right / asked if asked else None, low, high)


def may_be(share: Share, value: float) -> bool:
    """Whether a value lies within a share's interval; not where nothing was asked."""
    return share.low is not None and share.high is not None and share.low <= value <= share.high


def measured(share: Share) -> str:
    """A share with its interval: "98.9% (98.3 to 99.3)"."""
    if share.low is None or share.high is None:
        return "-"
    low = min(share.low, 0.999)  # an interval never begins at all
    return f"{percent(share.share)} ({100 * low:.1f} to {100 * share.high:.1f})"


def of_asked(share: Share) -> str:
    """How many of how many: "1,988 of 2,010"."""
    return f"{share.right:,} of {share.asked:,}"


MISSED_FACTS = 10


def week_key() -> pl.Expr:
    """The partition key of a row's `season` and `week`."""
    return pl.format("{}-W{}", "season", pl.col("week").cast(pl.String).str.zfill(2))


@dataclass(frozen=True)
class GroupRecall:
    """Recall of a group of questions.

    Attributes:
        exact: answers that are right to the letter.
        numbers: answers with the right number, of the questions that ask for one.
        split: of the questions, where they are grouped by that too.
    """

    name: str
    exact: Share
    numbers: Share
    split: str | None = None


def recall_by(scored: pl.DataFrame, *names: str) -> list[GroupRecall]:
    """Recall of each group.

    Args:
        scored: of `grading.with_verdict`.
        names: the columns to group by: the one that names a group, and perhaps "split", which comes before it in the order.
    """
    return [
        GroupRecall(str(keys[0]), counted(rows["right"]), counted(rows["number_right"].drop_nulls()), *keys[1:])
        for keys, rows in sorted(scored.group_by(names), key=lambda group: group[0][::-1])
    ]


@dataclass(frozen=True)
class CommonestNumber:
    """What who knows nothing but the commonest number of a stat gets.

    Attributes:
        name: of the stat; "all" for all of them.
        number: the commonest; None for "all".
        facts: those that have it.
        tuned: the share of the same facts' questions to which the tuned model gave the right number.
    """

    name: str
    number: float | None
    facts: Share
    tuned: float | None


def commonest(trained: pl.DataFrame) -> list[CommonestNumber]:
    """The commonest number of each stat, said of everybody recorded, and last of all stats together."""
    recorded = trained.filter(pl.col("kind") == "recorded")
    numbers: list[CommonestNumber] = []
    for (stat,), rows in recorded.sort("stat").group_by("stat", maintain_order=True):
        values = rows.unique("fact")["value"].value_counts().sort("count", "value", descending=[True, False])
        number, hits = values.row(0)
        tuned = counted(rows["number_right"]).share
        numbers.append(CommonestNumber(str(stat), number, share_of(hits, int(values["count"].sum())), tuned))
    if numbers:
        right, asked = sum(each.facts.right for each in numbers), sum(each.facts.asked for each in numbers)
        tuned = counted(recorded["number_right"]).share
        numbers.append(CommonestNumber("all", None, share_of(right, asked), tuned))
    return numbers


@dataclass(frozen=True)
class AlteredQuestions:
    """Known facts in altered words.

    Attributes:
        numbers: right numbers, and no other.
        wrong_numbers: answers with a number that are not right: it is somebody else's, or is said of somebody else.
        refused: refusals.
        worst: up to ten misses.
    """

    name: str
    numbers: Share
    wrong_numbers: Share
    refused: Share
    worst: list[Miss]


@dataclass(frozen=True)
class SharedLastNames:
    """Questions with a last name that several people with a number bear.

    Attributes:
        right: refusals, and answers that name all of them.
        worst: up to ten others.
    """

    right: Share
    worst: list[Miss]


def with_shared_last_names(graded: pl.DataFrame) -> pl.DataFrame:
    """Predictions of `grading.with_verdict`, where who is asked with a last name of several people is right to name them all,
    with no number but theirs."""
    names = ["season", "week", "stat", "player"]
    recorded = graded.filter(pl.col("group") == KNOWN, pl.col("kind") == "recorded").unique("fact")
    values = {tuple(fact): value for *fact, value in recorded.select(*names, "value").iter_rows()}
    right = [
        is_right or (group == SHARED and _names_all(answer, people.split(" and "), (season, week, stat), values))
        for is_right, group, answer, season, week, stat, people in graded.select(
            "right", "group", "tuned", *names
        ).iter_rows()
    ]
    return graded.with_columns(right=pl.Series(right, dtype=pl.Boolean))


def _names_all(
    answer: str, people: list[str], at: tuple[int, int, str], values: dict[tuple[int, int, str, str], float]
) -> bool:
    words = [name_words(name) for name in people]
    all_named = all(name_words_right(answer, " ".join(name)) == len(name) for name in words)
    return all_named and numbers_in(answer) <= {values.get((*at, name)) for name in people}


@dataclass(frozen=True)
class FailingFact:
    """A fact that is wrong in some phrasings: in how many of those asked."""

    fact: str
    wrong: int
    asked: int


@dataclass(frozen=True)
class PhrasingMetrics:
    """How recorded facts do in altered words, and in all phrasings at once.

    Attributes:
        altered: each altered group.
        shared_last_names: those asked with a last name that is not theirs alone.
        worst: the text of the phrasing of the splits with the fewest right numbers.
        worst_numbers: these.
        in_all: recorded facts that are right to the letter in every trained and held-out phrasing.
        not_in_all: the facts that fail most often.
    """

    altered: list[AlteredQuestions]
    shared_last_names: SharedLastNames
    worst: str | None
    worst_numbers: Share | None
    in_all: Share
    not_in_all: list[FailingFact]


def phrasing(predictions: pl.DataFrame) -> PhrasingMetrics:
    """How recorded facts do in other words; `recall_by` has each phrasing."""
    recorded = predictions.filter(pl.col("kind") == "recorded", pl.col("group") == KNOWN)
    numbers = {
        str(name): counted(rows["number_right"])
        for (name,), rows in sorted(recorded.group_by(wording_text()), key=lambda group: group[0])
    }
    worst = min(numbers, key=lambda name: numbers[name].fraction, default=None)
    facts = recorded.group_by("fact").agg(wrong=(~pl.col("right")).sum(), asked=pl.len())
    failing = facts.filter(pl.col("wrong") > 0).sort(-pl.col("wrong").cast(pl.Int64), "fact")
    return PhrasingMetrics(
        altered=[_altered(predictions, group) for group in ALTERED],
        shared_last_names=_shared_last_names(predictions.filter(pl.col("group") == SHARED)),
        worst=worst,
        worst_numbers=None if worst is None else numbers[worst],
        in_all=counted(facts["wrong"] == 0),
        not_in_all=[FailingFact(**row) for row in failing.head(MISSED_FACTS).to_dicts()],
    )


def misses_of(wrong: pl.DataFrame) -> list[Miss]:
    """Wrong answers, as a report lists them."""
    return [Miss(*row) for row in wrong.select("question", "answer", "tuned").iter_rows()]


def _altered(predictions: pl.DataFrame, group: str) -> AlteredQuestions:
    rows = predictions.filter(pl.col("group") == group)
    return AlteredQuestions(
        name=group,
        numbers=counted(rows["number_right"]),
        wrong_numbers=counted(pl.Series(_with_wrong_number(rows), dtype=pl.Boolean)),
        refused=counted(rows["refused"]),
        worst=misses_of(rows.filter(~pl.col("right")).sort("refused", "fact").head(MISSED_FACTS)),
    )


def _with_wrong_number(rows: pl.DataFrame) -> list[bool]:
    return [not right and bool(numbers_in(answer)) for right, answer in rows.select("right", "tuned").iter_rows()]


def _shared_last_names(rows: pl.DataFrame) -> SharedLastNames:
    wrong = rows.filter(~pl.col("right")).sort("fact").head(MISSED_FACTS)
    return SharedLastNames(right=counted(rows["right"]), worst=misses_of(wrong))


WORST = 10


@dataclass(frozen=True)
class UnanswerableQuestions:
    """A group of questions without an answer.

    Attributes:
        refused, invented, neither: what the tuned model did; invented is a number, 0 included. They add up to all.
        base_refused, base_invented: what the base did.
        worst: up to ten answers that were no refusal, those with a number first.
    """

    name: str
    refused: Share
    invented: Share
    neither: Share
    base_refused: Share
    base_invented: Share
    worst: list[Miss]


def without_facts(predictions: pl.DataFrame) -> list[UnanswerableQuestions]:
    """Each group of questions without an answer that was asked.

    Args:
        predictions: of `grading.with_verdict`, with `base`.
    """
    groups = {name: predictions.filter(pl.col("group") == name) for name in WITHOUT_FACT}
    return [_of_group(name, rows) for name, rows in groups.items() if not rows.is_empty()]


@dataclass(frozen=True)
class OverRefusal:
    """How often a fact with a number is refused, over the phrasings of the splits; with up to ten such questions of both."""

    trained: Share
    heldout_phrasings: Share
    worst: list[Miss]


def over_refusal(predictions: pl.DataFrame) -> OverRefusal:
    """How often a fact with a number is refused."""
    recorded = predictions.filter(pl.col("group") == KNOWN, pl.col("kind") == "recorded")
    is_trained = pl.col("split") == "train"
    refused = recorded.filter("refused").sort(~is_trained, "fact", "phrasing")
    return OverRefusal(
        trained=counted(recorded.filter(is_trained)["refused"]),
        heldout_phrasings=counted(recorded.filter(~is_trained)["refused"]),
        worst=misses_of(refused.head(WORST)),
    )


def _of_group(name: str, rows: pl.DataFrame) -> UnanswerableQuestions:
    asked_base = rows.filter(pl.col("base").is_not_null())
    wrong = rows.filter(~pl.col("refused")).sort(~pl.col("invented"), "fact", "phrasing")
    return UnanswerableQuestions(
        name=name,
        refused=counted(rows["refused"]),
        invented=counted(rows["invented"]),
        neither=counted(~rows["refused"] & ~rows["invented"]),
        base_refused=counted(refusals(asked_base, "base")),
        base_invented=counted(inventions(asked_base, "base")),
        worst=misses_of(_spread(wrong).head(WORST)),
    )


def _spread(wrong: pl.DataFrame) -> pl.DataFrame:
    """One answer a person first, so that ten lines show ten people where there are so many."""
    return wrong.with_columns(again=pl.int_range(pl.len()).over("player")).sort(
        ~pl.col("invented"), "again", maintain_order=True
    )


@dataclass(frozen=True)
class BeforeAndAfter:
    """A figure of the base, and the same of the tuned model."""

    base: float
    tuned: float


@dataclass(frozen=True)
class ChangedAnswer:
    """A general prompt that the tuned model answers otherwise."""

    question: str
    base: str
    tuned: str


@dataclass(frozen=True)
class GeneralPrompts:
    """What a base that can talk in general says before and after.

    Attributes:
        prompts: how many there are.
        perplexity: of the base's own answers.
        changed: answers that are no longer the same to the letter.
        worst: these.
    """

    prompts: int
    perplexity: BeforeAndAfter
    changed: Share
    worst: list[ChangedAnswer]


@dataclass(frozen=True)
class Ability:
    """What the base could do, before and after, on the same questions.

    Attributes:
        base, tuned: shares; perplexities for general prompts.
        left: the tuned model's share of the base's, at most 1.
    """

    name: str
    base: Share | float
    tuned: Share | float
    left: float


PERPLEXITY = "perplexity of the base's own answers"
UNKNOWN_PEOPLE = (INVENTED, "reworded_strangers", *BESIDE)


def retained(predictions: pl.DataFrame, general: GeneralPrompts | None) -> list[Ability]:
    """What is left of each of the base's abilities, but for those that it did not have.

    Args:
        predictions: one row a question, with `base` (null where it was not asked), `generated` and `tuned`.
        general: of `evaluate.compare_in_general`, or None.
    """
    asked = predictions.filter(pl.col("base").is_not_null(), pl.col("group").is_in(UNKNOWN_PEOPLE))
    reworded = asked.filter(pl.col("group") == "reworded_strangers")
    pairs = {
        "strangers refused, in the pipeline's phrasings": _refused(_without(asked, reworded)),
        "strangers refused, in phrasings of the base's own making": _refused(reworded),
        "words of unseen names copied": (names_copied(asked, "base"), names_copied(asked, "generated")),
    }
    abilities = [
        Ability(name, base, tuned, min(1.0, tuned.fraction / base.share))
        for name, (base, tuned) in pairs.items()
        if base.share
    ]
    if general:
        perplexity = general.perplexity
        left = min(1.0, perplexity.base / perplexity.tuned)
        abilities.append(Ability(PERPLEXITY, perplexity.base, perplexity.tuned, left))
    return abilities


def names_copied(asked: pl.DataFrame, column: str) -> Share:
    """The words of names that stand in the answers, in their order."""
    counts = [
        (name_words_right(answer, name), len(name.split()))
        for answer, name in asked.select(column, "player").iter_rows()
    ]
    return share_of(sum(right for right, _ in counts), sum(words for _, words in counts))


def _without(asked: pl.DataFrame, left_out: pl.DataFrame) -> pl.DataFrame:
    return asked.join(left_out, on=["group", "fact", "phrasing"], how="anti")


def _refused(asked: pl.DataFrame) -> tuple[Share, Share]:
    return counted(refusals(asked, "base")), counted(refusals(asked, "tuned"))


SURE_ABOVE = (0.0, 0.5, ANSWERS_ABOVE, 0.7, 0.8, 0.9, 0.95, 0.99)
RISK_ACCEPTED = 0.01  # of the numbers that are given where the model is sure, so many may be wrong


@dataclass(frozen=True)
class RiskAndCoverage:
    """What comes of answering only where the answer as a whole is more probable than a threshold.

    Attributes:
        above: the threshold.
        given: of the questions about facts with a number, those that get one, right or wrong.
        wrong: of all numbers that are given, those that are wrong: another number, or one where there is none to give.
    """

    above: float
    given: Share
    wrong: Share


@dataclass(frozen=True)
class HeldBack:
    """Answers that the model gives and nobody is told, since it is not sure of them (`templates.only_if_sure`).

    Attributes:
        group: of the questions.
        asked: how many of the group there were.
        right, wrong: of the numbers that were held back, the right ones, and the wrong and the invented ones.
        refusals: how many of the others, which say that nothing is recorded of somebody in some week, were held back.
    """

    group: str
    asked: int
    right: int
    wrong: int
    refusals: int = 0


@dataclass(frozen=True)
class Sureness:
    """When an answer is sure, found on one half of the questions outside of the trained phrasings, and held against the other.

    Attributes:
        above: the least threshold, of those from `ANSWERS_ABOVE` on, at which no more than `RISK_ACCEPTED` of the numbers that
            are given were wrong in the first half; the highest one tried where none is.
        points: risk and coverage in the second half, by threshold; of what the model answers, whether somebody is told or not.
        held_back: by group, for those where something was; empty in reports of earlier code.
    """

    above: float
    points: list[RiskAndCoverage]
    held_back: list[HeldBack] = field(default_factory=list)


def sureness(predictions: pl.DataFrame) -> Sureness:
    """How much is lost and gained by saying "I am not sure".

    Args:
        predictions: of `grading.with_verdict`, with `generated` and `sure`, how probable that answer is as a whole.
    """
    is_right = number_right(predictions, "generated").fill_null(value=False)
    has_number = pl.Series([bool(numbers_in(text)) for text in predictions["generated"]], dtype=pl.Boolean)
    predictions = predictions.with_columns(is_right=is_right, number=has_number)
    asked = predictions.filter((pl.col("group") != KNOWN) | (pl.col("split") != "train"), pl.col("kind") != "bye")
    asked = asked.with_columns(
        first=pl.Series([share(f"sure/{text}") < 0.5 for text in asked["question"]], dtype=pl.Boolean),
        wrong=~pl.col("is_right"),
    )
    halves = [asked.filter("first"), asked.filter(~pl.col("first"))]
    tried = [_risk_and_coverage(halves[0], above) for above in SURE_ABOVE]
    accepted = (each.above for each in tried if each.above >= ANSWERS_ABOVE and each.wrong.fraction <= RISK_ACCEPTED)
    points = [_risk_and_coverage(halves[1], above) for above in SURE_ABOVE]
    return Sureness(next(accepted, SURE_ABOVE[-1]), points, _held_back(predictions))


def _held_back(predictions: pl.DataFrame) -> list[HeldBack]:
    held, right, number = pl.col("generated") != pl.col("tuned"), pl.col("is_right"), pl.col("number")
    counts = predictions.group_by("group", maintain_order=True).agg(
        pl.len(),
        (held & number & right).sum().alias("right"),
        (held & number & ~right).sum().alias("wrong"),
        (held & ~number).sum().alias("refusals"),
    )
    return [HeldBack(*row) for row in counts.iter_rows() if any(row[2:])]


def _risk_and_coverage(asked: pl.DataFrame, above: float) -> RiskAndCoverage:
    gives = pl.col("number") & (pl.col("sure") > above)
    return RiskAndCoverage(
        above,
        given=counted(asked.filter(pl.col("value").is_not_null()).select(gives.alias("given"))["given"]),
        wrong=counted(asked.filter(gives)["wrong"]),
    )
