"""The building process: ``python -m sait_deploy.engine.worker FD PARENT`` reads a request and answers on file FD.

A builder is native code that can abort; here it takes nothing but this process with it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from sait_deploy.engine.builder import BuildContext, BuildFailed, Cancelled, build
from sait_deploy.engine.request import BuildEvent, BuildRequest
from sait_deploy.errors import SaitError
from sait_deploy.system.children import end_with


def main(descriptor: int, parent: int) -> int:
    """Builds what standard input asks for, for as long as the process that asks is there."""
    end_with(parent)
    request = BuildRequest.from_json(sys.stdin.read())
    stop, lock = threading.Event(), threading.Lock()
    with os.fdopen(descriptor, "w", encoding="utf-8") as channel:

        def send(event: BuildEvent) -> None:
            with lock:
                channel.write(event.to_json() + "\n")
                channel.flush()

        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        context, codes = BuildContext(send, stop.is_set), [1]
        # Beside the main thread, which alone runs signal handlers and would be stuck in native code.
        builder = threading.Thread(target=lambda: codes.append(_build(request, context)))
        builder.start()
        builder.join()
    return codes[-1]


def _build(request: BuildRequest, context: BuildContext) -> int:
    try:
        build(request, context)
    except Cancelled:
        return 0
    except BuildFailed as error:
        context.send(BuildEvent(error="\n".join([*context.errors, *([] if context.errors else [str(error)])])))
        return 1
    except SaitError as error:
        context.send(BuildEvent(error=f"{error.message}; {error.hint}"))
        return 1
    except OSError as error:
        context.send(BuildEvent(error=f"{type(error).__name__}: {error}", errno=error.errno))
        return 1
    except Exception as error:  # whatever a binding raises is the reason
        context.send(BuildEvent(error="\n".join([*context.errors, f"{type(error).__name__}: {error}"])))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
