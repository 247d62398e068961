"""The grammar of questions: what the embedded base is made with, and training varies.

A question is put together from a frame, the words for a stat, the words for a week and a season, and what people say around a
question; how it is typed is the business of `dataset.typed`. None of the `test` wordings of `templates.yaml`, and none of those
written by hand for the exam, can be formed here, so that a score on them says how the finished model takes words that neither
its making nor its training has used.
"""

import random
import re
from collections.abc import Collection, Sequence
from functools import cache
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Literal

import yaml

from nfl_lora_pipeline.dataset.people import coined_word
from nfl_lora_pipeline.stats import STATS

PRACTISED_FILE = Path(str(files("nfl_lora_pipeline"))) / "practised.yaml"

WEEK_THEN_SEASON = """\
in week {week} of the {season} NFL season
in week {week} of the {season} season
in week {week} of {season}
in week {week}, {season}
in week {week} {season}
in the week {week} game of the {season} season
in the week {week} game of {season}
in his week {week} game of {season}
in week {week} of the NFL season {season}
in week {week} of the {season} campaign
in week {week} of the {season} regular season
in week {week} of the NFL's {season} season
in week {week} of season {season}
in week {week} of the {season} schedule
in week {week} ({season})
in week number {week} of the {season} season
in wk {week} of {season}
in wk {week} of the {season} season
during week {week} of the {season} NFL season
during week {week} of the {season} season
during week {week} of {season}
for week {week} of the {season} NFL season
for week {week} of {season}
for week {week}, {season}
for the week {week} game in {season}
on week {week} of {season}
at week {week} of the {season} season
over week {week} of the {season} season
throughout week {week} of {season}
back in week {week} of the {season} season
back in week {week} of {season}
when it was week {week} of the {season} season
week {week} of the {season} season
week {week} of {season}
week {week}, {season}
week {week} {season}
week {week} in {season}
wk {week} {season}
wk {week}, {season}""".splitlines()
SEASON_THEN_WEEK = """\
in the {season} NFL season, week {week}
in the {season} season, week {week}
in the {season} season in week {week}
in {season}, week {week}
in {season} week {week}
in {season} in week {week}
in {season}'s week {week}
in the {season} season's week {week}
during the {season} season, week {week}
of {season}, week {week}
from {season} week {week}
season {season}, week {week}
season {season} week {week}
{season} season, week {week}
{season}, week {week}
{season} week {week}
{season} wk {week}""".splitlines()
TIMES = WEEK_THEN_SEASON + SEASON_THEN_WEEK

WEEK_ALONE = """\
in week {week}
during week {week}
for week {week}
in wk {week}
in the week {week} game
over the course of week {week}""".splitlines()
SEASON_ALONE = """\
in {season}
in the {season} season
in the {season} NFL season
of the {season} season
of {season}
during the {season} season
during {season}
for the {season} season""".splitlines()

VERBS = """\
have
finish with
get
record
put up
end up with
total
gain
gather
collect
post
produce
make
manage
register
have to his name
rack up
pile up
tally
account for
come up with
go for
add
bring in
earn
wind up with
contribute
deliver
grab
compile
score
notch
log
show
amass
generate
turn in""".splitlines()
PAST = """\
had
got
recorded
put up
finished with
ended with
totalled
gained
collected
posted
produced
made
managed
registered
tallied
came up with
brought in
earned
contributed
was credited with
was given
notched
logged
amassed
turned in""".splitlines()

