"""The pages and terminal that show a session."""
