"""The machine: processors, what a report says of it, and other packages' loggers."""
