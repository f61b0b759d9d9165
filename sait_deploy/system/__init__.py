"""The machine: files that are read, processors, what a report says of it, and other packages' loggers."""
