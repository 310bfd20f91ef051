"""Monitoring of a session: status, health, alerts, logs."""
