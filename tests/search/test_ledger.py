"""A key is computed once, whoever asks and whenever."""

import threading

import pytest
import sqlalchemy

from recon_search.search.ledger import Entry, Ledger


@pytest.fixture
def engine(tmp_path):
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield engine
    engine.dispose()


def test_of_many_that_claim_at_once_one_gets_the_key(engine):
    ledgers = [Ledger(engine, "study") for _ in range(8)]
    barrier = threading.Barrier(len(ledgers))
    owners = [None] * len(ledgers)

    def claim(number):
        barrier.wait()
        owners[number] = ledgers[number].claim("key", number, lambda _: True).owner

    threads = [threading.Thread(target=claim, args=(n,)) for n in range(len(ledgers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(owners)) == 1
    assert owners[owners[0]] == owners[0]


def test_a_dead_owner_loses_the_key_and_cannot_finish_it(engine):
    ledger = Ledger(engine, "study")
    assert ledger.claim("key", 1, lambda _: True).owner == 1
    assert ledger.claim("key", 2, lambda _: True).owner == 1, "1 lives"
    assert ledger.claim("key", 2, lambda number: number != 1).owner == 2
    ledger.finish("key", 1, {"by": 1})
    assert ledger.get("key").result is None
    ledger.finish("key", 2, {"by": 2})
    ledger.finish("key", 2, {"by": "nobody"})
    assert ledger.claim("key", 3, lambda _: True).owner == 2, "2 counts with it"
    assert ledger.claim("key", 3, lambda _: False) == Entry(3, {"by": 2}), "2 died before it could"


def test_studies_are_apart_and_settled_values_stay(engine):
    one, other = Ledger(engine, "one"), Ledger(engine, "other")
    assert one.settle("recipe", {"digest": "a"}) == {"digest": "a"}
    assert one.settle("recipe", {"digest": "b"}) == {"digest": "a"}
    assert other.settle("recipe", {"digest": "b"}) == {"digest": "b"}
