"""Storage of live trading: SQLite files, what may stand in them, and how bars are encoded."""
