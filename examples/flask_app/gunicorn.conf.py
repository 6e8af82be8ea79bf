"""gunicorn's settings and hooks. The application is loaded once, before the fork; engines are attached after it."""

import subprocess
import sys

preload_app = True
workers = 2
threads = 4

_dashboard = None


def when_ready(server):
    """Beside the workers, the bundled server: it attaches as they do, and has the dashboard."""
    global _dashboard
    _dashboard = subprocess.Popen([sys.executable, "-m", "tandem.inference_proc"])


def post_fork(server, worker):
    """In the new worker. An engine that was attached before the fork would raise TandemError here."""
    import app

    app.start()


def worker_exit(server, worker):
    """In the worker that ends."""
    import app

    app.stop()


def on_exit(server):
    """In the parent, at the end."""
    if _dashboard is not None:
        _dashboard.terminate()
        _dashboard.wait()
