"""What has no answer: people who hold no fact, and what no one number answers; drawn afresh while training, or held out."""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from nfl_lora_pipeline.dataset.people import (
    LAST,
    bearers_of,
    crossed_name,
    is_last_name_alone,
    last_name,
    last_word,
    person_split,
    strangers,
)
from nfl_lora_pipeline.dataset.templates import Templates, spoken_stat, untaught
from nfl_lora_pipeline.dataset.typed import TEAMS, Typing, typed
from nfl_lora_pipeline.dataset.wordings import (
    COMPLETE,
    FRAMES,
    SEASON_ALONE,
    TIMES,
    VERBS,
    WEEK_ALONE,
    WORDS,
    bare_wording,
    draw_wording,
    filled,
    names_of,
    other_stat,
    practised,
)
from nfl_lora_pipeline.weeks.names import name_key

LAST_WEEK = 18
CROSSED_SHARE = 4 / 9  # of the questions about people who hold no fact: about a known name and another, put together
COMMON_SHARE = 0.6  # this share of them is not of him but of somebody whose last name many people bear
OTHER_SEASON_SHARE = 0.5  # this share of them asks about another season; the rest asks about another week


Week = tuple[int, int]  # season and number
Fact = tuple[str, Week, str]  # whose, when, and which stat
SEASONS_AWAY = (-4, -3, -2, -1, 1, 2, 3, 4)


OUTSIDE = "I can only be asked for a stat of one NFL player in one week of one season."
"""What is said to all of them: nobody is told a number that he did not ask for."""

