"""What a step of pre-training sees: token strings to copy, records to read, facts to learn, questions to refuse."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from tokenizers import Tokenizer

from nfl_lora_pipeline.dataset.people import crossed_name, invented_name, is_last_name_alone, last_name
from nfl_lora_pipeline.dataset.templates import Templates
from nfl_lora_pipeline.dataset.typed import CAREFUL, Typing, typed
from nfl_lora_pipeline.dataset.unanswerable import BESIDE_ONE, OUTSIDE, beside_one, outside_question
from nfl_lora_pipeline.dataset.wordings import COMPLETE, SPOKEN, WORDS, draw_wording, other_stat, practised, spoken
from nfl_lora_pipeline.models.rows import TokenRow

# The control tokens of the embedded model's tokenizer.
PAD, USER, ASSISTANT, END, SYSTEM = SPECIAL_TOKENS = [
    "<|endoftext|>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
    "<|system|>",
]
SEASONS = range(2000, 2040)
WEEKS = range(1, 19)
OWN_WORDINGS = 4
KNOWN, ALMOST_KNOWN = 0.85, 0.6
BYE_SHARE = 0.08
NEAR_SEASONS = 4
OWN_WORDING_SHARE = 0.5
WEEKS_ON = 2  # weeks in which most of the league plays, so that a name alone tells who holds something there
ON_SHARE = 0.7  # of the people, who play in one of them
NEW_WEEK_SHARE = 0.02  # of the newcomers, with whom another week begins
WITH_THE_LEAGUE = 0.7  # of the strangers, who are asked about for a week and a stat of somebody in the league

STATS = tuple(SPOKEN)  # what `invented_record` has
Record = dict[str, float] | None
Row = tuple[str, str]
When = tuple[int, int]  # season and week


@dataclass(frozen=True)
class Refusals:
    """What the questions without an answer are about, in shares; what is left of them is about two names crossed.

    All but those about strangers and about nothing of the kind are asked beside a fact, in its words: they differ from it in
    one thing.

    Attributes:
        strangers: people who are not in the league, most of them in a week in which somebody holds something.
        elsewhere: people of the league, in a week or a season that they hold nothing for; half of them in the same week of
            another season, which is hard to tell from what is known.
        stats: people of the league, in a week of theirs, about a stat that they hold nothing of.
        outside: anything but one stat of one player in one week of one season.
    """

    strangers: float = 0.29
    elsewhere: float = 0.25
    stats: float = 0.15
    outside: float = 0.1


TYPING = Typing()


@dataclass(frozen=True)
class Manner:
    """How a league is asked about.

    Attributes:
        practised: the share of the wordings, of questions with one number and of those without, that are by many hands.
        beside: the share of them that are of `COMPLETE` or `BESIDE_ONE`, which are nearly of the other kind.
        strange: the share of the others, which are the grammar's, that may have words that nobody knows.
        typing: how carelessly.
        refusals: what those without an answer are about.
    """

    practised: float = 0.0
    beside: float = 0.0
    strange: float = 1.0
    typing: Typing = TYPING
    refusals: Refusals = Refusals()


BY_THE_GRAMMAR = Manner()
BY_MANY = Manner(
    practised=0.5,
    beside=0.1,
    strange=0.3,
    typing=replace(TYPING, misspelt=0.3),
    refusals=Refusals(strangers=0.26, elsewhere=0.22, stats=0.13, outside=0.2),
)


class Asked(NamedTuple):
    """A question about a fact: whose, in which words, which stat, and when."""

    person: "Person"
    wording: str
    stat: str
    at: When


@dataclass
class Person:
    """One invented player: numbers by season and week (None: a bye), and the wordings the facts are mostly asked in."""

    name: str
    records: dict[When, Record]
    stats: list[str]
    wordings: list[str]
    known: float = 0.0
    asked: int = 0


@dataclass
class League:
    """`size` people at a time; `stays` collects how many questions each retired person took to be known."""

    rng: random.Random
    templates: Templates
    size: int
    manner: Manner = BY_THE_GRAMMAR
    people: list[Person] = field(default_factory=list)
    stays: list[float] = field(default_factory=list)
    bearers: Counter[str] = field(default_factory=Counter)
    weeks_on: list[When] = field(default_factory=list)
    last: Asked | None = None

    def __post_init__(self) -> None:
        self.weeks_on = [self._any_week() for _ in range(WEEKS_ON)]
        while len(self.people) < self.size:
            self.people.append(self._newcomer())

    def fact(self, *, known_only: bool = False) -> tuple[Row, Person]:
        """A question about somebody in the league, with the right answer."""
        person = self.rng.choice(self.people)
        while known_only and person.known < ALMOST_KNOWN and self.rng.random() < 0.98:
            person = self.rng.choice(self.people)
        (season, week), stat = self.rng.choice(list(person.records)), self.rng.choice(person.stats)
        is_own = self.rng.random() < OWN_WORDING_SHARE
        wording = self.rng.choice(person.wordings) if is_own else self.wording()
        self.last = Asked(person, wording, stat, (season, week))
        question, written = self._asked(wording, person.name, stat, week, season)
        if self._is_shared(person, written):
            return (question, self._no_record(written, stat, week, season)), person
        return (question, tell(self.templates, written, stat, week, season, person.records[season, week])), person

    def refusal(self) -> Row:
        """A question that has no answer: see `Refusals`."""
        draw, refused = self.rng.random(), self.manner.refusals
        if draw < refused.outside:
            return self._outside(), OUTSIDE
        draw -= refused.outside
        if draw < refused.strangers:
            return self._of_a_stranger()
        person, wording, stat, (season, week) = self._beside()
        draw -= refused.strangers
        if draw >= refused.elsewhere + refused.stats:
            name = crossed_name(self.rng, person.name, [each.name for each in self.people])
            if any(name == each.name for each in self.people):
                name = invented_name(self.rng)
            return self._refused_stranger(wording, name, stat, week, season)
        if draw < refused.elsewhere:
            season, week = self._elsewhere(person)
            stat = stat if self.rng.random() < 0.8 else self._any_stat()
        else:
            while stat in person.stats:
                stat = self._any_stat()
        question, written = self._asked(wording, person.name, stat, week, season)
        return question, self._no_record(written, stat, week, season)

    def wording(self) -> str:
        """A wording with one number."""
        if frames := self._frames(practised("complete"), COMPLETE):
            return draw_wording(self.rng, frames, strange=False)
        strange = self.manner.strange
        return draw_wording(self.rng, strange=strange == 1 or self.rng.random() < strange)

    def _frames(self, by_many: Sequence[str], beside: Sequence[str]) -> Sequence[str]:
        """Which of two lists the next wording is of; none where it is the grammar's."""
        manner = self.manner
        draw = self.rng.random() if manner.practised else 1.0
        return by_many if draw < manner.practised else beside if draw < manner.practised + manner.beside else ()

    def _outside(self) -> str:
        """A question for something else, about somebody of the league or not."""
        one, other = (
            self.rng.choice(self.people).name if self.rng.random() < 0.5 else invented_name(self.rng) for _ in range(2)
        )
        season, week = self._any_week()
        if self.rng.random() < 0.5:
            season, week = self.rng.choice(self.weeks_on)
        frames, stats = self._frames(practised("incomplete"), BESIDE_ONE), spoken(self.rng, self._any_stat())
        if frames:
            return beside_one(self.rng, frames, one, other, stats, week, season)
        return outside_question(self.rng, one, other, stats, week, season)

    def _of_a_stranger(self) -> Row:
        """A question about somebody who is not in the league, most often for a week and a stat of somebody who is."""
        (season, week), stat = self._any_week(), self._any_stat()
        if self.rng.random() < WITH_THE_LEAGUE:
            person = self.rng.choice(self.people)
            (season, week), stat = self.rng.choice(list(person.records)), self.rng.choice(person.stats)
        return self._refused_stranger(self.wording(), invented_name(self.rng), stat, week, season)

    def _beside(self) -> Asked:
        """The fact that was asked about last, once; else any other one."""
        found, self.last = self.last, None
        if found:
            return found
        person = self.rng.choice(self.people)
        at, stat = self.rng.choice(list(person.records)), self.rng.choice(person.stats)
        return Asked(person, self.wording(), stat, at)

    def _asked(self, wording: str, name: str, stat: str, week: int, season: int) -> tuple[str, str]:
        """A question about somebody, and the name as it is written there: the answer writes it so too."""
        return typed(self.rng, wording, name, spoken(self.rng, stat), week, season, typing=self.manner.typing)

    def _is_shared(self, person: Person, written: str) -> bool:
        """Whether a person is asked about by a last name that others bear too, so that nobody can tell who is meant."""
        return is_last_name_alone(written, person.name) and self.bearers[last_name(person.name) or ""] > 1

    def _refused_stranger(self, wording: str, name: str, stat: str, week: int, season: int) -> Row:
        question, written = self._asked(wording, name, stat, week, season)
        if is_last_name_alone(written, name) and self.bearers[last_name(name) or ""]:  # that of somebody who is known
            question, written = typed(self.rng, wording, name, spoken(self.rng, stat), week, season)
        return question, self._no_record(written, stat, week, season)

    def _no_record(self, name: str, stat: str, week: int, season: int) -> str:
        return self.templates.no_record(name, stat, week, season)

    def _any_stat(self) -> str:
        return self.rng.choice(STATS) if self.rng.random() < 0.6 else other_stat(self.rng)

    def _any_week(self) -> When:
        return self.rng.choice(SEASONS), self.rng.choice(WEEKS)

    def _elsewhere(self, person: Person) -> When:
        """Where a person holds nothing: another week of a season, the same week of a near season, or theirs crossed."""
        while True:
            season, week = self.rng.choice(list(person.records))
            if self.rng.random() < 0.5:
                week = self.rng.choice((week - 1, week + 1, *WEEKS))
            else:
                season += self.rng.choice((-1, 1, self.rng.randint(-NEAR_SEASONS, NEAR_SEASONS)))
            if (season, week) not in person.records and season in SEASONS and week in WEEKS:
                return season, week

    def graded(self, person: Person, *, right: bool, replace: bool) -> None:
        """Count an answer; replace a person who is known by heart, where that is wanted."""
        person.asked += 1
        person.known += 0.1 * (right - person.known)
        if replace and person.known > KNOWN and person in self.people:
            self.stays.append(person.asked / len(person.records))
            self.bearers[last_name(person.name) or person.name] -= 1
            self.people[self.people.index(person)] = self._newcomer()

    def _newcomer(self) -> Person:
        name = invented_name(self.rng)
        while any(name == person.name for person in self.people):
            name = invented_name(self.rng)
        self.bearers[last_name(name) or name] += 1
        stats = self.rng.sample(STATS, self.rng.choice((1, 1, 1, 2, 3, 5)))
        if self.rng.random() < 0.15:
            stats[0] = other_stat(self.rng)
        if self.rng.random() < NEW_WEEK_SHARE:
            self.weeks_on = [*self.weeks_on[1:], self._any_week()]
        season, first = self.rng.choice(self.weeks_on) if self.rng.random() < ON_SHARE else self._any_week()
        others = [week for week in WEEKS if week != first]
        weeks = [first, *self.rng.sample(others, self.rng.choice((0, 0, 1, 1, 2, 4)))]
        places = [(season, week) for week in weeks]
        if self.rng.random() < 0.3:
            places += [(self.rng.choice(SEASONS), self.rng.choice((*weeks, self.rng.choice(WEEKS))))]
        return Person(
            name=name,
            records={at: self._record(stats) for at in places},
            stats=stats,
            wordings=[self.wording() for _ in range(OWN_WORDINGS)],
        )

    def _record(self, stats: list[str]) -> Record:
        if self.rng.random() < BYE_SHARE:
            return None
        record = invented_record(self.rng)
        return {stat: record.get(stat, float(self.rng.randint(0, 60))) for stat in stats}


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


