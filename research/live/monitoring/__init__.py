"""What is seen of a session: status, health, alerts, logs."""