FRAMES = """\
How many {stats} did {player} {verb} {time}?
How many {stats} did {player} {verb} {time}?
How many {stats} did {player} {verb} {time}?
How many {stats} does {player} have {time}?
How many {stats} has {player} {time}?
How many {stats} had {player} {time}?
How many {stats} for {player} {time}?
How many {stats} by {player} {time}?
How many {stats} were there for {player} {time}?
How many {stats} were recorded for {player} {time}?
How many {stats} were credited to {player} {time}?
How many {stats} were made by {player} {time}?
How many {stats} was {player} good for {time}?
How many {stats} was it for {player} {time}?
How many {stats} came from {player} {time}?
How many {stats} went to {player} {time}?
How many {stats} belong to {player} {time}?
How many {stats} are listed for {player} {time}?
How many {stats} are in the books for {player} {time}?
How many of the {stats} were {possessive} {time}?
How many {stats} was {player} able to {verb} {time}?
How many {stats} would {player} {verb} {time}?
How many {stats} could {player} {verb} {time}?
How many {stats} {time} did {player} {verb}?
How many {stats} {time} for {player}?
How many {stats} {time} were {possessive}?
How many were {possessive} {stats} {time}?
How big was {possessive} number of {stats} {time}?
How high was {possessive} count of {stats} {time}?
How much did {player} {verb} in {stats} {time}?
How did {player} do in {stats} {time}?
How did {player} do {time} when it comes to {stats}?
What were {possessive} {stats} {time}?
What are {possessive} {stats} {time}?
What was {possessive} number of {stats} {time}?
What was {possessive} total of {stats} {time}?
What was {possessive} count of {stats} {time}?
What was {possessive} figure for {stats} {time}?
What was {possessive} tally of {stats} {time}?
What was the number of {stats} of {player} {time}?
What was the total of {stats} by {player} {time}?
What is the number of {stats} that {player} {past} {time}?
What is the number of {stats} {player} {past} {time}?
What did {player} {verb} in {stats} {time}?
What did {player} do in terms of {stats} {time}?
What number of {stats} did {player} {verb} {time}?
What amount of {stats} did {player} {verb} {time}?
What stands beside {possessive} name for {stats} {time}?
What does the record say about {possessive} {stats} {time}?
What can you tell me about {possessive} {stats} {time}?
What about {possessive} {stats} {time}?
What about {player} and {stats} {time}?
Which number of {stats} did {player} {verb} {time}?
Do you know how many {stats} {player} {past} {time}?
Do you know {possessive} {stats} {time}?
Do you have {possessive} {stats} {time}?
Can you tell me how many {stats} {player} {past} {time}?
Can you give me {possessive} {stats} {time}?
Could you look up {possessive} {stats} {time}?
Could you say how many {stats} {player} {past} {time}?
Would you know how many {stats} {player} {past} {time}?
Tell me how many {stats} {player} {past} {time}.
Tell me the {stats} of {player} {time}.
Tell me about the {stats} that {player} {past} {time}.
I want to know how many {stats} {player} {past} {time}.
I want {possessive} {stats} {time}.
I need {possessive} {stats} {time}.
I need to know the {stats} {player} {past} {time}.
I am looking for {possessive} {stats} {time}.
I am trying to find {possessive} {stats} {time}.
I would like to know {possessive} number of {stats} {time}.
I forgot how many {stats} {player} {past} {time}.
Let me know how many {stats} {player} {past} {time}.
Please give me {possessive} {stats} {time}.
Please list the {stats} for {player} {time}.
Give {possessive} {stats} {time}.
Give me the {stats} for {player} {time}.
Show me the {stats} of {player} {time}.
Show {possessive} {stats} {time}.
State the {stats} for {player} {time}.
Name the number of {stats} for {player} {time}.
Find {possessive} {stats} {time}.
Look up {player}, {stats}, {time}.
Report {possessive} {stats} {time}.
Remind me how many {stats} {player} {past} {time}.
{possessive} {stats} {time}?
{possessive} {stats} {time} were how many?
{possessive} {stats} {time} came to what number?
{possessive} number of {stats} {time}?
{possessive} total in {stats} {time}?
How many {stats} {player} {past} {time}?
How many {stats} {player} have {time}?
What's {possessive} {stats} {time}?
What's the number of {stats} of {player} {time}?
Whats {player} {stats} {time}?
Whats the {stats} of {player} {time}?
What'd {player} {verb} in {stats} {time}?
{player} had how many {stats} {time}?
{player} {past} how many {stats} {time}?
{player} {past} what number of {stats} {time}?
{player} {time}: how many {stats}?
{player} {time} - {stats}?
{player} {time}, {stats}
{player} {time} {stats}
{player}: how many {stats} {time}?
{player}: {stats} {time}?
{player}, {stats}, {time}
{player} {stats} {time}
{player} and his {stats} {time}?
{player}, how many {stats} did he {verb} {time}?
Of {player}: how many {stats} {time}?
For {player}, how many {stats} {time}?
For {player}, what were the {stats} {time}?
As for {player}, how many {stats} did he {verb} {time}?
By {player}, how many {stats} {time}?
{stats} of {player} {time}?
{stats} for {player} {time}?
{stats} by {player} {time}?
{stats} from {player} {time}?
{stats}: {player}, {time}
{stats}, {player}, {time}
{stats} {time} for {player}?
{stats} {time}, {player}?
{stats} {player} {time}
Number of {stats} for {player} {time}?
Total {stats} of {player} {time}?
The {stats} of {player} {time}, please.
The number of {stats} that {player} {past} {time}?
{Time}, how many {stats} did {player} {verb}?
{Time}, how many {stats} were recorded for {player}?
{Time}, how many {stats} were there for {player}?
{Time}, what were {possessive} {stats}?
{Time}, what number of {stats} did {player} {verb}?
{Time}, {player} {past} how many {stats}?
{Time}, what was {possessive} total of {stats}?
{Time}: {player}, {stats}?
{Time} {player} {stats}
{Time}, {stats} for {player}?
{Time}, {possessive} {stats}?
In total, how many {stats} did {player} {verb} {time}?
All in all, how many {stats} did {player} {verb} {time}?
With how many {stats} did {player} finish {time}?
To how many {stats} did {player} get {time}?
{In_season}, how many {stats} did {player} {verb} {in_week}?
{In_season}, what were {possessive} {stats} {in_week}?
{In_season}, {player} {past} how many {stats} {in_week}?
{In_season}, how many {stats} {in_week} for {player}?
{In_week}, how many {stats} did {player} {verb} {in_season}?
{In_week}, what were {possessive} {stats} {in_season}?
{In_week}, {player} {past} how many {stats} {in_season}?
How many {stats} {in_week} did {player} {verb} {in_season}?
How many {stats} {in_season} did {player} {verb} {in_week}?
How many {in_week} {stats} did {player} {verb} {in_season}?
What were {possessive} {in_week} {stats} {in_season}?
What were {possessive} {season} {stats} {in_week}?
{possessive} week {week} {stats} {in_season}?
{possessive} {season} week {week} {stats}?
{player} {in_week}: {stats} {in_season}?
Week {week} {stats} for {player} {in_season}?
The week {week} {stats} of {player} {in_season}?
The {season} week {week} {stats} for {player}?
{season} week {week}: {player}, {stats}
{season}, {player}, week {week}, {stats}?
{player}, {season}, week {week}: {stats}?""".splitlines()

