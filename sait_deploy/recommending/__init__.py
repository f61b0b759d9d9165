"""Which of what was measured to deploy: candidates, their Pareto front, the choice under limits, and its command."""
