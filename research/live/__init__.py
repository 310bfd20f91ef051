"""Paper trading on the core that was researched: feeds, runner, paper broker, journal, and the windows into it.

`session.runner` lets closed bars through `Engine.run` one at a time; `journal` keeps every bar as one transaction, so that a killed process
continues where it stood; `broker.paper` fills the orders on an account of its own; `feeds` turns arriving candles into closed bars, of a
file or (`exchange`, `stream`, `trades`) of an exchange.
"""
