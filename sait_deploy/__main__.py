"""``sait-deploy``, which is ``python -m sait_deploy``."""

from typing import NoReturn

from sait_deploy.system.interrupts import end_at_once


def main() -> NoReturn:
    """Runs the command line; a signal while it starts ends it without a traceback."""
    end_at_once()
    from sait_deploy.cli import run

    run()


if __name__ == "__main__":
    main()
