"""Reports: tables and plots, and the writers that turn them into terminal text, Markdown, HTML and JSON."""