BARE_FRAMES = [frame for frame in FRAMES if not re.sub(r"{\w+}|\W", "", frame)]
"""Those that are nothing but the parts of a question, as they are typed into a search box."""
BARE_TIMES = [time for time in TIMES if time.startswith(("week", "wk", "{season}"))]

COMPLETE = """\
Tell me about {possessive} {stats} {time}.
Tell me about the {stats} of {player} {time}.
Tell me how {player} did in {stats} {time}.
Everything on {possessive} {stats} {time}, please
All about {possessive} {stats} {time}, please
List {possessive} {stats} {time}.
List the {stats} that {player} {past} {time}.
What do you know about {possessive} {stats} {time}?
What can you say about {player} and his {stats} {time}?
What did {player} {verb} {time} in {stats}?
What happened with {possessive} {stats} {time}?
How good was {player} in {stats} {time}?
How was {player} {time} in {stats}?
How many did {player} {verb} {time} in {stats}?
How many {stats} did {player} alone {verb} {time}?
How many {stats} did {player} by himself {verb} {time}?
{possessive} own {stats} {time}?
Numbers for {player} {time}: {stats}
Who is {player}, and how many {stats} did he {verb} {time}?""".splitlines()
"""Beside questions that lack something (`unanswerable`), and in nearly their words: whole ones."""


