"""The engine: workspace, rules, decisions, their log, learning, replay and reports."""
