"""Dashboards: the pages and terminal that show a session."""
