"""The pages of the dashboard: functions from a queue and a query to a template and its data."""