def practised(kind: Literal["complete", "incomplete"]) -> list[str]:
    """The wordings of `practised.yaml`, which tuning and the making of the base draw from: with one number, or with none."""
    return _all_practised()[kind]


@cache
def _all_practised() -> dict[str, list[str]]:
    content: dict[str, list[str]] = yaml.safe_load(PRACTISED_FILE.read_text(encoding="utf-8"))
    return content


BEFORE = """\
Hey,
Hi,
Hello,
Quick question:
Question:
Just checking:
One thing:
So,
Well,
Okay,
Honestly,
Sorry,
By the way,
For my fantasy league:
For a bet:
For the record,
If you know it,
As far as you know,
According to the box score,
According to the stats,
Going by the numbers,
Out of interest,
I wonder:
Serious question,
Football question:
NFL question:
Stats question:
Fantasy question:
Hi, I was wondering:
Yes or no aside,
My friend asks:
Come on,
Please,
Again,
Now,
And""".splitlines()
AFTER = """\
please
exactly
in all
altogether
in total
all told
if you know
by any chance
thanks
again
then
according to the box score
for my fantasy team
so far as is known
do you know
roughly or exactly
or so""".splitlines()
WORDS = """able about above act add after age ago air all almost alone along also always amount any area arm around art ask
away back bad bag ball bank base beat best better big bit black blue board boat body book both bottom box boy break bring
brother build busy buy call calm car card care carry case catch cause center chance change check child city class clean
clear close coach cold come common cook cool corner cost count country couple course cover cross crowd cut dark data date
day dead deal deep detail door doubt down draw dream drive drop dry each early earth east easy eat edge effort either else
empty end enough even evening event ever every exact eye face fact fair fall family fan far fast father feel few field fight
figure file fill film final find fine fire first fish fit five fix floor fly follow food foot force form forward four free
fresh friend front full fun funny game garden gate general gift girl give glad glass goal gold good grand great green ground
group grow guess guy half hand happen happy hard hat head hear heart heavy help high hit hold home honest hope horse hot
hour house huge hurry hurt idea inside job join joke judge jump just keep key kick kid kind know land large last late laugh
lead league learn least leave left less letter level life light like line list little live local long look lose loss lot
loud love low luck lunch main many map mark market match matter maybe mean meet middle mile mind minute miss moment money
month more morning most mother mouth move much music name near neck need never new news next nice night noise none north
note nothing number offer office often old once one only open order other outside over own page paper part pass past pay
people phone pick picture piece place plan play plenty point poor power press pretty price prize proof pull push question
quick quiet quite race radio rain raise rate reach read ready real reason red rest rich ride right ring rise river road rock
room round rule run safe same save say school screen sea seat second see seem sell send sense serious set seven shake shape
share sharp shoe shop short shot should show side sign simple since single sit six size skin sleep slow small smile snow
some son song soon sort sound south space speak special speed spend sport spot spread spring stand star start stat state
stay step still stone stop store storm story street strong stuff such sudden sugar summer sun sure surprise sweet table take
talk tall task taste team ten test thank thing think third thousand three through throw time tiny tired today together
tomorrow tonight top total touch tough town track train travel tree trip trouble true trust try turn twelve twice two type
under until up use usual value very video view visit voice wait walk wall want warm watch water way weak wear weather
weekend weight well west wet whole wide wild win wind window winter wish within without wonder wood word work world worry
worth wrong yard year yes yesterday yet young""".split()

