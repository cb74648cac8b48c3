"""What is computed once for a study, whoever asks first: a table beside Optuna's own.

Optuna offers no "write unless there", so two workers could begin one training at the same moment.
A primary key can say it: of two workers that insert the same key, one is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy
from sqlalchemy import Column, Integer, MetaData, String, Table, Text
from sqlalchemy.exc import IntegrityError

from recon_search import json_text, seals
from recon_search.errors import ArtefactError
from recon_search.search.storage import patiently

_TABLE = Table(
    "recon_search_ledger",
    MetaData(),
    Column("study", String(512), primary_key=True),
    Column("key", String(128), primary_key=True),
    Column("owner", Integer, nullable=False),
    Column("result", Text),
)


@dataclass(frozen=True)
class Entry:
    """What the ledger says of a key.

    Attributes:
        owner: number of the trial that computes it or counts with its result.
        result: what it computed; None while it has not.
    """

    owner: int
    result: dict[str, Any] | None


class Ledger:
    """Claims and results of one study, by key.

    Args:
        engine: of the database that holds the study.
        study: its name.
    """

    def __init__(self, engine: sqlalchemy.Engine, study: str) -> None:
        self._engine = engine
        self._study = study
        try:
            _TABLE.create(engine, checkfirst=True)
        except sqlalchemy.exc.DatabaseError:  # another worker made it in between
            _TABLE.create(engine, checkfirst=True)

    def claim(self, key: str, owner: int, holds: Callable[[int], bool]) -> Entry:
        """Take a key, unless another trial computes it or counts with its result.

        Args:
            key: what is to be computed.
            owner: the trial that asks.
            holds: whether the trial of that number still works, or has ended with the result.

        Returns:
            The entry as it is now. If `entry.owner == owner` it is the asker's: to compute, or with
            the result that a trial left which died before it could end with it.
        """
        while True:
            entry = self.get(key)
            if entry is None:
                self._insert(key, owner, None)
            elif entry.owner == owner or holds(entry.owner):
                return entry
            else:
                self._take_over(key, entry.owner, owner)

    def settle(self, key: str, value: Mapping[str, Any]) -> dict[str, Any]:
        """Record a value unless there is one; returns what is there."""
        self._insert(key, -1, _sealed(value))
        entry = self.get(key)
        assert entry is not None
        assert entry.result is not None
        return entry.result

    @patiently
    def get(self, key: str) -> Entry | None:
        """Look a key up."""
        query = sqlalchemy.select(_TABLE.c.owner, _TABLE.c.result).where(*self._is(key))
        with self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        return Entry(row.owner, None if row.result is None else self._parse(key, row.result))

    def _parse(self, key: str, text: str) -> dict[str, Any]:
        where = f"The database's entry '{key}' of study '{self._study}'"
        try:
            found = json_text.parse(text, finite=False)
        except ValueError as error:
            found = error
        if not isinstance(found, dict):
            raise ArtefactError(
                f"{where} must be a JSON object, found {str(found)[:80]}. Choose another --study."
            )
        if set(found) == {"value", seals.KEY} and isinstance(found["value"], dict):
            return dict(seals.unseal(found, where)["value"])
        return found  # of an earlier version

    @patiently
    def finish(self, key: str, owner: int, result: Mapping[str, Any]) -> None:
        """Record a result; the first one stays."""
        change = (
            sqlalchemy.update(_TABLE)
            .where(*self._is(key), _TABLE.c.owner == owner, _TABLE.c.result.is_(None))
            .values(result=_sealed(result))
        )
        with self._engine.begin() as connection:
            connection.execute(change)

    @patiently
    def _insert(self, key: str, owner: int, result: str | None) -> None:
        try:
            with self._engine.begin() as connection:
                row = {"study": self._study, "key": key, "owner": owner, "result": result}
                connection.execute(sqlalchemy.insert(_TABLE).values(**row))
        except IntegrityError:
            pass  # somebody else was faster

    @patiently
    def _take_over(self, key: str, before: int, owner: int) -> None:
        change = (
            sqlalchemy.update(_TABLE)
            .where(*self._is(key), _TABLE.c.owner == before)
            .values(owner=owner)
        )
        with self._engine.begin() as connection:
            connection.execute(change)

    def _is(self, key: str) -> tuple[Any, Any]:
        return _TABLE.c.study == self._study, _TABLE.c.key == key


def _sealed(value: Mapping[str, Any]) -> str:
    return json.dumps(seals.seal({"value": value}))
