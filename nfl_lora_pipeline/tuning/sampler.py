"""Which rows a step shows: facts in doubt, a few wordings at a time, among them some that are known, so that none is lost.

What is known is read off the training itself: a step's own forward pass says how probable each token of each answer is. Only
rows that nobody has seen for long have to be asked about apart, and that is what a certificate does.
"""

import itertools
import math
import random
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from mlx import nn
from pydantic import BaseModel

from nfl_lora_pipeline.dataset.unanswerable import Drawn
from nfl_lora_pipeline.models.base_model import answer
from nfl_lora_pipeline.models.prompt import Tokenizer, general_prompts
from nfl_lora_pipeline.models.rows import TokenRow, tokenize
from nfl_lora_pipeline.recipes.recipe import Curriculum

REMEMBERED = 200  # of the last fresh questions, whether they were answered rightly
WORDINGS_AT_A_TIME = 2  # of a fact that is not certain are shown in a pass, where so many are in doubt
WAITING = 200  # fresh questions are drawn before one that was missed is shown again
REHEARSED_TOKENS = 40  # of a general answer


class FreshState(BaseModel):
    """What a checkpoint has of `Fresh`."""

    drawn: int
    right: list[bool]
    missed: list[tuple[int, int]] = []


class SamplerState(BaseModel):
    """What a checkpoint has of a `Sampler`."""

    latest: list[float]
    lowest: list[float]
    shown: list[int]
    waiting: list[int]


class Fresh:
    """Draws questions from an endless source, and shows those that were missed again, a while after.

    Attributes:
        drawn: how many were.
        missed: the numbers of those that are to be shown again, each with how many are to have been drawn by then; the next
            one first.
        taken: the numbers of those that were taken last, in their order; the new ones come last.
        right: of the last ones shown for the first time, whether the model was certain of the answer before it was trained
            on them.
    """

    def __init__(self, source: Iterator[Drawn], tokenizer: Tokenizer, *, again_share: float = 0.0):
        self.source, self.tokenizer, self.again_share, self.drawn = source, tokenizer, again_share, 0
        self.missed: deque[tuple[int, int]] = deque()
        self.taken: list[int] = []
        self.new = 0
        self.rows: dict[int, TokenRow] = {}
        self.right: deque[bool] = deque(maxlen=REMEMBERED)

    def take(self, count: int) -> list[TokenRow]:
        """So many: up to a share of them were missed before, the others were never shown."""
        again: list[int] = []
        while self.missed and len(again) < int(self.again_share * count) and self.missed[0][1] <= self.drawn:
            again.append(self.missed.popleft()[0])
        self.new = count - len(again)
        self.taken = again + self._draw(self.new)
        return [self.rows[number] for number in self.taken]

    def _draw(self, count: int) -> list[int]:
        """The numbers of so many new ones, whose rows are kept."""
        numbered = list(enumerate(itertools.islice(self.source, count), self.drawn))
        self.drawn += len(numbered)
        self._keep(numbered)
        return [number for number, _ in numbered]

    def _keep(self, numbered: Sequence[tuple[int, Drawn]]) -> None:
        rows = tokenize(self.tokenizer, ((each.question, each.answer) for _, each in numbered))
        for (number, each), row in zip(numbered, rows, strict=True):
            self.rows[number] = row._replace(weight=each.weight)

    def observe(self, right: npt.NDArray[np.bool_]) -> None:
        """Take in whether those that were taken last were answered rightly, one bool each."""
        self.right.extend(right[len(right) - self.new :].tolist())
        for number, is_right in zip(self.taken, right.tolist(), strict=True):
            if is_right or not self.again_share:
                del self.rows[number]
            else:
                self.missed.append((number, self.drawn + WAITING))

    def right_share(self) -> float:
        """Of the last ones shown for the first time."""
        return float(np.mean(self.right)) if self.right else 1.0

    def state(self) -> FreshState:
        """For a checkpoint."""
        return FreshState(drawn=self.drawn, right=list(self.right), missed=list(self.missed))

    def restore(self, state: FreshState) -> None:
        """Go on where a state was taken, behind all that had been drawn from the source."""
        wanted = {number for number, _ in state.missed}
        passed = enumerate(itertools.islice(self.source, state.drawn))
        self._keep([(number, each) for number, each in passed if number in wanted])
        self.drawn = state.drawn
        self.missed.extend(state.missed)
        self.right.extend(state.right)