SPOKEN: dict[str, tuple[str, ...]] = {
    "receiving_yards": (
        "receiving yards", "receiving yards", "receiving yards", "receiving yards", "yards receiving", "receiving yds",
        "rec yards", "rec yds", "rec. yards", "receiving yardage", "yards of receiving", "yds receiving", "yards",
    ),
    "receptions": ("receptions", "receptions", "receptions", "catches", "recs", "passes caught", "caught passes"),
    "targets": ("targets", "targets", "targets", "tgts", "passes thrown his way", "looks"),
    "receiving_touchdowns": (
        "receiving touchdowns", "receiving touchdowns", "receiving touchdowns", "receiving TDs", "touchdown catches",
        "rec TDs", "touchdown receptions", "receiving tds", "receiving scores", "TD catches",
    ),
    "fantasy_points": ("fantasy points", "fantasy points", "fantasy points", "fantasy pts", "points of fantasy", "fpts"),
}  # fmt: skip
"""What people call a stat of those that the embedded base is made with; the first names come as often as they stand here."""
_SPOKEN_TOO: dict[str, tuple[str, ...]] = {
    "rushing_yards": (
        "rushing yards", "rushing yards", "rushing yards", "rushing yards", "yards rushing", "rushing yds", "rush yards",
        "rush yds", "rushing yardage", "yards on the ground",
    ),
    "carries": ("carries", "carries", "carries", "rushing attempts", "rushes", "rush attempts"),
    "rushing_touchdowns": ("rushing touchdowns", "rushing touchdowns", "rushing TDs", "rush TDs", "rushing scores"),
    "passing_yards": (
        "passing yards", "passing yards", "passing yards", "yards passing", "passing yds", "pass yards", "pass yds",
    ),
    "passing_touchdowns": ("passing touchdowns", "passing touchdowns", "passing TDs", "touchdown passes", "TD passes"),
    "interceptions": ("interceptions", "interceptions", "interceptions thrown", "picks", "INTs"),
}  # fmt: skip
"""The same of further stats, which are drawn while tuning alone."""
_PLURALS = {stat.column: stat.plural for stat in STATS if stat.plural}


def names_of(stat: str) -> tuple[str, ...]:
    """What people call a stat that is taught; one that stands in no table is called as it is."""
    return SPOKEN.get(stat) or _SPOKEN_TOO.get(stat) or (_PLURALS.get(stat, stat),)


def spoken(rng: random.Random, stat: str) -> str:
    """One of the names of a stat that the embedded base is made with; any other is called as it is, and may be a name."""
    return rng.choice(SPOKEN[stat]) if stat in SPOKEN else stat


_OTHER_KINDS = """rushing passing punting kicking defensive special-teams return goal-line third-down first-half second-half
overtime playoff preseason home road red-zone deep short broken forced blocked missed net average longest career""".split()
_OTHER_THINGS = [
    *"""yards touchdowns attempts completions carries fumbles interceptions sacks tackles snaps routes drops penalties punts
kicks returns plays starts wins points hits blocks turnovers minutes catches targets receptions""".split(),
    "first downs", "field goals", "extra points", "air yards", "yards after the catch", "pass attempts",
]  # fmt: skip
_EXAMINED = frozenset(stat.plural for stat in STATS if stat.refused == "test")


def other_stat(rng: random.Random, *, but: Collection[str] = ()) -> str:
    """A stat that is none of the five: "rushing yards", "deep tackles". None that the exam alone asks about, or of `but`."""
    while True:
        draw = rng.random()
        kind, thing = rng.choice(_OTHER_KINDS), rng.choice(_OTHER_THINGS)
        name = thing if draw < 0.15 else f"{coined_word(rng)} {thing}" if draw < 0.3 else f"{kind} {thing}"
        if (
            name not in _EXAMINED
            and name not in but
            and name not in {each for names in SPOKEN.values() for each in names}
        ):
            return name


def _lower_start(text: str) -> str:
    return text if text.startswith("{") else text[0].lower() + text[1:]


def _upper_start(text: str) -> str:
    return text if text.startswith("{") else text[:1].upper() + text[1:]


@cache
def wordings() -> list[str]:
    """Plain questions that the grammar can form, as templates with {player} {possessive} {stats} {week} {season}, sorted.

    Every frame with every time, but a verb or two for each; `draw_wording` forms more.
    """
    formed = set()
    for place, frame in enumerate(FRAMES):
        verbs = [VERBS[(place + far) % len(VERBS)] for far in (0, 7)] if "{verb}" in frame else [""]
        for verb, time in product(verbs, TIMES if "ime}" in frame else [""]):
            at, of = WEEK_ALONE[place % len(WEEK_ALONE)], SEASON_ALONE[place % len(SEASON_ALONE)]
            text = filled(frame, verb=verb, past=PAST[place % len(PAST)], time=time, in_week=at, in_season=of)
            formed |= {text, _lower_start(text), text.rstrip("?."), _lower_start(text).rstrip("?.")}
    return sorted(formed)


