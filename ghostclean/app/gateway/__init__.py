"""The gateway: what every order to the broker passes through.

`gateway` says what can be done, `looking` reads a symbol and its orders, `naming` keeps the client
order ids, `sending` sends and reads back. How much an order may take is decided in
`ghostclean.core.protection.sizing`.
"""
