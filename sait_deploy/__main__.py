"""``python -m sait_deploy`` is ``sait-deploy``."""

from sait_deploy.cli import run

if __name__ == "__main__":
    run()
