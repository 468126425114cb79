"""Protecting open trades: where a stop belongs, what it covers, how much an order may take.

`policy` (what the operator allows), `market` (when an instrument trades), `orders` (every known
order), `coverage` (which orders protect a trade), `stops` (risk and rules), `sizing` (how much),
`begun` (a close that must end or give its stop back). Pure: no clock, no broker.
"""
