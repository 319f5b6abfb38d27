"""A framework of a torture run, by a client that we did not write or by none at all.

Usage: torture_framework.py pymesos|http NAME HOST:PORT,... LIVES TASKS SEED

Keeps TASKS tasks going until a line comes on standard input, then waits for their ends, tears
itself down and exits. What it asks for and hears goes to standard output, an object a line, for
the checker that judges all frameworks of the run.

`pymesos` is that package as it comes from PyPI; `http` speaks JSON over `http.client`, follows
307 and takes a silent connection for a dead one, as the API's documentation says.
"""

import http.client
import json
import random
import sys
import threading
import time
from urllib.parse import urlparse

KIND, NAME, MASTERS, LIVES, TASKS, SEED = sys.argv[1:7]
MASTERS, TASKS = MASTERS.split(","), int(TASKS)
CPUS, MEM = 0.1, 16
TERMINAL = {"TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_ERROR", "TASK_LOST",
            "TASK_DROPPED", "TASK_GONE", "TASK_GONE_BY_OPERATOR"}
# Silence of a task after which it is asked for; between two KILLs of one.
DOUBT, KILL_AGAIN = 5, 2

saying = threading.Lock()


def say(**what):
    with saying:
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()


def info():
    return dict(user="root", name=NAME, failover_timeout=3600.0,
                capabilities=[dict(type="PARTITION_AWARE")])


class Work:
    """What the framework wants, whoever carries it."""

    def __init__(self):
        self.lock = threading.RLock()
        self.random = random.Random(int(SEED))
        self.alive = {}
        self.made = 0
        self.stopping = False

    def make(self, agent):
        name = "%s-%05d" % (NAME, self.made)
        self.made += 1
        life = "echo $$ >> %s/%s" % (LIVES, name)
        kind, now = self.random.randrange(10), time.monotonic()
        kill_at = None
        if kind < 4:
            line, expect = life + "; sleep 0.2", "exit 0"
        elif kind < 6:
            line, expect = life + "; sleep 4", "exit 0"
        elif kind < 8:
            line, expect = life + "; sleep 1; exit 3", "exit 3"
        else:
            line, expect = life + "; while true; do sleep 1; done", "killed"
            kill_at = now + 0.5 + self.random.random() * 4
        say(launch=name, expect=expect)
        self.alive[name] = dict(agent=agent, kill_at=kill_at, news=now)
        return dict(
            name=name, task_id=dict(value=name), agent_id=dict(value=agent),
            resources=[dict(name="cpus", type="SCALAR", scalar=dict(value=CPUS)),
                       dict(name="mem", type="SCALAR", scalar=dict(value=MEM))],
            command=dict(shell=True, value=line))

    def answer(self, offer):
        """The tasks to launch on an offer."""
        def amount(name):
            return sum(it["scalar"]["value"] for it in offer["resources"] if it["name"] == name)
        with self.lock:
            room = int(min(amount("cpus") / CPUS, amount("mem") / MEM, 4))
            wanted = 0 if self.stopping else TASKS - len(self.alive)
            agent = offer["agent_id"]["value"]
            return [self.make(agent) for _ in range(max(0, min(room, wanted)))]

    def update(self, status):
        say(update={key: status.get(key) for key in (
            "state", "uuid", "reason", "message")}, task=status["task_id"]["value"])
        with self.lock:
            name = status["task_id"]["value"]
            # pymesos names no agent when it asks, and so hears no more than this of a task
            # whose launch was lost.
            if status["state"] in TERMINAL or (
                    KIND == "pymesos" and status["state"] == "TASK_UNKNOWN"):
                self.alive.pop(name, None)
            elif name in self.alive and status["state"] != "TASK_UNKNOWN":
                self.alive[name]["news"] = time.monotonic()

    def due(self):
        """Tasks to kill and tasks to ask for, now."""
        now, kills, doubtful = time.monotonic(), [], []
        with self.lock:
            for name, task in self.alive.items():
                if task["kill_at"] is not None and task["kill_at"] <= now:
                    task["kill_at"] = now + KILL_AGAIN
                    kills.append(name)
                if now - task["news"] >= DOUBT:
                    task["news"] = now
                    doubtful.append(dict(task_id=dict(value=name),
                                         agent_id=dict(value=task["agent"])))
        return kills, doubtful

    def doubt_all(self):
        with self.lock:
            for task in self.alive.values():
                task["news"] -= DOUBT


work = Work()
# What is asked about a task is asked before its end is acknowledged, or not at all: of one that
# ended and was acknowledged the master knows nothing.
order = threading.RLock()


