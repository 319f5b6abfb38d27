"""Looks for the leading master in ZooKeeper, with kazoo as it comes from PyPI.

Usage: old_zookeeper_client.py COMMAND HOSTS PATH

  watch     print {"nodes": [...], "info": {...}} whenever the masters change, as clients of
            Mesos see it: the child with the lowest number leads
  acl       print who may do what with the leader's node, and whether it can be deleted
"""

import json
import sys
import threading

from kazoo.client import KazooClient
from kazoo.exceptions import NoAuthError, NoNodeError

COMMAND, HOSTS, PATH = sys.argv[1:4]


def masters(children):
    """The nodes of masters, the leader's first."""
    nodes = [it for it in children if it.startswith("json.info_")]
    return sorted(nodes, key=lambda it: int(it.rsplit("_", 1)[1]))


def say(value):
    print(json.dumps(value), flush=True)


client = KazooClient(hosts=HOSTS, timeout=4.0, connection_retry={"max_tries": -1, "max_delay": 0.5},
                     command_retry={"max_tries": -1, "max_delay": 0.5})
client.start(timeout=30)

if COMMAND == "watch":
    changed = threading.Event()
    client.add_listener(lambda state: changed.set())
    while True:
        changed.clear()
        try:
            children = client.get_children(PATH, watch=lambda event: changed.set())
            nodes = masters(children)
            info = json.loads(client.get("%s/%s" % (PATH, nodes[0]))[0]) if nodes else None
            say({"nodes": nodes, "info": info})
        except NoNodeError:
            say({"nodes": [], "info": None})
        except Exception as problem:
            say({"problem": repr(problem)})
        # Watches are lost with the session, so look again from time to time, too.
        changed.wait(0.5)
elif COMMAND == "acl":
    leader = "%s/%s" % (PATH, masters(client.get_children(PATH))[0])
    acls = [[it.id.scheme, it.id.id, it.perms] for it in client.get_acls(leader)[0]]
    try:
        client.delete(leader)
        deleted = True
    except NoAuthError:
        deleted = False
    say({"acls": acls, "deleted": deleted})
