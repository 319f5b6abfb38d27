"""A framework that finds its masters in ZooKeeper, with pymesos as it comes from PyPI.

Usage: zookeeper_framework.py zk://HOST:PORT/PATH

Runs a task that stays, and one that ends after every subscription. Prints a line of JSON for
every subscription (the port of the master) and for every state of a task.
"""

import json
import sys
import threading

from pymesos import MesosSchedulerDriver, Scheduler

from tasks import answer, task


def say(**what):
    print(json.dumps(what), flush=True)


class Follower(Scheduler):
    def __init__(self):
        self.lock = threading.Lock()
        self.waiting = {"stays": "exec sleep 1000"}
        self.subscriptions = 0

    def subscribed(self, master):
        with self.lock:
            self.waiting["ends-%d" % self.subscriptions] = "true"
            self.subscriptions += 1
        say(master=master["port"])

    def registered(self, driver, framework_id, master):
        self.subscribed(master)

    def reregistered(self, driver, master):
        self.subscribed(master)

    def resourceOffers(self, driver, offers):
        for offer in offers:
            tasks = []
            with self.lock:
                if self.waiting:
                    name = next(iter(self.waiting))
                    line = self.waiting.pop(name)
                    tasks.append(task(name, line, offer))
            answer(driver, offer, tasks)

    def statusUpdate(self, driver, update):
        say(task=update["task_id"]["value"], state=update["state"])

    def error(self, driver, message):
        say(error=message)


framework = dict(user="root", name="old", failover_timeout=600, checkpoint=True)
driver = MesosSchedulerDriver(Follower(), framework, sys.argv[1], use_addict=False)
driver.start()
driver.join()