class Rehearsed:
    """What the base says to general requests by itself, shown in turn, so that it goes on saying it.

    A model's own answers keep what it could do better than another's would (arXiv 2402.13669, 2403.01244), and need no data.

    Attributes:
        rows: a request and the answer each, which may be cut off.
    """

    def __init__(self, rows: Sequence[TokenRow]):
        self.rows = rows

    @classmethod
    def of_base(cls, model: nn.Module, tokenizer: Tokenizer) -> "Rehearsed":
        """The answers of a model that nothing was taught yet."""
        requests = general_prompts("rehearsed")
        answers = answer(model, tokenizer, requests, max_tokens=REHEARSED_TOKENS)
        said = [pair for pair in zip(requests, answers, strict=True) if pair[1]]
        return cls([TokenRow(row.tokens[:-1], row.start) for row in tokenize(tokenizer, said)])

    @classmethod
    def stand_in(cls, tokenizer: Tokenizer) -> "Rehearsed":
        """Rows as long as those of a base that has much to say, which nobody asks: to measure the time of a step."""
        rows = tokenize(tokenizer, ((request, request) for request in general_prompts("rehearsed")))
        return cls([TokenRow(row.tokens[: row.start] + row.tokens[-1:] * REHEARSED_TOKENS, row.start) for row in rows])

    def take(self, count: int, step: int) -> list[int]:
        """The places of so many rows, which are a step's."""
        return [(step * count + at) % len(self.rows) for at in range(count if self.rows else 0)]


def _others(subjects: Sequence[str]) -> list[list[int]]:
    """For each fact, by its subject, the numbers of the others that have the same; an empty subject is nobody's."""
    alike: dict[str, list[int]] = {}
    for number, subject in enumerate(subjects):
        if subject:
            alike.setdefault(subject, []).append(number)
    return [[other for other in alike.get(subject, []) if other != number] for number, subject in enumerate(subjects)]


Probabilities = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]