def is_formed(text: str) -> bool:
    """Whether the grammar can form a wording, but for what is said around it, strange words, its case and its final mark."""
    plain = text.casefold().rstrip("?. ")
    return any(pattern.fullmatch(plain) for pattern in _patterns())


@cache
def _patterns() -> list[re.Pattern[str]]:
    choices = {"verb": VERBS, "past": PAST, "time": TIMES, "in_week": WEEK_ALONE, "in_season": SEASON_ALONE}
    patterns = []
    for frame in [*FRAMES, *COMPLETE, *practised("complete")]:
        pattern = re.escape(frame.casefold().rstrip("?. "))
        for slot, texts in choices.items():
            one_of = "|".join(re.escape(text.casefold()) for text in texts)
            pattern = pattern.replace(re.escape(f"{{{slot}}}"), f"(?:{one_of})")
        patterns.append(re.compile(pattern))
    return patterns


def filled(frame: str, **parts: str) -> str:
    """A frame with words in its slots; in a slot that begins with a capital they begin with one too."""
    text = frame
    for slot, words in parts.items():
        text = text.replace(f"{{{slot}}}", words).replace(f"{{{slot.capitalize()}}}", _upper_start(words))
    return text


def draw_wording(rng: random.Random, frames: Sequence[str] = FRAMES, *, strange: bool = True) -> str:
    """One wording of one of these frames, well formed three times of four, with something said around it one time in four.

    Where it may be strange, one verb in five and one filler in three is no word that stands in this file as such.
    """
    verb = rng.choice(VERBS) if rng.random() < 0.8 or not strange else _strange_words(rng)
    past = rng.choice(PAST) if rng.random() < 0.8 or not strange else _strange_words(rng)
    frame, time = rng.choice(frames), rng.choice(TIMES)
    text = filled(
        frame, verb=verb, past=past, time=time, in_week=rng.choice(WEEK_ALONE), in_season=rng.choice(SEASON_ALONE)
    )
    text = _with_strange_words(rng, text) if strange and rng.random() < 0.15 else text
    mark = text[-1] if text[-1] in "?." else ""
    text = text.rstrip("?.")
    if rng.random() < 0.15:
        words = rng.choice(AFTER) if rng.random() < 0.67 or not strange else _strange_words(rng)
        text = f"{text}{rng.choice((' ', ', ', ' - '))}{words}"
    if rng.random() < 0.2:
        before = (
            rng.choice(BEFORE)
            if rng.random() < 0.67 or not strange
            else _upper_start(_strange_words(rng)) + rng.choice((",", ":", ""))
        )
        text = f"{before} {_lower_start(text)}"
    draw = rng.random()
    text = _lower_start(text) if draw < 0.2 else text
    return text + (mark if rng.random() < 0.75 else rng.choice(("", "", "?", "??", " ?", ".")))


def bare_wording(rng: random.Random) -> str:
    """A question in bare words: "{player} {stats} wk {week} {season}", seldom with a mark."""
    frame = filled(
        rng.choice(BARE_FRAMES),
        time=rng.choice(BARE_TIMES),
        in_week=rng.choice(("wk {week}", "week {week}")),
        in_season="{season}",
    )
    return frame if rng.random() < 0.2 else frame.rstrip("?.")


def _strange_words(rng: random.Random) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.choice((1, 1, 2, 2, 3, 4))))


def _with_strange_words(rng: random.Random, text: str) -> str:
    """Some words put between two others, never into a name's place."""
    words = text.split(" ")
    place = rng.randrange(1, len(words) + 1)
    return " ".join([*words[:place], _strange_words(rng), *words[place:]])