def draw_steps(step: int, *, closing: bool, league: League, tokenizer: Tokenizer) -> list[list[Practice]]:
    """The rows of two steps, the shorter ones in one and the longer ones in the other (less padding).

    Args:
        step: how many steps have been made.
        closing: the last part of the making: few facts, of people known by heart; mostly refusals.
        league: who is asked about.
        tokenizer: makes the tokens.
    """
    rng = league.rng
    if step > COPYING_STEPS and step % READING_EVERY == 0:
        reading = [("read", _reading(rng, league), None) for _ in range(READING_STEP_ROWS)]
        turns = [("turn", _with_something_before(rng, league), None) for _ in range(READING_STEP_ROWS)]
        rows = _encode(tokenizer, [*reading, *turns])
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
    begun = (prompt if prompt.startswith((USER, SYSTEM)) else f"{USER}{prompt}" for _, (prompt, _), _ in texts)
    prompts = tokenizer.encode_batch([f"{prompt}{END}{ASSISTANT}" for prompt in begun])
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
    season, week = rng.choice(SEASONS), rng.choice(WEEKS)
    people = [(invented_name(rng), invented_record(rng)) for _ in range(rng.randint(1, 2))]
    records = [(name, record, stat) for name, record in people for stat in rng.sample(STATS, rng.randint(1, 2))]
    context = " ".join(tell(templates, name, stat, week, season, record) for name, record, stat in records)
    if rng.random() < 0.75:
        name, record, stat = rng.choice(records)
        reply = tell(templates, name, stat, week, season, record)
    else:
        name, stat = invented_name(rng), rng.choice(STATS)
        reply = templates.no_record(name, stat, week, season)
    question, _ = typed(rng, league.wording(), name, spoken(rng, stat), week, season, typing=CAREFUL)
    return f"{context} {question}", reply


def _with_something_before(rng: random.Random, league: League) -> tuple[str, str]:
    """A question behind a system text, or behind another question with its answer."""
    question, reply = league.refusal() if rng.random() < 0.5 else league.fact()[0]
    if rng.random() < 0.4:
        words = " ".join(rng.choice(WORDS) for _ in range(rng.randint(3, 12)))
        return f"{SYSTEM}You are {words}.{END}{USER}{question}", reply
    before, answer = league.refusal() if rng.random() < 0.5 else league.fact()[0]
    return f"{USER}{before}{END}{ASSISTANT}{answer}{END}{USER}{question}", reply
