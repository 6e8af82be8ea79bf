"""Flask behind gunicorn: each worker process has an engine of its own, shared by its threads."""

import logging
import os
import threading

import torch
from flask import Flask, jsonify, redirect, request
from tandem import Engine
from teasers import TEASERS

app = Flask(__name__)
engine = None
stopped = threading.Event()


def start():
    """In each worker, after the fork: gunicorn.conf.py calls it."""
    global engine
    torch.set_num_threads(1)
    engine = Engine.attach()
    threading.Thread(target=beat, daemon=True).start()
    engine.mark_ready()


def beat():
    """Twice a second: show progress, take in rewards that arrived at other workers, drop what has expired."""
    while not stopped.wait(0.5):
        try:
            engine.beat()
        except Exception:
            logging.exception("the engine's periodic work failed")


def stop():
    """At a worker's end: what waits for a reward stays for the lane's next owner."""
    stopped.set()
    engine.close()


@app.post("/teaser")
def teaser():
    """{"key": ..., "visit": [hour, phone, scrolled]} -> what to show."""
    body = request.get_json()
    decision = engine.decide(body["key"], body["visit"])
    return jsonify(teaser=TEASERS[decision.action[0]], version=decision.version, worker=os.getpid())


@app.post("/clicked")
def clicked():
    """{"key": ..., "value": 1.0}: what it was worth. `matched` is false if nothing waits under this key."""
    body = request.get_json()
    return jsonify(matched=engine.reward(body["key"], body["value"]), worker=os.getpid())


@app.get("/dashboard")
def dashboard():
    """The dashboard's address; gunicorn.conf.py starts it."""
    return redirect(f"http://127.0.0.1:{engine.config.inference.port}/dashboard")


@app.errorhandler(ValueError)
def refused(error):
    """An observation or a reward that makes no sense is the client's fault."""
    return jsonify(error=str(error)), 400