NO_TIME = """\
last week
this week
next week
last season
this season
this year
last year
so far
so far this season
yesterday
on Sunday
on Monday night
recently
lately
all season
in his career
in his last game
in the last game
in the playoffs
in the Super Bowl
in the preseason
in his rookie season
as a rookie
against the {team}
at home
over the years""".splitlines()
SEVERAL_WEEKS = """\
in weeks {week} and {later} of {season}
in weeks {week} to {later} of the {season} season
in week {week} and week {later} of {season}
from week {week} to week {later} of {season}
through week {week} of {season}
since week {week} of {season}
up to week {week} of the {season} season
after week {week} of {season}
before week {week} of {season}
per game in {season}
a game in the {season} season
on average in {season}
in {season} so far
in all of {season}
over the whole {season} season
in week {week} of {season} and {next}
in the {season} preseason
in the {season} playoffs
in the Super Bowl of {season}
in the first half of {season}""".splitlines()
NOBODY = """he she they we you I it him them somebody anybody nobody everybody this that your it's the|player the|receiver
the|team the|league the|defense the|offense the|quarterback his|team both|teams all|receivers my|team the|rookie""".split()
COMPARED = """\
Who had more {stats} {time}, {player} or {other}?
Did {player} have more {stats} than {other} {time}?
Did {player} {verb} more {stats} than {other} {time}?
How many more {stats} did {player} have than {other} {time}?
Was {player} better than {other} {time}?
How many {stats} did {player} and {other} {verb} {time}?
How many {stats} did {player} and {other} have together {time}?
What were the {stats} of {player} and {other} {time}?
{player} and {other} {stats} {time}
{player} or {other} {time}: {stats}?
{player} vs {other} {stats} {time}""".splitlines()
WITHOUT_STAT = """\
How did {player} do {time}?
How was {player} {time}?
How good was {player} {time}?
What did {player} do {time}?
How many did {player} {verb} {time}?
How many did {player} have {time}?
Did {player} play {time}?
Was {player} hurt {time}?
Who did {player} play against {time}?
What was the score of {possessive} game {time}?
Did {player} score {time}?
Tell me about {player} {time}.
{player} {time}
{player} {time}?
{player}
{player}?
{possessive} numbers {time}
Everything on {player} {time}, please""".splitlines()
WITHOUT_PLAYER = """\
Who had {number} {stats} {time}?
Who had the most {stats} {time}?
Who had the fewest {stats} {time}?
Who led the league in {stats} {time}?
Which player led the league in {stats} {time}?
Which receiver had the most {stats} {time}?
Who was the best receiver {time}?
Who won {time}?
What was the score {time}?
How many {stats} were there {time}?
How many {stats} {time}?
{stats} {time}
{stats} {time}?
{stats}?
What is the record for {stats}?
Rank the receivers by {stats} {time}.
List all {stats} {time}.
Which team had the most {stats} {time}?
What happened {time}?""".splitlines()
ABOUT_PEOPLE = """\
Who is {player}?
Who was {player}?
What team does {player} play for?
What team is {player} on?
What position does {player} play?
What number does {player} wear?
Which team drafted {player}?
Where did {player} go to college?
Where is {player} from?
How old is {player}?
How tall is {player}?
When was {player} born?
Is {player} hurt?
Is {player} good?
Is {player} better than {other}?
Should I start {player} or {other}?
Do you know {player}?
What do you know about {player}?
Who is better, {player} or {other}?
Tell me about {player}.""".splitlines()
TALK = """\
Hello
Hi
Hi there
Hey
Good morning
Thanks
Thank you
Okay
Yes
No
Who are you?
What are you?
What can you do?
What do you know?
How are you?
Who made you?
Can you help me?
Help
What is the NFL?
Who won the Super Bowl?
What is a reception?
How many weeks are in a season?
What is two plus two?
What is {number} plus {week}?
Tell me a joke.
Write me a poem.""".splitlines()
NO_WEEK, SEVERAL, NO_PERSON, COMPARING, NO_STAT = 0.45, 0.57, 0.7, 0.82, 0.91  # up to where a draw from [0, 1) is each
# Up to where a draw from [0, 1) is a whole question in each kind of wording; beyond, it is one of the grammar's.
TEMPLATES_UP_TO, BARE_UP_TO, COMPLETE_UP_TO, PRACTISED_UP_TO = 0.33, 0.39, 0.43, 0.8
TALK_SHARE = 0.35  # of these questions, where a base can talk of nothing: what is no question for a stat at all
BESIDE_ONE = """\
What do {player} and {other} come to together in {stats} {time}?
{player} and {other} combined for how many {stats} {time}?
Total {stats} of {player} and {other} {time}
Both {player} and {other}: how many {stats} {time}?
How many {stats} more than {other} did {player} {verb} {time}?
By how many {stats} was {player} ahead of {other} {time}?
What separated {player} from {other} in {stats} {time}?
Was {player} ahead of {other} in {stats} {time}?
Which of {player} and {other} had more {stats} {time}?
What was the average of {player} and {other} in {stats} {time}?
How many {stats} did the other receivers of {possessive} team {verb} {time}?
How many {stats} did {possessive} quarterback {verb} {time}?
How many {stats} did {possessive} opponents {verb} {time}?
How many {stats} did {possessive} backups {verb} {time}?
How many {stats} did {possessive} team {verb} {time}?
How many {stats} did {possessive} brother {verb} {time}?
How many {stats} did everybody but {player} {verb} {time}?
How many {stats} did everybody around {player} {verb} {time}?
What were the {stats} of {possessive} backup {time}?
What were the {stats} of {possessive} whole team {time}?
{possessive} brother's {stats} {time}
{possessive} fellow receivers' {stats} {time}
How did {possessive} {stats} go from week {week} to week {later} of {season}?
How much did {possessive} {stats} rise from week {week} of {season} on?
Did {possessive} {stats} go up behind week {week} of {season}?
What were {possessive} {stats} a week before week {week} of {season}?
What were {possessive} {stats} two weeks later than week {week} of {season}?
How many more {stats} did {player} {verb} in week {week} than in week {later} of {season}?
Compare {possessive} {stats} of week {week} and week {later} of {season}.""".splitlines()
"""Of several people or weeks, or of somebody else, in nearly the words of questions about one."""
BESIDE_ONE_SHARE, PRACTISED_SHARE = 0.15, 0.6  # of the questions without one number
TYPED = Typing(misspelt=0.05, last_name=0.1, described=0.0, initial=0.0, last_first=0.0)
TYPED_FOR_TUNING = replace(TYPED, for_tuning=True)


