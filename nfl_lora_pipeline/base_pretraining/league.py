"""What a step of pre-training sees: token strings to copy, records to read, facts to learn, strangers to refuse."""

import random
from dataclasses import dataclass, field

from tokenizers import Tokenizer

from nfl_lora_pipeline.dataset.templates import Templates, draw_wording
from nfl_lora_pipeline.dataset.unanswerable import invented_name
from nfl_lora_pipeline.models.rows import TokenRow

# The control tokens of the embedded model's tokenizer.
PAD, USER, ASSISTANT, END = SPECIAL_TOKENS = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"]
SEASONS = range(2000, 2040)
WEEKS = range(1, 19)
OWN_WORDINGS = 4
KNOWN, ALMOST_KNOWN = 0.92, 0.6
BYE_SHARE = 0.08

NEAR_SEASONS = 4

STATS = (
    "receiving_yards",
    "receptions",
    "targets",
    "receiving_touchdowns",
    "fantasy_points",
)  # what `invented_record` has
Record = dict[str, float] | None
Row = tuple[str, str]


@dataclass(frozen=True)
class Refusals:
    """What the questions without an answer are about, in shares; what is left of them is about two names crossed.

    Attributes:
        strangers: people who are not in the league.
        absences: people of the league, in a week or a season that they hold nothing for.
        weeks: of the absences, another week; the rest, another season.
        same_week: whether another season is asked about in one of the person's weeks and near his own, which is hard to tell
            from what is known, or in any.
    """

    strangers: float = 0.55
    absences: float = 0.25
    weeks: float = 0.75
    same_week: bool = False


@dataclass
class Person:
    """One invented player: numbers by week (None: a bye), and the wordings the facts are mostly asked in."""

    name: str
    season: int
    records: dict[int, Record]
    wordings: list[str]
    known: float = 0.0
    asked: int = 0


@dataclass
class League:
    """`size` people at a time; `stays` collects how many questions each retired person took to be known."""

    rng: random.Random
    templates: Templates
    pool: list[str]
    size: int
    refusals: Refusals = field(default_factory=Refusals)
    people: list[Person] = field(default_factory=list)
    stays: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        while len(self.people) < self.size:
            self.people.append(self._newcomer())

    def fact(self, *, known_only: bool = False) -> tuple[Row, Person]:
        """A question about somebody in the league, with the right answer."""
        person = self.rng.choice(self.people)
        while known_only and person.known < ALMOST_KNOWN and self.rng.random() < 0.98:
            person = self.rng.choice(self.people)
        week = self.rng.choice(list(person.records))
        stat = self.rng.choice(STATS)
        own = self.rng.random() < 0.8
        wording = self.rng.choice(person.wordings) if own else draw_wording(self.rng, self.pool)
        return (
            self.templates.question(wording, person.name, stat, week, person.season),
            tell(self.templates, person.name, stat, week, person.season, person.records[week]),
        ), person

    def refusal(self) -> Row:
        """A question that has no answer: a stranger, somebody's absent week or season, or two names crossed."""
        draw = self.rng.random()
        season, week = self.rng.choice(SEASONS), self.rng.choice(WEEKS)
        if draw < self.refusals.strangers:
            name = invented_name(self.rng)
        elif draw < self.refusals.strangers + self.refusals.absences:
            person = self.rng.choice(self.people)
            name, season = person.name, person.season
            if self.rng.random() < self.refusals.weeks:
                week = self.rng.choice([week for week in WEEKS if week not in person.records])
            else:
                season, week = self._other_season(person, week)
        else:
            one, other = self.rng.sample(self.people, 2)
            name = f"{one.name.split(' ')[0]} {other.name.split(' ', 1)[-1]}"
            season, week = one.season, next(iter(one.records))
            if any(name == person.name for person in self.people):
                name = invented_name(self.rng)
        stat = self.rng.choice(STATS)
        wording = draw_wording(self.rng, self.pool)
        return (
            self.templates.question(wording, name, stat, week, season),
            self.templates.no_record(name, stat, week, season),
        )

    def _other_season(self, person: Person, week: int) -> tuple[int, int]:
        near = SEASONS
        if self.refusals.same_week:
            week = self.rng.choice(list(person.records))
            near = range(person.season - NEAR_SEASONS, person.season + NEAR_SEASONS + 1)
        return self.rng.choice([other for other in near if other in SEASONS and other != person.season]), week

    def graded(self, person: Person, *, right: bool, replace: bool) -> None:
        """Count an answer; replace a person who is known by heart, where that is wanted."""
        person.asked += 1
        person.known += 0.1 * (right - person.known)
        if replace and person.known > KNOWN and person in self.people:
            self.stays.append(person.asked / len(person.records))
            self.people[self.people.index(person)] = self._newcomer()

    def _newcomer(self) -> Person:
        weeks = self.rng.sample(WEEKS, self.rng.choice((1, 1, 1, 2, 2, 3, 5)))
        name = invented_name(self.rng)
        while any(name == person.name for person in self.people):
            name = invented_name(self.rng)
        return Person(
            name=name,
            season=self.rng.choice(SEASONS),
            records={week: None if self.rng.random() < BYE_SHARE else invented_record(self.rng) for week in weeks},
            wordings=[draw_wording(self.rng, self.pool) for _ in range(OWN_WORDINGS)],
        )