class Pymesos:
    def __init__(self):
        from pymesos import MesosSchedulerDriver, Scheduler
        import logging
        logging.disable(logging.CRITICAL)
        client = self

        class Ears(Scheduler):
            def reregistered(self, driver, master_info):
                work.doubt_all()

            def resourceOffers(self, driver, offers):
                client.offers(driver, offers)

            def statusUpdate(self, driver, update):
                with order:
                    work.update(update)
                    driver.acknowledgeStatusUpdate(update)

            def error(self, driver, message):
                say(error=message)

        def start(framework_id):
            framework = info()
            if framework_id:
                framework["id"] = dict(value=framework_id)
            # Without a TEARDOWN when it gives up.
            driver = MesosSchedulerDriver(Ears(), framework, MASTERS[0], use_addict=False,
                                          implicit_acknowledgements=False, failover=True)
            driver.start()
            return driver

        self.start = start
        self.driver = start(None)

    def offers(self, driver, offers):
        say(offers=len(offers))
        for offer in offers:
            tasks, filters = work.answer(offer), dict(refuse_seconds=0.5)
            try:
                if tasks:
                    driver.launchTasks(offer["id"], tasks, filters)
                else:
                    driver.declineOffer(offer["id"], filters)
            except Exception:
                pass  # lost with its connection; asked for later

    def beat(self):
        if self.driver.aborted:
            # It ends with the first acknowledgement that is not taken, as when its master dies.
            self.driver.join()
            self.driver = self.start(self.driver.framework_id)
            work.doubt_all()
        with order:
            kills, doubtful = work.due()
            for name in kills:
                self.driver.killTask(dict(value=name))
            if doubtful:
                self.driver.reconcileTasks(doubtful)

    def end(self):
        self.driver.stop()
        self.driver.join()


class Plain:
    PATH = "/api/v1/scheduler"
    # Longer than the time between two heartbeats.
    SILENCE = 20

    def __init__(self):
        self.id = self.stream = self.master = None
        self.ended = False
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.thread.start()

    def post(self, master, call, headers, timeout):
        host, port = master.rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=timeout)
        connection.request("POST", self.PATH, json.dumps(call), dict(
            {"Content-Type": "application/json", "Accept": "application/json"}, **headers))
        return connection, connection.getresponse()

    def listen(self):
        turn, target = 0, None
        while not self.ended:
            master = target or MASTERS[turn % len(MASTERS)]
            turn, target = turn + 1, None
            try:
                target = self.subscribe(master)
            except (OSError, http.client.HTTPException, ValueError):
                pass
            self.stream = None
            time.sleep(0.1)

    def subscribe(self, master):
        framework = info()
        call = dict(type="SUBSCRIBE", subscribe=dict(framework_info=framework))
        if self.id:
            framework["id"] = call["framework_id"] = dict(value=self.id)
        connection, answer = self.post(master, call, {}, self.SILENCE)
        try:
            if answer.status == 307:
                return urlparse(answer.getheader("Location")).netloc
            if answer.status != 200:
                say(refused=answer.status, text=answer.read(200).decode("utf-8", "replace"))
                return None
            stream = answer.getheader("Mesos-Stream-Id")
            while True:
                length = answer.readline()
                if not length:
                    return None
                record = answer.read(int(length))
                if len(record) < int(length):
                    return None
                self.event(json.loads(record), master, stream)
        finally:
            connection.close()

    def event(self, event, master, stream):
        kind = event["type"]
        if kind == "SUBSCRIBED":
            again = self.id is not None
            self.id = event["subscribed"]["framework_id"]["value"]
            self.master, self.stream = master, stream
            if again:
                work.doubt_all()
        elif kind == "OFFERS":
            offers = event["offers"]["offers"]
            say(offers=len(offers))
            for offer in offers:
                self.answer(offer)
        elif kind == "UPDATE":
            status = event["update"]["status"]
            with order:
                work.update(status)
                if status.get("uuid"):
                    self.call(dict(type="ACKNOWLEDGE", acknowledge=dict(
                        agent_id=status["agent_id"], task_id=status["task_id"],
                        uuid=status["uuid"])))
        elif kind == "ERROR":
            say(error=event["error"]["message"])

    def answer(self, offer):
        tasks, filters = work.answer(offer), dict(refuse_seconds=0.5)
        if tasks:
            launch = dict(type="LAUNCH", launch=dict(task_infos=tasks))
            self.call(dict(type="ACCEPT", accept=dict(
                offer_ids=[offer["id"]], operations=[launch], filters=filters)))
        else:
            self.call(dict(type="DECLINE", decline=dict(
                offer_ids=[offer["id"]], filters=filters)))

    def call(self, call):
        """Sends a call; one that is lost with its connection is asked for later."""
        master, stream = self.master, self.stream
        if stream is None:
            return
        call["framework_id"] = dict(value=self.id)
        try:
            connection, answer = self.post(master, call, {"Mesos-Stream-Id": stream}, 5)
            answer.read()
            connection.close()
        except (OSError, http.client.HTTPException):
            pass

    def beat(self):
        with order:
            kills, doubtful = work.due()
            for name in kills:
                self.call(dict(type="KILL", kill=dict(task_id=dict(value=name))))
            if doubtful:
                self.call(dict(type="RECONCILE", reconcile=dict(tasks=doubtful)))

    def end(self):
        self.ended = True
        self.call(dict(type="TEARDOWN"))


def wait_for_the_end():
    sys.stdin.readline()
    work.stopping = True


client = Pymesos() if KIND == "pymesos" else Plain()
threading.Thread(target=wait_for_the_end, daemon=True).start()
while not (work.stopping and not work.alive):
    try:
        time.sleep(0.25)
        client.beat()
    except (Exception, KeyboardInterrupt):
        pass  # not connected; pymesos interrupts the main thread when it gives up
client.end()
say(ended=True)
