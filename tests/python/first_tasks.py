"""Drives a master with pymesos as it comes from PyPI.

Usage: first_tasks.py HOST:PORT

Runs twenty command tasks with different ends, kills one that would run for ever,
reconciles, hands the framework over to a second driver, and checks that every state is
the expected one and that all resources are free again at the end.
"""

import json
import sys
import threading
import time
import urllib.request

from pymesos import MesosSchedulerDriver, Scheduler

from tasks import CPUS, MEM, answer, task

MASTER = sys.argv[1]
PATIENCE = 90


def state():
    with urllib.request.urlopen("http://%s/state" % MASTER, timeout=10) as body:
        return json.load(body)


def command(index):
    """What task `index` runs and how it must end."""
    if index % 4 == 0:
        return "exit 0", "TASK_FINISHED"
    if index % 4 == 1:
        return "exit %d" % (index % 7 + 1), "TASK_FAILED"
    if index % 4 == 2:
        return "sleep 0.2; true", "TASK_FINISHED"
    return "kill -9 $$", "TASK_FAILED"


class Twenty(Scheduler):
    def __init__(self):
        self.lock = threading.Lock()
        self.waiting = {"task-%d" % n: command(n)[0] for n in range(20)}
        self.waiting["sleeper"] = "sleep 1000"
        self.states = {}
        self.messages = {}
        self.reconciled = set()
        self.registered_with = []
        self.errors = []

    def registered(self, driver, framework_id, master_info):
        self.registered_with.append(framework_id["value"])

    def reregistered(self, driver, master_info):
        self.registered_with.append("again")

    def resourceOffers(self, driver, offers):
        for offer in offers:
            cpus = sum(r["scalar"]["value"] for r in offer["resources"] if r["name"] == "cpus")
            mem = sum(r["scalar"]["value"] for r in offer["resources"] if r["name"] == "mem")
            tasks = []
            with self.lock:
                while self.waiting and cpus >= CPUS and mem >= MEM:
                    name, line = self.waiting.popitem()
                    cpus, mem = cpus - CPUS, mem - MEM
                    tasks.append(task(name, line, offer))
            answer(driver, offer, tasks)

    def statusUpdate(self, driver, update):
        name = update["task_id"]["value"]
        with self.lock:
            if update.get("reason") == "REASON_RECONCILIATION":
                self.reconciled.add((name, update["state"]))
                return
            self.states[name] = update["state"]
            self.messages[name] = update.get("message", "")

    def error(self, driver, message):
        self.errors.append(message)


def wait_for(what, condition):
    end = time.time() + PATIENCE
    while not condition():
        if time.time() > end:
            raise SystemExit("waited in vain for %s; states: %s; errors: %s" % (
                what, scheduler.states, scheduler.errors))
        time.sleep(0.05)


def framework():
    return dict(user="root", name="pymesos", failover_timeout=60, checkpoint=True,
                hostname="localhost")


free = state()["slaves"][0]["unreserved_resources"]

scheduler = Twenty()
info = framework()
driver = MesosSchedulerDriver(scheduler, info, MASTER, use_addict=False)
driver.start()
wait_for("twenty ends", lambda: sum(
    s in ("TASK_FINISHED", "TASK_FAILED") for s in scheduler.states.values()) == 20)
wait_for("the sleeper", lambda: scheduler.states.get("sleeper") == "TASK_RUNNING")
for n in range(20):
    name, (line, expected) = "task-%d" % n, command(n)
    found = scheduler.states[name]
    assert found == expected, (name, line, found)
    if n % 4 == 1:
        assert scheduler.messages[name].endswith("status %d" % (n % 7 + 1)), scheduler.messages[name]
    if n % 4 == 3:
        assert "signal" in scheduler.messages[name], scheduler.messages[name]
print("twenty tasks ended as they should")

driver.reconcileTasks([])
wait_for("implicit reconciliation", lambda: ("sleeper", "TASK_RUNNING") in scheduler.reconciled)
driver.reconcileTasks([dict(task_id=dict(value="never-there"))])
wait_for("explicit reconciliation", lambda: ("never-there", "TASK_LOST") in scheduler.reconciled)
print("reconciled")

# The scheduler dies without a word; a second instance takes the framework over.
framework_id = driver.framework_id
driver.stop(True)
driver.join()
second = Twenty()
second.waiting = {}
taken = framework()
taken["id"] = dict(value=framework_id)
driver2 = MesosSchedulerDriver(second, taken, MASTER, use_addict=False)
driver2.start()
wait_for("the second driver", lambda: second.registered_with)
assert driver2.framework_id == framework_id
assert not scheduler.errors, scheduler.errors
print("failed over")

driver2.killTask(dict(value="sleeper"))
wait_for("the kill", lambda: second.states.get("sleeper") == "TASK_KILLED")
print("killed")

driver2.stop()
driver2.join()


def all_free():
    agent = state()["slaves"][0]
    return (agent["used_resources"]["cpus"] == 0 and agent["used_resources"]["mem"] == 0
            and agent["unreserved_resources"] == free)


wait_for("free resources", all_free)
wait_for("the framework's end", lambda: any(
    f["id"] == framework_id for f in state()["completed_frameworks"]))
print("everything is free again")
