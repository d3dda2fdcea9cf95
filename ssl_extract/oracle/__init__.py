"""Black-box access to a victim: oracles, ledgers, stored answers."""

from ssl_extract.oracle.oracle import MAX_BUDGET, Answer, Oracle, OracleState, make_oracle

__all__ = ['MAX_BUDGET', 'Answer', 'Oracle', 'OracleState', 'make_oracle']
