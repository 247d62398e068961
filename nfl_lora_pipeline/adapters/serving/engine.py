"""The one thread in which the model works: takes requests, gives tokens, changes to another adapter between two of them.

Requests that are being answered go on together. What one of them is refused for, or fails of, is its own: an error that all of
them share is met by going on with each alone, from the tokens that it has. An error of the thread itself is the end of the
process, as `on_death` sees to it; nobody is left waiting.
"""

import queue
import threading
import time
from collections.abc import Callable

from nfl_lora_pipeline.adapters.serving.generation import (
    TOGETHER,
    Generator,
    LoadedAdapter,
    Prompt,
    SequentialGenerator,
    load_adapter,
    suitable_generator,
)
from nfl_lora_pipeline.adapters.serving.job import Job
from nfl_lora_pipeline.adapters.serving.schema import RequestError
from nfl_lora_pipeline.store import Store

WAITING = 256  # requests; later ones are refused, with the advice to come again
WAITING_SECONDS = 120  # after which a request is sent away as well
TOGETHER_TOKENS = 16_384  # of prompts and answers at a time: a large base keeps up to 0.5 MB for each
IDLE_SECONDS = 0.25
LOOKS_EVERY_SECONDS = 0.5

Report = Callable[[str], None]


class Batch:
    """Jobs that are answered by the same adapter."""

    def __init__(self, loaded: LoadedAdapter, generator: Generator):
        self.loaded, self.generator = loaded, generator
        self.jobs: dict[int, Job] = {}

    def add(self, job: Job, prompt: Prompt) -> None:
        """Begin to answer, or go on."""
        self.jobs[self.generator.add(prompt)] = job

    def leave(self, number: int) -> Job:
        """Answer one no longer."""
        self.generator.remove(number)
        return self.jobs.pop(number)


class Engine:
    """Answers jobs with an adapter of a store.

    Attributes:
        loaded: the adapter that the next job is answered with.
    """

    loaded: LoadedAdapter

    def __init__(
        self,
        store: Store,
        fingerprint: str,
        *,
        follows: bool,
        report: Report,
        on_death: Callable[[BaseException], None],
    ):
        """Prepare the thread.

        Args:
            store: the store.
            fingerprint: of the adapter to begin with.
            follows: whether to change to what is promoted later.
            report: takes lines for the log.
            on_death: called from the thread when it ends by an error that belongs to no job.
        """
        self._store, self._fingerprint, self._follows = store, fingerprint, follows
        self._report, self._on_death = report, on_death
        self._waiting: queue.Queue[Job] = queue.Queue(WAITING)
        self._next: Job | None = None
        self._batches: list[Batch] = []
        self._ready, self._ends = threading.Event(), threading.Event()
        self._refusal: ValueError | None = None
        self._passed_over: str | None = None
        self._looked_at = 0.0
        self._thread = threading.Thread(target=self._run, name="generation", daemon=True)

    def start(self) -> None:
        """Load the adapter, and begin.

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
            RequestError: too many are waiting.
        """
        try:
            self._waiting.put_nowait(job)
        except queue.Full:
            raise RequestError(f"{WAITING} requests are waiting already; come again in a second", status=503) from None

    def stop(self, *, seconds: float) -> bool:
        """Ask the thread to end, and wait for that; whether it has."""
        self._ends.set()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._load_first()
            while not self._ends.is_set() and self._refusal is None:
                self._follow()
                self._admit()
                for batch in list(self._batches):
                    self._advance(batch)
                self._batches = [batch for batch in self._batches if batch.jobs or batch is self._batches[-1]]
        except BaseException as error:
            self._on_death(error)

    def _load_first(self) -> None:
        try:
            self._use(load_adapter(self._store, self._fingerprint))
        except ValueError as error:
            self._refusal = error
        finally:
            self._ready.set()

    def _use(self, loaded: LoadedAdapter) -> None:
        """Answer with this one from now on; what is being answered keeps its own."""
        self.loaded = loaded
        self._batches.append(Batch(loaded, suitable_generator(loaded.model)))

    def _follow(self) -> None:
        """Change to the promoted adapter, where that is another by now and can be loaded."""
        if not self._follows or time.monotonic() < self._looked_at + LOOKS_EVERY_SECONDS:
            return
        self._looked_at = began = time.monotonic()
        try:
            promoted = self._store.promoted()
        except (OSError, ValueError):  # the link is being moved, or is none
            return
        if promoted in (None, self.loaded.fingerprint, self._passed_over):
            return
        before = self.loaded
        try:
            self._use(load_adapter(self._store, str(promoted), before))
            self._passed_over = None
            self._report(f"adapter {self.loaded.knows} answers now, after {before.knows}")
        except Exception as error:  # whatever is wrong with it, the one before is right
            self._passed_over = promoted
            self._report(f"adapter {promoted} is promoted and not taken, {before.knows} goes on answering: {error}")
        for job in self._active():
            job.deadline += time.monotonic() - began

    def _active(self) -> list[Job]:
        return [job for batch in self._batches for job in batch.jobs.values()]

    def _admit(self) -> None:
        """Take jobs that wait, as many as there is room for, and wait for one where there is nothing to do."""
        while (job := self._first_waiting()) is not None:
            active = self._active()
            tokens = sum(min(each.size, self.loaded.context) for each in (*active, job))
            if active and (len(active) >= TOGETHER or tokens > TOGETHER_TOKENS):
                self._next = job
                return
            try:
                self._batches[-1].add(job, job.begin(self.loaded))
            except RequestError as error:
                job.fail(error)
            except Exception as error:
                self._fail(job, error)

    def _first_waiting(self) -> Job | None:
        """The job that has waited longest; those that nobody wants any more, or that waited too long, are done with."""
        while True:
            job, self._next = self._next, None
            try:
                if job is None:
                    is_idle = not self._active()
                    job = self._waiting.get(timeout=IDLE_SECONDS) if is_idle else self._waiting.get_nowait()
            except queue.Empty:
                return None
            if job.is_cancelled:
                continue
            if time.monotonic() <= job.submitted_at + WAITING_SECONDS:
                return job
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
        alone = Batch(batch.loaded, SequentialGenerator(batch.loaded.model))
        for job in batch.jobs.values():
            if len(batch.jobs) > 1:
                alone.add(job, job.remaining())
            else:
                self._fail(job, error)
        place = self._batches.index(batch)
        self._batches[place] = alone
        if place == len(self._batches) - 1:
            self._batches.append(Batch(batch.loaded, suitable_generator(batch.loaded.model)))

    def _fail(self, job: Job, error: Exception) -> None:
        self._report(f"a request failed: {error!r}")
        job.fail(RequestError(f"the model gave no answer: {type(error).__name__}", status=500))