def invented_record(rng: random.Random) -> dict[str, float]:
    """A receiver's day: targets, catches among them, yards and touchdowns from the catches, fantasy points from all."""
    targets = min(1 + int(rng.expovariate(0.22)), 19)
    receptions = sum(rng.random() < 0.64 for _ in range(targets))
    yards = sum(max(-6, round(rng.gauss(11, 8))) for _ in range(receptions))
    touchdowns = sum(rng.random() < 0.08 for _ in range(receptions))
    points = yards / 10 + 6 * touchdowns + rng.choice((0, 0, 0, 0, 0.3, 0.8, -2, 2))
    return {
        "receiving_yards": yards,
        "receptions": receptions,
        "targets": targets,
        "receiving_touchdowns": touchdowns,
        "fantasy_points": round(points, 1),
    }


def tell(templates: Templates, player: str, stat: str, week: int, season: int, record: Record) -> str:
    """What the league says of a week: a number, or that there was no game."""
    if record is None:
        return templates.bye(player, stat, week, season)
    return templates.recorded(player, stat, week, season, record[stat])


STEP_ROWS = 32
READING_STEP_ROWS = 16
READING_EVERY = 16
COPYING_STEPS = 1500


@dataclass(frozen=True)
class Practice:
    """A row to learn from: "copy", "read", "fact" or "refuse"; `person` is whose fact it is."""

    row: TokenRow
    kind: str
    person: Person | None = None


def copy_share(step: int) -> float:
    """Copying first, since nothing else can be learnt without it; then little of it, for ever."""
    return max(0.08, 1.0 - step / COPYING_STEPS)


def draw_steps(
    step: int, *, closing: bool, rng: random.Random, league: League, tokenizer: Tokenizer
) -> list[list[Practice]]:
    """The rows of two steps, the shorter ones in one and the longer ones in the other (less padding).

    Args:
        step: how many steps have been made.
        closing: the last part of the making: few facts, of people known by heart; mostly refusals.
        rng: the source of chance.
        league: who is asked about.
        tokenizer: makes the tokens.
    """
    if step > COPYING_STEPS and step % READING_EVERY == 0:
        rows = _encode(tokenizer, [("read", _reading(rng, league), None) for _ in range(2 * READING_STEP_ROWS)])
    else:
        copies = [_copying(rng, tokenizer) for _ in range(round(2 * STEP_ROWS * copy_share(step)))]
        texts: list[tuple[str, tuple[str, str], Person | None]] = []
        for _ in range(2 * STEP_ROWS - len(copies)):
            if rng.random() < (0.2 if closing else 0.55):
                texts.append(("fact", *league.fact(known_only=closing)))
            else:
                texts.append(("refuse", league.refusal(), None))
        rows = copies + _encode(tokenizer, texts)
    rows.sort(key=lambda practice: len(practice.row.tokens))
    halves = [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    rng.shuffle(halves)
    return halves


def _encode(tokenizer: Tokenizer, texts: list[tuple[str, tuple[str, str], Person | None]]) -> list[Practice]:
    prompts = tokenizer.encode_batch([f"{USER}{prompt}{END}{ASSISTANT}" for _, (prompt, _), _ in texts])
    answers = tokenizer.encode_batch([f"{reply}{END}" for _, (_, reply), _ in texts])
    return [
        Practice(TokenRow(prompt.ids + reply.ids, len(prompt.ids)), kind, person)
        for prompt, reply, (kind, _, person) in zip(prompts, answers, texts, strict=True)
    ]


def _copying(rng: random.Random, tokenizer: Tokenizer) -> Practice:
    """Any tokens; half of the time from a handful, so that the same token comes again and again, as in a name."""
    user, assistant, end = (SPECIAL_TOKENS.index(token) for token in (USER, ASSISTANT, END))
    ordinary = range(len(SPECIAL_TOKENS), tokenizer.get_vocab_size())
    pool = rng.sample(ordinary, rng.randint(2, 6)) if rng.random() < 0.5 else ordinary
    string = [rng.choice(pool) for _ in range(rng.randint(3, 12))]
    return Practice(TokenRow([user, *string, end, assistant, *string, end], len(string) + 3), "copy")


def _reading(rng: random.Random, league: League) -> tuple[str, str]:
    """Some records, then a question that they answer or do not."""
    templates = league.templates
    season, week = 2000 + rng.randrange(40), rng.randint(1, 18)
    people = [(invented_name(rng), invented_record(rng)) for _ in range(rng.randint(1, 2))]
    records = [(name, record, stat) for name, record in people for stat in rng.sample(STATS, rng.randint(1, 2))]
    context = " ".join(tell(templates, name, stat, week, season, record) for name, record, stat in records)
    wording = draw_wording(rng, league.pool)
    if rng.random() < 0.75:
        name, record, stat = rng.choice(records)
        reply = tell(templates, name, stat, week, season, record)
    else:
        name, stat = invented_name(rng), rng.choice(STATS)
        reply = templates.no_record(name, stat, week, season)
    return f"{context} {templates.question(wording, name, stat, week, season)}", reply
