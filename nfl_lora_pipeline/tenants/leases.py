"""Who works on a tenant, on whichever machine: leases in a database, which run out where nobody renews them.

A lease keeps two workers from training the same; it is not what keeps the store right. A worker that was held up for longer
than its lease, and goes on, is refused when it publishes, since a version has come in between (`archive`).
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Float,
    MetaData,
    String,
    Table,
    create_engine,
    inspect,
    literal_column,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.schema import CreateTable

from nfl_lora_pipeline.files import one_line
from nfl_lora_pipeline.processes import repeating

SECONDS = 60.0  # how long a machine that has died is waited for
RENEWALS = 4  # within that time
WAIT_SECONDS = 1.0
TABLE = Table(
    "nfl_lora_leases",
    MetaData(),
    Column("name", String, primary_key=True),
    Column("holder", String, nullable=False),
    Column("token", BigInteger, nullable=False),  # grows with every holder, and never falls
    Column("runs_out", Float, nullable=False),  # seconds since 1970, by the database's clock; 0 when it was given back
)
CLOCKS = {"postgresql": "extract(epoch from clock_timestamp())", "sqlite": "(julianday('now') - 2440587.5) * 86400.0"}
INSERTS: dict[str, Callable[[Table], postgresql.Insert | sqlite.Insert]] = {
    "postgresql": postgresql.insert,
    "sqlite": sqlite.insert,
}


@dataclass(frozen=True)
class Lease:
    """A lease that is held: its name, by whom, and which one of that name it is."""

    name: str
    holder: str
    token: int


class Leases:
    """The leases in a database.

    Args:
        url: as SQLAlchemy has it: `postgresql://user@host/name`, or `sqlite:///file` for workers of one machine.
        seconds: after which a lease runs out that is not renewed.

    Raises:
        ValueError: it is no such address, or the database cannot be used; the message has no password.
    """

    def __init__(self, url: str, *, seconds: float = SECONDS):
        self._seconds = seconds
        try:
            self._address = make_url(url)
            if (dialect := self._address.get_backend_name()) not in CLOCKS:
                raise ValueError(f"database {dialect}: use postgresql://… or sqlite:///FILE")
            if self._address.drivername == "postgresql":  # SQLAlchemy 2.1 would take psycopg 3, Dagster has psycopg2
                self._address = self._address.set(drivername="postgresql+psycopg2")
            self._engine: Engine = create_engine(self._address, pool_pre_ping=True)
        except (ArgumentError, ImportError) as error:
            wanted = "install nfl-lora-pipeline[deploy]" if isinstance(error, ImportError) else "use postgresql://…"
            raise ValueError(f"database {url.partition(':')[0]}: {one_line(error)}; {wanted}") from error
        self._now = literal_column(CLOCKS[dialect], Float)
        self._insert = INSERTS[dialect]
        self._make_table()

    @contextmanager
    def held(self, name: str, holder: str, on_wait: Callable[[str], None] = lambda line: None) -> Iterator[Lease]:
        """Hold a lease for the block, which is waited for, and renewed until the block ends.

        Where it cannot be renewed and somebody else has it, this process is asked to end (SIGTERM): its work is done
        by another one.

        Args:
            name: of what is worked on.
            holder: who works on it, for whoever waits.
            on_wait: told whom this one waits for, once each.

        Raises:
            ValueError: the database cannot be used.
        """
        lease, told = self.take(name, holder), ""
        while lease is None:
            if (other := self.holder(name)) != told:
                told = other
                on_wait(f"waiting for {other or 'another worker'}, or until its lease runs out")
            time.sleep(WAIT_SECONDS)
            lease = self.take(name, holder)
        try:
            with repeating(partial(self._keep_up, lease), self._seconds / RENEWALS, f"lease of {name}"):
                yield lease
        finally:
            with contextlib.suppress(ValueError):  # it runs out by itself
                self.give_back(lease)

    def take(self, name: str, holder: str) -> Lease | None:
        """A lease that nobody has, or that has run out; None where somebody has it."""
        until = self._now + self._seconds
        new = self._insert(TABLE).values(name=name, holder=holder, token=1, runs_out=until)
        taken = new.on_conflict_do_update(
            index_elements=[TABLE.c.name],
            set_={"holder": holder, "token": TABLE.c.token + 1, "runs_out": until},
            where=TABLE.c.runs_out < self._now,
        )
        with self._connected() as connection:
            token = connection.execute(taken.returning(TABLE.c.token)).scalar()
        return None if token is None else Lease(name, holder, int(token))

    def renew(self, lease: Lease) -> bool:
        """Whether it is still this one's; then it lasts for its whole time from now."""
        return self._set(lease, self._now + self._seconds)

    def give_back(self, lease: Lease) -> None:
        """Let the next one have it at once."""
        self._set(lease, 0.0)

    def holder(self, name: str) -> str:
        """Who has a lease now; empty where nobody has."""
        wanted = TABLE.select().where(TABLE.c.name == name, TABLE.c.runs_out >= self._now)
        with self._connected() as connection:
            row = connection.execute(wanted).first()
        return str(row.holder) if row else ""

    def _make_table(self) -> None:
        """Make the table where there is none; another one may do so in the same moment, which Postgres refuses one of them."""
        try:
            with self._connected() as connection:
                connection.execute(CreateTable(TABLE, if_not_exists=True))
        except ValueError:
            with self._connected() as connection:
                if not inspect(connection).has_table(TABLE.name):
                    raise

    def _set(self, lease: Lease, runs_out: object) -> bool:
        mine = update(TABLE).where(TABLE.c.name == lease.name, TABLE.c.token == lease.token)
        with self._connected() as connection:
            return connection.execute(mine.values(runs_out=runs_out)).rowcount == 1

    def _keep_up(self, lease: Lease) -> bool:
        with contextlib.suppress(ValueError):  # a database that is away may be back before the lease runs out
            if not self.renew(lease):
                os.kill(os.getpid(), signal.SIGTERM)
                return False
        return True

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        """A connection whose block is one transaction.

        Raises:
            ValueError: the database cannot be used.
        """
        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            shown = self._address.render_as_string(hide_password=True)
            raise ValueError(f"database {shown}: {one_line(getattr(error, 'orig', None) or error)}") from error