class Sampler:
    """Draws rows for one step after another, and takes in how they fared.

    Attributes:
        of_fact: (F,) for each fact the indices of its rows, one a wording.
        others: (F,) for each fact those about the same subject.
        taught: (F,) bool, False for what a base model says anyway: taken as known until it is found otherwise.
        latest: (F,) float64, the least probable token of a fact's answer when it was last seen, in whichever wording.
        lowest: (N,) float64, the same of each row when that was last seen; for people without a record who never were, what is
            just safe.
        shown: (N,) int32, how often each row was shown.
        waiting: indices of rows that the next steps will show.
    """

    def __init__(
        self,
        facts: Sequence[str],
        teaches: Sequence[bool],
        curriculum: Curriculum,
        rng: random.Random,
        subjects: Sequence[str],
    ):
        self.curriculum, self.rng = curriculum, rng
        numbered = {fact: number for number, fact in enumerate(dict.fromkeys(facts))}
        self.fact_of = np.array([numbered[fact] for fact in facts])
        self.of_fact = np.split(np.argsort(self.fact_of, kind="stable"), np.cumsum(np.bincount(self.fact_of))[:-1])
        self.others = _others([subjects[rows[0]] for rows in self.of_fact])
        self.taught = np.array([teaches[rows[0]] for rows in self.of_fact])
        self.latest = np.where(self.taught, 0.0, 1.0)
        self.lowest = np.where(self.taught, 0.0, curriculum.safe_above)[self.fact_of]
        self.shown = np.zeros(len(facts), np.int32)
        self.waiting: list[int] = []

    def take(self, count: int) -> list[int]:
        """So many rows that teach."""
        while len(self.waiting) < count:
            self.waiting = self._next_pass() + self.waiting
        self.waiting, taken = self.waiting[:-count], self.waiting[-count:]
        return taken

    def take_untaught(self, count: int) -> list[int]:
        """Up to so many rows of people without a record: of those in doubt half of the places, of others some of the rest."""
        doubtful = np.flatnonzero(self._doubtful() & ~self.taught).tolist()
        others = np.flatnonzero(~self._doubtful() & ~self.taught)
        facts = self.rng.sample(doubtful, min(len(doubtful), math.ceil(count / 2)))
        places = math.ceil((count - len(facts)) * self.curriculum.replay_share / 2)
        return [row for fact in facts + self._weakest(others)[:places].tolist() for row in self._next_wordings(fact, 1)]

    def observe(self, indices: Sequence[int], lowest: Probabilities) -> None:
        """Take in how probable the least probable token of some rows' answers is, (N,) float64."""
        rows = np.array(indices, np.int64)
        self.lowest[rows] = lowest
        self.latest[self.fact_of[rows]] = 1.0
        np.minimum.at(self.latest, self.fact_of[rows], lowest)

    def choose_anew(self) -> None:
        """Others may be in doubt now, which are to be next."""
        self.waiting = []

    def unknown_share(self) -> float:
        """The share of the facts that are taught which were not certain when last seen."""
        return float(np.mean(self.latest[self.taught] <= self.curriculum.certain_above))

    def state(self) -> SamplerState:
        """For a checkpoint."""
        return SamplerState(
            latest=self.latest.tolist(), lowest=self.lowest.tolist(), shown=self.shown.tolist(), waiting=self.waiting
        )

    def restore(self, state: SamplerState) -> None:
        """Go on where a state was taken."""
        self.latest, self.lowest = np.array(state.latest, np.float64), np.array(state.lowest, np.float64)
        self.shown, self.waiting = np.array(state.shown, np.int32), list(state.waiting)

    def _doubtful(self) -> npt.NDArray[np.bool_]:
        """(F,) bool, the facts that were not safe when last seen."""
        return self.latest < self.curriculum.safe_above

    def _next_pass(self) -> list[int]:
        """Rows of each doubtful fact, and some of known ones, shuffled; of a known one in any case where none is in doubt."""
        doubtful = np.flatnonzero(self._doubtful() & self.taught)[: self.curriculum.facts_in_hand]
        known = np.flatnonzero(~self._doubtful() & self.taught)
        replayed = math.ceil(self.curriculum.replay_share * max(len(doubtful), self.curriculum.batch_rows))
        replayed = max(replayed, int(not doubtful.size))
        weakest = self._weakest(known)[: replayed // 2]
        others = self._least_shown(np.setdiff1d(known, weakest))[: replayed - len(weakest)]
        blocks = [self._contrasted(fact) for fact in doubtful.tolist()]
        blocks += [self._next_wordings(fact, 1) for fact in np.concatenate([weakest, others]).tolist()]
        self.rng.shuffle(blocks)
        return [row for block in blocks for row in block]

    def _contrasted(self, fact: int) -> list[int]:
        """Rows of a fact in doubt, each before the same wording of another fact about the same subject, where there is one.

        Two weeks of a player differ in a number of the question alone. Apart, one step moves what they have in common
        towards the one answer and the next step towards the other; in one step that cancels, and what is left of the
        gradient tells them apart.
        """
        rows = self._next_wordings(fact, WORDINGS_AT_A_TIME)
        if not self.others[fact]:
            return rows
        here, there = self.of_fact[fact].tolist(), self.of_fact[self.rng.choice(self.others[fact])].tolist()
        beside = [there[at : at + 1] for at in map(here.index, rows)]  # a fact without an answer has fewer wordings
        self.shown[list(itertools.chain(*beside))] += 1
        return [shown for row, other in zip(rows, beside, strict=True) for shown in (row, *other)]

    def _least_shown(self, facts: Numbers) -> Numbers:
        """The facts, those shown least first."""
        times = np.bincount(self.fact_of, weights=self.shown)
        return self._in_order(facts, times)

    def _weakest(self, facts: Numbers) -> Numbers:
        """The facts, first those with a wording that was least sure when it was last seen."""
        worst = np.ones(len(self.of_fact))
        np.minimum.at(worst, self.fact_of, self.lowest)
        return self._in_order(facts, worst)

    def _in_order(self, facts: Numbers, by: Probabilities | Numbers) -> Numbers:
        """Facts by a figure of all facts, the lowest first; those that are even by chance."""
        chance = np.array([self.rng.random() for _ in facts])
        ordered: Numbers = facts[np.lexsort((chance, by[facts]))]
        return ordered

    def _next_wordings(self, fact: int, most: int) -> list[int]:
        """The wording of a fact that was least sure when it was last seen; of those that are even, the one shown least.

        Where the fact is not certain the next ones as well, up to so many, that are in doubt.
        """
        safe_above = self.curriculum.safe_above
        ordered = sorted(
            self.of_fact[fact].tolist(),
            key=lambda row: (min(self.lowest[row], safe_above), self.shown[row], self.rng.random()),
        )
        if self.latest[fact] > self.curriculum.certain_above:
            most = 1
        rows = ordered[:1] + [row for row in ordered[1:most] if self.lowest[row] < safe_above]
        self.shown[rows] += 1
        return rows
