from __future__ import annotations

import pytest
from neo4j.exceptions import Neo4jError

from cluster.errors import OutcomeUnknown, Overloaded, Rejected, TooCostly, Unavailable
from cluster.stores.graph import QueryFailed
from cluster.stores.neo4j_client import Neo4jClient
from cluster.stores.neo4j_errors import DEADLOCK, translate

SECRET = "pass-phrase-7"


@pytest.mark.parametrize("uri", ["bolt://me:%s@host", "bolt://me@host", "http://host", "bolt://", "unix:///x"])
def test_an_address_with_a_secret_or_of_another_kind_is_refused_and_not_told(uri: str) -> None:
    with pytest.raises(Rejected) as refused:
        Neo4jClient(uri.replace("%s", SECRET), "neo4j", None)
    assert SECRET not in str(refused.value)


def _neo4j_error(code: str) -> Neo4jError:
    return Neo4jError._hydrate_neo4j(code=code, message="a\nb")


@pytest.mark.parametrize(
    ("code", "wrote", "given_s", "kind"),
    [
        ("Neo.ClientError.Security.Unauthorized", True, None, Unavailable),
        ("Neo.ClientError.Security.AuthenticationRateLimit", False, None, Unavailable),
        ("Neo.ClientError.Security.Forbidden", False, None, Rejected),
        ("Neo.ClientError.Database.DatabaseNotFound", False, None, Rejected),
        ("Neo.ClientError.Transaction.TransactionTimedOut", False, 1.0, TooCostly),
        ("Neo.ClientError.Transaction.TransactionTimedOut", True, None, Overloaded),
        ("Neo.TransientError.General.MemoryPoolOutOfMemoryError", False, None, TooCostly),
        ("Neo.TransientError.General.MemoryPoolOutOfMemoryError", True, None, Overloaded),
        ("Neo.TransientError.General.DatabaseUnavailable", True, None, Unavailable),
        (DEADLOCK, True, None, Overloaded),
        ("Neo.DatabaseError.Transaction.TransactionCommitFailed", True, None, OutcomeUnknown),
        ("Neo.DatabaseError.General.UnknownError", False, None, Unavailable),
        ("Neo.ClientError.Statement.SyntaxError", True, None, QueryFailed),
        ("Neo.ClientError.Schema.ConstraintValidationFailed", True, None, QueryFailed),
    ],
)
def test_what_the_server_says_is_told_by_its_code(code: str, wrote: bool, given_s: float | None, kind: type) -> None:
    told = translate(_neo4j_error(code), wrote, given_s)
    assert type(told) is kind
    assert "\n" not in str(told)