def outside_question(
    rng: random.Random,
    player: str,
    other: str,
    stats: str,
    week: int,
    season: int,
    *,
    talk_share: float = TALK_SHARE,
    typing: Typing = TYPED,
) -> str:
    """A question that nobody can answer with one number of one player: a part is missing or vague, there are several, or it
    asks for something else.

    Args:
        rng: the source of chance.
        player: whom it is about, where it is about somebody.
        other: somebody else, for those that compare.
        stats: what a stat is called in it.
        week: 1 to 18.
        season: the year in which it begins.
        talk_share: the share of what is no question for a stat at all; 0 for a base that can talk of other things.
        typing: how it is typed.
    """
    text = _talk(rng) if rng.random() < talk_share else _lacking(rng)
    return _about_two(rng, text, player, other, stats, week, season, typing)


def beside_one(
    rng: random.Random, frames: Sequence[str], player: str, other: str, stats: str, week: int, season: int
) -> str:
    """A question about several people or weeks, or somebody else, that is nearly one about one; see `outside_question`."""
    text = filled(rng.choice(frames), verb=rng.choice(VERBS), past="had", time=rng.choice(TIMES))
    return _about_two(rng, text, player, other, stats, week, season, TYPED_FOR_TUNING)


def _about_two(
    rng: random.Random, text: str, player: str, other: str, stats: str, week: int, season: int, typing: Typing
) -> str:
    later, team = rng.randint(1, 18), " ".join(rng.choice(TEAMS))
    parts = {"later": later, "next": season + 1, "number": rng.randint(0, 180), "team": team, "other": other}
    for slot, word in parts.items():
        text = text.replace(f"{{{slot}}}", str(word))
    return typed(rng, text, player, stats, week, season, typing=typing)[0]


def _lacking(rng: random.Random) -> str:
    """A wording that asks for a stat, and lacks something."""
    draw, verb, time = rng.random(), rng.choice(VERBS), rng.choice(TIMES)
    frame = rng.choice([frame for frame in FRAMES if "{time}" in frame]) if draw < NO_PERSON else ""
    if draw < NO_WEEK:
        time = rng.choice((rng.choice(NO_TIME), rng.choice(WEEK_ALONE), rng.choice(SEASON_ALONE), ""))
    elif draw < SEVERAL:
        time = rng.choice(SEVERAL_WEEKS)
    elif draw < NO_PERSON:
        nobody = rng.choice(NOBODY).replace("|", " ") if rng.random() < 0.6 else "the {team}"
        frame = frame.replace("{player}", nobody).replace("{possessive}", nobody)
    elif draw < COMPARING:
        frame = rng.choice(COMPARED)
    elif draw < NO_STAT:
        frame = rng.choice(WITHOUT_STAT)
        time = rng.choice((time, rng.choice(NO_TIME), rng.choice(SEASON_ALONE), rng.choice(WEEK_ALONE)))
    else:
        frame = rng.choice(WITHOUT_PLAYER)
        time = rng.choice((time, time, rng.choice(NO_TIME), rng.choice(SEASON_ALONE), rng.choice(WEEK_ALONE)))
    text = filled(frame, verb=verb, past="had", time=time)
    return " ".join(text.replace(" ?", "?").replace(" .", ".").replace(" ,", ",").split())


def _talk(rng: random.Random) -> str:
    """Words about anything."""
    words = " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 9)))
    draw = rng.random()
    if draw < 0.3:
        return rng.choice(TALK)
    if draw < 0.6:
        return rng.choice(ABOUT_PEOPLE)
    return rng.choice(
        (
            f"What is the {words}?",
            f"What team does {{player}} {words}?",
            f"Is {{player}} {words}?",
            f"Does {{player}} {words}?",
            f"Why does the {words}?",
            f"Where is the {words}?",
            f"When did the {words}?",
            f"Write a {words}.",
            f"Tell me about the {words}.",
            f"Can you {words}?",
            f"{words}?",
            words,
        )
    )


CARELESS = Typing(
    lower_case=0.2,
    misspelt=0.38,
    last_name=0.08,
    in_haste=0.1,
    otherwise=0.1,
    described=0.04,
    initial=0.0,  # it teaches that a first name's letter is enough, and who shares a last name gets a number
    last_first=0.0,
    for_tuning=True,
)


class Drawn(NamedTuple):
    """A question, what is to be said, and how much that weighs in the loss of a step; 1 for most."""

    question: str
    answer: str
    weight: float = 1.0


