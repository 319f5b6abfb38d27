"""What the scripts beside this one run: small command tasks."""

CPUS, MEM = 0.1, 32


def task(name, line, offer):
    """A task that runs a line of shell on the offer's agent."""
    return dict(
        name=name,
        task_id=dict(value=name),
        agent_id=dict(value=offer["agent_id"]["value"]),
        resources=[
            dict(name="cpus", type="SCALAR", scalar=dict(value=CPUS)),
            dict(name="mem", type="SCALAR", scalar=dict(value=MEM)),
        ],
        command=dict(shell=True, value=line),
    )


def answer(driver, offer, tasks):
    """Launches the tasks on the offer, or declines it when there are none."""
    filters = dict(refuse_seconds=0.1)
    if tasks:
        driver.launchTasks(offer["id"], tasks, filters)
    else:
        driver.declineOffer(offer["id"], filters)
