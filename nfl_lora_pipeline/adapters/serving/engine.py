"""The one thread in which models work: takes requests, gives tokens, changes to another adapter between two of them.

Requests to the same adapter go on together, and those of several adapters a step each in turn. What one of them is refused for,
or fails of, is its own: an error that all of a batch share is met by going on with each alone, from the tokens that it has. An
error of the thread itself is the end of the process, as `on_death` sees to it; nobody is left waiting.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from nfl_lora_pipeline.adapters.serving.catalogue import Catalogue, Report, ServedStore
from nfl_lora_pipeline.adapters.serving.generation import (
    MOST_CONTEXT,
    TOGETHER,
    Generator,
    LoadedAdapter,
    Prompt,
    SequentialGenerator,
    suitable_generator,
)
from nfl_lora_pipeline.adapters.serving.job import Job
from nfl_lora_pipeline.adapters.serving.schema import RequestError

WAITING = 256  # requests; later ones are refused, with the advice to come again
WAITING_SECONDS = 120  # after which a request is sent away as well
TOGETHER_TOKENS = 16_384  # of prompts and answers at a time: a large base keeps up to 0.5 MB for each
IDLE_SECONDS = 0.25
LOOKS_EVERY_SECONDS = 0.5
LOOKS_FOR_SHARE = 0.05  # of the time, at most, where there are many stores to look at


class Waiting:
    """Jobs that wait, in a row for each tenant. They are put in by any thread, and taken out by one."""

    def __init__(self, most: int):
        """Prepare for so many jobs at most, of all tenants together."""
        self._most = most
        self._rows: dict[ServedStore, deque[Job]] = {}
        self._changed = threading.Condition()

    def full(self) -> bool:
        """Whether one more would be too many."""
        return sum(map(len, self._rows.values())) >= self._most

    def put(self, tenant: ServedStore, job: Job) -> None:
        """Let a job wait. Where too many do, the last one of the longest row is sent away for it.

        Raises:
            RequestError: that row is the job's own.
        """
        sent_away = None
        with self._changed:
            if self.full():
                longest = max(self._rows.values(), key=len)
                if len(longest) <= len(self._rows.get(tenant, ())) + 1:
                    raise _too_many()
                sent_away = longest.pop()
            self._rows.setdefault(tenant, deque()).append(job)
            self._changed.notify()
        if sent_away is not None:
            sent_away.fail(_too_many())

    def first(self, active: Mapping[ServedStore, int], *, seconds: float) -> tuple[ServedStore, Job] | None:
        """Whose turn it is: of the tenants who have the fewest jobs answered, who waited longest. He stays there.

        Args:
            active: of each tenant, how many are answered.
            seconds: to wait for one, where there is none.
        """
        with self._changed:
            if not self._rows:
                self._changed.wait(seconds)
            turns = ((active.get(tenant, 0), row[0].submitted_at, tenant) for tenant, row in self._rows.items())
            first = min(turns, key=lambda turn: turn[:2], default=None)
            return None if first is None else (first[2], self._rows[first[2]][0])

    def take(self, tenant: ServedStore) -> Job:
        """Take out the job of a tenant that has waited longest."""
        with self._changed:
            job = self._rows[tenant].popleft()
            if not self._rows[tenant]:
                del self._rows[tenant]
            return job


def _too_many() -> RequestError:
    return RequestError(f"{WAITING} requests are waiting already; come again in a second", status=503)


class Batch:
    """Jobs that are answered by the same adapter.

    Attributes:
        is_open: whether more jobs may come in.
    """

    def __init__(self, tenant: ServedStore, loaded: LoadedAdapter, generator: Generator, *, is_open: bool = True):
        self.tenant, self.loaded, self.generator, self.is_open = tenant, loaded, generator, is_open
        self.jobs: dict[int, Job] = {}

    @property
    def is_needed(self) -> bool:
        """Whether it has jobs, or its adapter is still the one that the next job is answered with."""
        return bool(self.jobs) or (self.is_open and self.tenant.loaded is self.loaded)

    @property
    def sizes(self) -> list[int]:
        """The tokens that each job takes at most."""
        return [min(job.size, self.loaded.context) for job in self.jobs.values()]

    def add(self, job: Job, prompt: Prompt) -> None:
        """Begin to answer, or go on."""
        self.jobs[self.generator.add(prompt)] = job

    def leave(self, number: int) -> Job:
        """Answer one no longer."""
        self.generator.remove(number)
        return self.jobs.pop(number)


class Engine:
    """Answers jobs with the adapters of a catalogue."""

    def __init__(self, catalogue: Catalogue, *, report: Report, on_death: Callable[[BaseException], None]):
        """Prepare the thread.

        Args:
            catalogue: who answers to which name.
            report: takes lines for the log.
            on_death: called from the thread when it ends by an error that belongs to no job.
        """
        self._catalogue, self._report, self._on_death = catalogue, report, on_death
        self._waiting = Waiting(WAITING)
        self._batches: list[Batch] = []
        self._ready, self._ends = threading.Event(), threading.Event()
        self._refusal: ValueError | None = None
        self._looks_at = 0.0
        self._thread = threading.Thread(target=self._run, name="generation", daemon=True)

    def start(self) -> None:
        """Load what there is to begin with, and begin.

        Raises:
            ValueError: it cannot be loaded.
        """
        self._thread.start()
        self._ready.wait()
        if self._refusal is not None:
            raise self._refusal

    def submit(self, job: Job) -> None:
        """Have a job answered.

        Raises:
            RequestError: nobody answers to the model that it names, or too many are waiting.
        """
        self._waiting.put(self._catalogue.find(job.request.model), job)

    def stop(self, *, seconds: float) -> bool:
        """Ask the thread to end, and wait for that; whether it has."""
        self._ends.set()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._start()
            while not self._ends.is_set() and self._refusal is None:
                self._look()
                self._admit()
                for batch in list(self._batches):
                    self._advance(batch)
                self._batches = [batch for batch in self._batches if batch.is_needed]
        except BaseException as error:
            self._on_death(error)

    def _start(self) -> None:
        try:
            self._catalogue.start(self._report)
        except ValueError as error:
            self._refusal = error
        finally:
            self._ready.set()

    def _look(self) -> None:
        """See what is promoted by now; what is being answered keeps its adapter."""
        began = time.monotonic()
        if began < self._looks_at:
            return
        with self._standing_still():
            self._catalogue.look(self._report)
        ended = time.monotonic()
        self._looks_at = ended + max(LOOKS_EVERY_SECONDS, (ended - began) / LOOKS_FOR_SHARE)

    @contextmanager
    def _standing_still(self) -> Iterator[None]:
        """While an adapter is loaded no answer goes on, and none is late for that."""
        began = time.monotonic()
        yield
        for batch in self._batches:
            for job in batch.jobs.values():
                job.deadline += time.monotonic() - began

    def _admit(self) -> None:
        """Take jobs that wait, as many as there is room for, and wait for one where there is nothing to do.

        Behind one whose adapter has to be loaded the others go on first.
        """
        while (waiting := self._first_waiting()) is not None:
            tenant, job = waiting
            if not self._has_room(tenant, job):
                return
            is_loaded = tenant.loaded is not None
            try:
                with self._standing_still():
                    busy = [batch.loaded for batch in self._batches if batch.jobs]
                    loaded = self._catalogue.load(tenant, busy, self._report)
                if loaded is None:
                    return
                self._batch_of(tenant, loaded).add(job, job.begin(loaded))
            except RequestError as error:
                job.fail(error)
            except Exception as error:
                self._fail(job, error)
            self._waiting.take(tenant)
            if not is_loaded:
                return

    def _has_room(self, tenant: ServedStore, job: Job) -> bool:
        """Whether a job can be answered now: all together have the whole of the room, and a tenant a share of it."""
        size = min(job.size, tenant.loaded.context if tenant.loaded is not None else MOST_CONTEXT)
        everyone = [each for batch in self._batches for each in batch.sizes]
        own = [each for batch in self._batches if batch.tenant is tenant for each in batch.sizes]
        return all(
            not sizes or (len(sizes) < share * TOGETHER and sum(sizes) + size <= share * TOGETHER_TOKENS)
            for sizes, share in ((everyone, 1.0), (own, self._catalogue.share))
        )

    def _batch_of(self, tenant: ServedStore, loaded: LoadedAdapter) -> Batch:
        """Where a job is answered that comes now."""
        for batch in self._batches:
            if batch.loaded is loaded and batch.is_open:
                return batch
        self._batches.append(Batch(tenant, loaded, suitable_generator(loaded.model)))
        return self._batches[-1]

    def _first_waiting(self) -> tuple[ServedStore, Job] | None:
        """Whose turn it is; those that nobody wants any more, or that waited too long, are done with."""
        while True:
            active = Counter(batch.tenant for batch in self._batches for _ in batch.jobs)
            waiting = self._waiting.first(active, seconds=0 if active.total() else IDLE_SECONDS)
            if waiting is None:
                return None
            tenant, job = waiting
            is_late = time.monotonic() > job.submitted_at + WAITING_SECONDS
            if not is_late and not job.is_cancelled:
                return tenant, job
            self._waiting.take(tenant)
            if not job.is_cancelled:
                job.fail(RequestError("too many others asked before; come again later", status=503))

    def _advance(self, batch: Batch) -> None:
        """One step of a batch, and what it means to its jobs."""
        try:
            self._leave_out(batch)
            tokens = batch.generator.step() if batch.jobs else []
        except Exception as error:
            self._isolate(batch, error)
            return
        for token in tokens:
            job = batch.jobs.get(token.number)
            if job is None:
                continue
            try:
                if job.take(token.id, token.logprobs):
                    batch.leave(token.number)
            except Exception as error:
                self._fail(batch.leave(token.number), error)

    def _leave_out(self, batch: Batch) -> None:
        """Whose client has left, and whose time is over."""
        now = time.monotonic()
        for number, job in list(batch.jobs.items()):
            if job.is_cancelled:
                batch.leave(number)
            elif now > job.deadline:
                batch.leave(number).fail(
                    RequestError(
                        "no whole answer in its time; ask for fewer max_tokens, or come again later", status=504
                    )
                )

    def _isolate(self, batch: Batch, error: Exception) -> None:
        """After an error of a step: the job that it belongs to fails; where it could be anyone's, each goes on alone."""
        generator = batch.generator
        if isinstance(generator, SequentialGenerator):
            if generator.current is not None:
                self._fail(batch.leave(generator.current), error)
            return
        alone = Batch(batch.tenant, batch.loaded, SequentialGenerator(batch.loaded.model), is_open=False)
        for job in batch.jobs.values():
            if len(batch.jobs) > 1:
                alone.add(job, job.remaining())
            else:
                self._fail(job, error)
        self._batches[self._batches.index(batch)] = alone

    def _fail(self, job: Job, error: Exception) -> None:
        self._report(f"a request failed: {error!r}")
        job.fail(RequestError(f"the model gave no answer: {type(error).__name__}", status=500))