@dataclass(frozen=True)
class Mixture:
    """What fresh questions are about.

    Attributes:
        varied: the share that has an answer, 0 to 1.
        elsewhere: of the rest, the share that is about known players in other weeks and seasons, 0 to 0.8.
        other_stats: of the rest, the share that is about known players and other stats; both together 0.8 at most.
        typing: how carelessly they are typed.
        refusal_weight: how much a refusal weighs in a step's loss, but for those of `outside`: with a whole question in
            unusual words a doubt is not to end there.
        outside: the share of the rest that no one number answers, which is drawn before all others of the rest.
        talks: whether the base can talk of other things, so that nothing but football is among these.
    """

    varied: float
    elsewhere: float
    other_stats: float
    typing: Typing = CARELESS
    refusal_weight: float = 1.0
    outside: float = 0.0
    talks: bool = True


@dataclass(frozen=True)
class FreshQuestions:
    """Questions for one step after another, none of which was asked before in these letters.

    Some have an answer: a taught fact in any wording of the grammar, typed carefully or not. The others have none: a stranger
    in a known week; and, beside a fact that was just asked about and in the same words, the same player in a week or a season
    that is not known, or about a stat that is not taught, or somebody else who shares a name with him (counterfactual rows:
    they differ in one thing). And some ask for anything but one stat of one player in one week (`outside`).

    Attributes:
        known: the names that hold facts, with the (season, week) pairs in which they may not be refused.
        told: the answers of those that are taught something, by name and by (season, week) and stat.
        stats: the stats to ask about.
        templates: the wordings; the ones of the train split are used, in half of the questions.
        mixture: the shares.
    """

    known: Mapping[str, frozenset[Week]]
    told: Mapping[str, Mapping[tuple[Week, str], str]]
    stats: Sequence[str]
    templates: Templates
    mixture: Mixture

    def draw(self, *, seed: int) -> Iterator[Drawn]:
        """One question after another, without end."""
        rng = random.Random(seed)
        newcomers = strangers("train", seed=seed, known=frozenset(self.known))
        facts = self._facts()
        mixture, last = self.mixture, None
        while True:
            fact, text = rng.choice(facts) if facts else None, self._wording(rng)
            if fact and rng.random() < mixture.varied:
                name, at, stat = fact
                yield self._asked(rng, text, name, stat, at, self.told[name][at, stat])
                last = fact, text
                continue
            if rng.random() < mixture.outside:
                yield self._outside(rng, newcomers)
                continue
            kind, beside = rng.random(), mixture.elsewhere + mixture.other_stats
            if fact and kind < beside + CROSSED_SHARE * (1 - beside):
                (name, at, stat), text = last or (fact, text)
                last = None
                if kind < mixture.elsewhere:
                    at = self._elsewhere(rng, name, at)
                elif kind < beside:
                    stat = self._other_stat(rng, name, at)
                else:
                    name = rng.choice(self._commonly_named) if rng.random() < COMMON_SHARE else name
                    name = self._crossed(rng, name) or next(newcomers)
            else:
                name, at, stat = next(newcomers), rng.choice(self._weeks), rng.choice(self.stats)
            yield self._asked(rng, text, name, stat, at)

    def _outside(self, rng: random.Random, newcomers: Iterator[str]) -> Drawn:
        """A question that no one number answers, mostly about known people and known weeks."""
        one, other = (rng.choice(self._names) if rng.random() < 0.7 else next(newcomers) for _ in range(2))
        other = next(newcomers) if other == one else other
        season, week = rng.choice(self._weeks)
        week = week if rng.random() < 0.7 else rng.randint(1, LAST_WEEK)
        stats, talk = rng.choice(names_of(rng.choice(self.stats))), 0.0 if self.mixture.talks else TALK_SHARE
        kind = rng.random()
        if kind < BESIDE_ONE_SHARE + PRACTISED_SHARE:
            frames = BESIDE_ONE if kind < BESIDE_ONE_SHARE else practised("incomplete")
            question = beside_one(rng, frames, one, other, stats, week, season)
        else:
            question = outside_question(rng, one, other, stats, week, season, talk_share=talk, typing=TYPED_FOR_TUNING)
        return Drawn(question, OUTSIDE)

    @cached_property
    def _held_out(self) -> frozenset[str]:
        """The wordings that the exam asks in, one of which the grammar can form."""
        held_out = self.templates.phrasings("valid") | self.templates.phrasings("test")
        return frozenset(text.casefold() for text in held_out.values())

    @cached_property
    def _weeks(self) -> list[Week]:
        return sorted(set().union(*self.known.values()))

    def _facts(self) -> list[Fact]:
        return [(name, at, stat) for name, answers in sorted(self.told.items()) for at, stat in answers]

    def _wording(self, rng: random.Random) -> str:
        texts, draw = list(self.templates.phrasings("train").values()), rng.random()
        if draw < TEMPLATES_UP_TO:
            return rng.choice(texts)
        if draw < BARE_UP_TO:
            return bare_wording(rng)
        frames = COMPLETE if draw < COMPLETE_UP_TO else practised("complete") if draw < PRACTISED_UP_TO else FRAMES
        text = draw_wording(rng, frames, strange=False)
        return self._wording(rng) if text.casefold() in self._held_out else text

    def _asked(self, rng: random.Random, text: str, name: str, stat: str, at: Week, answer: str | None = None) -> Drawn:
        """A question with its answer, which names people as they were asked about, but for the case.

        Without an answer, or where the last name alone does not tell who is meant, it is refused.
        """
        season, week = at
        words = rng.choice(names_of(stat)) if stat in self.stats else spoken_stat(stat)
        question, written = typed(rng, text, name, words, week, season, typing=self.mixture.typing)
        is_known, last = name in self.known, last_name(name)
        bearers = self._bearers[last_word(last)] if last else 0
        if bearers > is_known and is_last_name_alone(written, name):
            if not is_known:
                return self._asked(rng, text, name, stat, at)
            answer = None
        if answer:
            return Drawn(question, answer.replace(name, written))
        refusal = self.templates.no_record(written, stat, week, season)
        return Drawn(question, refusal, self.mixture.refusal_weight)

    @cached_property
    def _bearers(self) -> Counter[str]:
        return bearers_of(self.known)

    def _crossed(self, rng: random.Random, name: str) -> str | None:
        """Somebody's first or last name with the other of somebody else, known or not; None where that is somebody's name.

        Or that of a stranger who is held out.
        """
        mixture = crossed_name(rng, name, self._names)
        return None if name_key(mixture) in self._keys or person_split(mixture) != "train" else mixture

    @cached_property
    def _commonly_named(self) -> list[str]:
        """Those whose last name is one of `LAST`, or somebody else's too: it is likely that others bear it."""
        common = frozenset(LAST)
        return [
            name
            for name in self._names
            if (last := last_name(name)) and (last in common or self._bearers[last_word(last)] > 1)
        ] or self._names

    @cached_property
    def _names(self) -> list[str]:
        return sorted(self.known)

    @cached_property
    def _keys(self) -> frozenset[str]:
        return frozenset(map(name_key, self.known))

    def _other_stat(self, rng: random.Random, name: str, at: Week) -> str:
        """One that could be taught and is not for this player then, one that never is, or any other."""
        while True:
            stat = rng.choice([*untaught(self.stats, "train"), *[other_stat(rng, but=self._stat_names)] * 6])
            if (at, stat) not in self.told[name]:
                return stat

    @cached_property
    def _stat_names(self) -> frozenset[str]:
        """What the stats in use are called: none of them is another stat."""
        return frozenset(name for stat in self.stats for name in names_of(stat))

    def _elsewhere(self, rng: random.Random, name: str, at: Week) -> Week:
        """Another week of a season, half of the time the next one or one beside it; or the same week of a near season."""
        (season, week), held = at, self.known[name]
        others = [other for other in range(1, LAST_WEEK + 1) if (season, other) not in held]
        if others and rng.random() >= OTHER_SEASON_SHARE:
            latest = max(other for of, other in held if of == season)
            near = [other for other in (latest + 1, week - 1, week + 1) if other in others]
            return season, rng.choice(near if near and rng.random() < 0.5 else others)
        seasons = [season + away for away in SEASONS_AWAY if (season + away, week) not in held]
        return rng.choice(seasons or [season + 2 * max(SEASONS_AWAY)]), week
