"""Black-box access to a victim, with an exact ledger; and the store of answers on disk."""

from ssl_extract.oracle.oracle import MAX_BUDGET, Answer, Oracle, OracleState, make_oracle

__all__ = ['MAX_BUDGET', 'Answer', 'Oracle', 'OracleState', 'make_oracle']
